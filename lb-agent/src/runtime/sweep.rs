//! When the tables of flows are scanned: on a thread of its own, and the rarer the longer it takes.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use crate::dataplane::{DataplaneError, FlowTables, Scanned};

/// Between two scans while slots wait for one.
const SOON: Duration = Duration::from_secs(1);
/// Between two scans while recorded flows have to expire and nothing else is to be done.
const LATER: Duration = Duration::from_secs(30);
/// A scan takes at most one part of so many of the time.
const SHARE: u32 = 20;

type Scan = (FlowTables, Result<Scanned, DataplaneError>);

/// Scans the tables of flows from time to time.
pub struct Sweeper {
    idle: Option<FlowTables>,
    running: Option<JoinHandle<Scan>>,
    next: Option<Instant>,
    took: Duration,
}

impl Sweeper {
    /// A sweeper that scans for the first time at once: an earlier agent may have left flows.
    pub fn new(tables: FlowTables) -> Self {
        Self { idle: Some(tables), running: None, next: Some(Instant::now()), took: Duration::ZERO }
    }

    /// Waits for the end of a scan, which it starts when it is due. Nothing is lost if the wait is given up.
    pub async fn scanned(&mut self) -> Result<Scanned, DataplaneError> {
        loop {
            if let Some(running) = &mut self.running {
                let ended = running.await;
                self.running = None;
                let Ok((tables, result)) = ended else {
                    self.next = None; // it panicked, and was reported: its tables are lost
                    continue;
                };
                self.idle = Some(tables);
                self.next = None;
                if let Ok(scanned) = &result {
                    self.took = scanned.took;
                }
                return result;
            }
            match self.next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            self.running = self.idle.take().map(|mut tables| {
                tokio::task::spawn_blocking(move || {
                    let result = tables.scan();
                    (tables, result)
                })
            });
            self.next = None;
        }
    }

    /// Says whether slots wait for a scan, and whether flows are recorded.
    pub fn schedule(&mut self, slots_wait: bool, flows_recorded: bool) {
        let after = match (slots_wait, flows_recorded) {
            (true, _) => SOON,
            (false, true) => LATER,
            (false, false) => {
                self.next = None;
                return;
            }
        };
        let at = Instant::now() + after.max(self.took * SHARE);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}
