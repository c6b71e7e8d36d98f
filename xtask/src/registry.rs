//! The registry that the demo and the tests pull from.

use anyhow::Result;
pub(crate) use offloader_system_tests::{Registry, free_port};

use crate::host;
use crate::layout::Layout;

/// Starts it on port 5000 if possible: what an administrator would see in examples.
pub(crate) async fn start(layout: &Layout) -> Result<Registry> {
    host::ensure(layout, host::REGISTRY).await?;
    Registry::start(&layout.target_dir("registry")?, 5000..5010).await
}
