use proptest::prelude::*;

use super::*;
use crate::{ClientId, JobId, JobKind, Lifecycle, RegistrationId};

const T0: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn at(seconds: u64) -> Timestamp {
    T0.plus(Duration::from_secs(seconds))
}

fn image() -> ImageRef {
    "mattermost/calls-recorder:v0.8.13".parse().unwrap()
}

fn image_id() -> ImageId {
    format!("sha256:{}", "a".repeat(64)).parse().unwrap()
}

fn job() -> Job {
    Job {
        id: JobId::from_random([0; JobId::LEN]),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image().to_string(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: Duration::from_secs(60),
        inputs: Default::default(),
        submitted_at: T0,
        start_by: at(100),
        resends: None,
        attempts: vec![Attempt::new(1, image(), T0)],
        state: State::Preparing,
    }
}

fn after(facts: &[(u64, Fact)]) -> Job {
    facts.iter().fold(job(), |job, (seconds, fact)| {
        step(&job, fact, at(*seconds)).unwrap()
    })
}

fn prepared() -> Fact {
    Fact::Prepared {
        image_id: image_id(),
    }
}

fn exited(code: i32, delivery: Delivery) -> Fact {
    let exit = Exit {
        code,
        out_of_memory: false,
        started_at: at(2),
        ended_at: at(20),
    };
    Fact::Exited {
        exit,
        delivery,
        retry: None,
    }
}

fn stop(cause: StopCause) -> Fact {
    Fact::StopRequested {
        cause,
        grace: Duration::from_secs(7200),
    }
}

fn end_of(job: &Job) -> End {
    job.state.end().unwrap()
}

#[test]
fn an_uneventful_life() {
    let mut job = after(&[(1, prepared())]);
    assert_eq!(
        duty(&job),
        Duty::Launch {
            start_by: Some(at(100))
        }
    );
    job = step(&job, &Fact::Launched { at: at(2) }, at(2)).unwrap();
    assert_eq!(duty(&job), Duty::Watch { deadline: at(62) });
    job = step(&job, &exited(0, Delivery::Delivered), at(20)).unwrap();
    assert_eq!(
        (end_of(&job).reason, end_of(&job).outcome),
        (EndReason::Completed, Outcome::Succeeded)
    );
    job = step(
        &job,
        &Fact::Settled {
            keep: Keep::Nothing,
        },
        at(20),
    )
    .unwrap();
    assert_eq!(duty(&job), Duty::Remove { forget: false });
    job = step(&job, &Fact::Cleared, at(21)).unwrap();
    assert_eq!(duty(&job), Duty::Rest);
    assert_eq!(job.attempts.len(), 1);
}

#[test]
fn whoever_asks_for_a_kill_does_not_wait_for_the_grace() {
    let running = after(&[(1, prepared()), (2, Fact::Launched { at: at(2) })]);
    let killed = step(&running, &Fact::KillRequested, at(9)).unwrap();
    assert_eq!(duty(&killed), Duty::Stop { kill_at: at(9) });
    let stopping = step(&running, &stop(StopCause::Deadline), at(9)).unwrap();
    let killed = step(&stopping, &Fact::KillRequested, at(10)).unwrap();
    assert_eq!(duty(&killed), Duty::Stop { kill_at: at(10) });
    // One whose grace is over anyway is not given any more time.
    let again = step(&killed, &Fact::KillRequested, at(11)).unwrap();
    assert_eq!(duty(&again), Duty::Stop { kill_at: at(10) });
}

#[test]
fn the_exit_code_alone_decides_nothing() {
    use Delivery::{Delivered, Unknown, Unsent};
    let unsent = Unsent { bytes: 9 };
    let table: &[(bool, i32, Delivery, EndReason, Outcome)] = &[
        (
            false,
            0,
            Delivered,
            EndReason::Completed,
            Outcome::Succeeded,
        ),
        (false, 0, unsent, EndReason::Completed, Outcome::Failed),
        (false, 0, Unknown, EndReason::Completed, Outcome::Failed),
        (false, 1, Delivered, EndReason::Exited(1), Outcome::Failed),
        (
            false,
            137,
            Delivered,
            EndReason::Exited(137),
            Outcome::Failed,
        ),
        (true, 1, Delivered, EndReason::Deadline, Outcome::Succeeded),
        (true, 0, Delivered, EndReason::Deadline, Outcome::Succeeded),
        (true, 1, unsent, EndReason::Deadline, Outcome::Failed),
        (true, 2, Delivered, EndReason::Deadline, Outcome::Failed),
        (
            true,
            137,
            unsent,
            EndReason::KilledAfterGrace,
            Outcome::Failed,
        ),
    ];
    for (stopping, code, delivery, reason, outcome) in table {
        let mut job = after(&[(1, prepared()), (2, Fact::Launched { at: at(2) })]);
        if *stopping {
            job = step(&job, &stop(StopCause::Deadline), at(62)).unwrap();
        }
        let end = end_of(&step(&job, &exited(*code, *delivery), at(70)).unwrap());
        assert_eq!(
            (end.reason, end.outcome),
            (*reason, *outcome),
            "{stopping} {code} {delivery:?}"
        );
    }
}

#[test]
fn out_of_memory_wins_over_every_other_reason() {
    let mut job = after(&[(1, prepared()), (2, Fact::Launched { at: at(2) })]);
    job = step(&job, &stop(StopCause::Admin), at(5)).unwrap();
    let exit = Exit {
        code: 137,
        out_of_memory: true,
        started_at: at(2),
        ended_at: at(6),
    };
    let fact = Fact::Exited {
        exit,
        delivery: Delivery::Unknown,
        retry: None,
    };
    assert_eq!(
        end_of(&step(&job, &fact, at(6)).unwrap()).reason,
        EndReason::OutOfMemory
    );
}

#[test]
fn a_retry_waits_and_begins_another_attempt_while_there_is_time() {
    let failed = |pause| Fact::AttemptFailed {
        reason: EndReason::ImageUnreachable,
        retry: Some(Duration::from_secs(pause)),
    };
    let job = after(&[(3, failed(4))]);
    assert_eq!(
        duty(&job),
        Duty::Retry {
            at: at(7),
            give_up_at: Some(at(90))
        }
    );
    let job = step(&job, &Fact::NextAttempt { image: image() }, at(7)).unwrap();
    assert_eq!(
        (job.attempt().number, job.attempts[0].reason),
        (2, Some(EndReason::ImageUnreachable))
    );

    let late = after(&[(3, failed(90))]);
    assert_eq!(
        end_of(&late).reason,
        EndReason::ImageUnreachable,
        "no attempt could begin in time"
    );
}

#[test]
fn no_start_is_begun_in_the_last_seconds() {
    let job = step(&job(), &prepared(), at(89)).unwrap();
    assert_eq!(job.state, State::Starting);
    let job = step(&self::job(), &prepared(), at(90)).unwrap();
    assert_eq!(end_of(&job).reason, EndReason::StartTimeout);
    assert_eq!(end_of(&job).delivery, Delivery::NeverRan);
}

#[test]
fn kill_at_is_counted_from_the_request() {
    let job = after(&[
        (1, prepared()),
        (2, Fact::Launched { at: at(2) }),
        (62, stop(StopCause::Deadline)),
    ]);
    assert_eq!(
        duty(&job),
        Duty::Stop {
            kill_at: at(62 + 7200)
        }
    );
}

#[test]
fn an_attempt_after_a_run_never_endangers_the_only_copy() {
    let job = after(&[(1, prepared()), (2, Fact::Launched { at: at(2) })]);
    let exit = Exit {
        code: 1,
        out_of_memory: false,
        started_at: at(2),
        ended_at: at(20),
    };
    let retry = Some(Duration::ZERO);
    let unsent = Fact::Exited {
        exit,
        delivery: Delivery::Unsent { bytes: 1 },
        retry,
    };
    assert_eq!(
        step(&job, &unsent, at(20)).unwrap().state.lifecycle(),
        Lifecycle::Ended
    );
    let delivered = Fact::Exited {
        exit,
        delivery: Delivery::Delivered,
        retry,
    };
    let job = step(&job, &delivered, at(20)).unwrap();
    assert_eq!(
        duty(&job),
        Duty::Retry {
            at: at(20),
            give_up_at: None
        },
        "nobody waits for it any more"
    );
}

#[test]
fn a_container_engine_with_another_clock_moves_no_deadline() {
    let hour = 3600;
    for skewed in [T0.minus(Duration::from_secs(hour)), at(hour)] {
        let job = step(
            &after(&[(1, prepared())]),
            &Fact::Launched { at: skewed },
            at(2),
        )
        .unwrap();
        assert_eq!(duty(&job), Duty::Watch { deadline: at(62) });
    }
}

#[test]
fn what_ran_once_is_settled_also_when_its_next_attempt_never_runs() {
    let exit = Exit {
        code: 1,
        out_of_memory: false,
        started_at: at(2),
        ended_at: at(20),
    };
    let retry = Some(Duration::ZERO);
    let again = Fact::Exited {
        exit,
        delivery: Delivery::Delivered,
        retry,
    };
    let job = after(&[
        (1, prepared()),
        (2, Fact::Launched { at: at(2) }),
        (20, again),
    ]);
    let job = step(
        &job,
        &Fact::Abandoned {
            reason: EndReason::Interrupted,
        },
        at(21),
    )
    .unwrap();
    assert_eq!(job.state.lifecycle(), Lifecycle::Ended);
}

#[test]
fn keeping_ends_when_its_time_has_come_and_not_before() {
    let ended = after(&[
        (1, prepared()),
        (2, Fact::Launched { at: at(2) }),
        (20, exited(1, Delivery::Unsent { bytes: 1 })),
    ]);
    let kept = step(
        &ended,
        &Fact::Settled {
            keep: Keep::Until(at(500)),
        },
        at(20),
    )
    .unwrap();
    assert!(step(&kept, &Fact::KeepingOver, at(499)).is_err());
    assert_eq!(
        step(&kept, &Fact::KeepingOver, at(500))
            .unwrap()
            .state
            .lifecycle(),
        Lifecycle::Removing
    );
    let for_ever = step(
        &ended,
        &Fact::Settled {
            keep: Keep::ForEver,
        },
        at(20),
    )
    .unwrap();
    assert!(step(&for_ever, &Fact::KeepingOver, at(500_000)).is_err());
    let deleted = step(&for_ever, &Fact::DeleteRequested, at(30)).unwrap();
    assert_eq!(duty(&deleted), Duty::Remove { forget: true });
}

#[test]
fn what_was_sent_in_after_all_is_decided_about_anew_and_nothing_else_changes() {
    let ended = after(&[
        (1, prepared()),
        (2, Fact::Launched { at: at(2) }),
        (20, exited(1, Delivery::Unsent { bytes: 7 })),
    ]);
    let keep = |keep| step(&ended, &Fact::Settled { keep }, at(20)).unwrap();
    for kept in [keep(Keep::ForEver), keep(Keep::Until(at(30)))] {
        let resent = step(&kept, &Fact::Resent, at(40)).unwrap();
        let end = End {
            delivery: Delivery::Delivered,
            ..end_of(&ended)
        };
        assert_eq!(resent.state, State::Ended(end));
        assert_eq!(duty(&resent), Duty::Settle { end });
        // Told twice, as after a crash.
        assert!(step(&resent, &Fact::Resent, at(41)).is_err());
        let kept = step(
            &resent,
            &Fact::Settled {
                keep: Keep::ForEver,
            },
            at(41),
        )
        .unwrap();
        assert!(step(&kept, &Fact::Resent, at(42)).is_err());
    }
    // What is on its way out stays there.
    let removing = keep(Keep::Nothing);
    assert!(step(&removing, &Fact::Resent, at(40)).is_err());
}

fn any_delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        Just(Delivery::Delivered),
        Just(Delivery::Unknown),
        (1..1000u64).prop_map(|bytes| Delivery::Unsent { bytes }),
    ]
}

