//! BIRD 2, one process per namespace.

use std::{fmt::Write, fs, process::Command};

use anyhow::{Context, Result, ensure};

use super::{Role, RoutingDaemon, Speaker};
use crate::{netns::run, process::Process, scope::Scope};

/// Starts BIRD in the foreground, as a child.
pub(super) fn start(scope: &Scope, speaker: &Speaker<'_>) -> Result<RoutingDaemon> {
    ensure!(speaker.role != Role::Gateway, "BIRD is no gateway here, FRR is");
    let name = format!("bird-{}", speaker.name);
    let file = scope.file(&format!("{name}.conf"));
    fs::write(&file, configuration(speaker)).with_context(|| format!("writing {}", file.display()))?;
    let mut command = speaker.netns.command("bird");
    command.arg("-f").arg("-c").arg(&file);
    command.arg("-s").arg(scope.file(&format!("{name}.ctl")));
    Ok(RoutingDaemon { processes: vec![Process::spawn(scope, &name, &mut command)?], directories: Vec::new() })
}

/// Updates and withdrawals that the BIRD of this name got from its neighbours so far.
pub(super) fn received(scope: &Scope, name: &str) -> Result<(u64, u64)> {
    let socket = scope.file(&format!("bird-{name}.ctl"));
    let text = run(Command::new("birdc").arg("-s").arg(socket).args(["show", "protocols", "all"]))?;
    let sum = |what: &str| {
        let counts =
            text.lines().filter_map(|line| line.trim().strip_prefix(what)?.split_whitespace().next()?.parse().ok());
        counts.collect::<Vec<u64>>()
    };
    let (updates, withdrawals) = (sum("Import updates:"), sum("Import withdraws:"));
    ensure!(!updates.is_empty() && updates.len() == withdrawals.len(), "cannot read {text}");
    Ok((updates.iter().sum(), withdrawals.iter().sum()))
}

fn configuration(speaker: &Speaker<'_>) -> String {
    let mut text = format!("router id {};\nlog stderr all;\nprotocol device {{ scan time 1; }}\n", speaker.router_id);
    text.push_str(match speaker.role {
        // The kernel takes one route per prefix, so equal ones are merged into one with several next hops.
        Role::Router => {
            "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths on limit 32; }\n\
             protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths on limit 32; }\n"
        }
        Role::Node | Role::Gateway => "protocol direct { ipv4; ipv6; interface \"lo\"; }\n",
    });
    for neighbor in &speaker.neighbors {
        let (family, hosts) =
            if neighbor.address.is_ipv4() { ("ipv4", "0.0.0.0/0{32,32}") } else { ("ipv6", "::/0{128,128}") };
        let policy = match speaker.role {
            Role::Router => "import all; export none".to_owned(),
            Role::Node | Role::Gateway => format!("import none; export where source = RTS_DEVICE && net ~ [ {hosts} ]"),
        };
        writeln!(
            text,
            "protocol bgp {} {{ local as {}; neighbor {} as {}; hold time 9; keepalive time 3; connect retry time 1; \
             connect delay time 1; error wait time 1,2; graceful restart off; {family} {{ {policy}; }}; }}",
            neighbor.name, speaker.number, neighbor.address, neighbor.number,
        )
        .expect("writing to a string");
    }
    text
}
