//! What is asked of the job service.

use offloader_test_site::{CallOptions, JobType::Recording, PluginError};

use crate::support::World;

#[tokio::test]
async fn the_job_service_is_asked_as_the_plugin_asks() {
    let world = World::start().await;
    world.plugin.activate().await.expect("activation");
    let runners = &world.service.inits()[0]["Runners"];
    assert_eq!(runners[0], "mattermost/calls-recorder:v0.8.13");
    assert_eq!(runners[1], "mattermost/calls-transcriber:v0.7.2");

    let mut options = CallOptions::default();
    options.extra_recorder.insert(
        "extra_chromium_args".into(),
        "--ignore-certificate-errors".into(),
    );
    let call = world.plugin.record(options).await;
    let jobs = world.service.jobs();
    let [recording, transcribing] = &jobs[..] else {
        panic!("{jobs:?}")
    };
    assert_eq!(recording["type"], "recording");
    assert_eq!(recording["max_duration_sec"], 3600);
    assert_eq!(transcribing["type"], "transcribing");
    assert_eq!(transcribing["max_duration_sec"], 7200);
    let keys = |job: &serde_json::Value| -> Vec<String> {
        job["input_data"]
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let mut expected = vec![
        "audio_rate",
        "auth_token",
        "call_id",
        "extra_chromium_args",
        "frame_rate",
        "height",
        "output_format",
        "post_id",
        "recording_id",
        "site_url",
        "video_preset",
        "video_rate",
        "width",
    ];
    let mut found = keys(recording);
    found.sort();
    assert_eq!(found, expected);
    expected = vec![
        "auth_token",
        "call_id",
        "live_captions_language",
        "live_captions_model_size",
        "live_captions_num_threads_per_transcriber",
        "live_captions_num_transcribers",
        "live_captions_on",
        "model_size",
        "num_threads",
        "output_format",
        "post_id",
        "site_url",
        "text_compact_max_segment_duration_ms",
        "text_compact_silence_threshold_ms",
        "transcribe_api",
        "transcribe_api_options",
        "transcription_id",
        "webvtt_omit_speaker",
    ];
    let mut found = keys(transcribing);
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(
        recording["input_data"]["site_url"],
        "https://mattermost.example.com"
    );
    assert_eq!(
        recording["input_data"]["recording_id"],
        call.bot_id(Recording).expect("an id")
    );

    let credentials = world.service.credentials();
    assert_eq!(credentials.len(), 3);
    assert!(
        credentials
            .iter()
            .all(|one| one.starts_with("Basic ") && *one == credentials[0])
    );
    assert_eq!(
        world
            .plugin
            .service()
            .job("job1")
            .await
            .expect("an answer")
            .job_id()
            .as_deref(),
        Some("job1")
    );
}

#[tokio::test]
async fn activation_is_tried_again_but_not_for_ever() {
    let world = World::start().await;
    world.service.refuse_inits(1);
    world.plugin.activate().await.expect("the second try");
    assert_eq!(world.service.inits().len(), 2);
    world.service.refuse_inits(9);
    let error = world
        .plugin
        .activate()
        .await
        .expect_err("two tries are all");
    assert!(
        matches!(error, PluginError::Init { status: 500, .. }),
        "{error}"
    );
    assert_eq!(world.service.inits().len(), 4);
}

#[tokio::test]
async fn an_old_job_service_is_refused_at_once() {
    let world = World::start().await;
    world.service.announce("v0.8.0");
    let error = world.plugin.activate().await.expect_err("too old");
    assert!(matches!(error, PluginError::TooOld { .. }), "{error}");
    assert!(world.service.inits().is_empty());
}
