//! `[logger]`: what is logged where.

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use super::document::{Raw, Section, UnknownKeys};
use super::values::{boolean, text};

/// What is logged where.
#[derive(Debug)]
pub(crate) struct Logger {
    pub(crate) console: Option<ConsoleLog>,
    pub(crate) file: Option<FileLog>,
}

#[derive(Debug)]
pub(crate) struct ConsoleLog {
    pub(crate) level: LevelFilter,
    pub(crate) json: bool,
    pub(crate) color: bool,
}

#[derive(Debug)]
pub(crate) struct FileLog {
    pub(crate) level: LevelFilter,
    pub(crate) json: bool,
    pub(crate) path: PathBuf,
    /// Whether somebody asked for it: then the service does not run without it.
    pub(crate) required: bool,
}

/// `has_file`: without a configuration file there is a file log by default, with one there is not.
pub(super) fn read(root: &Section<'_>, has_file: bool) -> Logger {
    let logger = root.section("logger", UnknownKeys::Warn);
    let enabled = logger
        .get_over("enable_console", &["LOGGER_ENABLECONSOLE"], boolean)
        .unwrap_or(true);
    let console = ConsoleLog {
        json: logger
            .get_over("console_json", &["LOGGER_CONSOLEJSON"], boolean)
            .unwrap_or(false),
        level: logger
            .get_over("console_level", &["LOGGER_CONSOLELEVEL"], level)
            .unwrap_or(LevelFilter::INFO),
        color: logger
            .get_over("enable_color", &["LOGGER_ENABLECOLOR"], boolean)
            .unwrap_or(false),
    };
    let file_asked = logger.get_over("enable_file", &["LOGGER_ENABLEFILE"], boolean);
    let file = FileLog {
        json: logger
            .get_over("file_json", &["LOGGER_FILEJSON"], boolean)
            .unwrap_or(true),
        level: logger
            .get_over("file_level", &["LOGGER_FILELEVEL"], level)
            .unwrap_or(LevelFilter::DEBUG),
        path: logger
            .get_over("file_location", &["LOGGER_FILELOCATION"], text)
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from("calls-offloader.log"), PathBuf::from),
        required: file_asked == Some(true),
    };
    logger.finish();
    Logger {
        console: enabled.then_some(console),
        file: file_asked.unwrap_or(!has_file).then_some(file),
    }
}

fn level(raw: Raw<'_>) -> Result<LevelFilter, String> {
    const WANTED: &str = "TRACE, DEBUG, INFO, WARN or ERROR";
    let text = text(raw).map_err(|_| format!("expected {WANTED}, found {}", raw.found()))?;
    match text.to_ascii_uppercase().as_str() {
        "TRACE" => Ok(LevelFilter::TRACE),
        "DEBUG" => Ok(LevelFilter::DEBUG),
        "INFO" => Ok(LevelFilter::INFO),
        "WARN" | "WARNING" => Ok(LevelFilter::WARN),
        "ERROR" | "FATAL" | "PANIC" => Ok(LevelFilter::ERROR),
        _ => Err(format!("expected {WANTED}, found {text:?}")),
    }
}
