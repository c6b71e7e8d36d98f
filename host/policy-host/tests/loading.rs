//! What is refused when policies are loaded, and what is kept of those that were.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use offloader_policy_host::{ArtifactStore, PolicyConfig, PolicyHost, PolicyHostConfig};
use support::*;

fn names(host: &PolicyHost) -> Vec<String> {
    let policies = host.status().policies;
    policies.into_iter().map(|policy| policy.name).collect()
}

#[test]
fn no_policies_need_nothing() {
    let host = PolicyHost::load(PolicyHostConfig::default(), LOADED_AT).unwrap();
    assert_eq!(host.status().policies, []);
    let none = PolicyHostConfig {
        policies: vec![PolicyConfig::new("a", "a.wasm")],
        ..PolicyHostConfig::default()
    };
    assert_eq!(
        problems(PolicyHost::load(none, LOADED_AT)),
        ["policies: no directory of components is configured"]
    );
}

#[test]
fn every_problem_of_every_policy_is_told_at_once() {
    let policies = Policies::new(&[IMAGE_MAP]);
    policies.write("core.wasm", b"\0asm\x01\0\0\0");
    let sockets = r#"(component (import "wasi:sockets/tcp@0.2.6" (instance)) (import "wasi:http/types@0.2.6" (instance)))"#;
    policies.write("sockets.wasm", &wat::parse_str(sockets).unwrap());
    let mut pinned = PolicyConfig::new("pinned", IMAGE_MAP);
    pinned.sha256 = Some("0".repeat(64));
    let mut no_pin = PolicyConfig::new("no pin", IMAGE_MAP);
    no_pin.sha256 = Some("12".to_owned());
    let mut greedy = PolicyConfig::new("greedy", IMAGE_MAP);
    greedy.limits.memory = 1 << 40;
    let configs = ["core", "sockets", "absent", "../up"]
        .map(|name| PolicyConfig::new(name, format!("{name}.wasm")));
    let mut configs = Vec::from(configs);
    configs.extend([
        pinned,
        no_pin,
        greedy,
        PolicyConfig::new("", IMAGE_MAP),
        PolicyConfig::new("core", IMAGE_MAP),
    ]);

    let told = problems(policies.load(configs));
    let expected = [
        "\"core\": component core.wasm: is a core WebAssembly module, not a component",
        "\"sockets\": imports wasi:sockets/tcp@0.2.6, which nothing grants",
        "\"sockets\": imports wasi:http/types@0.2.6, which nothing grants",
        "\"absent\": component absent.wasm: No such file",
        "\"../up\": component ../up.wasm: a path led outside of the filesystem",
        "\"pinned\": sha256: the file has ",
        "\"no pin\": sha256: expected 64 hexadecimal digits",
        "\"greedy\": limits: memory: expected 64KiB to 64MiB",
        "\"\": name: is empty",
        "\"core\": name: another policy has it",
    ];
    for (told, expected) in told.iter().zip(expected) {
        assert!(
            told.starts_with(&format!("policy {expected}")),
            "{told}\n  is not: {expected}"
        );
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn an_optional_policy_is_left_out_and_the_pin_that_fits_is_taken() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let mut optional = PolicyConfig::new("optional", "absent.wasm");
    optional.optional = true;
    let unpinned = policies
        .load(vec![PolicyConfig::new("a", IMAGE_MAP)])
        .unwrap();
    let sha256 = unpinned
        .status()
        .policies
        .remove(0)
        .component_sha256
        .to_uppercase();
    let pinned = PolicyConfig {
        sha256: Some(sha256),
        ..PolicyConfig::new("pinned", IMAGE_MAP)
    };
    let host = policies.load(vec![optional, pinned]).unwrap();
    assert_eq!(names(&host), ["pinned"]);
}

#[test]
fn many_policies_of_one_component_load_beside_each_other() {
    let policies = Policies::new(&[RETRY_BACKOFF]);
    let artifacts = tempfile::tempdir().unwrap();
    let configs = (0..70).map(|n| configured(&format!("retry-{n}"), RETRY_BACKOFF, &[]));
    let config = PolicyHostConfig {
        artifacts: Some(ArtifactStore {
            dir: open(artifacts.path()),
            key: [1; 32],
        }),
        ..policies.config(configs.collect())
    };
    let host = PolicyHost::load(config, LOADED_AT).unwrap();
    let expected: Vec<_> = (0..70).map(|n| format!("retry-{n}")).collect();
    assert_eq!(names(&host), expected);
    only_file(artifacts.path());
}

#[test]
fn pipes_in_place_of_files_are_refused_and_not_waited_for() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let make = |file: &str| {
        let made = Command::new("mkfifo")
            .arg(policies.path().join(file))
            .status();
        assert!(made.unwrap().success());
    };
    make("pipe.wasm");
    make("image_map.wasm.minisig");
    let told = problems(policies.load(vec![
        PolicyConfig::new("a", "pipe.wasm"),
        PolicyConfig::new("b", IMAGE_MAP),
    ]));
    let refused = "is not a regular file";
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|told| told.ends_with(refused)), "{told:?}");
}

fn load_kept(policies: &Policies, artifacts: &Path, key: [u8; 32]) {
    let store = ArtifactStore {
        dir: open(artifacts),
        key,
    };
    let config = PolicyHostConfig {
        dir: Some(policies.open()),
        policies: vec![PolicyConfig::new("a", IMAGE_MAP)],
        artifacts: Some(store),
        ..PolicyHostConfig::default()
    };
    PolicyHost::load(config, LOADED_AT).unwrap();
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn artifacts_are_kept_and_those_that_were_changed_are_made_anew() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let artifacts = tempfile::tempdir().unwrap();
    let load = |key| load_kept(&policies, artifacts.path(), key);
    load([1; 32]);
    let file = only_file(artifacts.path());
    let made = fs::read(&file).unwrap();
    let written = || fs::metadata(&file).unwrap().ino();

    let before = written();
    load([1; 32]);
    assert_eq!(
        written(),
        before,
        "an artifact that is authentic was made again"
    );

    let mut changed = made.clone();
    *changed.last_mut().unwrap() ^= 1;
    for tampered in [changed, made[..made.len() / 2].to_vec(), b"short".to_vec()] {
        fs::write(&file, &tampered).unwrap();
        load([1; 32]);
        assert_eq!(
            fs::read(&file).unwrap().len(),
            made.len(),
            "a tampered artifact was kept"
        );
        assert_ne!(fs::read(&file).unwrap(), tampered);
    }

    load([2; 32]);
    assert_ne!(
        fs::read(&file).unwrap()[..32],
        made[..32],
        "an artifact of another installation was kept"
    );
}

#[test]
fn a_directory_that_cannot_be_written_does_not_keep_from_serving() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let artifacts = tempfile::tempdir().unwrap();
    let gone = artifacts.path().to_owned();
    let store = ArtifactStore {
        dir: open(&gone),
        key: [1; 32],
    };
    drop(artifacts);
    let config = PolicyHostConfig {
        dir: Some(policies.open()),
        policies: vec![
            PolicyConfig::new("a", IMAGE_MAP),
            PolicyConfig::new("b", IMAGE_MAP),
        ],
        artifacts: Some(store),
        ..PolicyHostConfig::default()
    };
    let host = PolicyHost::load(config, LOADED_AT).unwrap();
    assert_eq!(names(&host), ["a", "b"]);
}

#[test]
fn keys_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = ArtifactStore {
        dir: open(dir.path()),
        key: [0xAB; 32],
    };
    assert!(!format!("{store:?}").contains("171"));
}
