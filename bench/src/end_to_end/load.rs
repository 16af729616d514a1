//! The closed-loop client: a fixed number of connections, so many at a time, with the CPU time they took.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    cpu::{Meter, Spent},
    protocol::Request,
};

/// How long a connection may wait for the next byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the way to a server may take to open, neighbours and all.
const OPENING: Duration = Duration::from_secs(10);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The VIP and port.
    pub target: SocketAddr,
    /// Connections in all.
    pub connections: u32,
    /// Connections under way at once, each on a thread.
    pub parallel: usize,
    /// What each asks for.
    pub request: Request,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// CPU time of the machine.
    pub spent: Spent,
    /// From the start of each connection to the end of its answer, in no order.
    pub latencies: Vec<Duration>,
}

impl Plan {
    /// Runs the plan and waits for its end. Blocks; for a thread inside the client's namespace.
    ///
    /// # Errors
    /// If a single connection fails: a figure from which failures are left out means nothing.
    pub fn run(&self) -> Result<Sample> {
        let left = AtomicU32::new(self.connections);
        let ready = Barrier::new(self.parallel + 1);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.parallel).map(|_| scope.spawn(|| self.work(&left, &ready))).collect();
            let meter = Meter::start();
            ready.wait();
            let mut latencies = Vec::new();
            let mut broken = None;
            for thread in threads {
                match thread.join() {
                    Ok(Ok(mut some)) => latencies.append(&mut some),
                    Ok(Err(error)) => broken = Some(error),
                    Err(_) => bail!("a thread of the client panicked"),
                }
            }
            let spent = meter?.spent()?;
            if let Some(error) = broken {
                return Err(error).with_context(|| format!("a connection to {} failed", self.target));
            }
            Ok(Sample { spent, latencies })
        })
    }

    fn work(&self, left: &AtomicU32, ready: &Barrier) -> io::Result<Vec<Duration>> {
        let mut latencies = Vec::with_capacity(self.connections as usize / self.parallel * 2);
        ready.wait();
        let take = |left: u32| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let start = Instant::now();
            ask(self.target, self.request).inspect_err(|_| left.store(0, Ordering::Relaxed))?;
            latencies.push(start.elapsed());
        }
        Ok(latencies)
    }
}

fn ask(target: SocketAddr, request: Request) -> io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    request.ask(&mut stream)
}

/// Tries until a request is answered: neighbours are resolved, routes learned and processes listening then.
///
/// # Errors
/// After ten seconds, with the last failure.
pub fn open(target: SocketAddr) -> Result<()> {
    let start = Instant::now();
    let attempt = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        Request::Short.ask(&mut stream)
    };
    while let Err(error) = attempt() {
        ensure!(start.elapsed() < OPENING, "no answer from {target} within {} s: {error}", OPENING.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn plan(target: SocketAddr) -> Plan {
        Plan { target, connections: 50, parallel: 4, request: Request::Short }
    }

    #[test]
    fn every_connection_is_made_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let plan = plan(listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            for _ in 0..50 {
                Request::serve(&mut listener.accept().unwrap().0).unwrap();
            }
        });
        assert_eq!(plan.run().unwrap().latencies.len(), 50);
        serving.join().unwrap();
    }

    #[test]
    fn one_failure_fails_the_sample() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let plan = plan(listener.local_addr().unwrap());
        drop(listener);
        let error = plan.run().unwrap_err();
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
    }
}
