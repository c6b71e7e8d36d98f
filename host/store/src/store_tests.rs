use std::collections::BTreeMap;

use domain::{Lifecycle, RegistrationId, State};
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::testing::{
    Place, accept, any_decision, any_job, at, attempts, ended, id, job, key, new, state, unfinished,
};

const DAY: i64 = 24 * 3600 * 1000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

#[test]
fn every_job_comes_back_as_it_was_saved() {
    use proptest::prelude::*;
    let (place, runtime) = (Place::new(), runtime());
    let store = place.open();
    let kept = std::cell::RefCell::new(BTreeMap::new());
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let decisions = || prop::collection::vec(any_decision(), 0..4);
    let life = (any_job(), decisions(), state(), attempts(), decisions());
    runner
        .run(&life, |(job, first, state, attempts, second)| {
            runtime.block_on(async {
                let new = NewJob {
                    decisions: first.clone(),
                    ..new(job.clone(), &[])
                };
                prop_assert_eq!(store.accept(new).await.unwrap(), Accepted::New);
                prop_assert_eq!(store.job(&job.id).await.unwrap(), Some(job.clone()));
                prop_assert_eq!(store.decisions(&job.id).await.unwrap(), first.clone());

                // Attempts are never fewer than they were.
                let attempts = if attempts.len() < job.attempts.len() {
                    job.attempts.clone()
                } else {
                    attempts
                };
                let later = Job {
                    state,
                    attempts,
                    ..job
                };
                store
                    .commit(Arc::new(later.clone()), second.clone())
                    .await
                    .unwrap();
                prop_assert_eq!(store.job(&later.id).await.unwrap(), Some(later.clone()));
                let all = [first, second].concat();
                prop_assert_eq!(store.decisions(&later.id).await.unwrap(), all);
                kept.borrow_mut().insert(later.id.clone(), later);
                Ok(())
            })
        })
        .unwrap();
    drop(store);

    let (store, kept) = (place.open(), kept.into_inner());
    runtime.block_on(async {
        let found = unfinished(&store).await;
        let expected = kept
            .values()
            .filter(|job| job.state.lifecycle() != Lifecycle::Removed)
            .count();
        assert_eq!(found.len(), expected);
        for job in kept.values() {
            assert_eq!(store.job(&job.id).await.unwrap().as_ref(), Some(job));
        }
    });
}

#[test]
fn fifty_submissions_at_once_get_two_slots() {
    let (place, runtime) = (Place::new(), runtime());
    let store = Arc::new(place.open());
    let answers = runtime.block_on(async {
        let submit = |n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .accept(NewJob {
                        slots: engine::Slots::of(2),
                        ..new(job(n), &[])
                    })
                    .await
                    .unwrap()
            })
        };
        let submissions: Vec<_> = (0..50).map(submit).collect();
        let mut answers = Vec::new();
        for submission in submissions {
            answers.push(submission.await.unwrap());
        }
        answers
    });
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Accepted::New)
            .count(),
        2
    );
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Accepted::Full)
            .count(),
        48
    );
    assert_eq!(runtime.block_on(unfinished(&store)).len(), 2);
}

#[tokio::test]
async fn a_slot_is_free_again_when_its_job_has_ended() {
    let place = Place::new();
    let store = place.open();
    let submit = |n| {
        store.accept(NewJob {
            slots: engine::Slots::of(1),
            ..new(job(n), &[])
        })
    };
    assert_eq!(submit(1).await.unwrap(), Accepted::New);
    for state in [
        State::Waiting { until: at(1) },
        State::Starting,
        State::Running {
            since: at(1),
            deadline: at(2),
        },
        State::Stopping {
            since: at(1),
            kill_at: at(2),
            cause: domain::StopCause::Admin,
        },
    ] {
        store
            .commit(Arc::new(Job { state, ..job(1) }), Vec::new())
            .await
            .unwrap();
        assert_eq!(submit(2).await.unwrap(), Accepted::Full);
    }
    store
        .commit(Arc::new(ended(job(1), 5, true)), Vec::new())
        .await
        .unwrap();
    assert_eq!(submit(2).await.unwrap(), Accepted::New);
}

