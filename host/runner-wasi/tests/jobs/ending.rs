//! Jobs at the end of the process that they run in, and after it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{JobKind, Leftovers, Timestamp};
use engine::{LaunchError, Runner as _, Sighting};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::place::{IMAGE, Place, Started, permit, start, ticket};

#[tokio::test]
async fn asked_to_end_in_time_a_job_ends_as_it_wants() {
    let place = Place::new();
    let started = start(&place, "say=ready,wait,write=/data/call.mp4=5,exit=1").await;
    assert_eq!(started.runner.shut_down(Duration::from_secs(60)).await, 0);
    assert_eq!(started.exit().await.code, 1);
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().media_bytes, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_who_waits_for_a_job_is_told_before_all_is_over() {
    // Without that it goes wrong in one of ten or so.
    for _ in 0..10 {
        let place = Place::new();
        let started = Arc::new(start(&place, "wait").await);
        let over = CancellationToken::new();
        let told = tokio::spawn({
            let (started, over) = (Arc::clone(&started), over.clone());
            async move {
                tokio::select! {
                    biased;
                    changed = started.runner.changed(&started.name) => changed.is_ok(),
                    () = over.cancelled() => false,
                }
            }
        });
        sleep(Duration::from_millis(20)).await;
        assert_eq!(started.runner.shut_down(Duration::from_secs(60)).await, 0);
        over.cancel();
        assert!(told.await.unwrap());
    }
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_lost_and_its_data_kept() {
    let place = Place::new();
    let started = start(&place, "write=/data/call.mp4=5,say=written,spin").await;
    started.says("written").await;
    let begin = Instant::now();
    let lost = started.runner.shut_down(Duration::from_millis(300)).await;
    // Generous: the machine may be busy.
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(lost, 1);
    let sighting = started.runner.inspect(&started.name).await.unwrap();
    assert_eq!(sighting, Sighting::Lost);
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().media_bytes, 5);
}

#[tokio::test]
async fn nothing_is_started_any_more_at_the_end() {
    let place = Place::new();
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), "wait", None).await;
    assert_eq!(runner.shut_down(Duration::ZERO).await, 0);
    let refused = runner.launch(&permit, &ticket(true)).await.unwrap_err();
    assert!(matches!(refused, LaunchError::Withdrawn), "{refused}");
    assert_eq!(runner.list().await.unwrap(), []);
}

#[tokio::test]
async fn jobs_of_a_process_that_is_gone_are_lost_and_their_data_kept() {
    let place = Place::new();
    let started = start(&place, "say=before,write=/data/call.mp4=5,say=written,wait").await;
    started.says("written").await;
    let Started { runner, name } = started;
    drop(runner);

    let runner = place.runner();
    assert_eq!(runner.inspect(&name).await.unwrap(), Sighting::Lost);
    let left = runner.leftovers(&name).await.unwrap().unwrap();
    assert_eq!(left.media_bytes, 5);
    let permit = permit(&runner, &place.gate(), "exit=0", None).await;
    let again = runner.launch(&permit, &ticket(true)).await.unwrap_err();
    assert!(matches!(again, LaunchError::Gone), "{again}");
    assert_eq!(
        runner.inspect(&name).await.unwrap(),
        Sighting::Lost,
        "it is not run again"
    );
}

#[tokio::test]
async fn a_directory_tells_of_its_job_and_nothing_that_is_secret() {
    let place = Place::new();
    let started = start(&place, "write=/data/call.mp4=5,say=written,wait").await;
    started.says("written").await;
    let Sighting::Running { since } = started.runner.inspect(&started.name).await.unwrap() else {
        panic!("it runs")
    };
    let Started { runner, name } = started;
    drop(runner);

    let runner = place.runner();
    let said = runner.describe(&name).await.unwrap().unwrap();
    assert_eq!(said.kind, JobKind::Recording);
    assert_eq!(said.client.as_str(), "site");
    assert_eq!(said.submitted_at, Timestamp::from_millis(0));
    assert_eq!(said.max_duration, Duration::from_secs(60));
    assert_eq!(said.image.to_string(), IMAGE);
    let ran_at = said.ran_at.expect("it ran");
    assert!(ran_at <= since && since.after(ran_at) < Duration::from_secs(10));

    let told = fs::read_to_string(place.of(&name).join("started")).unwrap();
    assert!(told.contains("io.offloader.client"));
    assert!(!told.contains("call.mp4"), "an input may be secret: {told}");
}

#[tokio::test]
async fn what_the_disk_lost_makes_nobody_guess() {
    let place = Place::new();
    let started = start(&place, "write=/data/call.mp4=5,exit=0").await;
    started.exit().await;
    let Started { runner, name } = started;
    drop(runner);
    let (started, created) = (
        place.of(&name).join("started"),
        place.of(&name).join("created"),
    );
    let runner = place.runner();

    // That it was started is forgotten, but not what it left.
    fs::rename(&started, &created).unwrap();
    assert_eq!(runner.inspect(&name).await.unwrap(), Sighting::Lost);
    assert!(
        runner
            .describe(&name)
            .await
            .unwrap()
            .unwrap()
            .ran_at
            .is_some()
    );
    // What is written in part says nothing.
    let whole = fs::read(&created).unwrap();
    for part in [0, whole.len() / 2] {
        fs::write(&created, &whole[..part]).unwrap();
        assert_eq!(runner.describe(&name).await.unwrap(), None);
        assert_eq!(runner.inspect(&name).await.unwrap(), Sighting::Lost);
    }
    // So does what was said of another job.
    let other = String::from_utf8(whole.clone()).unwrap();
    let other = other.replace(name.job().as_str(), &"z".repeat(26));
    fs::write(&created, other).unwrap();
    assert_eq!(runner.describe(&name).await.unwrap(), None);
    // Without anything left it never ran, as far as anybody can tell.
    fs::write(&created, &whole).unwrap();
    fs::remove_file(place.of(&name).join("data/call.mp4")).unwrap();
    assert_eq!(runner.inspect(&name).await.unwrap(), Sighting::Created);
    assert_eq!(runner.describe(&name).await.unwrap().unwrap().ran_at, None);
    fs::remove_file(&created).unwrap();
    assert_eq!(runner.describe(&name).await.unwrap(), None);
}

#[tokio::test]
async fn a_start_that_a_crash_cut_short_is_made_again() {
    let place = Place::new();
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), "exit=1", None).await;
    let dir = place.of(permit.name());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("created"), "{").unwrap();
    assert_eq!(
        runner.inspect(permit.name()).await.unwrap(),
        Sighting::Created
    );
    runner.launch(&permit, &ticket(true)).await.unwrap();
    let name = permit.name().clone();
    assert_eq!(Started { runner, name }.exit().await.code, 1);
}

#[tokio::test]
async fn jobs_of_another_installation_are_not_listed() {
    let place = Place::new();
    let started = start(&place, "exit=0").await;
    started.exit().await;
    let own = place.of(&started.name);
    let other = own.to_str().unwrap().replace("-main-", "-other-");
    fs::create_dir(other).unwrap();
    fs::write(place.dir.path().join("jobs/lost+found"), "").unwrap();
    let listed = started.runner.list().await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&started.name));
    let nothing = Leftovers {
        media_bytes: 0,
        total_bytes: 0,
    };
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left, Some(nothing));
}
