//! Mode `iptables`, as input of `iptables-restore`.

use std::{fmt::Write, net::SocketAddrV4};

use super::{Exposed, PODS};

/// `nat` and `filter` of a node.
pub(super) fn rules(exposed: &Exposed) -> String {
    let Exposed { name, cluster, external, node_port, local, endpoints, here } = exposed;
    let mut nat = Table::new("nat", &["PREROUTING", "OUTPUT", "POSTROUTING"]);
    nat.jump("PREROUTING", "-j KUBE-SERVICES");
    nat.jump("OUTPUT", "-j KUBE-SERVICES");
    nat.jump("POSTROUTING", "-j KUBE-POSTROUTING");
    nat.jump("KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000");
    nat.jump("KUBE-POSTROUTING", "-m mark ! --mark 0x4000/0x4000 -j RETURN");
    nat.jump("KUBE-POSTROUTING", "-j MARK --set-xmark 0x4000/0x0");
    nat.jump("KUBE-POSTROUTING", "-j MASQUERADE --random-fully");

    let to = |socket: &SocketAddrV4| format!("-d {}/32 -p tcp -m tcp --dport {}", socket.ip(), socket.port());
    nat.jump("KUBE-SERVICES", &format!("-m comment --comment \"{name} cluster IP\" {} -j KUBE-SVC-TEST", to(cluster)));
    nat.jump(
        "KUBE-SERVICES",
        &format!("-m comment --comment \"{name} loadbalancer IP\" {} -j KUBE-EXT-TEST", to(external)),
    );
    nat.jump("KUBE-SERVICES", "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
    nat.jump("KUBE-NODEPORTS", &format!("-p tcp -m tcp --dport {node_port} -j KUBE-EXT-TEST"));
    if *local {
        nat.jump("KUBE-EXT-TEST", &format!("-s {PODS} -j KUBE-SVC-TEST"));
        nat.jump("KUBE-EXT-TEST", "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ");
        nat.jump("KUBE-EXT-TEST", "-m addrtype --src-type LOCAL -j KUBE-SVC-TEST");
        nat.jump("KUBE-EXT-TEST", "-j KUBE-SVL-TEST");
        nat.spread("KUBE-SVL-TEST", endpoints, here);
    } else {
        nat.jump("KUBE-EXT-TEST", "-j KUBE-MARK-MASQ");
        nat.jump("KUBE-EXT-TEST", "-j KUBE-SVC-TEST");
    }
    nat.jump("KUBE-SVC-TEST", &format!("! -s {PODS} {} -j KUBE-MARK-MASQ", to(cluster)));
    nat.spread("KUBE-SVC-TEST", endpoints, endpoints);
    for (index, endpoint) in endpoints.iter().enumerate() {
        let chain = format!("KUBE-SEP-{index}");
        nat.jump(&chain, &format!("-s {}/32 -j KUBE-MARK-MASQ", endpoint.ip()));
        nat.jump(&chain, &format!("-p tcp -m tcp -j DNAT --to-destination {endpoint}"));
    }

    let mut filter = Table::new("filter", &["INPUT", "FORWARD", "OUTPUT"]);
    filter.jump("INPUT", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES");
    filter.jump("FORWARD", "-j KUBE-FORWARD");
    filter.jump("FORWARD", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES");
    filter.chain("KUBE-EXTERNAL-SERVICES");
    if *local && here.is_empty() {
        filter.jump("KUBE-EXTERNAL-SERVICES", &format!("{} -j DROP", to(external)));
    }
    filter.jump("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP");
    filter.jump("KUBE-FORWARD", "-m mark --mark 0x4000/0x4000 -j ACCEPT");
    filter.jump("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    nat.text() + &filter.text()
}

/// A table under way.
struct Table {
    name: &'static str,
    built_in: &'static [&'static str],
    chains: Vec<String>,
    rules: String,
}

impl Table {
    const fn new(name: &'static str, built_in: &'static [&'static str]) -> Self {
        Self { name, built_in, chains: Vec::new(), rules: String::new() }
    }

    /// Sees to it that a chain is declared.
    fn chain(&mut self, chain: &str) {
        if !self.built_in.contains(&chain) && !self.chains.iter().any(|known| known == chain) {
            self.chains.push(chain.to_owned());
        }
    }

    fn jump(&mut self, chain: &str, rule: &str) {
        self.chain(chain);
        writeln!(self.rules, "-A {chain} {rule}").expect("writing to a string");
    }

    /// Spreads evenly over some of the endpoints.
    fn spread(&mut self, chain: &str, all: &[SocketAddrV4], some: &[SocketAddrV4]) {
        self.chain(chain);
        for (nth, endpoint) in some.iter().enumerate() {
            let index = all.iter().position(|one| one == endpoint).expect("some of all");
            let left = some.len() - nth;
            let chance = match left {
                1 => String::new(),
                _ => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            self.jump(chain, &format!("{chance}-j KUBE-SEP-{index}"));
        }
    }

    fn text(&self) -> String {
        let mut text = format!("*{}\n", self.name);
        for chain in self.built_in {
            writeln!(text, ":{chain} ACCEPT [0:0]").expect("writing to a string");
        }
        for chain in &self.chains {
            writeln!(text, ":{chain} - [0:0]").expect("writing to a string");
        }
        text + &self.rules + "COMMIT\n"
    }
}
