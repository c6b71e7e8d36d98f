use domain::{Delivery, EndReason, Timestamp};

use super::*;
use crate::testing::{gate, gate_with};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const REC: JobKind = JobKind::Recording;

#[test]
fn retries_stay_within_attempts_and_pauses_and_follow_no_run() {
    let seconds = Duration::from_secs;
    let after = |s| RetryVerdict::RetryAfter(seconds(s));
    for (verdict, attempts, ever_ran, pause, setting) in [
        (RetryVerdict::Pass, 1, false, None, None),
        (RetryVerdict::GiveUp, 1, false, None, None),
        (after(0), 1, false, Some(seconds(0)), None),
        (after(30), 2, false, Some(seconds(30)), None),
        (
            after(31),
            2,
            false,
            Some(seconds(30)),
            Some("gate.recording.retry.max_delay"),
        ),
        (
            after(1),
            3,
            false,
            None,
            Some("gate.recording.retry.max_attempts"),
        ),
        (
            after(1),
            1,
            true,
            None,
            Some("gate.recording.retry.after_run"),
        ),
    ] {
        let (got, refusal) = gate().retry(REC, verdict, Some("backoff"), attempts, ever_ran);
        assert_eq!(got, pause, "{verdict:?} {attempts} {ever_ran}");
        assert_eq!(refusal.as_ref().map(|r| r.setting.as_str()), setting);
        if let Some(refusal) = refusal {
            assert_eq!(refusal.origin, Origin::Policy("backoff".to_owned()));
        }
    }
    let gate = gate_with(|grants| grants.recording.retry.after_run = true);
    assert_eq!(
        gate.retry(REC, after(1), Some("backoff"), 1, true),
        (Some(seconds(1)), None)
    );
}

fn end(outcome: Outcome, delivery: Delivery) -> End {
    End {
        at: Timestamp::from_millis(1_000_000),
        reason: EndReason::Completed,
        outcome,
        delivery,
    }
}

fn until(time: Duration) -> Keep {
    Keep::Until(Timestamp::from_millis(1_000_000).plus(time))
}

#[test]
fn without_a_policy_done_work_goes_and_the_rest_stays_as_configured() {
    let unsent = Delivery::Unsent { bytes: 9 };
    for (end, configured, keep) in [
        (
            end(Outcome::Succeeded, Delivery::Delivered),
            Some(HOUR),
            Keep::Nothing,
        ),
        (
            end(Outcome::Failed, Delivery::NeverRan),
            None,
            Keep::Nothing,
        ),
        (
            end(Outcome::Failed, Delivery::Delivered),
            Some(HOUR),
            until(HOUR),
        ),
        (end(Outcome::Failed, unsent), Some(HOUR), until(HOUR)),
        (
            end(Outcome::Failed, unsent),
            Some(1000 * DAY),
            until(1000 * DAY),
        ),
        (end(Outcome::Failed, unsent), None, Keep::ForEver),
        (end(Outcome::Failed, Delivery::Unknown), None, Keep::ForEver),
    ] {
        assert_eq!(
            gate().keep(REC, RetentionVerdict::Pass, None, &end, configured),
            (keep, None),
            "{end:?}"
        );
    }
}

#[test]
fn no_policy_deletes_the_only_copy_before_the_floor_or_keeps_anything_beyond_the_cap() {
    use RetentionVerdict::{Delete, Keep as KeepIt, KeepFor};
    let floor = Some("gate.recording.retention.failed_at_least");
    let cap = Some("gate.recording.retention.at_most");
    let unsent = Delivery::Unsent { bytes: 9 };
    for (delivery, verdict, keep, setting) in [
        (Delivery::Delivered, Delete, Keep::Nothing, None),
        (
            Delivery::Delivered,
            KeepFor(Duration::ZERO),
            Keep::Nothing,
            None,
        ),
        (Delivery::Delivered, KeepFor(HOUR), until(HOUR), None),
        (
            Delivery::Delivered,
            KeepFor(366 * DAY),
            until(365 * DAY),
            cap,
        ),
        (Delivery::Delivered, KeepIt, until(365 * DAY), cap),
        (unsent, Delete, until(DAY), floor),
        (unsent, KeepFor(HOUR), until(DAY), floor),
        (unsent, KeepFor(2 * DAY), until(2 * DAY), None),
        (unsent, KeepIt, until(365 * DAY), cap),
        (Delivery::Unknown, Delete, until(DAY), floor),
        (Delivery::NeverRan, Delete, Keep::Nothing, None),
    ] {
        let end = end(Outcome::Failed, delivery);
        let (got, refusal) = gate().keep(REC, verdict, Some("rules"), &end, Some(HOUR));
        assert_eq!(got, keep, "{delivery:?} {verdict:?}");
        assert_eq!(
            refusal.as_ref().map(|r| r.setting.as_str()),
            setting,
            "{delivery:?} {verdict:?}"
        );
    }
    let (_, refusal) = gate().keep(
        REC,
        Delete,
        Some("rules"),
        &end(Outcome::Failed, unsent),
        None,
    );
    assert_eq!(
        refusal.unwrap().to_string(),
        "deleting the data at once (proposed by policy rules) refused: it may be the only copy of the work, \
         which stays for 1d (see gate.recording.retention.failed_at_least)"
    );
}
