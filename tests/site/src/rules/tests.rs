use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use super::{BotStatus, CallState, LEAD_IN, Refusal, Timing};
use crate::{
    events::Happening,
    report::{Artifact, JobType},
};

use JobType::{Recording, Transcribing};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn timing() -> Timing {
    Timing {
        join: MINUTE,
        speech: 12 * SECOND,
        length: 15 * SECOND,
        result: 10 * MINUTE,
    }
}

fn both() -> CallState {
    CallState::new(
        timing(),
        [(Recording, "rec".into()), (Transcribing, "tra".into())],
    )
}

fn id(kind: JobType) -> &'static str {
    if kind == Recording { "rec" } else { "tra" }
}

/// A call whose two bots have joined at `now`.
fn joined(now: Instant) -> CallState {
    let mut call = both();
    call.accepted(Recording, Some("job1".into()), now);
    call.accepted(Transcribing, Some("job2".into()), now);
    call.status(Recording, "rec", BotStatus::Started, now)
        .expect("started");
    call.audio_joined().expect("listening");
    call.status(Transcribing, "tra", BotStatus::Started, now)
        .expect("started");
    call.tick(now);
    call
}

fn artifact(kind: JobType, name: &str) -> Artifact {
    Artifact {
        path: PathBuf::from(name),
        bytes: 1,
        file_id: "f".into(),
        attached_by: id(kind).into(),
        job: kind,
    }
}

fn errors(call: &CallState) -> Vec<Option<String>> {
    call.outcome().0.into_iter().map(|job| job.error).collect()
}

#[test]
fn a_good_call_goes_from_joining_to_attached() {
    let now = Instant::now();
    let mut call = joined(now);
    assert_eq!(call.speech_at(), Some(now + LEAD_IN));
    assert_eq!(call.next_deadline(), Some(now + LEAD_IN + 15 * SECOND));
    assert!(!call.job_ended(Recording));

    let end = now + LEAD_IN + 15 * SECOND;
    call.tick(end);
    assert!(call.job_ended(Recording) && call.job_ended(Transcribing));
    assert!(!call.concluded(), "the results are still to come");

    call.attached(Recording, vec![artifact(Recording, "a.mp4")], end);
    call.attached(Transcribing, vec![artifact(Transcribing, "a.vtt")], end);
    assert!(call.over());
    assert_eq!(errors(&call), [None, None]);
}

#[test]
fn the_call_outlasts_the_speech() {
    let now = Instant::now();
    let mut call = CallState::new(
        Timing {
            length: SECOND,
            ..timing()
        },
        [(Recording, "rec".into())],
    );
    call.accepted(Recording, None, now);
    call.status(Recording, "rec", BotStatus::Started, now)
        .expect("started");
    call.tick(now);
    let last_word = call.speech_at().expect("speaking") + 12 * SECOND;
    assert!(call.next_deadline().expect("an end") >= last_word + SECOND);
}

#[test]
fn speech_waits_for_everybody() {
    let now = Instant::now();
    let mut call = both();
    call.accepted(Recording, None, now);
    call.accepted(Transcribing, None, now);
    call.tick(now);
    assert_eq!(call.speech_at(), None);
    call.status(Recording, "rec", BotStatus::Started, now)
        .expect("started");
    assert!(call.recording_started());
    call.status(Transcribing, "tra", BotStatus::Started, now)
        .expect("started");
    call.tick(now);
    assert_eq!(
        call.speech_at(),
        None,
        "the transcriber does not listen yet"
    );
    call.audio_joined().expect("listening");
    call.tick(now);
    assert!(call.speech_at().is_some());
}

#[test]
fn each_wrong_report_has_its_own_refusal() {
    let now = Instant::now();
    let mut recording_only = CallState::new(timing(), [(Recording, "rec".into())]);
    assert_eq!(
        recording_only.status(Transcribing, "tra", BotStatus::Started, now),
        Err(Refusal::NoJob)
    );
    assert_eq!(recording_only.audio_joined(), Err(Refusal::NoJob));

    let mut call = joined(now);
    assert_eq!(
        call.status(Recording, "other", BotStatus::Started, now),
        Err(Refusal::InvalidJobId)
    );
    assert_eq!(
        call.status(Recording, "rec", BotStatus::Started, now),
        Err(Refusal::AlreadyStarted)
    );
    call.stop_recording(now);
    assert_eq!(
        call.status(Recording, "rec", BotStatus::Started, now),
        Err(Refusal::Ended)
    );
    assert_eq!(call.audio_joined(), Err(Refusal::Ended));
    call.end(now);
    assert_eq!(
        call.status(Recording, "rec", BotStatus::Started, now),
        Err(Refusal::NoCall)
    );
    assert_eq!(call.audio_joined(), Err(Refusal::NoCall));
}

#[test]
fn the_refusals_use_the_plugins_words() {
    let texts = [
        Refusal::NoCall,
        Refusal::NoJob,
        Refusal::InvalidJobId,
        Refusal::Ended,
        Refusal::AlreadyStarted,
    ]
    .map(|refusal| refusal.to_string());
    assert_eq!(
        texts,
        [
            "no call ongoing",
            "no job ongoing",
            "invalid job ID",
            "job has ended",
            "job has already started"
        ]
    );
}

