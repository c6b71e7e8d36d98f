//! Request bodies, read as leniently as clients of the standard service expect.
//!
//! Field names match without regard to case, unknown fields are ignored, null is the same as
//! nothing. The client sends `Runners` where the other fields are lower-case.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

/// Bytes of the largest body.
pub(crate) const LARGEST_BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const SLOWEST_BODY: Duration = Duration::from_secs(30);

/// A body that is not what it should be. Never quotes it: it may hold secrets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// More than [`LARGEST_BODY`].
    #[error("larger than 1 MiB")]
    TooLarge,
    /// It did not arrive within [`SLOWEST_BODY`].
    #[error("it took too long to arrive")]
    TooSlow,
    /// It ended early.
    #[error("it could not be read")]
    Broken,
    /// It is no JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON of another shape.
    #[error("{field} should be {expected}")]
    Shape {
        /// The field, or `the body`.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// Reads a whole body.
pub(crate) async fn read(body: Body) -> Result<Bytes, DecodeError> {
    tokio::time::timeout(SLOWEST_BODY, collect(body))
        .await
        .map_err(|_| DecodeError::TooSlow)?
}

async fn collect(body: Body) -> Result<Bytes, DecodeError> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| DecodeError::Broken)?;
        if whole.len() + chunk.len() > LARGEST_BODY {
            return Err(DecodeError::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// The fields of a body that is a JSON object.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(Value::Null) => Ok(Self(Map::new())),
            Ok(_) => Err(DecodeError::Shape {
                field: "the body",
                expected: "an object",
            }),
            Err(error) => Err(DecodeError::Syntax(error.to_string())),
        }
    }

    /// Takes a field out: the one of exactly this name, else one that differs in case only.
    fn take(&mut self, name: &str) -> Option<Value> {
        let found = match self.0.contains_key(name) {
            true => name.to_owned(),
            false => self
                .0
                .keys()
                .rfind(|key| key.eq_ignore_ascii_case(name))?
                .clone(),
        };
        self.0.remove(&found).filter(|value| !value.is_null())
    }

    /// A text; empty when it is left out.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, DecodeError> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(DecodeError::Shape {
                field: name,
                expected: "a string",
            }),
        }
    }

    /// A whole number; 0 when it is left out.
    pub(crate) fn integer(&mut self, name: &'static str) -> Result<i64, DecodeError> {
        match self.take(name) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or(DecodeError::Shape {
                field: name,
                expected: "a whole number of 64 bits",
            }),
        }
    }

    /// A list of texts; empty when it is left out.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, DecodeError> {
        let wrong = DecodeError::Shape {
            field: name,
            expected: "a list of strings",
        };
        let Some(value) = self.take(name) else {
            return Ok(Vec::new());
        };
        let Value::Array(items) = value else {
            return Err(wrong);
        };
        let text = |item| match item {
            Value::String(text) => Some(text),
            Value::Null => Some(String::new()),
            _ => None,
        };
        items
            .into_iter()
            .map(text)
            .collect::<Option<_>>()
            .ok_or(wrong)
    }

    /// An object; empty when it is left out.
    pub(crate) fn object(&mut self, name: &'static str) -> Result<Map<String, Value>, DecodeError> {
        match self.take(name) {
            None => Ok(Map::new()),
            Some(Value::Object(fields)) => Ok(fields),
            Some(_) => Err(DecodeError::Shape {
                field: name,
                expected: "an object",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_the_exact_one_wins() {
        assert_eq!(
            fields(r#"{"Runners":["a"],"x":1}"#)
                .texts("runners")
                .unwrap(),
            ["a"]
        );
        assert_eq!(
            fields(r#"{"TYPE":"a","type":"b"}"#).text("type").unwrap(),
            "b"
        );
    }

    #[test]
    fn null_and_nothing_are_empty() {
        for body in ["null", "{}", r#"{"a":null}"#] {
            assert_eq!(fields(body).text("a").unwrap(), "");
            assert_eq!(fields(body).integer("a").unwrap(), 0);
            assert!(fields(body).texts("a").unwrap().is_empty());
            assert!(fields(body).object("a").unwrap().is_empty());
        }
    }

    #[test]
    fn other_shapes_are_named_and_never_quoted() {
        for body in ["", "{", "[]", "7", "\"secret\"", "{\"a\":\"secret\"} x"] {
            let error = Fields::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        for number in ["1.5", "\"7\"", "1e30", "99999999999999999999", "[]"] {
            let error = fields(&format!("{{\"n\":{number}}}"))
                .integer("n")
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "n should be a whole number of 64 bits",
                "{number}"
            );
        }
        assert!(fields(r#"{"a":[1]}"#).texts("a").is_err());
        assert!(fields(r#"{"a":"x"}"#).object("a").is_err());
        assert!(fields(r#"{"a":1}"#).text("a").is_err());
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_one_mebibyte() {
        let whole = read(Body::from(vec![b' '; LARGEST_BODY])).await.unwrap();
        assert_eq!(whole.len(), LARGEST_BODY);
        assert_eq!(
            read(Body::from(vec![b' '; LARGEST_BODY + 1])).await,
            Err(DecodeError::TooLarge)
        );
    }
}
