//! Who may call, and what everybody else is told.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use domain::{ClientId, Secret, Timestamp};
use engine::{Clock as _, Registered, Registration, Registrations, StoreError};
use serde_json::json;
use store::SqliteStore;

use super::{Auth, AuthSettings, Caller, Unknown, Verdict};

use crate::testing::{ADMIN, KEY, OTHER_KEY, Service, basic};

#[tokio::test]
async fn every_way_to_be_refused_has_its_text() {
    let closed = Service::with(false, Some(ADMIN), 2).await;
    closed.register("site", KEY).await;
    let short = &KEY[1..];
    for (auth, text) in [
        (String::new(), "authentication failed: invalid auth header"),
        (
            "Basic !".into(),
            "authentication failed: invalid auth header",
        ),
        (
            "Digest abc".into(),
            "authentication failed: invalid auth header",
        ),
        (
            "Bearer abc".into(),
            "authentication failed: token is invalid",
        ),
        (basic("site", OTHER_KEY), "authentication failed"),
        (basic("site", short), "authentication failed"),
        (basic("nobody", KEY), "authentication failed"),
        (basic("nobody", short), "authentication failed"),
        (basic("", "wrong"), "authentication failed: unauthorized"),
        (basic("", KEY), "authentication failed: unauthorized"),
    ] {
        closed.get("/jobs", &auth).await.is_error(401, text);
    }
    closed.get("/jobs", &basic("site", KEY)).await.is_ok();
    for user in ["", "anybody", "site"] {
        closed.get("/jobs", &basic(user, ADMIN)).await.is_ok();
    }
}

#[tokio::test]
async fn without_an_administrator_the_secret_is_nothing() {
    let service = Service::with(true, None, 2).await;
    service
        .get("/jobs", &basic("", ADMIN))
        .await
        .is_error(401, "authentication failed: unauthorized");
    service
        .get("/jobs", &basic("", ""))
        .await
        .is_error(401, "authentication failed: unauthorized");
}

#[tokio::test]
async fn an_unknown_client_registers_itself_by_its_first_call_where_that_is_allowed() {
    let service = Service::open().await;
    service
        .get("/jobs", &basic("new", &KEY[1..]))
        .await
        .is_error(401, "unauthorized");
    service.get("/jobs", &basic("new", KEY)).await.is_ok();
    service
        .get("/jobs", &basic("new", OTHER_KEY))
        .await
        .is_error(401, "authentication failed");
    service
        .get("/jobs", &basic("new", &KEY[1..]))
        .await
        .is_error(401, "authentication failed");
    service.get("/jobs", &basic("new", KEY)).await.is_ok();
    let long = "x".repeat(257);
    service
        .get("/jobs", &basic(&long, KEY))
        .await
        .is_error(401, "authentication failed");
}

#[tokio::test]
async fn calls_of_a_new_client_at_once_make_one_registration() {
    let service = Service::open().await;
    let auth = basic("new", KEY);
    let calls = (0..8).map(|_| service.get("/jobs", &auth));
    for answer in futures_util::future::join_all(calls).await {
        answer.is_ok();
    }
    service.register("other", OTHER_KEY).await;
}

#[tokio::test]
async fn hashes_of_the_standard_service_let_their_clients_in() {
    let service = Service::with(false, None, 2).await;
    let hash = bcrypt::hash(KEY, 4).unwrap();
    service
        .store
        .register(
            &ClientId::new("migrated").unwrap(),
            &hash,
            service.clock.now(),
        )
        .await
        .unwrap();
    service.get("/jobs", &basic("migrated", KEY)).await.is_ok();
    service
        .get("/jobs", &basic("migrated", OTHER_KEY))
        .await
        .is_error(401, "authentication failed");
}

#[tokio::test]
async fn a_verified_key_costs_no_further_hash() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let began = tokio::time::Instant::now();
    for _ in 0..1000 {
        service.get("/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", &auth).await;
    }
    // A thousand slow hashes would take half a minute.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

