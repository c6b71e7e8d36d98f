//! Reading the `Authorization` header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Secret;

/// What a caller presents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A client id, which may be empty, and its key.
    Basic {
        /// The client id as sent.
        client: String,
        /// The key.
        key: Secret,
    },
    /// A token of `/login`.
    Bearer(Secret),
}

impl Credentials {
    /// Takes the header's value apart; `None` when it is malformed or of an unknown scheme.
    pub(crate) fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let (scheme, value) = text.split_once(' ')?;
        let value = value.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let mut decoded = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
            let colon = decoded.find(':')?;
            let key = Secret::new(&decoded[colon + 1..]);
            decoded.truncate(colon);
            Some(Self::Basic {
                client: decoded,
                key,
            })
        } else if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
            Some(Self::Bearer(Secret::new(value)))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(client: &str, key: &str) -> Option<Credentials> {
        Some(Credentials::Basic {
            client: client.into(),
            key: Secret::new(key),
        })
    }

    #[test]
    fn basic_and_bearer_are_read_in_any_case() {
        for (header, expected) in [
            ("Basic YWJjOmtleQ==", basic("abc", "key")),
            ("basic YWJjOmtleQ==", basic("abc", "key")),
            ("Basic YWJjOms6ZTp5", basic("abc", "k:e:y")),
            ("Basic OmtleQ==", basic("", "key")),
            ("Bearer abc", Some(Credentials::Bearer(Secret::new("abc")))),
            ("bearer abc", Some(Credentials::Bearer(Secret::new("abc")))),
        ] {
            assert_eq!(Credentials::parse(header.as_bytes()), expected, "{header}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for header in [
            "",
            "Basic",
            "Basic ",
            "Basic !!",
            "Basic YWJj",
            "Bearer",
            "Bearer ",
            "Digest x",
            "Basic //8=",
        ] {
            assert_eq!(Credentials::parse(header.as_bytes()), None, "{header}");
        }
        assert_eq!(Credentials::parse(&[0xff, 0xfe]), None);
    }
}
