//! The rules of `tidy`, as tables.

/// Who may not import what, and why.
pub struct ImportRule {
    /// Modules the rule is for, with everything below them.
    pub modules: &'static [&'static str],
    /// Modules among those that it is not for.
    pub except: &'static [&'static str],
    /// What they may not name: a crate or module with everything in it, or `*::` and the segments that may stand nowhere
    /// in a path.
    pub never: &'static [&'static str],
    /// The reason, shown with a breach.
    pub why: &'static str,
}

/// Longest file, tests aside.
pub const MAX_LINES: usize = 400;

/// The only files with `unsafe` code; a trailing slash stands for every file of a folder.
pub const UNSAFE_FILES: [&str; 10] = [
    "lb-ebpf/src/packet.rs",
    "lb-ebpf/src/maps.rs",
    "lb-ebpf/src/socket.rs",
    "lb-ebpf/src/stats.rs",
    "lb-common/src/maps/",
    "lb-agent/src/dataplane/arena.rs",
    "lb-agent/src/runtime/heap.rs",
    "lb-ebpf/src/yardstick.rs",
    "bench/ebpf/src/harness.rs",
    "lb-ebpf/src/connect.rs",
];

/// Folder of each crate and its name in paths.
pub const CRATES: &[(&str, &str)] = &[
    ("lb-common", "lb_common"),
    ("lb-ebpf", "lb_ebpf"),
    ("lb-agent", "lb_agent"),
    ("xtask", "xtask"),
    ("tests/packets", "packets_tests"),
    ("tests/netns", "netns_tests"),
    ("tests/promises", "promises"),
    ("tests/kube", "kube_tests"),
    ("tests/nsxt", "nsxt_tests"),
    ("bench", "levee_bench"),
    ("fuzz", "levee_fuzz"),
];

