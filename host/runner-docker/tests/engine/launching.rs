//! Once, or not at all: adoption, withdrawal and failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bollard::models::HostConfig;
use engine::{LaunchError, Runner, Sighting, StartTicket};

use crate::bench::{always, with_engine};

/// A ticket that says `answer` and counts how often it was asked.
fn counting(answer: bool) -> (StartTicket, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let ticket = StartTicket::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        answer
    });
    (ticket, asked)
}

#[tokio::test]
async fn a_running_container_is_adopted_and_not_started_again() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let (ticket, asked) = counting(true);
        let first = bench.runner.launch(&permit, &ticket).await.unwrap();
        let id = bench.inspect(&permit).await.unwrap().id;
        // Also when its image has lost its name since.
        bench
            .docker
            .remove_image(&image.0.to_string(), force(), None)
            .await
            .unwrap();
        let second = bench.runner.launch(&permit, &ticket).await.unwrap();
        assert_eq!((second, asked.load(Ordering::Relaxed)), (first, 1));
        assert_eq!(bench.inspect(&permit).await.unwrap().id, id);
    })
    .await;
}

fn force() -> Option<bollard::query_parameters::RemoveImageOptions> {
    Some(bollard::query_parameters::RemoveImageOptions {
        force: true,
        ..Default::default()
    })
}

#[tokio::test]
async fn a_container_that_ran_is_adopted_and_never_started_again() {
    with_engine(async |bench| {
        let image = bench.image(&["exit=5"]).await;
        let permit = bench.permit(1, &image);
        let first = bench.runner.launch(&permit, &always()).await.unwrap();
        let exit = bench.until_ended(&permit).await;
        let (ticket, asked) = counting(true);
        let second = bench.runner.launch(&permit, &ticket).await.unwrap();
        assert_eq!((second, asked.load(Ordering::Relaxed)), (first, 0));
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Ended(exit)
        );
    })
    .await;
}

#[tokio::test]
async fn a_container_that_was_only_created_is_adopted_and_started() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let id = bench
            .create_by_hand(&permit, permit.labels().clone(), HostConfig::default())
            .await;
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Created
        );
        let (ticket, asked) = counting(true);
        bench.runner.launch(&permit, &ticket).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let found = bench.inspect(&permit).await.unwrap();
        assert_eq!(
            (found.id, found.state.unwrap().running),
            (Some(id), Some(true))
        );
    })
    .await;
}

#[tokio::test]
async fn what_has_the_name_and_not_the_labels_or_the_image_is_left_alone() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let other_image = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &image);
        let other_plan = bench.permit_with(1, &image, &[], |grants| grants.pids = 99);
        let other_image = bench.permit(1, &(image.0.clone(), other_image.1.clone()));
        for (labels, authorized) in [
            (Default::default(), &permit),
            (other_plan.labels().clone(), &permit),
            (other_image.labels().clone(), &other_image),
        ] {
            let id = bench
                .create_by_hand(&permit, labels, HostConfig::default())
                .await;
            let launched = bench.runner.launch(authorized, &always()).await;
            assert!(
                matches!(launched, Err(LaunchError::NameTaken { .. })),
                "{launched:?}"
            );
            assert_eq!(bench.inspect(&permit).await.unwrap().id.as_ref(), Some(&id));
            bench.docker.remove_container(&id, None).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_container_of_a_name_like_ours_is_never_touched() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let name = permit.name();
        let mut labels = permit.labels().clone();
        labels.remove("io.offloader.job");
        let id = bench
            .create_by_hand(&permit, labels, HostConfig::default())
            .await;
        bench.docker.start_container(&id, None).await.unwrap();
        assert_eq!(bench.runner.inspect(name).await.unwrap(), Sighting::Absent);
        bench.runner.terminate(name).await.unwrap();
        bench.runner.kill(name).await.unwrap();
        bench.runner.remove(name).await.unwrap();
        assert!(bench.logs(&permit).await.is_none());
        assert_eq!(bench.runner.leftovers(name).await.unwrap(), None);
        let found = bench.inspect(&permit).await.unwrap();
        assert_eq!(
            (found.id, found.state.unwrap().running),
            (Some(id), Some(true))
        );
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_start_leaves_nothing() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let (ticket, asked) = counting(false);
        let launched = bench.runner.launch(&permit, &ticket).await;
        assert!(
            matches!(launched, Err(LaunchError::Withdrawn)),
            "{launched:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(bench.nothing_left(&permit).await);
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_not_the_authorized_one_does_not_start() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let other = bench.image(&["exit=0"]).await;
        let permit = bench.permit(1, &(image.0, other.1));
        let (ticket, asked) = counting(true);
        let launched = bench.runner.launch(&permit, &ticket).await;
        assert!(
            matches!(launched, Err(LaunchError::ImageChanged { .. })),
            "{launched:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert!(bench.nothing_left(&permit).await);
    })
    .await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    with_engine(async |bench| {
        let image = bench.image_from("/missing", &[], "").await;
        let no_program = bench.permit(1, &image);
        let image = bench.image(&["exit=0"]).await;
        let no_network = bench.permit_with(2, &image, &[], |grants| {
            grants.networks = vec!["nowhere".into()]
        });
        let missing = ("offloader-test/missing:v1".parse().unwrap(), image.1);
        let no_image = bench.permit(3, &missing);
        for permit in [no_program, no_network, no_image] {
            let launched = bench.runner.launch(&permit, &always()).await;
            assert!(
                matches!(launched, Err(LaunchError::Refused(_))),
                "{launched:?}"
            );
            assert!(bench.nothing_left(&permit).await, "{}", permit.image());
        }
    })
    .await;
}

#[tokio::test]
async fn two_launches_at_once_start_one_container() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let (a, b) = (always(), always());
        let (a, b) = tokio::join!(
            bench.runner.launch(&permit, &a),
            bench.runner.launch(&permit, &b)
        );
        assert_eq!(a.unwrap(), b.unwrap());
        assert_eq!(bench.runner.list().await.unwrap().len(), 1);
    })
    .await;
}
