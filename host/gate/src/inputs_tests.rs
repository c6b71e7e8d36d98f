use domain::{ImageId, JobKind};
use proptest::prelude::*;

use super::*;
use crate::testing::{ID, gate, gate_with, job_id};
use crate::{LaunchPlan, variables};

fn text(value: &str) -> InputValue {
    InputValue::Text(value.to_owned())
}

fn inputs(entries: &[(&str, &str)]) -> BTreeMap<String, InputValue> {
    entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), text(value)))
        .collect()
}

#[test]
fn what_the_plugin_sends_passes_and_its_secrets_are_taken_apart() {
    let gate = gate();
    let mut recording = inputs(&[
        ("site_url", "https://h.example.com"),
        ("call_id", ID),
        ("post_id", ID),
        ("recording_id", ID),
        ("auth_token", ID),
        ("video_preset", "fast"),
        ("output_format", "mp4"),
    ]);
    recording.insert("width".to_owned(), InputValue::Json("1920".to_owned()));
    let sorted = gate.sort_inputs(JobKind::Recording, &recording).unwrap();
    assert_eq!(sorted.all.len(), 8);
    assert_eq!(sorted.all["auth_token"].reveal(), ID);
    assert!(!sorted.public.contains_key("auth_token"));
    assert_eq!(sorted.public["width"], InputValue::Json("1920".to_owned()));

    let options = r#"{"AZURE_SPEECH_KEY":"0123"}"#;
    let mut transcribing = inputs(&[
        ("transcription_id", ID),
        ("transcribe_api", "azure"),
        ("model_size", "base"),
    ]);
    transcribing.insert(
        "transcribe_api_options".to_owned(),
        InputValue::Json(options.to_owned()),
    );
    transcribing.insert(
        "live_captions_on".to_owned(),
        InputValue::Json("false".to_owned()),
    );
    let sorted = gate
        .sort_inputs(JobKind::Transcribing, &transcribing)
        .unwrap();
    assert_eq!(sorted.public.len(), 4);
    assert!(!format!("{sorted:?}").contains("0123"));
}

#[test]
fn names_have_a_form_and_differ_in_more_than_case() {
    let gate = gate();
    for bad in [
        "",
        "1x",
        "a b",
        "a=b",
        "a-b",
        "a\n",
        "ä",
        "a;b",
        "a$",
        &"x".repeat(200),
    ] {
        let refusal = gate
            .sort_inputs(JobKind::Recording, &inputs(&[(bad, "1")]))
            .unwrap_err();
        assert!(
            refusal.why.starts_with("a name holds"),
            "{bad:?}: {refusal}"
        );
    }
    let refusal = gate
        .sort_inputs(
            JobKind::Recording,
            &inputs(&[("width", "1280"), ("Width", "1280")]),
        )
        .unwrap_err();
    assert!(refusal.why.contains("case"), "{refusal}");
}

#[test]
fn an_unknown_variable_is_refused_with_the_setting_that_would_allow_it() {
    for (kind, setting) in [
        (JobKind::Recording, "gate.recording.inputs"),
        (JobKind::Transcribing, "gate.transcribing.inputs"),
    ] {
        let refusal = gate()
            .sort_inputs(kind, &inputs(&[("my_var", "x")]))
            .unwrap_err();
        assert_eq!(
            (refusal.subject.as_str(), refusal.setting.as_str()),
            ("input MY_VAR", setting)
        );
        assert_eq!(refusal.origin, Origin::Client);
    }
}

#[test]
fn an_operators_pattern_holds_for_the_whole_value_and_lets_no_shell_in() {
    let patterns = [
        ("MY_VAR", "[a-z]+"),
        ("ANYTHING", "(?s).*"),
        ("CHOICE", "a|ab"),
        ("lower", "x"),
    ];
    let gate = gate_with(|grants| {
        grants.recording.inputs = patterns.map(|(n, p)| (n.to_owned(), p.to_owned())).into();
    });
    let ask =
        |name: &str, value: &str| gate.sort_inputs(JobKind::Recording, &inputs(&[(name, value)]));
    for (name, value) in [
        ("my_var", "abc"),
        ("MY_VAR", "z"),
        ("anything", "a.b:c/d@e%f+g=h,i_j-k"),
        ("anything", ""),
        ("choice", "ab"),
        ("LOWER", "x"),
    ] {
        assert!(ask(name, value).is_ok(), "{name}={value:?}");
    }
    for (name, value) in [
        ("my_var", "abc1"),
        ("my_var", "1abc"),
        ("my_var", ""),
        ("choice", "abc"),
        ("my_var", "abc\n"),
    ] {
        assert!(ask(name, value).is_err(), "{name}={value:?}");
    }
    for c in "\n\r\t\0 ;&|<>()$`\\\"'*?[]#~!{}^ä\u{7f}".chars() {
        assert!(ask("anything", &format!("a{c}b")).is_err(), "{c:?}");
    }
    assert!(
        gate.sort_inputs(JobKind::Transcribing, &inputs(&[("my_var", "abc")]))
            .is_err()
    );
}

#[test]
fn refusals_never_quote_a_value() {
    for name in [
        "auth_token",
        "call_id",
        "width",
        "transcribe_api_options",
        "unknown",
    ] {
        for kind in JobKind::ALL {
            let refusal = gate()
                .sort_inputs(kind, &inputs(&[(name, "hunter2;")]))
                .unwrap_err();
            assert!(
                !format!("{refusal} {refusal:?}").contains("hunter2"),
                "{refusal}"
            );
        }
    }
}

