//! Calls from joining to attaching, and what goes wrong on the way.

use std::{
    fs,
    time::{Duration, Instant},
};

use offloader_test_site::{CallOptions, Happening, JobType};

use crate::support::{Bot, CHUNK, World};

use JobType::{Recording, Transcribing};

#[tokio::test]
async fn a_call_is_recorded_and_transcribed() {
    let world = World::start().await;
    world.plugin.activate().await.expect("activation");
    let call = world.record().await;
    assert_eq!(call.job_id(Recording).as_deref(), Some("job1"));
    assert_eq!(call.job_id(Transcribing).as_deref(), Some("job2"));
    let recorder = Bot::new(&world.site, &call, Recording);
    let transcriber = Bot::new(&world.site, &call, Transcribing);

    let mut sound = transcriber.listen().await;
    assert_eq!(sound.status(), 200);
    assert_eq!(
        sound.headers()["content-type"],
        "audio/L16; rate=16000; channels=1"
    );
    let joined = Instant::now();
    assert_eq!(transcriber.recording_started().await, 404);
    let (status, view) = recorder.page().await;
    assert_eq!(
        (status, &view["closed"], view["speech_in_ms"].is_null()),
        (200, &false.into(), true)
    );
    assert_eq!(recorder.started().await.0, 200);
    assert_eq!(transcriber.recording_started().await, 204);
    assert_eq!(transcriber.started().await.0, 200);
    assert!(
        recorder.page().await.1["speech_in_ms"]
            .as_i64()
            .is_some_and(|ms| ms > 1000)
    );

    // The sound: silence, the whole speech once, silence; in real time.
    let mut pcm = Vec::new();
    while let Some(chunk) = sound.chunk().await.expect("sound") {
        pcm.extend(chunk);
    }
    let took = joined.elapsed();
    let samples: Vec<i16> = pcm
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let length = Duration::from_millis(samples.len() as u64 / 16);
    assert!(
        length <= took && took < length + Duration::from_secs(1),
        "{length:?} of sound in {took:?}"
    );
    let loud = |sample: &i16| sample.unsigned_abs() > 100;
    let first = samples.iter().position(loud).expect("speech");
    let last = samples.iter().rposition(loud).expect("speech");
    assert!(
        (7900..=8000).contains(&(last - first)),
        "half a second of speech, not {}",
        last - first
    );
    assert!(
        first > 16_000 && samples.len() - last > 16_000,
        "a second of silence around it"
    );
    recorder.page_closed().await;

    let mp4 = vec![7u8; 2 * CHUNK + 500];
    let (file, _) = recorder.upload("call.mp4", &mp4).await;
    assert_eq!(recorder.attach(&[&file]).await.0, 200);
    let (vtt, _) = transcriber.upload("call.vtt", b"WEBVTT\n").await;
    let (txt, _) = transcriber.upload("call.txt", b"words").await;
    assert_eq!(transcriber.attach(&[&vtt, &txt]).await.0, 200);

    let report = call.finished().await;
    assert_eq!(report.errors, [""; 0]);
    let recording = report.recording.expect("a recording");
    assert_eq!(fs::read(&recording.path).expect("the file"), mp4);
    assert_eq!(recording.bytes, mp4.len() as u64);
    assert_eq!(recording.attached_by, recorder.id);
    let captions = report.captions.expect("captions");
    assert_eq!(fs::read(&captions.path).expect("the file"), b"WEBVTT\n");
    assert_eq!(captions.attached_by, transcriber.id);
    assert!(report.text.is_some());
    assert!(world.happened(|what| matches!(what, Happening::AudioLeft { complete: true, .. })));
    world.site.stop().await;
}

