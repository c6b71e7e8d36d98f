//! Histories that must go well, and broken engines that must be caught.

use super::*;

/// Panics with the whole history when anything is not as promised.
fn goes_well(seed: u64) {
    if let Some(violation) = simulate(seed, None, false).violation {
        let history = simulate(seed, None, true);
        panic!("seed {seed}: {violation}\n{}", history.lines.join("\n"));
    }
}

#[test]
fn histories_go_well() {
    for seed in 0..300 {
        goes_well(seed);
    }
}

/// The store saves for 115 s what was submitted first, and is asked by the second what became of it.
#[test]
fn an_answer_comes_in_time_though_the_store_is_slow_twice() {
    goes_well(52_994_913);
}

/// A volume's removal was asked for before the start and is carried out after a person has removed
/// the container, for until then the container engine refuses it.
#[test]
fn a_removal_that_comes_late_meets_one_by_hand() {
    goes_well(60_541_956);
    goes_well(61_300_808);
}

/// The store takes longer than the time to start, the engine longer than may be waited for to take
/// the start back, and then the service is killed: whoever was told that nothing runs was told so.
#[test]
fn what_still_runs_after_its_time_is_not_taken_up_after_a_crash() {
    goes_well(71_184_445);
}

/// The store saves a start after all that is being taken back, the service is killed, and the last
/// request of taking it back is carried out after the restart.
#[test]
fn a_start_that_is_taken_back_may_go_after_the_next_start_of_the_service() {
    goes_well(84_388_801);
    goes_well(241_132_069);
}

/// The same, and the container is gone: whoever wants the same work after the restart is told of that
/// job, though its first client was told that it does not run.
#[test]
fn a_start_that_is_taken_back_and_saved_after_all_counts_as_one_that_ran() {
    goes_well(242_565_078);
}

/// Another attempt of a job that ran is being started when the service is killed; the start is
/// carried out after the restart, which keeps what the first attempt left.
#[test]
fn a_start_that_comes_late_does_not_run_beside_what_is_kept() {
    goes_well(226_161_416);
}

/// What is deleted while the service ends, and kept by that, is deleted again.
#[test]
fn deletions_that_the_end_of_the_service_cuts_off_come_again() {
    goes_well(60_944_272);
}

#[test]
fn a_seed_has_one_history() {
    for seed in 0..100 {
        let first = simulate(seed, None, true);
        let again = simulate(seed, None, true);
        for (line, other) in first.lines.iter().zip(&again.lines) {
            assert_eq!(line, other, "seed {seed}");
        }
        assert_eq!(first, again, "seed {seed}");
        assert_eq!(simulate(seed, None, false).digest, first.digest);
    }
}

/// All of them are tried, with more histories, by the example: `cargo xtask test` runs it.
#[test]
fn the_likeliest_ways_to_break_it_are_noticed_soon() {
    for (mutation, histories) in [
        (Mutation::AnswerBeforeCommit, 20),
        (Mutation::NoKeys, 20),
        (Mutation::NoSlots, 50),
        (Mutation::ForgetSlot, 20),
        (Mutation::StartWithoutLeave, 200),
        (Mutation::ErrorIsAnEnd, 100),
        (Mutation::SeeNothingLeft, 50),
        (Mutation::DeleteUnsent, 20),
        (Mutation::KeepTooShort, 20),
        (Mutation::KeepForEver, 20),
        (Mutation::ForgetKillAt, 500),
        (Mutation::ForgetDeadline, 500),
        (Mutation::KillEarly, 50),
        (Mutation::NeverKill, 50),
        (Mutation::NoDeadline, 50),
        (Mutation::RetryAfterRun, 1300),
        (Mutation::RemoveNothing, 20),
        (Mutation::LeaveVolumes, 20),
        (Mutation::TrustTheWallClock, 100),
        (Mutation::ForgetResends, 500),
        (Mutation::RemoveWhatIsResent, 500),
        (Mutation::ResentAnyway, 500),
        (Mutation::NeverResent, 500),
        (Mutation::ResendAnything, 1000),
    ] {
        let broken = |seed: u64| simulate(seed, Some(mutation), false).violation.is_some();
        assert!((0..histories).any(broken), "{mutation:?}");
    }
}
