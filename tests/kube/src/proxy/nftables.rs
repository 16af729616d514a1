//! Mode `nftables`, as input of `nft -f`.

use std::net::SocketAddrV4;

use super::{Exposed, PODS};

/// The table of a node.
pub(super) fn rules(exposed: &Exposed) -> String {
    let Exposed { cluster, external, node_port, local, endpoints, here, .. } = exposed;
    let chains: String = endpoints.iter().enumerate().map(|(index, endpoint)| of_endpoint(index, endpoint)).collect();
    let external_chain = if *local {
        format!(
            " ip saddr {PODS} goto service-test\n fib saddr type local jump mark-for-masquerade\n \
             fib saddr type local goto service-test\n {}",
            spread(endpoints, here)
        )
    } else {
        " jump mark-for-masquerade\n goto service-test".to_owned()
    };
    let to_all = spread(endpoints, endpoints);
    let hooks = HOOKS;
    let (cluster_ip, cluster_port) = (cluster.ip(), cluster.port());
    let (external_ip, external_port) = (external.ip(), external.port());
    format!(
        "table ip kube-proxy {{
chain mark-for-masquerade {{
 meta mark set meta mark or 0x4000
}}
chain masquerading {{
 meta mark & 0x4000 == 0 return
 meta mark set meta mark xor 0x4000
 masquerade fully-random
}}
{chains}chain service-test {{
 ip daddr {cluster_ip} tcp dport {cluster_port} ip saddr != {PODS} jump mark-for-masquerade
 {to_all}
}}
chain external-test {{
{external_chain}
}}
map service-ips {{
 type ipv4_addr . inet_proto . inet_service : verdict
 elements = {{
  {cluster_ip} . tcp . {cluster_port} : goto service-test,
  {external_ip} . tcp . {external_port} : goto external-test
 }}
}}
map service-nodeports {{
 type inet_proto . inet_service : verdict
 elements = {{ tcp . {node_port} : goto external-test }}
}}
chain services {{
 ip daddr . meta l4proto . th dport vmap @service-ips
 fib daddr type local meta l4proto . th dport vmap @service-nodeports
}}
{hooks}}}
"
    )
}

/// Where packets enter.
const HOOKS: &str = "chain nat-prerouting {
 type nat hook prerouting priority dstnat;
 jump services
}
chain nat-output {
 type nat hook output priority -100;
 jump services
}
chain nat-postrouting {
 type nat hook postrouting priority srcnat;
 jump masquerading
}
";

fn of_endpoint(index: usize, endpoint: &SocketAddrV4) -> String {
    let address = endpoint.ip();
    format!(
        "chain endpoint-{index} {{\n ip saddr {address} jump mark-for-masquerade\n meta l4proto tcp dnat to {endpoint}\n}}\n"
    )
}

/// Spreads evenly over some of the endpoints.
fn spread(all: &[SocketAddrV4], some: &[SocketAddrV4]) -> String {
    let index = |endpoint: &SocketAddrV4| all.iter().position(|one| one == endpoint).expect("some of all");
    let ways: Vec<_> =
        some.iter().enumerate().map(|(nth, one)| format!("{nth} : goto endpoint-{}", index(one))).collect();
    match some.len() {
        0 => "drop".to_owned(),
        count => format!("numgen random mod {count} vmap {{ {} }}", ways.join(", ")),
    }
}
