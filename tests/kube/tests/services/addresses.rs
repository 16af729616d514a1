//! Whichever field asks for an address, and whatever runs the agent.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use kube_tests::deployed::objects_of;
use netns_tests::{routing::Suite, wait};
use serde_json::json;

use super::bed::{Bed, PATIENCE, vip};

/// What `setpriv` is told for the capabilities that the manifests give the agents, and no other.
fn of_the_manifests() -> Vec<String> {
    let sets = objects_of(&["DaemonSet"]).unwrap();
    let [set] = &sets[..] else { panic!("{} DaemonSets", sets.len()) };
    let security = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(security["drop"], json!(["ALL"]));
    let given = security["add"].as_array().unwrap().iter();
    let names: String = given.map(|name| format!(",+{}", name.as_str().unwrap().to_lowercase())).collect();
    ["setpriv".to_owned(), "--inh-caps=-all".to_owned(), format!("--bounding-set=-all{names}")].into()
}

/// The address in the status of a Service.
fn given(bed: &Bed, name: &str) -> Result<IpAddr> {
    let service = bed.stub.get(&format!("/api/v1/namespaces/default/services/{name}")).unwrap_or_default();
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    ensure!(ingress.as_array().is_some_and(|all| all.len() == 1), "{name} has {ingress}");
    Ok(ingress[0]["ip"].as_str().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn fields_and_the_controller_give_addresses_to_agents_with_the_manifests_rights() {
    let _kept = promises::keeps(&["S1-09", "S1-13"], "the stand-in, BIRD");
    let mut bed = Bed::build(Suite::Bird, 2).unwrap();
    let by = of_the_manifests();
    let by: Vec<&str> = by.iter().map(String::as_str).collect();
    bed.start_agents_by(&by, |config| config).await.unwrap();
    let controller = bed.controller(&json!({})).unwrap();

    // `spec.externalIPs`, beside the address that the Service is given; `spec.loadBalancerIP`; nothing.
    bed.serve("external", 5).unwrap();
    bed.serve_with("field", 6, &json!({ "externalIPs": [], "loadBalancerIP": vip(6) })).unwrap();
    bed.serve_with("any", 0, &json!({ "externalIPs": [] })).unwrap();
    let services = ["external", "field", "any"];
    for name in services {
        bed.place(name, &[0, 1]).unwrap();
        let look = || async { given(&bed, name) };
        let waited = wait::until(&format!("an address of {name}"), PATIENCE, look).await;
        waited.unwrap_or_else(|error| panic!("{error}\n{}", controller.log_tail()));
    }
    assert_eq!(given(&bed, "field").unwrap(), vip(6));
    let last = |address: IpAddr| if let IpAddr::V4(address) = address { address.octets()[3] } else { unreachable!() };
    let addresses: Vec<u8> = services.iter().map(|name| last(given(&bed, name).unwrap())).chain([5]).collect();
    for address in &addresses {
        bed.goes_to(*address, &[0, 1]).await.unwrap();
        let tally = bed.ask(*address, 20).await.unwrap();
        assert_eq!((tally.failed(), tally.answers.len()), (0, 2), "{address}: {tally:?}");
    }
    for node in [0, 1] {
        bed.has(node, &addresses).await.unwrap();
    }
}
