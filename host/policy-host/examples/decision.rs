//! scratch
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use domain::*;
use offloader_policy_host::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let mut facts = JobFacts {
        id: "9a0c3f".into(), client: "site-a".into(), kind: JobKind::Recording,
        image_asked: "mattermost/calls-recorder:v0.8.13".into(), image_chosen: "mattermost/calls-recorder:v0.8.13".into(),
        site_url_asked: "https://mattermost.example.com".into(), site_url_chosen: "https://mattermost.example.com".into(),
        max_duration: Duration::from_secs(3600), submitted_at: Timestamp::from_millis(1000), now: Timestamp::from_millis(2000),
        start_by: Timestamp::from_millis(101000), attempts: vec![], delivery: Some(Delivery::Unsent{bytes: 9}), inputs: BTreeMap::new(),
    };
    let mut a = Attempt::new(1, facts.image_asked.parse().unwrap(), facts.now);
    a.reason = Some(EndReason::ImageUnreachable);
    facts.attempts.push(a);
    let all: [(&str, Hook, &[(&str,&str)]); 4] = [
        ("image_map.wasm", Hook::ImageSelection, &[("registries", r#"{"mattermost":"localhost:5000/mattermost"}"#)]),
        ("site_url_map.wasm", Hook::SiteUrl, &[("recording", "http://localhost:8065")]),
        ("retry_backoff.wasm", Hook::Retry, &[("attempts","3"),("first_delay","2s")]),
        ("retention_rules.wasm", Hook::Retention, &[("delivered","delete"),("failed","7d")]),
    ];
    for (file, hook, settings) in all {
        let settings: BTreeMap<String,String> = settings.iter().map(|(k,v)|(k.to_string(),v.to_string())).collect();
        let mut c = PolicyConfig::new(file, file);
        c.settings = settings.clone();
        let t = Instant::now();
        let d = cap_std::fs::Dir::open_ambient_dir(&dir, cap_std::ambient_authority()).unwrap();
        let host = PolicyHost::load(PolicyHostConfig { dir: Some(d), policies: vec![c], artifacts: None }).unwrap();
        let load = t.elapsed();
        let floor = floor::Floor::new(&std::fs::read(format!("{dir}/{file}")).unwrap(), settings).unwrap();
        let shared = Arc::new(facts.clone());
        let run = |f: &dyn Fn()| {
            let mut v: Vec<u128> = Vec::new();
            for i in 0..22000 { let t = Instant::now(); f(); if i >= 2000 { v.push(t.elapsed().as_nanos()); } }
            v.sort_unstable();
            (v[v.len()/2] as f64/1000., v[v.len()*99/100] as f64/1000., v[v.len()*999/1000] as f64/1000.)
        };
        let ours = run(&|| match hook {
            Hook::ImageSelection => drop(host.decide_image(&facts, Purpose::Start)),
            Hook::SiteUrl => drop(host.decide_site_url(&facts)),
            Hook::Retry => drop(host.decide_retry(&facts)),
            Hook::Retention => drop(host.decide_retention(&facts)),
        });
        let bare = run(&|| floor.call(hook, &shared).unwrap());
        println!("{file}: load {load:?} ours {ours:?} floor {bare:?} ratio {:.2}", ours.0/bare.0);
    }
}
