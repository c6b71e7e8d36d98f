//! Uploads in chunks, and whose they are.

use std::fs;

use offloader_test_site::{Happening, JobType::Recording};

use crate::support::{Bot, CHUNK, World};

#[tokio::test]
async fn uploads_are_refused_cut_and_resumed() {
    let world = World::start().await;
    let call = world.record().await;
    let recorder = Bot::new(&world.site, &call, Recording);
    let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|n| (n % 251) as u8).collect();
    world.site.refuse_next_uploads(3);
    world.site.cut_next_chunk();
    let (file, refused) = recorder.upload("call.mp4", &bytes).await;
    assert_eq!(refused, 4, "three refusals and a cut");
    assert_eq!(recorder.attach(&[&file]).await.0, 200);
    let recording = call.report().recording.expect("a recording");
    assert_eq!(fs::read(recording.path).expect("the file"), bytes);
}

#[tokio::test]
async fn the_limit_on_chunks_holds() {
    let world = World::start().await;
    let call = world.record().await;
    let recorder = Bot::new(&world.site, &call, Recording);
    let announced = recorder
        .post("bot/uploads")
        .json(
            &serde_json::json!({ "filename": "a.mp4", "file_size": 5000, "channel_id": call.id() }),
        )
        .send()
        .await
        .expect("an answer");
    assert_eq!(announced.headers()["x-max-chunk-bytes"], CHUNK.to_string());
    let session: serde_json::Value = announced.json().await.expect("JSON");
    let upload = session["id"].as_str().expect("an id");
    for too_long in [CHUNK + 1, CHUNK + 2, 2 * CHUNK] {
        assert_eq!(recorder.send(upload, &vec![0; too_long]).await.0, 413);
    }
    assert_eq!(recorder.offset(upload).await.1["file_offset"], 0);
    assert_eq!(recorder.send(upload, &[0; CHUNK]).await.0, 204);
    assert_eq!(recorder.offset(upload).await.1["file_offset"], CHUNK);

    let (_, small) = recorder.announce("b.mp4", 10).await;
    assert_eq!(
        recorder
            .send(small["id"].as_str().expect("an id"), &[0; 11])
            .await
            .0,
        400
    );
    assert_eq!(recorder.announce("../b.mp4", 10).await.0, 400);
    assert_eq!(recorder.attach(&["nothing"]).await.0, 400);
}

#[tokio::test]
async fn only_the_calls_own_token_is_good() {
    let world = World::start().await;
    let (call, other) = (world.record().await, world.record().await);
    let mut bot = Bot::new(&world.site, &call, Recording);
    bot.token = "wrong".into();
    assert_eq!(bot.started().await.0, 401);
    assert_eq!(bot.page().await.0, 401);
    assert_eq!(bot.listen().await.status(), 401);
    assert_eq!(bot.announce("a.mp4", 1).await.0, 401);
    assert_eq!(bot.attach(&["x"]).await.0, 401);
    assert!(world.happened(|what| matches!(what, Happening::Unauthorized { .. })));
    bot.token = other.token().into();
    assert_eq!(bot.started().await.1["err"], "no call ongoing");
    assert_eq!(bot.announce("a.mp4", 1).await.0, 403);
    assert!(!call.report().jobs[0].started);
}

#[tokio::test]
async fn a_token_is_good_after_its_call() {
    let world = World::start().await;
    let call = world.record().await;
    let recorder = Bot::new(&world.site, &call, Recording);
    recorder.started().await;
    call.end();
    let (file, _) = recorder.upload("late.mp4", &[1; 10]).await;
    assert_eq!(recorder.attach(&[&file]).await.0, 200);
    let name = recorder
        .get(&format!("bot/calls/{}/filename", call.id()))
        .send()
        .await
        .expect("an answer");
    let name: serde_json::Value = name.json().await.expect("JSON");
    assert!(
        name["filename"]
            .as_str()
            .is_some_and(|stem| stem.contains(call.id()) && !stem.contains('.'))
    );
}
