//! Policies that choose, deny, retry, keep and delete as the dice fall.

use std::time::Duration;

use async_trait::async_trait;
use domain::{Choice, Denial, JobFacts, Purpose, RetentionVerdict, RetryVerdict, Ruling};
use fastrand::Rng;

use super::setup::chance;
use super::world::Sim;
use crate::Policies;

impl Sim {
    /// The answer of a policy that may have an opinion.
    async fn ask<V>(&self, nothing: V, opinion: impl FnOnce(&mut Rng) -> V) -> Ruling<V> {
        self.alive().await;
        let (takes, verdict, minds) = {
            let mut world = self.world();
            let rate = world.setup.faults.policies;
            let takes = if chance(&mut world.rng, 50) {
                world.rng.u64(1..100)
            } else {
                0
            };
            let minds = chance(&mut world.rng, rate);
            let verdict = if minds {
                opinion(&mut world.rng)
            } else {
                nothing
            };
            (takes, verdict, minds)
        };
        self.pause(takes).await;
        Ruling {
            verdict,
            by: minds.then(|| "dice".to_owned()),
            decisions: Vec::new(),
        }
    }
}

#[async_trait]
impl Policies for Sim {
    async fn select_image(&self, facts: &JobFacts, _: Purpose) -> Ruling<Choice> {
        let other = format!("{}1", facts.image_asked);
        self.ask(Choice::AsAsked, |rng| match rng.u32(0..8) {
            0 => Choice::Deny(Denial {
                code: "dice".into(),
                message: "no".into(),
            }),
            1 => Choice::Use("evil.example.com/calls-recorder:v9.9.9".into()),
            2..=4 => Choice::Use(other),
            _ => Choice::AsAsked,
        })
        .await
    }

    async fn select_site_url(&self, _: &JobFacts) -> Ruling<Choice> {
        self.ask(Choice::AsAsked, |_| Choice::AsAsked).await
    }

    async fn retry(&self, _: &JobFacts) -> Ruling<RetryVerdict> {
        self.ask(RetryVerdict::Pass, |rng| match rng.u32(0..4) {
            0 => RetryVerdict::GiveUp,
            _ => RetryVerdict::RetryAfter(Duration::from_millis(rng.u64(0..40_000))),
        })
        .await
    }

    async fn retention(&self, facts: &JobFacts) -> Ruling<RetentionVerdict> {
        let ruling = self
            .ask(RetentionVerdict::Pass, |rng| match rng.u32(0..5) {
                0 => RetentionVerdict::Keep,
                1..=2 => RetentionVerdict::KeepFor(Duration::from_millis(rng.u64(0..300_000))),
                _ => RetentionVerdict::Delete,
            })
            .await;
        let passed = ruling.verdict == RetentionVerdict::Pass;
        self.world().oracle.decided(&facts.id, passed);
        ruling
    }
}
