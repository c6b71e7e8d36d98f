//! Image references, taken apart and put together. Whether the result may run is for the gate to say.

use alloc::format;
use alloc::string::String;

/// `REGISTRY/NAME[:TAG][@DIGEST]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    pub(crate) registry: &'a str,
    pub(crate) name: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (rest, digest) = split(text, '@');
        let (registry, name_and_tag) = rest.rsplit_once('/')?;
        let (name, tag) = split(name_and_tag, ':');
        Some(Self {
            registry,
            name,
            tag,
            digest,
        })
    }

    pub(crate) fn name_and_tag(&self) -> Option<String> {
        self.tag.map(|tag| format!("{}:{tag}", self.name))
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}/{}", self.registry, self.name);
        for (mark, part) in [(':', self.tag), ('@', self.digest)] {
            if let Some(part) = part {
                text.push(mark);
                text.push_str(part);
            }
        }
        text
    }
}

fn split(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

pub(crate) fn is_registry(text: &str) -> bool {
    let (host, path) = split(text, '/');
    let (host, port) = split(host, ':');
    is_word(host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && path.is_none_or(|path| path.split('/').all(is_word))
}

pub(crate) fn is_name_and_tag(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(name, tag)| is_word(name) && is_word(tag))
}

pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_being_taken_apart() {
        for text in [
            "a/b:v1",
            "localhost:5000/a/b:v1",
            "a/b@sha256:00",
            "a.b/c/d:v1@sha256:00",
        ] {
            assert_eq!(Reference::parse(text).unwrap().text(), text);
        }
        let parsed = Reference::parse("localhost:5000/a/b:v1").unwrap();
        assert_eq!(
            (parsed.registry, parsed.name, parsed.tag),
            ("localhost:5000/a", "b", Some("v1"))
        );
        assert_eq!(Reference::parse("b:v1"), None);
    }

    #[test]
    fn registries_have_no_scheme() {
        for good in [
            "mattermost",
            "localhost:5000",
            "localhost:5000/mattermost",
            "a.example.com/b/c",
        ] {
            assert!(is_registry(good), "{good}");
        }
        for bad in ["", "http://a", "a/", "/a", "a:b", "a b", "a:99999"] {
            assert!(!is_registry(bad), "{bad}");
        }
    }
}
