//! The configuration file as it is read: every value with its place, every problem kept until all
//! are known.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;

/// Something wrong in the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it is.
    pub(crate) place: Place,
    /// The dotted key, or empty where there is none.
    pub(crate) key: String,
    /// What is wrong and what was expected. Never a secret.
    pub(crate) message: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A line of the file, from 1.
    File(String, usize),
    /// An environment variable.
    Environment(String),
    /// Nowhere: it was left out.
    Nowhere,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file, line) => write!(f, "{file}:{line}: ")?,
            Place::Environment(name) => write!(f, "environment variable {name}: ")?,
            Place::Nowhere => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A value where it was found.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// In the environment, where all is text.
    Text(&'a str),
}

impl Raw<'_> {
    /// What it is, without what it says.
    pub(crate) fn found(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Toml(value) => match value {
                DeValue::String(_) => "a string",
                DeValue::Integer(_) => "a whole number",
                DeValue::Float(_) => "a number",
                DeValue::Boolean(_) => "true or false",
                DeValue::Datetime(_) => "a date",
                DeValue::Array(_) => "a list",
                DeValue::Table(_) => "a table",
            },
        }
    }
}

/// What happens to keys that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownKeys {
    /// A warning: the table is the standard service's, which ignores them, and sites have them.
    Warn,
    /// An error: the table is ours.
    Refuse,
}

/// Reads one document, with the environment over it.
pub(crate) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    environment: &'a Environment,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// Where keys are, for problems that are found out later.
    places: RefCell<BTreeMap<String, Place>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str, environment: &'a Environment) -> Self {
        let (problems, warnings, places) = Default::default();
        Self {
            file,
            text,
            environment,
            problems,
            warnings,
            places,
        }
    }

    /// The document's outermost table.
    pub(crate) fn root(&'a self, document: &'a DeTable<'a>) -> Section<'a> {
        Section {
            reader: self,
            path: String::new(),
            table: Some(document),
            asked: RefCell::default(),
            unknown: UnknownKeys::Warn,
        }
    }

    pub(crate) fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// The line of a byte of the file.
    pub(crate) fn line(&self, at: usize) -> Place {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        Place::File(
            self.file.to_owned(),
            before.iter().filter(|byte| **byte == b'\n').count() + 1,
        )
    }

    pub(crate) fn problem(&self, place: Place, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            place,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub(crate) fn warning(&self, place: Place, key: &str, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem {
            place,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Where a key was found, or else the innermost table around it.
    pub(crate) fn place(&self, key: &str) -> Place {
        let places = self.places.borrow();
        let mut key = key;
        loop {
            if let Some(place) = places.get(key) {
                return place.clone();
            }
            match key.rsplit_once('.') {
                Some((table, _)) => key = table,
                None => return Place::Nowhere,
            }
        }
    }

    /// Whether a key was found.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.places.borrow().contains_key(key)
    }

    /// All problems and all warnings, in the order of the file.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let (mut problems, mut warnings) = (self.problems.into_inner(), self.warnings.into_inner());
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        warnings.sort_by(|a, b| a.place.cmp(&b.place));
        (problems, warnings)
    }
}

/// A table of the file, or the lack of one.
pub(crate) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
    unknown: UnknownKeys,
}

impl<'a> Section<'a> {
    /// The same table with unknown keys as errors.
    pub(crate) fn strict(mut self) -> Self {
        self.unknown = UnknownKeys::Refuse;
        self
    }

