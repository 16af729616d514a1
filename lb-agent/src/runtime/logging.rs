//! Structured logs on standard error: text for people, or JSON, a line per event.

use std::io;

use anyhow::{Result, anyhow};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use crate::config::{LogFormat, LogLevel};

/// Starts logging events of at least this level.
pub fn start(level: LogLevel, format: LogFormat) -> Result<()> {
    let level = level.as_str();
    let filter = EnvFilter::try_new(level).map_err(|error| anyhow!("log level {level}: {error}"))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_span_events(FmtSpan::NONE);
    let started = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow!("starting the log: {error}"))
}
