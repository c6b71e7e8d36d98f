//! What a job's container is allowed, as the engine tells it.

use serde_json::json;

use crate::work::{WORKS_ON, Work};

#[tokio::test]
async fn a_container_gets_what_the_gate_grants_and_no_more() {
    let test = "a_container_gets_what_the_gate_grants_and_no_more";
    let config = "[gate.recording]\nmemory = \"1GiB\"\npids = 300";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    let id = work.start("rec").await;
    let told = work.engine.inspect(&work.container(&id));
    let host = &told["HostConfig"];

    assert_eq!(host["Privileged"], false);
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    let mut capabilities: Vec<_> = host["CapAdd"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str())
        .collect();
    capabilities
        .iter_mut()
        .for_each(|name| *name = name.trim_start_matches("CAP_"));
    capabilities.sort_unstable();
    assert_eq!(capabilities, ["CHOWN", "KILL", "SETGID", "SETUID"]);

    let options = host["SecurityOpt"].to_string();
    assert!(options.contains("no-new-privileges"), "{options}");
    assert!(
        options.contains("seccomp=") && !options.contains("unconfined"),
        "{options}"
    );
    assert_eq!(host["Memory"], 1 << 30);
    assert_eq!(host["PidsLimit"], 300);
    assert_eq!(host["NetworkMode"], "bridge");
    for (name, nothing) in [
        ("Devices", json!([])),
        ("Binds", json!(null)),
        ("VolumesFrom", json!(null)),
    ] {
        assert!(
            host[name] == nothing || host[name].is_null(),
            "{name}: {}",
            host[name]
        );
    }
    assert_eq!(host["RestartPolicy"]["MaximumRetryCount"], 0);
    assert!(
        ["", "no"]
            .map(Some)
            .contains(&host["RestartPolicy"]["Name"].as_str()),
        "{host}"
    );
    assert!(
        host["LogConfig"]["Config"]["max-size"].is_string(),
        "{}",
        host["LogConfig"]
    );

    let mounts = told["Mounts"].as_array().cloned().unwrap_or_default();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(
        (&mounts[0]["Type"], &mounts[0]["Destination"]),
        (&json!("volume"), &json!("/data"))
    );
    assert_eq!(
        told["Config"]["Labels"]["app"],
        "mattermost-calls-offloader"
    );
    assert_eq!(
        told["Config"]["Image"],
        work.image.as_str(),
        "administrators look for the image's name"
    );
}
