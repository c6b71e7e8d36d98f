//! The engine over a simulated world, whose every delay, fault and crash is drawn from a seed.
//!
//! The engine runs unchanged, on one thread and over tokio's paused time, so that the same seed
//! gives the same history. A crash drops the runtime with all that runs in it; what was committed
//! and what containers do goes on. The oracle looks at every effect, and at all of it once the world
//! is well again and everything has come to rest.
//!
//! `cargo run --release -p offloader-engine --features simulation --example simulate` runs many.

mod calls;
mod containers;
mod launch;
mod life;
mod memory;
mod mutation;
mod oracle;
mod policies;
mod runner;
mod setup;
mod world;

use domain::InstanceId;

pub use mutation::Mutation;
pub(crate) use mutation::{duty, resends, step};

use life::{Progress, live};
use world::Sim;

/// How a history went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The first thing that was not as promised.
    pub violation: Option<String>,
    /// What happened, a line each; empty unless it was asked for.
    pub lines: Vec<String>,
    /// Equal for equal histories.
    pub digest: u64,
    /// Effects on store and container engine.
    pub effects: u64,
}

/// Lives through the history of a seed, with a broken engine where one is asked for.
#[must_use]
pub fn simulate(seed: u64, broken: Option<Mutation>, record: bool) -> History {
    mutation::break_rules(broken);
    panics::forget();
    let sim = Sim::new(seed, broken, record);
    let mut progress = Progress::new();
    while live(&sim, &mut progress) {}
    mutation::break_rules(None);
    let mut world = sim.world();
    if let Some(panic) = panics::last() {
        world.violate(|_| format!("a task panicked: {panic}"));
    }
    History {
        violation: world.oracle.violation.take(),
        lines: world.take_history(),
        digest: world.digest,
        effects: world.effects,
    }
}

fn instance() -> InstanceId {
    "sim".parse().expect("an instance")
}

/// The runtime keeps a task's panic to itself; here it is a fault like any other.
mod panics {
    use std::cell::RefCell;
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;

    thread_local! {
        static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    pub(super) fn forget() {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |panic| {
                LAST.set(Some(panic.to_string()));
                before(panic);
            }));
        });
        LAST.set(None);
    }

    pub(super) fn last() -> Option<String> {
        LAST.take()
    }
}

#[cfg(test)]
mod tests;
