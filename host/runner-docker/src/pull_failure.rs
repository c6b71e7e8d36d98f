//! What the engine's words about a failed pull mean.
//!
//! Engines pass on what the registry or the network said in free text, older and newer ones in
//! different words, with a status that is 500 for most of it. So the words decide first.

use domain::EndReason;

use EndReason::{ImageNotFound, ImageRefused, ImageUnauthorized, ImageUnreachable};

/// Words, in lower case, and what they mean; the first that occur decide.
const WORDS: &[(&str, EndReason)] = &[
    // The registry does not say which of the two it is when an image is private or missing.
    ("pull access denied", ImageUnauthorized),
    ("no basic auth credentials", ImageUnauthorized),
    ("unauthorized", ImageUnauthorized),
    ("authentication required", ImageUnauthorized),
    ("authorization failed", ImageUnauthorized),
    ("insufficient_scope", ImageUnauthorized),
    ("access to the resource is denied", ImageUnauthorized),
    ("403 forbidden", ImageUnauthorized),
    // The network, before "not found": a name that does not resolve is one.
    ("no such host", ImageUnreachable),
    ("name resolution", ImageUnreachable),
    ("server misbehaving", ImageUnreachable),
    ("connection refused", ImageUnreachable),
    ("connection reset", ImageUnreachable),
    ("no route to host", ImageUnreachable),
    ("network is unreachable", ImageUnreachable),
    ("timeout", ImageUnreachable),
    ("timed out", ImageUnreachable),
    ("deadline exceeded", ImageUnreachable),
    ("request canceled", ImageUnreachable),
    ("x509:", ImageUnreachable),
    (
        "server gave http response to https client",
        ImageUnreachable,
    ),
    ("toomanyrequests", ImageUnreachable),
    ("too many requests", ImageUnreachable),
    ("manifest unknown", ImageNotFound),
    ("name unknown", ImageNotFound),
    ("repository name not known", ImageNotFound),
    ("no matching manifest", ImageNotFound),
    ("not found", ImageNotFound),
    ("does not exist", ImageNotFound),
    ("invalid reference format", ImageRefused),
    ("verification failed", ImageRefused),
    ("unexpected commit digest", ImageRefused),
    ("cannot be used on this platform", ImageRefused),
];

/// Words about the engine's own machine: not the image's or the registry's fault.
const OWN_TROUBLE: &[&str] = &[
    "no space left on device",
    "read-only file system",
    "disk quota exceeded",
];

/// Why a pull failed; `None` when the engine itself is in trouble. `status` is the engine's HTTP
/// status, 0 for an error inside the stream. What nobody knows counts as the registry's trouble:
/// it may pass.
pub(crate) fn classify(status: u16, message: &str) -> Option<EndReason> {
    let message = message.to_lowercase();
    if OWN_TROUBLE.iter().any(|words| message.contains(words)) {
        return None;
    }
    let by_words = WORDS
        .iter()
        .find(|(words, _)| message.contains(words))
        .map(|(_, reason)| *reason);
    Some(by_words.unwrap_or(match status {
        401 | 403 => ImageUnauthorized,
        404 => ImageNotFound,
        400 => ImageRefused,
        _ => ImageUnreachable,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_say_is_understood() {
        for (status, message, reason) in [
            // Docker 20.10
            (
                404,
                "manifest for localhost:5000/x:v1 not found: manifest unknown: manifest unknown",
                ImageNotFound,
            ),
            (
                404,
                "pull access denied for mattermost/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                ImageUnauthorized,
            ),
            (
                500,
                "Head \"http://127.0.0.1:5000/v2/x/manifests/v1\": no basic auth credentials",
                ImageUnauthorized,
            ),
            (
                500,
                "Head \"https://registry.example.com/v2/x/manifests/v1\": unauthorized: authentication required",
                ImageUnauthorized,
            ),
            (
                500,
                "Get \"http://127.0.0.1:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://nowhere.example/v2/\": dial tcp: lookup nowhere.example: no such host",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://h/v2/\": dial tcp: lookup h on 10.0.0.2:53: server misbehaving",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://h/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://h/v2/\": net/http: TLS handshake timeout",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://h/v2/\": x509: certificate signed by unknown authority",
                ImageUnreachable,
            ),
            (
                500,
                "Get \"https://h/v2/\": http: server gave HTTP response to HTTPS client",
                ImageUnreachable,
            ),
            (
                500,
                "received unexpected HTTP status: 503 Service Unavailable",
                ImageUnreachable,
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit.",
                ImageUnreachable,
            ),
            (
                500,
                "manifest verification failed for digest sha256:00",
                ImageRefused,
            ),
            (400, "invalid reference format", ImageRefused),
            (0, "unexpected EOF", ImageUnreachable),
            (0, "unknown blob", ImageUnreachable),
            (
                0,
                "image operating system \"windows\" cannot be used on this platform",
                ImageRefused,
            ),
            (
                0,
                "no matching manifest for linux/arm64 in the manifest list entries",
                ImageNotFound,
            ),
            // Newer engines, with containerd's image store
            (
                404,
                "failed to resolve reference \"docker.io/x/y:v1\": docker.io/x/y:v1: not found",
                ImageNotFound,
            ),
            (
                404,
                "failed to resolve reference \"docker.io/x/y:v1\": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
                ImageUnauthorized,
            ),
            (
                500,
                "failed to resolve reference \"h/x:v1\": unexpected status from HEAD request to https://h/v2/x/manifests/v1: 401 Unauthorized",
                ImageUnauthorized,
            ),
            (
                500,
                "unexpected status from HEAD request to https://h/v2/x/manifests/v1: 403 Forbidden",
                ImageUnauthorized,
            ),
            (
                500,
                "failed to do request: Head \"https://h/v2/x/manifests/v1\": dial tcp: lookup h: Temporary failure in name resolution",
                ImageUnreachable,
            ),
            (
                500,
                "failed to do request: Head \"https://h\": context deadline exceeded",
                ImageUnreachable,
            ),
            // No words at all
            (401, "", ImageUnauthorized),
            (404, "", ImageNotFound),
            (500, "", ImageUnreachable),
        ] {
            assert_eq!(
                classify(status, message),
                Some(reason),
                "{status} {message}"
            );
        }
    }

    #[test]
    fn a_full_disk_is_the_engines_own_trouble() {
        let message = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device";
        assert_eq!(classify(0, message), None);
    }
}
