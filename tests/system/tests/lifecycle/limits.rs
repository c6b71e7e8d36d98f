//! Limits of a type of job, other people's jobs, and images that do not exist.

use offloader_system_tests::KEY;

use crate::work::{WORKS_ON, Work};

#[tokio::test]
async fn recordings_have_a_limit_of_their_own() {
    let test = "recordings_have_a_limit_of_their_own";
    let config = "jobs.max_concurrent_jobs = 4\njobs.max_concurrent_recordings = 1";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    work.start("one").await;
    let refused = work.submit(&work.recording("two")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().ends_with("max concurrent jobs reached"));
}

#[tokio::test]
async fn a_recording_without_room_for_its_transcription_is_refused() {
    let test = "a_recording_without_room_for_its_transcription_is_refused";
    let config = "jobs.max_concurrent_jobs = 3\njobs.reserve_for_transcription = true";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    work.start("one").await;
    let refused = work.submit(&work.recording("two")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
}

#[tokio::test]
async fn a_job_is_refused_when_the_engines_disk_has_too_little_room() {
    let test = "a_job_is_refused_when_the_engines_disk_has_too_little_room";
    let config = "jobs.min_free_disk = \"1000TiB\"";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    let refused = work.submit(&work.recording("one")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("MB of disk free"), "{refused:?}");
    assert!(refused.text().contains("jobs.min_free_disk"), "{refused:?}");
}

#[tokio::test]
async fn a_job_is_its_clients_and_the_administrators() {
    let test = "a_job_is_its_clients_and_the_administrators";
    let config = "[api.security]\nenable_admin = true\n\
                  admin_secret_key = \"the-secret-of-the-administrator-in-a-test\"";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    let id = work.start("rec").await;
    let stranger = work.daemon.client("a-stranger", KEY);
    for answer in [
        stranger.job(&id).await,
        stranger.logs(&id).await,
        stranger.delete(&id).await,
    ] {
        assert_eq!(answer.expect("the daemon answers").status, 404);
    }
    let list = stranger.list().await.expect("the daemon answers").json();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(0), "{list}");
    let admin = work.daemon.admin();
    assert_eq!(
        admin.job(&id).await.expect("the daemon answers").status,
        200
    );
    let list = admin.list().await.expect("the daemon answers").json();
    assert_eq!(list["jobs"][0]["id"], id.as_str(), "{list}");
    work.container(&id);
}

#[tokio::test]
async fn an_image_that_does_not_exist_fails_the_submission_and_leaves_nothing() {
    let test = "an_image_that_does_not_exist_fails_the_submission_and_leaves_nothing";
    let config = "jobs.start_timeout = \"20s\"";
    let Some(work) = Work::configured(test, WORKS_ON, config).await else {
        return;
    };
    let mut body = work.recording("rec");
    body["runner"] = format!("{}/calls-recorder:v9.9.9", work.engine.registry()).into();
    let answer = work.submit(&body).await;
    assert!((500..600).contains(&answer.status), "{answer:?}");
    assert!(
        answer
            .text()
            .starts_with("failed to create recording job: "),
        "{answer:?}"
    );
    let jobs = work
        .client()
        .list()
        .await
        .expect("the daemon answers")
        .json();
    for job in jobs["jobs"].as_array().into_iter().flatten() {
        let id = job["id"].as_str().expect("a job has an id");
        assert!(work.engine.containers_of(id).is_empty() && work.engine.volumes_of(id).is_empty());
    }
    // It takes no slot, and a new press works.
    work.start("rec").await;
}
