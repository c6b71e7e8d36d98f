//! Requests that a well-behaved client would not make, and answers as they are on the wire.

use offloader_system_tests::Daemon;
use reqwest::{Client, Method, RequestBuilder, StatusCode, header};
use serde_json::Value;

/// An answer with what the contract says about it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Answer {
    /// Checks that this is an error as the contract has them: JSON of two strings, the status the
    /// second. Returns the first, the text.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.content_type, "application/json", "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], status.to_string(), "{self:?}");
        body["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no text in {self:?}"))
            .to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A request to the daemon, without credentials.
pub(crate) fn request(daemon: &Daemon, method: Method, path: &str) -> RequestBuilder {
    Client::new().request(method, format!("{}{path}", daemon.url()))
}

/// A POST of JSON, without credentials.
pub(crate) fn post(daemon: &Daemon, path: &str, body: &Value) -> RequestBuilder {
    request(daemon, Method::POST, path).json(body)
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the daemon answers");
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map(|value| value.to_str().unwrap_or_default().to_owned());
    Answer {
        status: response.status(),
        content_type: content_type.unwrap_or_default(),
        body: response.text().await.expect("the answer has a body"),
    }
}
