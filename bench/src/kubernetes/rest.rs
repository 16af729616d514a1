//! What is written at the API while nothing changes.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result};
use kube_tests::{access::User, controller::Controller, crowd::Crowd, words::Words};
use netns_tests::{agent::Agent, wait};
use serde_json::json;

use super::{Bed, PATIENCE};
use crate::schema::{Case, Results};

const CROWD: Crowd = Crowd { services: 500, endpoints: 10, nodes: 20 };
/// How long nothing else has to happen before the count: statuses and Events of the start are written by then.
const SETTLING: Duration = Duration::from_secs(20);
/// The figures are per so many seconds.
const PER: f64 = 10.0;

/// Adds the cases, counted over `time`.
pub fn measure(results: &mut Results, time: Duration) -> Result<()> {
    let bed = Bed::build()?;
    let users = [("agent", "the agent"), ("controller", "the controller")];
    for (name, _) in users {
        bed.stub.know(name, &User::Token(format!("token-of-{name}")))?;
    }
    CROWD.fill(&bed.stub)?;
    let user = |name: &str| User::Token(format!("token-of-{name}"));
    let config = bed.config(&user("agent"), |config| CROWD.with_capacities(config))?;
    let mut agent = Agent::start(&bed.scope, &bed.topology.nodes[0].netns, &config)?;
    let controller = Controller::new(&bed.scope, "1", bed.stub.access(), &user("controller"), &json!({}))?;
    let mut controller = controller.inside(&bed.topology.client);
    controller.start(&bed.scope)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        agent.wait_ready(PATIENCE).await?;
        let words = Words::open(agent.pin_path())?;
        let served = || async {
            let served = words.served()?;
            anyhow::ensure!(served == CROWD.services, "{served} Services are served");
            Ok(())
        };
        wait::until("all Services", PATIENCE, served).await
    })?;
    thread::sleep(SETTLING);
    bed.stub.forget_requests();
    thread::sleep(time);
    let mut writes: BTreeMap<(String, String), u64> = BTreeMap::new();
    for request in bed.stub.requests().into_iter().filter(|request| request.verb.writes()) {
        *writes.entry((request.user, request.resource)).or_default() += 1;
    }
    for (name, whose) in users {
        let own: BTreeMap<String, u64> = writes
            .iter()
            .filter(|((user, _), _)| user == name)
            .map(|((_, what), count)| (what.clone(), *count))
            .collect();
        let count = own.values().sum::<u64>() as f64 * PER / time.as_secs_f64();
        let case = Case::new(
            &format!("writes of {whose} in 10 s, {} Services", CROWD.services),
            "writes at rest",
            "1",
            vec![count],
        );
        let kinds: Vec<_> = own.iter().map(|(what, count)| format!("{count} of {what}")).collect();
        results.cases.push(case.note(format!("in {} s: {}", time.as_secs(), kinds.join(", "))).counters(own));
    }
    Ok(())
}
