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
        resends: None,
    }
}

fn other_job() -> JobId {
    JobId::from_random([4; JobId::LEN])
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
    assert_eq!(labels["io.offloader.volume-of"], permit.name().to_string());
    assert_eq!(labels.len(), 10);
    assert!(permit.resends().is_none() && permit.arguments().is_empty());
}

#[test]
fn a_resend_gets_the_argument_and_the_volume_and_nothing_more() {
    let own = gate().authorize(plan()).unwrap();
    let permit = gate()
        .authorize(LaunchPlan {
            resends: Some((other_job(), 2)),
            ..plan()
        })
        .unwrap();
    let source = gate().container_name(&other_job(), 2);
    assert_eq!(permit.resends(), Some(&source));
    assert_eq!(permit.volume_of(), &source);
    assert_eq!(permit.arguments(), ["resend"]);
    assert_eq!(permit.name(), own.name());
    assert_eq!(
        permit.labels()["io.offloader.volume-of"],
        source.to_string()
    );
    assert_eq!(permit.labels()["io.offloader.job"], job_id().to_string());
    assert_eq!(permit.capabilities(), own.capabilities());
    assert_eq!(permit.memory_bytes(), own.memory_bytes());
    let names = |permit: &LaunchPermit| permit.env().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&permit), names(&own));
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
        digest(&gate, &|plan| plan.resends = Some((other_job(), 1))),
        digest(&gate, &|plan| plan.resends = Some((other_job(), 2))),
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

#[test]
fn of_a_containers_variables_a_job_was_given_those_that_it_may_have_or_that_are_on_record() {
    let gate = gate();
    let given = |inputs: &[&str]| {
        let env = [
            ("PATH", "/usr/bin"),
            ("HOSTNAME", "x"),
            ("DEV_MODE", "true"),
            ("AUTH_TOKEN", ID),
            ("WIDTH", "1280"),
            ("REGION", "north"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let inputs = inputs
            .iter()
            .map(|name| ((*name).to_owned(), domain::InputValue::Text("x".into())))
            .collect();
        let given = gate.given(JobKind::Recording, &inputs, env.into());
        given.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(given(&["width"]), ["AUTH_TOKEN", "WIDTH"]);
    // Granted once and no longer: what is left out nobody could refuse.
    let region = given(&["width", "Region"]);
    assert_eq!(region, ["AUTH_TOKEN", "REGION", "WIDTH"]);
    let plan = LaunchPlan {
        inputs: [("REGION".to_owned(), Secret::new("north"))].into(),
        resends: Some((other_job(), 1)),
        ..plan()
    };
    let refusal = gate.authorize(plan).unwrap_err();
    assert_eq!(refusal.setting, "gate.recording.inputs");
}
