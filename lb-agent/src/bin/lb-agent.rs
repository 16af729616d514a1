//! The node agent.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(3).unwrap_or_default();
    lb_agent::runtime::run(Path::new(&path), None)
}
