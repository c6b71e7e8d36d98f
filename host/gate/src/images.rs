//! Which image a client may ask for, and which one may run.

use domain::{Digest, ImageRef, JobKind};
use semver::Version;

use crate::{Gate, JobGrants, Origin, Refusal, RunnerRule};

/// Where Docker looks for an image whose name has no registry: a developer's own build.
const LOCAL: &str = "library";

/// The `runner` of a request, found to be one that a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerName {
    /// The kind of job that the image is for, where its name tells.
    pub kind: Option<JobKind>,
    /// The image asked for.
    pub text: String,
}

/// Leave to have an image, and to make it present by pulling it. Only the gate gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePermit {
    image: ImageRef,
}

impl ImagePermit {
    /// The image, pinned to its digest where the operator listed one.
    #[must_use]
    pub fn image(&self) -> &ImageRef {
        &self.image
    }
}

impl Gate {
    /// The rule for what a client may ask for, before policies choose.
    ///
    /// In dev mode the answer is the developer's own build of the program asked for.
    ///
    /// # Errors
    /// A refusal whose text is the contract's.
    pub fn runner(&self, asked: &str) -> Result<RunnerName, Refusal> {
        let invalid = || {
            let shown: String = asked.chars().take(512).collect();
            refuse_runner(format!("failed to validate runner {shown:?}"))
        };
        if asked.is_empty() {
            return Err(refuse_runner("runner should not be empty".to_owned()));
        }
        match &self.all_grants().runner_rule {
            RunnerRule::Registry(registry) => {
                let (kind, version) = standard_runner(asked, registry).ok_or_else(invalid)?;
                let minimum = minimum_version(kind);
                if version < minimum {
                    return Err(refuse_runner(format!(
                        "actual version ({version}) is lower than minimum supported version ({minimum})"
                    )));
                }
                Ok(RunnerName {
                    kind: Some(kind),
                    text: asked.to_owned(),
                })
            }
            RunnerRule::Any => {
                let image = parse_lenient(asked).ok_or_else(invalid)?;
                let kind = self.kind_of(image.name());
                let text = match kind {
                    Some(kind) if self.all_grants().dev_mode => {
                        format!("{LOCAL}/{}:master", program(kind))
                    }
                    _ => image.to_string(),
                };
                Ok(RunnerName { kind, text })
            }
        }
    }

    fn kind_of(&self, name: &str) -> Option<JobKind> {
        JobKind::ALL
            .into_iter()
            .find(|kind| program(*kind) == name)
            .or_else(|| {
                JobKind::ALL
                    .into_iter()
                    .find(|kind| self.grants(*kind).images.contains(name))
            })
    }

    /// Leave to use the image `text`, as `origin` chose it.
    ///
    /// # Errors
    /// When it is no image reference, or registry, name or digest is not granted.
    pub fn image(
        &self,
        kind: JobKind,
        text: &str,
        origin: &Origin,
    ) -> Result<ImagePermit, Refusal> {
        let image = text
            .parse()
            .map_err(|error: domain::InvalidImage| Refusal {
                origin: origin.clone(),
                subject: "image".to_owned(),
                why: error.to_string(),
                setting: String::new(),
            })?;
        self.permit_image(kind, image, origin)
    }

    pub(crate) fn permit_image(
        &self,
        kind: JobKind,
        image: ImageRef,
        origin: &Origin,
    ) -> Result<ImagePermit, Refusal> {
        let refuse = |why: String, setting: String| {
            Err(Refusal {
                origin: origin.clone(),
                subject: format!("image {image}"),
                why,
                setting,
            })
        };
        let grants = self.grants(kind);
        if !self
            .all_grants()
            .registries
            .iter()
            .any(|r| r == image.registry())
            && !self.is_local_build(kind, &image)
        {
            return refuse(
                format!("the registry {} is not granted", image.registry()),
                "gate.registries".into(),
            );
        }
        if !grants.images.contains(image.name()) {
            let why = format!(
                "{kind} jobs may not use an image of the name {}",
                image.name()
            );
            return refuse(why, format!("gate.{kind}.images"));
        }
        match (pin_of(grants, &image), image.digest()) {
            (Some(pin), Some(digest)) if pin != digest => refuse(
                format!("its tag is pinned to {pin}"),
                format!("gate.{kind}.digests"),
            ),
            (Some(pin), _) => {
                let pin = pin.clone();
                Ok(ImagePermit {
                    image: image.pinned(pin),
                })
            }
            (None, _) if grants.require_digest => refuse(
                "no digest is listed for it and one is required".into(),
                format!("gate.{kind}.digests"),
            ),
            (None, _) => Ok(ImagePermit { image }),
        }
    }

    /// Whether a developer's own build is meant, in dev mode.
    fn is_local_build(&self, kind: JobKind, image: &ImageRef) -> bool {
        self.all_grants().dev_mode
            && image.registry() == LOCAL
            && image.name() == program(kind)
            && image.tag() == Some("master")
    }
}

/// The digest that the operator lists for an image: under its name and tag, or, where it has no
/// tag, under the same name with any.
fn pin_of<'a>(grants: &'a JobGrants, image: &ImageRef) -> Option<&'a Digest> {
    match image.name_and_tag() {
        Some(key) => grants.digests.get(&key),
        None => grants.digests.iter().find_map(|(key, pin)| {
            let same_name = key
                .split_once(':')
                .is_some_and(|(name, _)| name == image.name());
            (same_name && image.digest() == Some(pin)).then_some(pin)
        }),
    }
}

/// The name of a kind's program in the standard images.
fn program(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Recording => "calls-recorder",
        JobKind::Transcribing => "calls-transcriber",
    }
}

fn minimum_version(kind: JobKind) -> Version {
    match kind {
        JobKind::Recording => Version::new(0, 6, 0),
        JobKind::Transcribing => Version::new(0, 1, 0),
    }
}

/// `REGISTRY/calls-(recorder|transcriber):vX.Y.Z(-dev[0-9]*)?`, the registry taken literally.
fn standard_runner(text: &str, registry: &str) -> Option<(JobKind, Version)> {
    let name_and_tag = text.strip_prefix(registry)?.strip_prefix('/')?;
    let (name, version) = name_and_tag.split_once(":v")?;
    let kind = JobKind::ALL
        .into_iter()
        .find(|kind| program(*kind) == name)?;
    let version: Version = version.parse().ok()?;
    let released = version.pre.is_empty();
    let dev = version
        .pre
        .strip_prefix("dev")
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    ((released || dev) && version.build.is_empty()).then_some((kind, version))
}

/// An image reference; one without a registry is a local build.
fn parse_lenient(text: &str) -> Option<ImageRef> {
    let text = if text.contains('/') {
        text.to_owned()
    } else {
        format!("{LOCAL}/{text}")
    };
    text.parse().ok()
}

fn refuse_runner(why: String) -> Refusal {
    Refusal {
        origin: Origin::Client,
        subject: String::new(),
        why,
        setting: String::new(),
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
