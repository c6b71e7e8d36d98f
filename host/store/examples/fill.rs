//! Fills a store with jobs that are over, for `cargo xtask bench`: a service would need minutes.
//!
//! `fill FILE JOBS STATE`, where STATE is `removed` or `retained`. The store may hold jobs already, of
//! which none may come from here.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::{
    Attempt, ClientId, Decision, DecisionOutcome, Delivery, End, EndReason, Hook, InputValue, Job,
    JobKind, Outcome, RegistrationId, State, Timestamp,
};
use engine::{Accepted, JobKey, NewJob, Slots, Store as _};
use offloader_store::{SqliteStore, StoreConfig};

/// Saved at once, so that many share a sync.
const LANES: u32 = 250;
const IMAGE: &str = "mattermost/calls-recorder:v0.8.13";
const SITE: &str = "https://mattermost.example.com";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone, Copy)]
struct Kind {
    now: Timestamp,
    retained: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("FILE JOBS STATE are needed");
    let (path, jobs, state) = (next()?.into(), next()?.parse::<u32>()?, next()?);
    let kind = Kind {
        now: now()?,
        retained: match state.as_str() {
            "removed" => false,
            "retained" => true,
            _ => return Err("STATE should be removed or retained".into()),
        },
    };
    let store = Arc::new(SqliteStore::open(StoreConfig { path })?);
    let lanes = (0..LANES).map(|lane| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in (lane..jobs).step_by(LANES as usize) {
                save(&store, number, kind).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await??;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "jobs that are too old would be forgotten"
)]
fn now() -> Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Timestamp::from_millis(i64::try_from(since.as_millis())?))
}

/// Saves a job as it was accepted, and then as it is over.
async fn save(store: &SqliteStore, number: u32, kind: Kind) -> Result<()> {
    let job = accepted(number, kind.now)?;
    let new = NewJob {
        job: Arc::new(job.clone()),
        decisions: vec![
            decision(kind.now, Hook::ImageSelection, "use", Some(IMAGE)),
            decision(kind.now, Hook::SiteUrl, "use", Some("http://10.0.0.5:8065")),
        ],
        keys: vec![JobKey {
            owner: job.owner,
            digest: format!("{number:064}"),
        }],
        body_sha256: "0".repeat(64),
        slots: Slots::default(),
    };
    if store.accept(new).await? != Accepted::New {
        return Err("the store does not take the job".into());
    }
    let retention = match kind.retained {
        true => decision(kind.now, Hook::Retention, "keep", None),
        false => decision(kind.now, Hook::Retention, "delete", None),
    };
    store
        .commit(Arc::new(over(job, kind)), vec![retention])
        .await?;
    Ok(())
}

fn accepted(number: u32, now: Timestamp) -> Result<Job> {
    let text = |text: &str| InputValue::Text(text.to_owned());
    let id = |kind: &str| InputValue::Text(format!("{kind:x<20}{number:06}"));
    let (call, post, recording) = (id("call"), id("post"), id("recording"));
    let number_of = |number: u32| InputValue::Json(number.to_string());
    let inputs = [
        ("site_url", text(SITE)),
        ("call_id", call),
        ("post_id", post),
        ("recording_id", recording),
        ("output_format", text("mp4")),
        ("width", number_of(1280)),
        ("height", number_of(720)),
        ("video_rate", number_of(1500)),
        ("audio_rate", number_of(64)),
        ("frame_rate", number_of(15)),
        ("video_preset", text("fast")),
    ];
    Ok(Job {
        id: format!("{number:026}").parse().map_err(|_| "no id")?,
        owner: RegistrationId(i64::from(number % 2) + 1),
        client: ClientId::new("the-site").ok_or("no client")?,
        kind: JobKind::Recording,
        image_asked: IMAGE.to_owned(),
        site_url_asked: SITE.to_owned(),
        site_url: Some(SITE.parse().map_err(|_| "no URL")?),
        max_duration: Duration::from_secs(3600),
        inputs: inputs.map(|(name, value)| (name.to_owned(), value)).into(),
        submitted_at: now,
        start_by: now.plus(Duration::from_secs(100)),
        resends: None,
        attempts: vec![Attempt::new(1, IMAGE.parse().map_err(|_| "no image")?, now)],
        state: State::Preparing,
    })
}

fn over(job: Job, kind: Kind) -> Job {
    let at = kind.now;
    let (reason, outcome, delivery) = match kind.retained {
        true => (EndReason::Exited(1), Outcome::Failed, Delivery::Unknown),
        false => (
            EndReason::Completed,
            Outcome::Succeeded,
            Delivery::Delivered,
        ),
    };
    let end = End {
        at,
        reason,
        outcome,
        delivery,
    };
    let mut job = Job {
        state: match kind.retained {
            true => State::Retained { end, until: None },
            false => State::Removed { end },
        },
        ..job
    };
    let attempt = &mut job.attempts[0];
    attempt.image_id = format!("sha256:{}", "a".repeat(64)).parse().ok();
    attempt.running_at = Some(at);
    attempt.ended_at = Some(at);
    attempt.reason = Some(reason);
    job
}

fn decision(at: Timestamp, hook: Hook, verdict: &str, value: Option<&str>) -> Decision {
    Decision {
        at,
        hook,
        attempt: Some(1),
        policy: "local-images".to_owned(),
        component_sha256: "a".repeat(64),
        settings_sha256: "b".repeat(64),
        read: vec!["image".to_owned(), "kind".to_owned()],
        outcome: DecisionOutcome::Answered,
        enforced: true,
        verdict: verdict.to_owned(),
        value: value.map(str::to_owned),
        reason: None,
        micros: 12,
    }
}
