//! Policies that break their word on the level of pointers, lengths and handles, where a compiler of
//! Rust would not.

use std::fmt::Write as _;

use domain::Decision;
use domain::DecisionOutcome::{
    self, HostCalls, Memory, OutputMalformed, OutputTooLarge, Stack, Table, Timeout, Trap,
};

use crate::component;

/// A retry policy that is loaded, passes on the jobs that it is tried with, and fails when it is asked
/// about the job of these tests.
pub(crate) struct Failing {
    pub(crate) name: &'static str,
    pub(crate) outcome: DecisionOutcome,
    pub(crate) reason: &'static str,
    /// More of its module, for example what lies in memory.
    fields: String,
    /// What it does when it is asked, with `$job`; answers where its verdict is.
    body: &'static str,
    /// What it does when the host asks it for memory.
    realloc: &'static str,
}

/// Waits for the same thing so many times at once, again and again.
macro_rules! poll {
    ($times:literal) => {
        concat!(
            "(local $wait i32) (local $count i32)
            (drop (memory.grow (i32.const 200)))
            (local.set $wait (call $wait (i64.const 1)))
            (loop $fill
                (i32.store
                    (i32.add (i32.const 65536) (i32.shl (local.get $count) (i32.const 2)))
                    (local.get $wait))
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (br_if $fill (i32.lt_u (local.get $count) (i32.const ",
            $times,
            "))))
            (loop $again
                (call $poll (i32.const 65536) (local.get $count) (i32.const 128))
                (br $again))
            unreachable"
        )
    };
}

/// Every policy that fails when it is asked.
pub(crate) fn failing() -> Vec<Failing> {
    let failing = |name, outcome, reason, fields: &str, body| Failing {
        name,
        outcome,
        reason,
        fields: fields.to_owned(),
        body,
        realloc: "(i32.const 1024)",
    };
    let realloc = |realloc, failing| Failing { realloc, ..failing };
    let here = "(call $drop (local.get $job)) (i32.const 64)";
    let read_id = "(call $id (local.get $job) (i32.const 128)) (i32.const 64)";
    vec![
        failing(
            "text out of bounds",
            OutputMalformed,
            "passed what makes no sense: string pointer/length out of bounds of memory",
            &because(u32::MAX - 16, 64),
            here,
        ),
        failing(
            "text over the end",
            OutputMalformed,
            "passed what makes no sense: string pointer/length out of bounds of memory",
            &because(65_530, 7),
            here,
        ),
        failing(
            "text as large as memory",
            OutputTooLarge,
            "the reason has 65536 bytes, more than 1024",
            &because(0, 65_536),
            here,
        ),
        failing(
            "text that is none",
            OutputMalformed,
            "passed what makes no sense: a text that is not UTF-8",
            &format!(r#"{} (data (i32.const 96) "\c0\80")"#, because(96, 2)),
            here,
        ),
        failing(
            "a case that there is not",
            OutputMalformed,
            "passed what makes no sense: unexpected discriminant: 7",
            r#"(data (i32.const 64) "\07")"#,
            here,
        ),
        failing(
            "neither there nor not",
            OutputMalformed,
            "passed what makes no sense: invalid option discriminant",
            r#"(data (i32.const 64) "\01\00\00\00\00\00\00\00\05")"#,
            here,
        ),
        failing(
            "an answer askew",
            OutputMalformed,
            "passed what makes no sense: return pointer not aligned",
            "",
            "(call $drop (local.get $job)) (i32.const 63)",
        ),
        failing(
            "an answer out of bounds",
            OutputMalformed,
            "passed what makes no sense: pointer out of bounds of memory",
            "",
            "(call $drop (local.get $job)) (i32.const -8)",
        ),
        failing(
            "memory at once",
            Memory,
            "wanted more than 16777216 bytes of memory",
            "",
            "(drop (memory.grow (i32.const 65000))) unreachable",
        ),
        failing(
            "memory by steps",
            Memory,
            "wanted more than 16777216 bytes of memory",
            "",
            "(loop $more (drop (memory.grow (i32.const 1))) (br $more)) unreachable",
        ),
        failing(
            "a table at once",
            Table,
            "wanted more than 10000 table elements",
            "(table $t 1 funcref)",
            "(drop (table.grow $t (ref.null func) (i32.const 1000000))) unreachable",
        ),
        failing(
            "a table by steps",
            Table,
            "wanted more than 10000 table elements",
            "(table $t 1 funcref)",
            "(loop $more (drop (table.grow $t (ref.null func) (i32.const 1))) (br $more)) unreachable",
        ),
        failing(
            "recursion",
            Stack,
            "ran out of stack",
            "(func $deeper (call $deeper))",
            "(call $deeper) unreachable",
        ),
        failing(
            "unreachable",
            Trap,
            "trapped: wasm trap: wasm `unreachable` instruction executed",
            "",
            "unreachable",
        ),
        failing(
            "division by zero",
            Trap,
            "trapped: wasm trap: integer divide by zero",
            "",
            "(i32.div_u (i32.const 1) (i32.const 0))",
        ),
        failing(
            "reading out of bounds",
            Trap,
            "trapped: wasm trap: out of bounds memory access",
            "",
            "(i32.load (i32.const -4))",
        ),
        failing(
            "calling nothing",
            Trap,
            "trapped: wasm trap: uninitialized element",
            "(table $t 1 funcref)",
            "(call_indirect $t (result i32) (i32.const 0))",
        ),
        failing(
            "a handle that was kept",
            OutputMalformed,
            "passed what makes no sense: borrow handles still remain at the end of the call",
            "",
            "(i32.const 64)",
        ),
        failing(
            "a handle that was given back",
            OutputMalformed,
            "passed what makes no sense: unknown handle index",
            "",
            "(call $drop (local.get $job)) (call $id (local.get $job) (i32.const 128)) (i32.const 64)",
        ),
        failing(
            "a handle that was made up",
            OutputMalformed,
            "passed what makes no sense: unknown handle index 4711",
            "",
            "(call $id (i32.const 4711) (i32.const 128)) (i32.const 64)",
        ),
        failing(
            "many handles",
            HostCalls,
            "held too many handles of the host at once",
            "",
            "(local $held i32)
            (loop $more
                (drop (call $wait (i64.const 1)))
                (local.set $held (i32.add (local.get $held) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $held) (i32.const 1025))))
            unreachable",
        ),
        realloc(
            "(i32.const 5242880)",
            failing(
                "one wait more often than it may be named",
                OutputMalformed,
                "passed what makes no sense: cannot lend resource",
                "",
                poll!("5000"),
            ),
        ),
        failing(
            "a list out of bounds",
            OutputMalformed,
            "passed what makes no sense: list pointer/length out of bounds of memory",
            "",
            "(call $poll (i32.const 65532) (i32.const 100) (i32.const 128)) unreachable",
        ),
        failing(
            "a list askew",
            OutputMalformed,
            "passed what makes no sense: list pointer is not aligned",
            "",
            "(call $poll (i32.const 63) (i32.const 1) (i32.const 128)) unreachable",
        ),
        realloc(
            "(i32.const 5242880)",
            failing(
                "one wait as often as it may be named",
                Timeout,
                "took longer than 50 ms",
                "",
                poll!("4000"),
            ),
        ),
        realloc(
            "(loop (br 0)) unreachable",
            failing(
                "a loop inside a call of the host",
                Timeout,
                "took longer than 50 ms",
                "",
                read_id,
            ),
        ),
        realloc(
            "(i32.const -1)",
            failing(
                "room out of bounds",
                OutputMalformed,
                "passed what makes no sense: realloc return: beyond end of memory",
                "",
                read_id,
            ),
        ),
        realloc(
            "unreachable",
            failing(
                "no room",
                Trap,
                "trapped: wasm trap: wasm `unreachable` instruction executed",
                "",
                read_id,
            ),
        ),
    ]
}

/// The decisions that did not end as they must.
pub(crate) fn wrong(failing: &[Failing], decisions: &[Decision]) -> Vec<String> {
    let ended = |(policy, decision): &(&Failing, &Decision)| {
        let told = decision.reason.as_deref().unwrap_or_default();
        decision.outcome == policy.outcome && told.starts_with(policy.reason)
    };
    failing
        .iter()
        .zip(decisions)
        .filter(|pair| !ended(pair))
        .map(
            |(
                Failing { name, .. },
                Decision {
                    outcome, reason, ..
                },
            )| { format!("{name}: {outcome:?} {reason:?}") },
        )
        .collect()
}

/// A verdict at 64: give up, with the reason that is there.
fn because(pointer: u32, length: u32) -> String {
    let mut data = String::new();
    for number in [1, 0, 1, pointer, length] {
        for byte in number.to_le_bytes() {
            let _ = write!(data, "\\{byte:02x}");
        }
    }
    format!(r#"(data (i32.const 64) "{data}")"#)
}

impl Failing {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self {
            fields,
            body,
            realloc,
            ..
        } = self;
        component(&format!(
            r#"
  (import "offloader:policy/types@0.1.0" (instance $types
    (export "job" (type $job (sub resource)))
    (export "[method]job.id" (func (param "self" (borrow $job)) (result string)))
    (export "[method]job.time-left-to-start"
      (func (param "self" (borrow $job)) (result u64)))))
  (alias export $types "job" (type $job))
  (import "wasi:io/poll@0.2.6" (instance $io
    (export "pollable" (type $pollable (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $io "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
    (export "pollable" (type $p (eq $pollable)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))

  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
  (core instance $libc (instantiate $libc))
  (core func $id (canon lower (func $types "[method]job.id")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $drop (canon resource.drop $job))
  (core func $left (canon lower (func $types "[method]job.time-left-to-start")))
  (core func $poll (canon lower (func $io "poll")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $wait (canon lower (func $clock "subscribe-duration")))

  (core module $main
    (import "host" "id" (func $id (param i32 i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "host" "left" (func $left (param i32) (result i64)))
    (import "host" "poll" (func $poll (param i32 i32 i32)))
    (import "host" "wait" (func $wait (param i64) (result i32)))
    (import "libc" "memory" (memory 1))
    {fields}
    (func (export "decide-retry") (param $job i32) (result i32)
      (if (i64.ne (call $left (local.get $job)) (i64.const 89000))
        (then (call $drop (local.get $job)) (return (i32.const 0))))
      (call $fail (local.get $job)))
    (func $fail (param $job i32) (result i32) {body}))
  (core instance $main (instantiate $main
    (with "host" (instance
      (export "id" (func $id)) (export "drop" (func $drop)) (export "left" (func $left))
      (export "poll" (func $poll)) (export "wait" (func $wait))))
    (with "libc" (instance $libc))))

  (type $again (record (field "after" u64) (field "reason" (option string))))
  (type $verdict (variant
    (case "pass") (case "give-up" (option string)) (case "retry" $again)))
  (func $decide (param "job" (borrow $job)) (result $verdict)
    (canon lift (core func $main "decide-retry") (memory (core memory $libc "memory"))))

  (component $Retry
    (import "job" (type $job (sub resource)))
    (type $again-shape (record (field "after" u64) (field "reason" (option string))))
    (import "again" (type $again (eq $again-shape)))
    (type $verdict-shape (variant
      (case "pass") (case "give-up" (option string)) (case "retry" $again)))
    (import "verdict" (type $verdict (eq $verdict-shape)))
    (import "decide" (func $decide (param "job" (borrow $job)) (result $verdict)))
    (export $Job "job" (type $job))
    (export $Again "again" (type $again-shape))
    (type $Verdict-shape (variant
      (case "pass") (case "give-up" (option string)) (case "retry" $Again)))
    (export $Verdict "verdict" (type $Verdict-shape))
    (export "decide-retry" (func $decide)
      (func (param "job" (borrow $Job)) (result $Verdict))))
  (instance $retry (instantiate $Retry
    (with "job" (type $job)) (with "again" (type $again)) (with "verdict" (type $verdict))
    (with "decide" (func $decide))))
  (export "offloader:policy/retry@0.1.0" (instance $retry))"#
        ))
    }
}
