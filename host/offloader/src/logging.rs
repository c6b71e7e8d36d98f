//! The log: lines on the console, lines in a file, as configured.

use std::io;

use anyhow::Context as _;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};

use crate::ambient;
use crate::config::{FileLog, Logger};

/// Keeps the log going. Dropping it writes down what is still queued.
#[must_use]
pub(crate) struct Log {
    _file: Option<WorkerGuard>,
}

/// Starts logging.
///
/// # Errors
/// When a log file that was asked for cannot be written.
pub(crate) fn start(config: &Logger) -> anyhow::Result<Log> {
    let console = config.console.as_ref().map(|console| {
        let layer = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(console.color && !console.json);
        shape(layer, console.json).with_filter(targets(console.level))
    });
    let (file, guard, trouble) = match config.file.as_ref().map(|file| (file, open(file))) {
        None => (None, None, None),
        Some((file, Ok((writer, guard)))) => {
            let layer = fmt::layer().with_writer(writer).with_ansi(false);
            (
                Some(shape(layer, file.json).with_filter(targets(file.level))),
                Some(guard),
                None,
            )
        }
        Some((file, Err(error))) if file.required => return Err(error),
        Some((_, Err(error))) => (None, None, Some(error)),
    };
    tracing_subscriber::registry()
        .with(console)
        .with(file)
        .init();
    if let Some(error) = trouble {
        tracing::warn!("no log file: {error:#}");
    }
    Ok(Log { _file: guard })
}

fn open(file: &FileLog) -> anyhow::Result<(NonBlocking, WorkerGuard)> {
    let opened = ambient::append_to(&file.path);
    let opened =
        opened.with_context(|| format!("cannot write the log file {}", file.path.display()))?;
    Ok(tracing_appender::non_blocking(opened))
}

fn shape<S, W>(
    layer: fmt::Layer<S, fmt::format::DefaultFields, fmt::format::Format, W>,
    json: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    if json {
        layer.json().flatten_event(true).boxed()
    } else {
        layer.boxed()
    }
}

/// Our own lines from `level` on; of the libraries only what goes wrong. What the administrator did
/// is written down in any case.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("offloader", level)
        .with_target(api::AUDIT_TARGET, level.max(LevelFilter::INFO))
}
