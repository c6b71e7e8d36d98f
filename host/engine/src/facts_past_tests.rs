//! Jobs live through the scripted world; afterwards every question that was asked about them is made
//! again out of what the store has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::*;
use gate::{Gate, Grants};
use tokio::time::sleep;

use super::*;
use crate::scripted::*;
use crate::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Two policies for each hook: the first chooses, the second sees what the first chose. Keeps what
/// each was told.
#[derive(Clone)]
struct Listening {
    image: Choice,
    retry: RetryVerdict,
    told: Arc<Mutex<Vec<JobFacts>>>,
}

impl Listening {
    fn new() -> Self {
        Self {
            image: Choice::AsAsked,
            retry: RetryVerdict::Pass,
            told: Arc::default(),
        }
    }

    fn ask<V: Clone>(
        &self,
        hook: Hook,
        facts: &JobFacts,
        answer: (V, &str, Option<&str>),
        second: JobFacts,
    ) -> Ruling<V> {
        let (verdict, name, value) = answer;
        let decision = |policy: &str, verdict: &str, value: Option<&str>| Decision {
            at: facts.now,
            hook,
            attempt: facts.attempts.last().map(|attempt| attempt.number),
            policy: policy.to_owned(),
            component_sha256: String::new(),
            settings_sha256: String::new(),
            read: Vec::new(),
            outcome: DecisionOutcome::Answered,
            enforced: true,
            verdict: verdict.to_owned(),
            value: value.map(str::to_owned),
            reason: None,
            micros: 1,
        };
        self.told.lock().unwrap().extend([facts.clone(), second]);
        Ruling {
            verdict,
            by: Some("first".to_owned()),
            decisions: vec![
                decision("first", name, value),
                decision("second", "pass", None),
            ],
        }
    }
}

#[async_trait]
impl Policies for Listening {
    async fn select_image(&self, facts: &JobFacts, _: Purpose) -> Ruling<Choice> {
        let mut second = facts.clone();
        let (name, value) = match &self.image {
            Choice::Use(image) => ("use", Some(image.as_str())),
            _ => ("pass", None),
        };
        if let Some(image) = value {
            image.clone_into(&mut second.image_chosen);
        }
        self.ask(
            Hook::ImageSelection,
            facts,
            (self.image.clone(), name, value),
            second,
        )
    }

    async fn select_site_url(&self, facts: &JobFacts) -> Ruling<Choice> {
        let url = "http://internal.example.com:8065";
        let second = JobFacts {
            site_url_chosen: url.to_owned(),
            ..facts.clone()
        };
        let answer = (Choice::Use(url.to_owned()), "use", Some(url));
        self.ask(Hook::SiteUrl, facts, answer, second)
    }

    async fn retry(&self, facts: &JobFacts) -> Ruling<RetryVerdict> {
        let answer = (self.retry, "retry", None);
        self.ask(Hook::Retry, facts, answer, facts.clone())
    }

    async fn retention(&self, facts: &JobFacts) -> Ruling<RetentionVerdict> {
        let answer = (RetentionVerdict::KeepFor(MINUTE), "keep-for", None);
        self.ask(Hook::Retention, facts, answer, facts.clone())
    }
}

/// Runs one job to its end, and compares what was asked with what its record tells. Gives the hooks
/// of its decisions.
async fn rebuilt(stage: &mut Stage, policies: Listening) -> Vec<Hook> {
    let mut grants = Grants::standard("mattermost");
    grants.registries.push("localhost:5000".into());
    grants.recording.retry.after_run = true;
    let instance: InstanceId = "test".parse().unwrap();
    let config = EngineConfig {
        instance: instance.clone(),
        slots: Slots::of(2),
        min_free_bytes: 0,
        start_timeout: Duration::from_secs(100),
        failed_retention: Some(MINUTE),
        history_retention: Duration::from_secs(86_400),
        strays: StrayRules::default(),
    };
    let ports = Ports {
        runner: Arc::new(stage.runner.clone()),
        store: Arc::new(stage.store.clone()),
        policies: Arc::new(policies.clone()),
        clock: stage.clock(),
    };
    let gate = Gate::new(grants, instance).unwrap();
    let engine = Engine::start(config, gate, ports).await.unwrap();
    let _ = engine.submit(recording('a')).await;
    let query = JobQuery {
        limit: 1,
        ..JobQuery::default()
    };
    let job = loop {
        let job = engine.page(&query).await.unwrap().remove(0).job.clone();
        if job.state.lifecycle() == Lifecycle::Removed {
            break job;
        }
        sleep(MINUTE).await;
    };
    let decisions = stage.store.decisions(&job.id).await.unwrap();
    let told = policies.told.lock().unwrap().clone();
    assert_eq!(told.len(), decisions.len());
    for (index, told) in told.iter().enumerate() {
        let rebuilt = at_decision(&job, &decisions, index);
        assert_eq!(rebuilt.as_ref(), Ok(told), "{:?}", decisions[index].hook);
    }
    decisions.iter().map(|decision| decision.hook).collect()
}

