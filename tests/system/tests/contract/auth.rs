//! Who may call: registering, logging in, and every way to be refused.

use offloader_system_tests::{ADMIN_SECRET, Daemon, KEY, Setup};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{post, request, send};

const CLIENT: &str = "the-site";
/// Long enough, and not KEY.
const OTHER_KEY: &str = "another-key-of-another-client-with-enough-characters";

fn credentials(id: &str, key: &str) -> Value {
    json!({ "clientID": id, "authKey": key })
}

/// GET /jobs with credentials: the error's text, or None if that was allowed.
async fn refused(daemon: &Daemon, id: &str, key: &str) -> Option<String> {
    let answer = send(request(daemon, Method::GET, "/jobs").basic_auth(id, Some(key))).await;
    (answer.status != 200).then(|| answer.error(401))
}

#[tokio::test]
async fn a_header_that_says_nothing_is_refused() {
    let daemon = Setup::new().start().await;
    let headers = [
        None,
        Some("Basic"),
        Some("Basic %%%"),
        Some("Digest abc"),
        Some("Basic bm9jb2xvbg=="),
    ];
    for header in headers {
        let mut asked = request(&daemon, Method::GET, "/jobs");
        if let Some(header) = header {
            asked = asked.header("Authorization", header);
        }
        let text = send(asked).await.error(401);
        assert_eq!(
            text, "authentication failed: invalid auth header",
            "{header:?}"
        );
    }
    let text = send(request(&daemon, Method::GET, "/jobs").bearer_auth("no-such-token"))
        .await
        .error(401);
    assert_eq!(text, "authentication failed: token is invalid");
}

#[tokio::test]
async fn an_unknown_client_registers_itself_with_its_first_call() {
    let daemon = Setup::new().start().await;
    assert_eq!(
        refused(&daemon, CLIENT, "too short").await.as_deref(),
        Some("unauthorized")
    );
    assert_eq!(refused(&daemon, CLIENT, KEY).await, None);
    // From now on that key is the client's, and no other.
    assert_eq!(
        refused(&daemon, CLIENT, OTHER_KEY).await.as_deref(),
        Some("authentication failed")
    );
    assert_eq!(refused(&daemon, CLIENT, KEY).await, None);
}

#[tokio::test]
async fn without_self_registration_only_registered_clients_and_the_admin_get_in() {
    let setup = Setup::new()
        .env("API_SECURITY_ALLOWSELFREGISTRATION", "false")
        .with_admin();
    let daemon = setup.start().await;
    assert_eq!(
        refused(&daemon, CLIENT, KEY).await.as_deref(),
        Some("authentication failed")
    );
    assert_eq!(
        refused(&daemon, "", "wrong").await.as_deref(),
        Some("authentication failed: unauthorized")
    );
    assert_eq!(refused(&daemon, "", ADMIN_SECRET).await, None);

    let register = |id, key| post(&daemon, "/register", &credentials(id, key));
    send(register(CLIENT, KEY)).await.error(401);
    let admin = |asked: reqwest::RequestBuilder| asked.basic_auth("", Some(ADMIN_SECRET));
    let answer = send(admin(register(CLIENT, KEY))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json(), json!({ "clientID": CLIENT, "code": "201" }));
    assert_eq!(refused(&daemon, CLIENT, KEY).await, None);

    for (id, key, text) in [
        ("", KEY, "registration failed: error: empty key"),
        (
            "another",
            "short",
            "registration failed: key not long enough",
        ),
        (CLIENT, KEY, "registration failed: already registered"),
    ] {
        assert_eq!(send(admin(register(id, key))).await.error(400), text);
    }
}

#[tokio::test]
async fn a_token_stands_for_its_client_until_that_is_unregistered() {
    let daemon = Setup::new().start().await;
    assert_eq!(
        send(post(&daemon, "/register", &credentials(CLIENT, KEY)))
            .await
            .status,
        201
    );

    for (id, key, text) in [
        (
            "unknown",
            KEY,
            "login failed: authentication failed: error: not found",
        ),
        (CLIENT, OTHER_KEY, "login failed: authentication failed"),
        (
            "",
            KEY,
            "login failed: authentication failed: error: empty key",
        ),
    ] {
        assert_eq!(
            send(post(&daemon, "/login", &credentials(id, key)))
                .await
                .error(400),
            text
        );
    }
    let answer = send(post(&daemon, "/login", &credentials(CLIENT, KEY))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["code"], "200");
    let token = body["bearerToken"].as_str().expect("a token is text");

    let list = || request(&daemon, Method::GET, "/jobs").bearer_auth(token);
    assert_eq!(send(list()).await.status, 200);
    let unregister =
        |id| post(&daemon, "/unregister", &json!({ "clientID": id })).bearer_auth(token);
    assert_eq!(
        send(unregister("")).await.error(400),
        "client id should not be empty"
    );
    assert_eq!(
        send(unregister("somebody-else")).await.error(403),
        "client id not valid"
    );
    let answer = send(unregister(CLIENT)).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    assert_eq!(
        send(list()).await.error(401),
        "authentication failed: token is invalid"
    );
}

#[tokio::test]
async fn a_registration_survives_a_crash() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    assert_eq!(refused(&daemon, CLIENT, KEY).await, None);
    daemon.crash();
    let daemon = setup.start().await;
    assert_eq!(
        refused(&daemon, CLIENT, OTHER_KEY).await.as_deref(),
        Some("authentication failed")
    );
    assert_eq!(refused(&daemon, CLIENT, KEY).await, None);
    assert!(!daemon.log().contains(KEY), "a key in the log");
}
