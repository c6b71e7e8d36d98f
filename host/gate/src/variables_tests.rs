use super::*;
use crate::testing::ID;

const REC: JobKind = JobKind::Recording;
const TRA: JobKind = JobKind::Transcribing;

/// Values that pass and values that do not.
type Values = (&'static [&'static str], &'static [&'static str]);

fn granted() -> Vec<String> {
    crate::JobGrants::default_for(REC).chromium_args
}

#[test]
fn each_variable_takes_what_it_may_look_like_and_nothing_else() {
    let url: Values = (
        &[
            "https://h.example.com",
            "http://10.0.0.7:8065",
            "http://[::1]:8065",
            "https://h/",
        ],
        &[
            "",
            "h",
            "ftp://h",
            "http://h;cmd",
            "http://h/x",
            "http://u@h",
            "http://h?x",
            "http://h h",
            "http://$(id)",
        ],
    );
    let id: Values = (
        &[ID],
        &[
            "",
            "../..",
            "abc",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "abcdefghijklmnopqrstuvwx1;",
            "abcdefghijklmnopqrstuvwx123",
        ],
    );
    let boolean: Values = (&["true", "false", ""], &["True", "1", "yes", "true "]);
    let size: Values = (
        &["tiny", "base", "small", "medium", "large", ""],
        &["huge", "Tiny", "tiny;"],
    );
    let threads: Values = (
        &["0", "1", "256", ""],
        &["257", "-1", "01", "+1", "1.5", "1e2", " 1"],
    );
    let whole: Values = (
        &["0", "2000", "4294967295", ""],
        &["4294967296", "-1", "2.0", "2s"],
    );
    let table: &[(&[JobKind], &str, Values)] = &[
        (&[REC, TRA], "SITE_URL", url),
        (&[REC, TRA], "CALL_ID", id),
        (&[REC, TRA], "POST_ID", id),
        (&[REC, TRA], "AUTH_TOKEN", id),
        (
            &[REC, TRA],
            "TLS_CA_CERT_FILE",
            (
                &["/etc/ssl/ca.pem", "/a-b_c.d/e+f", ""],
                &[
                    "ca.pem",
                    "/etc/../x",
                    "/x/.",
                    "/a b",
                    "/a;b",
                    "/a*",
                    "/$HOME",
                    "~/x",
                ],
            ),
        ),
        (&[REC], "RECORDING_ID", id),
        (
            &[REC],
            "WIDTH",
            (
                &["0", "1280", "3840", ""],
                &["1279", "3841", "1280px", "01280"],
            ),
        ),
        (&[REC], "HEIGHT", (&["0", "720", "2160"], &["719", "2161"])),
        (
            &[REC],
            "VIDEO_RATE",
            (&["0", "500", "10000"], &["499", "10001"]),
        ),
        (&[REC], "AUDIO_RATE", (&["0", "32", "320"], &["31", "321"])),
        (&[REC], "FRAME_RATE", (&["0", "10", "60"], &["9", "61"])),
        (
            &[REC],
            "VIDEO_PRESET",
            (
                &[
                    "medium",
                    "fast",
                    "faster",
                    "veryfast",
                    "superfast",
                    "ultrafast",
                    "",
                ],
                &["slow", "fast;", "FAST"],
            ),
        ),
        (&[REC], "OUTPUT_FORMAT", (&["mp4", ""], &["vtt", "mkv"])),
        (
            &[REC],
            "EXTRA_CHROMIUM_ARGS",
            (
                &[
                    "",
                    "--ignore-certificate-errors",
                    "--ignore-certificate-errors,--proxy-server=proxy:3128",
                ],
                &[
                    "--no-sandbox",
                    "--ignore-certificate-errors --mute-audio",
                    "--ignore-certificate-errors,",
                    ",",
                    "--proxy-server=a;b:1",
                    "--ignore-certificate-errors,--no-sandbox",
                ],
            ),
        ),
        (&[TRA], "TRANSCRIPTION_ID", id),
        (&[TRA], "OUTPUT_FORMAT", (&["vtt", ""], &["mp4"])),
        (
            &[TRA],
            "TRANSCRIBE_API",
            (
                &["whisper.cpp", "openai/whisper", "azure", ""],
                &["Azure", "google", "whisperxcpp"],
            ),
        ),
        (
            &[TRA],
            "TRANSCRIBE_API_OPTIONS",
            (
                &[
                    "null",
                    "{}",
                    "",
                    r#"{"AZURE_SPEECH_KEY":"ab+/=","AZURE_SPEECH_REGION": "eastus"}"#,
                ],
                &[
                    "[]",
                    "1",
                    "{",
                    "{}x",
                    r#"{"a":"$(id)"}"#,
                    r#"{"a":"`id`"}"#,
                    "{\n}",
                    r#"{"a":"\n"}"#,
                    r#"{"a":"x;y"}"#,
                    r#""text""#,
                ],
            ),
        ),
        (&[TRA], "MODEL_SIZE", size),
        (&[TRA], "LIVE_CAPTIONS_MODEL_SIZE", size),
        (&[TRA], "NUM_THREADS", threads),
        (&[TRA], "LIVE_CAPTIONS_NUM_TRANSCRIBERS", threads),
        (&[TRA], "LIVE_CAPTIONS_NUM_THREADS_PER_TRANSCRIBER", threads),
        (&[TRA], "LIVE_CAPTIONS_ON", boolean),
        (&[TRA], "WEBVTT_OMIT_SPEAKER", boolean),
        (
            &[TRA],
            "LIVE_CAPTIONS_LANGUAGE",
            (
                &["en", "deu", "pt-BR", "zh-Hans", "auto", ""],
                &["e", "EN", "en_US", "en-", "en-1", "en-abcde", "english"],
            ),
        ),
        (&[TRA], "TEXT_COMPACT_SILENCE_THRESHOLD_MS", whole),
        (&[TRA], "TEXT_COMPACT_MAX_SEGMENT_DURATION_MS", whole),
    ];
    let flags = granted();
    for (kinds, name, (good, bad)) in table {
        for kind in *kinds {
            let form = known(*kind, name).unwrap_or_else(|| panic!("{kind} does not know {name}"));
            for value in *good {
                assert!(form.accepts(value, &flags), "{kind} {name}={value:?}");
            }
            for value in *bad {
                assert!(!form.accepts(value, &flags), "{kind} {name}={value:?}");
                assert!(!form.describe().is_empty());
            }
        }
    }
    for kind in JobKind::ALL {
        let tested: Vec<&str> = table
            .iter()
            .filter(|(kinds, ..)| kinds.contains(&kind))
            .map(|(_, name, _)| *name)
            .collect();
        let mut missing = names(kind).filter(|name| !tested.contains(name));
        assert_eq!(
            missing.next(),
            None,
            "known to {kind}, but not in the table"
        );
        assert_eq!(names(kind).count(), tested.len());
    }
}

