//! The configuration in force, as TOML, without its secrets.

use std::num::NonZeroU32;
use std::time::Duration;

use domain::JobKind;
use gate::JobGrants;
use toml::{Table, Value};

use super::gate::DELIVERED_WHEN;
use super::policies::{MODE, ON_FAILURE, Policy};
use super::{Config, Logger};

/// What stands for a secret.
const SECRET: &str = "(not shown)";

impl Config {
    /// The configuration in force. A file with this text means the same, but for secrets.
    pub(crate) fn show(&self) -> String {
        let mut root = self.show_rest();
        root.insert("policies".into(), self.show_policies().into());
        root.to_string()
    }

    /// What is in force beside the policies: what only a restart changes.
    pub(crate) fn show_rest(&self) -> Table {
        let mut root = Table::new();
        root.insert("api".into(), self.show_api().into());
        root.insert(
            "store".into(),
            table([("data_source", path(&self.store.directory))]).into(),
        );
        root.insert("jobs".into(), self.show_jobs().into());
        root.insert("logger".into(), show_logger(&self.logger).into());
        let mut gate = table([("registries", texts(&self.grants.registries))]);
        for kind in JobKind::ALL {
            gate.insert(
                kind.as_str().into(),
                show_job_grants(self.grants.of(kind)).into(),
            );
        }
        root.insert("gate".into(), gate.into());
        root.insert("metrics".into(), self.show_metrics().into());
        root
    }

    fn show_metrics(&self) -> Table {
        let listen = self.metrics.listen.as_ref();
        let listen = listen.map_or_else(String::new, ToString::to_string);
        table([
            ("enable", self.metrics.enable.into()),
            ("listen_address", text(&listen)),
        ])
    }

    fn show_api(&self) -> Table {
        let tls = self.api.tls.as_ref();
        let file =
            |file: Option<&std::path::PathBuf>| file.map_or_else(|| text(""), |file| path(file));
        let tls = table([
            ("enable", tls.is_some().into()),
            ("cert_file", file(tls.map(|tls| &tls.certificate))),
            ("cert_key", file(tls.map(|tls| &tls.key))),
        ]);
        let http = table([
            ("listen_address", text(&self.api.listen.to_string())),
            ("max_connections", number(self.api.max_connections as u64)),
            ("tls", tls.into()),
        ]);
        let minutes = i64::try_from(self.api.session_lifetime.as_secs() / 60).unwrap_or(i64::MAX);
        let networks = self.api.self_registration_networks.iter();
        let networks: Vec<_> = networks.map(ToString::to_string).collect();
        let clients = self.api.self_registration_clients;
        let clients = clients.map_or(0, |clients| i64::from(clients.get()));
        let security = table([
            (
                "allow_self_registration",
                self.api.allow_self_registration.into(),
            ),
            ("self_registration_networks", texts(&networks)),
            ("self_registration_clients", clients.into()),
            ("enable_admin", self.api.admin_secret.is_some().into()),
            (
                "admin_secret_key",
                text(if self.api.admin_secret.is_some() {
                    SECRET
                } else {
                    ""
                }),
            ),
            (
                "session_cache",
                table([("expiration_minutes", minutes.into())]).into(),
            ),
        ]);
        table([("http", http.into()), ("security", security.into())])
    }

