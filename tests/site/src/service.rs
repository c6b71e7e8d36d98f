//! A client of the job API, one call a method.

use std::{error::Error as _, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// How long the plugin waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A job service, seen with the credentials of one client. Cheap to clone.
#[derive(Clone)]
pub struct JobService {
    http: Client,
    url: String,
    client_id: String,
    auth_key: String,
}

/// There was no answer at all.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} was not answered")]
pub struct ServiceError {
    /// What was asked.
    pub method: Method,
    /// Of which route.
    pub path: String,
    /// Why there is no answer.
    pub source: reqwest::Error,
}

impl ServiceError {
    /// The whole chain of causes on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// What the job service answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status; 0 stands for no answer where there is no room for an error.
    pub status: u16,
    /// The body, whatever it is.
    pub body: String,
}

impl Answer {
    /// Whether the status says success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The `id` of the job in the body.
    pub fn job_id(&self) -> Option<String> {
        self.json()["id"].as_str().map(str::to_owned)
    }

    /// What a host is shown when this answer is a refusal: the `error` in the body, else all of it.
    pub fn text(&self) -> String {
        self.json()["error"]
            .as_str()
            .map_or_else(|| self.body.trim().to_owned(), str::to_owned)
    }
}

impl JobService {
    /// A client of the service at `url` (`http://host:port`). For an administrator the client id is
    /// empty and the key is the admin secret.
    pub fn new(url: &str, client_id: &str, auth_key: &str) -> Self {
        let http = Client::builder()
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build()
            .expect("a client without TLS has nothing to fail at");
        Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            client_id: client_id.to_owned(),
            auth_key: auth_key.to_owned(),
        }
    }

    /// GET /version, without credentials.
    pub async fn version(&self) -> Result<Answer, ServiceError> {
        let request = self.http.get(format!("{}/version", self.url));
        send(Method::GET, "/version", request).await
    }

    /// POST /jobs/init with the images that will be asked for.
    pub async fn init(&self, runners: &[String]) -> Result<Answer, ServiceError> {
        self.call(
            Method::POST,
            "/jobs/init",
            Some(&json!({ "Runners": runners })),
        )
        .await
    }

    /// POST /jobs.
    pub async fn post(&self, job: &Value) -> Result<Answer, ServiceError> {
        self.call(Method::POST, "/jobs", Some(job)).await
    }

    /// GET /jobs/{id}.
    pub async fn job(&self, id: &str) -> Result<Answer, ServiceError> {
        self.call(Method::GET, &format!("/jobs/{id}"), None).await
    }

    /// GET /jobs/{id}/logs.
    pub async fn logs(&self, id: &str) -> Result<Answer, ServiceError> {
        self.call(Method::GET, &format!("/jobs/{id}/logs"), None)
            .await
    }

    /// GET /jobs, newest first.
    pub async fn list(&self) -> Result<Answer, ServiceError> {
        self.call(Method::GET, "/jobs", None).await
    }

    /// The newest jobs that are in this state.
    pub async fn list_in(&self, state: &str) -> Result<Answer, ServiceError> {
        let path = format!("/jobs?state={state}");
        self.call(Method::GET, &path, None).await
    }

    /// The page of GET /jobs that comes after a job, the first one for an empty id.
    pub async fn list_before(&self, id: &str) -> Result<Answer, ServiceError> {
        let path = match id {
            "" => "/jobs?limit=100".to_owned(),
            id => format!("/jobs?limit=100&before={id}"),
        };
        self.call(Method::GET, &path, None).await
    }

    /// DELETE /jobs/{id}.
    pub async fn delete(&self, id: &str) -> Result<Answer, ServiceError> {
        self.call(Method::DELETE, &format!("/jobs/{id}"), None)
            .await
    }

    /// DELETE /jobs/{id}?force=1, for an administrator.
    pub async fn delete_by_force(&self, id: &str) -> Result<Answer, ServiceError> {
        self.call(Method::DELETE, &format!("/jobs/{id}?force=1"), None)
            .await
    }

    /// POST /jobs/{id}/stop, for an administrator.
    pub async fn stop(&self, id: &str) -> Result<Answer, ServiceError> {
        self.call(Method::POST, &format!("/jobs/{id}/stop"), None)
            .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ServiceError> {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url))
            .basic_auth(&self.client_id, Some(&self.auth_key));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        send(method, path, request).await
    }
}

async fn send(method: Method, path: &str, request: RequestBuilder) -> Result<Answer, ServiceError> {
    let exchange = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok(Answer {
            status,
            body: response.text().await?,
        })
    };
    exchange.await.map_err(|source| ServiceError {
        method,
        path: path.to_owned(),
        source,
    })
}
