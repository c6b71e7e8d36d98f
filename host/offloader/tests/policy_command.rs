//! The real binary's tools for policies.
#![allow(
    clippy::disallowed_methods,
    reason = "tests reach the machine by themselves"
)]

#[path = "support/guests.rs"]
mod guests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::*;
use engine::{Accepted, NewJob, Slots, Store as _};
use guests::{STOCK, stock_policy, workspace};
use serde_json::Value;
use store::{SqliteStore, StoreConfig};

/// A directory to work in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Runs `offloader policy …` here. Gives its exit code, standard output and standard error.
    fn run(&self, arguments: &[&dyn AsRef<Path>]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_offloader"))
            .env_clear()
            .current_dir(&self.0)
            .arg("policy")
            .args(arguments.iter().map(|argument| argument.as_ref()))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn json(&self, arguments: &[&dyn AsRef<Path>]) -> Value {
        let (_, told, error) = self.run(&[arguments, &[&"--json"]].concat());
        serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{error}"))
    }
}

#[test]
fn stock_policies_answer_their_cases() {
    for package in STOCK {
        let cases = workspace().join(format!("guests/policies/{package}/cases.toml"));
        let (code, told, error) = Place::new().run(&[&"test", &stock_policy(package), &cases]);
        assert_eq!(code, 0, "{package}\n{told}{error}");
        assert!(told.ends_with("passed, 0 failed\n"), "{told}");
    }
}

#[test]
fn a_case_that_fails_is_shown_with_what_differs() {
    let place = Place::new();
    let cases = place.write(
        "cases.toml",
        r#"
hook = "retry"
settings = { jitter = 0 }
limits.time = "10s"

[[case]]
name = "it waits longer"
expect = { verdict = "retry", value = "5s", reason = "stalled", read = ["id"] }

[[case]]
name = "it waits"
expect = { verdict = "retry", value = "2s" }

[[case]]
name = "it gives up"
expect = { verdict = "give-up" }

[[case]]
name = "it traps"
expect = { failure = "trap" }

[[case]]
name = "it is asked something else"
hook = "retention"
expect = { verdict = "keep" }

[[case]]
name = "it has nothing against its settings"
settings = { jitter = 7 }
expect = { verdict = "retry" }

[[case]]
name = "it has something against its settings"
expect.settings = ["jitter: "]
"#,
    );
    let policy = stock_policy("retry-backoff");
    let (code, told, error) = place.run(&[&"test", &policy, &"cases.toml"]);
    assert_eq!(code, 1, "{error}");
    assert_eq!(
        told,
        "\
FAIL  it waits longer  (cases.toml:6)
      value     expected 5000 ms
                found    2000 ms
      reason    expected … stalled …
                found    start-failed: attempt 2 of 3
      read      expected id
                found    attempt.failure, attempt.number, attempts, ever-ran, id, time-left-to-start
ok    it waits
FAIL  it gives up  (cases.toml:14)
      verdict   expected give-up
                found    retry
FAIL  it traps  (cases.toml:18)
      answer    expected failed: trap
                found    answered retry
FAIL  it is asked something else  (cases.toml:22)
      hook      expected retention
                found    the policy does not export it
FAIL  it has nothing against its settings  (cases.toml:27)
      settings  expected no problem
                found    jitter: expected a number from 0 to 1 with up to three decimals, found \"7\"
FAIL  it has something against its settings  (cases.toml:32)
      settings  expected jitter: 
                found    no problem
7 cases: 1 passed, 6 failed
"
    );
    let only: [&dyn AsRef<Path>; 5] = [&"test", &policy, &cases, &"--only", &"it waits"];
    let told = place.json(&only);
    assert_eq!((&told["passed"], &told["failed"]), (&1.into(), &1.into()));
    assert_eq!(told["cases"][0]["differences"][0]["what"], "value");
    assert_eq!(told["cases"][1]["passed"], true);
}