#[tokio::test]
async fn a_second_start_is_refused_in_the_plugins_words() {
    let world = World::start().await;
    let call = world.record().await;
    let recorder = Bot::new(&world.site, &call, Recording);
    assert_eq!(recorder.started().await.0, 200);
    let (status, body) = recorder.started().await;
    assert_eq!(
        (status, &body["err"]),
        (400, &"job has already started".into())
    );
    let stranger = Bot::new(&world.site, &call, Recording).named("x");
    assert_eq!(stranger.started().await.1["err"], "invalid job ID");
    call.stop_recording();
    assert_eq!(recorder.started().await.1["err"], "job has ended");
    call.end();
    assert_eq!(recorder.started().await.1["err"], "no call ongoing");
    let transcriber = Bot::new(&world.site, &call, Transcribing);
    assert_eq!(transcriber.listen().await.status(), 400);
}

#[tokio::test]
async fn a_call_that_is_only_recorded_has_no_job_for_a_transcriber() {
    let world = World::start().await;
    let call = world
        .plugin
        .record(CallOptions {
            transcribe: false,
            ..CallOptions::default()
        })
        .await;
    assert_eq!(world.service.jobs().len(), 1);
    let transcriber = Bot::new(&world.site, &call, Transcribing).named("x");
    assert_eq!(transcriber.started().await.1["err"], "no job ongoing");
    let recorder = Bot::new(&world.site, &call, Recording);
    assert_eq!(recorder.started().await.0, 200);
    assert!(
        !recorder.page().await.1["speech_in_ms"].is_null(),
        "speech waits for nobody else"
    );
}

#[tokio::test]
async fn a_recorder_that_does_not_join_stops_the_transcriber() {
    let world = World::with(|options| options.join_timeout = Duration::from_millis(600)).await;
    let call = world.record().await;
    let transcriber = Bot::new(&world.site, &call, Transcribing);
    let mut sound = transcriber.listen().await;
    assert_eq!(transcriber.started().await.0, 200);
    let joined = Instant::now();
    while sound.chunk().await.expect("sound").is_some() {}
    assert!(joined.elapsed() < Duration::from_secs(5));
    assert!(world.happened(|what| *what == Happening::TimedOut { job: Recording }));

    let ghost = Bot::new(&world.site, &call, Recording);
    let refused = ghost.started().await;
    assert_eq!(refused.0, 400);

    let (vtt, _) = transcriber.upload("part.vtt", b"WEBVTT\n").await;
    transcriber.attach(&[&vtt]).await;
    let report = call.finished().await;
    assert_eq!(
        report.errors,
        ["recording: timed out waiting for bot to join call"]
    );
    assert!(report.captions.is_some());
}

#[tokio::test]
async fn a_transcriber_that_fails_closes_the_page() {
    let world = World::start().await;
    let call = world.record().await;
    let recorder = Bot::new(&world.site, &call, Recording);
    assert_eq!(recorder.started().await.0, 200);
    let transcriber = Bot::new(&world.site, &call, Transcribing);
    assert_eq!(transcriber.report("failed", "no model").await.0, 200);
    recorder.page_closed().await;
    assert_eq!(call.report().errors, ["transcribing: no model"]);
}

#[tokio::test]
async fn a_refused_transcription_stops_the_recording() {
    let world = World::start().await;
    world.service.refuse_jobs(Transcribing);
    let call = world.record().await;
    assert_eq!(call.answer(Transcribing).expect("an answer").status, 503);
    let report = call.finished().await;
    assert!(
        report
            .errors
            .contains(&"transcribing: max concurrent jobs reached".to_owned()),
        "{:?}",
        report.errors
    );
    assert!(Bot::new(&world.site, &call, Recording).page().await.1["closed"] == true);
}

#[tokio::test]
async fn a_refused_recording_is_all_that_is_asked() {
    let world = World::start().await;
    world.service.refuse_jobs(Recording);
    let report = world.record().await.finished().await;
    assert_eq!(world.service.jobs().len(), 1);
    assert_eq!(report.errors[0], "recording: max concurrent jobs reached");
}
