//! As much of URLs as a map of sites needs. Whether a URL may be used is for the gate to say.

use alloc::string::String;

/// The host of a URL, with its port where it names one, in lower case.
pub(crate) fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    Some(host.to_ascii_lowercase())
}

/// `NAME` of `NAME:PORT`; the colons of an IPv6 address stand in brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether this can be a host in a table.
pub(crate) fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]_".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// What is wrong with a URL to be used.
pub(crate) fn problem(url: &str) -> Option<&'static str> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        Some("a URL begins with http:// or https://")
    } else if url.contains('@') {
        Some("a URL with credentials is not used")
    } else if !host(url).is_some_and(|host| is_host(&host)) {
        Some("the URL has no host")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_host() {
        for (url, found) in [
            ("https://Mattermost.example.com", "mattermost.example.com"),
            ("http://a:8065/sub?x#y", "a:8065"),
            ("http://[::1]:8065", "[::1]:8065"),
            ("http://a@b", "b"),
            ("http://a\\@b", "a"),
        ] {
            assert_eq!(host(url).as_deref(), Some(found));
        }
        assert_eq!(host("mattermost"), None);
        assert_eq!(without_port("a:8065"), "a");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("[::1]:80"), "[::1]");
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(problem("http://internal:8065"), None);
        for bad in [
            "ftp://a",
            "http://",
            "http:///x",
            "http://u:p@a",
            "http://a b",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}
