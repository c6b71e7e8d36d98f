//! Containers and volumes with our labels that no job looks after.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::{World, wait_for};

/// Longer than a start takes.
const GRACE: &str = "10s";
const GRACE_SECONDS: u64 = 10;

/// A container that never ran, with its volume, made by hand as if the engine had been late with it.
fn make_by_hand(world: &World, instance: &str, job: &str, attempt: u32) -> String {
    let name = format!("offloader-{instance}-{job}-{attempt}");
    let volume = format!("{name}-data");
    let labels = [
        "app=mattermost-calls-offloader".to_owned(),
        format!("io.offloader.instance={instance}"),
        format!("io.offloader.job={job}"),
        format!("io.offloader.attempt={attempt}"),
    ];
    let labels: Vec<&str> = labels
        .iter()
        .flat_map(|l| ["--label", l.as_str()])
        .collect();
    let create_volume = [&["volume", "create"][..], &labels, &[&volume]].concat();
    world.engine.docker(&create_volume);
    let mount = format!("{volume}:/data");
    let own = ["--name", &name, "--volume", &mount, &world.image];
    world
        .engine
        .docker(&[&["create"][..], &labels, &own].concat());
    name
}

fn is_there(world: &World, name: &str) -> bool {
    world.engine.try_docker(&["inspect", name]).is_ok()
}

/// The line of the log that has both of these.
fn line(world: &World, what: &str, name: &str) -> Option<String> {
    let log = world.daemon().log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains(what) && line.contains(&format!("={name} ")));
    line.map(str::to_owned)
}

/// A world with a job that is over and cleared.
async fn one_job_removed(plan: Plan) -> (World, String) {
    let mut world = plan.begin().await;
    let id = world.start_job("rec").await;
    world.ask_to_end(&id);
    world.until_removed(&id).await;
    (world, id)
}

#[tokio::test]
async fn a_stray_has_its_grace_and_its_removal_says_why() {
    let test = "a_stray_has_its_grace_and_its_removal_says_why";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let (mut world, id) = one_job_removed(plan.stray_grace(GRACE)).await;
    world.crash();
    let stray = make_by_hand(&world, &world.instance, &id, 1);
    let foreign = make_by_hand(&world, &format!("{}9", world.instance), &id, 1);
    let began = Instant::now();
    world.start().await;
    sleep(Duration::from_secs(1)).await;
    assert!(is_there(&world, &stray), "removed without its grace");
    assert!(
        began.elapsed().as_secs() < GRACE_SECONDS,
        "too slow to tell"
    );
    wait_for("the stray is removed", || !is_there(&world, &stray)).await;
    assert!(began.elapsed().as_secs() >= GRACE_SECONDS, "too early");
    wait_for("it is told", || {
        line(&world, "removed a stray", &stray).is_some()
    })
    .await;
    let told = line(&world, "removed a stray", &stray).unwrap_or_default();
    assert!(told.contains("why=\"its job"), "{told}");
    let (_, seconds) = told.split_once("stray_seconds=").unwrap_or_default();
    let seconds = seconds.split_whitespace().next().unwrap_or_default();
    let seconds: u64 = seconds.parse().expect("it says for how long");
    assert!(seconds >= GRACE_SECONDS, "{told}");
    assert!(is_there(&world, &foreign), "another's was touched");
    assert!(line(&world, "stray", &foreign).is_none());
    let volume = format!("{foreign}-data");
    world.engine.docker(&["rm", &foreign]);
    world.engine.docker(&["volume", "rm", &volume]);
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_remove_and_removes_nothing() {
    let test = "a_dry_run_says_what_it_would_remove_and_removes_nothing";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let plan = plan.config("jobs.stray_dry_run = true");
    let (mut world, id) = one_job_removed(plan).await;
    world.crash();
    let stray = make_by_hand(&world, &world.instance, &id, 1);
    world.start().await;
    let told = || line(&world, "would remove a stray", &stray);
    wait_for("it says so", || told().is_some()).await;
    sleep(Duration::from_secs(3)).await;
    assert!(is_there(&world, &stray), "{}", world.daemon().log());
    assert_eq!(world.engine.volumes_of(&id).len(), 1);
    world.engine.docker(&["rm", "--volumes", &stray]);
    world
        .engine
        .docker(&["volume", "rm", &format!("{stray}-data")]);
    world.agrees().await;
}

#[tokio::test]
async fn work_that_a_record_denies_is_left_alone() {
    let test = "work_that_a_record_denies_is_left_alone";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let (mut world, id) = one_job_removed(plan).await;
    world.crash();
    // An attempt that the record knows nothing of. One left a film, the other has sent it.
    let strays = [
        "echo film > /data/call.mp4",
        "echo sent > /data/recorder.log",
    ];
    let mut names = Vec::new();
    for (attempt, script) in (2..).zip(strays) {
        world.image = world
            .engine
            .image(&format!("calls-recorder:v2.0.{attempt}"), script);
        let name = make_by_hand(&world, &world.instance, &id, attempt);
        world.engine.docker(&["start", "--attach", &name]);
        names.push(name);
    }
    world.start().await;
    wait_for("what was sent is removed", || !is_there(&world, &names[1])).await;
    wait_for("it warns", || {
        line(&world, "left alone", &names[0]).is_some()
    })
    .await;
    let warned = line(&world, "left alone", &names[0]).unwrap_or_default();
    assert!(warned.contains("WARN"), "{warned}");
    assert!(is_there(&world, &names[0]), "deleted by a guess");
    assert_eq!(world.engine.volumes_of(&id), [format!("{}-data", names[0])]);
    world.engine.docker(&["rm", "--volumes", &names[0]]);
    world
        .engine
        .docker(&["volume", "rm", &format!("{}-data", names[0])]);
}
