//! The same policy with everything granted that there is: it gets that, and nothing beside it. What
//! waits then waits really, and is left where it waits when its time is up.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use domain::{Decision, DecisionOutcome};
use offloader_policy_host::{DirGrant, PolicyConfig, PolicyGrants, PolicyHost};

use crate::support::acts::Act;
use crate::support::*;
use crate::{ANY, HASTY, broken_words, end_of, judge};

/// A directory to show, one to keep things in, and something outside of both.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let write = |file: &str, text: &str| fs::write(site.path().join(file), text).unwrap();
        for dir in ["shown/within", "kept"] {
            fs::create_dir_all(site.path().join(dir)).unwrap();
        }
        write("outside", "secret");
        write("shown/note", "shown");
        let shown = site.path().join("shown");
        symlink("../outside", shown.join("link")).unwrap();
        symlink(site.path().join("outside"), shown.join("absolute-link")).unwrap();
        symlink("..", shown.join("up")).unwrap();
        let pipe = Command::new("mkfifo").arg(shown.join("pipe")).status();
        assert!(pipe.unwrap().success());
        site
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn grants(&self) -> PolicyGrants {
        let dir = |name: &str, write| DirGrant {
            guest_path: format!("/{name}"),
            dir: Arc::new(open(&self.path().join(name))),
            write,
        };
        PolicyGrants {
            inputs: ["call_id".to_owned()].into(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
            dirs: vec![dir("shown", false), dir("kept", true)],
            real_clock: true,
            real_entropy: true,
        }
    }

    fn host(&self, time: Duration) -> PolicyHost {
        let mut config = misbehaving();
        config.limits.time = time;
        config.grants = self.grants();
        Policies::new(&[MISBEHAVE]).load(vec![config]).unwrap()
    }
}

