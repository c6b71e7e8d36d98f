use domain::{Attempt, ClientId, InputValue, JobId, RegistrationId, State};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// A job of call `call` that was submitted at `submitted_at` seconds and, if it did, ran then.
fn job(kind: JobKind, call: &str, submitted_at: i64, ran: bool) -> Job {
    let mut attempt = Attempt::new(1, "m/calls:v1.0.0".parse().unwrap(), at(submitted_at));
    attempt.running_at = ran.then(|| at(submitted_at));
    Job {
        id: JobId::from_random([1; JobId::LEN]),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind,
        image_asked: String::new(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: Duration::from_secs(60),
        inputs: [("Call_Id".to_owned(), InputValue::Text(call.to_owned()))].into(),
        submitted_at: at(submitted_at),
        start_by: at(submitted_at + 100),
        resends: None,
        attempts: vec![attempt],
        state: State::Preparing,
    }
}

fn recording(call: &str, submitted_at: i64) -> Job {
    job(JobKind::Recording, call, submitted_at, true)
}

fn transcription(call: &str, submitted_at: i64) -> Job {
    job(JobKind::Transcribing, call, submitted_at, true)
}

fn reserving(total: u32) -> Slots {
    Slots {
        reserve_for_transcription: true,
        ..Slots::of(total)
    }
}

#[test]
fn the_number_of_active_jobs_is_limited() {
    let active = [recording("a", 0), transcription("a", 0)];
    for (slots, admitted) in [
        (Slots::default(), true),
        (Slots::of(3), true),
        (Slots::of(2), false),
    ] {
        assert_eq!(slots.admit(&recording("b", 1), &active), admitted);
        assert_eq!(slots.admit(&transcription("b", 1), &active), admitted);
    }
}

#[test]
fn each_kind_has_a_limit_of_its_own() {
    let slots = Slots {
        recordings: Some(1),
        transcriptions: Some(2),
        ..Slots::of(9)
    };
    let active = [recording("a", 0), transcription("a", 0)];
    assert!(!slots.admit(&recording("b", 1), &active));
    assert!(slots.admit(&transcription("b", 1), &active));
    assert!(!slots.admit(
        &transcription("c", 1),
        &[active.to_vec(), vec![transcription("b", 1)]].concat()
    ));
    assert!(!slots.count_only() && Slots::of(9).count_only());
}

#[test]
fn a_recording_needs_room_for_its_transcription() {
    assert!(!reserving(1).admit(&recording("a", 0), &[]));
    assert!(reserving(2).admit(&recording("a", 0), &[]));
    assert!(!reserving(2).admit(&recording("b", 0), &[transcription("a", 0)]));
    assert!(reserving(3).admit(&recording("b", 0), &[transcription("a", 0)]));
    let one_transcription = Slots {
        transcriptions: Some(1),
        ..reserving(9)
    };
    assert!(!one_transcription.admit(&recording("b", 0), &[transcription("a", 0)]));
    assert!(!one_transcription.admit(&recording("b", 0), &[recording("a", 0)]));
}

#[test]
fn only_the_calls_own_transcription_gets_the_slot_kept_for_it() {
    let active = [recording("a", 10)];
    assert!(reserving(2).admit(&transcription("a", 11), &active));
    assert!(!reserving(2).admit(&transcription("b", 11), &active));
    let mut of_another_client = transcription("a", 11);
    of_another_client.owner = RegistrationId(2);
    assert!(!reserving(2).admit(&of_another_client, &active));
    // One from before the recording belongs to an earlier recording of the call.
    let active = [recording("a", 10), transcription("a", 1)];
    assert!(reserving(3).admit(&transcription("a", 11), &active));
    assert!(!reserving(3).admit(&transcription("b", 11), &active));
}

#[test]
fn the_slot_is_kept_until_it_is_taken_or_a_minute_after_the_recording_ran() {
    let other = |now| transcription("b", now);
    assert!(!reserving(2).admit(&other(69), &[recording("a", 10)]));
    assert!(reserving(2).admit(&other(70), &[recording("a", 10)]));
    let starting = job(JobKind::Recording, "a", 10, false);
    assert!(!reserving(2).admit(&other(100), &[starting]));
    // Taken: only what is active counts.
    let both = [recording("a", 10), transcription("a", 11)];
    assert!(reserving(3).admit(&other(12), &both));
}

#[test]
fn a_recording_that_is_sent_in_again_neither_needs_a_transcription_nor_has_one() {
    let resend = |mut job: Job| {
        job.resends = Some(JobId::from_random([2; JobId::LEN]));
        job
    };
    assert!(reserving(1).admit(&resend(recording("a", 0)), &[]));
    assert!(reserving(2).admit(&transcription("b", 11), &[resend(recording("a", 10))]));
    // The transcription of an earlier call that is sent in again is not this recording's.
    let active = [recording("a", 10), resend(transcription("a", 11))];
    assert!(!reserving(3).admit(&transcription("b", 12), &active));
    assert!(reserving(3).admit(&transcription("a", 12), &active));
}
