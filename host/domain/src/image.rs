//! References to container images.

use std::fmt;
use std::str::FromStr;

/// A text that is no image reference or digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no image reference: {problem}")]
pub struct InvalidImage {
    text: String,
    problem: &'static str,
}

/// A content digest: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest as text, with its algorithm.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidImage {
                text: text.to_owned(),
                problem: "a digest is sha256: and 64 hexadecimal digits",
            })
        }
    }
}

/// What the engine calls an image it has: the digest of the image's configuration.
pub type ImageId = Digest;

/// A reference to an image: `REGISTRY/NAME[:TAG][@DIGEST]`, with a tag or a digest or both.
///
/// REGISTRY is everything before the last `/` and may hold a host, a port and a path
/// (`mattermost`, `localhost:5000/mattermost`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    registry: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// Everything before the last `/`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The last part of the repository's path, for example `calls-recorder`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, for example `v0.8.13`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where the reference pins one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `NAME:TAG`, the key under which the gate's digests are listed; `None` without a tag.
    #[must_use]
    pub fn name_and_tag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name))
    }

    /// The same image pinned to `digest`.
    #[must_use]
    pub fn pinned(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

impl FromStr for ImageRef {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let invalid = |problem| InvalidImage {
            text: text.to_owned(),
            problem,
        };
        if text.len() > 512 {
            return Err(InvalidImage {
                text: text.chars().take(64).collect(),
                problem: "longer than 512 characters",
            });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, name_and_tag) = rest
            .rsplit_once('/')
            .ok_or_else(|| invalid("expected REGISTRY/NAME:TAG"))?;
        let (name, tag) = match name_and_tag.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (name_and_tag, None),
        };
        if !registry
            .split('/')
            .enumerate()
            .all(|(i, part)| is_registry_part(part, i == 0))
        {
            return Err(invalid(
                "the registry has a part that is empty or has other characters than a-z, 0-9, '.', '_', '-'",
            ));
        }
        if !is_path_part(name) {
            return Err(invalid(
                "the name is empty or has other characters than a-z, 0-9, '.', '_', '-'",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(
                "the tag is empty, too long or has other characters than A-Z, a-z, 0-9, '.', '_', '-'",
            ));
        }
        if tag.is_none() && digest.is_none() {
            return Err(invalid("neither a tag nor a digest"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn is_path_part(part: &str) -> bool {
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let bytes = part.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

/// The first part may be a host with a port; hosts are lower-case here, as references are.
fn is_registry_part(part: &str, first: bool) -> bool {
    match part.split_once(':') {
        Some((host, port)) => {
            first && is_path_part(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => is_path_part(part),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{}", digest.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_forms_that_sites_use() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, registry, name, tag) in [
            (
                "mattermost/calls-recorder:v0.8.13",
                "mattermost",
                "calls-recorder",
                Some("v0.8.13"),
            ),
            (
                "localhost:5000/mattermost/calls-recorder:v1",
                "localhost:5000/mattermost",
                "calls-recorder",
                Some("v1"),
            ),
            (
                &format!("reg.example.com/a/b@{digest}"),
                "reg.example.com/a",
                "b",
                None,
            ),
            (
                &format!("mattermost/b:v1@{digest}"),
                "mattermost",
                "b",
                Some("v1"),
            ),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(
                (image.registry(), image.name(), image.tag()),
                (registry, name, tag)
            );
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_could_mean_something_else() {
        for bad in [
            "",
            "calls-recorder:v1",
            "mattermost/calls-recorder",
            "mattermost//x:v1",
            "/x:v1",
            "a/x:",
            "a/x:v1;rm",
            "a/x y:v1",
            "A/x:v1",
            "a/x:v1@sha256:12",
            "a/../x:v1",
            "host:99999/x:v1",
            "a/host:1/x:v1",
            "a/x:v1\n",
            "a/-x:v1",
            "http://a/x:v1",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }
}
