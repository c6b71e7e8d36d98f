//! The address of a Mattermost site.

use std::fmt;
use std::str::FromStr;

/// A text that is no site URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a site URL is http or https, a host name or address and an optional port, nothing else: {problem}"
)]
pub struct InvalidSiteUrl {
    problem: &'static str,
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
///
/// No path, credentials, query or fragment, and after the scheme no character but letters,
/// digits, `.`, `-`, `:`, `[` and `]`: the recorder's entrypoint hands the value to a shell that
/// runs as root. A trailing slash is trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteUrl {
    text: String,
    host: (usize, usize),
}

impl SiteUrl {
    /// The URL as text, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host name or address in lower case, without brackets and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.text[self.host.0..self.host.1].to_ascii_lowercase()
    }
}

impl FromStr for SiteUrl {
    type Err = InvalidSiteUrl;

    fn from_str(text: &str) -> Result<Self, InvalidSiteUrl> {
        let invalid = |problem| InvalidSiteUrl { problem };
        let text = text.strip_suffix('/').unwrap_or(text);
        let start = ["http://", "https://"]
            .iter()
            .find(|scheme| text.starts_with(**scheme))
            .map(|scheme| scheme.len())
            .ok_or_else(|| invalid("it begins with neither http:// nor https://"))?;
        let authority = &text[start..];
        if authority.len() > 261 {
            return Err(invalid("the host is too long"));
        }
        let (host, host_start, rest) = if let Some(inner) = authority.strip_prefix('[') {
            let (address, rest) = inner
                .split_once(']')
                .ok_or_else(|| invalid("'[' without ']'"))?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(invalid("no IPv6 address between the brackets"));
            }
            (address, start + 1, rest)
        } else {
            let end = authority.find(':').unwrap_or(authority.len());
            let host = &authority[..end];
            if !is_host_name(host) {
                return Err(invalid(
                    "the host has a part that is empty or has other characters than letters, digits and '-'",
                ));
            }
            (host, start, &authority[end..])
        };
        let port = match rest.strip_prefix(':') {
            None => rest.is_empty(),
            Some(port) => {
                port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0)
            }
        };
        if !port {
            return Err(invalid(
                "after the host only ':' and a port from 1 to 65535 may follow",
            ));
        }
        Ok(Self {
            host: (host_start, host_start + host.len()),
            text: text.to_owned(),
        })
    }
}

fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

impl fmt::Display for SiteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_hosts_and_ports() {
        for (text, host) in [
            ("https://mattermost.example.com", "mattermost.example.com"),
            ("http://localhost:8065", "localhost"),
            ("http://10.0.0.7:8065/", "10.0.0.7"),
            ("https://[::1]:8443", "::1"),
            ("https://Mattermost.Example.com", "mattermost.example.com"),
        ] {
            let url: SiteUrl = text.parse().unwrap();
            assert_eq!(url.host(), host);
            assert_eq!(url.as_str(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn refuses_everything_a_shell_or_a_browser_could_act_on() {
        for bad in [
            "",
            "h",
            "ftp://h",
            "http://",
            "http://h;cmd",
            "http://h/path",
            "http://h?x",
            "http://h#x",
            "http://u:p@h",
            "http://h:0",
            "http://h:99999",
            "http://h:+80",
            "http://h:",
            "http://[::1",
            "http://[h]",
            "http://h//",
            "http://a..b",
            "http://-a",
            "http://h\n",
            "http://$(id)",
            "http://h:80;x",
            "HTTP://h",
            "http://h_x",
        ] {
            assert!(bad.parse::<SiteUrl>().is_err(), "{bad:?}");
        }
    }
}