#[tokio::test]
async fn a_recording_keeps_a_slot_for_its_calls_transcription() {
    let place = Place::new();
    let store = place.open();
    let submit = |n: u32, kind, call: &str| {
        let call = domain::InputValue::Text(call.to_owned());
        let job = Job {
            kind,
            inputs: [("call_id".to_owned(), call)].into(),
            ..job(n)
        };
        store.accept(NewJob {
            slots: engine::Slots {
                reserve_for_transcription: true,
                ..engine::Slots::of(2)
            },
            ..new(job, &[])
        })
    };
    let (recording, transcribing) = (domain::JobKind::Recording, domain::JobKind::Transcribing);
    assert_eq!(submit(1, recording, "a").await.unwrap(), Accepted::New);
    assert_eq!(submit(2, recording, "b").await.unwrap(), Accepted::Full);
    assert_eq!(submit(3, transcribing, "b").await.unwrap(), Accepted::Full);
    assert_eq!(submit(4, transcribing, "a").await.unwrap(), Accepted::New);
    assert_eq!(unfinished(&store).await.len(), 2);
}

#[tokio::test]
async fn the_time_is_kept_for_the_next_start() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.clock_mark().unwrap(), None);
    let uptime = domain::Uptime {
        boot: "b".to_owned(),
        elapsed: std::time::Duration::from_millis(1234),
    };
    let mut mark = domain::ClockMark {
        time: at(5000),
        read: domain::ClockReading {
            wall: at(9000),
            uptime: Some(uptime),
        },
    };
    store.save_clock_mark(mark.clone()).await.unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.clock_mark().unwrap().as_ref(), Some(&mark));
    mark.read.uptime = None;
    store.save_clock_mark(mark.clone()).await.unwrap();
    assert_eq!(store.clock_mark().unwrap(), Some(mark));
}

#[test]
fn the_same_key_many_times_at_once_is_one_job() {
    let (place, runtime) = (Place::new(), runtime());
    let store = Arc::new(place.open());
    runtime.block_on(async {
        let submit = |n| {
            let store = store.clone();
            // The second key differs, the first does not.
            let second = format!("second-{n}");
            tokio::spawn(async move {
                (
                    n,
                    store.accept(new(job(n), &[&second, "work"])).await.unwrap(),
                )
            })
        };
        let submissions: Vec<_> = (0..20).map(submit).collect();
        let (mut accepted, mut known) = (Vec::new(), Vec::new());
        for submission in submissions {
            match submission.await.unwrap() {
                (n, Accepted::New) => accepted.push(id(n)),
                (_, Accepted::Known(job)) => known.push(job),
                (_, Accepted::Full) => panic!("there is no limit"),
            }
        }
        assert_eq!((accepted.len(), known.len()), (1, 19));
        assert!(
            known
                .iter()
                .all(|job| job.id == accepted[0] && job.body_sha256 == "body")
        );
    });
}

#[tokio::test]
async fn a_known_job_is_told_even_when_all_slots_are_taken() {
    let place = Place::new();
    let store = place.open();
    let submit = |n| {
        store.accept(NewJob {
            slots: engine::Slots::of(1),
            ..new(job(n), &["work"])
        })
    };
    assert_eq!(submit(1).await.unwrap(), Accepted::New);
    assert!(matches!(submit(2).await.unwrap(), Accepted::Known(known) if known.id == id(1)));
}

