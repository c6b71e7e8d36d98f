//! How a world is to be.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use offloader_system_tests::{Dockerd, Line, Oracle, Setup, TestEngine};

use crate::world::{TOKEN, WORKS_ON, World};

/// How a world is to be.
pub(crate) struct Plan {
    engine: TestEngine,
    dockerd: Option<Dockerd>,
    line: Option<Line>,
    setup: Setup,
    instance: String,
    slots: usize,
    image: String,
    stray_grace: &'static str,
}

impl Plan {
    /// In the engine that all tests share. None: the test `name` is to be skipped.
    pub(crate) fn shared(name: &str) -> Option<Self> {
        Some(Self::in_engine(TestEngine::find(name)?, None))
    }

    /// In an engine of its own.
    pub(crate) async fn own_engine(name: &str) -> Option<Self> {
        let dockerd = Dockerd::for_test(name).await?;
        Some(Self::with(dockerd))
    }

    /// In this engine.
    pub(crate) fn with(dockerd: Dockerd) -> Self {
        Self::in_engine(TestEngine::of(&dockerd), Some(dockerd))
    }

    fn in_engine(mut engine: TestEngine, dockerd: Option<Dockerd>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let instance = format!("f{}x{number}", std::process::id());
        let image = engine.image("calls-recorder:v1.0.0", WORKS_ON);
        let setup = Setup::new()
            .with_admin()
            .engine(engine.host())
            .env("JOBS_IMAGEREGISTRY", engine.registry())
            .config(&format!("jobs.instance = \"{instance}\""));
        Self {
            engine,
            dockerd,
            line: None,
            setup,
            instance,
            slots: 2,
            image,
            // Whatever late answers leave is to be gone soon.
            stray_grace: "1s",
        }
    }

    /// With a recorder that runs this script.
    pub(crate) fn script(mut self, script: &str) -> Self {
        self.image = self.engine.image("calls-recorder:v1.0.1", script);
        self
    }

    /// With so many slots instead of two.
    pub(crate) fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self.config(&format!("jobs.max_concurrent_jobs = {slots}"))
    }

    /// With this grace for strays instead of a second.
    pub(crate) fn stray_grace(mut self, grace: &'static str) -> Self {
        self.stray_grace = grace;
        self
    }

    /// With lines of configuration; tables last.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.setup = self.setup.config(toml);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.setup = self.setup.env(name, value);
        self
    }

    /// With an engine whose containers outlive it.
    pub(crate) async fn live_restore(&mut self) {
        let dockerd = self.dockerd.as_mut().expect("an engine of its own");
        dockerd.set_live_restore(true);
        dockerd.stop();
        dockerd.resume().await.expect("the engine comes back");
    }

    /// The daemon's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// With a line to the engine that can be cut.
    pub(crate) fn line(mut self) -> Self {
        let line = Line::to(self.engine.host());
        self.setup = self.setup.engine(line.host());
        self.line = Some(line);
        self
    }

    /// With a retention policy of these settings.
    pub(crate) fn retention(self, settings: &str) -> Self {
        self.policy("retention_rules.wasm", settings)
    }

    /// With a stock policy of these settings.
    pub(crate) fn policy(self, file: &str, settings: &str) -> Self {
        let file = offloader_system_tests::policy_file(file);
        let name = file.file_name().and_then(|name| name.to_str());
        let dir = file.parent().expect("a file lies in a directory");
        self.config(&format!(
            "[policies]\ndir = {dir:?}\n[[policies.policy]]\nname = \"tested\"\n\
             component = {:?}\nsettings = {settings}",
            name.unwrap_or_default()
        ))
    }

    /// The world with its daemon, which serves.
    pub(crate) async fn begin(self) -> World {
        let mut world = self.before_begin();
        world.start().await;
        world
    }

    /// The world with its daemon, which answers and may not be able to run jobs.
    pub(crate) async fn begin_blind(self) -> World {
        let mut world = self.before_begin();
        world.start_blind().await;
        world
    }

    /// The world with a daemon that dies at a fault point.
    pub(crate) async fn begin_dying_at(self, point: &str) -> World {
        let mut world = self.before_begin();
        world.start_dying_at(point).await;
        world
    }

    fn before_begin(self) -> World {
        let grace = format!("jobs.stray_grace = {:?}", self.stray_grace);
        let oracle = Oracle::new(&self.engine, &self.instance, self.slots, &[TOKEN]);
        World {
            daemon: None,
            setup: self.setup.config_first(&grace),
            oracle,
            line: self.line,
            engine: self.engine,
            dockerd: self.dockerd,
            instance: self.instance,
            image: self.image,
            slots: self.slots,
        }
    }
}
