//! The stock policies, and what they are asked about.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use cap_std::fs::Dir;
use domain::{
    Attempt, Decision, DecisionOutcome, Delivery, EndReason, Hook, JobFacts, JobKind, Purpose,
    Timestamp,
};
use offloader_policy_host::floor::Floor;
use offloader_policy_host::{ArtifactStore, PolicyConfig, PolicyHost, PolicyHostConfig};

/// When policies are loaded.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(0);

/// A stock policy with settings as a site would give them.
pub(crate) struct Stock {
    pub(crate) file: &'static str,
    pub(crate) hook: Hook,
    settings: &'static [(&'static str, &'static str)],
}

/// All of them, in the order in which a job meets them.
pub(crate) const STOCK: [Stock; 4] = [
    Stock {
        file: "image_map.wasm",
        hook: Hook::ImageSelection,
        settings: &[(
            "registries",
            r#"{"mattermost":"localhost:5000/mattermost"}"#,
        )],
    },
    Stock {
        file: "site_url_map.wasm",
        hook: Hook::SiteUrl,
        settings: &[
            ("recording", "http://10.0.0.5:8065"),
            ("transcribing", "http://10.0.0.5:8065"),
        ],
    },
    Stock {
        file: "retry_backoff.wasm",
        hook: Hook::Retry,
        settings: &[
            ("attempts", "3"),
            ("first_delay", "2s"),
            ("factor", "2"),
            ("max_delay", "10s"),
        ],
    },
    Stock {
        file: "retention_rules.wasm",
        hook: Hook::Retention,
        settings: &[
            ("delivered", "delete"),
            ("never-ran", "delete"),
            ("failed", "7d"),
            ("unsent", "30d"),
        ],
    },
];

impl Stock {
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let pairs = self.settings.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The policy as a site would configure it.
    pub(crate) fn config(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::new(self.file, self.file);
        policy.settings = self.settings();
        policy
    }

    /// The same on bare WebAssembly.
    pub(crate) fn floor(&self, dir: &Path) -> Result<Floor> {
        Ok(Floor::new(
            &std::fs::read(dir.join(self.file))?,
            self.settings(),
        )?)
    }

    /// Fails unless the policy answers.
    pub(crate) fn check(&self, host: &PolicyHost, facts: &JobFacts) -> Result<()> {
        let decided = decide(host, self.hook, facts);
        let outcomes: Vec<_> = decided.iter().map(|decision| decision.outcome).collect();
        ensure!(
            outcomes == [DecisionOutcome::Answered],
            "it decided {decided:?}"
        );
        Ok(())
    }
}

/// A configuration of these policies, with a directory for artifacts if there is one.
pub(crate) fn configuration(
    dir: &Path,
    policies: Vec<PolicyConfig>,
    artifacts: Option<&Path>,
) -> Result<PolicyHostConfig> {
    let open = |dir| Dir::open_ambient_dir(dir, cap_std::ambient_authority());
    let store = |dir| -> Result<_> {
        Ok(ArtifactStore {
            dir: open(dir)?,
            key: [7; 32],
        })
    };
    Ok(PolicyHostConfig {
        dir: Some(open(dir)?),
        policies,
        artifacts: artifacts.map(store).transpose()?,
        ..PolicyHostConfig::default()
    })
}

/// Asks, on the calling thread.
pub(crate) fn decide(host: &PolicyHost, hook: Hook, facts: &JobFacts) -> Vec<Decision> {
    match hook {
        Hook::ImageSelection => host.decide_image(facts, Purpose::Start).decisions,
        Hook::SiteUrl => host.decide_site_url(facts).decisions,
        Hook::Retry => host.decide_retry(facts).decisions,
        Hook::Retention => host.decide_retention(facts).decisions,
    }
}

/// A recording whose first attempt could not reach the registry, and that left something unsent:
/// every hook has something to decide.
pub(crate) fn facts() -> Result<JobFacts> {
    let image = "mattermost/calls-recorder:v0.8.13";
    let site = "https://mattermost.example.com";
    let now = Timestamp::from_millis(2_000);
    let mut attempt = Attempt::new(1, image.parse()?, now);
    attempt.reason = Some(EndReason::ImageUnreachable);
    Ok(JobFacts {
        id: "abcdefghijklmnopqrstuvwxyz".into(),
        client: "site".into(),
        kind: JobKind::Recording,
        image_asked: image.into(),
        image_chosen: image.into(),
        site_url_asked: site.into(),
        site_url_chosen: site.into(),
        max_duration: Duration::from_secs(3600),
        submitted_at: Timestamp::from_millis(1_000),
        now,
        start_by: Timestamp::from_millis(101_000),
        attempts: vec![attempt],
        delivery: Some(Delivery::Unsent { bytes: 9 }),
        inputs: BTreeMap::new(),
    })
}
