//! The real binary: starting, answering, ending, and every way not to start.
#![allow(
    clippy::disallowed_methods,
    reason = "tests reach the machine by themselves"
)]

mod support;

use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use support::{Site, make_certificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PLAIN: &str = r#"
api.http.listen_address = "127.0.0.1:0"
api.security.allow_self_registration = true
api.security.enable_admin = true
api.security.admin_secret_key = "a very secret secret"
store.data_source = "DIR/state"
"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_serves_and_ends_when_told_to() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let version = daemon.get("/version");
    assert!(version.starts_with("HTTP/1.1 200 OK\r\n"), "{version}");
    assert!(version.contains(r#""buildVersion":"v0.9."#), "{version}");
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("ending; jobs in containers go on running") && log.contains(" ended"),
        "{log}"
    );
}

#[test]
fn without_a_container_engine_it_serves_and_says_so() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let degraded = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        daemon.get("/healthz").contains(r#""status":"degraded""#)
    });
    assert!(degraded, "{}", daemon.get("/healthz"));
    let body = r#"{"type":"recording","runner":"mattermost/calls-recorder:v0.8.13","max_duration_sec":60,"input_data":{"site_url":"https://a.example","auth_token":"tttttttttttttttttttttttttt"}}"#;
    let key = STANDARD.encode("site:0123456789abcdef0123456789abcdef");
    let answer = daemon.ask(&format!(
        "POST /jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    assert!(
        answer.contains("failed to create recording job: the container engine cannot be reached"),
        "{answer}"
    );
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0));
    for secret in [
        "tttttttttttttttttttttttttt",
        "0123456789abcdef",
        "a very secret secret",
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_before_anything_is_started() {
    let site = Site::new(&format!(
        "{PLAIN}jobs.max_concurrent_jobs = 0\nlogger.console_level = 1\n"
    ));
    for command in ["serve", "check-config"] {
        let output = site.run(&[command]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = text(&output.stderr);
        assert!(
            told.contains("config.toml:7: jobs.max_concurrent_jobs: "),
            "{told}"
        );
        assert!(
            told.contains("config.toml:8: logger.console_level: "),
            "{told}"
        );
        assert!(!site.path("state").exists());
    }
}

#[test]
fn a_good_configuration_is_shown_without_its_secrets() {
    let output = Site::new(PLAIN).run(&["check-config"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("listen_address = \"127.0.0.1:0\""),
        "{shown}"
    );
    assert!(!shown.contains("a very secret secret"), "{shown}");
}

/// What it says when it cannot start.
fn not_started(site: &Site) -> String {
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    text(&output.stderr)
}

#[test]
fn a_taken_port_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = not_started(&Site::new(&PLAIN.replace("127.0.0.1:0", &address)));
    assert!(
        told.contains(&format!("cannot listen on {address}: another program does")),
        "{told}"
    );
}

#[test]
fn a_state_directory_that_cannot_be_used_is_told() {
    let site = Site::new(&PLAIN.replace("DIR/state", "DIR/file/state"));
    fs::write(site.path("file"), "").unwrap();
    let told = not_started(&site);
    assert!(
        told.contains("cannot use the state directory ") && told.contains("/file/state"),
        "{told}"
    );
}

#[test]
fn a_store_in_use_is_told() {
    let site = Site::new(PLAIN);
    let _daemon = site.serve();
    let told = not_started(&site);
    assert!(told.contains("offloader.db"), "{told}");
}

#[test]
fn a_policy_that_is_not_there_is_told() {
    let policy = "[policies]\ndir = \"DIR\"\n[[policies.policy]]\nname = \"mine\"\ncomponent = \"mine.wasm\"\n";
    let told = not_started(&Site::new(&format!("{PLAIN}{policy}")));
    assert!(told.contains("policy \"mine\": "), "{told}");
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    let site = Site::new(&format!(
        "{PLAIN}api.http.tls = {{ enable = true, cert_file = \"DIR/c\", cert_key = \"DIR/k\" }}\n"
    ));
    assert!(not_started(&site).contains("cannot read the certificate "));
    fs::write(site.path("c"), "not a certificate").unwrap();
    assert!(not_started(&site).contains("there is no certificate in "));
    make_certificate(&site.path("c"), &site.path("other key"));
    assert!(not_started(&site).contains("cannot read the private key "));
    fs::write(site.path("k"), "not a key").unwrap();
    assert!(not_started(&site).contains("there is no private key "));
    make_certificate(&site.path("other certificate"), &site.path("k"));
    assert!(not_started(&site).contains("do not belong together"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_from_1_2_on() {
    let site = Site::new(&format!(
        "{PLAIN}api.http.tls = {{ enable = true, cert_file = \"DIR/c\", cert_key = \"DIR/k\" }}\n"
    ));
    make_certificate(&site.path("c"), &site.path("k"));
    let daemon = site.serve();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(site.path("c")).unwrap())
        .unwrap();
    let roots = Arc::new(roots);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let answer = ask_by_tls(daemon.address, Arc::clone(&roots), version).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert!(!daemon.get_or_nothing("/version").contains("200 OK"));
}

async fn ask_by_tls(
    address: std::net::SocketAddr,
    roots: Arc<RootCertStore>,
    version: &'static SupportedProtocolVersion,
) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap();
    stream
        .write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // Not every server says goodbye before it closes.
    let _ = stream.read_to_end(&mut answer).await;
    text(&answer)
}

#[test]
fn log_lines_go_where_they_are_sent() {
    let log = "[logger]\nenable_file = true\nfile_location = \"DIR/log\"\nconsole_json = true\n";
    let site = Site::new(&format!("{PLAIN}{log}"));
    let output = site.run(&["check-config"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // With JSON on the console the address is found elsewhere: in the file.
    let mut child = site
        .command(&[])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let listening = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::read_to_string(site.path("log")).is_ok_and(|log| log.contains("listening"))
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(listening);
    // What was queued is written down before the end.
    let log = fs::read_to_string(site.path("log")).unwrap();
    let ended = log
        .lines()
        .find(|line| line.contains("\"message\":\"ended\""));
    assert!(
        ended.is_some_and(|line| line.contains("\"level\":\"INFO\"")),
        "{log}"
    );
}