use Hook::{ImageSelection, Retention, Retry, SiteUrl};

#[tokio::test(start_paused = true)]
async fn a_job_that_ran_and_left_something_unsent() {
    let mut stage = Stage::default();
    stage.runner.world().script = Script {
        runs_for: Some(MINUTE),
        media_left: 5000,
        exit_code: 3,
        ..Script::default()
    };
    let mut policies = Listening::new();
    policies.image = Choice::Use("localhost:5000/calls-recorder:v0.8.13".to_owned());
    let hooks = rebuilt(&mut stage, policies).await;
    assert_eq!(hooks, both([ImageSelection, SiteUrl, Retention]));
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_image_came_at_the_third_attempt() {
    let mut stage = Stage::default();
    stage.runner.world().script.runs_for = Some(MINUTE);
    stage.runner.world().pulls = vec![
        Err(EndReason::ImageUnreachable),
        Err(EndReason::ImageStalled),
    ];
    let mut policies = Listening::new();
    policies.retry = RetryVerdict::RetryAfter(Duration::from_secs(2));
    let hooks = rebuilt(&mut stage, policies).await;
    let again = [Retry, ImageSelection];
    let expected = [&[ImageSelection, SiteUrl], &again[..], &again, &[Retention]].concat();
    assert_eq!(hooks, both(expected));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ran() {
    let mut stage = Stage::default();
    stage.runner.world().launches = vec![LaunchPlay::Refused];
    let mut policies = Listening::new();
    policies.retry = RetryVerdict::GiveUp;
    let hooks = rebuilt(&mut stage, policies).await;
    assert_eq!(hooks, both([ImageSelection, SiteUrl, Retry]));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_tried_again_after_it_ran() {
    let mut stage = Stage::default();
    stage.runner.world().script = Script {
        runs_for: Some(MINUTE),
        exit_code: 3,
        ..Script::default()
    };
    let mut policies = Listening::new();
    policies.retry = RetryVerdict::RetryAfter(Duration::from_secs(2));
    let hooks = rebuilt(&mut stage, policies).await;
    let again = [Retry, ImageSelection];
    let expected = [&[ImageSelection, SiteUrl], &again[..], &again, &[Retention]].concat();
    assert_eq!(hooks, both(expected));
}

/// Both policies are asked.
fn both(hooks: impl IntoIterator<Item = Hook>) -> Vec<Hook> {
    hooks.into_iter().flat_map(|hook| [hook; 2]).collect()
}

#[test]
fn what_the_record_does_not_tell_is_not_made_up() {
    let at = Timestamp::from_millis(5_000);
    let image: ImageRef = "mattermost/calls-recorder:v0.8.13".parse().unwrap();
    let mut job = Job {
        id: "a".repeat(26).parse().unwrap(),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image.to_string(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: MINUTE,
        inputs: Inputs::new(),
        submitted_at: Timestamp::from_millis(1_000),
        start_by: Timestamp::from_millis(101_000),
        resends: None,
        attempts: vec![Attempt::new(1, image, Timestamp::from_millis(1_000))],
        state: State::Preparing,
    };
    let decided = |at, hook, attempt| Decision {
        at,
        hook,
        attempt,
        policy: "p".to_owned(),
        component_sha256: String::new(),
        settings_sha256: String::new(),
        read: Vec::new(),
        outcome: DecisionOutcome::Answered,
        enforced: true,
        verdict: "pass".to_owned(),
        value: None,
        reason: None,
        micros: 1,
    };
    let forgotten =
        |job: &Job, hook, attempt| at_decision(job, &[decided(at, hook, attempt)], 0).unwrap_err();
    assert_eq!(forgotten(&job, Retry, Some(1)), Forgotten::EndOfAttempt);
    assert_eq!(forgotten(&job, Retry, Some(2)), Forgotten::Attempt);
    assert_eq!(forgotten(&job, ImageSelection, Some(2)), Forgotten::Attempt);
    assert_eq!(forgotten(&job, Retention, Some(1)), Forgotten::EndOfJob);
    job.attempts[0].running_at = Some(at);
    job.attempts[0].ended_at = Some(at);
    job.attempts[0].reason = Some(EndReason::RemovedByHand);
    assert_eq!(forgotten(&job, Retry, Some(1)), Forgotten::EndOfAttempt);
    // Asked again once the work was sent in after all; what was left before that nobody knows.
    let end = End {
        at,
        reason: EndReason::RemovedByHand,
        outcome: Outcome::Failed,
        delivery: Delivery::Delivered,
    };
    job.state = State::Ended(end);
    let later = at.plus(MINUTE);
    let asked = [at, at, later].map(|at| decided(at, Retention, Some(1)));
    let told = [0, 1, 2].map(|index| at_decision(&job, &asked, index));
    assert_eq!(told[0], Err(Forgotten::EndOfJob));
    assert_eq!(told[1], Err(Forgotten::EndOfJob));
    assert!(told[2].is_ok());
}
