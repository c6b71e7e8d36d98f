//! A store that is torn, damaged or gone.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::World;

fn database(world: &World) -> PathBuf {
    world.setup.dir().join("state/offloader.db")
}

/// A job that runs and one that failed and is kept.
async fn running_and_kept(test: &str) -> Option<(World, String, String)> {
    let plan = Plan::shared(test)?;
    let script = "case $RECORDING_ID in kept*) exit 7;; esac
                  trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let mut world = plan.script(script).begin().await;
    let kept = world.start_job("kept").await;
    world
        .until(&kept, "kept", |job| job["state"] == "retained")
        .await;
    let runs = world.start_job("rec").await;
    Some((world, runs, kept))
}

#[tokio::test]
async fn a_torn_end_of_the_log_loses_nothing_that_was_acknowledged() {
    let test = "a_torn_end_of_the_log_loses_nothing_that_was_acknowledged";
    let Some((mut world, runs, kept)) = running_and_kept(test).await else {
        return;
    };
    let log = database(&world).with_extension("db-wal");
    for bytes in [1, 24, 1000, 5000] {
        world.crash();
        let file = OpenOptions::new().append(true).open(&log);
        let torn = vec![0xA5; bytes];
        file.expect("there is a log")
            .write_all(&torn)
            .expect("it can be written");
        world.start().await;
        assert_eq!(world.job(&runs).await["state"], "running");
        assert_eq!(world.job(&kept).await["state"], "retained");
        world.agrees().await;
    }
    world.agrees_after_crashes(2).await;
}

/// Turns over a byte in the middle of each page but the first, so that the file is still known as
/// ours and is not whole.
fn damage(path: &Path) {
    let mut file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.as_mut().expect("the store can be opened");
    let length = file.metadata().expect("it has a length").len();
    for page in 1..length / 4096 {
        let mut block = [0; 64];
        let at = SeekFrom::Start(page * 4096);
        file.seek(at).expect("it can be sought");
        file.read_exact(&mut block).expect("it can be read");
        block.iter_mut().for_each(|byte| *byte ^= 0xff);
        file.seek(at).expect("it can be sought");
        file.write_all(&block).expect("it can be written");
    }
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_whole_and_its_containers_finish_their_course() {
    let test = "a_damaged_store_is_set_aside_whole_and_its_containers_finish_their_course";
    let Some((mut world, runs, kept)) = running_and_kept(test).await else {
        return;
    };
    world.stop();
    let path = database(&world);
    damage(&path);
    let damaged = fs::read(&path).expect("it can be read");
    world.start().await;
    let state = fs::read_dir(world.setup.dir().join("state")).expect("there is a state");
    let aside: Vec<_> = state
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes == damaged))
        .collect();
    let [aside] = &aside[..] else {
        panic!("set aside: {aside:?}\n{}", world.daemon().log())
    };
    let name = aside.file_name().and_then(|name| name.to_str());
    let log = world.daemon().log();
    assert!(
        log.contains(name.expect("a name")),
        "it is not named:\n{log}"
    );
    let health = world.until_health("ok").await;
    let warnings = health["warnings"].to_string();
    assert!(warnings.contains("set aside"), "{health}");
    found_again(&mut world, &runs, &kept).await;
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_told_and_its_job_left_as_it_is() {
    let test = "a_record_that_makes_no_sense_is_told_and_its_job_left_as_it_is";
    let Some((mut world, runs, kept)) = running_and_kept(test).await else {
        return;
    };
    world.stop();
    let container = world.container(&runs);
    let db = Connection::open(database(&world)).expect("it can be opened");
    let spoil = "UPDATE jobs SET kind = 'nonsense' WHERE id = ?1";
    assert_eq!(db.execute(spoil, [&runs]), Ok(1));
    drop(db);
    world.start().await;
    let health = world.until_health("ok").await;
    let warnings = health["warnings"].to_string();
    assert!(warnings.contains("1 records of jobs"), "{health}");
    let log = world.daemon().log();
    let told = |line: &str| line.contains("ERROR") && line.contains(&runs);
    assert!(log.lines().any(told), "{log}");
    let answer = world.daemon().admin().job(&runs).await.expect("an answer");
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.text().contains("nonsense"), "{answer:?}");
    // Nobody else suffers: what is kept is, and both slots can be had.
    assert_eq!(world.job(&kept).await["state"], "retained");
    for id in ["one", "two"] {
        world.start_job(id).await;
    }
    // Its container is no stray, however long nobody looks after it.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.container(&runs), container);
    let seen = world.engine.inspect(&container);
    assert_eq!(seen["State"]["Running"], true);
    // Somebody mends it, and it goes on as if nothing had been.
    world.stop();
    let db = Connection::open(database(&world)).expect("it can be opened");
    let mend = "UPDATE jobs SET kind = 'recording' WHERE id = ?1";
    assert_eq!(db.execute(mend, [&runs]), Ok(1));
    drop(db);
    world.start().await;
    assert!(world.until_health("ok").await["warnings"].is_null());
    world.ask_to_end(&runs);
    world.until_removed(&runs).await;
    world.agrees().await;
}

#[tokio::test]
async fn a_state_directory_that_is_gone_is_made_again_and_containers_finish_their_course() {
    let test = "a_state_directory_that_is_gone_is_made_again_and_containers_finish_their_course";
    let Some((mut world, runs, kept)) = running_and_kept(test).await else {
        return;
    };
    world.stop();
    fs::remove_dir_all(world.setup.dir().join("state")).expect("it can be removed");
    world.start().await;
    found_again(&mut world, &runs, &kept).await;
}

/// What runs is found by its labels and runs to its end; what was kept stays.
async fn found_again(world: &mut World, runs: &str, kept: &str) {
    let container = world.container(runs);
    let job = world
        .until(runs, "running", |job| job["state"] == "running")
        .await;
    assert!(job["deadline"].is_i64(), "{job:#}");
    assert_eq!(world.container(runs), container);
    assert_eq!(world.engine.volumes_of(kept).len(), 1, "deleted by a guess");
    world.ask_to_end(runs);
    let job = world.until_ended(runs).await;
    assert_eq!(job["reason"], "completed", "{job:#}");
    assert_eq!(world.oracle.starts_of(runs), 1);
    let again = world.start_job("after").await;
    assert_eq!(world.job(&again).await["state"], json!("running"));
}

#[tokio::test]
async fn a_store_that_is_something_else_is_left_alone() {
    let test = "a_store_that_is_something_else_is_left_alone";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.begin().await;
    world.stop();
    let path = database(&world);
    let foreign = b"somebody's letters, and no database at all";
    File::create(&path)
        .and_then(|mut file| file.write_all(foreign))
        .expect("it can be written");
    let ended = world.setup.run_to_end("127.0.0.1:0");
    assert!(!ended.status.success(), "{ended:?}");
    assert!(ended.log.contains("offloader.db"), "{}", ended.log);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    assert_eq!(fs::read(&path).expect("it is there"), foreign);
}