#[test]
fn mistakes_in_a_file_of_cases_are_all_told_with_what_was_meant() {
    let place = Place::new();
    place.write(
        "cases.toml",
        r#"
hok = "retry"
[[case]]
name = "one"
hook = "retry"
job = { imge = "x", attempts = [{ failure = "bored" }] }
expect = { verdict = "keep" }
[[case]]
hook = "image-selection"
expect = { verdict = "deny", value = "x" }
"#,
    );
    let policy = stock_policy("retry-backoff");
    let (code, told, error) = place.run(&[&"test", &policy, &"cases.toml"]);
    assert_eq!((code, told.as_str()), (2, ""));
    for line in [
        "error: cases.toml:2: hok: unknown key, did you mean hook?",
        "error: cases.toml:6: case[0].job.imge: unknown key, did you mean image?",
        "error: cases.toml:6: case[0].job.attempts[0].failure: expected one of ",
        "error: cases.toml:7: case[0].expect.verdict: expected one of pass, give-up, retry, found \"keep\"",
        "error: cases.toml:8: case[1].name: expected a name for the case",
        "error: cases.toml:10: case[1].expect.value: a denial has a code: give code",
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    place.write("cases.json", r#"{ "case": [ { "nam": "x" } ] }"#);
    let (code, _, error) = place.run(&[&"test", &policy, &"cases.json"]);
    assert_eq!(code, 2);
    let line = "error: cases.json: case[0].nam: unknown key, did you mean name?";
    assert!(error.contains(line), "{error}");
    let (code, _, error) = place.run(&[&"test", &policy, &"nowhere.toml"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot read nowhere.toml"), "{error}");
}

#[test]
fn cases_may_be_json() {
    let place = Place::new();
    place.write(
        "cases.json",
        r#"{ "hook": "retry", "settings": { "jitter": 0, "reasons": ["exited"] }, "limits": { "time": "10s" },
             "case": [ { "name": "it gives up", "job": { "attempts": [ { "exit_code": 3, "ran_after": "1s" } ] },
                         "expect": { "verdict": "give-up", "reason": "has run" } } ] }"#,
    );
    let policy = stock_policy("retry-backoff");
    let (code, told, error) = place.run(&[&"test", &policy, &"cases.json"]);
    assert_eq!(
        (code, told.as_str()),
        (0, "ok    it gives up\n1 cases: 1 passed, 0 failed\n"),
        "{error}"
    );
}

#[test]
fn a_policy_is_looked_into() {
    let place = Place::new();
    let policy = stock_policy("image-map");
    let (code, told, error) = place.run(&[&"inspect", &policy]);
    assert_eq!(code, 0, "{error}");
    for line in [
        "contract   offloader:policy@0.1.0",
        "hooks      image-selection",
        "settings   reads them, and checks them when it is loaded",
        "facts      image-chosen",
        "base set   none",
        "grants     none needed",
        "loads      yes",
        "[[policies.policy]]\nname = \"image-map\"\ncomponent = \"image_map.wasm\"\nsha256 = ",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let found = place.json(&[&"inspect", &policy]);
    assert_eq!(found["hooks"], serde_json::json!(["image-selection"]));
    assert_eq!(found["size_bytes"], fs::metadata(&policy).unwrap().len());
    assert_eq!(found["loads"], true);
}

#[test]
fn what_would_not_load_is_told_with_the_reason() {
    let place = Place::new();
    let module = place.write("module.wasm", b"\0asm\x01\0\0\0");
    let (code, told, _) = place.run(&[&"inspect", &module]);
    assert_eq!(code, 1);
    assert!(
        told.contains("is a core WebAssembly module, not a component"),
        "{told}"
    );
    assert_eq!(place.json(&[&"inspect", &module])["loads"], false);
    let (code, told, _) = place.run(&[&"inspect", &"nowhere.wasm"]);
    assert_eq!((code, told.as_str()), (2, ""));
    let text = "(component (import \"wasi:sockets/tcp@0.2.6\" (instance)))";
    let sockets = place.write("sockets.wasm", wat::parse_str(text).unwrap());
    let found = place.json(&[&"inspect", &sockets]);
    assert_eq!(found["imports"]["further"][0], "wasi:sockets/tcp@0.2.6");
    let problem = found["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("imports wasi:sockets/tcp@0.2.6"),
        "{problem}"
    );
}

#[test]
fn decisions_are_measured_beside_their_floor() {
    let place = Place::new();
    let cases = workspace().join("guests/policies/retry-backoff/cases.toml");
    let policy = stock_policy("retry-backoff");
    let bench: [&dyn AsRef<Path>; 6] = [&"bench", &policy, &"--seconds", &"1", &"--cases", &cases];
    let found = place.json(&bench);
    assert_eq!(found["hooks"][0]["hook"], "retry");
    for how in ["alone", "all_processors"] {
        for side in ["decision_us", "floor_us"] {
            let figures = &found["hooks"][0][how][side];
            let figure = |name: &str| figures[name].as_f64().unwrap();
            assert!(figure("p50") > 0.0, "{found}");
            assert!(figure("p50") <= figure("p99") && figure("p99") <= figure("p99.9"));
        }
    }
    let (code, told, error) = place.run(&bench);
    assert_eq!(code, 0, "{error}");
    assert!(told.contains("bare WebAssembly"), "{told}");
    let (code, _, error) = place.run(&[&"bench", &policy, &"--hook", &"retention"]);
    assert_eq!(code, 2);
    assert!(error.contains("does not export retention"), "{error}");
}

/// A job that runs, of which a policy called `images` mapped the image to registry `a`.
fn recorded(letter: &str, submitted_at: Timestamp) -> NewJob {
    let asked = "mattermost/calls-recorder:v0.8.13";
    let chosen = "a.example.com/calls-recorder:v0.8.13";
    let job = Job {
        id: letter.repeat(26).parse().unwrap(),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: asked.to_owned(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: Duration::from_secs(60),
        inputs: Inputs::new(),
        submitted_at,
        start_by: submitted_at.plus(Duration::from_secs(100)),
        resends: None,
        attempts: vec![Attempt::new(1, chosen.parse().unwrap(), submitted_at)],
        state: State::Preparing,
    };
    let decision = Decision {
        at: submitted_at,
        hook: Hook::ImageSelection,
        attempt: None,
        policy: "images".to_owned(),
        component_sha256: "c".repeat(64),
        settings_sha256: "s".repeat(64),
        read: vec!["image-chosen".to_owned()],
        outcome: DecisionOutcome::Answered,
        enforced: true,
        verdict: "use".to_owned(),
        value: Some(chosen.to_owned()),
        reason: None,
        micros: 20,
    };
    NewJob {
        job: Arc::new(job),
        decisions: vec![decision],
        keys: Vec::new(),
        body_sha256: String::new(),
        slots: Slots::default(),
    }
}

#[tokio::test]
async fn what_was_decided_is_asked_of_another_policy_beside_a_running_service() {
    let place = Place::new();
    fs::create_dir(place.path("state")).unwrap();
    // Open, as a service has it.
    let store = SqliteStore::open(StoreConfig {
        path: place.path("state/offloader.db"),
    })
    .unwrap();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_millis(0).plus(since_1970);
    let day = Duration::from_secs(86_400);
    let mut stalled = recorded("c", now.minus(day));
    // About an attempt whose end is not on record.
    let retry = Decision {
        hook: Hook::Retry,
        attempt: Some(1),
        ..stalled.decisions[0].clone()
    };
    stalled.decisions.push(retry);
    for job in [
        recorded("a", now.minus(9 * day)),
        recorded("b", now),
        stalled,
    ] {
        assert_eq!(store.accept(job).await.unwrap(), Accepted::New);
    }
    let configure = |registry: &str| {
        let dir = place.0.path().display();
        place.write(
            "config.toml",
            format!(
                "store.data_source = \"{dir}/state\"\n[policies]\ndir = \"{dir}\"\n\
                 [[policies.policy]]\nname = \"images\"\ncomponent = \"gone.wasm\"\n\
                 settings = {{ registries = {{ mattermost = \"{registry}\" }} }}\nlimits.time = \"10s\"\n"
            ),
        )
    };
    let policy = stock_policy("image-map");
    let config = configure("a.example.com");
    let replay: [&dyn AsRef<Path>; 5] = [&"replay", &"--against", &policy, &"--config", &config];

    let (code, told, error) = place.run(&replay);
    assert_eq!(code, 0, "{told}{error}");
    assert!(
        told.contains("asked of image_map.wasm: 2 as before, 0 otherwise, 1 not replayed"),
        "{told}"
    );
    assert!(
        told.contains("not replayed: the job's record does not tell how its attempt ended"),
        "{told}"
    );
    assert!(
        told.contains("note: 2 of them were made with other settings"),
        "{told}"
    );

    configure("b.example.com");
    let (code, told, error) = place.run(&[&replay[..], &[&"--since", &"12h"]].concat());
    assert_eq!(code, 1, "{error}");
    let change = "image-selection  use a.example.com/calls-recorder:v0.8.13 -> \
                  use b.example.com/calls-recorder:v0.8.13";
    assert!(
        told.contains(&"b".repeat(26)) && told.contains(change),
        "{told}"
    );
    assert!(!told.contains(&"c".repeat(26)), "it is older\n{told}");
    assert!(
        told.contains("       1  image-selection: use -> use"),
        "{told}"
    );

    let all = place.json(&[&replay[..], &[&"--since", &"30d"]].concat());
    assert_eq!(all["replayed"], 3);
    assert_eq!(all["changes"][0]["job"], "a".repeat(26));
    assert_eq!(all["counts"][0]["count"], 3);

    // A policy that has no such hook is not asked, which is to pass.
    let other = stock_policy("retention-rules");
    configure("x");
    place.write(
        "config.toml",
        fs::read_to_string(&config)
            .unwrap()
            .replace("registries = { mattermost = \"x\" }", ""),
    );
    let told = place.json(&[&"replay", &"--against", &other, &"--config", &config]);
    assert_eq!(told["changes"][0]["after"]["verdict"], "pass");
    let (code, _, error) = place.run(&[&replay[..], &[&"--policy", &"urls"]].concat());
    assert_eq!(code, 2);
    assert!(
        error.contains("no policy is called \"urls\"; there are images"),
        "{error}"
    );
    drop(store);
}

#[test]
fn limits_bite_on_this_machine() {
    let place = Place::new();
    let (code, told, error) = place.run(&[&"selftest"]);
    assert_eq!(code, 0, "{told}{error}");
    for line in [
        "ok    an endless loop: expected timeout, saw timeout: took longer than 20 ms",
        "ok    looking for variables of the environment: expected nothing found, saw nothing found",
        "ok    importing the network: expected refused, saw refused: it imports wasi:sockets/tcp@0.2.6",
        "after their time was up",
        "every limit bites",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(!told.contains("FAIL"), "{told}");
    assert_eq!(place.json(&[&"selftest"])["passed"], true);
}