#[test]
fn forbidden_variables_are_refused_in_any_case() {
    for name in [
        "dev_mode",
        "Path",
        "LD_PRELOAD",
        "bash_env",
        "Env",
        "ifs",
        "pythonpath",
        "node_options",
    ] {
        let refusal = gate()
            .sort_inputs(JobKind::Recording, &inputs(&[(name, "true")]))
            .unwrap_err();
        assert!(refusal.why.starts_with("no setting allows it"), "{refusal}");
        assert_eq!(refusal.setting, "");
    }
}

/// Characters that mean something to a shell somewhere in an unquoted word.
fn shell_acts_on(c: char) -> bool {
    c.is_whitespace() || c.is_control() || !c.is_ascii() || ";&|<>()$`\\\"'*?[]#~!{}^".contains(c)
}

/// Values near to good ones: a sample with one piece changed, or anything at all.
fn value() -> impl Strategy<Value = String> {
    let sample = prop::sample::select(vec![
        "https://h.example.com:8065",
        "http://[::1]:80",
        ID,
        "1280",
        "0",
        "fast",
        "mp4",
        "vtt",
        "true",
        "azure",
        "en-US",
        "base",
        "/etc/ca.pem",
        "{}",
        r#"{"AZURE_SPEECH_KEY":"x"}"#,
        "null",
        "--ignore-certificate-errors",
        "--proxy-server=h:80",
        "",
    ]);
    let piece = prop_oneof![
        Just(String::new()),
        any::<char>().prop_map(String::from),
        prop::sample::select(
            ";&|<>()$`\\\"'*?[]#~!{}^ \n\t,="
                .chars()
                .collect::<Vec<_>>()
        )
        .prop_map(String::from),
        Just("$(id)".to_owned()),
    ];
    let changed = (sample, any::<prop::sample::Index>(), piece, any::<bool>()).prop_map(
        |(sample, at, piece, replace)| {
            let at = at.index(sample.len() + 1);
            let rest = if replace {
                sample.get(at + 1..).unwrap_or("")
            } else {
                &sample[at..]
            };
            format!("{}{piece}{rest}", &sample[..at])
        },
    );
    prop_oneof![3 => changed, 1 => any::<String>()]
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<String> = JobKind::ALL
        .into_iter()
        .flat_map(variables::names)
        .chain(["ANYTHING", "PATH", "LD_X"])
        .flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()])
        .collect();
    prop_oneof![9 => prop::sample::select(known), 1 => any::<String>()]
}

fn kind() -> impl Strategy<Value = JobKind> {
    prop::sample::select(JobKind::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_input_holds_anything_a_shell_acts_on(kind in kind(), key in key(), value in value()) {
        let gate = permissive();
        let Ok(sorted) = gate.sort_inputs(kind, &inputs(&[(&key, &value)])) else { return Ok(()) };
        prop_assert!(is_name(&key));
        let name = key.to_ascii_uppercase();
        prop_assert!(!variables::forbidden(&name));
        let exempt = match name.as_str() {
            "SITE_URL" => "[]",
            "TRANSCRIBE_API_OPTIONS" => "{}[]\" ",
            _ => "",
        };
        prop_assert!(value.chars().all(|c| !shell_acts_on(c) || exempt.contains(c)), "{key}={value:?}");
        if name.ends_with("_ID") {
            prop_assert!(value.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
        prop_assert_eq!(sorted.all[&key].reveal(), value);
    }

    #[test]
    fn what_passes_by_itself_passes_in_a_plan_and_the_rest_does_not(kind in kind(), key in key(), value in value()) {
        let gate = permissive();
        let accepted = gate.sort_inputs(kind, &inputs(&[(&key, &value)])).is_ok();
        let image = match kind {
            JobKind::Recording => "mattermost/calls-recorder:v0.8.13",
            JobKind::Transcribing => "mattermost/calls-transcriber:v0.7.2",
        };
        let plan = LaunchPlan {
            job: job_id(),
            attempt: 1,
            kind,
            client: domain::ClientId::new("site").unwrap(),
            submitted_at: domain::Timestamp::from_millis(0),
            max_duration: std::time::Duration::from_secs(600),
            image: (image.parse().unwrap(), Origin::Client),
            image_id: image_id(),
            site_url: Some(("https://settled.example.com".parse().unwrap(), Origin::Client)),
            inputs: BTreeMap::from([(key.clone(), Secret::new(value.as_str()))]),
            resends: None,
        };
        match gate.authorize(plan) {
            Ok(permit) => {
                prop_assert!(accepted);
                let env: BTreeMap<&str, &str> = permit.env().map(|(name, value)| (name, value.reveal())).collect();
                let name = key.to_ascii_uppercase();
                let expected = if name == "SITE_URL" { "https://settled.example.com" } else { value.as_str() };
                prop_assert_eq!(env[name.as_str()], expected);
            }
            Err(_) => prop_assert!(!accepted),
        }
    }
}

fn permissive() -> Gate {
    gate_with(|grants| {
        for jobs in [&mut grants.recording, &mut grants.transcribing] {
            jobs.inputs
                .insert("ANYTHING".to_owned(), "(?s).*".to_owned());
        }
    })
}

fn image_id() -> ImageId {
    format!("sha256:{}", "0".repeat(64)).parse().unwrap()
}
