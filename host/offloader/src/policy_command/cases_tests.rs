use std::time::Duration;

use domain::{Delivery, EndReason, JobKind, Timestamp};

use super::*;

fn of(text: &str) -> (Question, JobFacts, Answer) {
    let mut cases = parse("cases.toml", text, false).unwrap();
    match cases.cases.remove(0).expected {
        Expected::Of(asked, answer) => (asked.0, asked.1, answer),
        Expected::SettingsProblems(problems) => panic!("{problems:?}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    parse("cases.toml", text, false).unwrap_err()
}

#[test]
fn a_job_is_what_the_case_says_over_what_the_file_says() {
    let (question, facts, _) = of(r#"
        hook = "site-url"
        job = { client = "site-b", kind = "transcribing", inputs = { call_id = "c1" }, submitted_at = 2026-02-03T04:05:06Z }
        [[case]]
        name = "it"
        hook = "retry"
        expect.verdict = "pass"
        [case.job]
        kind = "recording"
        image = "registry/recorder:v2"
        inputs = { post_id = "p1" }
        asked_after = "5s"
        time_left_to_start = "3s"
        attempts = [
            { failure = "exited", exit_code = 9, image = "registry/recorder:v1", started_after = "1s", ran_after = "2s", ended_after = "4s" },
            { failure = "image-stalled" },
        ]
    "#);
    assert_eq!(question.hook, Hook::Retry);
    assert_eq!(
        (facts.client.as_str(), facts.kind),
        ("site-b", JobKind::Recording)
    );
    assert_eq!(facts.image_chosen, "registry/recorder:v2");
    assert_eq!(facts.inputs.len(), 2);
    let after = |seconds| facts.submitted_at.plus(Duration::from_secs(seconds));
    assert_eq!(
        facts.submitted_at,
        Timestamp::from_millis(1_770_091_506_000)
    );
    assert_eq!(facts.now, after(5));
    // The last ten seconds of the time to start are for finishing starts.
    assert_eq!(facts.start_by, after(5 + 3 + 10));
    let [first, second] = &facts.attempts[..] else {
        panic!("{:?}", facts.attempts)
    };
    assert_eq!(first.image.to_string(), "registry/recorder:v1");
    assert_eq!(first.reason, Some(EndReason::Exited(9)));
    assert_eq!(
        (first.started_at, first.running_at, first.ended_at),
        (after(1), Some(after(2)), Some(after(4)))
    );
    assert_eq!(
        (second.number, second.image.to_string()),
        (2, "registry/recorder:v2".into())
    );
    assert_eq!(second.reason, Some(EndReason::ImageStalled));
    assert_eq!((second.running_at, second.ended_at), (None, Some(after(5))));
}

#[test]
fn what_is_left_out_is_as_it_usually_is_at_that_hook() {
    let usual = |hook: &str| {
        of(&format!(
            "hook = \"{hook}\"\n[[case]]\nname = \"it\"\nexpect.verdict = \"pass\""
        ))
        .1
    };
    let asked = usual("image-selection");
    assert_eq!((asked.attempts.len(), asked.delivery), (0, None));
    let failed = usual("retry");
    assert_eq!(failed.attempts[0].reason, Some(EndReason::StartFailed));
    assert!(!failed.ever_ran());
    let ended = usual("retention");
    assert_eq!(ended.attempts[0].reason, Some(EndReason::Completed));
    assert_eq!(
        (ended.ever_ran(), ended.delivery),
        (true, Some(Delivery::Delivered))
    );
    let (question, prefetched, _) = of(
        "[[case]]\nname = \"it\"\nhook = \"image-selection\"\npurpose = \"prefetch\"\nexpect.verdict = \"pass\"",
    );
    assert_eq!(question.purpose, Purpose::Prefetch);
    assert_eq!(
        (prefetched.id.as_str(), prefetched.max_duration),
        ("", Duration::ZERO)
    );
}

#[test]
fn answers_are_compared_as_decisions_have_them() {
    let expected = |expect: &str, hook: &str| {
        of(&format!(
            "hook = \"{hook}\"\n[[case]]\nname = \"it\"\nexpect = {{ {expect} }}"
        ))
        .2
    };
    let answer = expected(r#"verdict = "keep-for", value = "1h""#, "retention");
    assert_eq!(answer.value.as_deref(), Some("3600000"));
    let answer = expected(r#"verdict = "deny", code = "no""#, "site-url");
    assert_eq!(answer.value.as_deref(), Some("no"));
    let answer = expected(r#"failure = "host-calls""#, "retry");
    assert_eq!(answer.outcome, DecisionOutcome::HostCalls);
}

#[test]
fn cases_that_contradict_themselves_are_told() {
    for (text, message) in [
        ("", "case: expected [[case]] tables"),
        (
            "[[case]]\nname = \"it\"\nhook = \"retry\"",
            "cases.toml:1: case[0].expect: expected what the policy answers",
        ),
        (
            "[[case]]\nname = \"it\"\nexpect.verdict = \"pass\"",
            "cases.toml:1: case[0].hook: expected the hook that is asked",
        ),
        (
            "[[case]]\nname = \"it\"\nhook = \"retry\"\nexpect = { verdict = \"pass\", failure = \"trap\" }",
            "expected one of verdict, failure and settings",
        ),
        (
            "[[case]]\nname = \"it\"\nhook = \"retry\"\npurpose = \"start\"\nexpect.verdict = \"pass\"",
            "only image-selection is asked with a purpose",
        ),
        (
            "[[case]]\nname = \"it\"\nhook = \"retry\"\nexpect = { verdict = \"pass\", value = \"1s\" }",
            "nothing is carried by this answer",
        ),
        (
            "[[case]]\nname = \"it\"\nhook = \"retention\"\njob.bytes_left = 3\nexpect.verdict = \"pass\"",
            "bytes are left of unsent work only",
        ),
        (
            "[[case]]\nname = \"it\"\nhook = \"retry\"\njob.submitted_at = \"noon\"\nexpect.verdict = \"pass\"",
            "expected a time such as 2026-01-01T12:00:00Z",
        ),
        ("a = [", "cases.toml:1: "),
    ] {
        let told = problems(text).join("\n");
        assert!(told.contains(message), "{text}\n{message}\n{told}");
    }
}
