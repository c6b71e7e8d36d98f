//! What a client hands to a job's program: names and values.

use std::collections::{BTreeMap, BTreeSet};

use domain::{InputValue, Inputs, JobKind, Secret};

use crate::variables::{self, is_plain};
use crate::{Gate, Origin, Refusal};

/// A client's inputs, checked and sorted.
#[derive(Debug, Clone)]
pub struct SortedInputs {
    /// Those that may be kept and shown.
    pub public: Inputs,
    /// All of them as text, by the names that the client gave them. For the launch plan only.
    pub all: BTreeMap<String, Secret>,
}

impl Gate {
    /// Checks every name and value of a client's inputs, and takes the secret ones apart.
    ///
    /// # Errors
    /// For the first name that is malformed, double, unknown or forbidden, or value that is not
    /// what the variable may look like. Values are never quoted.
    pub fn sort_inputs(
        &self,
        kind: JobKind,
        raw: &BTreeMap<String, InputValue>,
    ) -> Result<SortedInputs, Refusal> {
        self.check_names(raw.keys())?;
        let mut sorted = SortedInputs {
            public: Inputs::new(),
            all: BTreeMap::new(),
        };
        for (key, value) in raw {
            let name = key.to_ascii_uppercase();
            self.check_value(kind, &name, value.as_text())?;
            sorted.all.insert(key.clone(), Secret::new(value.as_text()));
            if !variables::is_secret(&name) {
                sorted.public.insert(key.clone(), value.clone());
            }
        }
        Ok(sorted)
    }

    /// Of the variables of a job's container, those that it was given and its image did not bring
    /// along: what jobs of its kind may have, and what is on record as its `inputs`, so that one
    /// that is not granted any more is refused and not left out.
    #[must_use]
    pub fn given(
        &self,
        kind: JobKind,
        inputs: &Inputs,
        mut env: BTreeMap<String, Secret>,
    ) -> BTreeMap<String, Secret> {
        env.retain(|name, _| {
            variables::known(kind, name).is_some()
                || self.patterns(kind).contains_key(name)
                || inputs.keys().any(|input| input.eq_ignore_ascii_case(name))
        });
        env
    }

    /// The same checks on what a launch plan holds; gives the variables by upper-case name.
    pub(crate) fn environment(
        &self,
        kind: JobKind,
        inputs: BTreeMap<String, Secret>,
    ) -> Result<BTreeMap<String, Secret>, Refusal> {
        self.check_names(inputs.keys())?;
        let mut env = BTreeMap::new();
        for (key, value) in inputs {
            let name = key.to_ascii_uppercase();
            self.check_value(kind, &name, value.reveal())?;
            env.insert(name, value);
        }
        Ok(env)
    }

    fn check_names<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for key in keys {
            if !is_name(key) {
                return Err(refuse(
                    key,
                    "a name holds letters, digits and underscores and begins with no digit",
                    "",
                ));
            }
            if !seen.insert(key.to_ascii_uppercase()) {
                return Err(refuse(key, "another one differs from it only in case", ""));
            }
        }
        Ok(())
    }

    /// `name` is in upper case.
    fn check_value(&self, kind: JobKind, name: &str, value: &str) -> Result<(), Refusal> {
        let setting = |key: &str| format!("gate.{kind}.{key}");
        if variables::forbidden(name) {
            return Err(refuse(
                name,
                "no setting allows it: it changes how the container's programs run",
                "",
            ));
        }
        let flags = &self.grants(kind).chromium_args;
        if let Some(form) = variables::known(kind, name) {
            if form.accepts(value, flags) {
                return Ok(());
            }
            let setting = match form {
                variables::Form::BrowserFlags => setting("chromium_args"),
                _ => String::new(),
            };
            return Err(refuse(
                name,
                &format!("it must be {}", form.describe()),
                &setting,
            ));
        }
        let setting = setting("inputs");
        let Some(pattern) = self.patterns(kind).get(name) else {
            return Err(refuse(
                name,
                &format!("{kind} jobs know no such variable"),
                &setting,
            ));
        };
        if value.len() > MAX_GRANTED_VALUE || !value.chars().all(is_plain) {
            let why = format!(
                "a value may be {MAX_GRANTED_VALUE} characters long and hold only letters, digits and . _ - + : / , @ % ="
            );
            return Err(refuse(name, &why, ""));
        }
        if pattern
            .find(value)
            .is_none_or(|found| found.range() != (0..value.len()))
        {
            return Err(refuse(
                name,
                "it does not match the operator's pattern",
                &setting,
            ));
        }
        Ok(())
    }
}

/// The longest value of a variable that only the operator knows.
const MAX_GRANTED_VALUE: usize = 4096;

/// `[A-Za-z_][A-Za-z0-9_]*`
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn refuse(key: &str, why: &str, setting: &str) -> Refusal {
    let key: String = key.chars().take(128).collect();
    let subject = if is_name(&key) {
        format!("input {key}")
    } else {
        format!("input {key:?}")
    };
    Refusal {
        origin: Origin::Client,
        subject,
        why: why.to_owned(),
        setting: setting.to_owned(),
    }
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
