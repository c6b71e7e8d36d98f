//! A world for tests: containers that do as they are told, a store in memory, policies whose answers
//! a test sets, and a clock that tokio's paused time drives.

mod policies;
mod runner;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::*;
use gate::{Gate, Grants};

pub(crate) use self::policies::FixedPolicies;
pub(crate) use self::runner::*;
pub(crate) use self::store::*;
use crate::*;

pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn starting_now() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

/// One engine over a scripted world, which outlives it.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    pub(crate) runner: ScriptedRunner,
    pub(crate) store: MemoryStore,
    pub(crate) policies: FixedPolicies,
    pub(crate) strays: StrayRules,
    clock: Option<Arc<TokioClock>>,
}

impl Stage {
    pub(crate) fn clock(&mut self) -> Arc<TokioClock> {
        Arc::clone(
            self.clock
                .get_or_insert_with(|| Arc::new(TokioClock::starting_now())),
        )
    }

    pub(crate) async fn engine(&mut self) -> Engine {
        let config = EngineConfig {
            instance: "test".parse().unwrap(),
            slots: Slots::of(2),
            min_free_bytes: 0,
            start_timeout: Duration::from_secs(100),
            failed_retention: Some(Duration::from_secs(3600)),
            history_retention: Duration::from_secs(86_400),
            strays: self.strays,
        };
        let gate = Gate::new(Grants::standard("mattermost"), config.instance.clone()).unwrap();
        let ports = Ports {
            runner: Arc::new(self.runner.clone()),
            store: Arc::new(self.store.clone()),
            policies: Arc::new(self.policies.clone()),
            clock: self.clock(),
        };
        Engine::start(config, gate, ports).await.unwrap()
    }
}

/// A recording whose work id is 26 times `letter`.
pub(crate) fn recording(letter: char) -> Submission {
    let text = |s: &str| InputValue::Text(s.into());
    let id = letter.to_string().repeat(26);
    Submission {
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        runner: "mattermost/calls-recorder:v0.8.13".into(),
        max_duration: Duration::from_secs(600),
        inputs: BTreeMap::from([
            ("site_url".into(), text("https://mattermost.example.com")),
            ("call_id".into(), text(&"c".repeat(26))),
            ("post_id".into(), text(&"p".repeat(26))),
            ("recording_id".into(), text(&id)),
            ("auth_token".into(), text(&"t".repeat(26))),
        ]),
        idempotency_key: None,
        body_sha256: format!("body-{letter}"),
    }
}

/// A transcription whose work id is 26 times `letter`.
pub(crate) fn transcription(letter: char) -> Submission {
    let id = InputValue::Text(letter.to_string().repeat(26));
    let mut submission = recording(letter);
    submission.kind = JobKind::Transcribing;
    submission.runner = "mattermost/calls-transcriber:v0.7.2".into();
    submission.inputs.remove("recording_id");
    submission.inputs.insert("transcription_id".into(), id);
    submission
}
