//! Registries for the tests: Debian's docker-registry on a loopback port, and things that only
//! look like one.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::query_parameters::{PushImageOptions, TagImageOptions};
use domain::ImageRef;
use futures_util::TryStreamExt;
use tempfile::TempDir;

use crate::bench::Bench;

/// A registry that ends with the test.
pub(crate) struct Registry {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Registry {
    /// An empty registry that anybody may use, or one that asks for a password.
    pub(crate) fn start(with_password: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let address = free_port();
        let path = |name: &str| folder.path().join(name);
        let auth = if with_password {
            let hash = bcrypt::hash("secret", 4).unwrap();
            fs::write(path("passwords"), format!("user:{hash}\n")).unwrap();
            format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                path("passwords").display()
            )
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n{auth}",
            path("storage").display()
        );
        fs::write(path("config.yml"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry) starts");
        let registry = Self {
            child,
            folder,
            address,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(
                Instant::now() < deadline,
                "the registry does not listen: {}",
                registry.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// The reference of an image here.
    pub(crate) fn image(&self, name: &str) -> ImageRef {
        image_at(self.address, name)
    }

    /// Puts an image of the engine here under `name`, and takes it away from the engine.
    pub(crate) async fn push(&self, bench: &Bench, local: &ImageRef, name: &str) -> ImageRef {
        let image = self.image(name);
        let repo = format!("{}/{}", image.registry(), image.name());
        let tag = image.tag().unwrap().to_owned();
        let options = TagImageOptions {
            repo: Some(repo.clone()),
            tag: Some(tag.clone()),
        };
        bench
            .docker
            .tag_image(&local.to_string(), Some(options))
            .await
            .unwrap();
        let options = PushImageOptions {
            tag: Some(tag),
            ..Default::default()
        };
        bench
            .docker
            .push_image(&repo, Some(options), None)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        for name in [local.to_string(), image.to_string()] {
            crate::pulling::take_away(bench, &name).await;
        }
        image
    }

    /// How often an image's manifest was asked for by name.
    pub(crate) fn pulls_of(&self, image: &ImageRef) -> usize {
        let asked = format!(
            "HEAD /v2/team/{}/manifests/{} ",
            image.name(),
            image.tag().unwrap()
        );
        self.log()
            .lines()
            .filter(|line| line.contains(&asked))
            .count()
    }

    /// Loses the contents of all layers, though not the manifests that name them.
    pub(crate) fn lose_layers(&self) {
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs");
        let mut folders: Vec<PathBuf> = vec![blobs];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.metadata().unwrap().len() > 10_000 {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address where nobody listens, as good as certainly.
pub(crate) fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The reference of an image at an address.
pub(crate) fn image_at(address: SocketAddr, name: &str) -> ImageRef {
    format!("{address}/team/{name}:v1").parse().unwrap()
}