#[tokio::test]
async fn a_key_stands_while_its_job_is_active_and_for_a_day_after_it_ran() {
    let place = Place::new();
    let store = place.open();
    accept(&store, new(job(1), &["work", "header"])).await;
    let by_key = async |text: &str, now: i64| {
        store
            .by_key(&key(text), at(now))
            .await
            .unwrap()
            .map(|known| known.id)
    };
    assert_eq!(by_key("work", 100 * DAY).await, Some(id(1)));
    assert_eq!(by_key("header", 0).await, Some(id(1)));
    assert_eq!(by_key("other", 0).await, None);
    let other_owner = JobKey {
        owner: RegistrationId(2),
        ..key("work")
    };
    assert_eq!(store.by_key(&other_owner, at(0)).await.unwrap(), None);

    store
        .commit(Arc::new(ended(job(1), 5000, true)), Vec::new())
        .await
        .unwrap();
    assert_eq!(by_key("work", 5000 + DAY - 1).await, Some(id(1)));
    assert_eq!(by_key("work", 5000 + DAY).await, None);
    let again = Job {
        submitted_at: at(5000 + DAY),
        ..job(2)
    };
    accept(&store, new(again, &["work"])).await;
    assert_eq!(by_key("work", 5000 + DAY).await, Some(id(2)));
}

#[tokio::test]
async fn a_job_that_never_ran_gives_its_keys_up() {
    let place = Place::new();
    let store = place.open();
    accept(&store, new(job(1), &["work"])).await;
    store
        .commit(Arc::new(ended(job(1), 5000, false)), Vec::new())
        .await
        .unwrap();
    assert_eq!(store.by_key(&key("work"), at(5000)).await.unwrap(), None);
    accept(&store, new(job(2), &["work"])).await;
}

#[tokio::test]
async fn a_forgotten_job_leaves_its_key_and_nothing_else() {
    use proptest::strategy::{Strategy, ValueTree};
    let place = Place::new();
    let store = place.open();
    let decision = any_decision()
        .new_tree(&mut TestRunner::deterministic())
        .unwrap()
        .current();
    accept(
        &store,
        NewJob {
            decisions: vec![decision],
            ..new(job(1), &["work"])
        },
    )
    .await;
    assert_eq!(store.decisions(&id(1)).await.unwrap().len(), 1);
    store
        .commit(Arc::new(ended(job(1), 5000, true)), Vec::new())
        .await
        .unwrap();
    for _ in 0..2 {
        store.forget(&id(1), at(5000 + DAY)).await.unwrap();
    }
    assert_eq!(store.job(&id(1)).await.unwrap(), None);
    assert_eq!(store.decisions(&id(1)).await.unwrap(), []);
    let known = store.accept(new(job(2), &["work"])).await.unwrap();
    assert!(matches!(known, Accepted::Known(known) if known.id == id(1)));
    assert_eq!(store.prune(at(0), at(5000 + DAY)).await.unwrap(), 0);
    accept(&store, new(job(2), &["work"])).await;
}

