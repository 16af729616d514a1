//! `lbctl drain` and `lbctl undrain`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    args::{Options, Output},
    block_on,
    console::{Report, Style, counted, duration, unix_now},
};
use crate::{
    api::{self, ApiError, DrainAction},
    config,
    model::{BackendAddress, DrainAnswer, DrainRequest, NamedBackend},
    status::{AgentStatus, DrainStatus},
};

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_secs(2);
/// How long an agent may be away while it is waited for: it may be restarted.
const AWAY: Duration = Duration::from_secs(30);

/// What `--wait` and `--deadline` understand.
pub(super) const MEANING: &str = "\
A drained backend takes no new flows and keeps those that it has, until it is undrained; a restart of the agent does not \
end that. Draining a node drains every backend with its addresses; on the node itself its announcements are withdrawn \
first, and it goes on holding the VIPs. Every director decides for itself: drain on each of them.

What is left is told by two numbers. `recorded` are flows that this node directs and has seen since the drain began. \
`silent ones possible on N slots`: flows that sent nothing since then are not known; they may be on these slots until \
their window (`flowTimeout`) is over. On the backend's own node the open connections of its server are counted, too, \
whichever director sent them; there `--wait` waits for those.";

/// Seconds of a whole number with a unit.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let wanted = "write a whole number and a unit (s, m, h), at least 1s";
    let duration = config::parse_duration(text).ok_or(wanted)?;
    if duration.as_secs() == 0 || duration.subsec_nanos() != 0 {
        Err(wanted.to_owned())
    } else {
        Ok(duration.as_secs())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    target: String,
    drained: bool,
    #[serde(flatten)]
    answer: DrainAnswer,
    /// What each backend may still have, in their order.
    left: Vec<Left>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    #[serde(flatten)]
    backend: NamedBackend,
    #[serde(flatten)]
    drain: DrainStatus,
}

pub(super) fn perform(options: &Options, request: &DrainRequest, action: DrainAction, wait: bool) -> Result<Changed> {
    let answer = block_on(api::change_drains(&options.socket, action, request))??;
    let drained = action == DrainAction::Drain;
    let mut changed = Changed { target: request.target.clone(), drained, answer, left: Vec::new() };
    if drained {
        changed.left = left(&changed.answer, &block_on(api::status(&options.socket))??);
        if wait {
            let mut progress = Progress::of(options);
            progress.show(&changed.left)?;
            await_end(&options.socket, &mut changed, &mut progress)?;
        }
    }
    Ok(changed)
}

/// Waits until no flow is left, the deadline is over, or somebody ends the drain.
fn await_end(socket: &Path, changed: &mut Changed, progress: &mut Progress) -> Result<()> {
    let mut away = Duration::ZERO;
    while changed.left.iter().any(|left| !left.drain.is_done()) {
        thread::sleep(LOOK);
        match block_on(api::status(socket))? {
            Ok(status) if status.ready => {
                away = Duration::ZERO;
                changed.left = left(&changed.answer, &status);
                progress.show(&changed.left)?;
            }
            Ok(_) | Err(ApiError::NotRunning { .. } | ApiError::Silent { .. }) if away < AWAY => away += LOOK,
            Ok(_) => anyhow::bail!("the agent does not get ready"),
            Err(error) => return Err(error.into()),
        }
    }
    progress.end()
}

fn left(answer: &DrainAnswer, status: &AgentStatus) -> Vec<Left> {
    let of = |backend: &NamedBackend| {
        let is_it = |one: &&crate::status::BackendStatus| {
            (&*one.service, one.address, one.port) == (&backend.service, backend.address, backend.port)
        };
        let drain = status.backends.iter().find(is_it)?.drain.clone()?;
        Some(Left { backend: backend.clone(), drain: *drain })
    };
    answer.backends.iter().filter_map(of).collect()
}

/// All backends together.
fn sum(left: &[Left]) -> DrainStatus {
    let mut sum =
        DrainStatus { over: !left.is_empty() && left.iter().all(|one| one.drain.over), ..DrainStatus::default() };
    for one in left.iter().filter(|one| !one.drain.over) {
        sum.recorded += one.drain.recorded;
        sum.slots += one.drain.slots;
        sum.windows_end = sum.windows_end.max(one.drain.windows_end);
        sum.deadline = sum.deadline.max(one.drain.deadline);
        sum.sockets = one.drain.sockets.map(|sockets| sum.sockets.unwrap_or(0) + sockets).or(sum.sockets);
    }
    sum
}

fn progress_line(left: &[Left], now: u64) -> String {
    let sum = sum(left);
    let ahead = |at: u64| duration(at.saturating_sub(now));
    let deadline = sum.deadline.filter(|_| !sum.over).map(|at| format!("; cut in {}", ahead(at)));
    let silent = sum.windows_end.filter(|_| !sum.over).map(|at| format!(" for {}", ahead(at)));
    format!("{}{}{}", sum.left(), silent.unwrap_or_default(), deadline.unwrap_or_default())
}

