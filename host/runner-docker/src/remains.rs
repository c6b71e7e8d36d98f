//! What the engine still knows of how an ended container was run.

use domain::Secret;
use engine::{Remains, RunnerError};
use gate::ContainerName;

use crate::client::{Client, QUICK, Trouble};
use crate::{labels, sighting};

/// How the container of an attempt was run; `None` when it or its volume is gone.
pub(crate) async fn look(
    client: &Client,
    name: &ContainerName,
) -> Result<Option<Remains>, RunnerError> {
    let looked = async {
        let inspected = client
            .call(QUICK, async |docker| {
                docker.inspect_container(&name.to_string(), None).await
            })
            .await;
        let container = match inspected {
            Ok(container) => container.config.unwrap_or_default(),
            Err(trouble) if trouble.status() == Some(404) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        // The engine hands the image's labels on to its containers.
        let labels = container.labels.unwrap_or_default();
        if !labels::belong_to(&labels, name) || !sighting::has_volume(client, name, QUICK).await? {
            return Ok(None);
        }
        let env = container.env.unwrap_or_default();
        Ok(Some(Remains {
            env: env.into_iter().filter_map(variable).collect(),
            offers_resend: labels::offers_resend(&labels),
        }))
    };
    looked
        .await
        .map_err(|trouble: Trouble| trouble.during("inspect"))
}

/// `NAME=value`; one without a value is unset.
fn variable(text: String) -> Option<(String, Secret)> {
    let (name, value) = text.split_once('=')?;
    let variable = (name.to_owned(), Secret::new(value));
    // Wiped with what goes out of use.
    drop(Secret::new(text));
    Some(variable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let env: BTreeMap<_, _> = ["A=b=c", "EMPTY=", "UNSET"]
            .into_iter()
            .filter_map(|text| variable(text.to_owned()))
            .collect();
        let shown: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.reveal())).collect();
        assert_eq!(shown, [("A", "b=c"), ("EMPTY", "")]);
    }
}
