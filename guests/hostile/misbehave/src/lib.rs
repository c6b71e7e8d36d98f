//! A retry policy for tests that misbehaves, or tells what it can see.
//!
//! What it does when it is asked is the id of the job; the setting `check` names what it does when
//! its settings are checked. What it has to tell it tells as the reason of giving up. It uses the
//! standard library, so it also stands for the policies that import the whole base set of WASI.
#![allow(
    clippy::disallowed_methods,
    reason = "it tries what the sandbox keeps from it"
)]

use std::fmt::{Debug, Write as _};
use std::time::Duration;
use std::{hint, mem, process, thread};

use offloader_policy_sdk::retry::{Retry, Verdict};
use offloader_policy_sdk::settings::{Problem, Settings};
use offloader_policy_sdk::{Job, SettingsCheck};

mod acts;
mod dirs;
mod memory;
mod world;

use acts::Act;

struct Misbehave;

offloader_policy_sdk::export!(Misbehave: retry, settings_check);

impl SettingsCheck for Misbehave {
    fn check_settings() -> Vec<Problem> {
        match Settings::from_host().text("check").as_deref() {
            None => Vec::new(),
            Some("loop") => spin(),
            Some("panic") => panic!("as told"),
            Some("exit") => process::exit(3),
            Some("long problems") => problems(100, 1000),
            Some("many problems") => problems(101, 10),
            Some(other) => vec![problem("check", &format!("cannot {other}"))],
        }
    }
}

impl Retry for Misbehave {
    fn decide_retry(job: &Job) -> Verdict {
        match Act::from_name(&job.id()) {
            None => Verdict::Pass,
            Some(act) => Verdict::give_up(perform(act, job)),
        }
    }
}

fn perform(act: Act, job: &Job) -> String {
    match act {
        Act::Loop => spin(),
        Act::Sleep => {
            thread::sleep(Duration::from_secs(3600));
            "slept".to_owned()
        }
        Act::SleepForEver => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Act::Flood => loop {
            eprintln!("another line");
        },
        Act::GrowAtOnce => vec![1_u8; 1 << 30].len().to_string(),
        Act::GrowInSteps => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        Act::Recurse => recurse(0).to_string(),
        Act::CallGetters => loop {
            hint::black_box(job.ever_ran());
        },
        Act::CallSettings => loop {
            hint::black_box(Settings::from_host());
        },
        Act::HoardHandles => loop {
            mem::forget(job.attempts());
        },
        Act::HugeName => format!("{:?}", job.input(&"x".repeat(100_000))),
        Act::Panic => panic!("as told"),
        Act::Abort => process::abort(),
        Act::ExitWell => process::exit(0),
        Act::ExitBadly => process::exit(3),
        Act::HugeReason => "x".repeat(100_000),
        Act::HoardedReason => "x".repeat(5 << 20),
        Act::NotText => not_text(),
        Act::Chatter => {
            for line in 0..100_000 {
                eprintln!("line {line}");
            }
            println!("done");
            "said a lot".to_owned()
        }
        Act::ReadAbsolute => world::read_absolute(),
        Act::ReadUpwards => world::read_upwards(),
        Act::WriteFile => world::write_file(),
        Act::FollowLink => world::follow_link(),
        Act::ListDirectory => world::list_directory(),
        Act::ReadEnvironment => world::read_environment(),
        Act::ReadStdin => world::read_stdin(),
        Act::ProbeClocks => world::probe_clocks(),
        Act::ProbeEntropy => world::probe_entropy(),
        Act::StartThread => world::start_thread(),
        Act::ReadFacts => read_facts(job),
        Act::ReadShown => dirs::read_shown(),
        Act::LeaveShown => dirs::leave_shown(),
        Act::ChangeShown => dirs::change("/shown", "note"),
        Act::ChangeKept => dirs::change("/kept", "note"),
        Act::OpenPipe => dirs::open_pipe(),
        Act::HoardFiles => dirs::hoard_files(),
        Act::ReadForEver => dirs::read_for_ever(),
        Act::WriteForEver => dirs::write_for_ever(),
        Act::Remember => memory::remember(),
        Act::LeaveSecret => {
            memory::leave_secret();
            "left it".to_owned()
        }
        Act::LeaveSecretSlowly => {
            memory::leave_secret();
            spin()
        }
        Act::FindSecret => memory::find_secret().to_string(),
        Act::FindOwnSecret => {
            memory::leave_secret();
            memory::find_secret().to_string()
        }
        Act::FindSecretSlowly => {
            assert_eq!(memory::find_secret(), 0, "the secret of another decision");
            spin()
        }
    }
}

fn spin() -> ! {
    loop {
        hint::spin_loop();
    }
}

fn problem(key: &str, message: &str) -> Problem {
    Problem {
        key: key.to_owned(),
        message: message.to_owned(),
    }
}

fn problems(count: usize, bytes: usize) -> Vec<Problem> {
    vec![problem("check", &"x".repeat(bytes)); count]
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

/// Every fact about the job, as this policy can see it.
fn read_facts(job: &Job) -> String {
    let mut seen = String::new();
    let mut see = |fact: &dyn Debug| {
        let _ = write!(seen, "{fact:?} ");
    };
    see(&job.id());
    see(&job.client());
    see(&job.kind().name());
    see(&job.image_asked());
    see(&job.image_chosen());
    see(&job.site_url_asked());
    see(&job.site_url_chosen());
    see(&job.max_duration());
    see(&job.submitted_at());
    see(&job.asked_at());
    see(&job.ever_ran());
    see(&job.time_left_to_start());
    see(&job.delivery());
    see(&job.bytes_left());
    for name in ["call_id", "post_id", "auth_token"] {
        see(&job.input(name));
    }
    for attempt in job.attempts() {
        see(&attempt.number());
        see(&attempt.image());
        see(&attempt.started_at());
        see(&attempt.running_at());
        see(&attempt.ended_at());
        see(&attempt.failure());
        see(&attempt.exit_code());
    }
    seen
}
