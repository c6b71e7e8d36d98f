//! Browser flags: which may be granted at all, and which a value may hold.

use domain::SiteUrl;

/// Stands in a granted flag for any host and port.
const HOST_PORT: &str = "HOST:PORT";

/// Parts of the names of flags that remove the sandbox, open a way in, or run something else.
const FORBIDDEN_PARTS: &[&str] = &[
    "sandbox",
    "debug",
    "devtools",
    "extension",
    "launcher",
    "cmd-prefix",
    "subprocess",
    "plugin",
    "zygote",
    "load-",
    "single-process",
    "in-process",
    "js-flags",
    "user-data-dir",
    "remote-",
    "allow-file-access",
    "disable-web-security",
    "crash",
    "test-",
    "automation",
    "seccomp",
    "site-isolation",
    "wait-for",
    "install-",
    "features",
    "log-",
    "-log",
    "dump",
    "trace",
    "field-trial",
    "native-messaging",
];

/// What is wrong with granting `flag`; `None` when nothing is.
pub(crate) fn problem(flag: &str) -> Option<String> {
    let (name, value) = flag
        .split_once('=')
        .map_or((flag, None), |(name, value)| (name, Some(value)));
    let Some(bare) = name.strip_prefix("--").filter(|n| is_name(n)) else {
        return Some("expected --name or --name=value".into());
    };
    if FORBIDDEN_PARTS.iter().any(|part| bare.contains(part)) || bare == "app" {
        return Some("it could remove the browser's sandbox, open a way into it or make it run something else".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    if value.is_some_and(|v| v.is_empty() || !v.chars().all(plain)) {
        return Some("its value may hold only letters, digits and . _ - : /".into());
    }
    None
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `flag` is one of the `granted`: literally, or with a host and port where the grant
/// says `HOST:PORT`. A grant that may not be given grants nothing.
pub(crate) fn is_granted(flag: &str, granted: &[String]) -> bool {
    granted
        .iter()
        .filter(|grant| problem(grant).is_none())
        .any(|grant| match grant.strip_suffix(HOST_PORT) {
            Some(start) if start.ends_with('=') => {
                flag.strip_prefix(start).is_some_and(is_host_and_port)
            }
            _ => flag == grant,
        })
}

/// A host name or IPv4 address with a port. Addresses in brackets are left out: a shell takes
/// brackets for a pattern.
fn is_host_and_port(text: &str) -> bool {
    text.contains(':')
        && !text.contains(['[', '/'])
        && format!("http://{text}").parse::<SiteUrl>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(flags: &[&str]) -> Vec<String> {
        flags.iter().map(|f| (*f).to_owned()).collect()
    }

    #[test]
    fn a_flag_passes_only_as_it_was_granted() {
        let grants = granted(&[
            "--ignore-certificate-errors",
            "--proxy-server=HOST:PORT",
            "--lang=de",
        ]);
        for good in [
            "--ignore-certificate-errors",
            "--proxy-server=proxy.example.com:3128",
            "--proxy-server=10.0.0.1:80",
            "--lang=de",
        ] {
            assert!(is_granted(good, &grants), "{good}");
        }
        for bad in [
            "",
            "--",
            "--no-sandbox",
            "--ignore-certificate-errors=1",
            "--Ignore-certificate-errors",
            "--lang=en",
            "--proxy-server=HOST:PORT;id",
            "--proxy-server=proxy",
            "--proxy-server=:80",
            "--proxy-server=h:99999",
            "--proxy-server=h:80 --no-sandbox",
            "--proxy-server=http://h:80",
            "--proxy-server=h:80/",
            "--proxy-server=u@h:80",
            "--proxy-server=[::1]:80",
            " --lang=de",
        ] {
            assert!(!is_granted(bad, &grants), "{bad}");
        }
    }

    #[test]
    fn some_flags_can_never_be_granted() {
        for never in [
            "--no-sandbox",
            "--disable-setuid-sandbox",
            "--disable-seccomp-filter-sandbox",
            "--no-zygote",
            "--single-process",
            "--remote-debugging-port=9222",
            "--remote-debugging-pipe",
            "--load-extension=/x",
            "--renderer-cmd-prefix=/bin/sh",
            "--utility-cmd-prefix=x",
            "--gpu-launcher=x",
            "--browser-subprocess-path=/x",
            "--user-data-dir=/x",
            "--js-flags=x",
            "--app=x",
            "--allow-file-access-from-files",
            "no-dashes",
            "--x=",
            "--x=a b",
            "--x=$(id)",
            "--X",
        ] {
            assert!(problem(never).is_some(), "{never}");
            assert!(!is_granted(never, &granted(&[never])), "{never}");
        }
        for allowed in [
            "--ignore-certificate-errors",
            "--proxy-server=HOST:PORT",
            "--lang=de",
            "--mute-audio",
        ] {
            assert_eq!(problem(allowed), None, "{allowed}");
        }
    }
}
