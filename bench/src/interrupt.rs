//! Ctrl-C and SIGTERM end a measurement between two samples, so that what it made is removed in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Remembers whether the run was asked to end.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to watch for SIGINT, SIGTERM and SIGHUP, which do not end this process any more from then on.
    ///
    /// # Errors
    /// If the signals cannot be watched.
    pub fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&flag);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let entered = runtime.enter();
        let [mut interrupt, mut terminate, mut hangup] =
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        drop(entered);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            raised.store(true, Ordering::Relaxed);
        });
        Ok(Self(flag))
    }

    /// Nothing, unless the run is to end.
    ///
    /// # Errors
    /// After a signal.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}
