//! Whose signatures count, and whether a component carries one.

use std::io;

use minisign_verify::{Error, PublicKey, Signature};

use crate::config::TrustedKey;
use crate::load_error::LoadProblem;

/// The keys of a site, and what it demands.
pub(crate) struct Trust {
    keys: Vec<(String, PublicKey)>,
    required: bool,
}

/// What can be wrong with a component's signature.
#[derive(Debug, thiserror::Error)]
pub enum SignatureProblem {
    /// There is none.
    #[error("is not there, and {0}")]
    Missing(&'static str),
    /// It could not be read.
    #[error("{0}")]
    Read(io::Error),
    /// It is none.
    #[error("is no minisign signature")]
    Form,
    /// It was made with a key that is not trusted.
    #[error("was made with a key that is not among the trusted ones")]
    UnknownKey,
    /// It has the number of a trusted key and does not fit.
    #[error("key {key} did not sign this component: it is another one, or was changed")]
    Wrong {
        /// The trusted key.
        key: String,
    },
}

impl Trust {
    /// Takes keys as they are in files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn new(keys: &[TrustedKey], required: bool) -> Result<Self, Vec<LoadProblem>> {
        if required && keys.is_empty() {
            return Err(vec![LoadProblem::NoTrustedKey]);
        }
        let mut parsed = Vec::new();
        let mut problems = Vec::new();
        for TrustedKey { name, text } in keys {
            match public_key(text) {
                Some(key) => parsed.push((name.clone(), key)),
                None => problems.push(LoadProblem::TrustedKey(name.clone())),
            }
        }
        if problems.is_empty() {
            let keys = parsed;
            Ok(Self { keys, required })
        } else {
            Err(problems)
        }
    }

    /// Whether a component without a signature is refused.
    pub(crate) fn requires_signatures(&self) -> bool {
        self.required
    }

    /// The name of the key that signed `component`; `None` where no key is trusted, so that nobody
    /// can tell. Takes signatures of the whole file too, which the tools still make on demand: a file
    /// that is a component cannot be mistaken for the digest that others are made of.
    pub(crate) fn signer(
        &self,
        component: &[u8],
        signature: &[u8],
    ) -> Result<Option<String>, SignatureProblem> {
        let text = str::from_utf8(signature).map_err(|_| SignatureProblem::Form)?;
        let signature = Signature::decode(text).map_err(|_| SignatureProblem::Form)?;
        let mut namesake = None;
        for (name, key) in &self.keys {
            match key.verify(component, &signature, true) {
                Ok(()) => return Ok(Some(name.clone())),
                Err(Error::UnexpectedKeyId) => {}
                Err(_) => namesake = Some(name),
            }
        }
        match namesake {
            Some(name) => Err(SignatureProblem::Wrong { key: name.clone() }),
            None if self.keys.is_empty() => Ok(None),
            None => Err(SignatureProblem::UnknownKey),
        }
    }
}

/// The one key of a text, under its comment or alone.
fn public_key(text: &str) -> Option<PublicKey> {
    let lines = text.lines().map(str::trim);
    let mut lines =
        lines.filter(|line| !line.is_empty() && !line.starts_with("untrusted comment:"));
    let (key, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    PublicKey::from_base64(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(text: &str) -> TrustedKey {
        TrustedKey {
            name: "site.pub".to_owned(),
            text: text.to_owned(),
        }
    }

    fn told(keys: &[TrustedKey], required: bool) -> Vec<String> {
        let problems = Trust::new(keys, required).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_are_taken_with_and_without_their_comment() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let with = pair.pk.to_box().unwrap().to_string();
        let without = pair.pk.to_base64();
        assert!(with.lines().count() == 2 && without.lines().count() == 1);
        let keys = [trusted(&with), trusted(&without)];
        assert_eq!(told(&keys, true), [] as [&str; 0]);
    }

    #[test]
    fn what_is_no_public_key_is_told_without_showing_it() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let secret = pair.sk.to_box(None).unwrap().to_string();
        let key = pair.pk.to_base64();
        for text in [
            "",
            "untrusted comment: x",
            "hello",
            &secret,
            &format!("{key}\n{key}"),
        ] {
            assert_eq!(
                told(&[trusted(text)], false),
                ["trusted_keys: site.pub is no public key of minisign"],
                "{text}"
            );
        }
        assert_eq!(
            told(&[], true),
            ["require_signature: there are no trusted_keys that could have signed"]
        );
    }

    /// As the tools make them when told to leave the digest out.
    #[test]
    fn signatures_over_the_file_itself_count_too() {
        let key = trusted("RWQ3R3cnxnvhCAYQ7ws055fvfZTGmUTBOG8VTzb1wVAxJlTvCxMGOTLI");
        let signature = "untrusted comment: none\n\
            RWQ3R3cnxnvhCANYcJQZnLtYRt6I9T8nbtqJ0Z0pug80tmFUjuw3Iz87thvCL0nkengcJ9fJo3B3f1W9UZjAgI0RSKMdxxB8aAU=\n\
            trusted comment: a whole file\n\
            KPC/wH/TH3ZCAS01Pjli1xIqJNJXJ5eaGjf6GGeUjXtikLxXLAJQkn4Ymzi6nkY/63JEODW8q309vf9wkk1HBA==\n";
        let trust = Trust::new(&[key], true).unwrap();
        let signer = |component: &[u8], text: &str| trust.signer(component, text.as_bytes());
        let found = signer(b"\0asm", signature).unwrap();
        assert_eq!(found.as_deref(), Some("site.pub"));
        let other = signature.replace("a whole file", "another file");
        for (component, text) in [(&b"\0asn"[..], signature), (b"\0asm", &other)] {
            let found = signer(component, text);
            assert!(
                matches!(found, Err(SignatureProblem::Wrong { .. })),
                "{found:?}"
            );
        }
    }
}
