//! What jobs run in is used again: nobody finds what was in it, and there is enough of it.

use std::fs;

use domain::{EndReason, JobId, JobKind};
use engine::{PrepareError, Runner as _, Sighting};
use gate::{ContainerName, Gate, Origin};
use offloader_runner_wasi::WasiRunner;

use crate::place::{IMAGE, Place, permit_of, ticket};

/// Fails when anything is in its memory and table but what new ones have, and leaves them full.
const HOARDER: &str = r#"(core module $hoarder
    (memory 1)
    (data (i32.const 65000) "\01\02\03\04")
    (table $table 10 1000 funcref)
    (elem (i32.const 3) $fill)
    (func $expect_zeros (param $from i32) (param $to i32)
        (loop $next
            (if (i32.lt_u (local.get $from) (local.get $to))
                (then
                    (if (i64.ne (i64.load (local.get $from)) (i64.const 0)) (then unreachable))
                    (local.set $from (i32.add (local.get $from) (i32.const 8)))
                    (br $next)))))
    (func $expect_null (param $element i32)
        (if (i32.eqz (ref.is_null (table.get $table (local.get $element)))) (then unreachable)))
    (func $fill
        (memory.fill
            (i32.const 0) (i32.const 170) (i32.mul (memory.size) (i32.const 65536)))
        (table.fill $table (i32.const 0) (ref.func $fill) (table.size $table)))
    (func (export "run") (result i32)
        (if (i32.ne (i32.load (i32.const 65000)) (i32.const 0x04030201)) (then unreachable))
        (call $expect_zeros (i32.const 0) (i32.const 65000))
        (if (i32.ne (memory.grow (i32.const 127)) (i32.const 1)) (then unreachable))
        (call $expect_zeros (i32.const 65008) (i32.const 8388608))
        (call $expect_null (i32.const 2))
        (call $expect_null (i32.const 4))
        (if (i32.ne (table.grow $table (ref.null func) (i32.const 500)) (i32.const 10))
            (then unreachable))
        (call $expect_null (i32.const 400))
        (call $fill)
        (i32.const 0)))"#;

/// A command that runs the hoarder and has so many memories in all.
fn command(memories: usize) -> String {
    let more = "(core instance (instantiate $more))".repeat(memories - 1);
    format!(
        r#"(component
            {HOARDER}
            (core module $more (memory 1) (table 1 funcref))
            (core instance $hoarder (instantiate $hoarder))
            {more}
            (func $run (result (result)) (canon lift (core func $hoarder "run")))
            (component $exports
                (import "run" (func $run (result (result))))
                (export "run" (func $run)))
            (instance $exports (instantiate $exports (with "run" (func $run))))
            (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    )
}

/// Makes it the component that jobs run.
fn install(place: &Place, component: &str) {
    let file = place.dir.path().join("components/probe.wasm");
    fs::write(file, wat::parse_str(component).unwrap()).unwrap();
}

/// Starts a job of this number.
async fn begin(runner: &WasiRunner, gate: &Gate, number: u8, act: &str) -> ContainerName {
    let job = JobId::from_random([number; JobId::LEN]);
    let permit = permit_of(job, runner, gate, act, None).await;
    runner.launch(&permit, &ticket(true)).await.unwrap();
    permit.name().clone()
}

async fn exit_code(runner: &WasiRunner, name: &ContainerName) -> i32 {
    runner.changed(name).await.unwrap();
    match runner.inspect(name).await.unwrap() {
        Sighting::Ended(exit) => exit.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_job_had_in_memory_is_gone_before_another_runs() {
    let mut place = Place::new();
    // Without a pool, to see what the component is worth, and with one.
    for jobs_max in [u32::MAX, 1] {
        place.jobs_max = jobs_max;
        install(&place, &command(2));
        let (runner, gate) = (place.runner(), place.gate());
        for number in 1..=6 {
            let name = begin(&runner, &gate, number, "").await;
            assert_eq!(
                exit_code(&runner, &name).await,
                0,
                "job {number} of {jobs_max}"
            );
            runner.remove(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_job_that_is_not_gone_yet_is_in_nobodys_way() {
    let mut place = Place::new();
    place.jobs_max = 1;
    let (runner, gate) = (place.runner(), place.gate());
    let going = begin(&runner, &gate, 1, "wait").await;
    let next = begin(&runner, &gate, 2, "say=hello").await;
    assert_eq!(exit_code(&runner, &next).await, 0);
    runner.remove(&going).await.unwrap();
}

#[tokio::test]
async fn a_component_of_more_memories_than_there_is_room_for_is_refused() {
    let place = Place::new();
    let (runner, gate) = (place.runner(), place.gate());
    let permit = gate
        .image(JobKind::Recording, IMAGE, &Origin::Client)
        .unwrap();
    install(&place, &command(4));
    runner.prepare(&permit).await.unwrap();
    install(&place, &command(5));
    match runner.prepare(&permit).await {
        Err(PrepareError::Pull { reason, detail, .. }) => {
            assert_eq!(reason, EndReason::ImageRefused);
            assert!(detail.contains("5 Wasm linear memories"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}
