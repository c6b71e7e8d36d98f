//! Images that the engine does not have yet, or cannot get.

use std::time::Duration;

use bollard::query_parameters::RemoveImageOptions;
use domain::EndReason;
use engine::{PrepareError, Runner};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::bench::{Bench, with_engine};
use crate::registry::{Registry, free_port, image_at};

/// Removes a name of an image from the engine, and the image when it was the last.
pub(crate) async fn take_away(bench: &Bench, image: &str) {
    let force = RemoveImageOptions {
        force: true,
        ..Default::default()
    };
    bench
        .docker
        .remove_image(image, Some(force), None)
        .await
        .unwrap();
}

#[track_caller]
fn assert_failed<T: std::fmt::Debug>(result: Result<T, PrepareError>, expected: EndReason) {
    match result {
        Err(PrepareError::Pull {
            reason, ref detail, ..
        }) => assert_eq!(reason, expected, "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_that_is_there_is_not_pulled() {
    with_engine(async |bench| {
        let (image, id) = bench.image(&["exit=0"]).await;
        assert_eq!(
            bench
                .runner
                .prepare(&bench.image_permit(&image))
                .await
                .unwrap(),
            id
        );
    })
    .await;
}

#[tokio::test]
async fn an_image_is_pulled_by_name_and_by_digest() {
    with_engine(async |bench| {
        let registry = Registry::start(false);
        let (local, id) = bench.image(&["exit=0"]).await;
        let image = registry.push(bench, &local, "probe").await;
        assert_eq!(
            bench
                .runner
                .prepare(&bench.image_permit(&image))
                .await
                .unwrap(),
            id
        );

        let known = bench
            .docker
            .inspect_image(&image.to_string())
            .await
            .unwrap()
            .repo_digests
            .unwrap();
        let digest = known[0].split_once('@').unwrap().1.parse().unwrap();
        let pinned = image.clone().pinned(digest);
        for there in [true, false] {
            if !there {
                take_away(bench, id.as_str()).await;
            }
            assert_eq!(
                bench
                    .runner
                    .prepare(&bench.image_permit(&pinned))
                    .await
                    .unwrap(),
                id
            );
        }
        let launched = bench.output_of(&bench.permit(1, &(pinned, id))).await;
        assert_eq!(launched, "");

        let wrong = image.pinned(format!("sha256:{}", "0".repeat(64)).parse().unwrap());
        assert_failed(
            bench.runner.prepare(&bench.image_permit(&wrong)).await,
            EndReason::ImageNotFound,
        );
    })
    .await;
}

#[tokio::test]
async fn a_registry_without_the_image_says_not_found() {
    with_engine(async |bench| {
        let registry = Registry::start(false);
        let image = registry.image("missing");
        assert_failed(
            bench.runner.prepare(&bench.image_permit(&image)).await,
            EndReason::ImageNotFound,
        );
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_wants_a_password_says_unauthorized() {
    with_engine(async |bench| {
        let registry = Registry::start(true);
        let image = registry.image("private");
        assert_failed(
            bench.runner.prepare(&bench.image_permit(&image)).await,
            EndReason::ImageUnauthorized,
        );
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_down_is_unreachable() {
    with_engine(async |bench| {
        for image in [
            image_at(free_port(), "x"),
            "registry.invalid/team/x:v1".parse().unwrap(),
        ] {
            assert_failed(
                bench.runner.prepare(&bench.image_permit(&image)).await,
                EndReason::ImageUnreachable,
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_says_nothing_has_stalled() {
    with_engine(async |bench| {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let image = image_at(silent.local_addr().unwrap(), "x");
        let hold = tokio::spawn(async move {
            let mut connections = Vec::new();
            loop {
                connections.push(silent.accept().await);
            }
        });
        let runner = bench.runner_with(|config| config.pull_stall_timeout = Duration::from_secs(1));
        let pulled = timeout(
            Duration::from_secs(5),
            runner.prepare(&bench.image_permit(&image)),
        )
        .await;
        hold.abort();
        assert_failed(pulled.expect("it gives up"), EndReason::ImageStalled);
    })
    .await;
}

#[tokio::test]
async fn an_error_inside_the_pull_stream_is_one() {
    with_engine(async |bench| {
        let registry = Registry::start(false);
        let (local, _) = bench.image(&["exit=0"]).await;
        let image = registry.push(bench, &local, "torn").await;
        registry.lose_layers();
        let pulled = bench.runner.prepare(&bench.image_permit(&image)).await;
        assert_failed(pulled, EndReason::ImageUnreachable);
    })
    .await;
}

#[tokio::test]
async fn one_pull_serves_all_who_wait_for_it() {
    with_engine(async |bench| {
        let registry = Registry::start(false);
        let (local, id) = bench.image(&["exit=0"]).await;
        let image = registry.push(bench, &local, "shared").await;
        let before = registry.pulls_of(&image);
        let permit = bench.image_permit(&image);
        let pulled = join_all((0..10).map(|_| bench.runner.prepare(&permit))).await;
        assert!(pulled.into_iter().all(|pulled| pulled.unwrap() == id));
        assert_eq!(registry.pulls_of(&image) - before, 1);
    })
    .await;
}

#[tokio::test]
async fn a_pull_goes_on_when_those_who_wait_go() {
    with_engine(async |bench| {
        let registry = Registry::start(false);
        let (local, _) = bench.image(&["exit=0"]).await;
        let image = registry.push(bench, &local, "left").await;
        let (permit, before) = (bench.image_permit(&image), registry.pulls_of(&image));
        let begun = async {
            while registry.pulls_of(&image) == before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            pulled = bench.runner.prepare(&permit) => panic!("done before anybody could go: {pulled:?}"),
            () = begun => {}
        }
        let arrived = async {
            while bench.docker.inspect_image(&image.to_string()).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), arrived).await.expect("the image arrives");
    })
    .await;
}
