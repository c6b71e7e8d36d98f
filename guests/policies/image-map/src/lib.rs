//! Maps the images that clients ask for to those that a site has.
//!
//! | setting | value |
//! |---|---|
//! | `registries` | table from registry to registry: `{"mattermost": "localhost:5000/mattermost"}` |
//! | `pins` | table from `NAME:TAG` to digest: `{"calls-recorder:v0.8.13": "sha256:…"}` |
//! | `forbidden` | table from `NAME:TAG` to why: `{"calls-recorder:v0.8.0": "loses the sound"}` |
//!
//! A registry is everything before the last `/` of a reference and is compared as a whole. The answer
//! is the same for starting a job and for preparing one.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use offloader_policy_sdk::image_selection::{ImageSelection, Purpose, Verdict};
use offloader_policy_sdk::settings::{self, Problem, Settings};
use offloader_policy_sdk::{Job, SettingsCheck};

mod reference;

use reference::Reference;

struct ImageMap;

offloader_policy_sdk::export!(ImageMap: image_selection, settings_check);
offloader_policy_sdk::small_runtime!();

impl SettingsCheck for ImageMap {
    fn check_settings() -> Vec<Problem> {
        settings::check(Map::configure)
    }
}

impl ImageSelection for ImageMap {
    fn select_image(job: &Job, _: Purpose) -> Verdict {
        settings::read(Map::configure).select(&job.image_chosen())
    }
}

struct Map {
    registries: Vec<(String, String)>,
    pins: Vec<(String, String)>,
    forbidden: Vec<(String, String)>,
}

fn find<'a>(table: &'a [(String, String)], key: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(known, _)| known == key)
        .map(|(_, value)| value.as_str())
}

impl Map {
    fn configure(settings: &mut Settings) -> Self {
        let map = Self {
            registries: settings.texts_by_name("registries").unwrap_or_default(),
            pins: settings.texts_by_name("pins").unwrap_or_default(),
            forbidden: settings.texts_by_name("forbidden").unwrap_or_default(),
        };
        for (from, to) in &map.registries {
            for registry in [from, to]
                .into_iter()
                .filter(|r| !reference::is_registry(r))
            {
                settings.problem(
                    "registries",
                    format!("\"{registry}\": not a registry such as localhost:5000/mattermost"),
                );
            }
        }
        for (key, table) in [("pins", &map.pins), ("forbidden", &map.forbidden)] {
            for (name, _) in table
                .iter()
                .filter(|(name, _)| !reference::is_name_and_tag(name))
            {
                settings.problem(key, format!("\"{name}\": not of the form NAME:TAG"));
            }
        }
        for (name, _) in map
            .pins
            .iter()
            .filter(|(_, digest)| !reference::is_digest(digest))
        {
            settings.problem(
                "pins",
                format!("{name}: a digest is sha256: and 64 hexadecimal digits"),
            );
        }
        map
    }

    fn select(&self, image: &str) -> Verdict {
        let Some(asked) = Reference::parse(image) else {
            return Verdict::Pass;
        };
        let name_and_tag = asked.name_and_tag();
        let listed = |table| name_and_tag.as_deref().and_then(|key| find(table, key));

        if let (Some(version), Some(why)) = (&name_and_tag, listed(&self.forbidden)) {
            return Verdict::deny(
                "forbidden-version",
                format!("{version} is not used on this site: {why}"),
            );
        }
        let registry = find(&self.registries, asked.registry);
        let pin = listed(&self.pins);
        let chosen = Reference {
            registry: registry.unwrap_or(asked.registry),
            digest: pin.or(asked.digest),
            ..asked
        };
        if chosen == asked {
            return Verdict::Pass;
        }
        let why = match (
            chosen.registry != asked.registry,
            chosen.digest != asked.digest,
        ) {
            (true, true) => "mapped to the site's registry and pinned",
            (true, false) => "mapped to the site's registry",
            _ => "pinned",
        };
        Verdict::choose(chosen.text(), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    fn map() -> Map {
        let pins = format!(r#"{{"calls-recorder:v0.8.13": "{}"}}"#, digest());
        let mut settings = Settings::from_pairs(&[
            (
                "registries",
                r#"{"mattermost": "localhost:5000/mattermost"}"#,
            ),
            ("pins", &pins),
            (
                "forbidden",
                r#"{"calls-recorder:v0.8.0": "it loses the sound"}"#,
            ),
        ]);
        let map = Map::configure(&mut settings);
        assert_eq!(settings.finish(), []);
        map
    }

    #[test]
    fn maps_pins_and_leaves_alone() {
        for (asked, chosen) in [
            (
                "mattermost/calls-transcriber:v1",
                Some("localhost:5000/mattermost/calls-transcriber:v1".into()),
            ),
            (
                "mattermost/calls-recorder:v0.8.13",
                Some(format!(
                    "localhost:5000/mattermost/calls-recorder:v0.8.13@{}",
                    digest()
                )),
            ),
            (
                "other/calls-recorder:v0.8.13",
                Some(format!("other/calls-recorder:v0.8.13@{}", digest())),
            ),
            ("mattermost.evil.example/x:v1", None),
            ("mattermost/sub/calls-recorder:v1", None),
            ("localhost:5000/mattermost/calls-transcriber:v1", None),
        ] {
            let found = match map().select(asked) {
                Verdict::Use(choice) => Some(choice.image),
                Verdict::Pass => None,
                Verdict::Deny(denial) => panic!("{}", denial.message),
            };
            assert_eq!(found, chosen, "{asked}");
        }
    }

    #[test]
    fn forbidden_versions_are_denied_with_the_reason() {
        let Verdict::Deny(denial) = map().select("mattermost/calls-recorder:v0.8.0") else {
            panic!()
        };
        assert_eq!(denial.code, "forbidden-version");
        assert_eq!(
            denial.message,
            "calls-recorder:v0.8.0 is not used on this site: it loses the sound"
        );
    }

    #[test]
    fn wrong_settings_are_told() {
        let mut settings = Settings::from_pairs(&[
            ("registries", r#"{"mattermost": "http://localhost:5000"}"#),
            ("pins", r#"{"calls-recorder": "sha256:12"}"#),
            ("forbidden", r#"{"calls-recorder:v1": true}"#),
            ("registry", "x"),
        ]);
        let _ = Map::configure(&mut settings);
        let keys: Vec<_> = settings.finish().into_iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            ["forbidden", "registries", "pins", "pins", "registry"]
        );
    }
}
