//! What the kernel's route table says about a VIP.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{netns::Netns, wait};

/// One route, as `ip -j route` shows it.
#[derive(Deserialize)]
struct Route {
    #[serde(default)]
    flags: Vec<String>,
    gateway: Option<String>,
    via: Option<Via>,
    dev: Option<String>,
    #[serde(default)]
    nexthops: Vec<NextHop>,
}

#[derive(Deserialize)]
struct NextHop {
    gateway: Option<String>,
    via: Option<Via>,
    dev: String,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Deserialize)]
struct Via {
    host: String,
}

/// The usable next hops to `vip` in `netns`, as `gateway interface`. Those without a carrier are left out.
///
/// # Errors
/// If `ip` fails or its output is not understood.
pub fn next_hops(netns: &Netns, vip: IpAddr) -> Result<BTreeSet<String>> {
    let family = if vip.is_ipv4() { "-4" } else { "-6" };
    let text = netns.ip(&format!("-j {family} route show {vip}"))?;
    let routes: Vec<Route> = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    let mut hops = BTreeSet::new();
    for route in routes {
        let single = route.dev.map(|dev| NextHop { gateway: route.gateway, via: route.via, dev, flags: route.flags });
        for hop in route.nexthops.into_iter().chain(single).filter(|hop| is_usable(&hop.flags)) {
            let gateway = hop.gateway.or(hop.via.map(|via| via.host)).unwrap_or_default();
            hops.insert(format!("{gateway} {}", hop.dev));
        }
    }
    Ok(hops)
}

fn is_usable(flags: &[String]) -> bool {
    !flags.iter().any(|flag| flag == "dead" || flag == "linkdown")
}

/// Waits until `netns` has exactly `count` usable next hops to `vip`, and returns how long that took.
///
/// # Errors
/// After `limit`, with what the table holds instead.
pub async fn wait_for_route(netns: &Netns, vip: IpAddr, count: usize, limit: Duration) -> Result<Duration> {
    let what = format!("{count} next hops to {vip} in {}", netns.name());
    let look = || async {
        let hops = next_hops(netns, vip)?;
        ensure!(hops.len() == count, "{hops:?}");
        Ok(())
    };
    Ok(wait::until(&what, limit, look).await?.1)
}
