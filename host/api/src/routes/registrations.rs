//! Who is registered, for the administrator.

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::{ClientId, RegistrationId};
use serde::Serialize;

use super::json;
use crate::Api;
use crate::audit;
use crate::caller::Administrator;
use crate::error::ApiError;

/// Registrations on the longest page, and on one whose length is not asked for.
const LONGEST_PAGE: u32 = 100;

#[derive(Serialize)]
struct Page<'a> {
    registrations: Vec<RegistrationBody<'a>>,
    /// What to ask for `before` to see what follows; null on the last page.
    next: Option<i64>,
}

#[derive(Serialize)]
struct RegistrationBody<'a> {
    id: i64,
    client: &'a str,
    registered_at: i64,
}

/// `GET /registrations?limit=&before=`
pub(super) async fn list(
    State(api): State<Api>,
    _: Administrator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.as_deref().unwrap_or_default();
    let (before, limit) = parse(query).map_err(ApiError::bad_request)?;
    // One more than is shown tells whether another page follows.
    let found = api.auth.registrations(before, limit + 1).await?;
    let shown = &found[..found.len().min(limit as usize)];
    let registrations = shown.iter().map(|registration| RegistrationBody {
        id: registration.id.0,
        client: registration.client.as_str(),
        registered_at: registration.registered_at.as_millis(),
    });
    let more = found.len() > shown.len();
    Ok(json(&Page {
        registrations: registrations.collect(),
        next: shown.last().filter(|_| more).map(|last| last.id.0),
    }))
}

/// `limit=N&before=ID`
fn parse(text: &str) -> Result<(Option<RegistrationId>, u32), &'static str> {
    let (mut before, mut limit) = (None, LONGEST_PAGE);
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "limit" => match value.parse() {
                Ok(number) if number > 0 => limit = LONGEST_PAGE.min(number),
                _ => return Err("invalid limit: should be a number from 1 to 100"),
            },
            "before" => match value.parse() {
                Ok(id) => before = Some(RegistrationId(id)),
                Err(_) => return Err("invalid before: should be the id of a registration"),
            },
            _ => {}
        }
    }
    Ok((before, limit))
}

/// `DELETE /registrations/{client}`: the client can register again, with another key.
pub(super) async fn reset(
    State(api): State<Api>,
    Administrator(from): Administrator,
    Path(client): Path<String>,
) -> Result<StatusCode, ApiError> {
    let known = match ClientId::new(client.as_str()) {
        Some(client) => api.auth.unregister(&client).await?,
        None => false,
    };
    if !known {
        return Err(ApiError::unknown_registration(&client));
    }
    audit::record(from, "reset-registration", &client, "ok");
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::AuthSettings;
    use crate::testing::{ADMIN, KEY, OTHER_KEY, START, Service, auth, basic};

    #[tokio::test]
    async fn the_administrator_lists_and_resets_registrations() {
        let service = Service::open().await;
        let admin = basic("", ADMIN);
        for client in ["first", "second/with a slash", "third"] {
            service.register(client, KEY).await;
        }
        let page = service.get("/registrations?limit=2", &admin).await;
        let page = page.is_ok().json();
        let names = |page: &serde_json::Value| -> Vec<String> {
            let list = page["registrations"].as_array().unwrap().iter();
            list.map(|it| it["client"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&page), ["third", "second/with a slash"]);
        assert_eq!(page["registrations"][0]["registered_at"], START);
        let path = format!("/registrations?before={}", page["next"]);
        let rest = service.get(&path, &admin).await.is_ok().json();
        assert_eq!(
            (names(&rest), &rest["next"]),
            (vec!["first".into()], &json!(null))
        );

        let path = "/registrations/second%2Fwith%20a%20slash";
        let gone = service.send("DELETE", path, &admin, "").await;
        assert_eq!((gone.status, gone.text.as_str()), (StatusCode::OK, ""));
        let again = service.send("DELETE", path, &admin, "").await;
        again.is_error(
            404,
            "failed to get registration second/with a slash: not found",
        );
        // With another key it is another registration.
        let other = basic("second/with a slash", OTHER_KEY);
        service.get("/jobs", &other).await.is_ok();
        for query in ["limit=0", "limit=x", "before=x"] {
            let answer = service
                .get(&format!("/registrations?{query}"), &admin)
                .await;
            assert_eq!(answer.status, 400, "{query}");
        }
    }

    #[tokio::test]
    async fn clients_neither_list_nor_reset_registrations() {
        let service = Service::open().await;
        let client = service.register("site", KEY).await;
        for (method, path) in [("GET", "/registrations"), ("DELETE", "/registrations/site")] {
            let answer = service.send(method, path, &client, "").await;
            answer.is_error(403, "only the administrator may do this");
        }
        service.get("/jobs", &client).await.is_ok();
    }

    #[tokio::test]
    async fn only_clients_of_certain_networks_register_themselves() {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let service = Service::with_auth(
            AuthSettings {
                self_registration_networks: networks.into(),
                ..auth()
            },
            2,
        );
        let service = service.await;
        for (address, inside) in [
            ("10.1.2.3:1", true),
            ("[::ffff:10.1.2.3]:1", true),
            ("[fd00::1]:1", true),
            ("11.1.2.3:1", false),
            ("[fe80::1]:1", false),
        ] {
            let client = basic(&format!("from {address}"), KEY);
            let answer = service.get_from(address, "/jobs", &client).await;
            match inside {
                true => drop(answer.is_ok()),
                false => answer.is_error(401, "authentication failed"),
            }
        }
        // Of no known address: neither by its first call nor by /register.
        let answer = service.get("/jobs", &basic("nowhere", KEY)).await;
        answer.is_error(401, "authentication failed");
        let body = json!({ "clientID": "nowhere", "authKey": KEY });
        let answer = service.post("/register", "", &body).await;
        answer.is_error(401, "authentication failed: invalid auth header");
        // Whoever is registered is served from anywhere.
        let known = basic("from 10.1.2.3:1", KEY);
        service
            .get_from("11.1.2.3:1", "/jobs", &known)
            .await
            .is_ok();
    }

    #[tokio::test]
    async fn only_so_many_clients_register_themselves() {
        let settings = AuthSettings {
            self_registration_clients: std::num::NonZeroU32::new(2),
            ..auth()
        };
        let service = Service::with_auth(settings, 2).await;
        let clients = ["a", "b", "c", "d"].map(|client| basic(client, KEY));
        let calls = clients.iter().map(|client| service.get("/jobs", client));
        let answers = futures_util::future::join_all(calls).await;
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(served, 2, "{answers:?}");
        let body = json!({ "clientID": "e", "authKey": KEY });
        let answer = service.post("/register", "", &body).await;
        answer.is_error(401, "authentication failed: invalid auth header");
        // The administrator is not bound by that, and a reset makes room.
        service.register("by the administrator", KEY).await;
        let page = service
            .get("/registrations", &basic("", ADMIN))
            .await
            .json();
        let registrations = page["registrations"].as_array().unwrap();
        assert_eq!(registrations.len(), 3);
        for registration in &registrations[1..] {
            let path = format!(
                "/registrations/{}",
                registration["client"].as_str().unwrap()
            );
            let reset = service.send("DELETE", &path, &basic("", ADMIN), "").await;
            assert_eq!(reset.status, StatusCode::OK);
        }
        service.get("/jobs", &basic("f", KEY)).await.is_ok();
    }
}
