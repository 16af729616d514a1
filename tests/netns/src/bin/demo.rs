//! `cargo xtask demo`: three control-plane nodes behind one virtual IP, in network namespaces of this machine.

use std::process::ExitCode;

use clap::Parser;
use netns_tests::{
    demo::{self, Options, stage::present},
    routing::Suite,
};

/// Show three control-plane nodes behind one virtual IP, losing a server and a node
///
/// Needs root. Everything happens in network namespaces and is removed at the end, on failure and on Ctrl-C.
#[derive(Parser)]
struct Arguments {
    /// Ask the IPv4 address only
    #[arg(long)]
    ipv4: bool,
    /// Ask the IPv6 address only
    #[arg(long)]
    ipv6: bool,
    /// Routing daemon of the router and of the nodes
    #[arg(long, value_enum, default_value_t)]
    router: Suite,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { ipv4, ipv6, router, keep } = Arguments::parse();
    let options = Options { vips: demo::vips(ipv4, ipv6), suite: router, keep };
    present(|scope| async move { demo::run(scope, &options).await }).await
}
