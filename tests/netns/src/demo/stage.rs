//! What is around every demo: signals, and a look at what is left.

use std::{
    future::Future,
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::scope::{Scope, residue, sweep};

/// Runs a demo until its end or a signal. Either way its guards are dropped and what they left, if anything, is told.
pub async fn present<F>(demo: impl FnOnce(Scope) -> F) -> ExitCode
where
    F: Future<Output = Result<()>>,
{
    match play(demo).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play<F>(demo: impl FnOnce(Scope) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let scope = Scope::new()?;
    sweep();
    let prefix = scope.prefix().to_owned();
    let shown = tokio::select! {
        shown = demo(scope) => shown,
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
        _ = hangup.recv() => Err(anyhow!("the terminal is gone")),
    };
    let left = residue(&prefix);
    let ending =
        shown.as_ref().err().map_or_else(|| "the demo itself succeeded".to_owned(), |error| format!("{error:#}"));
    if !left.is_empty() {
        bail!("these were not removed: {} ({})", left.join(", "), ending);
    }
    let _ = writeln!(stdout(), "          no namespace, process, pin or file of the demo is left");
    shown
}
