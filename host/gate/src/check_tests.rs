use super::*;
use crate::Gate;

fn problems(change: impl FnOnce(&mut Grants)) -> Vec<String> {
    let mut grants = Grants::standard("mattermost");
    change(&mut grants);
    match Gate::new(grants, "main".parse().unwrap()) {
        Ok(_) => Vec::new(),
        Err(found) => found.into_iter().map(|grant| grant.setting).collect(),
    }
}

fn only(setting: &str, change: impl FnOnce(&mut Grants)) {
    assert_eq!(problems(change), [setting]);
}

#[test]
fn the_defaults_are_fine_and_as_documented() {
    assert_eq!(problems(|_| {}), [""; 0]);
    assert_eq!(
        problems(|grants| *grants = grants.clone().in_dev_mode()),
        [""; 0]
    );
    let grants = Grants::standard("mattermost");
    assert_eq!(grants.recording.memory_bytes, 4_294_967_296);
    assert_eq!(grants.transcribing.stop_grace.as_secs(), 7200);
    assert_eq!(
        grants.transcribing.delivered_when,
        domain::DeliveredWhen::ExitZero
    );
    assert_eq!(
        grants.recording.delivered_when,
        domain::DeliveredWhen::NoMediaLeft
    );
    assert_eq!(grants.recording.capabilities.len(), 4);
}

#[test]
fn every_grant_that_cannot_be_given_is_told_with_its_key() {
    only("gate.registries", |g| g.registries.clear());
    only("gate.registries", |g| {
        g.registries.push("Bad Registry".to_owned())
    });
    only("gate.registries", |g| {
        g.registries.push("mattermost/".to_owned())
    });
    only("jobs.image_registry", |g| {
        g.runner_rule = RunnerRule::Registry(String::new())
    });
    only("gate.recording.images", |g| {
        _ = g.recording.images.insert("a/b".to_owned())
    });
    only("gate.recording.images", |g| {
        _ = g.recording.images.insert("a:b".to_owned())
    });
    only("gate.transcribing.networks", |g| {
        g.transcribing.networks.clear()
    });
    for network in ["container:abc", "", "-x", "a b"] {
        only("gate.recording.networks", |g| {
            g.recording.networks = vec![network.to_owned()]
        });
    }
    only("gate.recording.memory", |g| g.recording.memory_bytes = 1024);
    only("gate.recording.pids", |g| g.recording.pids = u64::MAX);
    for capability in ["ALL", "CAP_KILL", "kill", ""] {
        only("gate.recording.capabilities", |g| {
            _ = g.recording.capabilities.insert(capability.to_owned())
        });
    }
    for flag in [
        "--no-sandbox",
        "--remote-debugging-port=1",
        "mute",
        "--proxy-server=a b",
    ] {
        only("gate.recording.chromium_args", |g| {
            g.recording.chromium_args.push(flag.to_owned())
        });
    }
    only("gate.recording.retry.max_attempts", |g| {
        g.recording.retry.max_attempts = 0
    });
    only("gate.recording.retention", |g| {
        g.recording.retention.at_most = std::time::Duration::from_secs(1)
    });
    let digest: domain::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    for key in ["calls-recorder", "a/b:c", ":x"] {
        only("gate.recording.digests", |g| {
            _ = g.recording.digests.insert(key.to_owned(), digest.clone())
        });
    }
    for host in ["", "*", "*.", "https://h", "h/x", "a..b", "*.*.x", "h:80"] {
        only("gate.recording.site_hosts", |g| {
            g.recording.site_hosts = vec![host.to_owned()]
        });
    }
}

#[test]
fn inputs_that_no_setting_allows_are_told() {
    for (name, pattern) in [
        ("LD_PRELOAD", ".*"),
        ("DEV_MODE", "true"),
        ("path", ".*"),
        ("SITE_URL", ".*"),
        ("width", "[0-9]+"),
        ("1X", "a"),
        ("A-B", "a"),
        ("MY_VAR", "("),
        ("MY_VAR", "a)|(b"),
        ("MY_VAR", "(?x)a #"),
    ] {
        only(&format!("gate.recording.inputs.{name}"), |g| {
            g.recording
                .inputs
                .insert(name.to_owned(), pattern.to_owned());
        });
    }
    only("gate.recording.inputs.my_var", |g| {
        for name in ["MY_VAR", "my_var"] {
            g.recording.inputs.insert(name.to_owned(), "a".to_owned());
        }
    });
    assert!(
        problems(|g| _ = g
            .transcribing
            .inputs
            .insert("WIDTH".to_owned(), "[0-9]+".to_owned()))
        .is_empty()
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problems(|g| {
        g.registries.clear();
        g.recording.networks.clear();
        g.transcribing.retry.max_attempts = 0;
    });
    assert_eq!(
        found,
        [
            "gate.registries",
            "gate.recording.networks",
            "gate.transcribing.retry.max_attempts"
        ]
    );
}
