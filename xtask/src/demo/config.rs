//! examples/config.toml with this machine's addresses in the place of the example's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::layout::Layout;

/// What differs between the example's site and the demo's.
pub(super) struct Place<'a> {
    /// The directory of the stock policies.
    pub(super) policies: &'a Path,
    /// HOST:PORT of the registry.
    pub(super) registry: &'a str,
    /// Where the site really is: http://HOST:PORT.
    pub(super) site_url: &'a str,
}

/// Writes the demo's configuration and returns its path.
pub(super) fn render(layout: &Layout, dir: &Path, place: &Place<'_>) -> Result<PathBuf> {
    let example = layout.root().join("examples/config.toml");
    let text =
        fs::read_to_string(&example).with_context(|| format!("reading {}", example.display()))?;
    let rendered = relocate(&text, place).with_context(|| format!("in {}", example.display()))?;
    let path = dir.join("config.toml");
    fs::write(&path, rendered).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Replaces the example's directory, registry and site by the given ones, and nothing else, so that
/// what the demo proves is what the example says.
fn relocate(example: &str, place: &Place<'_>) -> Result<String> {
    let policies = place
        .policies
        .to_str()
        .context("the checkout's path is not UTF-8")?;
    let site_host = place.site_url.trim_start_matches("http://");
    let site_host = site_host
        .rsplit_once(':')
        .map_or(site_host, |(host, _port)| host);
    let replacements = [
        ("/etc/offloader/policies", policies),
        ("localhost:5000", place.registry),
        ("http://10.0.0.5:8065", place.site_url),
        // What is left of the site's address after that is its host alone.
        ("10.0.0.5", site_host),
    ];
    let mut text = example.to_owned();
    for (theirs, ours) in replacements {
        ensure!(
            text.contains(theirs),
            "`{theirs}` is not there to be replaced"
        );
        text = text.replace(theirs, ours);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_places_change() {
        let example = "dir = '/etc/offloader/policies'\nregistries = ['localhost:5000/mattermost']\n\
                       url = 'http://10.0.0.5:8065'\nsite_hosts = ['10.0.0.5']\nother = 1\n";
        let place = Place {
            policies: Path::new("/p"),
            registry: "localhost:5003",
            site_url: "http://10.9.8.1:40000",
        };
        assert_eq!(
            relocate(example, &place).unwrap(),
            "dir = '/p'\nregistries = ['localhost:5003/mattermost']\n\
             url = 'http://10.9.8.1:40000'\nsite_hosts = ['10.9.8.1']\nother = 1\n"
        );
    }

    #[test]
    fn the_example_has_all_of_them() {
        let example = include_str!("../../../examples/config.toml");
        let place = Place {
            policies: Path::new("/p"),
            registry: "r:1",
            site_url: "http://s:2",
        };
        relocate(example, &place).unwrap();
    }
}
