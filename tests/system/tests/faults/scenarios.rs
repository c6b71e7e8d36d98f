//! Which test proves which scenario.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The faults, by their numbers in the project's table of them, with the tests that play them: here, in
/// the suites beside this one, and, where nothing but one adapter is concerned, in that adapter's own.
/// What is not listed (25 to 27) needs Kubernetes or several instances, which this build has not.
const SCENARIOS: &[(u8, &str, &[&str])] = &[
    (
        1,
        "SIGKILL before the intent is saved",
        &["killed_before_the_intent_is_saved"],
    ),
    (
        2,
        "after the intent, before the creation",
        &["killed_between_intent_and_creation"],
    ),
    (
        3,
        "after the creation, before the start",
        &["killed_between_creation_and_start"],
    ),
    (
        4,
        "after the start, before that is saved",
        &["killed_after_the_start_before_that_is_saved"],
    ),
    (
        5,
        "after the exit, before the result is saved",
        &[
            "killed_after_the_exit_before_that_is_saved",
            "what_ended_while_the_daemon_was_away_is_found_out",
        ],
    ),
    (
        6,
        "between the removals of container and volume",
        &["killed_between_the_removals_of_container_and_volume"],
    ),
    (
        7,
        "ten SIGKILLs during one job",
        &["ten_kills_during_one_job"],
    ),
    (
        8,
        "the deadline passes while the service is down",
        &["a_deadline_that_passed_while_the_service_was_down_holds_at_its_start"],
    ),
    (
        9,
        "the engine restarts with live-restore, hangs, or is out of reach",
        &[
            "an_engine_that_restarts_with_live_restore_stops_no_job",
            "an_engine_that_hangs_holds_nobody_up",
            "a_line_that_is_cut_ends_no_job",
            "a_job_that_ends_while_the_line_is_cut_is_found_out_about",
        ],
    ),
    (
        10,
        "the engine restarts without live-restore, alone and with the service",
        &[
            "an_engine_that_is_stopped_without_live_restore_ends_its_jobs",
            "an_engine_that_crashes_without_live_restore_ends_its_jobs",
            "a_power_failure_loses_jobs_and_keeps_their_data",
            "a_service_that_goes_down_with_its_engine_finds_out_what_became_of_its_jobs",
        ],
    ),
    (
        11,
        "a creation times out but succeeded",
        &[
            "a_creation_that_is_never_answered_is_adopted_in_time_and_else_removed",
            "a_start_whose_answer_is_lost_has_started",
        ],
    ),
    (
        12,
        "the start fails",
        &["a_start_that_fails_leaves_nothing_and_frees_its_slot"],
    ),
    (
        13,
        "an exit within 10 ms",
        &["an_end_within_milliseconds_is_recorded_and_cleaned_up_once"],
    ),
    (
        14,
        "50 parallel submissions, two slots",
        &["of_fifty_submissions_at_once_two_run_and_the_rest_is_refused"],
    ),
    (
        15,
        "the same work twice; a client that hangs up; a pull that takes too long",
        &[
            "the_same_work_twice_at_once_and_again_after_it_ran_is_one_job",
            "a_client_that_hangs_up_in_a_slow_pull_takes_its_job_with_it",
            "a_pull_that_outlasts_the_time_to_start_is_answered_in_time",
        ],
    ),
    (
        16,
        "the registry is down, refuses, breaks off or stalls",
        &[
            "a_registry_that_is_down_is_tried_again_until_it_is_up",
            "images_that_nobody_will_ever_give_fail_at_once",
            "a_pull_without_progress_has_stalled",
            "an_error_inside_the_pull_stream_is_one",
        ],
    ),
    (
        17,
        "another digest, a look-alike registry",
        &[
            "an_image_of_another_digest_is_refused_before_it_is_created",
            "a_bad_request_is_told_what_is_bad_in_the_contracts_words",
        ],
    ),
    (
        18,
        "memory, processes and disks run out",
        &[
            "running_out_of_memory_is_told_as_such",
            "no_more_processes_start_than_granted",
            "an_engine_without_room_refuses_jobs_and_takes_them_again",
            "an_engine_with_too_little_room_is_asked_for_nothing",
            "a_store_without_room_refuses_jobs_and_takes_them_again",
        ],
    ),
    (
        19,
        "a job ignores SIGTERM",
        &["one_that_ignores_its_stop_is_killed_after_its_grace_and_keeps_its_data"],
    ),
    (
        20,
        "a container is removed by hand",
        &[
            "a_container_removed_by_hand_ends_its_job_once",
            "what_was_removed_while_the_daemon_was_away_is_told_so",
        ],
    ),
    (
        21,
        "foreign containers with look-alike labels",
        &[
            "what_only_looks_like_ours_is_never_touched",
            "a_foreign_container_of_a_name_like_ours_is_never_touched",
            "a_stray_has_its_grace_and_its_removal_says_why",
        ],
    ),
    (
        22,
        "the image declares further volumes",
        &["volumes_that_the_image_declares_go_too_and_others_stay"],
    ),
    (
        23,
        "the store is torn, damaged, full, not synced or gone",
        &[
            "a_torn_end_of_the_log_loses_nothing_that_was_acknowledged",
            "a_damaged_store_is_set_aside_whole_and_its_containers_finish_their_course",
            "a_record_that_makes_no_sense_is_told_and_its_job_left_as_it_is",
            "a_disk_that_does_not_sync_refuses_jobs_and_what_ends_meanwhile_is_saved_later",
            "a_crash_while_nothing_can_be_synced_loses_nothing_and_damages_no_store",
            "a_store_without_room_refuses_jobs_and_takes_them_again",
            "a_state_directory_that_is_gone_is_made_again_and_containers_finish_their_course",
            "a_store_that_is_something_else_is_left_alone",
        ],
    ),
    (
        24,
        "the clock jumps an hour either way",
        &[
            "a_clock_that_jumps_while_the_service_runs_ends_and_deletes_nothing",
            "a_clock_that_was_set_while_the_service_was_down_ends_and_deletes_nothing",
        ],
    ),
    (
        28,
        "log readers and other clients stall; many logs",
        &[
            "log_readers_that_stall_and_many_logs_cost_no_memory_and_no_job",
            "a_log_reader_that_stalls_or_leaves_does_no_harm",
            "hundreds_that_say_little_or_nothing_cost_little_and_hold_up_nobody",
            "answers_that_nobody_reads_are_not_collected",
        ],
    ),
    (
        29,
        "retention falls due while the service is down",
        &["what_falls_due_while_the_service_is_down_goes_at_its_start_and_nothing_else"],
    ),
    (
        30,
        "another client's job; secrets",
        &[
            "a_job_is_its_clients_and_the_administrators",
            "a_token_reaches_the_container_and_nothing_else",
            "secrets_stay_out_of_the_log_and_out_of_the_store",
        ],
    ),
    (
        31,
        "delivered or not, against a policy that deletes",
        &["undelivered_work_stays_whatever_policy_says_and_delivered_work_goes"],
    ),
    (
        32,
        "the service restarts while a job finishes",
        &["restarts_while_a_job_finishes_leave_its_time_to_be_killed"],
    ),
];

/// Where those tests are, seen from this package.
const SUITES: [&str; 4] = [
    "tests/faults",
    "tests/lifecycle",
    "tests/contract",
    "../../host/runner-docker/tests/engine",
];

#[test]
fn every_scenario_has_its_tests() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for suite in SUITES {
        let files = fs::read_dir(own.join(suite)).expect("the suite is there");
        for file in files.map(|file| file.expect("it can be listed").path()) {
            if file.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(&file).expect("a source can be read");
            }
        }
    }
    let numbers: BTreeSet<u8> = SCENARIOS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=24).chain(28..=32).collect());
    for (number, fault, tests) in SCENARIOS {
        assert!(!tests.is_empty(), "{number}, {fault}");
        for test in *tests {
            let there = sources.contains(&format!("\nasync fn {test}() {{"))
                || sources.contains(&format!("\nfn {test}() {{"));
            assert!(there, "{number}, {fault}: there is no test {test}");
        }
    }
}
