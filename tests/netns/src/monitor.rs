//! What the kernel tells of a namespace's addresses or routes while it is watched: every change, however short.

use std::{
    fs,
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{netns::NetnsRef, process::Process, scope::Scope};

/// How long the watching may take to begin.
const START: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Of {
    /// Addresses.
    Addresses,
    /// Routes.
    Routes,
}

/// A watch of one namespace, which ends when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    process: Process,
}

impl Monitor {
    /// Begins to watch; what happens from now on is noted.
    ///
    /// # Errors
    /// If `ip monitor` does not start.
    pub fn start(scope: &Scope, netns: &NetnsRef, of: Of) -> Result<Self> {
        let word = if of == Of::Addresses { "address" } else { "route" };
        let mut command = netns.command("ip");
        command.args(["-ts", "-o", "monitor", word]);
        let process = Process::spawn(scope, &format!("monitor-{word}-{}", netns.name()), &mut command)?;
        let start = Instant::now();
        while !listens(process.id())? {
            ensure!(start.elapsed() < START, "`ip monitor` in {} does not listen after {START:?}", netns.name());
            sleep(Duration::from_millis(5));
        }
        Ok(Self { process })
    }

    /// Everything that was told of an address so far, in its order.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn told_of(&self, address: IpAddr) -> Result<Vec<String>> {
        let log = self.process.log();
        let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        let address = address.to_string();
        let names = |line: &&str| line.split([' ', '/']).any(|word| word == address);
        Ok(text.lines().filter(names).map(str::to_owned).collect())
    }

    /// What was told of an address that went, or of a route.
    ///
    /// # Errors
    /// As [`Monitor::told_of`].
    pub fn deleted(&self, address: IpAddr) -> Result<Vec<String>> {
        let mut lines = self.told_of(address)?;
        lines.retain(|line| line.contains("Deleted "));
        Ok(lines)
    }
}

/// Whether a process has a netlink socket that is in a group.
fn listens(process: u32) -> Result<bool> {
    let path = format!("/proc/{process}/net/netlink");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // Columns: socket, protocol, port (the process id, for its first socket), groups.
    let is_it = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let groups = columns.get(3).and_then(|groups| u32::from_str_radix(groups, 16).ok());
        columns.get(2).is_some_and(|port| *port == process.to_string()) && groups.is_some_and(|groups| groups != 0)
    };
    Ok(text.lines().any(is_it))
}
