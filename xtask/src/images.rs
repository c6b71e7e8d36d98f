//! The example images: the recorder and transcriber that the demo runs.

use anyhow::{Context, Result};

use crate::engine::Engine;
use crate::host;
use crate::layout::Layout;
use crate::process::{command, run};
use crate::registry::Registry;

/// One example image.
pub(crate) struct Image {
    /// Its folder below examples/images.
    kind: &'static str,
    /// The name a Mattermost server asks for, without registry.
    pub(crate) name: &'static str,
    /// The name it is built under. Not the real one: this engine may be somebody's.
    pub(crate) built_as: &'static str,
}

/// Records a call.
pub(crate) const RECORDER: Image = Image {
    kind: "recorder",
    name: "mattermost/calls-recorder:v0.8.13",
    built_as: "offloader-example/calls-recorder:v0.8.13",
};
/// Transcribes a call.
pub(crate) const TRANSCRIBER: Image = Image {
    kind: "transcriber",
    name: "mattermost/calls-transcriber:v0.7.2",
    built_as: "offloader-example/calls-transcriber:v0.7.2",
};

/// Builds both in the engine. The build script knows by itself what is still up to date.
pub(crate) async fn build_all(layout: &Layout, engine: &Engine) -> Result<()> {
    host::ensure(layout, host::IMAGES).await?;
    let script = layout.root().join("examples/images/build.sh");
    for image in [RECORDER, TRANSCRIBER] {
        let mut build = command(&script);
        build
            .args([image.kind, image.built_as])
            .env("DOCKER_HOST", engine.host());
        run(&mut build)
            .await
            .with_context(|| format!("building the {} image", image.kind))?;
    }
    Ok(())
}

/// Puts both into the registry, under the names that a site asks for.
pub(crate) async fn push_all(engine: &Engine, registry: &Registry) -> Result<()> {
    for image in [RECORDER, TRANSCRIBER] {
        registry
            .push(engine.host(), image.built_as, image.name)
            .await?;
    }
    Ok(())
}