/// A client whose key is not in memory, as after a restart.
async fn migrated(service: &Service) -> String {
    let hash = bcrypt::hash(KEY, 4).unwrap();
    let site = ClientId::new("site").unwrap();
    let added = service.store.register(&site, &hash, service.clock.now());
    assert!(matches!(added.await.unwrap(), Registered::New(_)));
    basic("site", KEY)
}

#[tokio::test]
async fn wrong_keys_for_a_client_do_not_keep_its_right_one_out() {
    let service = Service::with(false, None, 2).await;
    let auth = migrated(&service).await;
    let wrong: Vec<_> = (0..14)
        .map(|n| basic("site", &format!("{n:032}")))
        .collect();
    for wrong in &wrong[..10] {
        let answer = service.get("/jobs", wrong).await;
        answer.is_error(401, "authentication failed");
    }
    // From here on they are tried a second apart.
    let began = tokio::time::Instant::now();
    let flood =
        futures_util::future::join_all(wrong[10..].iter().map(|auth| service.get("/jobs", auth)));
    let right = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.get("/jobs", &auth).await.is_ok();
        began.elapsed()
    };
    let (answers, took) = tokio::join!(flood, right);
    for answer in answers {
        answer.is_error(401, "authentication failed");
    }
    // The tenth and the four that were there first, a second each.
    assert!(took > Duration::from_secs(3), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let again = tokio::time::Instant::now();
    service.get("/jobs", &auth).await.is_ok();
    assert!(again.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_counted_all_the_same() {
    let service = Service::with(false, None, 2).await;
    migrated(&service).await;
    let (_, auth) = auth(&service);
    let mut began = tokio::time::Instant::now();
    for n in 0..10 {
        let key = Secret::new(format!("{n:032}"));
        {
            let call = std::pin::pin!(auth.check("site", &key, Unknown::Refuse));
            assert!(futures_util::poll!(call).is_pending());
        }
        began = tokio::time::Instant::now();
        assert!(auth.trials.turn("site").await.is_ok());
    }
    // After the tenth the next turn comes a second later.
    assert!(began.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn a_flood_of_unknown_clients_is_turned_away_and_a_known_one_is_served_meanwhile() {
    let service = Service::with(false, Some(ADMIN), 2).await;
    let auth = service.register("site", KEY).await;
    let names: Vec<_> = (0..100)
        .map(|n| basic(&format!("unknown {n}"), KEY))
        .collect();
    let flood = futures_util::future::join_all(names.iter().map(|auth| service.get("/jobs", auth)));
    let known = async {
        tokio::task::yield_now().await;
        tokio::time::timeout(Duration::from_secs(5), service.get("/jobs", &auth))
            .await
            .unwrap()
            .is_ok();
    };
    let (answers, ()) = tokio::join!(flood, known);
    let (put_off, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 503);
    assert_eq!((put_off.len(), refused.len()), (68, 32));
    assert!(
        put_off
            .iter()
            .all(|answer| answer.headers.contains_key("retry-after"))
    );
    refused[0].is_error(401, "authentication failed");
}

#[tokio::test]
async fn a_session_works_like_its_client_until_it_is_over() {
    let service = Service::open().await;
    service.register("site", KEY).await;
    let login = service
        .post("/login", "", &json!({ "clientID": "site", "authKey": KEY }))
        .await;
    let token = login.is_ok().json()["bearerToken"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(login.json(), json!({ "bearerToken": token, "code": "200" }));
    let bearer = format!("Bearer {token}");
    service.get("/jobs", &bearer).await.is_ok();
    service.clock.advance(Duration::from_secs(3600));
    service
        .get("/jobs", &bearer)
        .await
        .is_error(401, "authentication failed: session is expired");
}

#[tokio::test]
async fn login_has_its_own_texts() {
    let service = Service::open().await;
    service.register("site", KEY).await;
    for (client, key, text) in [
        (
            "nobody",
            KEY,
            "login failed: authentication failed: error: not found",
        ),
        ("site", OTHER_KEY, "login failed: authentication failed"),
        ("site", "", "login failed: authentication failed"),
        (
            "",
            KEY,
            "login failed: authentication failed: error: empty key",
        ),
    ] {
        service
            .post("/login", "", &json!({ "clientID": client, "authKey": key }))
            .await
            .is_error(400, text);
    }
    // Logging in registers nobody.
    service
        .post(
            "/login",
            "",
            &json!({ "clientID": "nobody", "authKey": KEY }),
        )
        .await
        .is_error(400, "login failed: authentication failed: error: not found");
    for body in ["", "{", "[]", r#"{"clientID":1}"#] {
        let answer = service.send("POST", "/login", "", body).await;
        assert_eq!(answer.status, 400);
        let texts = answer.json();
        assert!(
            texts
                .as_object()
                .unwrap()
                .values()
                .all(serde_json::Value::is_string),
            "{texts}"
        );
    }
}

#[tokio::test]
async fn register_has_its_own_rights_and_texts() {
    let closed = Service::with(false, Some(ADMIN), 2).await;
    let body = |client: &str, key: &str| json!({ "clientID": client, "authKey": key });
    let admin = basic("", ADMIN);
    closed
        .post("/register", "", &body("a", KEY))
        .await
        .is_error(401, "authentication failed: invalid auth header");
    closed
        .post("/register", &basic("a", KEY), &body("a", KEY))
        .await
        .is_error(401, "authentication failed");
    let created = closed.post("/register", &admin, &body("a", KEY)).await;
    assert_eq!(
        (created.status.as_u16(), created.json()),
        (201, json!({ "clientID": "a", "code": "201" }))
    );
    // Any valid client may register another.
    assert_eq!(
        closed
            .post("/register", &basic("a", KEY), &body("b", KEY))
            .await
            .status,
        201
    );
    for (client, key, text) in [
        ("", KEY, "registration failed: error: empty key"),
        ("c", &KEY[1..], "registration failed: key not long enough"),
        ("a", OTHER_KEY, "registration failed: already registered"),
    ] {
        closed
            .post("/register", &admin, &body(client, key))
            .await
            .is_error(400, text);
    }
    assert_eq!(
        closed.send("POST", "/register", &admin, "{").await.status,
        400
    );
    let open = Service::with(true, None, 2).await;
    assert_eq!(
        open.post("/register", "", &body("a", KEY)).await.status,
        201
    );
}

#[tokio::test]
async fn unregister_ends_all_that_a_client_had() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let other = service.register("other", OTHER_KEY).await;
    let login = service
        .post("/login", "", &json!({ "clientID": "site", "authKey": KEY }))
        .await
        .json();
    let bearer = format!("Bearer {}", login["bearerToken"].as_str().unwrap());
    let job = service.record(&auth, &"r".repeat(26)).await;
    let site = json!({ "clientID": "site" });

    service
        .post("/unregister", "", &site)
        .await
        .is_error(401, "authentication failed: invalid auth header");
    service
        .post("/unregister", &other, &site)
        .await
        .is_error(403, "client id not valid");
    service
        .post("/unregister", &auth, &json!({}))
        .await
        .is_error(400, "client id should not be empty");
    let nobody = json!({ "clientID": "nobody" });
    service
        .post("/unregister", &basic("", ADMIN), &nobody)
        .await
        .is_error(400, "unregister failed: error: not found");
    assert_eq!(
        service.post("/unregister", &auth, &site).await.is_ok().text,
        ""
    );

    service
        .get("/jobs", &bearer)
        .await
        .is_error(401, "authentication failed: token is invalid");
    // Nobody registers by this call, and the old key is worth nothing here.
    service
        .post("/unregister", &auth, &site)
        .await
        .is_error(401, "authentication failed");
    // The same name again is another registration: it does not see the job of the first.
    let path = format!("/jobs/{job}");
    service
        .get(&path, &auth)
        .await
        .is_error(404, &format!("failed to get job {job}: not found"));
    service.get(&path, &basic("", ADMIN)).await.is_ok();
}

#[tokio::test]
async fn unregister_is_off_where_neither_administrator_nor_self_registration_is_on() {
    let service = Service::with(false, None, 2).await;
    service
        .post("/unregister", "", &json!({ "clientID": "a" }))
        .await
        .is_error(403, "unregister not enabled");
}

/// The store, in which a registration ends as soon as it is made when `fleeting` is set.
struct Registry {
    store: Arc<SqliteStore>,
    fleeting: OnceLock<Arc<Auth>>,
}

#[async_trait]
impl Registrations for Registry {
    async fn register(
        &self,
        client: &ClientId,
        key_hash: &str,
        now: Timestamp,
    ) -> Result<Registered, StoreError> {
        let registered = self.store.register(client, key_hash, now).await;
        if let Some(auth) = self.fleeting.get() {
            assert!(auth.unregister(client).await?);
        }
        registered
    }

    async fn registration(&self, client: &ClientId) -> Result<Option<Registration>, StoreError> {
        self.store.registration(client).await
    }

    async fn unregister(&self, client: &ClientId) -> Result<bool, StoreError> {
        self.store.unregister(client).await
    }

    async fn registered(&self) -> Result<u64, StoreError> {
        self.store.registered().await
    }

    async fn registrations(
        &self,
        before: Option<domain::RegistrationId>,
        limit: u32,
    ) -> Result<Vec<engine::RegisteredClient>, StoreError> {
        self.store.registrations(before, limit).await
    }
}

fn auth(service: &Service) -> (Arc<Registry>, Arc<Auth>) {
    let registry = Arc::new(Registry {
        store: service.store.clone(),
        fleeting: OnceLock::new(),
    });
    let settings = AuthSettings {
        allow_self_registration: true,
        self_registration_networks: Vec::new(),
        self_registration_clients: None,
        admin_secret: None,
        session_lifetime: Duration::from_secs(3600),
    };
    let auth = Auth::new(settings, registry.clone(), service.clock.clone()).unwrap();
    (registry, Arc::new(auth))
}

#[tokio::test]
async fn a_registration_that_ends_while_a_session_opens_takes_it_along() {
    let service = Service::open().await;
    let (_, auth) = auth(&service);
    let (site, key) = (ClientId::new("site").unwrap(), Secret::new(KEY));
    let check = async || match auth
        .check("site", &key, Unknown::MayRegister(None))
        .await
        .unwrap()
    {
        Verdict::Valid(client) => client,
        other => panic!("{other:?}"),
    };
    let first = check().await;
    assert!(auth.unregister(&site).await.unwrap());
    assert!(auth.open_session(first.clone()).await.unwrap().is_none());
    // Nor is it a session of the next registration.
    let second = check().await;
    assert!(auth.open_session(first).await.unwrap().is_none());
    assert!(auth.sessions.is_empty());
    let token = auth.open_session(second.clone()).await.unwrap().unwrap();
    let bearer = format!("Bearer {}", token.reveal());
    let caller = auth.caller(Some(bearer.as_bytes()), Unknown::Refuse).await;
    assert!(matches!(caller, Ok(Caller::Client(client)) if client == second));
}

#[tokio::test]
async fn a_registration_that_ends_as_it_is_made_is_not_remembered() {
    let service = Service::open().await;
    let (registry, auth) = auth(&service);
    assert!(registry.fleeting.set(auth.clone()).is_ok());
    let key = Secret::new(KEY);
    let made = auth.check("site", &key, Unknown::MayRegister(None)).await;
    assert!(matches!(made, Ok(Verdict::Valid(_))));
    let after = auth.check("site", &key, Unknown::Refuse).await;
    assert!(matches!(after, Ok(Verdict::NotFound)), "{after:?}");
}
