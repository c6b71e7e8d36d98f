use proptest::prelude::*;

use super::*;
use crate::testing::{gate, gate_with};

const REC: JobKind = JobKind::Recording;

fn digest(digit: &str) -> Digest {
    format!("sha256:{}", digit.repeat(64)).parse().unwrap()
}

#[test]
fn clients_may_ask_for_the_two_programs_of_the_configured_registry() {
    let gate = gate();
    for (text, kind) in [
        ("mattermost/calls-recorder:v0.8.13", REC),
        ("mattermost/calls-recorder:v0.6.0", REC),
        ("mattermost/calls-recorder:v0.7.0-dev", REC),
        ("mattermost/calls-recorder:v0.7.0-dev12", REC),
        ("mattermost/calls-transcriber:v0.1.0", JobKind::Transcribing),
    ] {
        assert_eq!(
            gate.runner(text),
            Ok(RunnerName {
                kind: Some(kind),
                text: text.to_owned()
            })
        );
    }
    for bad in [
        "mattermost/calls-recorder",
        "mattermost/calls-recorder:latest",
        "mattermost/calls-recorder:0.8.13",
        "mattermost/calls-recorder:v0.8",
        "mattermost/calls-recorder:v0.8.13-rc1",
        "mattermost/calls-recorder:v0.8.13-devx",
        "mattermost/calls-recorder:v0.8.13 ",
        "mattermost/calls-recorder:v0.8.13\n",
        "evil/calls-recorder:v0.8.13",
        "xmattermost/calls-recorder:v0.8.13",
        "mattermost/x/calls-recorder:v0.8.13",
        "mattermost/calls-other:v0.8.13",
        "mattermostXcalls-recorder:v0.8.13",
        "mattermost/calls-recorder:v0.8.13+b",
        "mattermost/calls-recorder:v00.8.13",
        "mattermost/calls-recorder:master",
        "calls-recorder:v0.8.13",
        "mattermost/calls-recorder:v99999999999999999999.0.0",
    ] {
        let refusal = gate.runner(bad).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("failed to validate runner {bad:?}")
        );
    }
}

#[test]
fn the_texts_are_the_contracts() {
    let text = |asked: &str| gate().runner(asked).unwrap_err().to_string();
    assert_eq!(text(""), "runner should not be empty");
    assert_eq!(text("x"), "failed to validate runner \"x\"");
    assert_eq!(
        text("mattermost/calls-recorder:v0.1.0"),
        "actual version (0.1.0) is lower than minimum supported version (0.6.0)"
    );
    assert_eq!(
        text("mattermost/calls-recorder:v0.6.0-dev1"),
        "actual version (0.6.0-dev1) is lower than minimum supported version (0.6.0)"
    );
    assert_eq!(
        text("mattermost/calls-transcriber:v0.0.9"),
        "actual version (0.0.9) is lower than minimum supported version (0.1.0)"
    );
}

#[test]
fn the_registry_is_no_pattern() {
    let gate = gate_with(|grants| *grants = crate::Grants::standard("reg.example.com:5000/a"));
    assert!(
        gate.runner("reg.example.com:5000/a/calls-recorder:v0.8.13")
            .is_ok()
    );
    assert!(
        gate.runner("regxexample.com:5000/a/calls-recorder:v0.8.13")
            .is_err()
    );
}

#[test]
fn test_mode_switches_the_rule_off_but_not_the_grants() {
    let gate = gate_with(|grants| grants.runner_rule = RunnerRule::Any);
    let asked = gate.runner("mattermost/calls-recorder:master").unwrap();
    assert_eq!(
        asked,
        RunnerName {
            kind: Some(REC),
            text: "mattermost/calls-recorder:master".to_owned()
        }
    );
    assert_eq!(gate.runner("evil/other:v1").unwrap().kind, None);
    assert!(
        gate.image(REC, "evil/calls-recorder:v1", &Origin::Client)
            .is_err()
    );
    assert!(
        gate.image(REC, "library/calls-recorder:master", &Origin::Client)
            .is_err()
    );
    assert_eq!(
        gate.runner("no image").unwrap_err().to_string(),
        "failed to validate runner \"no image\""
    );
}

