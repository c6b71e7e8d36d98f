//! Gives jobs another URL to reach their site by than the one that the site asks for.
//!
//! | setting | value |
//! |---|---|
//! | `recording`, `transcribing` | URL for all jobs of that type |
//! | `hosts` | table from host (`NAME` or `NAME:PORT`) to URL, or to a table from type of job to URL |
//! | `deny_unknown_hosts` | `true`: jobs of hosts that `hosts` does not list are denied; default `false` |
//!
//! A host's own entry comes before the one of the job's type. A host that is only to be known maps to
//! its own URL.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use offloader_policy_sdk::json::Value;
use offloader_policy_sdk::settings::{self, Problem, Settings};
use offloader_policy_sdk::site_url::{SiteUrl, Verdict};
use offloader_policy_sdk::{Job, Kind, SettingsCheck};

mod url;

struct SiteUrlMap;

offloader_policy_sdk::export!(SiteUrlMap: site_url, settings_check);
offloader_policy_sdk::small_runtime!();

impl SettingsCheck for SiteUrlMap {
    fn check_settings() -> Vec<Problem> {
        settings::check(Map::configure)
    }
}

impl SiteUrl for SiteUrlMap {
    fn select_site_url(job: &Job) -> Verdict {
        settings::read(Map::configure).select(job.kind(), &job.site_url_chosen())
    }
}

/// URLs by type of job.
#[derive(Default)]
struct Urls {
    recording: Option<String>,
    transcribing: Option<String>,
}

impl Urls {
    fn of(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Recording => self.recording.as_deref(),
            Kind::Transcribing => self.transcribing.as_deref(),
            Kind::Other => None,
        }
    }
}

struct Map {
    any_host: Urls,
    hosts: Vec<(String, Urls)>,
    deny_unknown_hosts: bool,
}

impl Map {
    fn configure(settings: &mut Settings) -> Self {
        let recording = settings.text("recording");
        let transcribing = settings.text("transcribing");
        for (key, url) in [("recording", &recording), ("transcribing", &transcribing)] {
            if let Some(wrong) = url.as_deref().and_then(url::problem) {
                settings.problem(key, wrong);
            }
        }
        let mut hosts = Vec::new();
        for (host, value) in settings.table("hosts").unwrap_or_default() {
            if !url::is_host(&host) {
                settings.problem(
                    "hosts",
                    format!("\"{host}\": expected a host in lower case, NAME or NAME:PORT"),
                );
            }
            match urls(value) {
                Ok(urls) => hosts.push((host, urls)),
                Err(wrong) => settings.problem("hosts", format!("{host}: {wrong}")),
            }
        }
        let deny_unknown_hosts = settings.flag("deny_unknown_hosts").unwrap_or(false);
        Self {
            any_host: Urls {
                recording,
                transcribing,
            },
            hosts,
            deny_unknown_hosts,
        }
    }

    fn select(&self, kind: Kind, asked: &str) -> Verdict {
        let host = url::host(asked).unwrap_or_default();
        let name = url::without_port(&host);
        let entry = |key: &str| self.hosts.iter().find(|(known, _)| known == key);
        let known = entry(&host).or_else(|| entry(name));
        if known.is_none() && self.deny_unknown_hosts {
            return Verdict::deny(
                "unknown-host",
                format!("this service has no jobs for host \"{host}\""),
            );
        }
        let (url, why) = match known.and_then(|(host, urls)| Some((urls.of(kind)?, host))) {
            Some((url, host)) => (url, format!("URL of {} jobs of {host}", kind.name())),
            None => match self.any_host.of(kind) {
                Some(url) => (url, format!("URL of {} jobs", kind.name())),
                None => return Verdict::Pass,
            },
        };
        if url == asked {
            Verdict::Pass
        } else {
            Verdict::choose(url, why)
        }
    }
}

/// A host's entry: one URL for all types of job, or a table of them.
fn urls(value: Value) -> Result<Urls, String> {
    let checked = |url: String| match url::problem(&url) {
        Some(wrong) => Err(wrong.to_string()),
        None => Ok(Some(url)),
    };
    match value {
        Value::Text(url) => Ok(Urls {
            recording: checked(url.clone())?,
            transcribing: Some(url),
        }),
        Value::Object(members) => {
            let mut urls = Urls::default();
            for (kind, value) in members {
                let slot = match kind.as_str() {
                    "recording" => &mut urls.recording,
                    "transcribing" => &mut urls.transcribing,
                    _ => return Err(format!("no type of job is called \"{kind}\"")),
                };
                let Value::Text(url) = value else {
                    return Err(format!("{kind}: expected a URL"));
                };
                *slot = checked(url)?;
            }
            Ok(urls)
        }
        _ => Err("expected a URL, or a table from type of job to URL".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        let mut settings = Settings::from_pairs(pairs);
        let map = Map::configure(&mut settings);
        assert_eq!(settings.finish(), []);
        map
    }

    fn told(verdict: Verdict) -> String {
        match verdict {
            Verdict::Pass => "pass".into(),
            Verdict::Use(choice) => choice.url,
            Verdict::Deny(denial) => denial.code,
        }
    }

    #[test]
    fn hosts_come_before_types() {
        let map = map(&[
            ("recording", "http://internal:8065"),
            (
                "hosts",
                r#"{
                "a.example.com": "http://a:8065",
                "b.example.com": {"transcribing": "http://b:8065"},
                "b.example.com:8443": "http://b8443:8065"
            }"#,
            ),
        ]);
        use Kind::{Recording, Transcribing};
        for (kind, asked, url) in [
            (Recording, "https://a.example.com", "http://a:8065"),
            (
                Transcribing,
                "https://A.example.com:443/sub",
                "http://a:8065",
            ),
            (Recording, "https://b.example.com", "http://internal:8065"),
            (Transcribing, "https://b.example.com", "http://b:8065"),
            (Recording, "https://b.example.com:8443", "http://b8443:8065"),
            (Recording, "https://c.example.com", "http://internal:8065"),
            (Transcribing, "https://c.example.com", "pass"),
            (Recording, "http://internal:8065", "pass"),
        ] {
            assert_eq!(told(map.select(kind, asked)), url, "{kind:?} {asked}");
        }
    }

    #[test]
    fn unknown_hosts_are_denied_where_that_is_set() {
        let map = map(&[
            ("recording", "http://internal:8065"),
            ("hosts", r#"{"a.example.com": "http://a:8065"}"#),
            ("deny_unknown_hosts", "true"),
        ]);
        for (asked, answer) in [
            ("https://a.example.com", "http://a:8065"),
            ("https://a.example.com.evil.example", "unknown-host"),
            ("https://a.example.com@evil.example", "unknown-host"),
            ("", "unknown-host"),
        ] {
            assert_eq!(told(map.select(Kind::Recording, asked)), answer, "{asked}");
        }
    }

    #[test]
    fn wrong_settings_are_told() {
        let mut settings = Settings::from_pairs(&[
            ("recording", "internal:8065"),
            ("transcribing", "http://user:pw@internal"),
            (
                "hosts",
                r#"{"https://x": "http://a", "b": "b", "c": {"captions": "http://c"}, "d": 1}"#,
            ),
            ("deny_unknown_hosts", "1"),
            ("deny", "x"),
        ]);
        let _ = Map::configure(&mut settings);
        let keys: Vec<_> = settings.finish().into_iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            [
                "recording",
                "transcribing",
                "hosts",
                "hosts",
                "hosts",
                "hosts",
                "deny_unknown_hosts",
                "deny"
            ]
        );
    }
}
