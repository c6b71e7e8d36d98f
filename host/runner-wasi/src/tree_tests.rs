#![expect(
    clippy::disallowed_methods,
    reason = "tests make what they look at with plain means"
)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::mkdirat;

use super::*;

/// Makes a directory in a directory in a directory…, with a film in the last of them.
fn make_deep(top: &Path, depth: usize) {
    let mut dir: OwnedFd = File::open(top).unwrap().into();
    for _ in 0..depth {
        mkdirat(&dir, c"d", Mode::RWXU).unwrap();
        dir = open(dir.as_fd(), c"d").unwrap();
    }
    let film = openat(
        &dir,
        c"call.MP4",
        OFlags::CREATE | OFlags::WRONLY,
        Mode::RWXU,
    )
    .unwrap();
    rustix::io::write(film, b"12345").unwrap();
}

fn top(path: &Path) -> File {
    File::open(path).unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

#[test]
fn a_tree_that_is_deeper_than_any_path_is_counted_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    make_deep(temp.path(), 5_000);
    // Beside it, so that there is something to come back to.
    fs::write(temp.path().join("z"), [0; 10]).unwrap();
    let (before, mut most) = (descriptors(), 0);
    walk(top(temp.path()), |entry| {
        if entry.path.len() % 1000 == 1 {
            most = most.max(descriptors());
        }
        Ok(true)
    })
    .unwrap();
    // Other tests of this process have theirs.
    assert!(
        (1..before + 500).contains(&most),
        "{most} descriptors, {before} before"
    );
    let size = size(top(temp.path()), u64::MAX).unwrap();
    let left = Leftovers {
        media_bytes: 5,
        total_bytes: 15,
    };
    assert_eq!((size.files, size.on_disk), (left, 5_002 * LEAST));
    clear(top(temp.path())).unwrap();
    assert!(is_empty(temp.path()));
}

#[test]
fn wide_trees_with_names_of_any_kind_are_counted_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let (mut bytes, mut entries) = (0, 0);
    for branch in 0..20 {
        let branch = temp.path().join(format!("{branch}"));
        for twig in 0..20 {
            let twig = branch.join(format!("{twig}"));
            fs::create_dir_all(twig.join("empty")).unwrap();
            for leaf in 0..10 {
                fs::write(twig.join(format!("{leaf}")), vec![0; leaf]).unwrap();
                bytes += leaf as u64;
            }
            entries += 12;
        }
        entries += 1;
    }
    // Names that directories get on their way, taken by other things.
    fs::write(temp.path().join("21"), "").unwrap();
    fs::write(temp.path().join("22"), "").unwrap();
    fs::create_dir(temp.path().join("23")).unwrap();
    fs::write(temp.path().join(".mp4"), "").unwrap();
    let size = size(top(temp.path()), u64::MAX).unwrap();
    assert_eq!(size.files.total_bytes, bytes);
    assert_eq!(size.files.media_bytes, 1, "an empty film is one");
    assert_eq!(size.on_disk, (entries + 4) * LEAST);
    clear(top(temp.path())).unwrap();
    assert!(is_empty(temp.path()));
}

#[test]
fn links_are_neither_followed_nor_spared() {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("in"), temp.path().join("out"));
    for dir in [&inside, &outside] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(outside.join("call.mp4"), "mine").unwrap();
    symlink(&outside, inside.join("dir")).unwrap();
    symlink(outside.join("call.mp4"), inside.join("file.mp4")).unwrap();
    let size = size(top(&inside), u64::MAX).unwrap();
    assert_eq!(size.files.total_bytes, 0);
    clear(top(&inside)).unwrap();
    assert!(is_empty(&inside));
    assert_eq!(fs::read(outside.join("call.mp4")).unwrap(), b"mine");
}

#[test]
fn counting_stops_when_it_is_enough() {
    let temp = tempfile::tempdir().unwrap();
    for file in 0..100 {
        fs::write(temp.path().join(format!("{file}")), "").unwrap();
    }
    let size = size(top(temp.path()), 10 * LEAST).unwrap();
    assert_eq!(size.on_disk, 11 * LEAST);
}

#[test]
fn what_is_moved_away_meanwhile_leads_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("in"), temp.path().join("out"));
    fs::create_dir_all(inside.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("other"), "").unwrap();
    let mut seen = Vec::new();
    let walked = walk(top(&inside), |entry| {
        seen.push(String::from_utf8_lossy(entry.path).into_owned());
        if entry.name == c"b" {
            fs::rename(inside.join("a"), outside.join("a")).unwrap();
        }
        Ok(true)
    });
    assert!(walked.is_err());
    assert_eq!(seen, ["a", "a/b"]);
}

/// The most memory that this process ever had, in KiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[test]
#[ignore = "takes a while, and is to run alone"]
fn a_million_files_are_counted_and_removed_in_the_memory_of_one() {
    let temp = tempfile::tempdir().unwrap();
    for file in 0..1_000_000 {
        File::create(temp.path().join(format!("{file}.mp4"))).unwrap();
    }
    let before = most_memory();
    let size = size(top(temp.path()), u64::MAX).unwrap();
    assert_eq!(size.files.media_bytes, 1_000_000);
    clear(top(temp.path())).unwrap();
    assert!(is_empty(temp.path()));
    let taken = most_memory() - before;
    println!("{taken} KiB more");
    assert!(taken < 1024);
}
