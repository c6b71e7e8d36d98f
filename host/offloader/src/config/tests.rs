//! Whole configurations, right and wrong.

use std::time::Duration;

use ::gate::RunnerRule;
use domain::JobKind;
use tracing::level_filters::LevelFilter;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let home = [("STATE_DIRECTORY", "/var/lib/offloader")];
    home.iter()
        .chain(variables)
        .map(|(name, value)| (*name, *value))
        .collect()
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(
        Source {
            name: "c.toml",
            text: Some(text),
        },
        &environment(variables),
    )
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    load_with(text, variables).unwrap().config
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load_with(text, variables)
        .unwrap_err()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn warnings(text: &str) -> Vec<String> {
    load_with(text, &[])
        .unwrap()
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// What sites of the standard service have.
const STANDARD: &str = r#"
[api]
http.listen_address = "127.0.0.1:4545"
http.tls.enable = false
http.tls.cert_file = ""
http.tls.cert_key = ""
security.allow_self_registration = true
security.enable_admin = true
security.admin_secret_key = "hunter2hunter2"
security.session_cache.expiration_minutes = 720
[store]
data_source = "/opt/calls-offloader/data/db"
[jobs]
api_type = "docker"
max_concurrent_jobs = 4
failed_jobs_retention_time = "7d"
image_registry = "localhost:5000/mattermost"
[logger]
enable_console = true
console_json = false
console_level = "debug"
enable_file = true
file_json = true
file_level = "FATAL"
file_location = "/opt/calls-offloader/calls-offloader.log"
enable_color = true
"#;

#[test]
fn slots_and_room_are_read() {
    let jobs = load_with("", &[]).unwrap().config.jobs;
    assert_eq!(jobs.slots(), engine::Slots::of(2));
    assert_eq!(jobs.min_free_bytes, 5 << 30);
    let text = "[jobs]\nmax_concurrent_jobs = 6\nmax_concurrent_recordings = 2\n\
                max_concurrent_transcriptions = 3\nreserve_for_transcription = true\nmin_free_disk = 0\n";
    let config = load_with(text, &[]).unwrap().config;
    let slots = engine::Slots {
        total: Some(6),
        recordings: Some(2),
        transcriptions: Some(3),
        reserve_for_transcription: true,
    };
    assert_eq!(
        (config.jobs.slots(), config.jobs.min_free_bytes),
        (slots, 0)
    );
    let shown = config.show();
    for line in text
        .lines()
        .skip(1)
        .filter(|line| !line.contains("min_free_disk"))
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn how_many_connections_there_may_be_is_read() {
    assert_eq!(load_with("", &[]).unwrap().config.api.max_connections, 1000);
    let text = "[api.http]\nmax_connections = 20\n";
    let config = load_with(text, &[]).unwrap().config;
    assert_eq!(config.api.max_connections, 20);
    assert!(config.show().contains("max_connections = 20"));
    assert!(load_with("api.http.max_connections = 0", &[]).is_err());
}

#[test]
fn what_is_done_about_strays_is_read() {
    let jobs = load_with("", &[]).unwrap().config.jobs;
    assert_eq!(jobs.strays, engine::StrayRules::default());
    let text = "[jobs]\nstray_grace = \"2h\"\nstray_dry_run = true\n";
    let config = load_with(text, &[]).unwrap().config;
    let (grace, dry_run) = (Duration::from_secs(7200), true);
    let strays = engine::StrayRules { grace, dry_run };
    assert_eq!(config.jobs.strays, strays);
    let shown = config.show();
    for line in text.lines().skip(1) {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn a_standard_configuration_means_what_it_says() {
    let loaded = load_with(STANDARD, &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(
        config.api.listen,
        ListenAddress {
            host: "127.0.0.1".into(),
            port: 4545
        }
    );
    assert!(config.api.tls.is_none() && config.api.allow_self_registration);
    assert_eq!(config.api.admin_secret.unwrap().reveal(), "hunter2hunter2");
    assert_eq!(config.api.session_lifetime, Duration::from_secs(720 * 60));
    assert_eq!(
        config.store.directory,
        PathBuf::from("/opt/calls-offloader/data/db")
    );
    assert_eq!(config.jobs.max_concurrent_jobs, 4);
    assert_eq!(
        config.jobs.failed_jobs_retention,
        Some(Duration::from_secs(7 * 86_400))
    );
    assert_eq!(config.grants.registries, ["localhost:5000/mattermost"]);
    assert_eq!(
        config.grants.runner_rule,
        RunnerRule::Registry("localhost:5000/mattermost".into())
    );
    let console = config.logger.console.unwrap();
    assert_eq!(
        (console.level, console.json, console.color),
        (LevelFilter::DEBUG, false, true)
    );
    let file = config.logger.file.unwrap();
    assert_eq!(
        (file.level, file.json, file.required),
        (LevelFilter::ERROR, true, true)
    );
}

#[test]
fn without_a_file_the_documented_defaults_hold() {
    let config = load(
        Source {
            name: "c.toml",
            text: None,
        },
        &environment(&[]),
    )
    .unwrap()
    .config;
    assert_eq!(config.api.listen.to_string(), ":4545");
    assert!(
        config.api.tls.is_none()
            && config.api.admin_secret.is_none()
            && !config.api.allow_self_registration
    );
    assert_eq!(config.api.session_lifetime, Duration::from_secs(1440 * 60));
    assert_eq!(
        (
            config.jobs.max_concurrent_jobs,
            config.jobs.failed_jobs_retention
        ),
        (2, None)
    );
    assert_eq!(config.jobs.image_registry, "mattermost");
    assert_eq!(config.jobs.start_timeout, Duration::from_secs(100));
    let console = config.logger.console.unwrap();
    assert_eq!(
        (console.level, console.json, console.color),
        (LevelFilter::INFO, false, false)
    );
    let file = config.logger.file.unwrap();
    assert_eq!(
        (file.level, file.json, file.required),
        (LevelFilter::DEBUG, true, false)
    );
    assert_eq!(file.path, PathBuf::from("calls-offloader.log"));
}

#[test]
fn with_a_file_the_console_log_is_on_and_the_file_log_off() {
    let config = good("", &[]);
    assert!(config.logger.console.is_some() && config.logger.file.is_none());
    assert!(
        good("logger.enable_console = false", &[])
            .logger
            .console
            .is_none()
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = good(
        STANDARD,
        &[
            ("API_HTTP_LISTENADDRESS", ":80"),
            ("API_HTTP_TLS_ENABLE", "true"),
            ("API_HTTP_TLS_CERTFILE", "/c.pem"),
            ("API_HTTP_TLS_CERTKEY", "/k.pem"),
            ("API_SECURITY_ALLOWSELFREGISTRATION", "0"),
            ("API_SECURITY_ENABLEADMIN", "T"),
            ("API_SECURITY_ADMINSECRETKEY", "other"),
            ("API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "5"),
            ("STORE_DATASOURCE", "/tmp/x"),
            ("JOBS_APITYPE", "docker"),
            ("JOBS_MAXCONCURRENTJOBS", "9"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "0"),
            ("JOBS_IMAGEREGISTRY", "reg.example:5000/x"),
            ("JOBS_DOCKER_OUTPUTLOGS", "true"),
            ("LOGGER_ENABLECONSOLE", "false"),
            ("LOGGER_ENABLEFILE", "true"),
            ("LOGGER_FILELEVEL", "warn"),
            ("LOGGER_FILELOCATION", "/l"),
        ],
    );
    assert_eq!(config.api.listen.to_string(), ":80");
    assert_eq!(
        config.api.tls,
        Some(TlsFiles {
            certificate: "/c.pem".into(),
            key: "/k.pem".into()
        })
    );
    assert!(!config.api.allow_self_registration);
    assert_eq!(config.api.admin_secret.unwrap().reveal(), "other");
    assert_eq!(config.api.session_lifetime, Duration::from_secs(300));
    assert_eq!(config.store.directory, PathBuf::from("/tmp/x"));
    assert_eq!(
        (
            config.jobs.max_concurrent_jobs,
            config.jobs.failed_jobs_retention
        ),
        (9, None)
    );
    assert_eq!(config.grants.registries, ["reg.example:5000/x"]);
    assert!(config.jobs.output_logs && config.logger.console.is_none());
    let file = config.logger.file.unwrap();
    assert_eq!((file.level, file.path), (LevelFilter::WARN, "/l".into()));
}

#[test]
fn the_spellings_of_a_backend_yield_to_the_general_ones() {
    let docker = [
        ("JOBS_DOCKER_MAXCONCURRENTJOBS", "7"),
        ("JOBS_DOCKER_FAILEDJOBSRETENTIONTIME", "2h"),
        ("JOBS_DOCKER_IMAGEREGISTRY", "a"),
    ];
    let config = good("", &docker);
    assert_eq!(config.jobs.max_concurrent_jobs, 7);
    assert_eq!(
        config.jobs.failed_jobs_retention,
        Some(Duration::from_secs(7200))
    );
    assert_eq!(config.jobs.image_registry, "a");
    let both: Vec<_> = docker
        .into_iter()
        .chain([("JOBS_MAXCONCURRENTJOBS", "3")])
        .collect();
    assert_eq!(
        good("jobs.max_concurrent_jobs = 1", &both)
            .jobs
            .max_concurrent_jobs,
        3
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(
        good(
            "jobs.max_concurrent_jobs = 5",
            &[("JOBS_MAXCONCURRENTJOBS", "")]
        )
        .jobs
        .max_concurrent_jobs,
        5
    );
}

#[test]
fn each_mistake_is_told_with_its_line_and_what_was_expected() {
    for (text, told) in [
        (
            "\napi.http.listen_address = 7",
            "c.toml:2: api.http.listen_address: expected a string, found a whole number",
        ),
        (
            "api.http.listen_address = \"x\"",
            "c.toml:1: api.http.listen_address: expected HOST:PORT or :PORT, found \"x\"",
        ),
        (
            "[api]\nhttp.tls.enable = \"yes\"",
            "c.toml:2: api.http.tls.enable: expected true or false, found a string",
        ),
        (
            "api = 1",
            "c.toml:1: api: expected a table, found a whole number",
        ),
        (
            "api.security.session_cache.expiration_minutes = 0",
            "c.toml:1: api.security.session_cache.expiration_minutes: expected a whole number of at least 1",
        ),
        (
            "[api.security]\nenable_admin = true",
            "c.toml:2: api.security.admin_secret_key: expected a secret that is not empty, as the administrator is enabled",
        ),
        (
            "[jobs]\nmax_concurrent_jobs = 0",
            "c.toml:2: jobs.max_concurrent_jobs: expected a whole number of at least 1",
        ),
        (
            "[jobs]\nmax_concurrent_jobs = 1\nreserve_for_transcription = true",
            "c.toml:3: jobs.reserve_for_transcription: a recording and its transcription need jobs.max_concurrent_jobs of at least 2",
        ),
        (
            "jobs.max_concurrent_jobs = -1",
            "c.toml:1: jobs.max_concurrent_jobs: expected a whole number of at least 1",
        ),
        (
            "jobs.max_concurrent_jobs = 1.5",
            "c.toml:1: jobs.max_concurrent_jobs: expected a whole number, found a number",
        ),
        (
            "jobs.failed_jobs_retention_time = \"1w\"",
            "c.toml:1: jobs.failed_jobs_retention_time: expected minutes, hours or days such as \"90m\", \"12h\" or \"7d\", \
             at least one minute, or \"0m\" for ever, found \"1w\"",
        ),
        (
            "jobs.api_type = \"podman\"",
            "c.toml:1: jobs.api_type: expected \"docker\" or \"kubernetes\" or \"wasi\", found \"podman\"",
        ),
        (
            "jobs.api_type = \"kubernetes\"",
            "c.toml:1: jobs.api_type: kubernetes is not in this build yet; expected \"docker\" or \"wasi\"",
        ),
        (
            "jobs.api_type = \"wasi\"\njobs.wasi.images.\"a/b:1\" = \"b.wasm\"",
            "c.toml:1: jobs.wasi.components: expected the directory of the components",
        ),
        (
            "jobs.wasi.images.\"a/b:1\" = 1",
            "c.toml:1: jobs.wasi.images.a/b:1: expected the file of a component",
        ),
        (
            "jobs.start_timeout = \"5s\"",
            "c.toml:1: jobs.start_timeout: expected at least 11 s: no start is begun in the last 10 s of it",
        ),
        (
            "jobs.pull_stall_timeout = \"0s\"",
            "c.toml:1: jobs.pull_stall_timeout: expected at least 1 s",
        ),
        (
            "jobs.instance = \"A b\"",
            "c.toml:1: jobs.instance: expected 1 to 32 characters of [a-z0-9-], found \"A b\"",
        ),
        (
            "logger.console_level = \"loud\"",
            "c.toml:1: logger.console_level: expected TRACE, DEBUG, INFO, WARN or ERROR, found \"loud\"",
        ),
        (
            "[gate]\nregistry = [\"x\"]",
            "c.toml:2: gate.registry: unknown key, did you mean registries?",
        ),
        (
            "[gate.recording]\n\nmemroy = \"4GiB\"",
            "c.toml:3: gate.recording.memroy: unknown key, did you mean memory?",
        ),
        (
            "gate.recording.memory = \"4GB\"",
            "c.toml:1: gate.recording.memory: expected a size such as \"4GiB\" or \"512MiB\", found \"4GB\"",
        ),
        (
            "gate.transcribing.stop_grace = 5",
            "c.toml:1: gate.transcribing.stop_grace: expected a duration such as \"100s\", \"2h\" or \"30d\", found a whole number",
        ),
        (
            "gate.recording.stop_grace = \"999ms\"",
            "c.toml:1: gate.recording.stop_grace: expected at least 1 s",
        ),
        (
            "gate.recording.digests = { \"calls-recorder:v1.0.0\" = \"md5:1\" }",
            "c.toml:1: gate.recording.digests.calls-recorder:v1.0.0: expected sha256: and 64 hexadecimal digits, found \"md5:1\"",
        ),
        (
            "gate.recording.delivered_when = \"always\"",
            "c.toml:1: gate.recording.delivered_when: expected \"no-media-left\" or \"exit-0\", found \"always\"",
        ),
        (
            "[policies]\ndri = \"/x\"",
            "c.toml:2: policies.dri: unknown key, did you mean dir?",
        ),
        (
            "policies.policy = 1",
            "c.toml:1: policies.policy: expected [[policies.policy]] tables",
        ),
        (
            "[policies]\ndir = \"/x\"\n[[policies.policy]]\nname = \"a\"",
            "c.toml:3: policies.policy[0].component: expected, but left out",
        ),
        (
            "[[policies.policy]]\nname = \"a\"\ncomponent = \"a.wasm\"",
            "c.toml:1: policies.dir: expected the policies' directory",
        ),
    ] {
        assert_eq!(problems(text, &[]), [told], "{text}");
    }
}

#[test]
fn mistakes_about_what_policies_are_granted_and_trusted_are_told() {
    assert_eq!(
        problems("[policies]\nrequire_signature = true", &[]),
        [
            "c.toml:2: policies.require_signature: without policies.trusted_keys no signature could be right"
        ]
    );
    for (line, told) in [
        (
            "signature = \"s\"",
            "signature: without policies.trusted_keys no signature can be checked",
        ),
        (
            "grants.env = [\"A\", \"API_SECURITY_ADMINSECRETKEY\"]",
            "grants.env: API_SECURITY_ADMINSECRETKEY is a secret of this service",
        ),
        (
            "grants.env = [\"A=1\"]",
            "grants.env: expected names of variables, found \"A=1\"",
        ),
        (
            "grants.dirs = [{ write = true }]",
            "grants.dirs[0].path: expected, but left out",
        ),
        (
            "grants.dirs = [{ path = \"/a/../b\" }]",
            "grants.dirs[0].path: expected an absolute path without \"..\", found \"/a/../b\"",
        ),
        (
            "grants.dirs = [{ path = \"/a\" }, { path = \"/b\", as = \"/a\" }]",
            "grants.dirs[1].as: another directory is seen as \"/a\" already",
        ),
    ] {
        let text = format!(
            "[policies]\ndir = \"/x\"\n[[policies.policy]]\nname = \"a\"\ncomponent = \"a\"\n{line}"
        );
        let told = format!("c.toml:6: policies.policy[0].{told}");
        assert_eq!(problems(&text, &[]), [told], "{line}");
    }
}

#[test]
fn what_only_the_gate_knows_gets_its_line_too() {
    let told = problems(
        "[gate.recording]\npids = 1\ninputs = { LD_PRELOAD = \".*\" }",
        &[],
    );
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("c.toml:3: gate.recording.inputs.LD_PRELOAD: "),
        "{told:?}"
    );
    let told = problems("jobs.image_registry = \"Not A Registry\"", &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("c.toml:1: jobs.image_registry: \"Not A Registry\" is no registry"),
        "{told:?}"
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_order() {
    let text = "[jobs]\nmax_concurrent_jobs = 0\napi_type = \"x\"\n[gate]\nfoo = 1\n[logger]\nenable_console = 3\n";
    let told = problems(
        text,
        &[("API_HTTP_TLS_ENABLE", "maybe"), ("DEV_MODE", "perhaps")],
    );
    let places: Vec<_> = told
        .iter()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(
        places,
        [
            "c.toml:2: jobs.max_concurrent_jobs",
            "c.toml:3: jobs.api_type",
            "c.toml:5: gate.foo",
            "c.toml:7: logger.enable_console",
            "environment variable API_HTTP_TLS_ENABLE: api.http.tls.enable",
            "environment variable DEV_MODE: expected true or false",
        ]
    );
}

#[test]
fn syntax_errors_have_their_line() {
    let told = problems("[api]\n= 3\n[jobs\n", &[]);
    assert!(told.len() >= 2, "{told:?}");
    assert!(
        told[0].starts_with("c.toml:2: ") && told[1].starts_with("c.toml:3: "),
        "{told:?}"
    );
    assert!(problems("[api]\n[api]\n", &[])[0].starts_with("c.toml:2: "));
}

#[test]
fn secrets_are_not_in_complaints() {
    let told = problems("api.security.admin_secret_key = [\"hunter2\"]", &[]).join("\n");
    assert!(!told.contains("hunter2"), "{told}");
    let config = good(STANDARD, &[]);
    assert!(!format!("{config:?}{}", config.show()).contains("hunter2"));
}

#[test]
fn unknown_keys_of_standard_tables_are_warnings() {
    assert_eq!(
        warnings("[jobs]\nmax_concurent_jobs = 3\n[rpc]\nx = 1\n"),
        [
            "c.toml:2: jobs.max_concurent_jobs: unknown key, did you mean max_concurrent_jobs?; it is ignored",
            "c.toml:3: rpc: unknown key, known are jobs, api, store, logger, metrics, gate, policies; it is ignored",
        ]
    );
    assert_eq!(warnings("jobs.start_timeout = \"200s\"").len(), 1);
}

#[test]
fn state_goes_where_it_is_not_lost() {
    let directory = |variables: &[(&str, &str)]| {
        let environment = variables
            .iter()
            .map(|(name, value)| (*name, *value))
            .collect();
        load(
            Source {
                name: "c.toml",
                text: Some(""),
            },
            &environment,
        )
        .map(|loaded| loaded.config.store.directory)
    };
    for (variables, expected) in [
        (
            &[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("HOME", "/h")][..],
            "/var/lib/a",
        ),
        (&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")], "/s/offloader"),
        (
            &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")],
            "/h/.local/state/offloader",
        ),
        (&[("HOME", "/")], "data"),
        (&[], "data"),
    ] {
        assert_eq!(
            directory(variables).unwrap(),
            PathBuf::from(expected),
            "{variables:?}"
        );
    }
    let told = directory(&[("XDG_STATE_HOME", "/tmp/s")])
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("store.data_source: the state directory would be /tmp/s/offloader"),
        "{told}"
    );
    assert_eq!(
        good("store.data_source = \"/tmp/x\"", &[]).store.directory,
        PathBuf::from("/tmp/x")
    );
}

#[test]
fn grants_of_both_kinds_are_read() {
    let config = good(
        r#"
        [gate]
        registries = ["mattermost", "localhost:5000/mattermost"]
        [gate.recording]
        images = ["calls-recorder", "our-recorder"]
        digests = { "calls-recorder:v0.8.13" = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
        site_hosts = ["*.example.com"]
        networks = ["calls"]
        memory = "2GiB"
        cpus = 1.5
        pids = 100
        capabilities = ["CHOWN"]
        stop_grace = "1h"
        inputs = { MY_VAR = "^[a-z]+$" }
        chromium_args = []
        retry = { max_attempts = 2, max_delay = "5s", after_run = true }
        retention = { failed_at_least = "1h", at_most = "10d" }
        [gate.transcribing]
        require_digest = true
        delivered_when = "no-media-left"
        "#,
        &[("DOCKER_NETWORK", "host")],
    );
    let recording = config.grants.of(JobKind::Recording);
    assert_eq!(
        config.grants.registries,
        ["mattermost", "localhost:5000/mattermost"]
    );
    assert_eq!(
        config.grants.runner_rule,
        RunnerRule::Registry("mattermost".into())
    );
    assert!(recording.images.contains("our-recorder") && recording.digests.len() == 1);
    assert_eq!(
        (recording.memory_bytes, recording.nano_cpus, recording.pids),
        (2 << 30, 1_500_000_000, 100)
    );
    assert_eq!(
        (recording.networks.as_slice(), recording.site_hosts.len()),
        (&["calls".to_owned()][..], 1)
    );
    assert_eq!(recording.stop_grace, Duration::from_secs(3600));
    assert_eq!(
        (recording.retry.max_attempts, recording.retry.after_run),
        (2, true)
    );
    assert_eq!(recording.retention.at_most, Duration::from_secs(864_000));
    let transcribing = config.grants.of(JobKind::Transcribing);
    assert!(transcribing.require_digest);
    assert_eq!(transcribing.networks, ["host"]);
    assert_eq!(
        transcribing.delivered_when,
        domain::DeliveredWhen::NoMediaLeft
    );
}

#[test]
fn the_modes_switch_the_runner_rule_off() {
    let dev = good("", &[("DEV_MODE", "true")]);
    assert!(dev.modes.dev && dev.grants.dev_mode);
    assert_eq!(dev.grants.runner_rule, RunnerRule::Any);
    assert_eq!(dev.grants.recording.networks, ["host"]);
    let test = good("", &[("TEST_MODE", "true")]);
    assert!(test.modes.test && !test.grants.dev_mode);
    assert_eq!(test.grants.runner_rule, RunnerRule::Any);
}

#[test]
fn policies_are_read_in_their_order() {
    let config = good(
        r#"
        [policies]
        dir = "/etc/offloader/policies"
        trusted_keys = ["/etc/offloader/site.pub"]
        require_signature = true
        quarantine_after = 0
        watch = true
        selftest = true
        [[policies.policy]]
        name = "internal-site-url"
        component = "site_url_map.wasm"
        on_failure = "skip"
        mode = "monitor"
        optional = true
        settings = { recording = "http://mattermost.internal:8065", attempts = 3, map = { a = [1, true] } }
        signature = "signatures/site_url_map.minisig"
        grants = { inputs = ["CALL_ID"], env = ["SITE"], dirs = [{ path = "/srv/x", as = "/x", write = true }, { path = "/srv/y" }], real_clock = true, real_entropy = true }
        limits = { component_size = "1MiB", time = "20ms", memory = "8MiB" }
        [[policies.policy]]
        name = "retry"
        component = "retry_backoff.wasm"
        sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "#,
        &[],
    );
    let [granted, Policy { config: second, .. }] = &config.policies.policies[..] else {
        panic!("two policies")
    };
    let first = &granted.config;
    let section = &config.policies;
    assert_eq!(
        section.trusted_keys,
        [std::path::Path::new("/etc/offloader/site.pub")]
    );
    assert!(section.require_signature && section.watch && section.selftest);
    assert_eq!(section.quarantine_after, None);
    let default = good("", &[]).policies.quarantine_after;
    assert_eq!(default.map(std::num::NonZeroU32::get), Some(10));
    assert_eq!(
        first.signature.as_deref(),
        Some("signatures/site_url_map.minisig")
    );
    assert!(first.grants.real_clock && first.grants.real_entropy);
    assert!(!second.grants.real_clock && second.signature.is_none());
    assert_eq!(granted.env, ["SITE"]);
    let dir = |path: &str, guest_path: &str, write| GrantedDir {
        path: path.into(),
        guest_path: guest_path.to_owned(),
        write,
    };
    assert_eq!(
        granted.dirs,
        [dir("/srv/x", "/x", true), dir("/srv/y", "/srv/y", false)]
    );
    let shown = config.show();
    assert_eq!(load_with(&shown, &[]).unwrap().config.show(), shown);
    assert_eq!(config.policies.dir, Some("/etc/offloader/policies".into()));
    assert_eq!(
        (first.name.as_str(), first.component.as_str()),
        ("internal-site-url", "site_url_map.wasm")
    );
    assert_eq!(
        first.settings["recording"],
        "http://mattermost.internal:8065"
    );
    assert_eq!(
        (
            first.settings["attempts"].as_str(),
            first.settings["map"].as_str()
        ),
        ("3", r#"{"a":[1,true]}"#)
    );
    assert!(first.optional && first.grants.inputs.contains("call_id"));
    assert_eq!(
        (first.limits.time, first.limits.memory),
        (Duration::from_millis(20), 8 << 20)
    );
    assert_eq!(first.limits.component_size, 1 << 20);
    assert_eq!(second.sha256.as_deref(), Some("a".repeat(64).as_str()));
    assert_eq!(second.limits.time, policy_host::Limits::default().time);
}

#[test]
fn what_is_shown_means_the_same_again() {
    let text = format!(
        "{STANDARD}\n[gate.recording]\nmemory = \"3GiB\"\ncpus = 2\ninputs = {{ X = \"a\" }}\n"
    );
    let shown = good(&text, &[]).show();
    assert!(shown.contains("(not shown)"), "{shown}");
    let again = load_with(&shown, &[]).unwrap();
    assert_eq!(again.warnings, []);
    assert_eq!(again.config.show(), shown);
    assert_eq!(again.config.grants.recording.memory_bytes, 3 << 30);
}

/// The indented block of the documentation that begins with the line `first`.
fn documented(first: &str) -> String {
    let page = include_str!("../../../../docs/configuration.md");
    page.lines()
        .skip_while(|line| line.strip_prefix("    ") != Some(first))
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim()))
        .collect()
}

#[test]
fn the_documented_grants_are_the_default_ones() {
    let documented = documented("[gate]");
    assert!(documented.contains("[gate.recording]"), "{documented}");
    assert_eq!(good(&documented, &[]).show(), good("", &[]).show());
}

#[test]
fn the_documented_example_is_a_configuration() {
    let loaded = load_with(&documented("[api]"), &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.jobs.max_concurrent_jobs, 4);
    assert_eq!(
        loaded.config.store.directory,
        PathBuf::from("/var/lib/offloader")
    );
}

#[test]
fn the_example_is_a_configuration() {
    let loaded = load_with(include_str!("../../../../examples/config.toml"), &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.policies.policies.len(), 4);
}

#[test]
fn self_registration_can_be_limited() {
    let config = good(
        "[api.security]\nself_registration_networks = [\"10.0.0.0/8\", \"::1\"]\nself_registration_clients = 3",
        &[],
    );
    let networks = config.api.self_registration_networks.iter();
    let networks: Vec<_> = networks.map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(config.api.self_registration_clients.map(u32::from), Some(3));
    let config = good("api.security.self_registration_clients = 0", &[]);
    assert_eq!(config.api.self_registration_clients, None);
    assert_eq!(
        problems(
            "api.security.self_registration_networks = [\"10.0.0.0/33\"]",
            &[]
        ),
        [
            "c.toml:1: api.security.self_registration_networks: expected networks such as \"10.0.0.0/8\", found \"10.0.0.0/33\""
        ]
    );
}

#[test]
fn metrics_are_on_and_have_no_address_of_their_own_unless_asked_for() {
    let metrics = good("", &[]).metrics;
    assert!(metrics.enable && metrics.listen.is_none());
    let metrics = good("[metrics]\nenable = false\nlisten_address = \":9100\"", &[]).metrics;
    assert!(!metrics.enable);
    assert_eq!(metrics.listen.unwrap().to_string(), ":9100");
    assert_eq!(
        problems(
            "[metrics]\nlisten_adress = \"\"\nlisten_address = \"9100\"",
            &[]
        ),
        [
            "c.toml:2: metrics.listen_adress: unknown key, did you mean listen_address?",
            "c.toml:3: metrics.listen_address: expected HOST:PORT, :PORT or nothing, found \"9100\""
        ]
    );
}

#[test]
fn the_embedded_runner_has_limits_of_its_own() {
    let text = "[jobs]\napi_type = \"wasi\"\n[jobs.wasi]\ncomponents = \"/c\"\noutput_max = \"1MiB\"\n\
                threads = 3\nimages = { \"a/b:1\" = \"b.wasm\" }\n";
    let wasi = good(text, &[]).jobs.wasi.unwrap();
    assert_eq!(wasi.components, std::path::Path::new("/c"));
    assert_eq!(wasi.images["a/b:1"], "b.wasm");
    assert_eq!((wasi.output_max_bytes, wasi.threads), (1 << 20, Some(3)));
    assert_eq!(wasi.data_max_bytes, 8 << 30);
    assert_eq!(wasi.shutdown_timeout, Duration::from_secs(10));
    let text = text.replace("threads = 3", "shutdown_timeout = \"1m\"");
    let wasi = good(&text, &[]).jobs.wasi.unwrap();
    assert_eq!(wasi.shutdown_timeout, Duration::from_secs(60));
    assert!(good("", &[]).jobs.wasi.is_none());
}
