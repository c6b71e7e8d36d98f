//! Waiting for a directory to change, and then to rest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// How long nothing may have changed: whoever copies files in is done then.
const QUIET: Duration = Duration::from_secs(1);

/// Watches a directory and what is below it until it is dropped.
pub(crate) struct DirWatch {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl DirWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the directory is not there, or the system watches too many already.
    pub(crate) fn start(dir: &Path) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // What cannot be told for sure counts as a change.
            if event.is_ok_and(|event| is_reading(event.kind)) {
                return;
            }
            tell.notify_one();
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self {
            changed,
            _watcher: watcher,
        })
    }

    /// Returns when something has changed, and then nothing for a second.
    pub(crate) async fn settled(&self) {
        self.changed.notified().await;
        while tokio::time::timeout(QUIET, self.changed.notified())
            .await
            .is_ok()
        {}
    }
}

/// Reading what is there is no change, and loading policies does just that.
fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests change directories with plain means"
)]
mod tests {
    use std::fs;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn changes_of_every_kind_are_seen_and_reading_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("policies");
        fs::create_dir_all(dir.join("below")).unwrap();
        fs::write(dir.join("a"), "1").unwrap();
        fs::write(temp.path().join("beside"), "1").unwrap();
        let watch = DirWatch::start(&dir).unwrap();

        assert_eq!(fs::read(dir.join("a")).unwrap(), b"1");
        let nothing = tokio::time::timeout(2 * QUIET, watch.settled()).await;
        assert!(nothing.is_err(), "reading is taken for a change");

        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(dir.join("a"), "2").unwrap(),
            &|| fs::write(dir.join("below/b"), "1").unwrap(),
            // As editors save: the new file takes the place of the old one.
            &|| fs::rename(temp.path().join("beside"), dir.join("a")).unwrap(),
            &|| fs::remove_file(dir.join("a")).unwrap(),
        ];
        for (number, change) in changes.iter().enumerate() {
            change();
            let seen = tokio::time::timeout(SOON, watch.settled()).await;
            assert!(seen.is_ok(), "change {number} is not seen");
        }
    }

    #[tokio::test]
    async fn a_copy_that_takes_long_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let watch = DirWatch::start(temp.path()).unwrap();
        let file = temp.path().join("slow");
        let copying = async {
            for part in 0..8 {
                fs::write(&file, vec![0; part]).unwrap();
                tokio::time::sleep(QUIET / 4).await;
            }
            fs::metadata(&file).unwrap().len()
        };
        let (length_when_done, ()) = tokio::join!(copying, async {
            watch.settled().await;
            assert_eq!(fs::metadata(&file).unwrap().len(), 7);
        });
        assert_eq!(length_when_done, 7);
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        assert!(DirWatch::start(Path::new("/nonexistent/policies")).is_err());
    }
}
