use super::*;
use crate::testing::{ID, gate, gate_with, job_id};

fn plan() -> LaunchPlan {
    LaunchPlan {
        job: job_id(),
        attempt: 1,
        kind: JobKind::Recording,
        client: ClientId::new("site").unwrap(),
        submitted_at: Timestamp::from_millis(1_700_000_000_000),
        max_duration: Duration::from_secs(600),
        image: (
            "mattermost/calls-recorder:v0.8.13".parse().unwrap(),
            Origin::Client,
        ),
        image_id: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        site_url: Some((
            "https://settled.example.com".parse().unwrap(),
            Origin::Policy("map".to_owned()),
        )),
        inputs: [
            ("site_url", "https://asked.example.com"),
            ("recording_id", ID),
            ("Auth_Token", ID),
        ]
        .map(|(name, value)| (name.to_owned(), Secret::new(value)))
        .into(),
    }
}

#[test]
fn a_permit_holds_what_was_granted_and_settled() {
    let permit = gate().authorize(plan()).unwrap();
    let env: BTreeMap<&str, &str> = permit
        .env()
        .map(|(name, value)| (name, value.reveal()))
        .collect();
    assert_eq!(
        env,
        BTreeMap::from([
            ("SITE_URL", "https://settled.example.com"),
            ("RECORDING_ID", ID),
            ("AUTH_TOKEN", ID)
        ])
    );
    assert_eq!(permit.name(), &gate().container_name(&job_id(), 1));
    assert_eq!(
        (
            permit.network(),
            permit.memory_bytes(),
            permit.nano_cpus(),
            permit.pids()
        ),
        ("bridge", 4 << 30, 0, 4096)
    );
    assert_eq!(permit.capabilities(), ["CHOWN", "KILL", "SETGID", "SETUID"]);
    assert_eq!(permit.stop_grace(), Duration::from_secs(7200));
    assert!(!format!("{permit:?}").contains(ID));
    let labels = permit.labels();
    assert_eq!(labels["app"], "mattermost-calls-offloader");
    assert_eq!(labels["io.offloader.instance"], "main");
    assert_eq!(labels["io.offloader.job"], job_id().to_string());
    assert_eq!(labels["io.offloader.attempt"], "1");
    assert_eq!(labels["io.offloader.type"], "recording");
    assert_eq!(labels["io.offloader.plan-sha256"].len(), 64);
    assert_eq!(labels["io.offloader.client"], "site");
    assert_eq!(labels["io.offloader.submitted-unix-ms"], "1700000000000");
    assert_eq!(labels["io.offloader.max-duration-ms"], "600000");
    assert_eq!(labels.len(), 9);
}

#[test]
fn the_digest_tells_every_difference() {
    let digest = |gate: &Gate, change: &dyn Fn(&mut LaunchPlan)| {
        let mut plan = plan();
        change(&mut plan);
        gate.authorize(plan).unwrap().labels()["io.offloader.plan-sha256"].clone()
    };
    let gate = gate();
    let other_gate = gate_with(|grants| grants.recording.memory_bytes = 1 << 30);
    let same = digest(&gate, &|_| {});
    assert_eq!(same, digest(&gate, &|_| {}));
    let all = [
        same,
        digest(&other_gate, &|_| {}),
        digest(&gate, &|plan| plan.attempt = 2),
        digest(&gate, &|plan| plan.job = JobId::from_random([4; 26])),
        digest(&gate, &|plan| {
            plan.image.0 = "mattermost/calls-recorder:v0.8.14".parse().unwrap()
        }),
        digest(&gate, &|plan| {
            plan.image_id = format!("sha256:{}", "1".repeat(64)).parse().unwrap()
        }),
        digest(&gate, &|plan| {
            plan.site_url = Some(("https://x".parse().unwrap(), Origin::Client))
        }),
        digest(&gate, &|plan| {
            _ = plan
                .inputs
                .insert("Auth_Token".to_owned(), Secret::new(ID.replace('a', "b")))
        }),
        digest(&gate, &|plan| {
            _ = plan.inputs.insert("width".to_owned(), Secret::new("1280"))
        }),
    ];
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn every_rule_is_checked_again() {
    let gate =
        gate_with(|grants| grants.recording.site_hosts = vec!["settled.example.com".to_owned()]);
    assert!(gate.authorize(plan()).is_ok());
    let refused = |change: &dyn Fn(&mut LaunchPlan)| {
        let mut plan = plan();
        change(&mut plan);
        gate.authorize(plan).unwrap_err()
    };
    let policy = Origin::Policy("map".to_owned());
    let refusal = refused(&|plan| {
        plan.image = (
            "evil/calls-recorder:v1.0.0".parse().unwrap(),
            policy.clone(),
        )
    });
    assert_eq!(
        (refusal.origin, refusal.setting.as_str()),
        (policy, "gate.registries")
    );
    let refusal =
        refused(&|plan| plan.site_url = Some(("https://other".parse().unwrap(), Origin::Client)));
    assert_eq!(refusal.setting, "gate.recording.site_hosts");
    let refusal = refused(&|plan| plan.site_url = None);
    assert_eq!(refusal.subject, "input SITE_URL");
    let refusal = refused(&|plan| {
        _ = plan
            .inputs
            .insert("LD_PRELOAD".to_owned(), Secret::new("x"))
    });
    assert_eq!(refusal.subject, "input LD_PRELOAD");
    let refusal = refused(&|plan| {
        _ = plan
            .inputs
            .insert("RECORDING_ID".to_owned(), Secret::new(ID))
    });
    assert!(refusal.why.contains("case"));
    let refusal = refused(&|plan| {
        _ = plan
            .inputs
            .insert("recording_id".to_owned(), Secret::new("../.."))
    });
    assert_eq!(refusal.subject, "input RECORDING_ID");
    for attempt in [0, 4] {
        let refusal = refused(&|plan| plan.attempt = attempt);
        assert_eq!(refusal.setting, "gate.recording.retry.max_attempts");
    }
}

#[test]
fn dev_mode_is_passed_on_only_when_the_service_has_it() {
    let has = |gate: &Gate| {
        gate.authorize(plan())
            .unwrap()
            .env()
            .any(|(name, _)| name == "DEV_MODE")
    };
    assert!(!has(&gate()));
    let dev = gate_with(|grants| *grants = grants.clone().in_dev_mode());
    assert!(has(&dev));
    let network = if cfg!(target_os = "linux") {
        "host"
    } else {
        "bridge"
    };
    assert_eq!(dev.authorize(plan()).unwrap().network(), network);
}
