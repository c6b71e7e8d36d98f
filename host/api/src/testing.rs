//! A whole service without a container engine: the real engine and store, a runner that plays
//! along, and a clock that tests set.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::*;
use engine::*;
use futures_util::StreamExt as _;
use gate::{ContainerName, Gate, Grants, ImagePermit, LaunchPermit};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::{SqliteStore, StoreConfig};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::{ApiConfig, AuthSettings, Build};

pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const ADMIN: &str = "admin secret";
pub(crate) const RUNNER: &str = "mattermost/calls-recorder:v0.8.13";

/// What the runner does.
#[derive(Default)]
pub(crate) struct Play {
    pub(crate) containers: HashMap<ContainerName, Sighting>,
    /// Why pulls fail, if they do.
    pub(crate) pulls_fail: Option<EndReason>,
    /// Pulls take until told otherwise.
    pub(crate) pulls_hang: bool,
    pub(crate) down: bool,
    /// What each container left, in the parts in which it comes.
    pub(crate) files: Vec<Result<Bytes, RunnerError>>,
    /// How files cannot be had, if they cannot.
    pub(crate) files_fail: Option<FilesError>,
}

#[derive(Clone, Default)]
pub(crate) struct PlayRunner {
    play: Arc<Mutex<Play>>,
    changed: Arc<Notify>,
}

impl PlayRunner {
    pub(crate) fn play(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap()
    }

    fn up(&self) -> Result<MutexGuard<'_, Play>, RunnerError> {
        let play = self.play();
        match play.down {
            true => Err(RunnerError {
                operation: "ping",
                detail: "connection refused".into(),
                unreachable: true,
            }),
            false => Ok(play),
        }
    }

    /// Ends every container.
    pub(crate) fn end_all(&self, code: i32) {
        for sighting in self.play().containers.values_mut() {
            if let Sighting::Running { since } = *sighting {
                *sighting = Sighting::Ended(Exit {
                    code,
                    out_of_memory: false,
                    started_at: since,
                    ended_at: since,
                });
            }
        }
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl Runner for PlayRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        let (fails, hangs) = {
            let play = self.up()?;
            (play.pulls_fail, play.pulls_hang)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        match fails {
            Some(reason) => Err(PrepareError::Pull {
                image: image.image().to_string(),
                reason,
                detail: "no such manifest".into(),
            }),
            None => Ok(format!("sha256:{}", "a".repeat(64)).parse().unwrap()),
        }
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        if ticket.ask(&permit.name().to_string()) == engine::Leave::Refused {
            return Err(LaunchError::Withdrawn);
        }
        let at = Timestamp::from_millis(START);
        self.up()?
            .containers
            .insert(permit.name().clone(), Sighting::Running { since: at });
        Ok(Launched { at })
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        Ok(self
            .up()?
            .containers
            .get(name)
            .copied()
            .unwrap_or(Sighting::Absent))
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let changed = self.changed.notified();
        if matches!(self.inspect(name).await?, Sighting::Running { .. }) {
            changed.await;
        }
        Ok(())
    }

    async fn terminate(&self, _: &ContainerName) -> Result<(), RunnerError> {
        self.end_all(1);
        Ok(())
    }

    async fn kill(&self, _: &ContainerName) -> Result<(), RunnerError> {
        self.end_all(137);
        Ok(())
    }

    async fn leftovers(&self, _: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        Ok(Some(Leftovers {
            media_bytes: 0,
            total_bytes: 0,
        }))
    }

    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        let play = self.up()?;
        if let Some(error) = &play.files_fail {
            return Err(error.clone());
        }
        let there = play.containers.contains_key(name);
        let parts = futures_util::stream::iter(play.files.clone());
        // One after the other, as over a wire.
        let parts = parts.then(async |part| {
            tokio::task::yield_now().await;
            part
        });
        Ok(there.then(|| parts.boxed()))
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.up()?.containers.remove(name);
        Ok(())
    }

    async fn logs(
        &self,
        _: &ContainerName,
        _: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        drop(self.up()?);
        let lines = [Ok("to stdout\n".into()), Ok("to stderr\n".into())];
        Ok(Some(futures_util::stream::iter(lines).boxed()))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        Ok(self.up()?.containers.keys().cloned().collect())
    }

    async fn remains(&self, _: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        Ok(None)
    }

    async fn describe(&self, _: &ContainerName) -> Result<Option<Described>, RunnerError> {
        Ok(None)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        self.up().map(drop)
    }
}

