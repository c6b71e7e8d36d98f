//! The stock policies through the port, as the engine asks them. What each of them answers is in its
//! own file of cases, below guests/policies.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use domain::{Choice, Decision, DecisionOutcome, EndReason, Hook, Purpose, RetryVerdict};
use engine::Policies as _;
use support::*;

#[tokio::test]
async fn a_decision_is_recorded_with_all_that_it_came_from() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let settings = [(
        "registries",
        r#"{"mattermost": "localhost:5000/mattermost"}"#,
    )];
    let host = policies
        .load(vec![configured("images", IMAGE_MAP, &settings)])
        .unwrap();
    let facts = facts();
    for purpose in [Purpose::Start, Purpose::Prefetch] {
        let ruling = host.select_image(&facts, purpose).await;
        let chosen = "localhost:5000/mattermost/calls-recorder:v0.8.13";
        assert_eq!(ruling.verdict, Choice::Use(chosen.to_owned()));
        assert_eq!(ruling.by.as_deref(), Some("images"));
        let [decision] = &ruling.decisions[..] else {
            panic!("{ruling:?}")
        };
        let expected = Decision {
            at: facts.now,
            hook: Hook::ImageSelection,
            attempt: None,
            policy: "images".to_owned(),
            read: vec!["image-chosen".to_owned()],
            outcome: DecisionOutcome::Answered,
            enforced: true,
            verdict: "use".to_owned(),
            value: Some(chosen.to_owned()),
            reason: Some("mapped to the site's registry".to_owned()),
            ..decision.clone()
        };
        assert_eq!(*decision, expected);
        let digests = [&decision.component_sha256, &decision.settings_sha256];
        assert_eq!(digests.map(String::len), [64, 64]);
    }
    // Nobody is asked about what no policy exports.
    let ruling = host.retry(&failed(&[EndReason::StartFailed])).await;
    assert_eq!(
        (ruling.verdict, ruling.decisions.len()),
        (RetryVerdict::Pass, 0)
    );
}

#[tokio::test]
async fn policies_of_a_hook_build_on_each_other() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let digest = format!("sha256:{}", "b".repeat(64));
    let pins = format!(r#"{{"calls-recorder:v0.8.13": "{digest}"}}"#);
    let first = configured(
        "registry",
        IMAGE_MAP,
        &[("registries", r#"{"mattermost": "mirror"}"#)],
    );
    let second = configured("pins", IMAGE_MAP, &[("pins", &pins)]);
    let host = policies.load(vec![first, second]).unwrap();
    let ruling = host.select_image(&facts(), Purpose::Start).await;
    let chosen = format!("mirror/calls-recorder:v0.8.13@{digest}");
    assert_eq!(ruling.verdict, Choice::Use(chosen));
    assert_eq!(ruling.by.as_deref(), Some("pins"));
    let [first, second] = &ruling.decisions[..] else {
        panic!("{ruling:?}")
    };
    assert_eq!(first.component_sha256, second.component_sha256);
    assert_ne!(first.settings_sha256, second.settings_sha256);
}

#[test]
fn stock_policies_are_small_and_import_nothing_they_do_not_use() {
    for file in [IMAGE_MAP, SITE_URL_MAP, RETRY_BACKOFF, RETENTION_RULES] {
        let bytes = policy(file);
        assert!(bytes.len() < 100_000, "{file} has {} bytes", bytes.len());
        let wasi = bytes.windows(9).any(|window| window == b"wasi:cli/");
        assert!(!wasi, "{file} imports the environment of a program");
    }
}