    /// The dotted key of one of its keys.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(crate) fn reader(&self) -> &'a Reader<'a> {
        self.reader
    }

    /// Its keys and values, for tables whose keys are free.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Place, &'a DeValue<'a>)> {
        let reader = self.reader;
        self.table.into_iter().flatten().map(move |(key, value)| {
            (
                key.get_ref().as_ref(),
                reader.line(key.span().start),
                value.get_ref(),
            )
        })
    }

    fn find(&self, name: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(name);
        // The standard service takes keys in any case.
        let found = self
            .table?
            .iter()
            .find(|(key, _)| key.get_ref().eq_ignore_ascii_case(name));
        let (key, value) = found?;
        let place = self.reader.line(key.span().start);
        self.reader
            .places
            .borrow_mut()
            .insert(self.key(name), place);
        Some(value)
    }

    /// Whether the file has a value of that name, right or wrong.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| {
            table
                .iter()
                .any(|(key, _)| key.get_ref().eq_ignore_ascii_case(name))
        })
    }

    /// The table of that name.
    pub(crate) fn section(&self, name: &'static str, unknown: UnknownKeys) -> Section<'a> {
        let path = self.key(name);
        let table = match self.find(name).map(Spanned::get_ref) {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                let message = format!("expected a table, found {}", Raw::Toml(other).found());
                self.reader
                    .problem(self.reader.place(&path), &path, message);
                None
            }
        };
        Section {
            reader: self.reader,
            path,
            table,
            asked: RefCell::default(),
            unknown,
        }
    }

    /// The tables of a list of tables of ours.
    pub(crate) fn sections(&self, name: &'static str) -> Vec<Section<'a>> {
        let path = self.key(name);
        let Some(value) = self.find(name) else {
            return Vec::new();
        };
        let place = self.reader.place(&path);
        let DeValue::Array(items) = value.get_ref() else {
            self.reader
                .problem(place, &path, format!("expected [[{path}]] tables"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let place = self.reader.line(item.span().start);
            self.reader
                .places
                .borrow_mut()
                .insert(path.clone(), place.clone());
            if let DeValue::Table(table) = item.get_ref() {
                let (asked, unknown) = (RefCell::default(), UnknownKeys::Refuse);
                sections.push(Section {
                    reader: self.reader,
                    path,
                    table: Some(table),
                    asked,
                    unknown,
                });
            } else {
                self.reader.problem(place, &path, "expected a table");
            }
        }
        sections
    }

    /// A value that only the file can give. What is wrong with it is kept as a problem, and then
    /// it counts as left out.
    pub(crate) fn get<T>(
        &self,
        name: &'static str,
        read: impl Fn(Raw<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.get_over(name, &[], read)
    }

    /// A value that the environment can give too: the first of `variables` that is set and not
    /// empty wins over the file.
    pub(crate) fn get_over<T>(
        &self,
        name: &'static str,
        variables: &[&'static str],
        read: impl Fn(Raw<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let key = self.key(name);
        let reader = self.reader;
        let take = |raw, place: Place| match read(raw) {
            Ok(value) => Some(value),
            Err(message) => {
                reader.problem(place, &key, message);
                None
            }
        };
        let from_file = self
            .find(name)
            .and_then(|value| take(Raw::Toml(value.get_ref()), reader.place(&key)));
        let set = variables
            .iter()
            .find_map(|variable| Some((*variable, self.reader.environment.get(variable)?)));
        match set {
            None => from_file,
            Some((variable, text)) => {
                let place = Place::Environment(variable.to_owned());
                reader
                    .places
                    .borrow_mut()
                    .insert(key.clone(), place.clone());
                take(Raw::Text(text), place)
            }
        }
    }

    /// Tells of the keys that nobody asked for.
    pub(crate) fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if asked.iter().any(|asked| asked.eq_ignore_ascii_case(name)) {
                continue;
            }
            let place = self.reader.line(key.span().start);
            let path = if self.path.is_empty() {
                name.to_owned()
            } else {
                format!("{}.{name}", self.path)
            };
            let message = format!("unknown key{}", nearest(name, &asked));
            match self.unknown {
                UnknownKeys::Warn => {
                    self.reader
                        .warning(place, &path, format!("{message}; it is ignored"))
                }
                UnknownKeys::Refuse => self.reader.problem(place, &path, message),
            }
        }
    }
}

/// `, did you mean X?` where some known name is near, else the known names.
fn nearest(name: &str, known: &[&str]) -> String {
    const NEAR: f64 = 0.6;
    let name = name.to_ascii_lowercase();
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&name, known);
    match known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
    {
        Some(best) if likeness(best) >= NEAR => format!(", did you mean {best}?"),
        Some(_) => format!(", known are {}", known.join(", ")),
        None => String::new(),
    }
}