/// Policies that deny the site `denied.example` and pass everything else.
#[derive(Default)]
struct PlayPolicies {
    /// What is said to have been decided when an image was selected.
    decisions: Arc<Mutex<Vec<Decision>>>,
}

/// Policies of which only the generation changes.
#[derive(Default)]
pub(crate) struct PlayControl {
    generation: AtomicU64,
    /// What is wrong when they are loaded anew.
    pub(crate) problems: Mutex<Vec<ReloadProblem>>,
    failure: Mutex<Option<ReloadFailure>>,
}

#[async_trait]
impl PolicyControl for PlayControl {
    fn status(&self) -> PoliciesStatus {
        let policy = |name: &str, quarantined_since| PolicyStatus {
            name: name.into(),
            component: "map.wasm".into(),
            component_sha256: "c0".into(),
            settings_sha256: "5e".into(),
            signed_by: Some("site.pub".into()),
            hooks: vec![Hook::ImageSelection, Hook::Retention],
            mode: "enforce",
            on_failure: "skip",
            quarantined_since,
            limits: PolicyLimits {
                component_size_bytes: 1,
                time_ms: 2,
                memory_bytes: 3,
                table_elements: 4,
                host_calls: 5,
                output_bytes: 6,
                log_bytes: 7,
            },
            grants: GrantedToPolicy {
                inputs: vec!["call_id".into()],
                env: vec!["TZ".into()],
                dirs: vec![("/maps".into(), false)],
                real_clock: true,
                real_entropy: false,
            },
            counters: PolicyCounters {
                decisions: 9,
                failures: 2,
                failures_in_a_row: 1,
            },
        };
        let ill = Timestamp::from_millis(START + 5);
        PoliciesStatus {
            generation: self.generation.load(Ordering::Relaxed) + 1,
            loaded_at: Timestamp::from_millis(START),
            policies: vec![policy("well", None), policy("ill", Some(ill))],
            left_out: vec![ReloadProblem {
                policy: Some("lost".into()),
                step: "verify",
                message: "No such file".into(),
            }],
            last_failure: self.failure.lock().unwrap().clone(),
        }
    }

    async fn reload(&self) -> Result<PoliciesStatus, ReloadFailure> {
        let problems = self.problems.lock().unwrap().clone();
        let failure = (!problems.is_empty()).then(|| ReloadFailure {
            at: Timestamp::from_millis(START + 7),
            problems,
        });
        self.failure.lock().unwrap().clone_from(&failure);
        match failure {
            Some(failure) => Err(failure),
            None => {
                self.generation.fetch_add(1, Ordering::Relaxed);
                Ok(self.status())
            }
        }
    }
}

#[async_trait]
impl Policies for PlayPolicies {
    async fn select_image(&self, _: &JobFacts, _: Purpose) -> Ruling<Choice> {
        Ruling {
            verdict: Choice::AsAsked,
            by: None,
            decisions: self.decisions.lock().unwrap().clone(),
        }
    }

    async fn select_site_url(&self, facts: &JobFacts) -> Ruling<Choice> {
        if facts.site_url_asked.contains("denied.example") {
            let denial = Denial {
                code: "unknown-host".into(),
                message: "nobody knows this host".into(),
            };
            return Ruling {
                verdict: Choice::Deny(denial),
                by: Some("hosts".into()),
                decisions: vec![],
            };
        }
        Ruling {
            verdict: Choice::AsAsked,
            by: None,
            decisions: vec![],
        }
    }

    async fn retry(&self, _: &JobFacts) -> Ruling<RetryVerdict> {
        Ruling {
            verdict: RetryVerdict::Pass,
            by: None,
            decisions: vec![],
        }
    }

    async fn retention(&self, _: &JobFacts) -> Ruling<RetentionVerdict> {
        Ruling {
            verdict: RetentionVerdict::Pass,
            by: None,
            decisions: vec![],
        }
    }
}

/// When tests begin.
pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Clients may register themselves without limit, and there is an administrator.
pub(crate) fn auth() -> AuthSettings {
    AuthSettings {
        allow_self_registration: true,
        self_registration_networks: Vec::new(),
        self_registration_clients: None,
        admin_secret: Some(Secret::new(ADMIN)),
        session_lifetime: Duration::from_secs(3600),
    }
}

/// The service.
pub(crate) struct Service {
    router: Router,
    pub(crate) runner: PlayRunner,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) control: Arc<PlayControl>,
    /// What policies are said to have decided about the image of the next job.
    pub(crate) decisions: Arc<Mutex<Vec<Decision>>>,
    _state: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(
            self.headers["content-type"], "application/json",
            "{}",
            self.text
        );
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts that this is the error of that status and text.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, text: &str) {
        assert_eq!(
            self.json(),
            json!({ "error": text, "code": status.to_string() })
        );
        assert_eq!(self.status.as_u16(), status);
    }

    #[track_caller]
    pub(crate) fn is_ok(&self) -> &Self {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self
    }
}

