//! What a container may and may not do, as the kernel sees it.

use std::collections::BTreeMap;

use bollard::models::HostConfig;
use bollard::query_parameters::{ListContainersOptions, LogsOptions, WaitContainerOptions};
use engine::Runner;
use futures_util::{StreamExt, TryStreamExt};

use crate::bench::{always, with_engine};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Calls that Chromium's sandbox and newer programs need.
const PERMITTED: &[&str] = &[
    "statx",
    "openat2",
    "clone-user-pid-net",
    "unshare-user",
    "unshare-user-chroot",
];

/// Calls that the profile forbids, and that would be answered otherwise without it.
const FORBIDDEN: &[&str] = &[
    "clone-user-mount",
    "clone-user-uts",
    "clone-user-ipc",
    "clone-user-cgroup",
    "unshare-user-mount",
    "unshare-user-net",
    "setns",
    "mount",
    "umount2",
    "open_tree",
    "keyctl",
    "add_key",
    "request_key",
    "perf_event_open",
    "kcmp",
    "pidfd_getfd",
    "vsock",
];

/// Calls that the kernel forbids to those without capabilities as well.
const FORBIDDEN_TWICE: &[&str] = &[
    "bpf",
    "kexec_load",
    "pivot_root",
    "init_module",
    "reboot",
    "swapon",
];

fn errors(output: &str) -> BTreeMap<&str, i32> {
    output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(call, error)| (call, error.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn forbidden_calls_fail_and_needed_ones_work() {
    with_engine(async |bench| {
        let image = bench.image(&["syscalls"]).await;
        let permit = bench.permit(1, &image);
        let output = bench.output_of(&permit).await;
        let errors = errors(&output);
        for call in PERMITTED {
            assert_eq!(errors[call], 0, "{call}");
        }
        for call in FORBIDDEN.iter().chain(FORBIDDEN_TWICE) {
            assert_eq!(errors[call], EPERM, "{call}");
        }
        assert_eq!(errors["clone3"], ENOSYS);
        assert_eq!(
            errors.len(),
            PERMITTED.len() + FORBIDDEN.len() + FORBIDDEN_TWICE.len() + 1
        );
    })
    .await;
}

/// Shows that the test above can fail.
#[tokio::test]
async fn without_the_profile_the_kernel_answers_otherwise() {
    with_engine(async |bench| {
        let image = bench.image(&["syscalls"]).await;
        let permit = bench.permit(1, &image);
        let unconfined = HostConfig {
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec![
                "no-new-privileges".into(),
                "seccomp=unconfined".into(),
            ]),
            ..Default::default()
        };
        let id = bench
            .create_by_hand(&permit, BTreeMap::new(), unconfined)
            .await;
        bench.docker.start_container(&id, None).await.unwrap();
        bench
            .docker
            .wait_container(&id, None::<WaitContainerOptions>)
            .next()
            .await
            .unwrap()
            .unwrap();
        let options = LogsOptions {
            stdout: true,
            ..Default::default()
        };
        let parts: Vec<_> = bench
            .docker
            .logs(&id, Some(options))
            .try_collect()
            .await
            .unwrap();
        let output: String = parts.iter().map(ToString::to_string).collect();
        let errors = errors(&output);
        for call in FORBIDDEN {
            assert_ne!(errors[call], EPERM, "{call}");
        }
        assert_ne!(errors["clone3"], ENOSYS);
    })
    .await;
}

#[tokio::test]
async fn programs_have_the_granted_capabilities_and_no_way_to_more() {
    with_engine(async |bench| {
        let image = bench.image(&["status"]).await;
        // Bits of include/uapi/linux/capability.h: CHOWN 0, KILL 5, SETGID 6, SETUID 7.
        for (job, capabilities, bits) in [
            (1, &[][..], 0_u64),
            (2, &["CHOWN", "SETUID", "SETGID", "KILL"], 0b1110_0001),
        ] {
            let permit = bench.permit_with(job, &image, &[], |grants| {
                grants.capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
            });
            let output = bench.output_of(&permit).await;
            let status: BTreeMap<&str, &str> = output
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .collect();
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(u64::from_str_radix(status[set], 16).unwrap(), bits, "{set}");
            }
            assert_eq!((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"));
        }
    })
    .await;
}

#[tokio::test]
async fn the_engine_was_told_all_limits() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit_with(1, &image, &[], |grants| {
            grants.memory_bytes = 32 << 20;
            grants.nano_cpus = 1_500_000_000;
            grants.pids = 77;
        });
        bench.runner.launch(&permit, &always()).await.unwrap();
        let found = bench.inspect(&permit).await.unwrap();
        let host = found.host_config.unwrap();
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(32 << 20), Some(32 << 20))
        );
        assert_eq!(
            (host.nano_cpus, host.pids_limit),
            (Some(1_500_000_000), Some(77))
        );
        assert_eq!(
            (host.privileged, host.auto_remove, host.init),
            (Some(false), Some(false), Some(false))
        );
        assert_eq!(host.network_mode.as_deref(), Some("bridge"));
        assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "no");
        assert!(
            host.binds.unwrap_or_default().is_empty()
                && host.devices.unwrap_or_default().is_empty()
        );
        let log = host.log_config.unwrap();
        assert_eq!(log.typ.as_deref(), Some("json-file"));
        let bounds = log.config.unwrap();
        assert_eq!(
            (bounds["max-size"].as_str(), bounds["max-file"].as_str()),
            ("100000000", "10")
        );
        let mounts = found.mounts.unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(
            mounts[0].name.as_deref(),
            Some(permit.name().volume().as_str())
        );
        assert_eq!(mounts[0].destination.as_deref(), Some("/data"));
        assert_eq!(
            found.config.unwrap().labels.unwrap(),
            permit.labels().clone().into_iter().collect()
        );

        let running = bench
            .docker
            .list_containers(None::<ListContainersOptions>)
            .await
            .unwrap();
        let listed = running
            .into_iter()
            .find(|container| container.id == found.id)
            .unwrap();
        assert_eq!(
            listed.image,
            Some(image.0.to_string()),
            "people look for the image's name"
        );
    })
    .await;
}

#[tokio::test]
async fn no_more_processes_start_than_granted() {
    with_engine(async |bench| {
        let image = bench.image(&["fork"]).await;
        let permit = bench.permit_with(1, &image, &[], |grants| grants.pids = 16);
        assert_eq!(bench.output_of(&permit).await, "processes 15\n");
    })
    .await;
}

#[tokio::test]
async fn the_environment_is_the_permits() {
    with_engine(async |bench| {
        let image = bench.image(&["status"]).await;
        let token = "abcdefghijklmnopqrstuvwx12";
        let permit = bench.permit_with(
            1,
            &image,
            &[("auth_token", token), ("width", "1280")],
            |_| {},
        );
        let output = bench.output_of(&permit).await;
        let mut env: Vec<&str> = output
            .lines()
            .filter_map(|line| line.strip_prefix("env "))
            .collect();
        env.retain(|line| {
            !["PATH=", "HOSTNAME=", "HOME="]
                .iter()
                .any(|own| line.starts_with(own))
        });
        env.sort_unstable();
        assert_eq!(env, [&format!("AUTH_TOKEN={token}"), "WIDTH=1280"]);
    })
    .await;
}