#[test]
fn dev_mode_uses_the_developers_own_build() {
    let gate = gate_with(|grants| *grants = grants.clone().in_dev_mode());
    for asked in ["mattermost/calls-recorder:v0.8.13", "calls-recorder:master"] {
        let runner = gate.runner(asked).unwrap();
        assert_eq!(
            runner,
            RunnerName {
                kind: Some(REC),
                text: "library/calls-recorder:master".to_owned()
            }
        );
        assert!(gate.image(REC, &runner.text, &Origin::Client).is_ok());
    }
    assert!(
        gate.image(REC, "library/calls-transcriber:master", &Origin::Client)
            .is_err()
    );
    assert!(
        gate.image(REC, "library/calls-recorder:v1", &Origin::Client)
            .is_err()
    );
}

#[test]
fn registry_and_name_are_granted_per_kind_and_literally() {
    let gate = gate_with(|grants| {
        grants
            .registries
            .push("localhost:5000/mattermost".to_owned());
        grants.recording.images.insert("tiny".to_owned());
    });
    let policy = Origin::Policy("image-map".to_owned());
    for good in [
        "mattermost/calls-recorder:v1",
        "localhost:5000/mattermost/calls-recorder:v1",
        "mattermost/tiny:x",
    ] {
        assert_eq!(
            gate.image(REC, good, &policy).unwrap().image().to_string(),
            good
        );
    }
    for (bad, setting) in [
        ("matterm0st/calls-recorder:v1", "gate.registries"),
        ("localhost:5000/calls-recorder:v1", "gate.registries"),
        (
            "localhost:5001/mattermost/calls-recorder:v1",
            "gate.registries",
        ),
        ("mattermost/sub/calls-recorder:v1", "gate.registries"),
        ("docker.io/mattermost/calls-recorder:v1", "gate.registries"),
        ("mattermost/calls-transcriber:v1", "gate.recording.images"),
        ("mattermost/calls-recorder-x:v1", "gate.recording.images"),
        ("mattermost/calls-recorder:v1;id", ""),
        ("mattermost/calls-recorder", ""),
    ] {
        let refusal = gate.image(REC, bad, &policy).unwrap_err();
        assert_eq!(
            (&refusal.origin, refusal.setting.as_str()),
            (&policy, setting),
            "{refusal}"
        );
    }
}

#[test]
fn digests_pin_tags() {
    let (pin, other) = (digest("a"), digest("b"));
    for require_digest in [false, true] {
        let gate = gate_with(|grants| {
            grants
                .recording
                .digests
                .insert("calls-recorder:v1.0.0".to_owned(), pin.clone());
            grants.recording.require_digest = require_digest;
        });
        let ask = |rest: &str| {
            gate.image(
                REC,
                &format!("mattermost/calls-recorder{rest}"),
                &Origin::Client,
            )
        };
        let pinned = |rest: &str| ask(rest).unwrap().image().digest().cloned();
        assert_eq!(pinned(":v1.0.0"), Some(pin.clone()));
        assert_eq!(pinned(&format!(":v1.0.0@{pin}")), Some(pin.clone()));
        assert_eq!(pinned(&format!("@{pin}")), Some(pin.clone()));
        let refusal = ask(&format!(":v1.0.0@{other}")).unwrap_err();
        assert_eq!(refusal.setting, "gate.recording.digests");
        for unlisted in [
            ":v2.0.0".to_owned(),
            format!(":v2.0.0@{pin}"),
            format!("@{other}"),
        ] {
            assert_eq!(ask(&unlisted).is_err(), require_digest, "{unlisted}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_image_is_another_than_granted(
        registry in prop_oneof![3 => Just("mattermost".to_owned()), 1 => "[a-zA-Z0-9./:@;$ _-]{0,20}"],
        name in prop_oneof![3 => Just("calls-recorder".to_owned()), 1 => "[a-z0-9./:@;$ _-]{0,20}"],
        tag in prop_oneof![1 => Just("v0.8.13".to_owned()), 1 => "v[0-9]{1,2}[.][0-9]{1,2}[.][0-9]{1,2}(-dev[0-9]{0,2})?", 2 => any::<String>()],
    ) {
        let gate = gate();
        let text = format!("{registry}/{name}:{tag}");
        if let Ok(permit) = gate.image(REC, &text, &Origin::Client) {
            prop_assert_eq!(permit.image().registry(), "mattermost");
            prop_assert_eq!(permit.image().name(), "calls-recorder");
            prop_assert!(permit.image().to_string().chars().all(crate::variables::is_plain));
        }
        if let Ok(runner) = gate.runner(&text) {
            let kind = runner.kind.unwrap();
            prop_assert_eq!(&runner.text, &text);
            prop_assert!(gate.image(kind, &runner.text, &Origin::Client).is_ok(), "{}", text);
        }
    }
}
