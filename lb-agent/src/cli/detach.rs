//! `lbctl detach`.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Sections, Style},
};
use crate::{
    announce::{self, Applied},
    api,
    inspect::{self, DataplaneError},
};

/// What was taken away.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detached {
    pin_path: String,
    /// VIPs that were announced.
    withdrawn: Vec<IpAddr>,
    /// VIPs that were held.
    released: Vec<IpAddr>,
    /// Interfaces that had the program.
    interfaces: Vec<String>,
    /// Whether there were pins.
    pins_removed: bool,
    /// What could not be taken away.
    failures: Vec<String>,
}

/// Takes everything away, in this order: the announcements, so that no new traffic comes; what is held; the program.
pub(super) fn perform(options: &Options) -> Result<Detached> {
    let lock = inspect::lock_to_detach(&options.pin_path).map_err(refusal)?;
    block_on(refuse_while_agent_runs(options))??;
    let (withdrawn, released) = block_on(async {
        let withdrawn = announce::withdraw_all().await.context("withdrawing the VIPs")?;
        let released = announce::release_all().await.context("releasing the VIPs")?;
        anyhow::Ok((withdrawn, released))
    })??;
    let pins_removed = lock.is_some();
    let interfaces = lock.map(inspect::detach).transpose().context("removing the pins")?;
    Ok(Detached {
        pin_path: options.pin_path.display().to_string(),
        failures: [&withdrawn, &released].into_iter().flat_map(failures).collect(),
        withdrawn: withdrawn.removed.into_iter().collect(),
        released: released.removed.into_iter().collect(),
        interfaces: interfaces.unwrap_or_default(),
        pins_removed,
    })
}

/// The refusal while an agent runs, in the words of who detaches.
fn refusal(error: DataplaneError) -> anyhow::Error {
    match error {
        DataplaneError::Locked { path, owner } => anyhow!(
            "an agent ({owner}) runs on {}; stop it first, or it would put back what is taken away",
            path.display()
        ),
        other => other.into(),
    }
}

/// An agent with another pin directory would put back at once what is taken away here.
async fn refuse_while_agent_runs(options: &Options) -> Result<()> {
    let Ok(status) = api::status(&options.socket).await else {
        return Ok(());
    };
    bail!(
        "an agent (process {} of node {}) answers on {} and works on {}; stop it first",
        status.pid,
        status.node,
        options.socket.display(),
        status.dataplane.pin_path
    )
}

fn failures(applied: &Applied) -> impl Iterator<Item = String> {
    let text = |(vip, error): (&IpAddr, &announce::AnnounceError)| {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        causes.fold(format!("{vip}: {error}"), |text, cause| format!("{text}: {cause}"))
    };
    applied.errors.iter().map(text)
}

impl Report for Detached {
    fn text(&self, style: Style) -> String {
        let mut sections = Sections::new(style);
        sections.add("withdrawn", self.withdrawn.iter().map(IpAddr::to_string));
        sections.add("released", self.released.iter().map(IpAddr::to_string));
        sections.add("detached", self.interfaces.iter().cloned());
        sections.add("removed", self.pins_removed.then(|| self.pin_path.clone()));
        sections.add("failed", self.failures.iter().map(|failure| style.bad(failure)));
        match sections.render() {
            text if text.is_empty() => format!("Nothing of Levee was here (looked under {}).\n", self.pin_path),
            text => text,
        }
    }

    fn failed(&self) -> bool {
        !self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::json;

    fn detached() -> Detached {
        let vip: IpAddr = [192, 0, 2, 10].into();
        Detached {
            pin_path: "/sys/fs/bpf/levee".to_owned(),
            withdrawn: vec![vip],
            released: vec![vip, "2001:db8::10".parse().unwrap()],
            interfaces: vec!["eth0".to_owned()],
            pins_removed: true,
            failures: Vec::new(),
        }
    }

    #[test]
    fn everything_that_was_removed_is_named() {
        insta::assert_snapshot!(detached().text(Style::PLAIN));
        insta::assert_snapshot!(json(&detached()).unwrap());
    }

    #[test]
    fn an_agent_that_runs_is_named() {
        let locked = DataplaneError::Locked {
            path: "/sys/fs/bpf/levee".into(),
            owner: "process 4711 of node node-1, version 0.1.0".to_owned(),
        };
        assert_eq!(
            refusal(locked).to_string(),
            "an agent (process 4711 of node node-1, version 0.1.0) runs on /sys/fs/bpf/levee; stop it first, or it would \
             put back what is taken away"
        );
    }

    #[test]
    fn nothing_to_remove_is_no_failure() {
        let nothing = Detached {
            withdrawn: Vec::new(),
            released: Vec::new(),
            interfaces: Vec::new(),
            pins_removed: false,
            ..detached()
        };
        assert!(!nothing.failed());
        assert_eq!(nothing.text(Style::PLAIN), "Nothing of Levee was here (looked under /sys/fs/bpf/levee).\n");
    }

    #[test]
    fn what_could_not_be_removed_is_a_failure() {
        let failed = Detached { failures: vec!["192.0.2.10: refused".to_owned()], ..detached() };
        assert!(failed.failed());
        assert!(failed.text(Style::PLAIN).ends_with("failed     192.0.2.10: refused\n"));
    }
}
