//! The command line of `lbctl`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::{top, trace};

/// Shows and explains what Levee does on this node.
///
/// Everything but the agent's own state is read from the pinned maps, so it works while the agent is down.
#[derive(Debug, Eq, Parser, PartialEq)]
#[command(name = "lbctl", version)]
pub struct Args {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(clap::Args, Clone, Debug, Eq, PartialEq)]
pub(super) struct Options {
    /// Directory on bpffs where the maps are pinned
    #[arg(long, global = true, env = "LEVEE_PIN_PATH", value_name = "DIR", default_value = "/sys/fs/bpf/levee")]
    pub pin_path: PathBuf,
    /// Socket of the agent
    #[arg(long, global = true, env = "LEVEE_SOCKET", value_name = "PATH", default_value = "/run/levee/agent.sock")]
    pub socket: PathBuf,
    /// Form of the output
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// When to use colours; NO_COLOR turns `auto` off
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// One document; fields are added, never renamed
    Json,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Eq, PartialEq, Subcommand)]
pub(super) enum Verb {
    /// The node at a glance: agent, configuration, interfaces, VIPs, drops, capacities
    Status,
    /// VIPs, ports and protocols that are served
    Services,
    /// Backends of every service, and how packets reach them
    Backends,
    /// Flows that are recorded while backends change: how many, which, and for how long
    ///
    /// A flow is recorded if it met a slot of the ring whose owner had changed; settled slots need no records. NEW are flows
    /// that began since, OLD those from before.
    Flows {
        #[command(flatten)]
        wanted: super::flows::Wanted,
    },
    /// Gives a backend, or all of a node, no new flows
    #[command(long_about = format!("Gives a backend, or all of a node, no new flows\n\n{}", super::drain::MEANING))]
    Drain {
        /// Address or address:port of a backend, the name of this node, or that of a peer
        #[arg(value_name = "BACKEND|NODE")]
        target: String,
        /// Only as a backend of this service; can be repeated
        #[arg(long, value_name = "NAME")]
        service: Vec<String>,
        /// Cut the flows that are left after this time: 30s, 10m, 2h; without it they may stay for ever
        #[arg(long, value_name = "TIME", value_parser = super::drain::seconds)]
        deadline: Option<u64>,
        /// Show what is left until nothing is, or the deadline is over
        #[arg(long)]
        wait: bool,
    },
    /// Gives a drained backend or node new flows again
    Undrain {
        /// What was drained
        #[arg(value_name = "BACKEND|NODE")]
        target: String,
        /// Only as a backend of this service; can be repeated
        #[arg(long, value_name = "NAME")]
        service: Vec<String>,
    },
    /// Sizes of the pinned maps, or the entries of one
    Maps {
        /// Name of a map, as `lbctl maps` lists them
        name: Option<String>,
    },
    /// Shares of a service's ring, how even they are, and which slots are not settled
    Ring {
        /// Name of the service
        service: String,
    },
    /// Why a service is announced and held here or not, and which backends take flows
    Explain {
        /// Name of a service, or a VIP
        #[arg(value_name = "SERVICE|VIP")]
        of: String,
    },
    /// Packets by verdict, drop reason and service
    Counters,
    /// Which backend a flow gets, and why
    ///
    /// Runs the very program that packets take on a frame of this flow, on the live maps. Nothing is changed or counted.
    Lookup {
        /// Protocol, source and destination: `tcp 10.0.0.1:40000 192.0.2.10:6443`, `udp [2001:db8::1]:5 [2001:db8::10]:53`
        #[arg(required = true, value_name = "FLOW")]
        flow: Vec<String>,
    },
    /// Packets and bytes per second of services and backends, live
    ///
    /// Keys: q ends, s sorts by packets, bytes or name, p pauses, up and down scroll.
    Top {
        #[command(flatten)]
        args: top::Args,
    },
    /// Packets for VIPs as they come, and what becomes of them
    ///
    /// While somebody listens, the agent puts a program on the interfaces that tells of packets; the plain one pays
    /// nothing for it. Services and backends are those that are there when the trace begins.
    Trace {
        #[command(flatten)]
        args: trace::Args,
    },
    /// Checks a configuration file and says all that is wrong with it
    Validate {
        /// The file
        file: PathBuf,
        /// Do not compare it with this host's interfaces and addresses
        #[arg(long)]
        offline: bool,
    },
    /// Prints a file to begin with
    Sample {
        /// Which
        what: Sample,
    },
    /// Prints the configuration that equals another system's flags
    Migrate {
        /// Which system
        #[command(subcommand)]
        former: super::migrate::Former,
    },
    /// What is wrong on this node, why it matters and what to do
    ///
    /// Changes nothing. Ends with 1 if there are errors, and with 0 if there are warnings only.
    Doctor {
        /// Show also what is as it should be
        #[arg(long, short)]
        verbose: bool,
        /// The controller's configuration: with `nsxt`, say also what VIPs need there
        #[arg(long, value_name = "FILE")]
        controller: Option<PathBuf>,
    },
    /// Takes everything of Levee off this node: VIPs, program, maps
    ///
    /// Refuses while an agent runs. Connections through this node break.
    Detach,
    /// Removes the cluster's routes from NSX-T, then everything of Levee from this node
    ///
    /// Stop the controllers before: they would put the routes back. Removes only routes with the cluster's tag. Ends with 1
    /// if anything is left.
    Cleanup {
        /// File with `nsxt:`, the controller's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only name the routes that would be removed
        #[arg(long)]
        dry_run: bool,
        /// Leave this node as it is
        #[arg(long)]
        routes_only: bool,
    },
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes all of them
    Man {
        /// Directory to write the pages of every verb and of lb-agent to
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Sample {
    /// A configuration file with every key
    Config,
    /// A systemd unit for the agent
    Systemd,
    /// A static pod with the agent, for control-plane nodes
    StaticPod,
    /// The custom resource definitions for Kubernetes
    Crds,
    /// A configuration file of `lb-agent controller` with every key
    Controller,
}