    fn show_jobs(&self) -> Table {
        let jobs = &self.jobs;
        let kept = jobs
            .failed_jobs_retention
            .map_or_else(|| "0m".to_owned(), |d| format!("{}m", d.as_secs() / 60));
        let mut shown = table([
            (
                "api_type",
                text(jobs.wasi.as_ref().map_or("docker", |_| "wasi")),
            ),
            (
                "max_concurrent_jobs",
                i64::from(jobs.max_concurrent_jobs).into(),
            ),
            ("failed_jobs_retention_time", text(&kept)),
            (
                "reserve_for_transcription",
                jobs.reserve_for_transcription.into(),
            ),
            ("min_free_disk", size(jobs.min_free_bytes)),
            ("image_registry", text(&jobs.image_registry)),
            ("start_timeout", duration(jobs.start_timeout)),
            ("pull_stall_timeout", duration(jobs.pull_stall_timeout)),
            ("history_retention", duration(jobs.history_retention)),
            ("stray_grace", duration(jobs.strays.grace)),
            ("stray_dry_run", jobs.strays.dry_run.into()),
            (
                "docker",
                table([("output_logs", jobs.output_logs.into())]).into(),
            ),
        ]);
        for (key, limit) in [
            ("max_concurrent_recordings", jobs.max_concurrent_recordings),
            (
                "max_concurrent_transcriptions",
                jobs.max_concurrent_transcriptions,
            ),
        ] {
            if let Some(limit) = limit {
                shown.insert(key.into(), i64::from(limit).into());
            }
        }
        if let Some(wasi) = &jobs.wasi {
            let images = wasi.images.iter();
            let images: Table = images
                .map(|(image, file)| (image.clone(), text(file)))
                .collect();
            let mut section = table([
                ("components", path(&wasi.components)),
                ("images", images.into()),
                ("output_max", size(wasi.output_max_bytes)),
                ("data_max", size(wasi.data_max_bytes)),
                ("shutdown_timeout", duration(wasi.shutdown_timeout)),
            ]);
            if let Some(threads) = wasi.threads {
                section.insert("threads".into(), i64::from(threads).into());
            }
            shown.insert("wasi".into(), section.into());
        }
        if let Some(instance) = &jobs.instance {
            shown.insert("instance".into(), text(instance.as_str()));
        }
        shown
    }

    fn show_policies(&self) -> Table {
        let mut shown = Table::new();
        if let Some(dir) = &self.policies.dir {
            shown.insert("dir".into(), path(dir));
        }
        let section = &self.policies;
        let keys: Vec<_> = section.trusted_keys.iter().map(|key| path(key)).collect();
        shown.extend(table([
            ("trusted_keys", keys.into()),
            ("require_signature", section.require_signature.into()),
            (
                "quarantine_after",
                number(section.quarantine_after.map_or(0, NonZeroU32::get).into()),
            ),
            ("watch", section.watch.into()),
            ("selftest", section.selftest.into()),
        ]));
        let policies = section.policies.iter().map(|granted| {
            let policy = &granted.config;
            let limits = &policy.limits;
            let settings = policy
                .settings
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect::<Table>();
            let mut shown = table([
                ("name", text(&policy.name)),
                ("component", text(&policy.component)),
                ("on_failure", text(name_of(ON_FAILURE, &policy.on_failure))),
                ("mode", text(name_of(MODE, &policy.mode))),
                ("optional", policy.optional.into()),
                ("settings", settings.into()),
                ("grants", show_policy_grants(granted).into()),
                (
                    "limits",
                    table([
                        ("component_size", size(limits.component_size)),
                        ("time", duration(limits.time)),
                        ("memory", size(limits.memory)),
                        ("table_elements", number(limits.table_elements.into())),
                        ("host_calls", number(limits.host_calls.into())),
                        ("output", size(limits.output.into())),
                        ("log", size(limits.log.into())),
                    ])
                    .into(),
                ),
            ]);
            if let Some(sha256) = &policy.sha256 {
                shown.insert("sha256".into(), text(sha256));
            }
            if let Some(signature) = &policy.signature {
                shown.insert("signature".into(), text(signature));
            }
            Value::from(shown)
        });
        let policies: Vec<_> = policies.collect();
        if !policies.is_empty() {
            shown.insert("policy".into(), policies.into());
        }
        shown
    }
}

fn show_policy_grants(policy: &Policy) -> Table {
    let inputs: Vec<_> = policy.config.grants.inputs.iter().cloned().collect();
    let dirs = policy.dirs.iter().map(|dir| {
        Value::from(table([
            ("path", path(&dir.path)),
            ("as", text(&dir.guest_path)),
            ("write", dir.write.into()),
        ]))
    });
    table([
        ("inputs", texts(&inputs)),
        ("env", texts(&policy.env)),
        ("dirs", dirs.collect::<Vec<_>>().into()),
        ("real_clock", policy.config.grants.real_clock.into()),
        ("real_entropy", policy.config.grants.real_entropy.into()),
    ])
}

