use std::time::Duration;

use domain::{JobId, Lifecycle, State, Timestamp};
use futures_util::TryStreamExt as _;
use tokio::time::sleep;

use crate::live::Found;
use crate::scripted::*;
use crate::{DeleteError, Engine, StopError};

const MINUTE: Duration = Duration::from_secs(60);

/// A world with jobs that were not delivered and are kept, each for a minute more than the last.
async fn kept(jobs: u8) -> (Stage, Engine, Vec<JobId>) {
    let mut stage = Stage::default();
    stage.runner.world().script = Script {
        runs_for: Some(MINUTE),
        media_left: 5000,
        ..Script::default()
    };
    let engine = stage.engine().await;
    let mut ids = Vec::new();
    for letter in (b'a'..).take(jobs.into()) {
        let view = engine.submit(recording(char::from(letter))).await.unwrap();
        ids.push(view.job.id.clone());
        sleep(2 * MINUTE).await;
    }
    (stage, engine, ids)
}

fn sleeps(engine: &Engine, id: &JobId) -> bool {
    matches!(engine.shared.live.find(id), Found::Asleep)
}

async fn state(engine: &Engine, id: &JobId) -> State {
    engine.job(id).await.unwrap().unwrap().job.state
}

async fn kept_until(engine: &Engine, id: &JobId) -> Timestamp {
    match state(engine, id).await {
        State::Retained { until, .. } => until.expect("kept for a time"),
        state => panic!("{state:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_kept_sleeps_and_answers_as_if_it_did_not() {
    let (stage, engine, ids) = kept(1).await;
    let id = &ids[0];
    assert!(sleeps(&engine, id));
    let before = state(&engine, id).await;
    assert_eq!(before.lifecycle(), Lifecycle::Retained);
    assert!(matches!(engine.stop(id).await, Err(StopError::NotRunning)));

    let job = engine.job(id).await.unwrap().unwrap();
    let files = engine.files(&job.job).await.unwrap().unwrap();
    sleep(MINUTE).await;
    assert!(!sleeps(&engine, id), "somebody reads what it left");
    files.try_collect::<Vec<_>>().await.unwrap();
    sleep(MINUTE).await;
    assert!(sleeps(&engine, id));
    assert_eq!(state(&engine, id).await, before);

    engine.delete(id).await.unwrap();
    assert!(engine.job(id).await.unwrap().is_none());
    assert!(matches!(engine.delete(id).await, Err(DeleteError::Unknown)));
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_at_the_same_time_as_others_is_answered() {
    let (stage, engine, ids) = kept(1).await;
    let id = &ids[0];
    stage.runner.world().offers_resend = true;
    let (resent, deleted, stopped, again) = tokio::join!(
        engine.resend(id),
        engine.delete(id),
        engine.stop(id),
        engine.delete(id),
    );
    assert!(matches!(stopped, Err(StopError::NotRunning)), "{stopped:?}");
    let resend = &resent.unwrap().job.id;
    for deleted in [deleted, again] {
        let refused = matches!(&deleted, Err(DeleteError::BeingResent(by)) if by == resend);
        assert!(refused, "{deleted:?}");
    }
    assert_eq!(stage.runner.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_goes_at_its_time_also_after_a_restart() {
    let (mut stage, engine, ids) = kept(3).await;
    engine.shutdown().await;
    let engine = stage.engine().await;
    let mut until = Vec::new();
    for id in &ids {
        assert!(sleeps(&engine, id), "a task for each would be many");
        until.push(kept_until(&engine, id).await);
    }
    assert!(until.is_sorted());
    for (gone, at) in until.into_iter().enumerate() {
        assert_eq!(stage.runner.containers(), 3 - gone);
        sleep(at.after(engine.shared.now())).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            state(&engine, &ids[gone]).await.lifecycle(),
            Lifecycle::Removed
        );
        assert!(!engine.shared.live.knows(&ids[gone]));
    }
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_holds_up_no_other_and_is_read_again() {
    let (stage, engine, ids) = kept(2).await;
    let last = kept_until(&engine, &ids[1]).await;
    stage.store.memory().unreadable_job = Some(ids[0].clone());
    sleep(last.after(engine.shared.now()) + MINUTE).await;
    assert_eq!(
        state(&engine, &ids[1]).await.lifecycle(),
        Lifecycle::Removed
    );
    assert_eq!(stage.runner.containers(), 1);
    assert!(engine.delete(&ids[0]).await.is_err());
    stage.store.memory().unreadable_job = None;
    sleep(MINUTE).await;
    assert_eq!(
        state(&engine, &ids[0]).await.lifecycle(),
        Lifecycle::Removed
    );
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_way_to_a_job_ends_no_other() {
    let (stage, engine, ids) = kept(2).await;
    let first = kept_until(&engine, &ids[0]).await;
    stage.store.memory().panics = true;
    sleep(first.after(engine.shared.now()) + Duration::from_secs(1)).await;
    stage.store.memory().panics = false;
    sleep(10 * MINUTE).await;
    for id in &ids {
        assert_eq!(state(&engine, id).await.lifecycle(), Lifecycle::Removed);
    }
}
