//! The stock policies through the port, as the engine asks them.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::time::Duration;

use domain::{
    Choice, DecisionOutcome, Delivery, EndReason, Hook, Purpose, RetentionVerdict, RetryVerdict,
};
use engine::Policies as _;
use support::*;

#[tokio::test]
async fn image_map_chooses_the_same_for_start_and_prefetch() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let settings = [
        (
            "registries",
            r#"{"mattermost": "localhost:5000/mattermost"}"#,
        ),
        (
            "forbidden",
            r#"{"calls-recorder:v0.8.0": "it loses the sound"}"#,
        ),
    ];
    let host = policies
        .load(vec![configured("images", IMAGE_MAP, &settings)])
        .unwrap();
    for purpose in [Purpose::Start, Purpose::Prefetch] {
        let ruling = host.select_image(&facts(), purpose).await;
        let chosen = "localhost:5000/mattermost/calls-recorder:v0.8.13";
        assert_eq!(ruling.verdict, Choice::Use(chosen.to_owned()));
        assert_eq!(ruling.by.as_deref(), Some("images"));
        let [decision] = &ruling.decisions[..] else {
            panic!("{ruling:?}")
        };
        assert_eq!(
            (decision.hook, decision.outcome),
            (Hook::ImageSelection, DecisionOutcome::Answered)
        );
        assert_eq!(
            (decision.verdict.as_str(), decision.value.as_deref()),
            ("use", Some(chosen))
        );
        assert_eq!(
            decision.reason.as_deref(),
            Some("mapped to the site's registry")
        );
        assert_eq!(decision.read, ["image-chosen"]);
        assert_eq!(
            (
                decision.component_sha256.len(),
                decision.settings_sha256.len()
            ),
            (64, 64)
        );
    }
    let mut forbidden = facts();
    forbidden.image_chosen = "mattermost/calls-recorder:v0.8.0".to_owned();
    let Choice::Deny(denial) = host.select_image(&forbidden, Purpose::Start).await.verdict else {
        panic!()
    };
    assert_eq!(
        denial.message,
        "calls-recorder:v0.8.0 is not used on this site: it loses the sound"
    );
    // Nobody is asked about what no policy exports.
    let ruling = host.retry(&failed(&[EndReason::StartFailed])).await;
    assert_eq!(
        (ruling.verdict, ruling.decisions.len()),
        (RetryVerdict::Pass, 0)
    );
}

#[tokio::test]
async fn site_url_map_maps_by_host_and_denies_the_unknown() {
    let policies = Policies::new(&[SITE_URL_MAP]);
    let settings = [
        (
            "hosts",
            r#"{"mattermost.example.com": {"recording": "http://localhost:8065"}}"#,
        ),
        ("deny_unknown_hosts", "true"),
    ];
    let host = policies
        .load(vec![configured("urls", SITE_URL_MAP, &settings)])
        .unwrap();
    let ruling = host.select_site_url(&facts()).await;
    assert_eq!(
        ruling.verdict,
        Choice::Use("http://localhost:8065".to_owned())
    );
    assert_eq!(ruling.decisions[0].read, ["kind", "site-url-chosen"]);
    let mut unknown = facts();
    unknown.site_url_chosen = "https://elsewhere.example".to_owned();
    let Choice::Deny(denial) = host.select_site_url(&unknown).await.verdict else {
        panic!()
    };
    assert_eq!(denial.code, "unknown-host");
}

#[tokio::test]
async fn retry_backoff_retries_what_may_pass() {
    let policies = Policies::new(&[RETRY_BACKOFF]);
    let host = policies
        .load(vec![configured(
            "retries",
            RETRY_BACKOFF,
            &[("jitter", "0")],
        )])
        .unwrap();
    let verdict = async |reasons: &[EndReason]| host.retry(&failed(reasons)).await.verdict;
    use EndReason::{ImageNotFound, ImageUnreachable};
    assert_eq!(
        verdict(&[ImageUnreachable]).await,
        RetryVerdict::RetryAfter(Duration::from_secs(2))
    );
    assert_eq!(
        verdict(&[ImageUnreachable; 2]).await,
        RetryVerdict::RetryAfter(Duration::from_secs(4))
    );
    assert_eq!(verdict(&[ImageUnreachable; 3]).await, RetryVerdict::GiveUp);
    assert_eq!(verdict(&[ImageNotFound]).await, RetryVerdict::GiveUp);
    let mut late = failed(&[ImageUnreachable]);
    late.now = late.start_by.minus(Duration::from_secs(11));
    let ruling = host.retry(&late).await;
    assert_eq!(ruling.verdict, RetryVerdict::GiveUp);
    assert_eq!(ruling.decisions[0].attempt, Some(1));
    assert_eq!(
        ruling.decisions[0].reason.as_deref(),
        Some("image-unreachable, and no time is left for another attempt")
    );
}

#[tokio::test]
async fn retention_rules_keep_by_what_became_of_the_work() {
    let policies = Policies::new(&[RETENTION_RULES]);
    let settings = [
        ("delivered", "delete"),
        ("failed", "7d"),
        ("recording", r#"{"unsent": "keep"}"#),
    ];
    let host = policies
        .load(vec![configured("rules", RETENTION_RULES, &settings)])
        .unwrap();
    let verdict = async |reason, delivery| {
        let mut facts = failed(&[reason]);
        facts.delivery = Some(delivery);
        host.retention(&facts).await.verdict
    };
    use EndReason::{Completed, Exited, ImageNotFound};
    assert_eq!(
        verdict(Completed, Delivery::Delivered).await,
        RetentionVerdict::Delete
    );
    assert_eq!(
        verdict(Exited(1), Delivery::Unsent { bytes: 9 }).await,
        RetentionVerdict::Keep
    );
    let week = RetentionVerdict::KeepFor(Duration::from_secs(7 * 86_400));
    assert_eq!(verdict(ImageNotFound, Delivery::NeverRan).await, week);
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

#[test]
fn wrong_settings_are_told_by_the_policies_with_their_keys() {
    let policies = Policies::new(&[IMAGE_MAP, RETRY_BACKOFF]);
    let told = problems(policies.load(vec![
        configured(
            "images",
            IMAGE_MAP,
            &[
                ("pins", r#"{"calls-recorder:v1": "latest"}"#),
                ("registry", "x"),
            ],
        ),
        configured("retries", RETRY_BACKOFF, &[("first_delay", "soon")]),
    ]));
    assert_eq!(
        told,
        [
            "policy \"images\": settings: pins: calls-recorder:v1: a digest is sha256: and 64 hexadecimal digits",
            "policy \"images\": settings: registry: unknown setting; there are registries, pins, forbidden",
            "policy \"retries\": settings: first_delay: expected a whole number and ms, s, m, h or d, for example 30s, found \"soon\"",
        ]
    );
}
