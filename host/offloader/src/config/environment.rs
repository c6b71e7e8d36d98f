//! Environment variables, taken once.

use std::collections::BTreeMap;

/// Variables that hold secrets of the service: nobody is granted any of them.
pub(crate) const SECRET_VARIABLES: [&str; 1] = ["API_SECURITY_ADMINSECRETKEY"];

/// The environment as it was at the start. Variables that are no Unicode are left out.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable; one that is empty counts as not set.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}
