//! `cargo xtask demo kubernetes`: a cluster whose API is behind a VIP, with a Service, in network namespaces of this machine.

use std::process::ExitCode;

use clap::Parser;
use kube_tests::demo::{self, Options};
use netns_tests::{demo::stage::present, routing::Suite};

/// Show three control-plane nodes with an API server and an etcd member each: a Service comes, moves and goes, and a node dies
///
/// Needs root, and etcd and kube-apiserver in the folder that KUBEBUILDER_ASSETS names. Everything happens in network
/// namespaces and is removed at the end, on failure and on Ctrl-C.
#[derive(Parser)]
#[command(name = "demo kubernetes")]
struct Arguments {
    /// Routing daemon of the nodes
    #[arg(long, value_enum, default_value_t)]
    router: Suite,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { router, keep } = Arguments::parse();
    let options = Options { suite: router, keep };
    present(|scope| async move { demo::run(scope, &options).await }).await
}
