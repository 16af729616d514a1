//! Closed-loop UDP traffic: a window of packets goes out, and the next one only when every packet was answered or given
//! up. So no queue overflows by itself, and a packet that is missing was lost by somebody.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    echo::{LIMIT, NUMBER, message, parse_answer},
    netns::Netns,
};

/// How many lost or misdirected packets are kept in the report, each.
const KEPT: usize = 20;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The VIP and port.
    pub target: SocketAddr,
    /// Packets in flight, each from a source port of its own; at most 128, half of what a veth ring holds.
    pub window: usize,
    /// Packets in all, rounded up to whole windows; `u64::MAX` goes on until stopped.
    pub packets: u64,
    /// Windows after which the source ports are changed, so that new flows come; 0 keeps them.
    pub renew_every: u64,
    /// Payload bytes beside the sequence number.
    pub size: usize,
    /// Rest after every window, so that a flood leaves the processors to others as well.
    pub pause: Duration,
    /// How long the answers to a window may take before its packets count as lost.
    pub patience: Duration,
}

impl Plan {
    /// `packets` small packets to `target`, 64 in flight, new flows every 100 windows, one second of patience.
    #[must_use]
    pub const fn new(target: SocketAddr, packets: u64) -> Self {
        Self {
            target,
            window: 64,
            packets,
            renew_every: 100,
            size: 16,
            pause: Duration::ZERO,
            patience: Duration::from_secs(1),
        }
    }
}

/// What became of the packets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Packets answered in time and intact.
    pub answered: u64,
    /// Packets without an answer in time.
    pub lost: u64,
    /// Answers that the caller did not accept from the server that gave them.
    pub misdirected: u64,
    /// Answers to another packet (one given up, mostly) or with a foreign payload.
    pub stray: u64,
    /// Answers by server.
    pub servers: BTreeMap<String, u64>,
    /// The first few losses and misdirections: (number of the packet, server if any, time since the start).
    pub examples: Vec<(u64, Option<String>, Duration)>,
}

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<Report>>>,
}

impl Flood {
    /// Starts a flood inside `netns`. `is_right` is asked about every answer: (number, server).
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(netns: &Netns, plan: Plan, is_right: impl FnMut(u64, &str) -> bool + Send + 'static) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let inside = netns.handle()?;
        let thread = thread::spawn(move || {
            inside.join()?;
            run(plan, &stopping, is_right)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether all packets have been sent and answered or given up.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Ends the flood after the window under way and returns the report. Blocks for the plan's patience at most.
    ///
    /// # Errors
    /// If sockets could not be made.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits for the last packet and returns the report.
    ///
    /// # Errors
    /// If sockets could not be made.
    pub fn join(&mut self) -> Result<Report> {
        let thread = self.thread.take().context("the flood was joined before")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.is_some() {
            let _ = self.join();
        }
    }
}

fn run(plan: Plan, stop: &AtomicBool, mut is_right: impl FnMut(u64, &str) -> bool) -> Result<Report> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut sockets = Vec::new();
    let mut windows = 0;
    while report.sent < plan.packets && !stop.load(Ordering::Relaxed) {
        if sockets.is_empty() || (plan.renew_every > 0 && windows % plan.renew_every == 0) {
            // The old ones go last, so that the new ones get other ports.
            sockets = (0..plan.window).map(|_| open(&plan)).collect::<Result<Vec<_>>>()?;
        }
        let first = report.sent;
        for (socket, number) in sockets.iter().zip(first..) {
            // A refusal is the answer to an earlier packet, and uses up the call: once more then.
            let message = message(number, plan.size);
            if socket.send(&message).is_err() {
                let _ = socket.send(&message);
            }
            report.sent += 1;
        }
        let deadline = Instant::now() + plan.patience;
        for (socket, number) in sockets.iter().zip(first..) {
            let server = receive(socket, &plan, number, deadline, &mut report);
            let right = server.as_deref().map(|server| is_right(number, server));
            match right {
                None => report.lost += 1,
                Some(false) => report.misdirected += 1,
                Some(true) => {}
            }
            if right != Some(true) && report.examples.len() < KEPT {
                report.examples.push((number, server, start.elapsed()));
            }
        }
        windows += 1;
        thread::sleep(plan.pause);
    }
    Ok(report)
}

/// A socket with a source port of its own.
fn open(plan: &Plan) -> Result<UdpSocket> {
    let any: SocketAddr = if plan.target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).context("binding a source port")?;
    socket.connect(plan.target).with_context(|| format!("connecting to {}", plan.target))?;
    socket.set_read_timeout(Some(plan.patience)).context("setting a limit")?;
    Ok(socket)
}

/// The server that answered packet `number`, if one did before the deadline, or just after and the answer lies here.
fn receive(socket: &UdpSocket, plan: &Plan, number: u64, deadline: Instant, report: &mut Report) -> Option<String> {
    let expected = message(number, plan.size);
    let mut buffer = [0; LIMIT];
    loop {
        let is_late = Instant::now() >= deadline;
        let received = if is_late { receive_now(socket, &mut buffer) } else { socket.recv(&mut buffer) };
        match received.map(|length| parse_answer(&buffer[..length])) {
            Ok(Some((answered, server, payload))) if answered == number && *payload == expected[NUMBER..] => {
                report.answered += 1;
                *report.servers.entry(server.to_owned()).or_default() += 1;
                return Some(server.to_owned());
            }
            Ok(_) => report.stray += 1,
            Err(_) if is_late => return None,
            // The end of patience, or "port unreachable", which an answer to a later packet may follow.
            Err(_) => {}
        }
    }
}

/// What lies in the socket already.
fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    socket.set_nonblocking(true)?;
    let received = socket.recv(buffer);
    socket.set_nonblocking(false)?;
    received
}
