//! Which signatures count, and what is refused for want of one.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use minisign::{KeyPair, SignatureBox};
use offloader_policy_host::{PolicyConfig, PolicyHost, PolicyHostConfig, TrustedKey};
use support::*;

const SIGNATURE: &str = "image_map.wasm.minisig";

struct Site {
    policies: Policies,
    key: KeyPair,
    other_key: KeyPair,
}

impl Site {
    fn new() -> Self {
        let pair = || KeyPair::generate_unencrypted_keypair().unwrap();
        Self {
            policies: Policies::new(&[IMAGE_MAP, RETRY_BACKOFF]),
            key: pair(),
            other_key: pair(),
        }
    }

    fn sign(&self, key: &KeyPair, component: &str) -> String {
        let bytes = policy(component);
        let signed: SignatureBox = minisign::sign(None, &key.sk, &bytes[..], None, None).unwrap();
        signed.to_string()
    }

    fn config(&self, required: bool, policy: PolicyConfig) -> PolicyHostConfig {
        let site_key = TrustedKey {
            name: "site.pub".to_owned(),
            text: self.key.pk.to_box().unwrap().to_string(),
        };
        PolicyHostConfig {
            trusted_keys: vec![site_key],
            require_signature: required,
            ..self.policies.config(vec![policy])
        }
    }

    /// Who signed the one policy, or what is wrong with it.
    fn load(&self, config: PolicyHostConfig) -> Result<Option<String>, String> {
        match PolicyHost::load(config, LOADED_AT) {
            Ok(host) => Ok(host.status().policies.remove(0).signed_by),
            Err(errors) => Err(errors.to_string()),
        }
    }
}

fn images() -> PolicyConfig {
    configured("images", IMAGE_MAP, &[])
}

#[test]
fn a_trusted_signature_is_told_by_the_name_of_its_key() {
    let site = Site::new();
    let signature = site.sign(&site.key, IMAGE_MAP);
    site.policies.write(SIGNATURE, signature.as_bytes());
    let signed = Ok(Some("site.pub".to_owned()));
    for required in [true, false] {
        assert_eq!(site.load(site.config(required, images())), signed);
    }
    let named = PolicyConfig {
        signature: Some("elsewhere.sig".to_owned()),
        ..images()
    };
    site.policies.write("elsewhere.sig", signature.as_bytes());
    site.policies.write(SIGNATURE, b"not looked at");
    assert_eq!(site.load(site.config(true, named)), signed);
}

#[test]
fn what_is_there_has_to_be_right_whether_it_is_demanded_or_not() {
    let site = Site::new();
    let right = site.sign(&site.key, IMAGE_MAP);
    let changed = right.replace(
        "trusted comment: timestamp:",
        "trusted comment: timestamp:1",
    );
    let wrong = "key site.pub did not sign this component: it is another one, or was changed";
    for (text, problem) in [
        (site.sign(&site.key, RETRY_BACKOFF), wrong),
        (changed, wrong),
        (
            site.sign(&site.other_key, IMAGE_MAP),
            "was made with a key that is not among the trusted ones",
        ),
        (String::new(), "is no minisign signature"),
        ("signed, the boss".to_owned(), "is no minisign signature"),
        (
            format!("{right}{}", "\n".repeat(20_000)),
            "is no minisign signature",
        ),
    ] {
        site.policies.write(SIGNATURE, text.as_bytes());
        let told = Err(format!(
            "policy \"images\": signature {SIGNATURE}: {problem}"
        ));
        for required in [true, false] {
            assert_eq!(site.load(site.config(required, images())), told, "{text}");
        }
    }
    site.policies.write(SIGNATURE, &[0xFF, 0xFE]);
    assert!(site.load(site.config(false, images())).is_err());
}

#[test]
fn a_component_that_was_changed_after_it_was_signed_is_refused() {
    let site = Site::new();
    let signature = site.sign(&site.key, IMAGE_MAP);
    site.policies.write(SIGNATURE, signature.as_bytes());
    let mut tampered = policy(IMAGE_MAP);
    // An empty custom section at the end: as good a component as before.
    tampered.extend([0, 1, 0]);
    site.policies.write(IMAGE_MAP, &tampered);
    let told = site.load(site.config(false, images())).unwrap_err();
    assert!(told.contains("did not sign this component"), "{told}");
    let unsigned = site.policies.load(vec![images()]);
    assert!(unsigned.is_ok(), "the change itself breaks it");
}

#[test]
fn a_signature_that_is_not_there_matters_where_one_is_demanded() {
    let site = Site::new();
    assert_eq!(site.load(site.config(false, images())), Ok(None));
    assert_eq!(
        site.load(site.config(true, images())),
        Err(format!(
            "policy \"images\": signature {SIGNATURE}: is not there, and policies.require_signature demands it"
        ))
    );
    let named = PolicyConfig {
        signature: Some("absent.sig".to_owned()),
        ..images()
    };
    assert_eq!(
        site.load(site.config(false, named)),
        Err(
            "policy \"images\": signature absent.sig: is not there, and the policy names it"
                .to_owned()
        )
    );
    let outside = PolicyConfig {
        signature: Some("../up.sig".to_owned()),
        ..images()
    };
    let told = site.load(site.config(false, outside)).unwrap_err();
    assert!(told.contains("outside of the filesystem"), "{told}");
}

#[test]
fn keys_that_make_no_sense_are_told_without_policies_too() {
    let keys = |names: &[&str]| {
        let key = |name: &&str| TrustedKey {
            name: (*name).to_owned(),
            text: "no key".to_owned(),
        };
        PolicyHostConfig {
            trusted_keys: names.iter().map(key).collect(),
            require_signature: true,
            ..PolicyHostConfig::default()
        }
    };
    assert_eq!(
        problems(PolicyHost::load(keys(&["a.pub", "b.pub"]), LOADED_AT)),
        [
            "policies: trusted_keys: a.pub is no public key of minisign",
            "policies: trusted_keys: b.pub is no public key of minisign"
        ]
    );
    assert_eq!(
        problems(PolicyHost::load(keys(&[]), LOADED_AT)),
        ["policies: require_signature: there are no trusted_keys that could have signed"]
    );
}

/// Nobody can tell whose it is, so it proves nothing; but what is no signature is a mistake.
#[test]
fn without_trusted_keys_a_signature_proves_nothing() {
    let site = Site::new();
    site.policies
        .write(SIGNATURE, site.sign(&site.key, IMAGE_MAP).as_bytes());
    let config = || site.policies.config(vec![images()]);
    assert_eq!(site.load(config()), Ok(None));
    site.policies.write(SIGNATURE, b"x");
    assert!(site.load(config()).is_err());
}
