//! What is kept and what goes, and what is nobody's business here.

use serde_json::{Value, json};

use crate::plan::Plan;
use crate::world::{TOKEN, work_id};

/// A day in milliseconds: the floor under the keeping of undelivered work.
const DAY: i64 = 24 * 3600 * 1000;

fn transcription(id: &str, image: &str) -> Value {
    json!({
        "type": "transcribing",
        "runner": image,
        "max_duration_sec": 600,
        "input_data": {
            "site_url": "http://site.test:8065",
            "call_id": work_id("call"),
            "post_id": work_id("post"),
            "transcription_id": work_id(id),
            "auth_token": TOKEN,
            "transcribe_api": "whisper.cpp",
            "model_size": "base",
            "output_format": "vtt",
        },
    })
}

#[tokio::test]
async fn undelivered_work_stays_whatever_policy_says_and_delivered_work_goes() {
    let test = "undelivered_work_stays_whatever_policy_says_and_delivered_work_goes";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let recorder = "mkdir -p /data/$RECORDING_ID
        case $RECORDING_ID in left*) echo film > /data/$RECORDING_ID/call.mp4; exit 0;; esac
        echo log > /data/$RECORDING_ID/recorder.log
        trap 'exit 1' TERM; while :; do sleep 0.05; done";
    let transcriber = "mkdir -p /data/$TRANSCRIPTION_ID
        echo sound > /data/$TRANSCRIPTION_ID/a.ogg; echo text > /data/$TRANSCRIPTION_ID/a.vtt
        case $TRANSCRIPTION_ID in lost*) exit 1;; esac; exit 0";
    let delete = "{ unsent = \"delete\", delivered = \"delete\", failed = \"delete\" }";
    let mut world = plan.script(recorder).retention(delete).begin().await;
    let transcriber = world.engine.image("calls-transcriber:v1.0.0", transcriber);

    let left = world.recording("left");
    let mut stopped = world.recording("stopped");
    stopped["max_duration_sec"] = json!(1);
    let sent = transcription("sent", &transcriber);
    let lost = transcription("lost", &transcriber);
    for (body, delivered, outcome) in [
        (left, false, "failed"),
        (stopped, true, "succeeded"),
        (sent, true, "succeeded"),
        (lost, false, "failed"),
    ] {
        let id = world.start_body(body).await;
        let rests = |job: &Value| {
            ["retained", "removed"]
                .map(Value::from)
                .contains(&job["state"])
        };
        let job = world.until(&id, "at rest", rests).await;
        assert_eq!(job["outcome"], outcome, "{job:#}");
        if delivered {
            assert_eq!(
                (&job["delivery"], &job["state"]),
                (&json!("delivered"), &json!("removed")),
                "{job:#}"
            );
            assert!(world.engine.volumes_of(&id).is_empty());
            continue;
        }
        assert_eq!(
            (&job["delivery"], &job["state"]),
            (&json!("unsent"), &json!("retained")),
            "{job:#}"
        );
        let time = |name: &str| job[name].as_i64().unwrap_or_default();
        let kept = time("keep_until") - time("stop_at");
        assert!(
            (DAY - 60_000..=DAY + 60_000).contains(&kept),
            "kept for {kept} ms"
        );
        let log = world.daemon().log();
        let warned = |line: &str| line.contains("WARN") && line.contains(&id);
        assert!(log.lines().any(warned), "nobody was warned:\n{log}");
    }
    assert_eq!(world.agrees_after_crashes(2).await.volumes, 2);
}

#[tokio::test]
async fn what_only_looks_like_ours_is_never_touched() {
    let test = "what_only_looks_like_ours_is_never_touched";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.begin().await;
    let id = world.start_job("rec").await;
    let other = world.instance.clone() + "9";
    let label = |name: &str, value: &str| format!("{name}={value}");
    // As the standard service labels its own; as another installation beside this one; and as
    // somebody would who has copied a label.
    let app = "app=mattermost-calls-offloader".to_owned();
    let foreign = [
        vec![app.clone()],
        vec![
            app.clone(),
            label("io.offloader.instance", &other),
            label("io.offloader.job", &id),
            label("io.offloader.attempt", "1"),
        ],
        vec![label("io.offloader.job", &id)],
    ];
    let mut theirs = Vec::new();
    for labels in &foreign {
        let mut run = vec!["run", "--detach", "--volume", "/data"];
        run.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        run.push(&world.image);
        theirs.push(world.engine.docker(&run));
    }
    world.crash();
    world.recover(1).await;
    let ours = format!("offloader-{}-{id}-1", world.instance);
    world.engine.docker(&["kill", "--signal", "TERM", &ours]);
    world.until_removed(&id).await;
    let answer = world.daemon().admin().delete(&id).await;
    assert_eq!(answer.expect("an answer").status, 200);
    world.agrees_after_crashes(0).await;
    for container in &theirs {
        let seen = world.engine.inspect(container);
        assert_eq!(seen["State"]["Running"], true, "{container} was touched");
        world
            .engine
            .docker(&["rm", "--force", "--volumes", container]);
    }
}
