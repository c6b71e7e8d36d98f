//! What becomes of strays, over a scripted world and paused time.

use std::time::Duration;

use domain::{Exit, JobId, JobKind};
use tokio::time::sleep;

use super::*;
use crate::scripted::*;
use crate::{Engine, JobQuery, Submission, SubmitError};

const MINUTE: Duration = Duration::from_secs(60);
const BEGINNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn name(id: &JobId, attempt: u32) -> ContainerName {
    ContainerName::new("test".parse().unwrap(), id.clone(), attempt)
}

/// A job that ran, was delivered, and is cleared.
async fn one_that_ran(stage: &Stage, engine: &Engine) -> JobId {
    let before = stage.runner.world().script;
    stage.runner.world().script.runs_for = Some(MINUTE);
    let id = engine.submit(recording('r')).await.unwrap().job.id.clone();
    while engine.shared.live.knows(&id) {
        sleep(MINUTE).await;
    }
    stage.runner.world().script = before;
    id
}

/// A job whose client was told that it does not run.
async fn one_that_never_ran(stage: &Stage, engine: &Engine, submission: Submission) -> JobId {
    stage.runner.world().launches = vec![LaunchPlay::Refused; 9];
    let refused = engine.submit(submission).await;
    assert!(matches!(refused, Err(SubmitError::NotStarted { .. })));
    stage.runner.world().launches.clear();
    let jobs = engine.page(&JobQuery::default()).await.unwrap();
    let job = Arc::clone(&jobs.first().unwrap().job);
    assert!(matches!(job.state, State::Removed { .. }), "{job:?}");
    job.id.clone()
}

fn ended(code: i32) -> Sighting {
    Sighting::Ended(Exit {
        code,
        out_of_memory: false,
        started_at: BEGINNING,
        ended_at: BEGINNING,
    })
}

fn did(stage: &Stage, what: &str) -> usize {
    let seen = &stage.runner.world().seen;
    seen.iter().filter(|line| line.starts_with(what)).count()
}

#[tokio::test(start_paused = true)]
async fn a_stray_has_its_grace_from_when_it_was_first_seen() {
    let mut stage = Stage::default();
    stage.strays.grace = 20 * MINUTE;
    let engine = stage.engine().await;
    let id = one_that_ran(&stage, &engine).await;
    stage.runner.appear(name(&id, 1));
    // The longest that it may take until it is seen.
    sleep(20 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 1, "too early");
    // What is away for a look is a new stray when it comes back.
    stage.runner.remove_by_hand();
    sleep(5 * MINUTE).await;
    stage.runner.appear(name(&id, 1));
    sleep(19 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 1, "its grace went on without it");
    sleep(7 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_is_not_waited_for_longer_than_it_takes() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let id = one_that_ran(&stage, &engine).await;
    stage.runner.appear(name(&id, 1));
    engine.shutdown().await;
    // Seen at once by the next start.
    let _engine = stage.engine().await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(stage.runner.containers(), 1, "too early");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_removes_and_ends_nothing() {
    let mut stage = Stage::default();
    stage.strays.dry_run = true;
    let engine = stage.engine().await;
    let ran = one_that_ran(&stage, &engine).await;
    let never = one_that_never_ran(&stage, &engine, recording('n')).await;
    let removed = did(&stage, "remove");
    let unknown = JobId::from_random([9; JobId::LEN]);
    let running = Sighting::Running { since: BEGINNING };
    stage.runner.appear(name(&ran, 1));
    stage.runner.appear_as(name(&never, 1), running);
    stage.runner.describe_as(name(&unknown, 1), None);
    sleep(60 * MINUTE).await;
    assert_eq!(
        (stage.runner.containers(), did(&stage, "remove")),
        (3, removed)
    );
    assert_eq!((did(&stage, "terminate"), did(&stage, "kill")), (0, 0));
    assert!(engine.job(&unknown).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_record_knows_nothing_of_is_looked_at_before_it_goes() {
    for (kind, code, media_left, goes) in [
        (JobKind::Recording, 0, 5000, false),
        (JobKind::Recording, 1, 0, true),
        (JobKind::Transcribing, 0, 5000, true),
        (JobKind::Transcribing, 1, 5000, false),
    ] {
        let mut stage = Stage::default();
        let engine = stage.engine().await;
        let submission = match kind {
            JobKind::Recording => recording('n'),
            JobKind::Transcribing => transcription('n'),
        };
        let id = one_that_never_ran(&stage, &engine, submission).await;
        stage.runner.world().script.media_left = media_left;
        stage.runner.appear_as(name(&id, 1), ended(code));
        sleep(30 * MINUTE).await;
        let left = stage.runner.containers();
        assert_eq!(left, usize::from(!goes), "{kind} {code} {media_left}");
        assert!(did(&stage, "look at") <= 1, "read again and again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_stays_until_it_can() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let id = one_that_never_ran(&stage, &engine, recording('n')).await;
    stage.runner.world().blind = true;
    stage.runner.appear_as(name(&id, 1), Sighting::Lost);
    sleep(30 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 1, "deleted by a guess");
    stage.runner.world().blind = false;
    sleep(10 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_though_its_client_was_told_otherwise_may_still_deliver() {
    for (heeds, kills) in [(true, 0), (false, 1)] {
        let mut stage = Stage::default();
        let engine = stage.engine().await;
        let id = one_that_never_ran(&stage, &engine, recording('n')).await;
        if !heeds {
            stage.runner.world().script.ends_after_term = None;
        }
        let running = Sighting::Running { since: BEGINNING };
        stage.runner.appear_as(name(&id, 1), running);
        sleep(3 * 60 * MINUTE).await;
        assert_eq!(stage.runner.containers(), 0);
        assert_eq!((did(&stage, "terminate"), did(&stage, "kill")), (1, kills));
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_jobs_that_ran_are_taken_up_at_once_and_others_have_their_grace() {
    let mut stage = Stage::default();
    let [ran, never] = [8, 9].map(|byte| JobId::from_random([byte; JobId::LEN]));
    stage.runner.describe_as(name(&ran, 1), Some(BEGINNING));
    stage.runner.describe_as(name(&never, 1), None);
    let engine = stage.engine().await;
    assert!(engine.job(&ran).await.unwrap().is_some());
    assert!(engine.job(&never).await.unwrap().is_none());
    sleep(Duration::from_secs(59)).await;
    assert_eq!(stage.runner.containers(), 2, "too early");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.runner.containers(), 1);
}
