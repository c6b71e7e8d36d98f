//! Tasks that panic, over a scripted world and paused time.

use std::time::Duration;

use domain::{EndReason, JobId, Lifecycle, Outcome};
use tokio::time::sleep;

use crate::scripted::*;
use crate::{Engine, JobQuery, SubmitError};

const MINUTE: Duration = Duration::from_secs(60);

async fn until(engine: &Engine, id: &JobId, state: Lifecycle) {
    for _ in 0..10_000 {
        let job = engine.job(id).await.unwrap().unwrap();
        if job.job.state.lifecycle() == state {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("{id} is never {}", state.as_str());
}

async fn only_job(engine: &Engine) -> JobId {
    let jobs = engine.page(&JobQuery::default()).await.unwrap();
    assert_eq!(jobs.len(), 1);
    jobs[0].job.id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_start_is_told_and_leaves_no_slot_taken() {
    let mut stage = Stage::default();
    stage.runner.world().panics = vec!["prepare"];
    let engine = stage.engine().await;
    let refused = engine.submit(recording('a')).await.unwrap_err();
    let SubmitError::NotStarted { reason, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(reason, EndReason::Interrupted);
    let id = only_job(&engine).await;
    until(&engine, &id, Lifecycle::Removed).await;
    // The same once more, as the client does.
    engine.submit(recording('a')).await.unwrap();
    engine.submit(recording('b')).await.unwrap();
    assert_eq!(stage.runner.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_the_start_is_a_start_and_its_client_hears_of_it() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Panics];
    let engine = stage.engine().await;
    let view = engine.submit(recording('a')).await.unwrap();
    assert_eq!(view.job.state.lifecycle(), Lifecycle::Running);
    stage.runner.end(view.job.submitted_at, 0);
    until(&engine, &view.job.id, Lifecycle::Removed).await;
    assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_runs_after_a_panic_though_its_client_gave_up_is_taken_back() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::PanicsAndDown];
    let engine = stage.engine().await;
    let refused = engine.submit(recording('a')).await.unwrap_err();
    let SubmitError::NotStarted { reason, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(reason, EndReason::StartTimeout);
    stage.runner.world().down = false;
    let id = only_job(&engine).await;
    until(&engine, &id, Lifecycle::Removed).await;
    assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn panics_while_a_job_runs_and_ends_change_nothing_of_it() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    stage.runner.world().panics = vec!["changed", "changed", "changed", "remove"];
    let view = engine.submit(recording('a')).await.unwrap();
    let id = view.job.id.clone();
    sleep(MINUTE).await;
    let found = engine.job(&id).await.unwrap().unwrap();
    assert_eq!(found.job.state, view.job.state, "its deadline moved");
    assert!(
        engine.shared.live.view(&id).is_some(),
        "nobody looks after it"
    );
    // Whoever stops it is heard.
    engine.stop(&id).await.unwrap();
    until(&engine, &id, Lifecycle::Removed).await;
    let job = engine.job(&id).await.unwrap().unwrap();
    assert_eq!(job.job.state.end().unwrap().outcome, Outcome::Succeeded);
    assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
    assert!(stage.runner.world().panics.is_empty(), "not all came about");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_each_time_costs_little_and_the_service_ends_all_the_same() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    stage.runner.world().panics = vec!["changed"; 1000];
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    sleep(9 * MINUTE).await;
    let tries = 1000 - stage.runner.world().panics.len();
    assert!((5..15).contains(&tries), "{tries}");
    engine.shutdown().await;
    // The next start goes on with it.
    stage.runner.world().panics.clear();
    let engine = stage.engine().await;
    stage
        .runner
        .end(engine.shared.live.view(&id).unwrap().job.submitted_at, 0);
    until(&engine, &id, Lifecycle::Removed).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_policies_do_at_the_end_of_a_job_it_is_over_soon() {
    for retention_takes in [Some(5 * MINUTE), None] {
        let mut stage = Stage::default();
        stage.policies.retention_takes = retention_takes;
        let engine = stage.engine().await;
        let job = engine.submit(recording('a')).await.unwrap().job.clone();
        stage.runner.end(job.submitted_at, 0);
        sleep(Duration::from_secs(2)).await;
        let over = engine.job(&job.id).await.unwrap().unwrap();
        assert_eq!(
            over.job.state.lifecycle(),
            Lifecycle::Ended,
            "its slot is taken"
        );
        assert_eq!(stage.runner.containers(), 1, "nobody decided that");
        engine.shutdown().await;
        stage.policies.retention_takes = Some(Duration::ZERO);
        let engine = stage.engine().await;
        until(&engine, &job.id, Lifecycle::Removed).await;
        assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
    }
}
