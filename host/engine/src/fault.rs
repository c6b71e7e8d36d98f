//! Points at which a test build of the service dies, as if by SIGKILL.
//!
//! With the feature `fault-points`, the environment variable `OFFLOADER_FAULT` names a point
//! (`after-intent`), and which pass of it (`after-intent:3`; without a number the first). Without
//! the feature reaching a point is nothing at all, and an optimized build cannot have the feature.

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("fault points are for test builds: a release has none");

/// A point between two effects, where a crash must lose nothing and repeat nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// A job is about to be saved for the first time.
    BeforeIntent,
    /// It is saved, and has no task yet.
    AfterIntent,
    /// Its container exists and is about to be started.
    AfterCreate,
    /// Its container was started, and nobody but the container engine knows.
    AfterStart,
    /// That it runs is known, and about to be saved.
    RunningUnsaved,
    /// How it ended is known, and about to be saved.
    EndUnsaved,
    /// Its container is removed, its volume is not.
    BetweenRemovals,
    /// After a restart: before the first unfinished job is taken up, before each further one, and
    /// when all are.
    Recovery,
}

impl FaultPoint {
    /// Dies here, if that was asked for.
    #[cfg(not(feature = "fault-points"))]
    #[inline(always)]
    pub fn reach(self) {}

    /// Dies here, if that was asked for.
    #[cfg(feature = "fault-points")]
    pub fn reach(self) {
        armed::reach(self);
    }
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::FaultPoint;

    const VARIABLE: &str = "OFFLOADER_FAULT";

    struct Armed {
        point: FaultPoint,
        passes_left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn reach(point: FaultPoint) {
        let armed = ARMED.get_or_init(from_environment);
        if let Some(armed) = armed.as_ref().filter(|armed| armed.point == point)
            && armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            tracing::error!(?point, "dying here, as asked");
            die();
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "no configuration of the service knows of this"
    )]
    fn from_environment() -> Option<Armed> {
        let text = std::env::var(VARIABLE).ok()?;
        let armed = parse(&text);
        if armed.is_none() {
            tracing::error!("{VARIABLE}={text} names no fault point");
            std::process::abort();
        }
        armed
    }

    fn parse(text: &str) -> Option<Armed> {
        let (name, passes) = text.split_once(':').unwrap_or((text, "1"));
        let point = match name {
            "before-intent" => FaultPoint::BeforeIntent,
            "after-intent" => FaultPoint::AfterIntent,
            "after-create" => FaultPoint::AfterCreate,
            "after-start" => FaultPoint::AfterStart,
            "running-unsaved" => FaultPoint::RunningUnsaved,
            "end-unsaved" => FaultPoint::EndUnsaved,
            "between-removals" => FaultPoint::BetweenRemovals,
            "recovery" => FaultPoint::Recovery,
            _ => return None,
        };
        let passes_left = AtomicU32::new(passes.parse().ok()?);
        Some(Armed { point, passes_left })
    }

    /// No destructor runs and nothing is flushed.
    fn die() -> ! {
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort()
    }
}
