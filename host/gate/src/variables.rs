//! Every input that the job programs know, and what its value may look like.
//!
//! The recorder's entrypoint builds a command line for a shell that runs as root out of its
//! variables, unquoted. So a value is accepted for what it is, never for what it lacks: each
//! variable has a form, and no form leaves room for a character that a shell acts on.

use std::ops::RangeInclusive;

use domain::{JobKind, SiteUrl};

use crate::browser;

/// Which kinds of job know a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knows {
    Both,
    Only(JobKind),
}

/// What a value may look like.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// `http(s)://HOST[:PORT]`.
    SiteUrl,
    /// 26 characters of `[a-z0-9]`: an id or a session token of Mattermost.
    Id,
    /// A whole number in a range, or 0 for the program's default.
    Number(RangeInclusive<u32>),
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A language tag such as `en` or `pt-BR`, or `auto`.
    Language,
    /// An absolute path.
    Path,
    /// A JSON object, or null. It goes to the program as it is, not into a command line, so JSON's
    /// own punctuation passes; of the rest nothing a shell acts on does.
    JsonObject,
    /// Granted browser flags with commas between.
    BrowserFlags,
}

const RECORDING: Knows = Knows::Only(JobKind::Recording);
const TRANSCRIBING: Knows = Knows::Only(JobKind::Transcribing);
const MODEL_SIZES: Form = Form::OneOf(&["tiny", "base", "small", "medium", "large"]);
const BOOLEAN: Form = Form::OneOf(&["true", "false"]);
const THREADS: Form = Form::Number(0..=256);
const MILLISECONDS: Form = Form::Number(0..=u32::MAX);

const KNOWN: &[(&str, Knows, Form)] = &[
    ("SITE_URL", Knows::Both, Form::SiteUrl),
    ("CALL_ID", Knows::Both, Form::Id),
    ("POST_ID", Knows::Both, Form::Id),
    ("AUTH_TOKEN", Knows::Both, Form::Id),
    ("TLS_CA_CERT_FILE", Knows::Both, Form::Path),
    ("RECORDING_ID", RECORDING, Form::Id),
    ("WIDTH", RECORDING, Form::Number(1280..=3840)),
    ("HEIGHT", RECORDING, Form::Number(720..=2160)),
    ("VIDEO_RATE", RECORDING, Form::Number(500..=10_000)),
    ("AUDIO_RATE", RECORDING, Form::Number(32..=320)),
    ("FRAME_RATE", RECORDING, Form::Number(10..=60)),
    (
        "VIDEO_PRESET",
        RECORDING,
        Form::OneOf(&[
            "medium",
            "fast",
            "faster",
            "veryfast",
            "superfast",
            "ultrafast",
        ]),
    ),
    ("OUTPUT_FORMAT", RECORDING, Form::OneOf(&["mp4"])),
    ("EXTRA_CHROMIUM_ARGS", RECORDING, Form::BrowserFlags),
    ("TRANSCRIPTION_ID", TRANSCRIBING, Form::Id),
    ("OUTPUT_FORMAT", TRANSCRIBING, Form::OneOf(&["vtt"])),
    (
        "TRANSCRIBE_API",
        TRANSCRIBING,
        Form::OneOf(&["whisper.cpp", "openai/whisper", "azure"]),
    ),
    ("TRANSCRIBE_API_OPTIONS", TRANSCRIBING, Form::JsonObject),
    ("MODEL_SIZE", TRANSCRIBING, MODEL_SIZES),
    ("NUM_THREADS", TRANSCRIBING, THREADS),
    ("LIVE_CAPTIONS_ON", TRANSCRIBING, BOOLEAN),
    ("LIVE_CAPTIONS_MODEL_SIZE", TRANSCRIBING, MODEL_SIZES),
    ("LIVE_CAPTIONS_NUM_TRANSCRIBERS", TRANSCRIBING, THREADS),
    (
        "LIVE_CAPTIONS_NUM_THREADS_PER_TRANSCRIBER",
        TRANSCRIBING,
        THREADS,
    ),
    ("LIVE_CAPTIONS_LANGUAGE", TRANSCRIBING, Form::Language),
    ("WEBVTT_OMIT_SPEAKER", TRANSCRIBING, BOOLEAN),
    (
        "TEXT_COMPACT_SILENCE_THRESHOLD_MS",
        TRANSCRIBING,
        MILLISECONDS,
    ),
    (
        "TEXT_COMPACT_MAX_SEGMENT_DURATION_MS",
        TRANSCRIBING,
        MILLISECONDS,
    ),
];

impl Knows {
    fn includes(self, kind: JobKind) -> bool {
        self == Self::Both || self == Self::Only(kind)
    }
}

/// The form of a variable's value, where jobs of this kind know the variable.
pub(crate) fn known(kind: JobKind, name: &str) -> Option<&'static Form> {
    let found = KNOWN
        .iter()
        .find(|(known, knows, _)| *known == name && knows.includes(kind));
    found.map(|(_, _, form)| form)
}

/// Names of all variables that jobs of this kind know.
#[cfg(test)]
pub(crate) fn names(kind: JobKind) -> impl Iterator<Item = &'static str> {
    KNOWN
        .iter()
        .filter(move |(_, knows, _)| knows.includes(kind))
        .map(|(name, _, _)| *name)
}