/// Shows what is left while it is waited for: on a terminal in one line that changes, else line by line. Nothing beside a
/// JSON document.
struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    last: String,
}

impl Progress {
    fn of(options: &Options) -> Self {
        let is_quiet = options.output == Output::Json;
        Self { is_quiet, is_terminal: io::stdout().is_terminal(), last: String::new() }
    }

    fn show(&mut self, left: &[Left]) -> Result<()> {
        let line = progress_line(left, unix_now());
        if self.is_quiet || line == self.last {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let written = if self.is_terminal { write!(stdout, "\r\x1b[K{line}") } else { writeln!(stdout, "{line}") };
        self.last = line;
        written.and_then(|()| stdout.flush()).context("writing the output")
    }

    fn end(&self) -> Result<()> {
        if self.is_quiet || !self.is_terminal {
            return Ok(());
        }
        writeln!(io::stdout()).context("writing the output")
    }
}

impl Report for Changed {
    fn text(&self, style: Style) -> String {
        let what = if self.drained { "drained" } else { "undrained" };
        let backends = counted(self.answer.backends.len(), "backend");
        let mut text = match &self.answer.node {
            Some(node) => format!("{what} node {node} with {backends}\n"),
            None => format!("{what} {backends}\n"),
        };
        if self.answer.this_node {
            text += match self.drained {
                true => "this node announces no VIP any more, and goes on holding them\n",
                false => "this node announces its VIPs again\n",
            };
        }
        for backend in &self.answer.backends {
            let address = BackendAddress { address: backend.address, port: backend.port };
            let left = self.left.iter().find(|left| left.backend == *backend);
            let left = left.map(|left| format!(": {}", left.drain.left())).unwrap_or_default();
            text += &format!("  {address} of {}{left}\n", backend.service);
        }
        for warning in &self.answer.warnings {
            text += &format!("{}\n", style.bad(&format!("warning: {warning}")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(last: u8) -> NamedBackend {
        NamedBackend { service: "kubernetes".to_owned(), address: [10, 0, last, 2].into(), port: 6443 }
    }

    fn changed() -> Changed {
        let drain = DrainStatus {
            since: 1_000,
            recorded: 12,
            slots: 1_365,
            windows_end: Some(8_500),
            ..DrainStatus::default()
        };
        let here = DrainStatus { sockets: Some(3), recorded: 1, slots: 0, windows_end: None, ..drain };
        let answer = DrainAnswer {
            node: Some("node-2".to_owned()),
            this_node: true,
            backends: vec![backend(1), backend(2)],
            warnings: vec!["no backend of kubernetes takes new flows now: they are dropped".to_owned()],
        };
        let left = vec![Left { backend: backend(1), drain }, Left { backend: backend(2), drain: here }];
        Changed { target: "node-2".to_owned(), drained: true, answer, left }
    }

    #[test]
    fn people_see_what_was_drained_and_what_is_left() {
        let expected = "drained node node-2 with 2 backends\n\
                        this node announces no VIP any more, and goes on holding them\n  \
                        10.0.1.2:6443 of kubernetes: 12 flows recorded, silent ones possible on 1365 slots\n  \
                        10.0.2.2:6443 of kubernetes: 3 connections open here, 1 flow recorded\n\
                        warning: no backend of kubernetes takes new flows now: they are dropped\n";
        assert_eq!(changed().text(Style::PLAIN), expected);
        let answer = DrainAnswer { backends: vec![backend(1)], ..DrainAnswer::default() };
        let undrained = Changed { drained: false, answer, left: Vec::new(), ..changed() };
        assert_eq!(undrained.text(Style::PLAIN), "undrained 1 backend\n  10.0.1.2:6443 of kubernetes\n");
    }

    #[test]
    fn progress_is_one_line_over_all_backends() {
        let mut left = changed().left;
        let line = progress_line(&left, 1_000);
        assert_eq!(
            line,
            "3 connections open here, 13 flows recorded, silent ones possible on 1365 slots for 2 h 5 min"
        );
        for one in &mut left {
            one.drain.deadline = Some(1_060);
        }
        assert!(progress_line(&left, 1_001).ends_with("; cut in 59 s"));
        for one in &mut left {
            one.drain.over = true;
        }
        assert_eq!(progress_line(&left, 1_060), "0 flows left: they were cut");
    }

    #[test]
    fn deadlines_are_whole_seconds() {
        assert_eq!(["10m", "90s", "2h"].map(|text| seconds(text).unwrap()), [600, 90, 7_200]);
        for text in ["0s", "500ms", "10", "m", "-1s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_is_found_by_service_and_address() {
        let mut status = crate::examples::status();
        status.backends[1].drain = Some(DrainStatus { recorded: 4, ..DrainStatus::default() }.into());
        let seen = left(&changed().answer, &status);
        assert_eq!(
            seen.iter().map(|left| (left.backend.address, left.drain.recorded)).collect::<Vec<_>>(),
            [([10, 0, 2, 2].into(), 4)]
        );
    }
}
