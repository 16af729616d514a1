//! What `lbctl` says on one of the nodes.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::{
    Options,
    bed::{Bed, SERVICE},
    console::Console,
};
use crate::topology::CLIENT;

/// Lines shown of each command.
const LINES: usize = 16;

/// Shows excerpts of the commands a person would look at first.
pub(super) fn show(bed: &Bed, options: &Options, console: &mut Console) -> Result<()> {
    console.step("What lbctl says on node-1");
    let flows = options.vips.iter().map(|&vip| flow(vip));
    let mut commands = vec![vec!["status".to_owned()], vec!["ring".to_owned(), SERVICE.to_owned()]];
    commands.extend(flows.map(|flow| vec!["lookup".to_owned(), flow]));
    commands.push(vec!["counters".to_owned()]);
    for command in commands {
        let arguments: Vec<_> = command.iter().map(String::as_str).collect();
        let text = bed.agents[0].lbctl(&arguments)?;
        let shown: Vec<_> = command.iter().map(|word| quote(word)).collect();
        console.note(&format!("$ lbctl {}", shown.join(" ")));
        text.lines().take(LINES).for_each(|line| console.note(&format!("  {line}")));
        let more = text.lines().count().saturating_sub(LINES);
        if more > 0 {
            console.note(&format!("  ... {more} more lines"));
        }
        console.note("");
    }
    Ok(())
}

/// A flow from the client to `vip`.
fn flow(vip: IpAddr) -> String {
    let client = CLIENT[usize::from(vip.is_ipv6())];
    format!("tcp {} {}", SocketAddr::new(client, 40_000), SocketAddr::new(vip, 6443))
}

/// The word as a shell would need it.
fn quote(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}
