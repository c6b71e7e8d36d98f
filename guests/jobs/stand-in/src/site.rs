//! The bot's side of the Calls plugin, over plain HTTP.

use serde_json::{Value, json};

use crate::Result;

/// Bytes of a chunk where the site does not say.
const CHUNK: usize = 1 << 20;

/// A site, and the bot's token.
pub(crate) struct Site {
    base: String,
    authorization: String,
}

impl Site {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        Self {
            base: format!(
                "{}/plugins/com.mattermost.calls/",
                url.trim_end_matches('/')
            ),
            authorization: format!("Bearer {token}"),
        }
    }

    fn request(&self, method: minreq::Method, path: &str) -> minreq::Request {
        minreq::Request::new(method, format!("{}{path}", self.base))
            .with_header("Authorization", &self.authorization)
            // Redirects are not followed: they would carry the token away.
            .with_max_redirects(0)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        answer(&self.request(minreq::Method::Get, path).send()?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.request(minreq::Method::Post, path);
        let request = request
            .with_header("Content-Type", "application/json")
            .with_body(body.to_string());
        answer(&request.send()?)
    }

    /// The body of an answer as it comes.
    pub(crate) fn open(&self, path: &str) -> Result<minreq::ResponseLazy> {
        let response = self.request(minreq::Method::Get, path).send_lazy()?;
        match response.status_code {
            200 => Ok(response),
            status => Err(format!("the site answered {status}").into()),
        }
    }

    /// Brings a file to the site; the id that it gave it.
    pub(crate) fn upload(&self, call: &str, name: &str, bytes: &[u8]) -> Result<String> {
        let body = json!({
            "type": "attachment", "channel_id": call, "filename": name, "file_size": bytes.len(),
        });
        let request = self.request(minreq::Method::Post, "bot/uploads");
        let begun = request
            .with_header("Content-Type", "application/json")
            .with_body(body.to_string())
            .send()?;
        let limit = begun.header("X-Max-Chunk-Bytes");
        let limit = limit.and_then(|limit| limit.parse().ok()).unwrap_or(CHUNK);
        let begun = answer(&begun)?;
        let path = format!("bot/uploads/{}", begun["id"].as_str().unwrap_or_default());
        for chunk in bytes.chunks(limit) {
            let sent = self
                .request(minreq::Method::Post, &path)
                .with_header("Content-Type", "application/octet-stream")
                .with_body(chunk)
                .send()?;
            if sent.status_code == 200 {
                let id = answer(&sent)?["id"].as_str().map(str::to_owned);
                return id.ok_or_else(|| "the site gave the file no id".into());
            }
            answer(&sent)?;
        }
        Err(format!("the site did not take all of {name}").into())
    }
}

/// What the site answered; an error for anything but success.
fn answer(response: &minreq::Response) -> Result<Value> {
    let text = response.as_str().unwrap_or_default();
    match response.status_code {
        200..=299 => Ok(serde_json::from_str(text).unwrap_or(Value::Null)),
        status => Err(format!("the site answered {status}: {text}").into()),
    }
}
