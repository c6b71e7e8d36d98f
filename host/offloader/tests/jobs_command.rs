//! `offloader jobs` against a service that runs, without a container engine: who may ask, and how
//! each failure is told.
#![allow(
    clippy::disallowed_methods,
    reason = "tests reach the machine by themselves"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use support::{Daemon, Site, make_certificate};

const PLAIN: &str = r#"
api.http.listen_address = "127.0.0.1:0"
api.security.allow_self_registration = true
api.security.enable_admin = true
api.security.admin_secret_key = "a very secret secret"
store.data_source = "DIR/state"
"#;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Runs `offloader jobs …` with this of the environment.
fn jobs(url: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    jobs_in(Path::new("."), url, environment, arguments)
}

/// The same in a directory.
fn jobs_in(dir: &Path, url: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offloader"));
    command.current_dir(dir);
    command.env_clear().envs(environment.iter().copied());
    command.args(["jobs", "--url", url]).args(arguments);
    command.output().unwrap()
}

fn url(daemon: &Daemon) -> String {
    format!("http://{}", daemon.address)
}

/// What it printed, as it ended with that code.
#[track_caller]
fn told(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let stream = if code == 0 {
        &output.stdout
    } else {
        &output.stderr
    };
    String::from_utf8(stream.clone()).unwrap()
}

const ADMIN: (&str, &str) = ("OFFLOADER_ADMIN_SECRET", "a very secret secret");

#[test]
fn the_administrator_and_clients_list_jobs_with_credentials_from_files_or_the_environment() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let url = url(&daemon);
    let (secret, key) = (site.path("secret"), site.path("key"));
    fs::write(&secret, "a very secret secret\n").unwrap();
    fs::write(&key, KEY).unwrap();
    let (secret, key) = (secret.to_str().unwrap(), key.to_str().unwrap());
    let by_file = ["list", "--admin-secret-file", secret];
    let as_client = ["list", "--client", "site", "--key-file", key];
    let client_by_environment = [("OFFLOADER_CLIENT", "site"), ("OFFLOADER_KEY", KEY)];
    for output in [
        jobs(&url, &[ADMIN], &["list"]),
        jobs(&url, &[], &by_file),
        jobs(&url, &[], &as_client),
        jobs(&url, &client_by_environment, &["list"]),
    ] {
        let table = told(&output, 0);
        assert!(table.starts_with("ID  TYPE  STATE"), "{table}");
    }
    let json = told(&jobs(&url, &[ADMIN], &["list", "--json"]), 0);
    assert_eq!(json, "[]\n");
}

#[test]
fn each_failure_has_its_exit_code_and_no_secret_in_its_words() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let url = url(&daemon);
    let id = "abcdefghijklmnopqrstuvwxyz";
    let wrong = ("OFFLOADER_ADMIN_SECRET", "another secret");
    let client = [("OFFLOADER_CLIENT", "site"), ("OFFLOADER_KEY", KEY)];
    let closed = "http://127.0.0.1:1";
    // By that it is registered.
    told(&jobs(&url, &client, &["list"]), 0);
    for (output, code, words) in [
        (jobs(&url, &[ADMIN], &["show", id]), 4, "not found"),
        (jobs(&url, &[ADMIN], &["logs", "-f", id]), 4, "not found"),
        (
            jobs(&url, &[ADMIN], &["delete", "--force", id]),
            4,
            "not found",
        ),
        (
            jobs(&url, &client, &["stop", id]),
            1,
            "only the administrator",
        ),
        (jobs(&url, &[ADMIN], &["resend", id]), 4, "not found"),
        (
            jobs(&url, &client, &["resend", "--follow", id]),
            1,
            "only the administrator",
        ),
        (
            jobs(&url, &[wrong], &["list"]),
            1,
            "authentication failed: unauthorized",
        ),
        (
            jobs(&url, &[ADMIN], &["list", "--state", "asleep"]),
            1,
            "invalid state",
        ),
        (jobs(closed, &[ADMIN], &["list"]), 3, "127.0.0.1:1"),
        (jobs(&url, &[], &["list"]), 2, "set OFFLOADER_ADMIN_SECRET"),
        (
            jobs("gopher://localhost", &[ADMIN], &["list"]),
            2,
            "expected http://… or https://…",
        ),
        (
            jobs(&url, &[ADMIN], &["fetch", id, "-o", "/no/such/dir/a.tar"]),
            4,
            "not found",
        ),
        (
            jobs(&url, &client, &["fetch", id, "-o", "-"]),
            1,
            "only the administrator",
        ),
        (jobs(&url, &[client[0]], &["list"]), 2, "set OFFLOADER_KEY"),
        (
            jobs(&url, &[], &["list", "--admin-secret-file", "/no/such"]),
            2,
            "/no/such",
        ),
        (
            jobs(&url, &[ADMIN], &["show", "../healthz"]),
            2,
            "26 characters",
        ),
    ] {
        let text = told(&output, code);
        assert!(text.contains(words), "{words}: {text}");
        assert!(
            !text.contains("secret secret") && !text.contains(KEY),
            "{text}"
        );
    }
}

