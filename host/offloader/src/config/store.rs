//! `[store]`: where state is kept.

use std::path::{Path, PathBuf};

use super::document::{Place, Section, UnknownKeys};
use super::values::text;

/// Where state is kept.
#[derive(Debug)]
pub(crate) struct Store {
    /// The state directory.
    pub(crate) directory: PathBuf,
}

pub(super) fn read(root: &Section<'_>) -> Store {
    let store = root.section("store", UnknownKeys::Warn);
    let configured = store
        .get_over("data_source", &["STORE_DATASOURCE"], text)
        .filter(|path| !path.is_empty());
    let directory = configured.map_or_else(|| by_default(&store), PathBuf::from);
    store.finish();
    Store { directory }
}

/// `$STATE_DIRECTORY`, which systemd sets, else the user's state directory, else `./data`.
///
/// Never in /tmp, where it would be lost: whoever wants that has to say so.
fn by_default(store: &Section<'_>) -> PathBuf {
    let environment = store.reader().environment();
    // systemd separates several directories by colons; the first is the main one.
    let by_systemd = environment
        .get("STATE_DIRECTORY")
        .and_then(|list| list.split(':').next())
        .map(PathBuf::from);
    let by_user = environment
        .get("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = environment
        .get("HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path != Path::new("/"));
    let chosen = by_systemd
        .or_else(|| by_user.map(|state| state.join("offloader")))
        .or_else(|| home.map(|home| home.join(".local/state/offloader")))
        .unwrap_or_else(|| PathBuf::from("data"));
    if ["/tmp", "/var/tmp", "/dev/shm"]
        .iter()
        .any(|lost| chosen.starts_with(lost))
    {
        let message = format!(
            "the state directory would be {}, where it is lost at the next start of the machine; name one here",
            chosen.display()
        );
        store
            .reader()
            .problem(Place::Nowhere, &store.key("data_source"), message);
    }
    chosen
}
