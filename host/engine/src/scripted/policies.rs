//! Policies whose answers a test sets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::*;

use crate::*;

/// Policies that say the same every time.
#[derive(Clone)]
pub(crate) struct FixedPolicies {
    pub(crate) image: Choice,
    pub(crate) retry: RetryVerdict,
    pub(crate) retention: RetentionVerdict,
    /// How long that takes to be said; `None` panics.
    pub(crate) retention_takes: Option<Duration>,
    /// The images that were chosen so far, each time one was asked for.
    pub(crate) asked_about: Arc<Mutex<Vec<String>>>,
}

impl Default for FixedPolicies {
    fn default() -> Self {
        Self {
            image: Choice::AsAsked,
            retry: RetryVerdict::Pass,
            retention: RetentionVerdict::Pass,
            retention_takes: Some(Duration::ZERO),
            asked_about: Arc::default(),
        }
    }
}

fn ruling<V>(verdict: V) -> Ruling<V> {
    Ruling {
        verdict,
        by: Some("fixed".into()),
        decisions: Vec::new(),
    }
}

#[async_trait]
impl Policies for FixedPolicies {
    async fn select_image(&self, facts: &JobFacts, _: Purpose) -> Ruling<Choice> {
        let mut asked = self
            .asked_about
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked.push(facts.image_chosen.clone());
        ruling(self.image.clone())
    }
    async fn select_site_url(&self, _: &JobFacts) -> Ruling<Choice> {
        ruling(Choice::AsAsked)
    }
    async fn retry(&self, _: &JobFacts) -> Ruling<RetryVerdict> {
        ruling(self.retry)
    }
    async fn retention(&self, _: &JobFacts) -> Ruling<RetentionVerdict> {
        let takes = self.retention_takes.expect("the policies panic");
        if takes > Duration::ZERO {
            tokio::time::sleep(takes).await;
        }
        ruling(self.retention)
    }
}
