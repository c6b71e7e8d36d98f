use std::fs;

use domain::{DecisionOutcome, Hook};
use engine::Store;

use super::*;
use crate::testing::*;

fn decision(policy: &str, millis: i64) -> Decision {
    Decision {
        at: at(millis),
        hook: Hook::ImageSelection,
        attempt: None,
        policy: policy.to_owned(),
        component_sha256: "c".repeat(64),
        settings_sha256: "s".repeat(64),
        read: vec!["kind".to_owned()],
        outcome: DecisionOutcome::Answered,
        enforced: true,
        verdict: "use".to_owned(),
        value: Some("registry.example.com/recorder:1".to_owned()),
        reason: None,
        micros: 12,
    }
}

#[tokio::test]
async fn decisions_are_read_while_the_service_writes_and_after_it_ended() {
    let place = Place::new();
    let store = place.open();
    for (n, millis) in [(1, 1_000), (2, 2_000), (3, 3_000)] {
        let mut new = new(job(n), &[]);
        new.decisions = vec![decision("images", millis)];
        accept(&store, new).await;
    }
    let history = History::open(&place.path()).unwrap();
    assert_eq!(history.decided_since(at(2_000)).unwrap(), [id(2), id(3)]);

    // What is written meanwhile is seen, and nobody is in anybody's way.
    let later = vec![decision("more", 4_000)];
    store.commit(job(1).into(), later.clone()).await.unwrap();
    assert_eq!(
        history.decided_since(at(2_000)).unwrap(),
        [id(1), id(2), id(3)]
    );
    let (found, decisions) = history.job(&id(1)).unwrap().unwrap();
    assert_eq!(found, job(1));
    assert_eq!(
        decisions,
        [&[decision("images", 1_000)], &later[..]].concat()
    );
    assert_eq!(history.job(&id(9)).unwrap(), None);

    drop(store);
    drop(history);
    let history = History::open(&place.path()).unwrap();
    assert_eq!(history.decided_since(at(0)).unwrap().len(), 3);
    // A service can start beside it.
    drop(place.open());
}

#[test]
fn what_is_no_store_of_this_version_is_refused_and_left_alone() {
    let place = Place::new();
    let told = || History::open(&place.path()).err().unwrap().to_string();
    assert!(told().contains("unable to open"), "{}", told());
    assert!(!place.path().exists());
    fs::write(place.path(), "a letter to somebody, not a database").unwrap();
    assert!(told().contains("no store of this service"), "{}", told());
    fs::remove_file(place.path()).unwrap();
    drop(place.open());
    for (version, message) in [(99, "version 99"), (1, "older")] {
        let db = Connection::open(place.path()).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        drop(db);
        assert!(told().contains(message), "{}", told());
    }
}
