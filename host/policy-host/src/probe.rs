//! Sample jobs that a policy is asked about before it is put in force.
//!
//! What it says does not matter; that it says something within its limits does. A policy that cannot
//! run at all is found when it is loaded, and not by the first job.

use std::sync::Arc;
use std::time::Duration;

use domain::{Attempt, Delivery, EndReason, Hook, JobFacts, JobKind, Purpose, Timestamp};

use crate::failure::Failure;
use crate::hooks::{self, Question};
use crate::load_error::LoadProblem;
use crate::policy::Policy;

/// How often a policy is asked that takes too long. At first its code has to come from the disk, and
/// others may be compiled beside it; a policy that is too slow is so every time.
const TRIES: u32 = 3;

/// Asks about jobs that were submitted shortly before `now`, each hook until it fails.
pub(crate) fn probe(policy: &Policy, now: Timestamp) -> Result<(), Vec<LoadProblem>> {
    let samples = Samples { policy, now };
    let problems = policy.hooks.iter().filter_map(|hook| match hook {
        Hook::ImageSelection => samples.images(),
        Hook::SiteUrl => samples.site_urls(),
        Hook::Retry => samples.retries(),
        Hook::Retention => samples.retentions(),
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

struct Samples<'a> {
    policy: &'a Policy,
    now: Timestamp,
}

/// The job of a question, and what it is called when a policy fails at it.
type Sample = (&'static str, JobFacts);

impl Samples<'_> {
    fn images(&self) -> Option<LoadProblem> {
        let prefetch = hooks::ImageSelection(Purpose::Prefetch);
        let start = hooks::ImageSelection(Purpose::Start);
        let starts = [
            ("the start of a recording", self.recording()),
            ("the start of a transcription", self.transcription()),
            ("a further attempt", self.failed_before_it_ran()),
        ];
        let prefetches = [("a prefetch", self.recording())];
        self.ask(start, starts)
            .or_else(|| self.ask(prefetch, prefetches))
    }

    fn site_urls(&self) -> Option<LoadProblem> {
        let samples = [
            ("a recording", self.recording()),
            ("a transcription", self.transcription()),
        ];
        self.ask(hooks::SiteUrl, samples)
    }

    fn retries(&self) -> Option<LoadProblem> {
        let samples = [
            (
                "a job that failed before it ran",
                self.failed_before_it_ran(),
            ),
            ("a job that ran and failed", self.ran_and_failed()),
        ];
        self.ask(hooks::Retry, samples)
    }

    fn retentions(&self) -> Option<LoadProblem> {
        let ended = |delivery| JobFacts {
            delivery: Some(delivery),
            ..self.ran_and_failed()
        };
        let samples = [
            ("a job whose work was delivered", ended(Delivery::Delivered)),
            (
                "a job whose work is unsent",
                ended(Delivery::Unsent { bytes: 50 << 20 }),
            ),
            ("a job of unknown delivery", ended(Delivery::Unknown)),
        ];
        self.ask(hooks::Retention, samples)
    }

    fn ask<Q: Question>(
        &self,
        question: Q,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Option<LoadProblem> {
        samples.into_iter().find_map(|(sample, facts)| {
            let facts = Arc::new(facts);
            let mut failed = None;
            for _ in 0..TRIES {
                failed = self.policy.ask(question, Arc::clone(&facts)).answer.err();
                if !matches!(failed, Some(Failure::Timeout(_))) {
                    break;
                }
            }
            failed.map(|failure| LoadProblem::Probe {
                hook: Q::HOOK,
                sample,
                failure: failure.to_string(),
            })
        })
    }

    fn recording(&self) -> JobFacts {
        self.job(JobKind::Recording, "mattermost/calls-recorder:v0.8.13")
    }

    fn transcription(&self) -> JobFacts {
        self.job(JobKind::Transcribing, "mattermost/calls-transcriber:v0.6.3")
    }

    fn job(&self, kind: JobKind, image: &str) -> JobFacts {
        let submitted_at = self.now.minus(Duration::from_secs(30));
        let url = "https://mattermost.example.com";
        // What is granted is there, in the form of most inputs: an identifier.
        let input = |name: &String| (name.clone(), "probe00000000000000000000a".to_owned());
        JobFacts {
            id: "probe".to_owned(),
            client: "probe".to_owned(),
            kind,
            image_asked: image.to_owned(),
            image_chosen: image.to_owned(),
            site_url_asked: url.to_owned(),
            site_url_chosen: url.to_owned(),
            max_duration: Duration::from_secs(3600),
            submitted_at,
            now: self.now,
            start_by: submitted_at.plus(Duration::from_secs(100)),
            attempts: Vec::new(),
            delivery: None,
            inputs: self.policy.grants.inputs.iter().map(input).collect(),
        }
    }

    fn failed_before_it_ran(&self) -> JobFacts {
        self.failed(EndReason::ImageUnreachable, None)
    }

    fn ran_and_failed(&self) -> JobFacts {
        let running_at = self.now.minus(Duration::from_secs(20));
        self.failed(EndReason::Exited(1), Some(running_at))
    }

    fn failed(&self, reason: EndReason, running_at: Option<Timestamp>) -> JobFacts {
        let mut facts = self.recording();
        let image = facts.image_asked.parse().expect("a reference");
        let mut attempt = Attempt::new(1, image, facts.submitted_at);
        attempt.running_at = running_at;
        attempt.ended_at = Some(self.now);
        attempt.reason = Some(reason);
        facts.attempts.push(attempt);
        facts
    }
}
