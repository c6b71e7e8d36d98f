//! The site as a server: its routes, who may call them, and the handle that callers have of it.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinHandle,
};

use crate::{
    audio, bots,
    call::{Call, CallOptions},
    events::{Event, EventLog, Happening},
    page,
    rules::Refusal,
    speech::Speech,
    uploads::{self, Uploads},
};

/// Where everything of the plugin is found.
const BASE: &str = "/plugins/com.mattermost.calls";

/// How a site behaves.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The folder for what the bots deliver, made if missing: `CALL_ID/FILE`.
    pub results: PathBuf,
    /// How long a bot may take to join its call, counted from the answer to POST /jobs.
    pub join_timeout: Duration,
    /// How long a result is awaited once a bot's part in the call is over.
    pub result_timeout: Duration,
    /// The longest chunk of an upload, in bytes.
    pub max_chunk_bytes: usize,
}

impl SiteOptions {
    /// The plugin's own times and limits.
    pub fn new(listen: SocketAddr, results: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            results: results.into(),
            join_timeout: Duration::from_secs(60),
            result_timeout: Duration::from_secs(600),
            max_chunk_bytes: 1 << 20,
        }
    }
}

/// Why a site did not start.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The folder for results cannot be used.
    #[error("cannot use {} for results", path.display())]
    Results {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running site. Cheap to clone; all clones are the same site, which serves until [`Site::stop`].
#[derive(Clone)]
pub struct Site {
    address: SocketAddr,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    server: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the routes work with.
pub(crate) struct Shared {
    pub(crate) speech: Speech,
    pub(crate) log: Arc<EventLog>,
    pub(crate) uploads: Uploads,
    options: SiteOptions,
    calls: Mutex<HashMap<String, Call>>,
}

impl Site {
    /// Starts to serve.
    pub async fn start(options: SiteOptions, speech: Speech) -> Result<Self, SiteError> {
        let unusable = |source| SiteError::Results {
            path: options.results.clone(),
            source,
        };
        fs::create_dir_all(&options.results).map_err(unusable)?;
        let results = options.results.canonicalize().map_err(unusable)?;
        let uploads = Uploads::new(results, options.max_chunk_bytes).map_err(unusable)?;
        let unlistenable = |source| SiteError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(unlistenable)?;
        let address = listener.local_addr().map_err(unlistenable)?;

        let shared = Arc::new(Shared {
            speech,
            log: Arc::new(EventLog::new()),
            uploads,
            options,
            calls: Mutex::default(),
        });
        let (closing, mut closed) = watch::channel(false);
        let app = routes(shared.clone());
        let server = tokio::spawn(async move {
            let until_closed = async move {
                // An error means that every handle is gone: nobody can ask for more.
                let _ = closed.wait_for(|closed| *closed).await;
            };
            if let Err(error) = axum::serve(listener, app)
                .with_graceful_shutdown(until_closed)
                .await
            {
                eprintln!("test site: {error}");
            }
        });
        Ok(Self {
            address,
            shared,
            closing,
            server: Arc::new(Mutex::new(Some(server))),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://IP:PORT`: what a bot's SITE_URL must be to reach this site.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is said in its calls.
    pub fn speech(&self) -> &Speech {
        &self.shared.speech
    }

    /// Everything that has happened.
    pub fn events(&self) -> Vec<Event> {
        self.shared.log.all()
    }

    /// What happens from now on. A receiver that falls more than a thousand events behind loses the
    /// oldest; [`Site::events`] has them all.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.log.subscribe()
    }

    /// Answers the next `count` requests to begin or continue an upload with 503.
    pub fn refuse_next_uploads(&self, count: usize) {
        self.shared.uploads.refuse_next(count);
    }

    /// Keeps half of the next chunk and answers 503, as when a connection breaks on the way.
    pub fn cut_next_chunk(&self) {
        self.shared.uploads.cut_next();
    }

    /// Begins a call, without asking anything of a job service.
    pub fn open_call(&self, options: CallOptions) -> Call {
        let shared = &self.shared;
        let call = Call::open(
            options,
            shared.log.clone(),
            shared.options.join_timeout,
            shared.options.result_timeout,
            shared.speech.duration(),
        );
        shared
            .lock_calls()
            .insert(call.id().to_owned(), call.clone());
        call
    }

    /// Ends every call and stops to serve; requests under way get two seconds to finish.
    pub async fn stop(&self) {
        for call in self.shared.lock_calls().values() {
            call.end();
        }
        self.closing.send_replace(true);
        let server = self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut server) = server
            && tokio::time::timeout(Duration::from_secs(2), &mut server)
                .await
                .is_err()
        {
            server.abort();
        }
    }

    pub(crate) fn log(&self) -> &EventLog {
        &self.shared.log
    }
}

impl Shared {
    /// The call that a bot's token belongs to, which must be the one that it asks about.
    pub(crate) fn call_of_bot(
        &self,
        headers: &HeaderMap,
        call_id: &str,
        path: &str,
    ) -> Result<Call, Denied> {
        let call = self.call_of_token(headers, path)?;
        if call.id() == call_id {
            Ok(call)
        } else {
            Err(Refusal::NoCall.into())
        }
    }

    /// The call that a bot's token belongs to. Tokens stay good after their call.
    pub(crate) fn call_of_token(&self, headers: &HeaderMap, path: &str) -> Result<Call, Denied> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let call = token.and_then(|token| {
            self.lock_calls()
                .values()
                .find(|call| call.token() == token)
                .cloned()
        });
        call.ok_or_else(|| {
            self.log.record(
                None,
                Happening::Unauthorized {
                    path: path.to_owned(),
                },
            );
            Denied(
                StatusCode::UNAUTHORIZED,
                "invalid or expired session".into(),
            )
        })
    }

    fn lock_calls(&self) -> std::sync::MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    let uploading = Router::new()
        .route(
            "/bot/uploads/{upload}",
            post(uploads::receive).get(uploads::show),
        )
        // One byte more than allowed, so that a chunk that is too long is told so by us.
        .layer(DefaultBodyLimit::max(
            shared.options.max_chunk_bytes.saturating_add(1),
        ));
    let base = Router::new()
        .route("/standalone/recording.html", get(page::page))
        .route("/standalone/call", get(page::call))
        .route("/standalone/speech.wav", get(page::speech))
        .route("/bot/calls/{call}/filename", get(bots::filename))
        .route("/bot/calls/{call}/jobs/{job}/status", post(bots::status))
        .route(
            "/bot/calls/{call}/recording-started",
            get(bots::recording_started),
        )
        .route("/bot/calls/{call}/audio", get(audio::listen))
        .route(
            "/bot/calls/{call}/recordings",
            post(bots::attach_recordings),
        )
        .route(
            "/bot/calls/{call}/transcriptions",
            post(bots::attach_transcriptions),
        )
        .route("/bot/uploads", post(uploads::create))
        .merge(uploading);
    Router::new().nest(BASE, base).with_state(shared)
}

/// A request refused, with a text that bots put into their logs.
#[derive(Debug)]
pub(crate) struct Denied(pub(crate) StatusCode, pub(crate) String);

impl Denied {
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::bad_request(refusal.to_string())
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        (
            self.0,
            Json(json!({ "err": self.1, "code": self.0.as_u16() })),
        )
            .into_response()
    }
}
