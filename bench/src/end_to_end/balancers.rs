//! The balancers that Levee is compared with, each tuned as its manual suggests for this job.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use netns_tests::{netns::Netns, process::Process, scope::Scope};

/// Where Debian's nginx keeps its `stream` module; a build that has it inside needs no such file.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Configuration of nginx as a TCP proxy: two workers that share nothing, no access log.
#[must_use]
pub fn nginx(listen: SocketAddr, servers: &[IpAddr], pid_file: &str) -> String {
    let port = listen.port();
    let upstreams: String = servers.iter().map(|server| format!("    server {server}:{port};\n")).collect();
    format!(
        "load_module {STREAM_MODULE};\n\
         daemon off;\nuser root;\npid {pid_file};\nerror_log stderr warn;\n\
         worker_processes 2;\nworker_rlimit_nofile 65536;\n\
         events {{\n  worker_connections 16384;\n}}\n\
         stream {{\n  access_log off;\n  \
         upstream servers {{\n{upstreams}  }}\n  \
         server {{\n    listen {listen} reuseport backlog=4096;\n    proxy_pass servers;\n  }}\n}}\n"
    )
}

/// Configuration of HAProxy in TCP mode: two threads, no log.
#[must_use]
pub fn haproxy(listen: SocketAddr, servers: &[IpAddr]) -> String {
    let port = listen.port();
    let servers: String =
        servers.iter().enumerate().map(|(at, server)| format!("  server server-{at} {server}:{port}\n")).collect();
    format!(
        "global\n  nbthread 2\n  maxconn 8000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen servers\n  bind {listen} backlog 4096\n  balance roundrobin\n{servers}"
    )
}

/// Rules of nftables: destination translation only, so that servers see the client.
#[must_use]
pub fn nftables(listen: SocketAddr, servers: &[IpAddr]) -> String {
    let choices: Vec<_> = servers.iter().enumerate().map(|(at, server)| format!("{at} : {server}")).collect();
    format!(
        "table ip balancer {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {} tcp dport {} dnat to numgen random mod {} map {{ {} }}\n  }}\n}}\n",
        listen.ip(),
        listen.port(),
        servers.len(),
        choices.join(", ")
    )
}

/// Starts nginx in `netns`.
///
/// # Errors
/// If it is not installed or does not start.
pub fn start_nginx(scope: &Scope, netns: &Netns, listen: SocketAddr, servers: &[IpAddr]) -> Result<Process> {
    let file = scope.file("nginx.conf");
    let text = nginx(listen, servers, &scope.file("nginx.pid").display().to_string());
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let mut command = netns.command("nginx");
    command.args(["-e", "stderr", "-c"]).arg(&file);
    Process::spawn(scope, "nginx", &mut command)
}

/// Starts HAProxy in `netns`.
///
/// # Errors
/// If it is not installed or does not start.
pub fn start_haproxy(scope: &Scope, netns: &Netns, listen: SocketAddr, servers: &[IpAddr]) -> Result<Process> {
    let file = scope.file("haproxy.cfg");
    fs::write(&file, haproxy(listen, servers)).with_context(|| format!("writing {}", file.display()))?;
    let mut command = netns.command("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    Process::spawn(scope, "haproxy", &mut command)
}

/// Loads the rules of nftables in `netns`; they go with it.
///
/// # Errors
/// If `nft` is not installed or the kernel refuses a rule.
pub fn load_nftables(scope: &Scope, netns: &Netns, listen: SocketAddr, servers: &[IpAddr]) -> Result<()> {
    let file = scope.file("balancer.nft");
    fs::write(&file, nftables(listen, servers)).with_context(|| format!("writing {}", file.display()))?;
    netns.run("nft", &["-f", &file.display().to_string()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen() -> SocketAddr {
        "198.51.100.7:8080".parse().unwrap()
    }

    fn servers() -> [IpAddr; 2] {
        ["10.0.0.16", "10.0.0.17"].map(|address| address.parse().unwrap())
    }

    #[test]
    fn every_configuration_names_the_vip_and_all_servers() {
        let texts =
            [nginx(listen(), &servers(), "/tmp/pid"), haproxy(listen(), &servers()), nftables(listen(), &servers())];
        for text in texts {
            for part in ["198.51.100.7", "8080", "10.0.0.16", "10.0.0.17"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }

    #[test]
    fn nftables_chooses_among_as_many_as_there_are() {
        let text = nftables(listen(), &servers());
        assert!(text.contains("numgen random mod 2 map { 0 : 10.0.0.16, 1 : 10.0.0.17 }"), "{text}");
    }
}
