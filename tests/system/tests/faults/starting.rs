//! Starts that fail, are doubled, given up or late, and images that do not come.

use std::time::{Duration, Instant};

use offloader_system_tests::{KEY, Registry};
use serde_json::{Value, json};
use site::Answer;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::{CLIENT, WORKS_ON, World, wait_for, work_id};

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_and_frees_its_slot() {
    let test = "a_start_that_fails_leaves_nothing_and_frees_its_slot";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.slots(1).begin().await;
    let missing = world.engine.image_without_program("calls-recorder:v1.0.2");
    let mut body = world.recording("rec");
    body["runner"] = json!(missing);
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert_eq!(answer.status, 502, "{answer:?}");
    let job = world.newest().await;
    assert_eq!(
        (&job["reason"], &job["state"]),
        (&json!("start-failed"), &json!("removed")),
        "{job:#}"
    );
    assert!(world.labelled().is_empty(), "{:?}", world.labelled());
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn an_end_within_milliseconds_is_recorded_and_cleaned_up_once() {
    let test = "an_end_within_milliseconds_is_recorded_and_cleaned_up_once";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.slots(1).script("exit 0").begin().await;
    for number in 0..5 {
        let id = world.start_job(&format!("rec{number}")).await;
        let job = world.until_removed(&id).await;
        assert_eq!(
            (&job["reason"], &job["outcome"]),
            (&json!("completed"), &json!("succeeded")),
            "{job:#}"
        );
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
        let ended = "from=\"running\"";
        let told = world.daemon().log();
        let told = told
            .lines()
            .filter(|line| line.contains(&id) && line.contains(ended));
        assert_eq!(told.count(), 1, "{}", world.daemon().log());
    }
    let agreement = world.agrees().await;
    assert_eq!((agreement.starts, agreement.volumes), (5, 0));
}

#[tokio::test]
async fn of_fifty_submissions_at_once_two_run_and_the_rest_is_refused() {
    let test = "of_fifty_submissions_at_once_two_run_and_the_rest_is_refused";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.begin().await;
    // A key that was verified once needs no slow hash, of which few are worked on at a time.
    let client = world.daemon().client(CLIENT, KEY);
    assert_eq!(client.list().await.expect("an answer").status, 200);
    let mut posts = JoinSet::new();
    for number in 0..50 {
        let client = world.daemon().client(CLIENT, KEY);
        let body = world.recording(&format!("rec{number}x"));
        posts.spawn(async move { (client.post(&body).await.expect("an answer"), body) });
    }
    let answers = posts.join_all().await;
    for (answer, body) in &answers {
        world.note(body, Some(answer));
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{answer:?}");
            let text = "failed to create recording job: max concurrent jobs reached";
            assert_eq!(answer.text(), text);
        }
    }
    let run = answers.iter().filter(|(answer, _)| answer.status == 200);
    assert_eq!(run.count(), 2);
    let agreement = world.agrees_after_crashes(2).await;
    assert_eq!((agreement.running, agreement.starts), (2, 2));
}

/// Submits with an `Idempotency-Key`.
async fn post_with_key(world: &World, body: &Value, key: &str) -> Answer {
    let request = reqwest::Client::new()
        .post(format!("{}/jobs", world.daemon().url()))
        .basic_auth(CLIENT, Some(KEY))
        .header("Idempotency-Key", key)
        .json(body);
    let answer = request.send().await.expect("the daemon answers");
    Answer {
        status: answer.status().as_u16(),
        body: answer.text().await.expect("a body"),
    }
}

#[tokio::test]
async fn the_same_work_twice_at_once_and_again_after_it_ran_is_one_job() {
    let test = "the_same_work_twice_at_once_and_again_after_it_ran_is_one_job";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.begin().await;
    let by_work = world.recording("rec");
    let mut by_key = world.recording("rec");
    by_key["input_data"]
        .as_object_mut()
        .expect("inputs are an object")
        .remove("recording_id");
    let client = world.daemon().client(CLIENT, KEY);
    let (a, b) = tokio::join!(client.post(&by_work), client.post(&by_work));
    let work = one_job(&[a.expect("an answer"), b.expect("an answer")]);
    let (a, b) = tokio::join!(
        post_with_key(&world, &by_key, "once"),
        post_with_key(&world, &by_key, "once")
    );
    let key = one_job(&[a, b]);
    assert_ne!(work, key);
    assert_eq!(world.agrees().await.starts, 2);
    for id in [&work, &key] {
        world.ask_to_end(id);
        world.until_removed(id).await;
    }
    // Also after a restart, for 24 hours.
    world.crash();
    world.recover(0).await;
    let again = world.submit(&by_work).await.expect("the daemon answers");
    assert_eq!(one_job(&[again]), work);
    assert_eq!(
        one_job(&[post_with_key(&world, &by_key, "once").await]),
        key
    );
    assert_eq!(world.agrees().await.starts, 2, "it was run again");
}

