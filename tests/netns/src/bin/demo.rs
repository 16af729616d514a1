//! `cargo xtask demo`: three control-plane nodes behind one virtual IP, in network namespaces of this machine.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use netns_tests::{
    demo::{self, Options},
    routing::Suite,
    scope::{Scope, residue, sweep},
};
use tokio::signal::unix::{SignalKind, signal};

/// Show three control-plane nodes behind one virtual IP, losing a server and a node
///
/// Needs root. Everything happens in network namespaces and is removed at the end, on failure and on Ctrl-C.
#[derive(Parser)]
struct Arguments {
    /// Ask the IPv4 address only
    #[arg(long)]
    ipv4: bool,
    /// Ask the IPv6 address only
    #[arg(long)]
    ipv6: bool,
    /// Routing daemon of the router and of the nodes
    #[arg(long, value_enum, default_value_t)]
    router: Suite,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match present(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo until its end or a signal. Either way its guards are dropped and what they left, if anything, is told.
async fn present(arguments: &Arguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let scope = Scope::new()?;
    sweep();
    let prefix = scope.prefix().to_owned();
    let options =
        Options { vips: demo::vips(arguments.ipv4, arguments.ipv6), suite: arguments.router, keep: arguments.keep };
    let shown = tokio::select! {
        shown = demo::run(scope, &options) => shown,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        _ = hangup.recv() => Err(anyhow::anyhow!("the terminal is gone")),
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
