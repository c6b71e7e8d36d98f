//! Fetching what an ended container left, whole or not at all.

use std::io::Read;
use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use bytes::Bytes;
use engine::{FileStream, FilesError, Runner, RunnerError};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gate::LaunchPermit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;

use crate::bench::{Bench, always, with_engine};

/// The regular files of an archive, each with its contents.
async fn contents(files: FileStream) -> Result<Vec<(String, Vec<u8>)>, RunnerError> {
    let parts: Vec<Bytes> = files.try_collect().await?;
    let whole = parts.concat();
    let mut archive = tar::Archive::new(whole.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let path = entry.path().unwrap().display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            found.push((path, contents));
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a container that leaves files until it has ended.
async fn leave(bench: &Bench, files: &[&str]) -> LaunchPermit {
    let steps: Vec<_> = files.iter().map(|file| format!("file={file}")).collect();
    let steps: Vec<_> = steps.iter().map(String::as_str).chain(["exit=1"]).collect();
    let image = bench.image(&steps).await;
    let permit = bench.permit(1, &image);
    bench.runner.launch(&permit, &always()).await.unwrap();
    assert_eq!(bench.until_ended(&permit).await.code, 1);
    permit
}

#[tokio::test]
async fn what_is_in_the_volume_comes_out_byte_for_byte() {
    with_engine(async |bench| {
        let files = [
            "/data/a/call.mp4:3000001",
            "/data/a/recorder.log:12",
            "/else.mp4:5",
        ];
        let permit = leave(bench, &files).await;
        let fetched = bench.runner.files(permit.name()).await.unwrap().unwrap();
        let expected = [
            ("data/a/call.mp4".to_owned(), vec![b'x'; 3_000_001]),
            ("data/a/recorder.log".to_owned(), vec![b'x'; 12]),
        ];
        assert!(contents(fetched).await.unwrap() == expected);
    })
    .await;
}

#[tokio::test]
async fn a_container_that_runs_is_left_to_its_work_and_one_that_never_was_has_nothing() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let (permit, none) = (bench.permit(1, &image), bench.permit(2, &image));
        bench.runner.launch(&permit, &always()).await.unwrap();
        let refused = bench.runner.files(permit.name()).await.err();
        assert!(matches!(refused, Some(FilesError::Running)), "{refused:?}");
        assert!(bench.runner.files(none.name()).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_volume_whose_container_was_removed_by_hand_is_named_with_the_way_to_its_files() {
    with_engine(async |bench| {
        let permit = leave(bench, &["/data/a/call.mp4:5"]).await;
        let name = permit.name().to_string();
        let removed = bench.docker.remove_container(&name, None);
        removed.await.unwrap();
        let volume = permit.name().volume();
        let found = bench.docker.inspect_volume(&volume).await.unwrap();
        let error = bench.runner.files(permit.name()).await.err().unwrap();
        let told = error.to_string();
        assert!(
            matches!(error, FilesError::ContainerGone { .. })
                && told.contains(&volume)
                && told.contains(&format!("tar -C {} -cf", found.mountpoint)),
            "{told}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_removal_while_the_files_are_fetched_is_never_taken_for_their_end() {
    with_engine(async |bench| {
        let permit = leave(bench, &["/data/a/0.mp4:30000000", "/data/a/1.mp4:30000000"]).await;
        let mut files = bench.runner.files(permit.name()).await.unwrap().unwrap();
        let first = files.next().await.unwrap();
        let by_hand = async {
            let name = permit.name().to_string();
            let force = RemoveContainerOptions {
                force: true,
                ..Default::default()
            };
            let removed = bench.docker.remove_container(&name, Some(force)).await;
            removed.unwrap();
            bench.runner.remove(permit.name()).await.unwrap();
        };
        let rest = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            contents(futures_util::stream::iter([first]).chain(files).boxed()).await
        };
        let (fetched, ()) = tokio::join!(rest, by_hand);
        if let Ok(fetched) = fetched {
            let lengths: Vec<_> = fetched.iter().map(|(_, bytes)| bytes.len()).collect();
            assert_eq!(lengths, [30_000_000, 30_000_000]);
        }
    })
    .await;
}

/// A way to the engine that is cut in the middle of an archive.
async fn cut_line(bench: &Bench) -> (String, JoinHandle<()>) {
    const PASSED: u64 = 1_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let socket = bench.host.trim_start_matches("unix://").to_owned();
    let line = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut engine = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move {
                let mut head = vec![0; 64 * 1024];
                let read = client.read(&mut head).await.unwrap();
                engine.write_all(&head[..read]).await.unwrap();
                if String::from_utf8_lossy(&head[..read]).contains("/archive?") {
                    let mut part = engine.take(PASSED);
                    tokio::io::copy(&mut part, &mut client).await.unwrap();
                } else {
                    let _ = copy_bidirectional(&mut client, &mut engine).await;
                }
            });
        }
    });
    (address, line)
}

#[tokio::test]
async fn files_whose_way_is_cut_break_off_with_an_error() {
    with_engine(async |bench| {
        let permit = leave(bench, &["/data/a/call.mp4:3000001"]).await;
        let (address, line) = cut_line(bench).await;
        let runner = bench.runner_with(|config| config.host = Some(address));
        let files = runner.files(permit.name()).await.unwrap().unwrap();
        assert!(contents(files).await.is_err());
        line.abort();
    })
    .await;
}
