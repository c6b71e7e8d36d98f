//! `threads` of the configuration, in a process of its own: its threads are counted.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and write their fixtures"
)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use domain::JobId;
use engine::Runner as _;
use gate::ContainerName;
use tokio::time::sleep;

#[allow(dead_code, reason = "other tests need the rest of it")]
#[path = "jobs/place.rs"]
mod place;

/// What each thread of the jobs has computed so far, in the kernel's ticks.
fn computed() -> BTreeMap<String, u64> {
    let mut computed = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        if let Some((_, fields)) = stat.split_once(" (job) ") {
            let ticks = fields.split(' ').nth(11).unwrap().parse().unwrap();
            computed.insert(path.display().to_string(), ticks);
        }
    }
    computed
}

#[tokio::test]
async fn however_many_jobs_compute_they_have_so_many_threads() {
    for threads in [1, 2] {
        let mut place = place::Place::new();
        place.threads = threads;
        let (runner, gate) = (place.runner(), place.gate());
        let mut names: Vec<ContainerName> = Vec::new();
        for number in 1..=4 {
            let job = JobId::from_random([number; JobId::LEN]);
            let permit = place::permit_of(job, &runner, &gate, "spin", None).await;
            runner.launch(&permit, &place::ticket(true)).await.unwrap();
            names.push(permit.name().clone());
        }
        // Each of them gets its share, on whatever thread.
        let before = computed();
        sleep(Duration::from_secs(1)).await;
        let busy = computed()
            .into_iter()
            .filter(|(thread, ticks)| *ticks > before.get(thread).copied().unwrap_or(0) + 2)
            .count();
        assert_eq!(busy, threads);
        for name in &names {
            runner.remove(name).await.unwrap();
        }
    }
}