/// The import table.
pub const IMPORT_RULES: &[ImportRule] = &[
    ImportRule {
        modules: &["lb_agent::nsxt"],
        except: &[],
        never: &[
            "lb_agent::dataplane",
            "lb_agent::announce",
            "lb_agent::election",
            "lb_agent::controller",
            "lb_agent::sources",
            "lb_agent::kubernetes",
        ],
        why: "the keeper of NSX-T routes takes what is wanted and who leads as values",
    },
    ImportRule {
        modules: &[
            "lb_agent::model",
            "lb_agent::plan",
            "lb_agent::cluster",
            "lb_agent::proto",
            "lb_agent::nsxt::plan",
            "lb_agent::nsxt::route",
        ],
        except: &[],
        never: &[
            "tokio",
            "tokio_util",
            "futures",
            "kube",
            "aya",
            "rtnetlink",
            "netlink_packet_core",
            "netlink_packet_route",
            "netlink_sys",
            "socket2",
            "nix",
            "notify",
            "axum",
            "hyper",
            "rand",
            "std::fs",
            "std::process",
            "std::thread",
            "*::TcpStream",
            "*::TcpListener",
            "*::UdpSocket",
            "*::UnixStream",
            "*::UnixListener",
            "*::UnixDatagram",
            "*::Instant::now",
            "*::SystemTime",
        ],
        why: "pure code: no I/O, no clock, no randomness; pass the result or the time in as a value",
    },
    ImportRule {
        modules: &["lb_agent::model", "lb_agent::plan", "lb_agent::cluster"],
        except: &[],
        never: &[
            "lb_agent::kubernetes",
            "lb_agent::sources",
            "lb_agent::dataplane",
            "lb_agent::netlink",
            "lb_agent::announce",
            "lb_agent::health",
            "lb_agent::metrics",
            "lb_agent::api",
            "lb_agent::inspect",
            "lb_agent::cli",
            "lb_agent::config",
        ],
        why: "the shared types and the plan know nobody; the others know them",
    },
    ImportRule {
        modules: &["lb_agent"],
        except: &["lb_agent::dataplane", "lb_agent::inspect"],
        never: &["aya"],
        why: "only the data plane and the reader of pinned maps talk to the kernel's BPF",
    },
    ImportRule {
        modules: &["lb_agent"],
        except: &["lb_agent::netlink", "lb_agent::announce"],
        never: &["rtnetlink", "netlink_packet_core", "netlink_packet_route", "netlink_proto", "netlink_sys"],
        why: "links, routes and addresses are the job of `netlink` and `announce`; the others take their values",
    },
    ImportRule {
        modules: &["lb_agent"],
        except: &[
            "lb_agent::kubernetes",
            "lb_agent::sources::kubernetes",
            "lb_agent::election::lease",
            "lb_agent::controller",
        ],
        never: &["kube", "k8s_openapi"],
        why: "only one source, the lease and the controller speak to the API server, all through `kubernetes`",
    },
    ImportRule {
        modules: &["lb_agent"],
        except: &["lb_agent::bin", "lb_agent::runtime"],
        never: &["lb_agent::runtime"],
        why: "`runtime` starts the others; only the programs start it",
    },
    ImportRule {
        modules: &["lb_agent::cli"],
        except: &[],
        never: &["lb_agent::dataplane", "lb_agent::sources", "lb_agent::health"],
        why: "`cli` reaches the agent through `api`, or the pinned maps through `inspect`",
    },
    ImportRule {
        modules: &["lb_agent::cli"],
        except: &["lb_agent::cli::validate"],
        never: &["lb_agent::netlink"],
        why: "only `validate` asks the kernel for this host's network, to compare a file with it",
    },
    ImportRule {
        modules: &["lb_agent::cli"],
        except: &["lb_agent::cli::detach"],
        never: &["lb_agent::announce"],
        why: "only `detach` changes anything, and takes VIPs away while no agent runs",
    },
    ImportRule {
        modules: &["lb_agent::inspect", "lb_agent::metrics"],
        except: &[],
        never: &[
            "lb_agent::announce",
            "lb_agent::netlink",
            "lb_agent::sources",
            "lb_agent::health",
            "lb_agent::plan",
            "lb_agent::cli",
        ],
        why: "what the maps say is read from the maps alone, and metrics are made of values",
    },
    ImportRule {
        modules: &["lb_agent::sources"],
        except: &[],
        never: &["lb_agent::dataplane", "lb_agent::announce"],
        why: "a source yields snapshots and performs nothing",
    },
    ImportRule {
        modules: &["lb_agent::dataplane"],
        except: &[],
        never: &[
            "lb_agent::proto",
            "lb_agent::announce",
            "lb_agent::sources",
            "lb_agent::health",
            "lb_agent::controller",
        ],
        why: "the data plane performs map operations and knows nothing of where they come from",
    },
    ImportRule {
        modules: &["lb_agent::announce", "lb_agent::election", "lb_agent::controller"],
        except: &[],
        never: &["lb_agent::dataplane"],
        why: "announcing and forwarding are decided apart, by the plan",
    },
    ImportRule {
        modules: &["lb_agent::announce", "lb_agent::controller"],
        except: &[],
        never: &["lb_agent::election"],
        why: "announcers act on the plan only, which knows who leads",
    },
    ImportRule {
        modules: &["lb_agent::election", "lb_agent::controller"],
        except: &[],
        never: &["lb_agent::announce"],
        why: "announcers act on the plan only",
    },
    ImportRule {
        modules: &["lb_common", "lb_ebpf"],
        except: &[],
        never: &["std", "tokio", "futures"],
        why: "this code runs in the kernel too: `core` only (`alloc` behind feature `user`)",
    },
    ImportRule {
        modules: &["levee_fuzz::model", "levee_fuzz::packet"],
        except: &[],
        never: &["lb_common::parse", "lb_common::quote", "packets_tests"],
        why: "the model proves something only if it shares no reading of frames with the program",
    },
    ImportRule {
        modules: &["lb_ebpf::vip", "lb_ebpf::maglev", "lb_ebpf::conntrack", "lb_ebpf::stats"],
        except: &[],
        never: &[
            "lb_ebpf::packet",
            "*::XdpContext",
            "*::xdp_md",
            "*::bpf_xdp_load_bytes",
            "*::bpf_xdp_store_bytes",
            "*::bpf_xdp_adjust_head",
            "*::bpf_xdp_adjust_tail",
        ],
        why: "packet memory is touched by `packet` alone",
    },
    ImportRule {
        modules: &["lb_ebpf::encap", "lb_ebpf::nat", "lb_ebpf::icmp"],
        except: &[],
        never: &["lb_ebpf::maps", "*::btf_maps"],
        why: "whoever calls these looks up and passes what was found",
    },
];
