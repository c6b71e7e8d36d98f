//! Telling systemd how the service is, if it asked to be told.

use sd_notify::NotifyState;

/// Tells that the service serves.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells that it reloads what can be reloaded; [`ready`] tells that this is done.
pub(crate) fn reloading() {
    // systemd wants to know since when.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Tells that it ends.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