/// The value of an Authorization header.
pub(crate) fn basic(client: &str, key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{client}:{key}")))
}

/// What the plugin sends to have a call recorded.
pub(crate) fn recording(id: &str) -> Value {
    json!({
        "type": "recording", "runner": RUNNER, "max_duration_sec": 60,
        "input_data": {
            "site_url": "https://mattermost.example.com", "call_id": "c".repeat(26), "post_id": "p".repeat(26),
            "recording_id": id, "auth_token": "t".repeat(26), "width": 1280
        }
    })
}

impl Service {
    /// A service in which clients register themselves and there is an administrator.
    pub(crate) async fn open() -> Self {
        Self::with(true, Some(ADMIN), 2).await
    }

    pub(crate) async fn with(self_registration: bool, admin: Option<&str>, slots: u32) -> Self {
        let auth = AuthSettings {
            allow_self_registration: self_registration,
            admin_secret: admin.map(Secret::new),
            ..auth()
        };
        Self::with_auth(auth, slots).await
    }

    pub(crate) async fn with_auth(auth: AuthSettings, slots: u32) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(StoreConfig {
            path: state.path().join("offloader.db"),
        })
        .unwrap();
        let store = Arc::new(store);
        let (runner, clock) = (
            PlayRunner::default(),
            Arc::new(HandClock(AtomicI64::new(START))),
        );
        let (control, decisions) = (Arc::<PlayControl>::default(), Arc::default());
        let ports = Ports {
            runner: Arc::new(runner.clone()),
            store: store.clone(),
            policies: Arc::new(PlayPolicies {
                decisions: Arc::clone(&decisions),
            }),
            clock: clock.clone(),
        };
        let instance: InstanceId = "test".parse().unwrap();
        let start_timeout = Duration::from_secs(100);
        let config = EngineConfig {
            instance: instance.clone(),
            slots: engine::Slots::of(slots),
            min_free_bytes: 0,
            start_timeout,
            failed_retention: None,
            history_retention: Duration::from_secs(86_400),
            strays: engine::StrayRules::default(),
        };
        let gate = Gate::new(Grants::standard("mattermost"), instance).unwrap();
        let engine = Engine::start(config, gate, ports).await.unwrap();
        let build = Build {
            version: "0.1.0",
            hash: "abc",
            date: "",
        };
        let config = ApiConfig {
            engine,
            registrations: store.clone(),
            policies: control.clone(),
            metrics: Some(Arc::new(|| "jobs 7\n".to_owned())),
            clock: clock.clone(),
            auth,
            start_timeout,
            build,
        };
        Self {
            router: crate::router(config).unwrap(),
            runner,
            clock,
            store,
            control,
            decisions,
            _state: state,
        }
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Sends a request whose Authorization is `auth`, none when it is empty.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        auth: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path);
        if !auth.is_empty() {
            request = request.header("authorization", auth);
        }
        self.answer(request.body(body.into()).unwrap()).await
    }

    /// GET from an address.
    pub(crate) async fn get_from(&self, address: &str, path: &str, auth: &str) -> Answer {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let request = Request::builder()
            .uri(path)
            .header("authorization", auth)
            .extension(ConnectInfo(address));
        self.answer(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str, auth: &str) -> Answer {
        self.send("GET", path, auth, "").await
    }

    pub(crate) async fn post(&self, path: &str, auth: &str, body: &Value) -> Answer {
        self.send("POST", path, auth, body.to_string()).await
    }

    /// Registers a client.
    pub(crate) async fn register(&self, client: &str, key: &str) -> String {
        let answer = self
            .post(
                "/register",
                &basic("", ADMIN),
                &json!({ "clientID": client, "authKey": key }),
            )
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        basic(client, key)
    }

    /// Has a call recorded and gives the job's id.
    pub(crate) async fn record(&self, auth: &str, id: &str) -> String {
        let answer = self.post("/jobs", auth, &recording(id)).await;
        answer.is_ok();
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in that state.
    pub(crate) async fn wait_for(&self, auth: &str, id: &str, state: &str) -> Value {
        for _ in 0..500 {
            let job = self.get(&format!("/jobs/{id}"), auth).await.json();
            if job["state"] == state {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("job {id} does not get to be {state}");
    }
}
