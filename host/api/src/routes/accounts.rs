//! Registering, logging in, unregistering. The client decodes every answer of these into a map
//! from string to string, so all values are strings.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use domain::{ClientId, Secret};
use serde_json::json;

use super::json;
use crate::Api;
use crate::audit;
use crate::auth::{By, Caller, Unknown, Verdict};
use crate::caller::Peer;
use crate::decode::{self, Fields};
use crate::error::ApiError;

/// `{"clientID", "authKey"}`
async fn credentials(body: Body) -> Result<(String, Secret), ApiError> {
    let mut fields = Fields::parse(&decode::read(body).await?)?;
    Ok((
        fields.text("clientID")?,
        Secret::new(fields.text("authKey")?),
    ))
}

pub(super) async fn login(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    let (client, key) = credentials(body).await?;
    let failed = |why| {
        Err(ApiError::bad_request(format!(
            "login failed: authentication failed{why}"
        )))
    };
    if client.is_empty() {
        return failed(": error: empty key");
    }
    match api.auth.check(&client, &key, Unknown::Refuse).await? {
        Verdict::Valid(client) => match api.auth.open_session(client).await? {
            Some(token) => Ok(json(
                &json!({ "bearerToken": token.reveal(), "code": "200" }),
            )),
            None => failed(": error: not found"),
        },
        Verdict::WrongKey => failed(""),
        Verdict::NotFound | Verdict::KeyTooShort => failed(": error: not found"),
    }
}

pub(super) async fn register(
    State(api): State<Api>,
    from: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // Who may register itself may as well register by this call.
    let caller = match api.auth.may_register_itself(from.address()).await? {
        true => None,
        false => Some(authenticate(&api, &headers).await?),
    };
    let by = match caller {
        None => By::Itself,
        Some(_) => By::Another,
    };
    let (client, key) = credentials(body).await?;
    api.auth.register(&client, &key, by).await?;
    if let Some(Caller::Admin) = caller {
        audit::record(from, "register-client", &client, "ok");
    }
    let answer = json(&json!({ "clientID": client, "code": "201" }));
    Ok((StatusCode::CREATED, answer).into_response())
}

pub(super) async fn unregister(
    State(api): State<Api>,
    from: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    if !api.auth.has_admin() && !api.auth.self_registration() {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "unregister not enabled",
        ));
    }
    let caller = authenticate(&api, &headers).await?;
    let client = Fields::parse(&decode::read(body).await?)?.text("clientID")?;
    let Some(client) = ClientId::new(client) else {
        return Err(ApiError::bad_request("client id should not be empty"));
    };
    if let Caller::Client(caller) = &caller
        && caller.id != client
    {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "client id not valid"));
    }
    match api.auth.unregister(&client).await? {
        true => {
            if let Caller::Admin = caller {
                audit::record(from, "unregister-client", client.as_str(), "ok");
            }
            Ok(StatusCode::OK)
        }
        false => Err(ApiError::bad_request("unregister failed: error: not found")),
    }
}

/// Who calls; a client that is not registered stays so.
async fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    Ok(api.auth.caller(header, Unknown::Refuse).await?)
}
