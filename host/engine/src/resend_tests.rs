use std::time::Duration;

use domain::*;
use gate::ContainerName;
use tokio::time::sleep;

use crate::scripted::*;
use crate::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A world with a recording that was not delivered, which its image would send in again.
async fn unsent() -> (Stage, Engine, JobId) {
    let mut stage = Stage::default();
    {
        let mut world = stage.runner.world();
        world.offers_resend = true;
        world.script = Script {
            runs_for: Some(MINUTE),
            media_left: 5000,
            ..Script::default()
        };
        world.resend_script.runs_for = Some(MINUTE);
    }
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    sleep(2 * MINUTE).await;
    assert!(job(&engine, &id).await.keeps_unsent());
    (stage, engine, id)
}

/// A resend that fails.
fn sends_nothing() -> Script {
    Script {
        runs_for: Some(MINUTE),
        exit_code: 1,
        media_left: 5000,
        ..Script::default()
    }
}

async fn job(engine: &Engine, id: &JobId) -> Job {
    Job::clone(&engine.job(id).await.unwrap().unwrap().job)
}

fn container(job: &JobId) -> ContainerName {
    ContainerName::new("test".parse().unwrap(), job.clone(), 1)
}

fn delivery(job: &Job) -> Delivery {
    job.state.end().unwrap().delivery
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_in_after_all_is_no_longer_the_only_copy() {
    let (stage, engine, id) = unsent().await;
    let kept = job(&engine, &id).await;
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    let running = job(&engine, &resend).await;
    assert_eq!(running.state.lifecycle(), Lifecycle::Running);
    assert_eq!(running.resends, Some(id.clone()));
    assert_eq!(
        (running.kind, running.owner, &running.inputs),
        (kept.kind, kept.owner, &kept.inputs)
    );
    // The same variables, secrets too, and none that the image brought along.
    let runner = &stage.runner;
    assert_eq!(
        runner.env_of(&container(&resend)),
        runner.env_of(&container(&id))
    );
    sleep(2 * MINUTE).await;
    let (sent, resend) = (job(&engine, &id).await, job(&engine, &resend).await);
    assert_eq!(delivery(&sent), Delivery::Delivered);
    let (was, is) = (kept.state.end().unwrap(), sent.state.end().unwrap());
    assert_eq!((was.reason, was.outcome), (is.reason, is.outcome));
    assert_eq!(
        sent.state.lifecycle(),
        Lifecycle::Retained,
        "as any failed job"
    );
    assert_eq!(resend.state.lifecycle(), Lifecycle::Removed);
    assert_eq!(runner.containers(), 1);
    let again = engine.resend(&id).await.unwrap_err();
    assert!(matches!(again, ResendError::NothingUnsent), "{again}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_decides_anew_about_what_was_sent_in_after_all() {
    let (mut stage, engine, id) = unsent().await;
    engine.shutdown().await;
    stage.policies.retention = RetentionVerdict::Delete;
    let engine = stage.engine().await;
    engine.resend(&id).await.unwrap();
    sleep(2 * MINUTE).await;
    assert_eq!(
        job(&engine, &id).await.state.lifecycle(),
        Lifecycle::Removed
    );
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_leaves_all_as_it_was_and_its_log_for_an_hour() {
    let (stage, engine, id) = unsent().await;
    stage.runner.world().resend_script = sends_nothing();
    let before = job(&engine, &id).await;
    let first = engine.resend(&id).await.unwrap().job.id.clone();
    sleep(2 * MINUTE).await;
    assert_eq!(job(&engine, &id).await, before);
    let failed = job(&engine, &first).await;
    assert_eq!(failed.state.lifecycle(), Lifecycle::Retained);
    assert!(!failed.keeps_unsent(), "it is counted where it is kept");
    assert!(matches!(engine.resend(&first).await, Err(ResendError::Resend(of)) if of == id));
    // Its log is there, and does not stand in the way of another one.
    let second = engine.resend(&id).await.unwrap().job.id.clone();
    assert_ne!(first, second);
    sleep(62 * MINUTE).await;
    // What was kept had its time meanwhile, and waited for those that use its volume.
    let seen = stage.runner.world().seen.clone();
    let removals = seen.iter().filter_map(|seen| seen.strip_prefix("remove "));
    let expected = [first, second, id].map(|job| container(&job).to_string());
    assert_eq!(removals.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn two_do_not_send_the_same_at_a_time() {
    let (stage, engine, id) = unsent().await;
    stage.runner.world().pulls = vec![Ok(Duration::from_secs(5))];
    let (first, second) = tokio::join!(engine.resend(&id), engine.resend(&id));
    let first = first.unwrap().job.id.clone();
    let under_way = |error| matches!(error, Err(ResendError::UnderWay(by)) if by == first);
    assert!(under_way(second));
    assert!(under_way(engine.resend(&id).await));
    assert_eq!(stage.runner.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_sent_is_neither_removed_when_its_time_is_over_nor_deleted() {
    let (stage, engine, id) = unsent().await;
    let day = Duration::from_secs(86_400);
    stage.runner.world().resend_script.runs_for = Some(9 * MINUTE);
    // Its time is over in five minutes, while it is sent.
    let State::Retained { until, .. } = job(&engine, &id).await.state else {
        panic!("it is not kept");
    };
    assert!(until.is_some_and(|until| until < job_now(&stage).plus(day)));
    sleep(until.unwrap().after(job_now(&stage)) - 5 * MINUTE).await;
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    let being_resent = |result| matches!(result, Err(DeleteError::BeingResent(by)) if by == resend);
    assert!(being_resent(engine.delete(&id).await));
    assert!(being_resent(engine.delete_by_force(&id).await.map(drop)));
    sleep(8 * MINUTE).await;
    assert_eq!(
        job(&engine, &id).await.state.lifecycle(),
        Lifecycle::Retained
    );
    assert_eq!(stage.runner.containers(), 2);
    sleep(2 * MINUTE).await;
    assert_eq!(delivery(&job(&engine, &id).await), Delivery::Delivered);
    assert_eq!(
        job(&engine, &id).await.state.lifecycle(),
        Lifecycle::Removed
    );
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_begun_while_somebody_reads_past_the_time_holds_up_the_removal_too() {
    let (stage, engine, id) = unsent().await;
    stage.runner.world().resend_script = sends_nothing();
    let kept = job(&engine, &id).await;
    let State::Retained {
        until: Some(until), ..
    } = kept.state
    else {
        panic!("{kept:?}");
    };
    let files = engine.files(&kept).await.unwrap();
    sleep(until.after(job_now(&stage)) + MINUTE).await;
    engine.resend(&id).await.unwrap();
    drop(files);
    sleep(10 * MINUTE).await;
    assert_eq!(job(&engine, &id).await.state, kept.state);
    engine.resend(&id).await.unwrap();
    sleep(3 * 60 * MINUTE).await;
    assert_eq!(
        job(&engine, &id).await.state.lifecycle(),
        Lifecycle::Removed
    );
}

fn job_now(stage: &Stage) -> Timestamp {
    stage.clone().clock().now()
}

#[tokio::test(start_paused = true)]
async fn an_administrator_may_end_and_delete_it_and_then_what_it_sent() {
    let (stage, engine, id) = unsent().await;
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    stage.runner.world().resend_script.media_left = 5000;
    engine.delete_by_force(&resend).await.unwrap();
    assert!(engine.job(&resend).await.unwrap().is_none());
    engine.delete(&id).await.unwrap();
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn whom_the_service_leaves_behind_it_tells_after_its_restart() {
    let (mut stage, engine, id) = unsent().await;
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    engine.shutdown().await;
    drop(engine);
    sleep(2 * MINUTE).await;
    // Both are found; what is kept is due for nothing while it is not known what was sent.
    let engine = stage.engine().await;
    sleep(MINUTE).await;
    assert_eq!(delivery(&job(&engine, &id).await), Delivery::Delivered);
    assert_eq!(
        job(&engine, &resend).await.state.lifecycle(),
        Lifecycle::Removed
    );
    assert_eq!(stage.runner.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_where_it_could_do_harm_or_could_not_do_any_good() {
    let (stage, engine, id) = unsent().await;
    let unknown = engine.resend(&"z".repeat(26).parse().unwrap()).await;
    assert!(matches!(unknown, Err(ResendError::Unknown)));
    // The image would record again.
    stage.runner.world().offers_resend = false;
    let refused = engine.resend(&id).await.unwrap_err();
    assert!(matches!(refused, ResendError::NotOffered(_)));
    assert!(refused.to_string().contains("io.offloader.resend=true"));
    stage.runner.world().offers_resend = true;
    // Another image of the same name might.
    stage.runner.world().other_image = true;
    let refused = engine.resend(&id).await.unwrap_err();
    let ResendError::NotStarted(SubmitError::NotStarted { reason, .. }) = refused else {
        panic!("{refused}");
    };
    assert_eq!(reason, EndReason::ImageRefused);
    stage.runner.world().other_image = false;
    // What runs sends itself, and what never ran has nothing to send.
    stage.runner.world().script.runs_for = None;
    let running = engine.submit(recording('b')).await.unwrap().job.id.clone();
    assert!(matches!(
        engine.resend(&running).await,
        Err(ResendError::Running)
    ));
    let other = engine.submit(recording('c')).await.unwrap();
    let full = engine.resend(&id).await.unwrap_err();
    assert!(matches!(full, ResendError::NotStarted(SubmitError::Full)));
    engine.delete_by_force(&other.job.id).await.unwrap();
    // With the container the token is gone.
    stage.runner.remove_by_hand();
    assert!(matches!(engine.resend(&id).await, Err(ResendError::Gone)));
    assert_eq!(stage.runner.starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_before_it_runs_starts_nothing() {
    let (stage, engine, id) = unsent().await;
    stage.runner.world().pulls = vec![Ok(MINUTE)];
    let hung_up = tokio::time::timeout(Duration::from_secs(5), engine.resend(&id)).await;
    assert!(hung_up.is_err());
    sleep(2 * MINUTE).await;
    assert_eq!(stage.runner.starts(), 1);
    assert!(engine.resend(&id).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_lost_learns_of_both_and_the_volume_stays() {
    let (mut stage, engine, id) = unsent().await;
    stage.runner.world().resend_script.runs_for = None;
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    engine.shutdown().await;
    drop(engine);
    for (job, of) in [(&id, None), (&resend, Some(id.clone()))] {
        stage.runner.describe_resend(&container(job), of);
    }
    stage.store = MemoryStore::default();
    stage.policies.retention = RetentionVerdict::Delete;
    let engine = stage.engine().await;
    sleep(5 * MINUTE).await;
    assert_eq!(job(&engine, &resend).await.resends, Some(id.clone()));
    assert!(matches!(
        engine.delete(&id).await,
        Err(DeleteError::BeingResent(_))
    ));
    engine.stop(&resend).await.unwrap();
    sleep(5 * MINUTE).await;
    let seen = stage.runner.world().seen.clone();
    let removed = |job: &JobId| {
        seen.iter()
            .position(|s| *s == format!("remove {}", container(job)))
    };
    assert!(removed(&resend).unwrap() < removed(&id).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_its_task_removes_nothing_and_tells_all_the_same() {
    let (stage, engine, id) = unsent().await;
    // The one that sends: what is kept is due meanwhile, and is not deleted either.
    stage.runner.world().panics = vec!["changed"];
    let resend = engine.resend(&id).await.unwrap().job.id.clone();
    tokio::task::yield_now().await;
    assert!(stage.runner.world().panics.is_empty());
    let deleted = engine.delete(&id).await;
    assert!(matches!(deleted, Err(DeleteError::BeingResent(by)) if by == resend));
    assert!(matches!(
        engine.resend(&id).await,
        Err(ResendError::UnderWay(_))
    ));
    sleep(2 * MINUTE).await;
    assert_eq!(delivery(&job(&engine, &id).await), Delivery::Delivered);
    let sent = job(&engine, &resend).await;
    assert_eq!(sent.state.lifecycle(), Lifecycle::Removed);
    assert_eq!(stage.runner.starts(), 2);
}
