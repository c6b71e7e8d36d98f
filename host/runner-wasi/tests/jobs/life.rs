//! Starts, what a job is given, and how it ends.

use std::fs;
use std::time::{Duration, Instant};

use domain::{EndReason, JobKind, Leftovers};
use engine::{LaunchError, LogsUntil, PrepareError, Runner as _, Sighting};
use futures_util::StreamExt as _;
use gate::Origin;
use tokio::time::sleep;

use crate::place::{IMAGE, Place, permit, start, ticket};

#[tokio::test]
async fn a_job_ends_with_its_own_exit_code() {
    let place = Place::new();
    for (act, code) in [("say=hello", 0), ("exit=1", 1), ("panic", 134)] {
        let started = start(&place, act).await;
        let exit = started.exit().await;
        assert_eq!((exit.code, exit.out_of_memory), (code, false), "{act}");
        assert!(exit.ended_at >= exit.started_at);
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_sees_its_environment_its_data_and_nothing_else() {
    let place = Place::new();
    let act = "env,list=/,list=/data,read=/etc/passwd,read=/data/../../components/probe.wasm,\
               write=/data/a.mp4=10,write=/b=1,connect=127.0.0.1:1,say=done";
    let started = start(&place, act).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let lines: Vec<_> = output.lines().collect();
    let env: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("ACT="))
        .collect();
    assert_eq!(env.len(), 1, "{output}");
    assert!(!output.contains("PATH="), "{output}");
    for refused in ["read failed", "write failed", "connect failed"] {
        assert!(output.contains(refused), "{refused}: {output}");
    }
    assert!(!output.contains("read worked"), "{output}");
    assert!(!output.contains("connect worked"), "{output}");
    assert!(lines.ends_with(&["done"]), "{output}");
    assert_eq!(
        started.runner.leftovers(&started.name).await.unwrap(),
        Some(Leftovers {
            media_bytes: 10,
            total_bytes: 10
        })
    );
}

#[tokio::test]
async fn asked_to_end_its_input_ends() {
    let place = Place::new();
    let started = start(&place, "say=ready,wait,say=asked,exit=1").await;
    let Sighting::Running { since } = started.runner.inspect(&started.name).await.unwrap() else {
        panic!("it runs")
    };
    started.runner.terminate(&started.name).await.unwrap();
    started.runner.terminate(&started.name).await.unwrap();
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.started_at), (1, since));
    assert_eq!(started.output().await, "ready\nasked\n");
}

#[tokio::test]
async fn a_job_that_computes_for_ever_is_killed_at_once() {
    let place = Place::new();
    for act in ["spin", "sleep-ms=1000000", "wait"] {
        let started = start(&place, act).await;
        sleep(Duration::from_millis(50)).await;
        let begin = Instant::now();
        started.runner.kill(&started.name).await.unwrap();
        assert_eq!(started.exit().await.code, 137, "{act}");
        // Generous: the machine may be busy.
        assert!(begin.elapsed() < Duration::from_secs(5), "{act}");
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn logs_are_followed_while_it_runs() {
    let place = Place::new();
    let started = start(&place, "say=first,wait,say=last").await;
    let logs = started.runner.logs(&started.name, LogsUntil::End).await;
    let mut logs = logs.unwrap().unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap(), "first\n");
    let now = started.runner.logs(&started.name, LogsUntil::Now).await;
    let mut now = now.unwrap().unwrap();
    assert_eq!(now.next().await.unwrap().unwrap(), "first\n");
    assert!(now.next().await.is_none());
    started.runner.terminate(&started.name).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap(), "last\n");
    assert!(logs.next().await.is_none());
}

#[tokio::test]
async fn a_job_is_started_once() {
    let place = Place::new();
    let runner = place.runner();
    let gate = place.gate();
    let permit = permit(&runner, &gate, "wait", None).await;
    let first = runner.launch(&permit, &ticket(true)).await.unwrap();
    assert_eq!(runner.launch(&permit, &ticket(false)).await.unwrap(), first);
    let other = crate::place::permit(&runner, &gate, "exit=1", None).await;
    let taken = runner.launch(&other, &ticket(true)).await.unwrap_err();
    assert!(matches!(taken, LaunchError::NameTaken { .. }), "{taken}");
}

#[tokio::test]
async fn nothing_is_left_of_a_withdrawn_start_or_a_removed_job() {
    let place = Place::new();
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), "wait", None).await;
    let withdrawn = runner.launch(&permit, &ticket(false)).await.unwrap_err();
    assert!(matches!(withdrawn, LaunchError::Withdrawn));
    assert_eq!(
        runner.inspect(permit.name()).await.unwrap(),
        Sighting::Absent
    );
    assert_eq!(runner.list().await.unwrap(), []);

    runner.launch(&permit, &ticket(true)).await.unwrap();
    assert_eq!(runner.list().await.unwrap(), [permit.name().clone()]);
    runner.remove(permit.name()).await.unwrap();
    runner.remove(permit.name()).await.unwrap();
    assert_eq!(
        runner.inspect(permit.name()).await.unwrap(),
        Sighting::Absent
    );
    assert_eq!(runner.list().await.unwrap(), []);
    assert!(runner.leftovers(permit.name()).await.unwrap().is_none());
    let logs = runner.logs(permit.name(), LogsUntil::Now).await.unwrap();
    assert!(logs.is_none());
}

#[tokio::test]
async fn images_are_what_the_configuration_lists() {
    let place = Place::new();
    let runner = place.runner();
    let gate = place.gate();
    let reason = async |image: &str| {
        let permit = gate.image(JobKind::Recording, image, &Origin::Client);
        match runner.prepare(&permit.unwrap()).await {
            Err(PrepareError::Pull { reason, .. }) => Some(reason),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    };
    assert_eq!(reason(IMAGE).await, None);
    assert_eq!(
        reason("mattermost/calls-recorder:v9").await,
        Some(EndReason::ImageNotFound)
    );
    let component = place.dir.path().join("components/probe.wasm");
    fs::write(&component, "(module)").unwrap();
    assert_eq!(reason(IMAGE).await, Some(EndReason::ImageRefused));
    fs::remove_file(&component).unwrap();
    assert_eq!(reason(IMAGE).await, Some(EndReason::ImageUnreachable));
}