#[track_caller]
fn one_job(answers: &[Answer]) -> String {
    let id = answers[0].job_id();
    for answer in answers {
        assert_eq!((answer.status, &answer.job_id()), (200, &id), "{answer:?}");
    }
    id.expect("a job has an id")
}

/// A world whose images come from a registry.
struct Pulling {
    world: World,
    registry: Registry,
    _dir: TempDir,
}

impl Pulling {
    async fn begin(test: &str, change: impl FnOnce(Plan) -> Plan) -> Option<Self> {
        let plan = Plan::shared(test)?;
        let dir = tempfile::tempdir().expect("a directory can be made");
        let registry = Registry::start(dir.path(), [])
            .await
            .expect("a registry starts");
        let team = registry.reference("team");
        let plan = plan.slots(1).env("JOBS_IMAGEREGISTRY", &team);
        let mut world = change(plan).begin().await;
        let local = world.engine.image("calls-recorder:v1.0.3", WORKS_ON);
        let name = "team/calls-recorder:v1.0.3";
        let pushed = registry.push(world.engine.host(), &local, name).await;
        pushed.expect("an image can be pushed");
        // Else the engine would only have to find a name for what it has.
        world.engine.docker(&["image", "rm", "--force", &local]);
        world.image = registry.reference(name);
        Some(Self {
            world,
            registry,
            _dir: dir,
        })
    }

    fn present(&self) -> bool {
        let image = ["image", "inspect", &self.world.image];
        self.world.engine.try_docker(&image).is_ok()
    }

