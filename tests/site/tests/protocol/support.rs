//! What the protocol tests share: a job service that takes everything, and bots without containers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use offloader_test_site::{
    Call, CallOptions, Event, Happening, JobType, Plugin, PluginOptions, Site, SiteOptions, Speech,
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A job service in memory.
#[derive(Clone)]
pub(crate) struct FakeService {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    version: String,
    init_refusals: u32,
    refuse: Option<JobType>,
    inits: Vec<Value>,
    jobs: Vec<Value>,
    credentials: Vec<String>,
}

impl FakeService {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Asked {
            version: "v0.9.3".into(),
            ..Asked::default()
        }));
        let app = Router::new()
            .route("/version", get(version))
            .route("/jobs/init", post(init))
            .route("/jobs", post(take))
            .route("/jobs/{id}", get(show))
            .with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, state }
    }

    pub(crate) fn announce(&self, version: &str) {
        self.state.lock().unwrap().version = version.into();
    }

    pub(crate) fn refuse_inits(&self, count: u32) {
        self.state.lock().unwrap().init_refusals = count;
    }

    pub(crate) fn refuse_jobs(&self, job: JobType) {
        self.state.lock().unwrap().refuse = Some(job);
    }

    pub(crate) fn inits(&self) -> Vec<Value> {
        self.state.lock().unwrap().inits.clone()
    }

    pub(crate) fn jobs(&self) -> Vec<Value> {
        self.state.lock().unwrap().jobs.clone()
    }

    pub(crate) fn credentials(&self) -> Vec<String> {
        self.state.lock().unwrap().credentials.clone()
    }
}

type Shared = State<Arc<Mutex<Asked>>>;

async fn version(State(asked): Shared) -> Json<Value> {
    Json(json!({ "buildVersion": asked.lock().unwrap().version }))
}

async fn init(
    State(asked): Shared,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut asked = asked.lock().unwrap();
    asked.note(&headers);
    asked.inits.push(body);
    if asked.init_refusals > 0 {
        asked.init_refusals -= 1;
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({ "error": "failed to update job runner: no" })),
        );
    }
    (StatusCode::OK, Json(json!({})))
}

async fn take(
    State(asked): Shared,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut asked = asked.lock().unwrap();
    asked.note(&headers);
    asked.jobs.push(body.clone());
    if asked.refuse.is_some_and(|job| body["type"] == job.name()) {
        let error = json!({ "error": "max concurrent jobs reached", "code": "503" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error));
    }
    let id = format!("job{}", asked.jobs.len());
    (
        StatusCode::OK,
        Json(json!({ "id": id, "type": body["type"] })),
    )
}

async fn show(Path(id): Path<String>) -> Json<Value> {
    Json(json!({ "id": id }))
}

impl Asked {
    fn note(&mut self, headers: &HeaderMap) {
        let credentials = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap_or_default());
        self.credentials
            .push(credentials.unwrap_or_default().to_owned());
    }
}

/// A site with a short beep for speech, a fake job service, and a plugin between them.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) service: FakeService,
    pub(crate) plugin: Plugin,
    pub(crate) _results: TempDir,
}

pub(crate) const CHUNK: usize = 1000;

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SiteOptions)) -> Self {
        let results = tempfile::tempdir().expect("a temporary folder");
        let mut options =
            SiteOptions::new("127.0.0.1:0".parse().expect("an address"), results.path());
        options.join_timeout = Duration::from_secs(20);
        options.max_chunk_bytes = CHUNK;
        change(&mut options);
        let site = Site::start(options, Speech::tone(Duration::from_millis(500)))
            .await
            .expect("a site");
        let service = FakeService::start().await;
        let mut plugin = PluginOptions::new(format!("http://{}", service.address));
        plugin.init_tries = 2;
        let plugin = Plugin::new(&site, plugin);
        Self {
            site,
            service,
            plugin,
            _results: results,
        }
    }

    pub(crate) async fn record(&self) -> Call {
        let options = CallOptions {
            length: Duration::from_millis(200),
            ..CallOptions::default()
        };
        self.plugin.record(options).await
    }

    pub(crate) fn happened(&self, what: impl Fn(&Happening) -> bool) -> bool {
        self.site
            .events()
            .iter()
            .any(|event: &Event| what(&event.what))
    }
}

