//! One call: what is asked of it, what holds it, and the handle that callers have of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{sync::watch, time::Instant};

use crate::{
    events::EventLog,
    ids::new_id,
    report::{CallReport, JobType},
    rules::{CallState, Timing},
    service::Answer,
};

/// What is asked of a call.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// Whether the call is transcribed beside being recorded.
    pub transcribe: bool,
    /// How long people stay, counted from the first spoken word (or from the failure that comes
    /// instead). They never leave before everything is said and a silence has followed.
    pub length: Duration,
    /// Inputs of the recorder.
    pub recorder: RecorderSettings,
    /// Inputs of the transcriber.
    pub transcriber: TranscriberSettings,
    /// Further inputs of the recorder; they win over the standard ones.
    pub extra_recorder: Map<String, Value>,
    /// Further inputs of the transcriber; they win over the standard ones.
    pub extra_transcriber: Map<String, Value>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            transcribe: true,
            length: Duration::from_secs(15),
            recorder: RecorderSettings::default(),
            transcriber: TranscriberSettings::default(),
            extra_recorder: Map::new(),
            extra_transcriber: Map::new(),
        }
    }
}

/// What the plugin tells the recorder about picture and sound.
#[derive(Debug, Clone, Serialize)]
pub struct RecorderSettings {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Kilobits a second.
    pub video_rate: u32,
    /// Kilobits a second.
    pub audio_rate: u32,
    /// Pictures a second.
    pub frame_rate: u32,
    /// Name of an H.264 preset.
    pub video_preset: String,
    /// File format.
    pub output_format: String,
}

impl Default for RecorderSettings {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            video_rate: 1000,
            audio_rate: 64,
            frame_rate: 15,
            video_preset: "veryfast".into(),
            output_format: "mp4".into(),
        }
    }
}

/// What the plugin tells the transcriber about speech recognition.
#[derive(Debug, Clone, Serialize)]
pub struct TranscriberSettings {
    /// Engine.
    pub transcribe_api: String,
    /// The engine's own options: JSON in a string, `null` for none, as the plugin sends it.
    pub transcribe_api_options: String,
    /// Size of the engine's model.
    pub model_size: String,
    /// Threads for speech recognition.
    pub num_threads: u32,
    /// File format.
    pub output_format: String,
    /// Captions while the call goes on.
    pub live_captions_on: bool,
    /// Size of the model for live captions.
    pub live_captions_model_size: String,
    /// Engines at work on live captions.
    pub live_captions_num_transcribers: u32,
    /// Threads of each of them.
    pub live_captions_num_threads_per_transcriber: u32,
    /// Language of live captions.
    pub live_captions_language: String,
    /// Leave speakers' names out of the captions.
    pub webvtt_omit_speaker: bool,
    /// Silence that ends a paragraph of the plain text, in milliseconds.
    pub text_compact_silence_threshold_ms: u32,
    /// Longest paragraph of the plain text, in milliseconds.
    pub text_compact_max_segment_duration_ms: u32,
}

impl Default for TranscriberSettings {
    fn default() -> Self {
        Self {
            transcribe_api: "whisper.cpp".into(),
            transcribe_api_options: "null".into(),
            model_size: "base".into(),
            num_threads: 1,
            output_format: "vtt".into(),
            live_captions_on: false,
            live_captions_model_size: "tiny".into(),
            live_captions_num_transcribers: 1,
            live_captions_num_threads_per_transcriber: 2,
            live_captions_language: "en".into(),
            webvtt_omit_speaker: false,
            text_compact_silence_threshold_ms: 2000,
            text_compact_max_segment_duration_ms: 10_000,
        }
    }
}

/// A call at a site. Cheap to clone; all clones are the same call.
#[derive(Clone)]
pub struct Call {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    post_id: String,
    token: String,
    options: CallOptions,
    log: Arc<EventLog>,
    state: Mutex<CallState>,
    answers: Mutex<BTreeMap<JobType, Answer>>,
    changed: watch::Sender<()>,
}

