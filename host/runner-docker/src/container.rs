//! What the engine is told to create for a permit.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, RestartPolicy, RestartPolicyNameEnum,
};
use gate::LaunchPermit;

use crate::{DockerConfig, seccomp};

/// Where jobs work.
pub(crate) const DATA: &str = "/data";

/// The container of a permit. Everything that could widen what it may do is written out, whatever
/// the engine's own defaults are.
pub(crate) fn describe(permit: &LaunchPermit, config: &DockerConfig) -> ContainerCreateBody {
    let labels: HashMap<String, String> = permit
        .labels()
        .iter()
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    let volume = Mount {
        typ: Some(MountType::VOLUME),
        source: Some(permit.volume_of().volume()),
        target: Some(DATA.to_owned()),
        read_only: Some(false),
        volume_options: Some(match permit.resends() {
            // An engine that was stopped while it made the volume finds it again without its labels.
            // It adds them when it is told the driver, and leaves it as it is otherwise.
            None => MountVolumeOptions {
                labels: Some(labels.clone()),
                driver_config: Some(MountVolumeOptionsDriverConfig {
                    name: Some("local".to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            // It is there, with labels of its own; should it be gone, what the engine makes in its
            // place must not look like it.
            Some(_) => MountVolumeOptions {
                no_copy: Some(true),
                ..Default::default()
            },
        }),
        ..Default::default()
    };
    let arguments = permit
        .arguments()
        .iter()
        .map(|argument| (*argument).to_owned());
    let memory = limit(permit.memory_bytes());
    let host_config = HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(permit.capabilities().to_vec()),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            format!("seccomp={}", seccomp::profile()),
        ]),
        mounts: Some(vec![volume]),
        network_mode: Some(permit.network().to_owned()),
        memory,
        // With swap on top the limit would be twice the granted.
        memory_swap: memory,
        nano_cpus: limit(permit.nano_cpus()),
        pids_limit: limit(permit.pids()),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), config.log_file_bytes.to_string()),
                ("max-file".to_owned(), config.log_files.to_string()),
            ])),
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        init: Some(false),
        publish_all_ports: Some(false),
        ..Default::default()
    };
    ContainerCreateBody {
        // By name, not by id: that is what people see in the engine's list of containers. What was
        // created is compared with the authorized id before it starts.
        image: Some(permit.image().to_string()),
        env: Some(
            permit
                .env()
                .map(|(name, value)| format!("{name}={}", value.reveal()))
                .collect(),
        ),
        cmd: (!permit.arguments().is_empty()).then(|| arguments.collect()),
        labels: Some(labels),
        // For those who stop containers by hand: they too give the job its time to finish.
        stop_timeout: Some(i64::try_from(permit.stop_grace().as_secs()).unwrap_or(i64::MAX)),
        host_config: Some(host_config),
        ..Default::default()
    }
}

/// A limit as the engine takes it: 0 in a permit is none.
fn limit(granted: u64) -> Option<i64> {
    (granted > 0).then(|| i64::try_from(granted).unwrap_or(i64::MAX))
}