/// Variables that change how a shell, a loader or an interpreter behaves, and those that the
/// images set for themselves. `*` stands for any ending.
const FORBIDDEN: &[&str] = &[
    "DEV_MODE",
    "TEST_MODE",
    "PATH",
    "LD_*",
    "DYLD_*",
    "GLIBC_*",
    "MALLOC_*",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "GETCONF_DIR",
    "HOSTALIASES",
    "RES_OPTIONS",
    "RESOLV_*",
    "LOCALDOMAIN",
    "TZDIR",
    "BASH",
    "BASH_*",
    "BASHOPTS",
    "SHELLOPTS",
    "SHELL",
    "ENV",
    "IFS",
    "CDPATH",
    "GLOBIGNORE",
    "GLOBSORT",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "PROMPT_COMMAND",
    "PROMPT_DIRTRIM",
    "FPATH",
    "ZDOTDIR",
    "FUNCNEST",
    "EXECIGNORE",
    "FCEDIT",
    "INPUTRC",
    "POSIXLY_CORRECT",
    "TMOUT",
    "OPTIND",
    "OPTARG",
    "_",
    "HOME",
    "USER",
    "LOGNAME",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "TEMP",
    "TMP",
    "TERM",
    "TERMINFO*",
    "TERMCAP",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS*",
    "MANPAGER",
    "BROWSER",
    "SUDO_*",
    "GIT_*",
    "SSH_*",
    "PYTHON*",
    "NODE_*",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "LUA_*",
    "JAVA_*",
    "_JAVA_*",
    "JDK_*",
    "CLASSPATH",
    "OPENSSL_*",
    "SSL_*",
    "SSLKEYLOGFILE",
    "CURL_*",
    "GODEBUG",
    "GOTRACEBACK",
    "GOCOVERDIR",
    "DISPLAY",
    "XAUTHORITY",
    "XDG_*",
    "DBUS_*",
    "PULSE_*",
    "ALSA_*",
    "GTK*",
    "GDK_*",
    "GIO_*",
    "GST_*",
    "LIBVA_*",
    "LIBGL_*",
    "MESA_*",
    "EGL_*",
    "VK_*",
    "FONTCONFIG_*",
    "FFREPORT",
    "FFMPEG_*",
    "CHROME_*",
    "CHROMIUM_*",
    "GOOGLE_*",
    "DOCKER_*",
    "KUBERNETES_*",
    "HOSTNAME",
];

/// Whether no setting can allow a variable, by its upper-case name.
pub(crate) fn forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *entry,
    })
}

/// Whether a variable's value must never be shown, logged or stored, by its upper-case name.
pub(crate) fn is_secret(name: &str) -> bool {
    matches!(name, "AUTH_TOKEN" | "TRANSCRIBE_API_OPTIONS")
        || ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"]
            .iter()
            .any(|part| name.contains(part))
}

/// Whether a shell takes the character as it is, wherever it stands in an unquoted word.
pub(crate) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-+:/,@%=".contains(c)
}

impl Form {
    /// Whether `value` has this form. `flags` are the granted browser flags.
    ///
    /// An empty value means the program's default, so it passes where there is one.
    pub(crate) fn accepts(&self, value: &str, flags: &[String]) -> bool {
        if value.is_empty() {
            return !matches!(self, Self::SiteUrl | Self::Id);
        }
        match self {
            Self::SiteUrl => value.parse::<SiteUrl>().is_ok(),
            Self::Id => {
                value.len() == 26
                    && value
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            }
            Self::Number(range) => number(value).is_some_and(|n| n == 0 || range.contains(&n)),
            Self::OneOf(words) => words.contains(&value),
            Self::Language => value == "auto" || is_language(value),
            Self::Path => is_path(value),
            Self::JsonObject => is_json_object(value),
            Self::BrowserFlags => value
                .split(',')
                .all(|flag| browser::is_granted(flag, flags)),
        }
    }

    /// What a value has to be, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::SiteUrl => {
                "http:// or https://, a host name or address and an optional port, nothing else"
                    .into()
            }
            Self::Id => "26 characters of [a-z0-9]".into(),
            Self::Number(range) if *range.start() == 0 => {
                format!("a whole number from 0 to {}", range.end())
            }
            Self::Number(range) => {
                format!(
                    "a whole number from {} to {}, or 0 for the default",
                    range.start(),
                    range.end()
                )
            }
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Language => "a language such as en or pt-BR, or auto".into(),
            Self::Path => "an absolute path of letters, digits and . _ - + without ..".into(),
            Self::JsonObject => {
                "a JSON object or null, without characters that a shell acts on in its texts".into()
            }
            Self::BrowserFlags => "granted browser flags with commas between and no blanks".into(),
        }
    }
}

/// A number as JSON prints whole ones: digits, no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// `[a-z]{2,3}(-[A-Za-z]{2,4})?`
fn is_language(text: &str) -> bool {
    let (language, region) = text
        .split_once('-')
        .map_or((text, None), |(l, r)| (l, Some(r)));
    (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_lowercase())
        && region.is_none_or(|r| {
            (2..=4).contains(&r.len()) && r.bytes().all(|b| b.is_ascii_alphabetic())
        })
}

fn is_path(text: &str) -> bool {
    text.len() <= 1024
        && text.starts_with('/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c))
        && text.split('/').all(|part| part != "." && part != "..")
}

fn is_json_object(text: &str) -> bool {
    use serde_json::Value;
    text.len() <= 16 * 1024
        && text.chars().all(|c| is_plain(c) || "{}[]\" ".contains(c))
        && matches!(
            serde_json::from_str(text),
            Ok(Value::Object(_) | Value::Null)
        )
}

#[cfg(test)]
#[path = "variables_tests.rs"]
mod tests;