fn show_logger(logger: &Logger) -> Table {
    let mut shown = table([
        ("enable_console", logger.console.is_some().into()),
        ("enable_file", logger.file.is_some().into()),
    ]);
    if let Some(console) = &logger.console {
        shown.insert(
            "console_level".into(),
            text(&console.level.to_string().to_uppercase()),
        );
        shown.insert("console_json".into(), console.json.into());
        shown.insert("enable_color".into(), console.color.into());
    }
    if let Some(file) = &logger.file {
        shown.insert(
            "file_level".into(),
            text(&file.level.to_string().to_uppercase()),
        );
        shown.insert("file_json".into(), file.json.into());
        shown.insert("file_location".into(), path(&file.path));
    }
    shown
}

fn show_job_grants(grants: &JobGrants) -> Table {
    let images: Vec<_> = grants.images.iter().cloned().collect();
    let capabilities: Vec<_> = grants.capabilities.iter().cloned().collect();
    let digests = grants
        .digests
        .iter()
        .map(|(name, digest)| (name.clone(), text(digest.as_str())))
        .collect::<Table>();
    let inputs = grants
        .inputs
        .iter()
        .map(|(name, pattern)| (name.clone(), text(pattern)))
        .collect::<Table>();
    table([
        ("images", texts(&images)),
        ("digests", digests.into()),
        ("require_digest", grants.require_digest.into()),
        ("site_hosts", texts(&grants.site_hosts)),
        ("networks", texts(&grants.networks)),
        ("memory", size(grants.memory_bytes)),
        ("cpus", (grants.nano_cpus as f64 / 1e9).into()),
        ("pids", number(grants.pids)),
        ("capabilities", texts(&capabilities)),
        ("stop_grace", duration(grants.stop_grace)),
        ("inputs", inputs.into()),
        ("chromium_args", texts(&grants.chromium_args)),
        (
            "delivered_when",
            text(name_of(DELIVERED_WHEN, &grants.delivered_when)),
        ),
        (
            "retry",
            table([
                ("max_attempts", number(grants.retry.max_attempts.into())),
                ("max_delay", duration(grants.retry.max_delay)),
                ("after_run", grants.retry.after_run.into()),
            ])
            .into(),
        ),
        (
            "retention",
            table([
                (
                    "failed_at_least",
                    duration(grants.retention.failed_at_least),
                ),
                ("at_most", duration(grants.retention.at_most)),
            ])
            .into(),
        ),
    ])
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn text(text: &str) -> Value {
    text.into()
}

fn texts(list: &[String]) -> Value {
    list.iter()
        .map(|item| text(item))
        .collect::<Vec<_>>()
        .into()
}

fn path(path: &std::path::Path) -> Value {
    text(&path.to_string_lossy())
}

fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// In the largest unit that needs no fraction.
fn duration(duration: Duration) -> Value {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
        (1, "ms"),
    ];
    largest(millis, &units).map_or_else(|| text("0s"), |shown| text(&shown))
}

fn size(bytes: u64) -> Value {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    largest(bytes.into(), &units).map_or_else(|| number(bytes), |shown| text(&shown))
}

fn largest(value: u128, units: &[(u128, &str)]) -> Option<String> {
    let whole = |unit: &&(u128, &str)| value > 0 && value.is_multiple_of(unit.0);
    units
        .iter()
        .find(whole)
        .map(|(unit, name)| format!("{}{name}", value / unit))
}

fn name_of<T: PartialEq>(names: &'static [(&'static str, T)], value: &T) -> &'static str {
    names
        .iter()
        .find(|(_, known)| known == value)
        .map_or("", |(name, _)| name)
}
