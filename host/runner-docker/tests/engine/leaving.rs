//! What containers leave behind: looking at it, and removing it.

use std::collections::HashMap;

use bollard::models::{HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{RemoveContainerOptions, RemoveVolumeOptions};
use domain::Leftovers;
use engine::Runner;

use crate::bench::{always, with_engine};

#[tokio::test]
async fn what_is_left_in_the_volume_is_counted() {
    with_engine(async |bench| {
        for (job, steps, media_bytes, total_bytes) in [
            (1, &["exit=0"][..], 0, 0),
            (
                2,
                &["file=/data/a/recorder.log:12", "file=/elsewhere.mp4:5"],
                0,
                12,
            ),
            (
                3,
                &[
                    "file=/data/a/call.mp4:5000000",
                    "file=/data/a/recorder.log:12",
                ],
                5_000_000,
                5_000_012,
            ),
        ] {
            let image = bench.image(steps).await;
            let permit = bench.permit(job, &image);
            bench.runner.launch(&permit, &always()).await.unwrap();
            assert_eq!(bench.until_ended(&permit).await.code, 0);
            let left = bench.runner.leftovers(permit.name()).await.unwrap();
            assert_eq!(
                left,
                Some(Leftovers {
                    media_bytes,
                    total_bytes
                }),
                "{steps:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_volume_is_not_looked_at_while_its_container_runs() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let error = bench.runner.leftovers(permit.name()).await.unwrap_err();
        assert!(!error.unreachable);
    })
    .await;
}

#[tokio::test]
async fn volumes_that_the_image_declares_go_too_and_others_stay() {
    with_engine(async |bench| {
        let image = bench
            .image_from("/probe", &["file=/extra/x:5", "exit=0"], "VOLUME /extra")
            .await;
        let (permit, other) = (bench.permit(1, &image), bench.permit(2, &image));
        for permit in [&permit, &other] {
            bench.runner.launch(permit, &always()).await.unwrap();
            bench.until_ended(permit).await;
        }
        let volumes = async |permit| -> Vec<String> {
            let mounts = bench.inspect(permit).await.unwrap().mounts.unwrap();
            mounts
                .into_iter()
                .map(|mount| mount.name.unwrap())
                .collect()
        };
        let (gone, stay) = (volumes(&permit).await, volumes(&other).await);
        assert_eq!((gone.len(), stay.len()), (2, 2));
        bench.runner.remove(permit.name()).await.unwrap();
        assert!(bench.nothing_left(&permit).await);
        for volume in gone {
            assert!(
                bench.docker.inspect_volume(&volume).await.is_err(),
                "{volume}"
            );
        }
        for volume in stay {
            assert!(
                bench.docker.inspect_volume(&volume).await.is_ok(),
                "{volume}"
            );
        }
        bench.runner.remove(other.name()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_volume_without_its_container_is_found_and_removed() {
    with_engine(async |bench| {
        let image = bench.image(&["file=/data/a/call.mp4:5", "exit=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        bench.until_ended(&permit).await;
        let options = RemoveContainerOptions {
            v: true,
            ..Default::default()
        };
        bench
            .docker
            .remove_container(&permit.name().to_string(), Some(options))
            .await
            .unwrap();
        assert!(
            bench
                .docker
                .inspect_volume(&permit.name().volume())
                .await
                .is_ok()
        );
        assert_eq!(bench.runner.leftovers(permit.name()).await.unwrap(), None);
        assert_eq!(bench.runner.list().await.unwrap(), [permit.name().clone()]);
        bench.runner.remove(permit.name()).await.unwrap();
        assert!(bench.nothing_left(&permit).await);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_volume_of_our_name_stays() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &image);
        let volume = VolumeCreateRequest {
            name: Some(permit.name().volume()),
            ..Default::default()
        };
        bench.docker.create_volume(volume).await.unwrap();
        bench.runner.remove(permit.name()).await.unwrap();
        assert!(
            bench
                .docker
                .inspect_volume(&permit.name().volume())
                .await
                .is_ok()
        );
        bench
            .docker
            .remove_volume(&permit.name().volume(), None::<RemoveVolumeOptions>)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_running_container_is_removed_with_its_volume() {
    with_engine(async |bench| {
        let image = bench.image(&["ignore"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let (a, b) = tokio::join!(
            bench.runner.remove(permit.name()),
            bench.runner.remove(permit.name())
        );
        a.unwrap();
        b.unwrap();
        assert!(bench.nothing_left(&permit).await);
    })
    .await;
}

#[tokio::test]
async fn containers_of_others_are_not_listed() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=0"]).await;
        let (ours, foreign, other_name) = (
            bench.permit(1, &image),
            bench.permit(2, &image),
            bench.permit(3, &image),
        );
        bench.runner.launch(&ours, &always()).await.unwrap();
        let app_only = [("app".to_owned(), "mattermost-calls-offloader".to_owned())];
        bench
            .create_by_hand(&foreign, app_only.into(), HostConfig::default())
            .await;
        let mut of_another_instance = other_name.labels().clone();
        of_another_instance.insert("io.offloader.instance".to_owned(), "another".to_owned());
        bench
            .create_by_hand(&other_name, of_another_instance, HostConfig::default())
            .await;
        assert_eq!(bench.runner.list().await.unwrap(), [ours.name().clone()]);
    })
    .await;
}

#[tokio::test]
async fn the_volume_carries_the_permits_labels() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let volume = bench
            .docker
            .inspect_volume(&permit.name().volume())
            .await
            .unwrap();
        let labels: HashMap<_, _> = permit.labels().clone().into_iter().collect();
        assert_eq!(volume.labels, labels);
    })
    .await;
}