#[test]
fn a_program_does_not_know_the_other_ones_variables() {
    assert!(known(TRA, "WIDTH").is_none());
    assert!(known(TRA, "EXTRA_CHROMIUM_ARGS").is_none());
    assert!(known(REC, "MODEL_SIZE").is_none());
    assert!(known(REC, "TRANSCRIPTION_ID").is_none());
}

#[test]
fn nothing_that_changes_how_programs_run_is_ever_allowed() {
    for name in [
        "DEV_MODE",
        "PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "BASH_ENV",
        "BASH_FUNC_X",
        "ENV",
        "IFS",
        "PS4",
        "SHELLOPTS",
        "BASHOPTS",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "NODE_OPTIONS",
        "PERL5LIB",
        "HOME",
        "GLIBC_TUNABLES",
    ] {
        assert!(forbidden(name), "{name}");
    }
    for kind in JobKind::ALL {
        assert!(names(kind).all(|name| !forbidden(name)));
    }
    assert!(!forbidden("PATHS") && !forbidden("MY_PATH") && !forbidden("ENVIRONMENT"));
}

#[test]
fn secrets_are_known_by_their_names() {
    for name in [
        "AUTH_TOKEN",
        "TRANSCRIBE_API_OPTIONS",
        "MY_API_KEY",
        "DB_PASSWORD",
        "X_SECRET_Y",
        "CREDENTIALS",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in ["SITE_URL", "CALL_ID", "RECORDING_ID", "WIDTH"] {
        assert!(!is_secret(name), "{name}");
    }
}
