//! What a policy prints. Alone in its program: a log of one's own and other threads do not mix.

#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use support::acts::Act;
use support::*;

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_is_logged_with_the_policys_name_and_cut() {
    let mut config = misbehaving();
    config.limits.log = 20;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let host = Policies::new(&[MISBEHAVE]).load(vec![config]).unwrap();
    let facts = acting(Act::Chatter);
    let ruling = tracing::subscriber::with_default(subscriber, || host.decide_retry(&facts));
    assert_eq!(ruling.decisions[0].reason.as_deref(), Some("said a lot"));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (line, shown) in [
        ("line 0 policy=\"misbehave\" stream=\"stderr\"", true),
        ("line 1 policy=", true),
        ("line 3 policy=", false),
        ("done policy=\"misbehave\" stream=\"stdout\"", true),
        (
            "a policy wrote more than is logged policy=\"misbehave\" stream=\"stderr\" bytes=1088870",
            true,
        ),
    ] {
        assert_eq!(log.contains(line), shown, "{line}: {log}");
    }
}
