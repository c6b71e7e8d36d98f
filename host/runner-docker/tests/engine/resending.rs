//! Sending in again what another container left.

use std::collections::BTreeMap;

use bollard::models::HostConfig;
use bollard::query_parameters::RemoveVolumeOptions;
use domain::Leftovers;
use engine::{LaunchError, Runner, Sighting};
use gate::LaunchPermit;

use crate::bench::{Bench, MAX_DURATION, always, with_engine};

const OFFERS: &str = "LABEL io.offloader.resend=true";
const FILM: &str = "file=/data/a/call.mp4:5000";
const SENDS: [&str; 4] = [
    FILM,
    "exit=1",
    "resend:remove=/data/a/call.mp4",
    "resend:exit=0",
];

/// A container that could not send what it had, by an image that can be told to try again.
async fn unsent(bench: &Bench, steps: &[&str]) -> (LaunchPermit, LaunchPermit) {
    let image = bench.image_from("/probe", steps, OFFERS).await;
    let source = bench.permit_with(1, &image, &[("recording_id", &"r".repeat(26))], |_| {});
    bench.runner.launch(&source, &always()).await.unwrap();
    assert_eq!(bench.until_ended(&source).await.code, 1);
    let resend = bench.permit_to_resend(2, &image, &source);
    (source, resend)
}

async fn media_bytes(bench: &Bench, permit: &LaunchPermit) -> Option<u64> {
    let left = bench.runner.leftovers(permit.name()).await.unwrap();
    left.map(|left: Leftovers| left.media_bytes)
}

#[tokio::test]
async fn what_one_container_left_another_sends_and_the_volume_stays_with_the_first() {
    with_engine(async |bench| {
        let (source, resend) = unsent(bench, &SENDS).await;
        assert_eq!(media_bytes(bench, &source).await, Some(5000));
        bench.runner.launch(&resend, &always()).await.unwrap();
        assert_eq!(bench.until_ended(&resend).await.code, 0);
        for permit in [&source, &resend] {
            assert_eq!(media_bytes(bench, permit).await, Some(0));
        }

        let seen = bench.inspect(&resend).await.unwrap();
        let config = seen.config.unwrap();
        assert_eq!(config.cmd, Some(vec!["resend".to_owned()]));
        let mounts = seen.mounts.unwrap_or_default();
        let names: Vec<_> = mounts.iter().map(|mount| mount.name.clone()).collect();
        assert_eq!(
            names,
            [Some(source.name().volume())],
            "no volume of its own"
        );
        let own = bench.docker.inspect_volume(&resend.name().volume()).await;
        assert!(own.is_err());
        let host = seen.host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));

        // The volume is not taken for a second job's, nor does it go with the second one.
        let all = [source.name().clone(), resend.name().clone()];
        assert_eq!(bench.runner.list().await.unwrap(), all);
        bench.runner.remove(resend.name()).await.unwrap();
        assert!(bench.inspect(&resend).await.is_none());
        assert_eq!(media_bytes(bench, &source).await, Some(0));
        bench.runner.remove(source.name()).await.unwrap();
        assert!(bench.nothing_left(&source).await);
        assert!(bench.runner.list().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_it_cannot_send_stays_where_it_was() {
    with_engine(async |bench| {
        let (source, resend) = unsent(bench, &[FILM, "exit=1", "resend:exit=1"]).await;
        bench.runner.launch(&resend, &always()).await.unwrap();
        assert_eq!(bench.until_ended(&resend).await.code, 1);
        assert_eq!(media_bytes(bench, &resend).await, Some(5000));
        bench.runner.remove(resend.name()).await.unwrap();
        assert_eq!(media_bytes(bench, &source).await, Some(5000));
    })
    .await;
}

#[tokio::test]
async fn the_engine_keeps_a_volume_that_is_being_sent() {
    with_engine(async |bench| {
        let (source, resend) = unsent(bench, &[FILM, "exit=1", "resend:hold=0"]).await;
        bench.runner.launch(&resend, &always()).await.unwrap();
        let force = RemoveVolumeOptions { force: true };
        let volume = source.name().volume();
        let removed = bench.docker.remove_volume(&volume, Some(force)).await;
        assert!(removed.is_err());
        let described = bench.runner.describe(resend.name()).await.unwrap().unwrap();
        assert_eq!(described.resends.as_ref(), Some(source.name().job()));
        assert_eq!(described.max_duration, MAX_DURATION);
        let described = bench.runner.describe(source.name()).await.unwrap().unwrap();
        assert_eq!(described.resends, None);
    })
    .await;
}

#[tokio::test]
async fn in_an_empty_volume_nothing_would_be_left_to_send_so_it_does_not_run() {
    with_engine(async |bench| {
        let (source, resend) = unsent(bench, &SENDS).await;
        bench.runner.remove(source.name()).await.unwrap();
        let error = bench.runner.launch(&resend, &always()).await.unwrap_err();
        assert!(
            matches!(&error, LaunchError::Refused(why) if why.contains("gone")),
            "{error}"
        );
        assert!(bench.nothing_left(&resend).await && bench.nothing_left(&source).await);
        // Nor in somebody else's of the name.
        let volume = bollard::models::VolumeCreateRequest {
            name: Some(source.name().volume()),
            ..Default::default()
        };
        bench.docker.create_volume(volume).await.unwrap();
        let error = bench.runner.launch(&resend, &always()).await.unwrap_err();
        assert!(matches!(error, LaunchError::Refused(_)), "{error}");
        assert_eq!(
            bench.runner.inspect(resend.name()).await.unwrap(),
            Sighting::Absent
        );
    })
    .await;
}

#[tokio::test]
async fn the_engine_still_knows_how_an_ended_container_was_run() {
    with_engine(async |bench| {
        let (source, _) = unsent(bench, &SENDS).await;
        let remains = bench.runner.remains(source.name()).await.unwrap().unwrap();
        assert!(remains.offers_resend);
        let id = remains
            .env
            .get("RECORDING_ID")
            .map(|id| id.reveal().to_owned());
        assert_eq!(id, Some("r".repeat(26)));
        assert!(!format!("{remains:?}").contains("rrrr"));

        let image = bench.image(&[FILM, "exit=1"]).await;
        let other = bench.permit(3, &image);
        bench.runner.launch(&other, &always()).await.unwrap();
        bench.until_ended(&other).await;
        let remains = bench.runner.remains(other.name()).await.unwrap().unwrap();
        assert!(!remains.offers_resend, "it would record again");

        bench.runner.remove(other.name()).await.unwrap();
        assert!(bench.runner.remains(other.name()).await.unwrap().is_none());
        // One of the name that is not ours tells nothing.
        let labels = BTreeMap::from([("io.offloader.resend".to_owned(), "true".to_owned())]);
        bench
            .create_by_hand(&other, labels, HostConfig::default())
            .await;
        assert!(bench.runner.remains(other.name()).await.unwrap().is_none());
    })
    .await;
}
