//! A container's life from start to removal.

use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use domain::{JobKind, Timestamp};
use engine::{LogsUntil, Runner, Sighting};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;

use crate::bench::{MAX_DURATION, SUBMITTED_UNIX_MS, always, with_engine};

#[tokio::test]
async fn it_runs_ends_on_sigterm_and_is_removed() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=3"]).await;
        let permit = bench.permit(1, &image);
        let name = permit.name();
        assert_eq!(bench.runner.inspect(name).await.unwrap(), Sighting::Absent);

        let launched = bench.runner.launch(&permit, &always()).await.unwrap();
        assert_eq!(
            bench.runner.inspect(name).await.unwrap(),
            Sighting::Running { since: launched.at }
        );
        assert_eq!(
            bench.runner.list().await.unwrap(),
            std::slice::from_ref(name)
        );
        bench.until_ready(&permit).await;

        bench.runner.terminate(name).await.unwrap();
        let exit = bench.until_ended(&permit).await;
        assert_eq!(
            (exit.code, exit.out_of_memory, exit.started_at),
            (3, false, launched.at)
        );
        assert!(exit.ended_at > exit.started_at);

        bench.runner.remove(name).await.unwrap();
        assert!(bench.nothing_left(&permit).await);
        assert_eq!(bench.runner.inspect(name).await.unwrap(), Sighting::Absent);
        assert_eq!(bench.runner.list().await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_container_tells_enough_of_its_job_to_be_looked_after_without_its_record() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        assert_eq!(bench.runner.describe(permit.name()).await.unwrap(), None);
        let launched = bench.runner.launch(&permit, &always()).await.unwrap();
        let described = bench.runner.describe(permit.name()).await.unwrap().unwrap();
        assert_eq!(described.kind, JobKind::Recording);
        assert_eq!(described.client.as_str(), "site");
        assert_eq!(
            described.submitted_at,
            Timestamp::from_millis(SUBMITTED_UNIX_MS)
        );
        assert_eq!(described.max_duration, MAX_DURATION);
        assert_eq!((described.image, described.image_id), image);
        assert_eq!(described.ran_at, Some(launched.at));

        let another = bench.permit(2, &image);
        let mut labels = another.labels().clone();
        labels.remove("io.offloader.max-duration-ms");
        bench
            .create_by_hand(&another, labels, Default::default())
            .await;
        assert_eq!(bench.runner.describe(another.name()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn the_room_of_an_engine_on_this_machine_is_known() {
    with_engine(async |bench| {
        assert_eq!(
            bench.runner.free_bytes().await.unwrap(),
            None,
            "nobody asks"
        );
        let root = bench.docker.info().await.unwrap().docker_root_dir.unwrap();
        let here = bench.runner_with(|config| {
            config.free_bytes = Some(|path| Ok(path.as_os_str().len() as u64));
        });
        let free = here.free_bytes().await.unwrap();
        assert_eq!(free, Some(root.len() as u64), "asked about {root}");
        let elsewhere = bench.runner_with(|config| {
            config.free_bytes = Some(|_| Err(std::io::ErrorKind::NotFound.into()));
        });
        assert_eq!(elsewhere.free_bytes().await.unwrap(), None);
        let remote = bench.runner_with(|config| {
            config.host = Some("tcp://127.0.0.1:9".to_owned());
            config.free_bytes = Some(|_| Ok(1));
        });
        assert_eq!(remote.free_bytes().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_deaf_container_has_to_be_killed() {
    with_engine(async |bench| {
        let image = bench.image(&["ignore"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        bench.runner.terminate(permit.name()).await.unwrap();
        let waiting = timeout(Duration::from_secs(2), bench.runner.changed(permit.name())).await;
        assert!(waiting.is_err(), "it ended on SIGTERM");
        bench.runner.kill(permit.name()).await.unwrap();
        let exit = bench.until_ended(&permit).await;
        assert_eq!((exit.code, exit.out_of_memory), (137, false));
    })
    .await;
}

#[tokio::test]
async fn calls_on_what_is_gone_or_ended_succeed() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &image);
        let name = permit.name();
        for ended in [false, true] {
            if ended {
                bench.runner.launch(&permit, &always()).await.unwrap();
                bench.until_ended(&permit).await;
            }
            bench.runner.terminate(name).await.unwrap();
            bench.runner.kill(name).await.unwrap();
            bench.runner.changed(name).await.unwrap();
        }
        bench.runner.remove(name).await.unwrap();
        bench.runner.remove(name).await.unwrap();
        assert_eq!(bench.runner.leftovers(name).await.unwrap(), None);
        assert!(bench.logs(&permit).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn waiting_ends_when_the_container_is_removed_by_hand() {
    with_engine(async |bench| {
        let image = bench.image(&["ignore"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let by_hand = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let force = RemoveContainerOptions {
                force: true,
                ..Default::default()
            };
            bench
                .docker
                .remove_container(&permit.name().to_string(), Some(force))
                .await
                .unwrap();
        };
        let changed = timeout(Duration::from_secs(20), bench.runner.changed(permit.name()));
        let (changed, ()) = tokio::join!(changed, by_hand);
        changed.expect("waiting ends").unwrap();
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Absent
        );
    })
    .await;
}

#[tokio::test]
async fn the_end_within_milliseconds_is_told() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=7"]).await;
        let permit = bench.permit(1, &image);
        let launched = bench.runner.launch(&permit, &always()).await.unwrap();
        let exit = bench.until_ended(&permit).await;
        assert_eq!((exit.code, exit.started_at), (7, launched.at));
    })
    .await;
}

#[tokio::test]
async fn running_out_of_memory_is_told_where_the_engine_knows() {
    with_engine(async |bench| {
        let image = bench.image(&["eat"]).await;
        // The engine misses it when it hears of the end first; not every time.
        for job in 0..10 {
            let permit =
                bench.permit_with(job, &image, &[], |grants| grants.memory_bytes = 16 << 20);
            bench.runner.launch(&permit, &always()).await.unwrap();
            let exit = bench.until_ended(&permit).await;
            let state = bench.inspect(&permit).await.unwrap().state.unwrap();
            assert_eq!(
                (exit.code, Some(exit.out_of_memory)),
                (137, state.oom_killed)
            );
            if exit.out_of_memory {
                return;
            }
        }
        panic!("the engine never knew");
    })
    .await;
}

#[tokio::test]
async fn logs_hold_all_of_stdout_and_stderr() {
    with_engine(async |bench| {
        let image = bench.image(&["print=20000"]).await;
        let permit = bench.permit(1, &image);
        let output = bench.output_of(&permit).await;
        for stream in ["out", "err"] {
            let numbers: Vec<u32> = output
                .lines()
                .filter_map(|line| line.strip_prefix(stream)?.trim().parse().ok())
                .collect();
            assert!(
                numbers.iter().copied().eq(0..20_000),
                "{stream}: {} lines",
                numbers.len()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn followed_logs_come_while_it_runs_and_end_with_it() {
    with_engine(async |bench| {
        let image = bench.image(&["print=3", "hold=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let logs = bench.runner.logs(permit.name(), LogsUntil::End).await;
        let mut logs = logs.unwrap().unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"ready\n") {
            let part = timeout(Duration::from_secs(20), logs.next()).await;
            read.extend(part.expect("it prints").unwrap().unwrap());
        }
        bench.runner.terminate(permit.name()).await.unwrap();
        let rest = timeout(Duration::from_secs(20), logs.try_collect::<Vec<_>>()).await;
        rest.expect("it ends").unwrap();
        bench.until_ended(&permit).await;
    })
    .await;
}

#[tokio::test]
async fn a_log_reader_that_stalls_or_leaves_does_no_harm() {
    with_engine(async |bench| {
        let image = bench.image(&["print=20000", "hold=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut stalled = bench.logs(&permit).await.unwrap();
        stalled.next().await.unwrap().unwrap();
        bench.runner.terminate(permit.name()).await.unwrap();
        bench.until_ended(&permit).await;
        drop(stalled);
        let whole = bench.logs(&permit).await.unwrap();
        let whole: Vec<_> = whole.try_collect().await.unwrap();
        let lines = whole
            .concat()
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
        assert_eq!(lines, 40_001);
    })
    .await;
}

#[tokio::test]
async fn an_engine_out_of_reach_is_told_as_such() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &image);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("tcp://{}", silent.local_addr().unwrap());
        for host in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:9", &silent] {
            let runner = bench.runner_with(|config| config.host = Some(host.to_owned()));
            let error = runner.ping().await.unwrap_err();
            assert!(error.unreachable, "{host}: {error}");
            if host == silent {
                continue;
            }
            assert!(
                runner.inspect(permit.name()).await.unwrap_err().unreachable,
                "{host}"
            );
            assert!(runner.list().await.unwrap_err().unreachable, "{host}");
            let launched = runner.launch(&permit, &always()).await;
            assert!(
                matches!(launched, Err(engine::LaunchError::Engine(error)) if error.unreachable),
                "{host}"
            );
        }
        bench.runner.ping().await.unwrap();
    })
    .await;
}
