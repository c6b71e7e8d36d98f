//! What a client hands to a job's program, as environment variables in the end.

use std::collections::BTreeMap;

/// One value of `input_data`. Which JSON type it had is kept, because the API hands it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputValue {
    /// A JSON string: the text itself.
    Text(String),
    /// Any other JSON value (number, boolean, object, array, null), as compact JSON.
    Json(String),
}

impl InputValue {
    /// The text that the variable gets: strings as they are, the rest as JSON prints it.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

/// Inputs by the name the client gave them. What may be kept and shown; secrets live elsewhere.
pub type Inputs = BTreeMap<String, InputValue>;