/// A service that answers each call with these bytes and hangs up; gives its URL.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
        }
    });
    url
}

const ID: &str = "abcdefghijklmnopqrstuvwxyz";
const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       5\r\nsome \r\n5\r\nfiles\r\n0\r\n\r\n";
const BROKEN: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsome \r\n";

#[test]
fn fetched_files_replace_nothing_unless_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let url = answering(WHOLE);
    let fetch = |arguments: &[&str]| {
        let arguments = [&["fetch", ID], arguments].concat();
        jobs_in(dir.path(), &url, &[ADMIN], &arguments)
    };
    let file = dir.path().join(format!("{ID}.tar"));
    assert_eq!(told(&fetch(&[]), 0), format!("{ID}.tar: 10 B\n"));
    assert_eq!(fs::read(&file).unwrap(), b"some files");
    fs::write(&file, "mine").unwrap();
    let refused = told(&fetch(&[]), 2);
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    told(&fetch(&["--force"]), 0);
    assert_eq!(fs::read(&file).unwrap(), b"some files");
    let json = told(&fetch(&["-o", "other.tar", "--json"]), 0);
    assert!(
        json.contains("\"file\": \"other.tar\"") && json.contains("\"bytes\": 10"),
        "{json}"
    );
    let to_stdout = fetch(&["-o", "-"]);
    assert_eq!(told(&to_stdout, 0), "some files");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn files_that_break_off_are_not_taken_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let url = answering(BROKEN);
    let output = jobs_in(dir.path(), &url, &[ADMIN], &["fetch", ID]);
    let said = told(&output, 3);
    let partial = format!("{ID}.tar.partial");
    assert!(
        said.contains(&partial) && said.contains("not all"),
        "{said}"
    );
    let found: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(fs::read(dir.path().join(partial)).unwrap(), b"some ");
    let again = jobs_in(dir.path(), &url, &[ADMIN], &["fetch", ID]);
    assert!(told(&again, 2).contains("--force"));
    told(&jobs(&url, &[ADMIN], &["fetch", ID, "-o", "-"]), 3);
}

#[test]
fn a_service_with_tls_is_asked_once_it_is_known_whom_to_trust() {
    let site = Site::new("");
    let [certificate, key, other] =
        ["cert.pem", "key.pem", "other.pem"].map(|name| site.path(name));
    make_certificate(&other, &key);
    make_certificate(&certificate, &key);
    site.configure(&format!(
        r#"{PLAIN}
api.http.tls.enable = true
api.http.tls.cert_file = "DIR/cert.pem"
api.http.tls.cert_key = "DIR/key.pem"
"#
    ));
    let daemon = site.serve();
    let url = format!("https://localhost:{}", daemon.address.port());
    let trusting = |file: &Path, url: &str| {
        let file = file.to_str().unwrap();
        jobs(url, &[ADMIN], &["list", "--ca-file", file])
    };
    let table = told(&trusting(&certificate, &url), 0);
    assert!(table.starts_with("ID  TYPE  STATE"), "{table}");
    let distrusted = told(&trusting(&other, &url), 3);
    assert!(distrusted.contains("certificate"), "{distrusted}");
    let other_name = url.replace("localhost", "127.0.0.1");
    let mistaken = told(&trusting(&certificate, &other_name), 3);
    assert!(mistaken.contains("certificate"), "{mistaken}");
    let no_authority = told(&trusting(&key, &url), 2);
    assert!(no_authority.contains("no certificate"), "{no_authority}");
    // Whatever this machine trusts, it is not this one.
    let unknown = jobs(&url, &[ADMIN], &["list"]);
    assert!(matches!(unknown.status.code(), Some(2 | 3)), "{unknown:?}");
    let plain = trusting(&certificate, &url.replace("https", "http"));
    assert!(told(&plain, 2).contains("--ca-file is for https"));
}
