//! The oracle's judgement, over sides that are made up.

use serde_json::json;

use super::*;

fn job(state: &str) -> Jobs {
    let attempts = json!([{ "number": 1, "running_at": 1 }]);
    Jobs::from([("j".into(), json!({ "state": state, "attempts": attempts }))])
}

fn judged(jobs: &Jobs, containers: &[(&str, bool)], volumes: &[&str]) -> usize {
    let containers = containers
        .iter()
        .map(|(n, r)| ((*n).to_owned(), *r))
        .collect();
    let volumes = volumes.iter().map(|&n| n.to_owned()).collect();
    let mut wrong = Violations::new();
    compare(jobs, &containers, &volumes, &mut wrong);
    wrong.len()
}

#[test]
fn sides_that_disagree_are_told() {
    let (name, volume) = ("offloader-i-j-1", "offloader-i-j-1-data");
    for (state, containers, volumes, wrong) in [
        ("running", &[(name, true)][..], &[volume][..], 0),
        ("running", &[(name, false)], &[volume], 1),
        ("running", &[], &[], 1),
        ("retained", &[(name, false)], &[volume], 0),
        ("retained", &[(name, true)], &[volume], 1),
        ("retained", &[], &[], 1),
        ("removed", &[], &[], 0),
        ("removed", &[(name, false)], &[], 1),
        ("removed", &[], &[volume], 1),
        ("starting", &[], &[], 1),
        ("removed", &[("offloader-i-k-1", false)], &[], 1),
        ("removed", &[], &["offloader-i-k-1-data"], 1),
    ] {
        let found = judged(&job(state), containers, volumes);
        assert_eq!(found, wrong, "{state} {containers:?} {volumes:?}");
    }
}

fn oracle() -> Oracle {
    Oracle {
        instance: "i".into(),
        slots: 1,
        starts: Starts::default(),
        secrets: Vec::new(),
        submissions: Vec::new(),
        removed_by_hand: BTreeSet::new(),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn starts_that_do_not_fit_are_told() {
    for (starts, wrong) in [
        (&["offloader-i-j-1"][..], 0),
        (&["offloader-i-j-1", "offloader-i-j-1"], 1),
        (&["offloader-i-j-1", "offloader-i-j-2"], 1),
        (&["offloader-i-j-1", "else"], 1),
        (&[], 1),
    ] {
        let mut found = Violations::new();
        oracle().judge_starts(&job("running"), &texts(starts), &mut found);
        assert_eq!(found.len(), wrong, "{starts:?}: {found:?}");
    }
}

#[test]
fn a_start_that_was_taken_back_is_known_by_what_its_client_was_told() {
    let attempts = json!([{ "number": 1, "reason": "interrupted" }]);
    let inputs = json!({ "recording_id": "w" });
    let job = json!({ "state": "removed", "input_data": inputs, "attempts": attempts });
    let jobs = Jobs::from([("j".to_owned(), job)]);
    for (told, wrong) in [(Told::Failed, 0), (Told::Nothing, 1)] {
        let mut oracle = oracle();
        oracle.told("w", told);
        let mut found = Violations::new();
        oracle.judge_starts(&jobs, &texts(&["offloader-i-j-1"]), &mut found);
        assert_eq!(found.len(), wrong, "{found:?}");
    }
}

#[test]
fn answers_that_were_not_kept_are_told() {
    let attempts = |ran: bool| json!([{ "number": 1, "running_at": ran.then_some(1) }]);
    let job = |ran: bool| {
        let inputs = json!({ "recording_id": "w" });
        json!({ "state": "removed", "input_data": inputs, "attempts": attempts(ran) })
    };
    let runs = |id: &str| Told::Runs(id.to_owned());
    for (told, ran, wrong) in [
        (vec![runs("j")], true, 0),
        (vec![runs("j")], false, 1),
        (vec![runs("k")], true, 2),
        (vec![Told::Failed], false, 0),
        (vec![Told::Failed], true, 1),
        (vec![Told::Failed, runs("j")], true, 0),
        (vec![Told::Nothing], true, 0),
        (vec![Told::Nothing], false, 0),
    ] {
        let mut oracle = oracle();
        for told in &told {
            oracle.told("w", told.clone());
        }
        let jobs = Jobs::from([("j".to_owned(), job(ran))]);
        let starts = texts(if ran { &["offloader-i-j-1"] } else { &[] });
        let mut found = Violations::new();
        oracle.judge_answers(&jobs, &starts, &mut found);
        assert_eq!(found.len(), wrong, "{told:?}, ran: {ran}: {found:?}");
    }
}