#[tokio::test]
async fn pages_come_newest_first_and_stay_where_they_are() {
    let place = Place::new();
    let store = place.open();
    for n in 0..30 {
        let owner = RegistrationId(i64::from(n % 2));
        // All at the same millisecond: the order is that of acceptance.
        accept(&store, new(Job { owner, ..job(n) }, &[])).await;
    }
    for n in 0..10 {
        store
            .commit(
                Arc::new(Job {
                    state: State::Starting,
                    ..job(n)
                }),
                Vec::new(),
            )
            .await
            .unwrap();
    }
    store
        .commit(Arc::new(ended(job(3), 5, true)), Vec::new())
        .await
        .unwrap();
    let ask = async |owner: Option<i64>, states: &[Lifecycle], before: Option<u32>, limit| {
        let query = JobQuery {
            owner: owner.map(RegistrationId),
            states: states.to_vec(),
            before: before.map(id),
            limit,
        };
        let page = store.page(&query).await.unwrap();
        page.iter()
            .map(|(job, _)| job.id.as_str().parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(None, &[], None, 3).await, [29, 28, 27]);
    assert_eq!(ask(None, &[], Some(27), 3).await, [26, 25, 24]);
    assert_eq!(ask(Some(1), &[], Some(27), 2).await, [25, 23]);
    assert_eq!(
        ask(None, &[Lifecycle::Starting], None, 100).await,
        [9, 8, 7, 6, 5, 4, 2, 1, 0]
    );
    let both = [Lifecycle::Removed, Lifecycle::Starting, Lifecycle::Removed];
    assert_eq!(ask(Some(1), &both, Some(7), 100).await, [5, 3, 1]);
    assert_eq!(ask(None, &[], Some(0), 3).await, [0; 0]);
    assert_eq!(ask(Some(7), &[], None, 3).await, [0; 0]);
    assert_eq!(ask(None, &[], Some(99), 3).await, [0; 0]);
    // To whom a job does not belong it is as unknown as one that is not there.
    assert_eq!(ask(Some(1), &[], Some(26), 3).await, [0; 0]);
    assert_eq!(ask(Some(1), &both, Some(8), 3).await, [0; 0]);

    // Whoever pages sees each job once, though new ones come in between.
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = ask(None, &[], before, 7).await;
        let Some(last) = page.last() else { break };
        before = Some(*last);
        accept(&store, new(job(1000 + last), &[])).await;
        seen.extend(page);
    }
    assert_eq!(seen, (0..30).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_is_kept_from_when_its_job_was_removed_and_not_from_its_end() {
    let place = Place::new();
    let store = place.open();
    for n in 0..3 {
        accept(&store, new(job(n), &[])).await;
    }
    let commit = async |job: Job| store.commit(Arc::new(job), Vec::new()).await.unwrap();
    let prune = async |now: i64| store.prune(at(now - 30 * DAY), at(now)).await.unwrap();
    // What is left of the first stays for sixty days after its end.
    let removed = ended(job(0), 100, true);
    let end = removed.state.end().unwrap();
    commit(Job {
        state: State::Retained { end, until: None },
        ..removed.clone()
    })
    .await;
    commit(ended(job(1), 100, true)).await;
    assert_eq!(prune(100).await, 0);
    assert_eq!(prune(100 + 30 * DAY).await, 0);
    assert_eq!(prune(101 + 30 * DAY).await, 1);
    assert_eq!(store.job(&id(1)).await.unwrap(), None);

    assert_eq!(prune(60 * DAY).await, 0);
    commit(removed.clone()).await;
    assert_eq!(prune(61 * DAY).await, 0);
    assert_eq!(prune(91 * DAY).await, 0);
    assert_eq!(store.job(&id(0)).await.unwrap(), Some(removed));
    assert_eq!(prune(91 * DAY + 1).await, 1);
    assert_eq!(store.job(&id(0)).await.unwrap(), None);
    assert!(store.job(&id(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn closing_leaves_one_file_whatever_is_being_read() {
    let place = Place::new();
    let store = Arc::new(place.open());
    for n in 0..50 {
        accept(&store, new(job(n), &[])).await;
    }
    // Reads that nobody waits for go on while the store closes.
    let query = JobQuery {
        limit: 50,
        ..JobQuery::default()
    };
    for _ in 0..8 {
        let mut read = Box::pin(store.page(&query));
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let _ = read.as_mut().poll(context);
    }
    drop(store);
    let mut files: Vec<_> = place
        .dir
        .path()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["offloader.db", "offloader.lock"]);
}

#[tokio::test]
async fn a_commit_of_an_unknown_job_fails_and_takes_no_effect() {
    let place = Place::new();
    let store = place.open();
    let error = store
        .commit(Arc::new(job(1)), Vec::new())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "store: saving a job's state: there is no such job"
    );
    assert_eq!(store.job(&id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_id_twice_fails_and_leaves_the_first() {
    let place = Place::new();
    let store = place.open();
    accept(&store, new(job(1), &["work"])).await;
    let error = store.accept(new(job(1), &["other"])).await.unwrap_err();
    assert_eq!(error.operation, "saving a new job");
    assert_eq!(store.by_key(&key("other"), at(0)).await.unwrap(), None);
    assert_eq!(store.job(&id(1)).await.unwrap(), Some(job(1)));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_of_the_write_remains() {
    let place = Place::new();
    let store = place.open();
    accept(&store, new(job(1), &[])).await;
    let limit = |pages: i64| {
        store.write("limiting", move |db| {
            Ok(db.pragma_update(None, "max_page_count", pages)?)
        })
    };
    limit(1).await.unwrap();
    let mut large = job(2);
    large.inputs.insert(
        "x".to_owned(),
        domain::InputValue::Text("x".repeat(1 << 20)),
    );
    let error = store
        .accept(new(large.clone(), &["work"]))
        .await
        .unwrap_err();
    assert!(error.detail.contains("full"), "{error}");
    assert!(store.trouble().unwrap().contains("full"));
    assert_eq!(store.job(&id(2)).await.unwrap(), None);
    assert_eq!(store.by_key(&key("work"), at(0)).await.unwrap(), None);
    assert_eq!(store.job(&id(1)).await.unwrap(), Some(job(1)));
    limit(1 << 30).await.unwrap();
    accept(&store, new(large, &["work"])).await;
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_an_error_not_a_guess() {
    let place = Place::new();
    let store = place.open();
    for (column, value) in [
        ("state", "'gone'"),
        ("state", "'running'"),
        ("inputs", "'{'"),
        ("kind", "'x'"),
        ("client", "''"),
    ] {
        let n = 1 + store
            .unfinished(None)
            .await
            .map_or(0, |jobs| jobs.len() as u32);
        accept(&store, new(job(n), &[])).await;
        let sql = format!("UPDATE jobs SET {column} = {value}");
        store
            .write("spoiling", move |db| Ok(db.execute_batch(&sql)?))
            .await
            .unwrap();
        let error = store.job(&id(n)).await.unwrap_err();
        assert!(
            error.detail.starts_with("the record is damaged: "),
            "{error}"
        );
        store
            .write("clearing", |db| Ok(db.execute_batch("DELETE FROM jobs")?))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn each_registration_is_another_one() {
    let place = Place::new();
    let store = place.open();
    let (client, other) = (
        ClientId::new("site").unwrap(),
        ClientId::new("other").unwrap(),
    );
    let register =
        async |client: &ClientId| store.register(client, "$argon2id$x", at(1)).await.unwrap();
    let Registered::New(first) = register(&client).await else {
        panic!("it was unknown")
    };
    assert_eq!(register(&client).await, Registered::AlreadyKnown);
    let found = store.registration(&client).await.unwrap().unwrap();
    assert_eq!(
        found,
        Registration {
            id: first,
            key_hash: "$argon2id$x".to_owned()
        }
    );
    assert_eq!(store.registration(&other).await.unwrap(), None);
    assert!(store.unregister(&client).await.unwrap());
    assert!(!store.unregister(&client).await.unwrap());
    assert_eq!(store.registration(&client).await.unwrap(), None);
    drop(store);

    // Not even after a restart is an id used twice.
    let store = place.open();
    let Registered::New(second) = store.register(&client, "h", at(2)).await.unwrap() else {
        panic!()
    };
    assert!(second > first);
}

#[tokio::test]
async fn registrations_are_counted_and_listed_newest_first() {
    let place = Place::new();
    let store = place.open();
    let mut made = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let client = ClientId::new(name).unwrap();
        let registered_at = at(number as i64);
        let registered = store.register(&client, "h", registered_at).await.unwrap();
        let Registered::New(id) = registered else {
            panic!("it was unknown")
        };
        made.insert(
            0,
            RegisteredClient {
                id,
                client,
                registered_at,
            },
        );
    }
    assert_eq!(store.registered().await.unwrap(), 3);
    assert_eq!(store.registrations(None, 100).await.unwrap(), made);
    let page = store.registrations(Some(made[0].id), 1).await.unwrap();
    assert_eq!(page, made[1..2]);
    assert!(store.unregister(&made[1].client).await.unwrap());
    assert_eq!(store.registered().await.unwrap(), 2);
    let rest = store.registrations(Some(made[0].id), 100).await.unwrap();
    assert_eq!(rest, made[2..]);
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_any_more_is_whole() {
    let place = Place::new();
    let store = place.open();
    {
        let mut write = Box::pin(store.accept(new(job(1), &["work"])));
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(write.as_mut().poll(context).is_pending());
    }
    accept(&store, new(job(2), &[])).await;
    assert_eq!(store.job(&id(1)).await.unwrap(), Some(job(1)));
    assert_eq!(
        store.by_key(&key("work"), at(0)).await.unwrap().unwrap().id,
        id(1)
    );
}