/// A bot that knows what its container would have been told.
pub(crate) struct Bot {
    http: Client,
    base: String,
    call: String,
    pub(crate) token: String,
    pub(crate) id: String,
    pub(crate) job: JobType,
}

impl Bot {
    pub(crate) fn new(site: &Site, call: &Call, job: JobType) -> Self {
        Self {
            http: Client::builder().no_proxy().build().expect("a client"),
            base: format!("{}/plugins/com.mattermost.calls", site.url()),
            call: call.id().to_owned(),
            token: call.token().to_owned(),
            id: call.bot_id(job).unwrap_or_default(),
            job,
        }
    }

    /// The same bot under another id.
    pub(crate) fn named(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http
            .get(format!("{}/{path}", self.base))
            .bearer_auth(&self.token)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http
            .post(format!("{}/{path}", self.base))
            .bearer_auth(&self.token)
    }

    pub(crate) async fn report(&self, status: &str, error: &str) -> (u16, Value) {
        let report = json!({ "JobType": self.job.name(), "Status": status, "Error": error });
        let path = format!("bot/calls/{}/jobs/{}/status", self.call, self.id);
        told(
            self.post(&path)
                .json(&report)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    pub(crate) async fn started(&self) -> (u16, Value) {
        self.report("started", "").await
    }

    /// The page's poll, as the recorder's browser makes it.
    pub(crate) async fn page(&self) -> (u16, Value) {
        let path = format!("standalone/call?call_id={}&job_id={}", self.call, self.id);
        told(self.get(&path).send().await.expect("an answer")).await
    }

    pub(crate) async fn page_closed(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.page().await.1["closed"] != true {
            assert!(Instant::now() < until, "the page never closed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn listen(&self) -> Response {
        self.get(&format!("bot/calls/{}/audio", self.call))
            .send()
            .await
            .expect("an answer")
    }

    pub(crate) async fn recording_started(&self) -> u16 {
        let path = format!("bot/calls/{}/recording-started", self.call);
        self.get(&path)
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    }

    pub(crate) async fn announce(&self, name: &str, size: usize) -> (u16, Value) {
        let body = json!({ "filename": name, "file_size": size, "channel_id": self.call, "type": "attachment" });
        told(
            self.post("bot/uploads")
                .json(&body)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    pub(crate) async fn send(&self, upload: &str, chunk: &[u8]) -> (u16, Value) {
        let request = self
            .post(&format!("bot/uploads/{upload}"))
            .body(chunk.to_vec());
        told(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn offset(&self, upload: &str) -> (u16, Value) {
        told(
            self.get(&format!("bot/uploads/{upload}"))
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    /// Uploads as the bots do: chunk by chunk, asking where to go on after a failure. Returns the
    /// file's id and how often something was refused.
    pub(crate) async fn upload(&self, name: &str, bytes: &[u8]) -> (String, usize) {
        let mut refused = 0;
        let upload = loop {
            match self.announce(name, bytes.len()).await {
                (201, session) => break session["id"].as_str().expect("an id").to_owned(),
                (503, _) => refused += 1,
                other => panic!("{other:?}"),
            }
        };
        let mut offset = 0;
        loop {
            let chunk = &bytes[offset..bytes.len().min(offset + CHUNK)];
            match self.send(&upload, chunk).await {
                (204, _) => offset += chunk.len(),
                (200, file) => return (file["id"].as_str().expect("an id").to_owned(), refused),
                (503, _) => {
                    refused += 1;
                    let (_, session) = self.offset(&upload).await;
                    offset = session["file_offset"].as_u64().expect("an offset") as usize;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn attach(&self, file_ids: &[&str]) -> (u16, Value) {
        let (route, body) = match self.job {
            JobType::Recording => (
                "recordings",
                json!({ "job_id": self.id, "file_ids": file_ids }),
            ),
            JobType::Transcribing => {
                let one = json!({ "title": "English", "language": "en", "file_ids": file_ids });
                (
                    "transcriptions",
                    json!({ "job_id": self.id, "transcriptions": [one] }),
                )
            }
        };
        let path = format!("bot/calls/{}/{route}", self.call);
        told(
            self.post(&path)
                .json(&body)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }
}

async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}
