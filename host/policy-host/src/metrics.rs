//! What is counted of policies, for whatever recorder the program has installed before it loads them.
//!
//! A decision takes some ten microseconds, so its handles are looked up once and kept.

use std::sync::OnceLock;

use domain::{DecisionOutcome, Hook};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

const DECISIONS: &str = "offloader_policy_decisions_total";
const DURATION: &str = "offloader_policy_decision_duration_seconds";
const QUARANTINED: &str = "offloader_policy_quarantined";
const SLOTS: &str = "offloader_policy_pool_slots";
const SLOTS_USED: &str = "offloader_policy_pool_slots_used";
const GENERATION: &str = "offloader_policy_generation";
const RELOADS: &str = "offloader_policy_reloads_total";

/// Says what each metric is.
pub(crate) fn describe() {
    describe_counter!(
        DECISIONS,
        "Decisions of policies, by how they ended; one in quarantine is not asked and counts too"
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "How long policies took to decide, instantiation included"
    );
    describe_gauge!(
        QUARANTINED,
        "1 while a policy is not asked because it had failed too often in a row"
    );
    describe_gauge!(SLOTS, "Decisions of policies that can be under way at once");
    describe_gauge!(SLOTS_USED, "Decisions of policies that are under way");
    describe_gauge!(
        GENERATION,
        "Loads of policies that succeeded since the start"
    );
    describe_counter!(RELOADS, "Reloads of policies, by whether they succeeded");
}

/// Tells how many decisions can be under way at once.
pub(crate) fn slots(slots: u32) {
    gauge!(SLOTS).set(slots);
}

/// Tells which generation is in force.
pub(crate) fn generation(number: u64) {
    #[expect(clippy::cast_precision_loss, reason = "nobody loads that often")]
    gauge!(GENERATION).set(number as f64);
}

/// Counts a reload.
pub(crate) fn reloaded(succeeded: bool) {
    let result = if succeeded { "ok" } else { "failed" };
    counter!(RELOADS, "result" => result).increment(1);
}

/// The metrics of one policy.
pub(crate) struct Meters {
    hooks: Vec<(Hook, HookMeters)>,
    quarantined: Gauge,
    slots_used: Gauge,
}

struct HookMeters {
    /// By outcome; those that never happen are not shown.
    decisions: [OnceLock<Counter>; DecisionOutcome::ALL.len()],
    duration: Histogram,
}

impl Meters {
    pub(crate) fn new(policy: &str, hooks: &[Hook]) -> Self {
        let hook_meters = |hook: &Hook| {
            let labels = [("policy", policy.to_owned()), ("hook", hook.to_string())];
            let duration = histogram!(DURATION, &labels);
            let decisions = Default::default();
            let meters = HookMeters {
                decisions,
                duration,
            };
            (*hook, meters)
        };
        let meters = Self {
            hooks: hooks.iter().map(hook_meters).collect(),
            quarantined: gauge!(QUARANTINED, "policy" => policy.to_owned()),
            slots_used: gauge!(SLOTS_USED),
        };
        meters.quarantined(false);
        meters
    }

    /// Counts a decision that was asked for.
    pub(crate) fn decided(&self, policy: &str, hook: Hook, outcome: DecisionOutcome) {
        let Some(meters) = self.of(hook) else { return };
        let index = DecisionOutcome::ALL.iter().position(|one| *one == outcome);
        let Some(decisions) = index.and_then(|index| meters.decisions.get(index)) else {
            return;
        };
        let count = || {
            let labels = [
                ("policy", policy.to_owned()),
                ("hook", hook.to_string()),
                ("outcome", outcome.as_str().to_owned()),
            ];
            counter!(DECISIONS, &labels)
        };
        decisions.get_or_init(count).increment(1);
    }

    /// Takes note of how long a decision took.
    pub(crate) fn took(&self, hook: Hook, micros: u64) {
        if let Some(meters) = self.of(hook) {
            #[expect(clippy::cast_precision_loss, reason = "no decision takes that long")]
            meters.duration.record(micros as f64 / 1e6);
        }
    }

    /// Tells whether the policy is in quarantine.
    pub(crate) fn quarantined(&self, quarantined: bool) {
        self.quarantined.set(u8::from(quarantined));
    }

    /// Counts a decision under way for as long as the result lives.
    pub(crate) fn deciding(&self) -> SlotUsed<'_> {
        self.slots_used.increment(1);
        SlotUsed(&self.slots_used)
    }

    fn of(&self, hook: Hook) -> Option<&HookMeters> {
        let mut hooks = self.hooks.iter();
        hooks.find_map(|(one, meters)| (*one == hook).then_some(meters))
    }
}

/// A decision under way.
pub(crate) struct SlotUsed<'a>(&'a Gauge);

impl Drop for SlotUsed<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
