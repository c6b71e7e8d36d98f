//! Opening what policies are granted and trusted by name: variables, directories, keys.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use policy_host::{DirGrant, PolicyConfig, TrustedKey};

use crate::ambient;
use crate::config::{Environment, GrantedDir, Policies, Policy};

/// The service's own files, of which nothing can be granted: they hold its keys and its jobs.
#[derive(Clone, Copy)]
pub(crate) struct OwnFiles<'a> {
    /// The state directory.
    pub(crate) state: &'a Path,
    /// The configuration file.
    pub(crate) config: &'a Path,
}

/// The policies of a configuration, with what each was granted.
pub(crate) fn grant(section: &Policies, own: OwnFiles<'_>) -> Vec<PolicyConfig> {
    let environment = ambient::environment();
    let policies = section.policies.iter();
    policies
        .map(|policy| grant_one(policy, &environment, own, section.dir.as_deref()))
        .collect()
}

/// Why a directory cannot be granted, if it reaches what is the service's own.
fn reaches(granted: &GrantedDir, own: OwnFiles<'_>, policies: Option<&Path>) -> Option<String> {
    // What is not there is told when it is opened.
    let dir = ambient::real_path(&granted.path).ok()?;
    let policies = policies.filter(|_| granted.write);
    let kept = [
        (Some(own.state), "the service's state"),
        (Some(own.config), "the service's configuration"),
        (policies, "the policies themselves, to write"),
    ];
    kept.into_iter().find_map(|(path, what)| {
        let path = ambient::real_path(path?).ok()?;
        let overlap = path.starts_with(&dir) || dir.starts_with(&path);
        overlap.then(|| {
            let dir = granted.path.display();
            format!("dirs: {dir} reaches {what}; grant a directory apart from it")
        })
    })
}

/// A directory that cannot be opened is lacking, and keeps its policy from being loaded; a variable
/// that is not set is just not there, as for any program.
fn grant_one(
    policy: &Policy,
    environment: &Environment,
    own: OwnFiles<'_>,
    policies: Option<&Path>,
) -> PolicyConfig {
    let mut config = policy.config.clone();
    for name in &policy.env {
        match environment.get(name) {
            Some(value) => {
                config.grants.env.insert(name.clone(), value.to_owned());
            }
            None => tracing::warn!(
                policy = config.name,
                variable = name,
                "a policy was granted a variable that is not set"
            ),
        }
    }
    for granted in &policy.dirs {
        if let Some(lacking) = reaches(granted, own, policies) {
            config.lacking.push(lacking);
            continue;
        }
        let GrantedDir {
            path,
            guest_path,
            write,
        } = granted;
        match ambient::open_dir(path) {
            Ok(dir) => config.grants.dirs.push(DirGrant {
                guest_path: guest_path.clone(),
                dir: Arc::new(dir),
                write: *write,
            }),
            Err(error) => {
                let lacking = format!("dirs: cannot open {}: {error}", path.display());
                config.lacking.push(lacking);
            }
        }
    }
    config
}

/// The keys whose signatures count, as they are in their files.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn trusted_keys(section: &Policies) -> anyhow::Result<Vec<TrustedKey>> {
    let paths = section.trusted_keys.iter();
    paths.map(|path| trusted_key(path)).collect()
}

fn trusted_key(path: &Path) -> anyhow::Result<TrustedKey> {
    let name = path.display().to_string();
    let text = ambient::read_text(path)
        .with_context(|| format!("cannot read the trusted key {name} of policies.trusted_keys"))?;
    Ok(TrustedKey { name, text })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests change directories with plain means"
)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    #[test]
    fn what_is_set_and_there_is_granted_and_the_rest_told() {
        let temp = tempfile::tempdir().unwrap();
        let absent = temp.path().join("absent");
        let dir = |path: &Path, write| GrantedDir {
            path: path.to_owned(),
            guest_path: "/data".to_owned(),
            write,
        };
        let policy = Policy {
            config: PolicyConfig::new("a", "a.wasm"),
            env: vec!["SITE".to_owned(), "UNSET".to_owned()],
            dirs: vec![dir(temp.path(), true), dir(&absent, false)],
        };
        let environment = [("SITE", "north"), ("OTHER", "x")].into_iter().collect();
        let nowhere = Path::new("/nowhere");
        let own = OwnFiles {
            state: nowhere,
            config: nowhere,
        };
        let granted = grant_one(&policy, &environment, own, None);
        let env = BTreeMap::from([("SITE".to_owned(), "north".to_owned())]);
        assert_eq!(granted.grants.env, env);
        let [dir] = &granted.grants.dirs[..] else {
            panic!("one directory is there")
        };
        assert!(dir.guest_path == "/data" && dir.write);
        let told = format!("dirs: cannot open {}: No such file", absent.display());
        assert_eq!(granted.lacking.len(), 1);
        assert!(
            granted.lacking[0].starts_with(&told),
            "{:?}",
            granted.lacking
        );
    }

    #[test]
    fn what_is_the_services_own_cannot_be_granted() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for dir in ["state/offloader-artifacts", "etc", "policies", "data"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("etc/config.toml"), "").unwrap();
        std::os::unix::fs::symlink(at("state"), at("link")).unwrap();
        let (state, config, policies) = (at("state"), at("etc/config.toml"), at("policies"));
        let own = OwnFiles {
            state: &state,
            config: &config,
        };
        for (dir, write, refused) in [
            ("data", true, None),
            ("policies", false, None),
            ("policies", true, Some("the policies themselves")),
            ("state", false, Some("state")),
            ("link", false, Some("state")),
            ("state/offloader-artifacts", false, Some("state")),
            ("", false, Some("state")),
            ("etc", false, Some("configuration")),
        ] {
            let granted = GrantedDir {
                path: at(dir),
                guest_path: "/x".to_owned(),
                write,
            };
            let why = reaches(&granted, own, Some(&policies));
            match refused {
                None => assert_eq!(why, None, "{dir}"),
                Some(part) => assert!(why.is_some_and(|why| why.contains(part)), "{dir}"),
            }
        }
    }

    #[test]
    fn keys_are_named_after_their_files() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("site.pub");
        let section = Policies {
            trusted_keys: vec![file.clone()],
            ..Policies::default()
        };
        let error = trusted_keys(&section).unwrap_err().to_string();
        assert!(error.contains("site.pub"), "{error}");
        fs::write(&file, "key").unwrap();
        let keys = trusted_keys(&section).unwrap();
        assert_eq!(keys[0].name, file.display().to_string());
        assert_eq!(keys[0].text, "key");
    }
}