fn any_pause() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((0..200u64).prop_map(Duration::from_secs))
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let exit =
        (0..200i32, any::<bool>(), 0..100u64).prop_map(|(code, out_of_memory, seconds)| Exit {
            code,
            out_of_memory,
            started_at: at(seconds),
            ended_at: at(seconds + 5),
        });
    prop_oneof![
        Just(prepared()),
        any_pause().prop_map(|retry| Fact::AttemptFailed {
            reason: EndReason::ImageStalled,
            retry
        }),
        Just(Fact::NextAttempt { image: image() }),
        (0..200u64).prop_map(|s| Fact::Launched { at: at(s) }),
        Just(Fact::Abandoned {
            reason: EndReason::Interrupted
        }),
        (0..100u64).prop_map(|s| Fact::StopRequested {
            cause: StopCause::Admin,
            grace: Duration::from_secs(s)
        }),
        (exit, any_delivery(), any_pause()).prop_map(|(exit, delivery, retry)| Fact::Exited {
            exit,
            delivery,
            retry
        }),
        any_delivery().prop_map(|delivery| Fact::Lost {
            reason: EndReason::RuntimeLost,
            delivery
        }),
        prop_oneof![
            Just(Keep::Nothing),
            Just(Keep::ForEver),
            (0..500u64).prop_map(|s| Keep::Until(at(s))),
        ]
        .prop_map(|keep| Fact::Settled { keep }),
        Just(Fact::KillRequested),
        Just(Fact::KeepingOver),
        Just(Fact::Resent),
        Just(Fact::DeleteRequested),
        Just(Fact::Cleared),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is told in whatever order: a slot once given back is never taken again, an end
    /// never changes but for undelivered work that is sent in after all, only the last attempt is
    /// open, and an attempt after a run never follows undelivered work.
    #[test]
    fn no_order_of_facts_breaks_a_life(facts in prop::collection::vec((0..60u64, any_fact()), 1..60)) {
        let mut job = job();
        let mut now = 0;
        for (passed, fact) in facts {
            now += passed / 4;
            let Ok(next) = step(&job, &fact, at(now)) else { continue };
            let (before, later) = (job.state.lifecycle(), next.state.lifecycle());
            prop_assert!(before.holds_slot() || !later.holds_slot(), "{before:?} to {later:?}");
            if let (Some(was), Some(is)) = (job.state.end(), next.state.end()) {
                let delivery = match fact {
                    Fact::Resent => Delivery::Delivered,
                    _ => was.delivery,
                };
                prop_assert_eq!(End { delivery, ..was }, is);
            }
            for (i, attempt) in next.attempts.iter().enumerate() {
                prop_assert_eq!(attempt.number as usize, i + 1);
                let last = i + 1 == next.attempts.len();
                prop_assert!(last || (attempt.ended_at.is_some() && attempt.reason.is_some()));
            }
            if next.attempts.len() > job.attempts.len() {
                prop_assert_eq!(before, Lifecycle::Waiting);
            }
            if !matches!(before, Lifecycle::Starting) && later == Lifecycle::Starting {
                prop_assert!(job.ever_ran() || at(now) < job.start_by.minus(LAST_START));
            }
            if let (Fact::Exited { delivery, .. }, Lifecycle::Waiting) = (&fact, later) {
                prop_assert!(!delivery.may_be_unsent());
            }
            if matches!(later, Lifecycle::Running | Lifecycle::Stopping) {
                prop_assert!(next.attempt().running_at.is_some());
                prop_assert!(next.attempt().image_id.is_some());
            }
            if let Some(end) = next.state.end() {
                let clean = end.outcome == Outcome::Succeeded;
                prop_assert!(!clean || end.delivery == Delivery::Delivered);
                prop_assert!(end.delivery != Delivery::NeverRan || !next.ever_ran());
            }
            job = next;
        }
    }
}
