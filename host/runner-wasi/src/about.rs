//! What a job's directory tells of its job, should the store have lost it: the labels that its
//! container would carry.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{ClientId, Timestamp};
use engine::Described;
use gate::label::{ATTEMPT, CLIENT, INSTANCE, JOB, KIND, MAX_DURATION, SUBMITTED};
use gate::{ContainerName, LaunchPermit};
use serde::{Deserialize, Serialize};

/// As it is written into a file, which holds no secrets: whoever sees the job's data may see it.
#[derive(Serialize, Deserialize)]
pub(crate) struct About {
    labels: BTreeMap<String, String>,
    image: String,
    image_id: String,
    begun_unix_ms: i64,
}

impl About {
    /// What there is to tell of a launch that is begun now.
    pub(crate) fn new(permit: &LaunchPermit, now: Timestamp) -> Self {
        Self {
            labels: permit.labels().clone(),
            image: permit.image().to_string(),
            image_id: permit.image_id().to_string(),
            begun_unix_ms: now.as_millis(),
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers")
    }

    /// `None` for what was not written whole.
    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The job, if all that is needed of it makes sense, and it is the one of that name: files are
    /// written over, and a crash may bring back what they said before.
    pub(crate) fn describe(&self, name: &ContainerName, ran: bool) -> Option<Described> {
        let label = |name: &str| self.labels.get(name);
        let own = [
            (INSTANCE, name.instance().to_string()),
            (JOB, name.job().to_string()),
            (ATTEMPT, name.attempt().to_string()),
        ];
        if own.iter().any(|(name, value)| label(name) != Some(value)) {
            return None;
        }
        let begun_at = Timestamp::from_millis(self.begun_unix_ms);
        Some(Described {
            kind: label(KIND)?.parse().ok()?,
            client: ClientId::new(label(CLIENT)?)?,
            submitted_at: Timestamp::from_millis(label(SUBMITTED)?.parse().ok()?),
            max_duration: Duration::from_millis(label(MAX_DURATION)?.parse().ok()?),
            resends: None,
            image: self.image.parse().ok()?,
            image_id: self.image_id.parse().ok()?,
            ran_at: ran.then_some(begun_at),
        })
    }
}