/// How an act ends that ends otherwise than without grants.
fn end_with_grants(act: Act) -> (DecisionOutcome, &'static str) {
    use DecisionOutcome::{Answered, HostCalls, Timeout};
    match act {
        Act::Sleep | Act::ReadForEver | Act::WriteForEver => (Timeout, "took longer than 200 ms"),
        Act::ReadEnvironment => (Answered, r#"[("GREETING", "hello")] 0"#),
        Act::ProbeClocks | Act::ProbeEntropy => (Answered, ANY),
        Act::ReadShown => (Answered, "shown"),
        // All it gets is a link of its own making, which leads nowhere.
        Act::LeaveShown => (
            Answered,
            "no no no no no no no no no no no yes no no no no no",
        ),
        Act::ChangeShown => (Answered, "no no no no no no no no no no no"),
        Act::ChangeKept => (Answered, "yes yes yes yes yes yes yes yes yes yes yes"),
        Act::OpenPipe => (Answered, "no"),
        Act::HoardFiles => (HostCalls, "held too many handles of the host at once"),
        other => end_of(other),
    }
}

fn decide(host: &PolicyHost, act: Act) -> Decision {
    host.decide_retry(&acting(act)).decisions.remove(0)
}

#[test]
fn every_act_ends_as_it_must_with_everything_granted() {
    let site = Site::new();
    let hasty = site.host(HASTY);
    let patient = site.host(Duration::from_secs(10));
    let wrong: Vec<_> = Act::ALL
        .iter()
        .filter_map(|act| {
            let end = end_with_grants(*act);
            let host = match end.0 {
                DecisionOutcome::Timeout => &hasty,
                _ => &patient,
            };
            judge(host, &acting(*act), *act, end)
        })
        .collect();
    assert_eq!(wrong, [] as [&str; 0]);

    let text = |file: &str| fs::read_to_string(site.path().join(file)).unwrap();
    assert_eq!(text("outside"), "secret");
    assert_eq!(text("shown/note"), "shown");
    assert!(fs::metadata(site.path().join("kept/note")).unwrap().len() == 1 << 20);
    let mut left: Vec<_> = fs::read_dir(site.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["kept", "outside", "shown"]);
}

#[test]
fn what_was_granted_is_real_and_told_in_the_record() {
    let host = Site::new().host(Duration::from_secs(10));
    let read = |act| decide(&host, act).read;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let clocks = decide(&host, Act::ProbeClocks);
    let told = clocks.reason.unwrap();
    let (unix, waited) = told.split_once(' ').unwrap();
    let off = unix.parse::<u128>().unwrap() - now.unwrap().as_millis();
    assert!(off < 60_000, "{off} ms");
    assert!(waited.parse::<u64>().unwrap() >= 5_000_000, "{waited} ns");
    assert_eq!(clocks.read, ["clock", "id"]);

    let [one, other] = [(); 2].map(|()| decide(&host, Act::ProbeEntropy));
    assert_ne!(one.reason, other.reason);
    assert_eq!(one.read, ["entropy", "id"]);
    assert_eq!(read(Act::ReadEnvironment), ["env", "id"]);
    assert_eq!(read(Act::ReadShown), ["dir:/kept", "dir:/shown", "id"]);
    assert_eq!(read(Act::Remember), ["id"]);
}

#[test]
fn what_was_not_granted_stays_what_it_was() {
    let site = Site::new();
    let policies = Policies::new(&[MISBEHAVE]);
    let everything = site.grants();
    let host = |grants: PolicyGrants| {
        let mut config = misbehaving();
        config.grants = grants;
        policies.load(vec![config]).unwrap()
    };
    let told = |host: &PolicyHost, act| {
        let decision = decide(host, act);
        assert_eq!(decision.outcome, DecisionOutcome::Answered, "{decision:?}");
        decision.reason.unwrap()
    };
    let seen = |host: &PolicyHost| {
        let entropy = || told(host, Act::ProbeEntropy);
        [
            told(host, Act::ReadEnvironment) != "[] 0",
            told(host, Act::ReadShown) != "no",
            told(host, Act::ProbeClocks) != "2000 0",
            entropy() != entropy(),
        ]
    };
    let nothing = PolicyGrants::default();
    assert_eq!(seen(&host(nothing.clone())), [false, false, false, false]);
    let env = PolicyGrants {
        env: everything.env.clone(),
        ..nothing.clone()
    };
    assert_eq!(seen(&host(env)), [true, false, false, false]);
    let dirs = PolicyGrants {
        dirs: everything.dirs.clone(),
        ..nothing.clone()
    };
    let with_dirs = host(dirs);
    assert_eq!(seen(&with_dirs), [false, true, false, false]);
    // In a policy that can wait, clocks that stand still make no wait.
    assert_eq!(told(&with_dirs, Act::Sleep), "slept");
    let clock = PolicyGrants {
        real_clock: true,
        ..nothing.clone()
    };
    assert_eq!(seen(&host(clock)), [false, false, true, false]);
    let entropy = PolicyGrants {
        real_entropy: true,
        ..nothing
    };
    assert_eq!(seen(&host(entropy)), [false, false, false, true]);
}

#[test]
fn policies_that_wait_keep_nobody_from_deciding() {
    let site = Site::new();
    let slow = site.host(Duration::from_secs(1));
    let quick = site.host(Duration::from_secs(10));
    let begin = Instant::now();
    thread::scope(|scope| {
        let sleepers: Vec<_> = (0..32)
            .map(|_| scope.spawn(|| decide(&slow, Act::SleepForEver).outcome))
            .collect();
        let mut decided = 0;
        while begin.elapsed() < Duration::from_millis(500) {
            assert_eq!(
                decide(&quick, Act::ReadShown).reason.as_deref(),
                Some("shown")
            );
            decided += 1;
        }
        assert!(decided > 1);
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), DecisionOutcome::Timeout);
        }
    });
    // Each had its second at the same time as the others.
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn broken_words_end_the_decision_of_a_policy_that_can_wait() {
    let policies = Policies::new(&[]);
    let failing = broken_words::failing();
    let load = |policy: &broken_words::Failing| {
        policies.write(policy.name, &policy.bytes());
        let mut config = PolicyConfig {
            on_failure: offloader_policy_host::OnFailure::Skip,
            ..configured(policy.name, policy.name, &[])
        };
        config.grants.real_clock = true;
        if policy.outcome == DecisionOutcome::Timeout {
            config.limits.time = Duration::from_millis(50);
        }
        config
    };
    let host = policies.load(failing.iter().map(load).collect()).unwrap();
    let ruling = host.decide_retry(&acting(Act::Remember));
    assert_eq!(
        broken_words::wrong(&failing, &ruling.decisions),
        [] as [&str; 0]
    );
}
