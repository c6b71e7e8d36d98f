//! `GET /jobs`: the caller's jobs, newest first.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use domain::{JobId, Lifecycle};
use engine::JobQuery;
use serde::Serialize;

use super::json;
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::job_body::JobBody;

/// Jobs on the longest page, and on one whose length is not asked for.
const LONGEST_PAGE: u32 = 100;

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<JobBody<'a>>,
    /// What to ask for `before` to see what follows; null on the last page.
    next: Option<&'a str>,
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = parse(query.as_deref().unwrap_or_default()).map_err(ApiError::bad_request)?;
    query.owner = caller.scope();
    let length = query.limit as usize;
    // One more than is shown tells whether another page follows.
    query.limit += 1;
    let views = api.engine.page(&query).await?;
    let shown = &views[..views.len().min(length)];
    let next = if views.len() > length {
        shown.last().map(|view| view.job.id.as_str())
    } else {
        None
    };
    Ok(json(&Page {
        jobs: shown.iter().map(|view| JobBody::new(view)).collect(),
        next,
    }))
}

/// `limit=N&before=ID&state=NAME[,NAME]`. None of the values needs escaping.
fn parse(text: &str) -> Result<JobQuery, String> {
    let mut query = JobQuery {
        limit: LONGEST_PAGE,
        ..JobQuery::default()
    };
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "limit" => match value.parse::<u32>() {
                Ok(limit) if limit > 0 => query.limit = limit.min(LONGEST_PAGE),
                _ => return Err("invalid limit: should be a number from 1 to 100".into()),
            },
            "before" => match value.parse::<JobId>() {
                Ok(id) => query.before = Some(id),
                Err(_) => return Err("invalid before: should be the id of a job".into()),
            },
            "state" => {
                for name in value.replace("%2C", ",").replace("%2c", ",").split(',') {
                    let known = Lifecycle::ALL
                        .into_iter()
                        .find(|state| state.as_str() == name);
                    let names: Vec<_> = Lifecycle::ALL.iter().map(|state| state.as_str()).collect();
                    let state = known.ok_or_else(|| {
                        format!("invalid state: should be of {}", names.join(", "))
                    })?;
                    query.states.push(state);
                }
            }
            _ => {}
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_bounded() {
        assert_eq!(parse("").unwrap().limit, 100);
        assert_eq!(parse("limit=1000&x=y").unwrap().limit, 100);
        let query = parse("limit=7&before=aaaaaaaaaaaaaaaaaaaaaaaaaa&state=running,ended").unwrap();
        assert_eq!((query.limit, query.before.is_some()), (7, true));
        assert_eq!(query.states, [Lifecycle::Running, Lifecycle::Ended]);
    }

    #[test]
    fn nonsense_is_named() {
        for (query, told) in [
            ("limit=0", "invalid limit"),
            ("limit=-1", "invalid limit"),
            ("before=../x", "invalid before"),
            ("state=sleeping", "invalid state"),
            ("state=", "invalid state"),
        ] {
            let error = parse(query).unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
