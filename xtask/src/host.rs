//! The programs of the host that the commands need, and the Debian packages that bring them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, host_is_root};
pub(crate) use crate::process::find;
use crate::process::{command, logged};

/// A program and the Debian package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// Programs that a private engine needs.
pub(crate) const ENGINE: &[Tool] = &[
    Tool {
        program: "dockerd",
        package: "docker.io",
    },
    Tool {
        program: "docker",
        package: "docker.io",
    },
    Tool {
        program: "iptables",
        package: "iptables",
    },
    Tool {
        program: "ip",
        package: "iproute2",
    },
];
/// What talks to an engine that is already there.
pub(crate) const CLIENT: &[Tool] = &[Tool {
    program: "docker",
    package: "docker.io",
}];
/// Programs for a local image registry.
pub(crate) const REGISTRY: &[Tool] = &[Tool {
    program: "docker-registry",
    package: "docker-registry",
}];
/// Programs that build the example images.
pub(crate) const IMAGES: &[Tool] = &[Tool {
    program: "debootstrap",
    package: "debootstrap",
}];
/// Programs that make the demo's call and look at its recording.
pub(crate) const CALL: &[Tool] = &[
    Tool {
        program: "flite",
        package: "flite",
    },
    Tool {
        program: "ffmpeg",
        package: "ffmpeg",
    },
    Tool {
        program: "ffprobe",
        package: "ffmpeg",
    },
    // `docker top` runs it on the host.
    Tool {
        program: "ps",
        package: "procps",
    },
];

/// Programs that test what runs in the example images.
pub(crate) const EXAMPLES: &[Tool] = &[Tool {
    program: "python3",
    package: "python3",
}];

/// Makes sure that all of `tools` are there: installs what is missing where that is possible (root on
/// a Debian), else says what to install.
pub(crate) async fn ensure(layout: &Layout, tools: &[Tool]) -> Result<()> {
    let packages = missing(tools);
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    let Some(apt) = find("apt-get").filter(|_| host_is_root()) else {
        bail!(
            "missing on this machine: {}; as root on Debian: {by_hand}",
            packages.join(", ")
        );
    };
    println!("installing {} …", packages.join(", "));
    let log = layout.target_dir("logs")?.join("apt.log");
    let advice = || format!("could not install by itself; do it by hand: {by_hand}");
    logged(command(&apt).arg("update"), &log)
        .await
        .with_context(advice)?;
    let mut install = command(&apt);
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "-o",
            "DPkg::Lock::Timeout=300",
            "install",
            "-y",
            "--no-install-recommends",
        ])
        .args(&packages);
    logged(&mut install, &log).await.with_context(advice)?;

    // Debian after bookworm packs the command line apart from the engine.
    if tools.iter().any(|tool| tool.program == "docker") && find("docker").is_none() {
        let mut install = command(&apt);
        install.args(["install", "-y", "--no-install-recommends", "docker-cli"]);
        logged(&mut install, &log).await.with_context(advice)?;
    }
    match missing(tools).as_slice() {
        [] => Ok(()),
        still => bail!(
            "installed, but still missing programs of: {}",
            still.join(", ")
        ),
    }
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools
        .iter()
        .filter(|tool| find(tool.program).is_none())
        .map(|tool| tool.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether this is a Debian or a relative, where apt-get can bring what is missing.
pub(crate) fn has_apt() -> bool {
    Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_once_by_its_package() {
        let tools = [
            Tool {
                program: "sh",
                package: "dash",
            },
            Tool {
                program: "no-such-program-a",
                package: "one",
            },
            Tool {
                program: "no-such-program-b",
                package: "one",
            },
        ];
        assert_eq!(missing(&tools), ["one"]);
    }
}
