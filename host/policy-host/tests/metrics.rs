//! What is counted of policies, as it is shown in the end.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use domain::{DecisionOutcome, Purpose};
use metrics_exporter_prometheus::PrometheusBuilder;
use offloader_policy_host::{PolicyConfig, PolicyHost, PolicyHostConfig};
use support::acts::Act;
use support::*;

#[test]
fn decisions_reloads_and_quarantine_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let policies = Policies::new(&[IMAGE_MAP, MISBEHAVE]);
        let config = || PolicyHostConfig {
            quarantine_after: NonZeroU32::new(2),
            ..policies.config(vec![configured("images", IMAGE_MAP, &[]), misbehaving()])
        };
        let host = PolicyHost::load(config(), LOADED_AT).unwrap();
        host.decide_image(&facts(), Purpose::Start);
        for _ in 0..3 {
            host.decide_retry(&acting(Act::Panic));
        }
        let absent = policies.config(vec![PolicyConfig::new("absent", "absent.wasm")]);
        host.reload(absent, LOADED_AT).unwrap_err();
        let text = shown.render();
        for line in [
            r#"offloader_policy_decisions_total{policy="images",hook="image-selection",outcome="answered"} 1"#,
            r#"offloader_policy_decisions_total{policy="misbehave",hook="retry",outcome="trap"} 2"#,
            r#"offloader_policy_decisions_total{policy="misbehave",hook="retry",outcome="quarantined"} 1"#,
            r#"offloader_policy_decision_duration_seconds_count{policy="misbehave",hook="retry"} 2"#,
            r#"offloader_policy_quarantined{policy="misbehave"} 1"#,
            r#"offloader_policy_quarantined{policy="images"} 0"#,
            "offloader_policy_pool_slots 64",
            "offloader_policy_pool_slots_used 0",
            "offloader_policy_generation 1",
            r#"offloader_policy_reloads_total{result="failed"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("timeout"),
            "what never happened is shown:\n{text}"
        );

        host.reload(config(), LOADED_AT).unwrap();
        let text = shown.render();
        for line in [
            r#"offloader_policy_quarantined{policy="misbehave"} 0"#,
            "offloader_policy_generation 2",
            r#"offloader_policy_reloads_total{result="ok"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        for (metric, kind) in [
            ("offloader_policy_decisions_total", "counter"),
            ("offloader_policy_generation", "gauge"),
        ] {
            assert!(text.contains(&format!("# TYPE {metric} {kind}")), "{text}");
            assert!(text.contains(&format!("# HELP {metric} ")), "{text}");
        }
    });
}

#[test]
fn a_policy_that_was_replaced_is_in_no_quarantine_whatever_it_does_then() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let policies = Policies::new(&[MISBEHAVE]);
        let config = || {
            let mut slow = misbehaving();
            slow.limits.time = Duration::from_secs(2);
            PolicyHostConfig {
                quarantine_after: NonZeroU32::new(1),
                ..policies.config(vec![slow])
            }
        };
        let host = PolicyHost::load(config(), LOADED_AT).unwrap();
        thread::scope(|scope| {
            let deciding = scope.spawn(|| host.decide_retry(&acting(Act::Loop)));
            thread::sleep(Duration::from_millis(200));
            host.reload(config(), LOADED_AT).unwrap();
            assert!(
                !deciding.is_finished(),
                "the reload waited for the decision"
            );
            let decision = deciding.join().unwrap().decisions.remove(0);
            assert_eq!(decision.outcome, DecisionOutcome::Timeout);
        });
        host.reload_refused();
        let text = shown.render();
        for line in [
            r#"offloader_policy_quarantined{policy="misbehave"} 0"#,
            r#"offloader_policy_reloads_total{result="failed"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    });
}
