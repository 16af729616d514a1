//! Removing everything that is ours.

use std::time::Duration;

use lb_agent::nsxt::{Cleaned, cleanup};
use nsxt_tests::{Action, Fault, Reply};
use reqwest::Method;
use serde_json::json;

use crate::{
    bed::{Bed, Run, T1, VIP, wanted},
    facts::ask,
};

const POLL: Duration = Duration::from_millis(1);

/// Two routes of ours, one of another cluster, one of nobody.
async fn bed() -> Bed {
    let bed = Bed::new(1).await;
    let hops = ["10.20.4.2"];
    let good = |status: &lb_agent::nsxt::Status| status.passes > 0 && status.error.is_none();
    Run::start(bed.config(&[]), wanted(&[VIP, "192.0.2.1"], &hops), true).until("ours", good).await;
    Run::start(bed.config(&["cluster: c2"]), wanted(&["192.0.2.2"], &hops), true).until("another's", good).await;
    let body = json!({"network": "192.0.2.3/32", "next_hops": [{"ip_address": "10.20.4.9"}]});
    ask(&bed.server, Method::PUT, &format!("/policy/api/v1{T1}/static-routes/by-hand"), body).await;
    assert_eq!(bed.world().routes().len(), 4);
    bed
}

fn ids(bed: &Bed) -> Vec<String> {
    bed.world().routes().keys().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn only_what_is_ours_goes() {
    let bed = bed().await;
    let ours = || vec!["to-192.0.2.1".to_owned(), "to-192.168.160.249".to_owned()];
    let looked = cleanup(&bed.config(&[]), true, POLL).await.unwrap();
    assert_eq!((looked.removed, bed.world().routes().len()), (ours(), 4), "a dry run only looks");
    let cleaned = cleanup(&bed.config(&["auth: session"]), false, POLL).await.unwrap();
    assert_eq!(cleaned, Cleaned { gateway: Some(T1.to_owned()), removed: ours(), failures: Vec::new() });
    assert_eq!(ids(&bed), ["by-hand", "to-192.0.2.2"]);
    assert_eq!(bed.world().sessions(0), 0, "and the session is ended");
    let again = cleanup(&bed.config(&[]), false, POLL).await.unwrap();
    assert_eq!((again.removed, again.failures), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_gateway_that_is_gone_took_its_routes_along() {
    let bed = bed().await;
    bed.world().remove_gateway(T1);
    assert_eq!(cleanup(&bed.config(&[]), false, POLL).await.unwrap(), Cleaned::default());
}

#[tokio::test]
async fn what_can_not_be_removed_is_told_and_the_rest_goes() {
    let bed = bed().await;
    let message = "The object cannot be deleted as either it has children or it is being referenced.";
    let refusal = Reply::error(400, 500_030, "Policy", message);
    bed.world().fault(Fault::on("DELETE", "to-192.168.160.249", 1, Action::Answer(refusal)));
    let cleaned = cleanup(&bed.config(&[]), false, POLL).await.unwrap();
    assert_eq!(cleaned.removed, ["to-192.0.2.1"]);
    assert!(
        cleaned.failures[0].starts_with("to-192.168.160.249: ") && cleaned.failures[0].contains(message),
        "{cleaned:?}"
    );
}

#[tokio::test]
async fn a_lost_answer_is_no_failure() {
    let bed = bed().await;
    bed.world().fault(Fault::on("DELETE", "to-192", 1, Action::ResetAfter));
    let cleaned = cleanup(&bed.config(&[]), false, POLL).await.unwrap();
    assert_eq!((cleaned.removed.len(), cleaned.failures), (2, Vec::new()));
    assert_eq!(ids(&bed), ["by-hand", "to-192.0.2.2"]);
}

#[tokio::test]
async fn routers_of_the_manager_api_are_cleaned_as_well() {
    let bed = Bed::new(1).await;
    let id = bed.world().add_router("old-router", None);
    let config = bed.config(&["tier1: old-router"]);
    bed.keep(config.clone(), &["10.20.4.2"]).has(&["10.20.4.2"]).await;
    assert_eq!(cleanup(&config, false, POLL).await.unwrap().removed.len(), 1);
    assert_eq!(bed.world().router_routes(&id), Vec::<serde_json::Value>::new());
}
