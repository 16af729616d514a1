//! How soon a new Service is served to the network, and how soon a deleted one is not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube_tests::{
    controller::Controller,
    follow::{Pod, pool, slice},
};
use netns_tests::{
    agent::Agent,
    netns::NetnsRef,
    routing::{Routing, Suite},
};
use serde_json::json;

use super::{Bed, PATIENCE, SERVICE_BUDGET};
use crate::{
    interrupt::Interrupt,
    schema::{Case, Results},
};

/// The only address of the pool.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 8080;
/// Limit of one attempt to connect.
const ATTEMPT: Duration = Duration::from_millis(20);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two measurements.
const REST: Duration = Duration::from_millis(500);

const SERVICE: &str = "/api/v1/namespaces/default/services/web";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";

/// Adds the cases, each of so many samples.
pub fn measure(results: &mut Results, samples: usize, interrupt: &Interrupt) -> Result<()> {
    let bed = Bed::build()?;
    let node = &bed.topology.nodes[0];
    bed.put("/apis/levee.dev/v1alpha1/vippools/first", pool("first", &[&VIP.to_string()], &json!({})))?;
    bed.put(SLICE, slice("web", PORT, &[Pod::on(node)]))?;
    serve(&node.netns)?;
    let _routing = Routing::start(&bed.scope, &bed.topology, Suite::Bird, Suite::Bird)?;
    let mut agent = Agent::start(&bed.scope, &node.netns, &bed.config(&bed.keys.admin, |config| config)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(agent.wait_ready(PATIENCE))?;
    let access = bed.stub.access();
    let controller = Controller::new(&bed.scope, "1", access, &bed.keys.admin, &json!({}))?;
    let mut controller = controller.inside(&bed.topology.client);
    controller.start(&bed.scope)?;

    let (mut appeared, mut gone) = (Vec::new(), Vec::new());
    for sample in 0..=samples {
        interrupt.check()?;
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        bed.put(SERVICE, service())?;
        until(&bed, true).with_context(|| controller.log_tail())?;
        let up = milliseconds(start);
        thread::sleep(REST);
        let start = Instant::now();
        bed.stub.delete(SERVICE).map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        until(&bed, false)?;
        let down = milliseconds(start);
        thread::sleep(REST);
        if sample > 0 {
            appeared.push(up); // the first one waits for the election and for sessions
            gone.push(down);
        }
    }
    for (name, times) in [("Service created to first connection", appeared), ("Service deleted to gone", gone)] {
        results.cases.push(Case::new(name, "a Service", "ms", times).within(SERVICE_BUDGET));
    }
    Ok(())
}

/// Accepts connections on every address of a node, in its host network, for as long as this process lives.
fn serve(netns: &NetnsRef) -> Result<()> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
    let listener = netns.enter(|| TcpListener::bind(address).with_context(|| format!("listening on {address}")))??;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(())
}

/// Waits until the client's connections succeed, or fail.
fn until(bed: &Bed, succeed: bool) -> Result<()> {
    let target = SocketAddr::new(VIP.into(), PORT);
    bed.topology.client.enter(|| {
        let start = Instant::now();
        while TcpStream::connect_timeout(&target, ATTEMPT).is_ok() != succeed {
            ensure!(start.elapsed() < PATIENCE, "{target} does not change within {} s", PATIENCE.as_secs());
            thread::sleep(PAUSE);
        }
        Ok(())
    })?
}

fn service() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "levee.dev/levee", "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{ "port": PORT, "targetPort": PORT, "protocol": "TCP" }],
        },
    })
}
