//! The Debian packages that xtask installs, as tables.

/// A Debian package, the program or file that shows it is there, and what it is for.
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// A program on PATH or a file.
    pub proof: &'static str,
    /// What it is for.
    pub why: &'static str,
}

/// The BPF compiler where there is no rustup nightly with `rust-src`.
pub const COMPILER_PACKAGES: [Package; 3] = [
    Package { name: "rustc-web", proof: "/usr/bin/rustc", why: "compiler that can build the BPF object" },
    Package { name: "cargo-web", proof: "/usr/bin/cargo", why: "cargo that fits that compiler" },
    Package {
        name: "rust-web-src",
        proof: "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
        why: "sources of `core`, which is built for the BPF target",
    },
];

/// What the namespace tests and the demo run.
pub const TEST_PACKAGES: [Package; 8] = [
    Package { name: "iproute2", proof: "ip", why: "network namespaces, links and routes" },
    Package { name: "ethtool", proof: "ethtool", why: "checksum offload of veth devices, which native XDP needs off" },
    Package { name: "bird2", proof: "bird", why: "router with ECMP that learns the VIPs" },
    Package { name: "frr", proof: "/usr/lib/frr/zebra", why: "routing daemon that redistributes a VIP from `lo`" },
    Package { name: "curl", proof: "curl", why: "HTTPS requests to the VIP" },
    Package { name: "iptables", proof: "iptables-nft-restore", why: "rules of kube-proxy" },
    Package { name: "nftables", proof: "nft", why: "rules of kube-proxy, and address translation to compare with" },
    Package { name: "iputils-ping", proof: "ping", why: "reachability and the fill of neighbour tables" },
];

/// What kube-apiserver is built with, beside a compiler of its own.
pub const KUBE_PACKAGES: [Package; 2] = [
    Package { name: "make", proof: "make", why: "build of kube-apiserver" },
    Package { name: "rsync", proof: "rsync", why: "build of kube-apiserver" },
];

/// What emulated guests are made of, beside the test packages.
pub const VM_PACKAGES: [Package; 4] = [
    Package { name: "qemu-system-x86", proof: "qemu-system-x86_64", why: "emulator for other kernels" },
    Package { name: "busybox-static", proof: "/bin/busybox", why: "shell of the guests" },
    Package { name: "cpio", proof: "cpio", why: "memory disks of the guests" },
    Package { name: "xz-utils", proof: "xz", why: "modules of the guests' kernels" },
];

/// What the benchmarks compare Levee with, beside the test packages. The services that come with them are not started: each runs in a namespace.
pub const BENCH_PACKAGES: [Package; 3] = [
    Package { name: "nginx-light", proof: "nginx", why: "a proxy to compare with" },
    Package {
        name: "libnginx-mod-stream",
        proof: "/usr/lib/nginx/modules/ngx_stream_module.so",
        why: "TCP proxying of nginx",
    },
    Package { name: "haproxy", proof: "haproxy", why: "a proxy to compare with" },
];

/// What renders the chart, checks the alerts and runs the image.
pub const DEPLOY_PACKAGES: [Package; 6] = [
    Package { name: "golang-1.19-go", proof: "/usr/lib/go-1.19/bin/go", why: "compiler of the chart's renderer" },
    Package {
        name: "golang-github-masterminds-sprig-dev",
        proof: "/usr/share/gocode/src/github.com/Masterminds/sprig",
        why: "functions of the chart's templates",
    },
    Package {
        name: "golang-k8s-sigs-yaml-dev",
        proof: "/usr/share/gocode/src/sigs.k8s.io/yaml",
        why: "the chart's values",
    },
    Package {
        name: "golang-github-xeipuuv-gojsonschema-dev",
        proof: "/usr/share/gocode/src/github.com/xeipuuv/gojsonschema",
        why: "the schema of the chart's values",
    },
    Package { name: "prometheus", proof: "promtool", why: "checks the alerts" },
    Package { name: "runc", proof: "runc", why: "runs the image" },
];