impl Call {
    /// Opens a call and keeps its time from then on. Must be called within a tokio runtime.
    pub(crate) fn open(
        options: CallOptions,
        log: Arc<EventLog>,
        join: Duration,
        result: Duration,
        speech: Duration,
    ) -> Self {
        let timing = Timing {
            join,
            speech,
            length: options.length,
            result,
        };
        let bots = [
            Some(JobType::Recording),
            options.transcribe.then_some(JobType::Transcribing),
        ];
        let state = CallState::new(
            timing,
            bots.into_iter().flatten().map(|job| (job, new_id())),
        );
        let call = Self {
            inner: Arc::new(Inner {
                id: new_id(),
                post_id: new_id(),
                token: new_id(),
                options,
                log,
                state: Mutex::new(state),
                answers: Mutex::default(),
                changed: watch::channel(()).0,
            }),
        };
        tokio::spawn(call.clone().keep_time());
        call
    }

    /// The id of the call, which is the channel's too.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The id of the post about the recording.
    pub fn post_id(&self) -> &str {
        &self.inner.post_id
    }

    /// The secret that the call's bots show.
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// What was asked of the call.
    pub fn options(&self) -> &CallOptions {
        &self.inner.options
    }

    /// The recording or transcription id; `None` when the call asks for no such job.
    pub fn bot_id(&self, job: JobType) -> Option<String> {
        self.state().bot_id(job).map(str::to_owned)
    }

    /// The id that the job service gave a job that it took.
    pub fn job_id(&self, job: JobType) -> Option<String> {
        self.answer(job)?.job_id()
    }

    /// What the job service answered to POST /jobs; status 0 when it did not answer.
    pub fn answer(&self, job: JobType) -> Option<Answer> {
        self.inner
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&job)
            .cloned()
    }

    /// What came of the call so far.
    pub fn report(&self) -> CallReport {
        let (jobs, artifacts) = self.state().outcome();
        CallReport::new(self.id(), jobs, artifacts)
    }

    /// Waits until nothing more is expected of any job: each has attached its result, failed,
    /// timed out, been refused, or been given up.
    pub async fn finished(&self) -> CallReport {
        self.wait(CallState::concluded).await;
        self.report()
    }

    /// Everybody leaves now.
    pub fn end(&self) {
        self.update(CallState::end);
    }

    /// The host presses stop: the bots are asked to stop, the call goes on.
    pub fn stop_recording(&self) {
        self.update(CallState::stop_recording);
    }

    /// Keeps what the job service answered to POST /jobs.
    pub(crate) fn answered(&self, job: JobType, answer: &Answer) {
        self.inner
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job, answer.clone());
        self.update(|state, now| {
            if answer.is_success() {
                state.accepted(job, answer.job_id(), now);
            } else {
                state.refused(job, &answer.text(), now);
            }
        });
    }

    /// Changes the call, does what then is due, and tells what happened.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut CallState, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.state();
        let result = change(&mut state, now);
        state.tick(now);
        for what in state.drain() {
            self.inner.log.record(Some(self.id()), what);
        }
        drop(state);
        self.inner.changed.send_replace(());
        result
    }

    /// Looks at the call.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&CallState) -> T) -> T {
        look(&self.state())
    }

    /// Waits until something holds of the call.
    pub(crate) async fn wait(&self, holds: impl Fn(&CallState) -> bool) {
        let mut changed = self.inner.changed.subscribe();
        while !self.look(&holds) {
            // The sender lives as long as self.
            let _ = changed.changed().await;
        }
    }

    async fn keep_time(self) {
        let mut changed = self.inner.changed.subscribe();
        self.update(|_, _| ());
        loop {
            let (over, deadline) = self.look(|state| (state.over(), state.next_deadline()));
            if over {
                return;
            }
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.update(|_, _| ()),
                _ = changed.changed() => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, CallState> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