    /// Ends the scenario: nothing of the submission may ever start, even when its image comes.
    async fn nothing_starts_when_the_image_comes(&mut self) {
        self.registry.thaw();
        let image = self.world.image.clone();
        let engine = &self.world.engine;
        wait_for("the pull goes on and its image arrives", || {
            engine.try_docker(&["image", "inspect", &image]).is_ok()
        })
        .await;
        sleep(Duration::from_secs(2)).await;
        assert!(self.world.labelled().is_empty());
        assert_eq!(self.world.oracle.starts(), 0, "a ghost");
        // The next press finds the image.
        self.world.agrees_after_crashes(0).await;
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        let image = ["image", "rm", "--force", &self.world.image];
        let _ = self.world.engine.try_docker(&image);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_a_slow_pull_takes_its_job_with_it() {
    let test = "a_client_that_hangs_up_in_a_slow_pull_takes_its_job_with_it";
    let Some(mut pulling) = Pulling::begin(test, |plan| plan).await else {
        return;
    };
    pulling.registry.freeze();
    let world = &mut pulling.world;
    let body = world.recording("rec");
    let hung_up = tokio::time::timeout(Duration::from_secs(1), world.submit(&body)).await;
    assert!(hung_up.is_err(), "answered without an image: {hung_up:?}");
    world.note(&body, None);
    let id = world.newest().await["id"].clone();
    let job = world
        .until_removed(id.as_str().expect("there is a job"))
        .await;
    assert_eq!(job["reason"], "interrupted", "{job:#}");
    pulling.nothing_starts_when_the_image_comes().await;
}

#[tokio::test]
async fn a_pull_that_outlasts_the_time_to_start_is_answered_in_time() {
    let test = "a_pull_that_outlasts_the_time_to_start_is_answered_in_time";
    let short = |plan: Plan| plan.config("jobs.start_timeout = \"12s\"");
    let Some(mut pulling) = Pulling::begin(test, short).await else {
        return;
    };
    pulling.registry.freeze();
    let world = &mut pulling.world;
    let body = world.recording("rec");
    let asked = Instant::now();
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(12), "answered late");
    assert!(
        answer.text().contains("not running within 12 seconds"),
        "{answer:?}"
    );
    let job = world.newest().await;
    assert_eq!(job["reason"], "start-timeout", "{job:#}");
    pulling.nothing_starts_when_the_image_comes().await;
}

/// The stock retry policy, in a hurry.
const RETRIES: &str = "{ first_delay = \"500ms\", max_delay = \"500ms\" }";

#[tokio::test]
async fn a_registry_that_is_down_is_tried_again_until_it_is_up() {
    let test = "a_registry_that_is_down_is_tried_again_until_it_is_up";
    let retries = |plan: Plan| plan.policy("retry_backoff.wasm", RETRIES);
    let Some(mut pulling) = Pulling::begin(test, retries).await else {
        return;
    };
    pulling.registry.stop();
    let body = pulling.world.recording("rec");
    let client = pulling.world.daemon().client(CLIENT, KEY);
    let (answer, up) = tokio::join!(client.post(&body), async {
        // Until the first attempt has failed.
        loop {
            let job = pulling.world.newest().await;
            if job["attempts"][0]["reason"].is_string() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        pulling.registry.resume().await
    });
    up.expect("the registry comes back");
    let answer = answer.expect("the daemon answers");
    pulling.world.note(&body, Some(&answer));
    let id = one_job(&[answer]);
    let job = pulling.world.job(&id).await;
    let attempts = job["attempts"].as_array().expect("attempts").clone();
    assert!(attempts.len() > 1, "{job:#}");
    assert_eq!(attempts[0]["reason"], "image-unreachable", "{job:#}");
    let agreement = pulling.world.agrees_after_crashes(1).await;
    assert_eq!((agreement.running, agreement.starts), (1, 1));
}

#[tokio::test]
async fn images_that_nobody_will_ever_give_fail_at_once() {
    let test = "images_that_nobody_will_ever_give_fail_at_once";
    let retries = |plan: Plan| plan.policy("retry_backoff.wasm", RETRIES);
    let Some(mut pulling) = Pulling::begin(test, retries).await else {
        return;
    };
    let missing = pulling.world.image.replace("v1.0.3", "v1.0.4");
    fails_at_once(&mut pulling, "missing", &missing, "image-not-found").await;
    let locked = pulling.registry.resume_locked().await;
    locked.expect("the registry comes back");
    let image = pulling.world.image.clone();
    fails_at_once(&mut pulling, "locked", &image, "image-unauthorized").await;
    pulling
        .registry
        .resume()
        .await
        .expect("the registry comes back");
    pulling.world.agrees_after_crashes(0).await;
}

async fn fails_at_once(pulling: &mut Pulling, id: &str, image: &str, reason: &str) {
    let mut body = pulling.world.recording(id);
    body["runner"] = json!(image);
    let answer = pulling.world.submit(&body).await;
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status, 502, "{answer:?}");
    let job = pulling.world.newest().await;
    assert_eq!(job["input_data"]["recording_id"], work_id(id));
    assert_eq!(job["reason"], reason, "{job:#}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    assert!(!pulling.present());
}

#[tokio::test]
async fn a_pull_without_progress_has_stalled() {
    let test = "a_pull_without_progress_has_stalled";
    let impatient = |plan: Plan| plan.config("jobs.pull_stall_timeout = \"1s\"");
    let Some(mut pulling) = Pulling::begin(test, impatient).await else {
        return;
    };
    pulling.registry.freeze();
    let body = pulling.world.recording("rec");
    let answer = pulling.world.submit(&body).await;
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status, 502, "{answer:?}");
    let job = pulling.world.newest().await;
    assert_eq!(job["reason"], "image-stalled", "{job:#}");
    pulling.registry.thaw();
    pulling.world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn an_image_of_another_digest_is_refused_before_it_is_created() {
    let test = "an_image_of_another_digest_is_refused_before_it_is_created";
    let digest = "0".repeat(64);
    let pinned = |plan: Plan| {
        plan.config(&format!(
            "[gate.recording]\ndigests = {{ \"calls-recorder:v1.0.3\" = \"sha256:{digest}\" }}"
        ))
    };
    let Some(mut pulling) = Pulling::begin(test, pinned).await else {
        return;
    };
    let body = pulling.world.recording("rec");
    let answer = pulling.world.submit(&body).await;
    let answer = answer.expect("the daemon answers");
    assert!((400..600).contains(&answer.status), "{answer:?}");
    assert!(pulling.world.labelled().is_empty());
    assert_eq!(pulling.world.oracle.starts(), 0);
    pulling.world.agrees().await;
}