#[test]
fn a_refused_second_start_leaves_the_first_alone() {
    let now = Instant::now();
    let mut call = joined(now);
    call.status(Recording, "rec", BotStatus::Started, now)
        .expect_err("a second start");
    assert!(!call.job_ended(Recording));
    assert_eq!(errors(&call), [None, None]);
}

#[test]
fn whoever_joins_late_is_ended_and_stops_its_partner() {
    for late in [Recording, Transcribing] {
        let now = Instant::now();
        let mut call = both();
        call.accepted(Recording, None, now);
        call.accepted(Transcribing, None, now);
        call.status(late.partner(), id(late.partner()), BotStatus::Started, now)
            .expect("started");
        if late == Recording {
            call.audio_joined().expect("listening");
        }
        call.tick(now + MINUTE - SECOND);
        assert!(!call.job_ended(late));
        call.drain();

        call.tick(now + MINUTE);
        assert!(
            call.job_ended(late) && call.job_ended(late.partner()),
            "{late}"
        );
        let happened = call.drain();
        assert_eq!(happened[0], Happening::TimedOut { job: late });
        assert!(
            matches!(&happened[1], Happening::StopAsked { job, .. } if *job == late.partner()),
            "{happened:?}"
        );
        assert_eq!(
            call.status(late, id(late), BotStatus::Started, now + MINUTE),
            Err(Refusal::Ended),
            "a ghost is turned away"
        );
        assert!(
            !call.concluded(),
            "the partner had started: it may still deliver"
        );
        call.attached(
            late.partner(),
            vec![artifact(late.partner(), "part.mp4")],
            now + MINUTE,
        );
        assert!(call.concluded());
    }
}

#[test]
fn both_late_is_one_timeout_and_one_stop() {
    let now = Instant::now();
    let mut call = both();
    call.accepted(Recording, None, now);
    call.accepted(Transcribing, None, now);
    call.tick(now + MINUTE);
    let timeouts = call
        .drain()
        .iter()
        .filter(|h| matches!(h, Happening::TimedOut { .. }))
        .count();
    assert_eq!(timeouts, 1);
    assert!(call.concluded());
}

#[test]
fn a_failure_stops_the_partner_and_people_talk_on() {
    let now = Instant::now();
    let mut call = joined(now);
    call.status(
        Transcribing,
        "tra",
        BotStatus::Failed("no model".into()),
        now,
    )
    .expect("failed");
    assert!(call.job_ended(Recording));
    assert!(call.page_view(now).closed);
    assert_eq!(errors(&call), [None, Some("no model".into())]);
    assert_eq!(
        call.status(Recording, "rec", BotStatus::Started, now),
        Err(Refusal::Ended)
    );
}

#[test]
fn a_refused_job_stops_its_partner() {
    let now = Instant::now();
    let mut call = both();
    call.accepted(Recording, Some("job1".into()), now);
    call.refused(Transcribing, "max concurrent jobs reached", now);
    assert!(call.job_ended(Recording));
    assert!(call.concluded());
    call.accepted(Recording, Some("job1".into()), now);
    assert_eq!(
        call.next_deadline(),
        Some(now + 15 * SECOND),
        "no time to join for a job that has ended"
    );
}

#[test]
fn a_failure_told_too_late_is_refused_but_remembered() {
    let now = Instant::now();
    let mut call = joined(now);
    call.end(now);
    let report = BotStatus::Failed("recognition failed".into());
    assert_eq!(
        call.status(Transcribing, "tra", report, now),
        Err(Refusal::NoCall)
    );
    assert_eq!(errors(&call), [None, Some("recognition failed".into())]);
}

#[test]
fn what_never_comes_is_given_up() {
    let now = Instant::now();
    let mut call = joined(now);
    call.end(now);
    assert_eq!(call.next_deadline(), Some(now + 10 * MINUTE));
    call.tick(now + 10 * MINUTE);
    assert!(call.over());
    assert_eq!(
        errors(&call)[0].as_deref(),
        Some("nothing attached within 600 s")
    );
}

#[test]
fn the_page_knows_when_to_speak_and_when_to_close() {
    let now = Instant::now();
    let mut call = joined(now);
    assert_eq!(call.page_view(now).speech_in_ms, Some(1500));
    assert_eq!(call.page_view(now + 2 * SECOND).speech_in_ms, Some(-500));
    assert!(!call.page_view(now).closed);
    call.end(now);
    assert!(call.page_view(now).closed);
}

#[test]
fn a_call_ends_also_when_a_bot_is_done_before_all_have_joined() {
    let now = Instant::now();
    let mut call = both();
    call.accepted(Recording, None, now);
    call.accepted(Transcribing, None, now);
    call.status(Recording, "rec", BotStatus::Started, now)
        .expect("started");
    call.attached(Recording, vec![artifact(Recording, "a.mp4")], now);
    call.audio_joined().expect("listening");
    call.status(Transcribing, "tra", BotStatus::Started, now)
        .expect("started");
    call.tick(now + 15 * SECOND);
    assert!(call.job_ended(Transcribing));
}
