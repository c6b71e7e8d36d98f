//! A retry policy for tests that misbehaves, or tells what it can see, as its settings say.
//!
//! `decide` names what it does when it is asked, `check` what it does when its settings are checked.
//! What it has to tell it tells as the reason of giving up. It uses the standard library, so it also
//! stands for the policies that import the whole base set of WASI.
#![allow(
    clippy::disallowed_methods,
    reason = "it tries what the sandbox keeps from it"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, hint, io, process, thread};

use offloader_policy_sdk::retry::{Retry, Verdict};
use offloader_policy_sdk::settings::{Problem, Settings};
use offloader_policy_sdk::{Job, SettingsCheck};

struct Misbehave;

offloader_policy_sdk::export!(Misbehave: retry, settings_check);

impl SettingsCheck for Misbehave {
    fn check_settings() -> Vec<Problem> {
        if let Some(act) = setting("check") {
            let _ = misbehave(&act);
        }
        Vec::new()
    }
}

impl Retry for Misbehave {
    fn decide_retry(job: &Job) -> Verdict {
        match setting("decide").as_deref() {
            None | Some("pass") => Verdict::Pass,
            Some("read") => Verdict::give_up(read(job)),
            Some("call") => loop {
                hint::black_box(job.ever_ran());
            },
            Some(act) => Verdict::give_up(misbehave(act)),
        }
    }
}

fn setting(key: &'static str) -> Option<String> {
    Settings::from_host().text(key)
}

fn misbehave(act: &str) -> String {
    match act {
        "loop" => loop {
            hint::spin_loop();
        },
        "grow" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => recurse(0).to_string(),
        "trap" => panic!("as told"),
        "exit" => process::exit(3),
        "huge" => "x".repeat(100_000),
        "hoarded" => "x".repeat(5 << 20),
        "not-text" => not_text(),
        "chatter" => {
            for line in 0..100_000 {
                eprintln!("line {line}");
            }
            println!("done");
            "said a lot".to_owned()
        }
        "sleep" => {
            thread::sleep(Duration::from_secs(3600));
            "slept".to_owned()
        }
        "look" => look(),
        "remember" => remember(),
        other => format!("cannot {other}"),
    }
}

/// Uses up the stack that compiled code keeps in memory.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let page = hint::black_box([depth; 16]);
    recurse(depth + 1) + page[3]
}

#[allow(unsafe_code)]
fn not_text() -> String {
    // SAFETY: none; that is the point. The bytes go to the host as they are and nobody reads them here.
    unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe]) }
}

/// What the world looks like from inside.
fn look() -> String {
    let mut seen = String::new();
    let clock = Instant::now();
    thread::sleep(Duration::from_millis(5));
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    let _ = write!(
        seen,
        "env={} args={} ",
        env::vars().count(),
        env::args().count()
    );
    let _ = write!(seen, "unix={unix} elapsed={} ", clock.elapsed().as_nanos());
    let _ = write!(
        seen,
        "stdin={} ",
        io::read_to_string(io::stdin()).map_or(-1, |text| text.len() as i64)
    );
    let _ = write!(
        seen,
        "file={} dir={} ",
        fs::read("/etc/passwd").is_ok(),
        fs::read_dir(".").is_ok()
    );
    let _ = write!(seen, "write={} ", fs::write("/tmp/misbehave", "x").is_ok());
    let _ = write!(seen, "random={:x}", RandomState::new().hash_one("seed"));
    seen
}

/// How often this was called in the life of this instance, by two ways to remember it.
fn remember() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static MEMORY: std::cell::RefCell<HashMap<u32, u32>> = std::cell::RefCell::default();
    }
    let calls = CALLS.fetch_add(1, Relaxed) + 1;
    let kept = MEMORY.with_borrow_mut(|memory| {
        memory.insert(calls, calls);
        memory.len()
    });
    format!("calls={calls} kept={kept}")
}

/// Every fact about the job, as this policy can see it.
fn read(job: &Job) -> String {
    let mut seen = String::new();
    let _ = write!(seen, "{} {} {} ", job.id(), job.client(), job.kind().name());
    let _ = write!(
        seen,
        "{} {} {} {} ",
        job.image_asked(),
        job.image_chosen(),
        job.site_url_asked(),
        job.site_url_chosen()
    );
    let _ = write!(
        seen,
        "max={} submitted={} asked={} ",
        job.max_duration(),
        job.submitted_at(),
        job.asked_at()
    );
    let _ = write!(
        seen,
        "ran={} left={} ",
        job.ever_ran(),
        job.time_left_to_start()
    );
    let _ = write!(seen, "{:?} bytes={:?} ", job.delivery(), job.bytes_left());
    for name in ["call_id", "post_id", "auth_token"] {
        let _ = write!(seen, "{name}={:?} ", job.input(name));
    }
    for attempt in job.attempts() {
        let _ = write!(
            seen,
            "[{} {} {} {:?} {:?} {:?} {:?}]",
            attempt.number(),
            attempt.image(),
            attempt.started_at(),
            attempt.running_at(),
            attempt.ended_at(),
            attempt.failure(),
            attempt.exit_code()
        );
    }
    seen
}
