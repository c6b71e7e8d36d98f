//! What the engine promises, over a scripted world and paused time.

use std::sync::Arc;
use std::time::Duration;

use domain::*;
use tokio::time::{sleep, timeout};

use crate::scripted::*;
use crate::*;

const MINUTE: Duration = Duration::from_secs(60);

async fn state(engine: &Engine, id: &JobId) -> Lifecycle {
    engine.job(id).await.unwrap().unwrap().job.state.lifecycle()
}

async fn ended(engine: &Engine, id: &JobId) -> Arc<Job> {
    for _ in 0..100_000 {
        let view = engine.job(id).await.unwrap().unwrap();
        if matches!(
            view.job.state.lifecycle(),
            Lifecycle::Retained | Lifecycle::Removed
        ) {
            return Arc::clone(&view.job);
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the job does not end");
}

/// The one job there is, once there is one.
async fn only_job(engine: &Engine) -> JobId {
    loop {
        if let Some(view) = engine
            .page(&JobQuery {
                limit: 10,
                ..JobQuery::default()
            })
            .await
            .unwrap()
            .first()
        {
            return view.job.id.clone();
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_runs_and_leaves_nothing_behind() {
    let mut stage = Stage::default();
    stage.runner.world().script.runs_for = Some(MINUTE);
    let engine = stage.engine().await;
    let view = engine.submit(recording('a')).await.unwrap();
    assert_eq!(view.job.state.lifecycle(), Lifecycle::Running);
    let job = ended(&engine, &view.job.id).await;
    assert_eq!(job.state.end().unwrap().outcome, Outcome::Succeeded);
    assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
    assert!(!engine.shared.live.knows(&job.id));
}

#[tokio::test(start_paused = true)]
async fn undelivered_work_is_kept_though_the_exit_code_was_0_and_policy_says_delete() {
    let mut stage = Stage::default();
    stage.runner.world().script = Script {
        runs_for: Some(MINUTE),
        media_left: 5000,
        ..Script::default()
    };
    stage.policies.retention = RetentionVerdict::Delete;
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    let job = ended(&engine, &id).await;
    let State::Retained {
        end,
        until: Some(until),
    } = job.state
    else {
        panic!("{:?}", job.state)
    };
    assert_eq!(end.delivery, Delivery::Unsent { bytes: 5010 });
    assert_eq!(
        until,
        end.at.plus(Duration::from_secs(86_400)),
        "the operator's floor"
    );
    assert_eq!(stage.runner.containers(), 1);
    sleep(Duration::from_secs(86_500)).await;
    assert_eq!(stage.runner.containers(), 0);
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_fill_two_slots_and_no_more() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let submit = |n: u8| {
        let engine = engine.clone();
        async move {
            let mut submission = recording('a');
            let id = InputValue::Text(format!("{:0>26}", n));
            submission.inputs.insert("recording_id".into(), id);
            submission.body_sha256 = n.to_string();
            engine.submit(submission).await
        }
    };
    let results = futures_util::future::join_all((0..50).map(submit)).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 2);
    assert_eq!(
        results
            .iter()
            .filter(|r| matches!(r, Err(SubmitError::Full)))
            .count(),
        48
    );
    assert_eq!(stage.runner.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_work_sent_twice_is_one_job_and_one_container() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Ok(Duration::from_secs(5))];
    stage.runner.world().script.runs_for = Some(MINUTE);
    let engine = stage.engine().await;
    let (first, second) =
        tokio::join!(engine.submit(recording('a')), engine.submit(recording('a')));
    let id = first.unwrap().job.id.clone();
    assert_eq!(second.unwrap().job.id, id);
    ended(&engine, &id).await;
    assert_eq!(
        engine.submit(recording('a')).await.unwrap().job.id,
        id,
        "also after it ran"
    );
    let mut other = recording('a');
    other.body_sha256 = "another".into();
    assert!(matches!(engine.submit(other).await, Err(SubmitError::Conflict(known)) if known == id));
    assert_eq!(stage.runner.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_only_client_hangs_up_in_a_pull_nothing_starts() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Ok(Duration::from_secs(30))];
    let engine = stage.engine().await;
    assert!(
        timeout(Duration::from_secs(5), engine.submit(recording('a')))
            .await
            .is_err()
    );
    let id = only_job(&engine).await;
    let job = ended(&engine, &id).await;
    assert_eq!(job.state.end().unwrap().reason, EndReason::Interrupted);
    sleep(MINUTE).await;
    assert_eq!(stage.runner.starts(), 0);
    stage.runner.world().script.runs_for = Some(MINUTE);
    assert!(
        engine.submit(recording('a')).await.is_ok(),
        "it never ran, so its id is free"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_outlasts_the_time_to_start_is_answered_in_time_and_starts_nothing() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Ok(Duration::from_secs(300))];
    let engine = stage.engine().await;
    let began = tokio::time::Instant::now();
    let Err(SubmitError::NotStarted { reason, detail }) = engine.submit(recording('a')).await
    else {
        panic!("no start-timeout");
    };
    assert_eq!(reason, EndReason::StartTimeout);
    assert!(detail.contains("calls-recorder:v0.8.13"), "{detail}");
    assert!(
        began.elapsed() <= Duration::from_secs(100),
        "{:?}",
        began.elapsed()
    );
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.runner.starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_comes_back_is_retried_where_policy_says_so() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Err(EndReason::ImageUnreachable), Ok(Duration::ZERO)];
    stage.policies.retry = RetryVerdict::RetryAfter(Duration::from_secs(2));
    let engine = stage.engine().await;
    let view = engine.submit(recording('a')).await.unwrap();
    let reasons: Vec<_> = view.job.attempts.iter().map(|a| a.reason).collect();
    assert_eq!(reasons, [Some(EndReason::ImageUnreachable), None]);
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_asks_about_the_image_asked_for_not_the_one_it_became() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Refused];
    stage.policies.image = Choice::Use("mattermost/calls-recorder:v0.9.0".into());
    stage.policies.retry = RetryVerdict::RetryAfter(Duration::ZERO);
    let engine = stage.engine().await;
    let view = engine.submit(recording('a')).await.unwrap();
    assert_eq!(view.job.attempts.len(), 2);
    let asked = stage.policies.asked_about.lock().unwrap().clone();
    assert_eq!(asked, vec![recording('a').runner; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_gate_ends_retries_that_policy_would_go_on_with() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Refused; 9];
    stage.policies.retry = RetryVerdict::RetryAfter(Duration::ZERO);
    let engine = stage.engine().await;
    let Err(SubmitError::NotStarted { reason, .. }) = engine.submit(recording('a')).await else {
        panic!("it started");
    };
    assert_eq!(reason, EndReason::StartFailed);
    let job = ended(&engine, &only_job(&engine).await).await;
    assert_eq!(job.attempts.len(), 3, "gate.recording.retry.max_attempts");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_is_found_and_not_repeated() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::AnswerLost];
    let engine = stage.engine().await;
    let view = engine.submit(recording('a')).await.unwrap();
    assert_eq!((stage.runner.starts(), view.job.attempts.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_start_too_slow_for_its_client_is_never_begun() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Slow(Duration::from_secs(95))];
    let engine = stage.engine().await;
    let began = tokio::time::Instant::now();
    let Err(SubmitError::NotStarted { reason, .. }) = engine.submit(recording('a')).await else {
        panic!("it started");
    };
    assert_eq!(reason, EndReason::StartTimeout);
    assert!(began.elapsed() <= Duration::from_secs(115));
    assert_eq!(stage.runner.starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_save_the_intent_starts_nothing() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    stage.store.memory().failing_commits = u32::MAX;
    assert!(engine.submit(recording('a')).await.is_err());
    assert_eq!(stage.runner.starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_saved_is_taken_back_before_its_client_is_told() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    {
        let mut memory = stage.store.memory();
        memory.good_commits_first = 1;
        memory.failing_commits = u32::MAX;
    }
    let began = tokio::time::Instant::now();
    let Err(SubmitError::NotStarted { reason, detail }) = engine.submit(recording('a')).await
    else {
        panic!("it was told to run");
    };
    assert_eq!(reason, EndReason::StartFailed);
    assert!(detail.contains("disk full"), "{detail}");
    assert!(began.elapsed() <= Duration::from_secs(115));
    assert_eq!((stage.runner.starts(), stage.runner.containers()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_while_its_job_is_saved_leaves_no_slot_taken() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    stage.store.memory().accept_takes = Duration::from_secs(2);
    assert!(
        timeout(Duration::from_secs(1), engine.submit(recording('a')))
            .await
            .is_err()
    );
    let job = ended(&engine, &only_job(&engine).await).await;
    assert_eq!(job.state.end().unwrap().reason, EndReason::Interrupted);
    assert_eq!(stage.runner.starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_given_up_on_in_time() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    stage.store.memory().accept_takes = Duration::from_secs(600);
    let began = tokio::time::Instant::now();
    assert!(engine.submit(recording('a')).await.is_err());
    assert!(began.elapsed() <= Duration::from_secs(115));
    sleep(Duration::from_secs(900)).await;
    assert_eq!(stage.runner.starts(), 0);
    ended(&engine, &only_job(&engine).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_refused_has_no_effect_later() {
    let mut stage = Stage::default();
    stage.runner.world().script.media_left = 7;
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    stage.runner.world().down = true;
    sleep(MINUTE).await;
    assert!(matches!(
        engine.delete(&id).await,
        Err(DeleteError::Running)
    ));
    stage.runner.world().down = false;
    let now = stage.clock().now();
    stage.runner.end(now, 0);
    ended(&engine, &id).await;
    sleep(MINUTE).await;
    assert_eq!(stage.runner.containers(), 1, "the only copy");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_the_end_of_the_service_cuts_off_forgets_nothing() {
    let mut stage = Stage::default();
    stage.runner.world().script.media_left = 7;
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    let now = stage.clock().now();
    stage.runner.end(now, 0);
    ended(&engine, &id).await;
    stage.runner.world().down = true;
    let deleting = tokio::spawn({
        let (engine, id) = (engine.clone(), id.clone());
        async move { engine.delete(&id).await }
    });
    sleep(Duration::from_secs(5)).await;
    engine.shutdown().await;
    assert!(matches!(
        deleting.await.unwrap(),
        Err(DeleteError::Engine(_))
    ));
    stage.runner.world().down = false;
    let engine = stage.engine().await;
    sleep(MINUTE).await;
    assert_eq!(stage.runner.containers(), 0, "taken up again and finished");
    assert!(engine.job(&id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_the_container_with_its_deadline() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let before = engine.submit(recording('a')).await.unwrap();
    for _ in 0..10 {
        engine.shutdown().await;
    }
    let engine = stage.engine().await;
    sleep(Duration::from_secs(1)).await;
    let after = engine.job(&before.job.id).await.unwrap().unwrap();
    assert_eq!(after.job.state, before.job.state);
    assert_eq!((stage.runner.starts(), after.job.attempts.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_while_the_service_was_down_stops_the_job_at_once() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    engine.shutdown().await;
    sleep(Duration::from_secs(3600)).await;
    let engine = stage.engine().await;
    let job = ended(&engine, &id).await;
    assert_eq!(job.state.end().unwrap().reason, EndReason::Deadline);
    assert_eq!(
        job.state.end().unwrap().outcome,
        Outcome::Succeeded,
        "stopped by us, delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn what_ignores_sigterm_is_killed_after_its_grace_also_across_a_restart() {
    let mut stage = Stage::default();
    stage.runner.world().script = Script {
        ends_after_term: None,
        media_left: 1,
        ..Script::default()
    };
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    engine.stop(&id).await.unwrap();
    let State::Stopping { kill_at, .. } = engine.job(&id).await.unwrap().unwrap().job.state else {
        panic!("not stopping");
    };
    sleep(Duration::from_secs(3600)).await;
    engine.shutdown().await;
    let engine = stage.engine().await;
    sleep(Duration::from_secs(3500)).await;
    assert_eq!(state(&engine, &id).await, Lifecycle::Stopping);
    let job = ended(&engine, &id).await;
    assert_eq!(job.state.end().unwrap().reason, EndReason::KilledAfterGrace);
    assert!(stage.clock().now() >= kill_at);
    assert_eq!(stage.runner.containers(), 1, "the only copy is kept");
}

#[tokio::test(start_paused = true)]
async fn containers_that_vanish_are_told_apart_and_end_once() {
    for (by_hand, reason) in [
        (true, EndReason::RemovedByHand),
        (false, EndReason::RuntimeLost),
    ] {
        let mut stage = Stage::default();
        let engine = stage.engine().await;
        let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
        sleep(Duration::from_secs(1)).await;
        if by_hand {
            stage.runner.remove_by_hand()
        } else {
            stage.runner.lose()
        }
        let job = ended(&engine, &id).await;
        assert_eq!(job.state.end().unwrap().reason, reason);
        assert_eq!(
            stage.runner.starts(),
            1,
            "it had run, so it is not run again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_engine_changes_no_job_and_refuses_new_ones() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    stage.runner.world().down = true;
    sleep(MINUTE).await;
    assert!(!engine.health().reasons.is_empty());
    assert!(matches!(
        engine.submit(recording('b')).await,
        Err(SubmitError::EngineUnreachable(_))
    ));
    assert_eq!(state(&engine, &id).await, Lifecycle::Running);
    stage.runner.world().down = false;
    sleep(MINUTE).await;
    assert!(engine.health().reasons.is_empty());
    assert_eq!(state(&engine, &id).await, Lifecycle::Running);
}

#[tokio::test(start_paused = true)]
async fn health_says_what_stands_in_the_way_of_new_jobs() {
    let mut stage = Stage::default();
    let engine = stage.engine().await;
    assert!(engine.health().reasons.is_empty());
    stage.store.memory().trouble = Some("disk full".into());
    assert_eq!(engine.health().reasons, ["store: disk full"]);
}

#[tokio::test(start_paused = true)]
async fn a_running_job_cannot_be_deleted_and_an_ended_one_goes_with_its_data() {
    let mut stage = Stage::default();
    stage.runner.world().script.media_left = 7;
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    assert!(matches!(
        engine.delete(&id).await,
        Err(DeleteError::Running)
    ));
    sleep(Duration::from_secs(1)).await;
    let now = stage.clock().now();
    stage.runner.end(now, 1);
    ended(&engine, &id).await;
    engine.delete(&id).await.unwrap();
    assert_eq!(stage.runner.containers(), 0);
    assert!(engine.job(&id).await.unwrap().is_none());
    assert!(matches!(
        engine.delete(&id).await,
        Err(DeleteError::Unknown)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_hung_job_is_deleted_by_force_and_what_went_is_told() {
    for stopped_before in [false, true] {
        let mut stage = Stage::default();
        stage.runner.world().script.media_left = 7;
        stage.runner.world().script.ends_after_term = None;
        let engine = stage.engine().await;
        let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
        if stopped_before {
            engine.stop(&id).await.unwrap();
            sleep(MINUTE).await;
            assert_eq!(state(&engine, &id).await, Lifecycle::Stopping);
        }
        let delivery = engine.delete_by_force(&id).await.unwrap();
        assert!(matches!(delivery, Delivery::Unsent { .. }), "{delivery:?}");
        assert_eq!(stage.runner.containers(), 0);
        assert!(engine.job(&id).await.unwrap().is_none());
        assert!(matches!(
            engine.delete_by_force(&id).await,
            Err(DeleteError::Unknown)
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_run_yet_is_deleted_by_force_too_and_never_starts() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Ok(MINUTE)];
    let engine = stage.engine().await;
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.submit(recording('a')).await }
    });
    sleep(Duration::from_secs(1)).await;
    let id = only_job(&engine).await;
    let delivery = engine.delete_by_force(&id).await.unwrap();
    assert_eq!(delivery, Delivery::NeverRan);
    assert!(waiting.await.unwrap().is_err());
    sleep(10 * MINUTE).await;
    assert_eq!(stage.runner.starts(), 0);
    assert!(engine.job(&id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_in_a_pull_answers_the_client_and_starts_nothing() {
    let mut stage = Stage::default();
    stage.runner.world().pulls = vec![Ok(Duration::from_secs(30))];
    let engine = stage.engine().await;
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.submit(recording('a')).await }
    });
    sleep(Duration::from_secs(1)).await;
    engine.shutdown().await;
    assert!(matches!(
        waiting.await.unwrap(),
        Err(SubmitError::ShuttingDown)
    ));
    let engine = stage.engine().await;
    sleep(MINUTE).await;
    let job = ended(&engine, &only_job(&engine).await).await;
    assert_eq!(job.state.end().unwrap().reason, EndReason::Interrupted);
    assert_eq!(stage.runner.starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_image_outside_the_grants_is_refused_by_name_of_the_policy() {
    let mut stage = Stage::default();
    stage.policies.image = Choice::Use("evil.example.com/calls-recorder:v9.9.9".into());
    let engine = stage.engine().await;
    let Err(SubmitError::Refused(refusal)) = engine.submit(recording('a')).await else {
        panic!("accepted");
    };
    let text = refusal.to_string();
    assert!(
        text.contains("fixed") && text.contains("evil.example.com") && text.contains("registries"),
        "{text}"
    );
    assert_eq!(refusal.origin, gate::Origin::Policy("fixed".into()));
}

#[tokio::test(start_paused = true)]
async fn strays_of_finished_jobs_go_and_those_of_unknown_jobs_stay() {
    let mut stage = Stage::default();
    stage.runner.world().script.runs_for = Some(MINUTE);
    let engine = stage.engine().await;
    let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
    ended(&engine, &id).await;
    let name = |id: &JobId| gate::ContainerName::new("test".parse().unwrap(), id.clone(), 1);
    stage.runner.appear(name(&id));
    stage
        .runner
        .appear(name(&JobId::from_random([9; JobId::LEN])));
    sleep(10 * MINUTE).await;
    assert_eq!(stage.runner.containers(), 1);
    assert!(
        stage
            .runner
            .world()
            .seen
            .last()
            .unwrap()
            .contains(id.as_str())
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_that_its_job_ran_also_when_the_store_cannot_be_read() {
    let mut stage = Stage::default();
    stage.runner.world().script.runs_for = Some(Duration::ZERO);
    let engine = stage.engine().await;
    let submitting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.submit(recording('a')).await }
    });
    stage.store.memory().unreadable = true;
    assert!(submitting.await.unwrap().unwrap().job.ever_ran());
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_it_started_is_not_tried_again() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Gone];
    stage.policies.retry = RetryVerdict::RetryAfter(Duration::ZERO);
    let engine = stage.engine().await;
    let Err(SubmitError::NotStarted { reason, .. }) = engine.submit(recording('a')).await else {
        panic!("it is told to run");
    };
    assert_eq!(reason, EndReason::RemovedByHand);
    assert_eq!(stage.runner.starts(), 1, "it may have run");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_anew_after_a_start_is_not_tried_again() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::GoneUnseen, LaunchPlay::Refused];
    stage.policies.retry = RetryVerdict::RetryAfter(Duration::ZERO);
    let engine = stage.engine().await;
    assert!(engine.submit(recording('a')).await.is_err());
    assert_eq!(stage.runner.starts(), 1, "it may have run");
}

#[test]
fn leave_to_start_is_given_once_and_to_one_container() {
    let ticket = StartTicket::new(|| true);
    assert_eq!(ticket.ask("a"), Leave::Given);
    assert_eq!(ticket.ask("a"), Leave::GivenBefore, "it may start yet");
    assert_eq!(ticket.ask("b"), Leave::Refused, "what started is gone");
    assert_eq!(StartTicket::new(|| false).ask("a"), Leave::Refused);
}
