//! Which site a job may talk to.

use domain::{JobKind, SiteUrl};

use crate::{Gate, Origin, Refusal};

impl Gate {
    /// The site URL `text`, as `origin` chose it, where jobs of this kind may talk to its host.
    ///
    /// # Errors
    /// When it is no site URL, or the host is not granted.
    pub fn site_url(&self, kind: JobKind, text: &str, origin: &Origin) -> Result<SiteUrl, Refusal> {
        let url: SiteUrl = text
            .parse()
            .map_err(|error: domain::InvalidSiteUrl| Refusal {
                origin: origin.clone(),
                subject: "site URL".to_owned(),
                why: error.to_string(),
                setting: String::new(),
            })?;
        self.permit_site(kind, &url, origin)?;
        Ok(url)
    }

    pub(crate) fn permit_site(
        &self,
        kind: JobKind,
        url: &SiteUrl,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let hosts = &self.grants(kind).site_hosts;
        let host = url.host();
        if hosts.is_empty() || hosts.iter().any(|grant| matches(grant, &host)) {
            return Ok(());
        }
        Err(Refusal {
            origin: origin.clone(),
            subject: format!("site URL {url}"),
            why: format!("{kind} jobs may not talk to the host {host}"),
            setting: format!("gate.{kind}.site_hosts"),
        })
    }
}

/// Whether `grant`, a name, an address or `*.suffix`, covers `host`, which is in lower case.
fn matches(grant: &str, host: &str) -> bool {
    let grant = grant.to_ascii_lowercase();
    match grant.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == grant.trim_start_matches('[').trim_end_matches(']'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gate, gate_with};

    #[test]
    fn without_grants_any_host_will_do_but_no_other_form() {
        let gate = gate();
        let origin = Origin::Policy("map".to_owned());
        let url = gate
            .site_url(JobKind::Recording, "https://h.example.com/", &origin)
            .unwrap();
        assert_eq!(url.as_str(), "https://h.example.com");
        for bad in ["https://h/path", "https://u:p@h", "https://h;id", "h", ""] {
            let refusal = gate.site_url(JobKind::Recording, bad, &origin).unwrap_err();
            assert_eq!(refusal.origin, origin);
        }
    }

    #[test]
    fn granted_hosts_are_whole_names_or_suffixes() {
        let gate = gate_with(|grants| {
            grants.transcribing.site_hosts =
                ["chat.example.com", "*.internal", "[::1]", "10.0.0.7"]
                    .map(str::to_owned)
                    .into();
        });
        let ask = |host: &str| {
            gate.site_url(
                JobKind::Transcribing,
                &format!("https://{host}"),
                &Origin::Client,
            )
        };
        for good in [
            "chat.example.com",
            "Chat.Example.com:8443",
            "a.internal",
            "a.b.internal",
            "[::1]:80",
            "10.0.0.7",
        ] {
            assert!(ask(good).is_ok(), "{good}");
        }
        for bad in [
            "example.com",
            "xchat.example.com",
            "chat.example.com.evil.org",
            "internal",
            "ainternal",
            "10.0.0.70",
            "[::2]",
        ] {
            let refusal = ask(bad).unwrap_err();
            assert_eq!(refusal.setting, "gate.transcribing.site_hosts", "{bad}");
        }
        assert!(
            gate.site_url(JobKind::Recording, "https://elsewhere", &Origin::Client)
                .is_ok()
        );
    }
}
