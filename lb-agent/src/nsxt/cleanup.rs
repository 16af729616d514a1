//! Removes the routes of a cluster, for when it goes.

use std::time::Duration;

use tokio::time::sleep;

use super::{client::Client, error::NsxtError, gateway::Gateway};
use crate::config::NsxtConfig;

/// How often is looked whether a route is gone.
const LOOKS: u32 = 10;

/// What was removed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cleaned {
    /// Path or id of the gateway; `None` if there is none any more, and no route of it then.
    pub gateway: Option<String>,
    /// Ids of the routes that are gone, or that would be removed.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
}

/// Removes every route with the cluster's tag, and waits until they are gone. With `dry_run`, it only looks.
///
/// Stop the controllers before: they would put the routes back.
///
/// # Errors
/// The managers can't be asked. What goes wrong with single routes stands in the result.
pub async fn cleanup(config: &NsxtConfig, dry_run: bool, poll: Duration) -> Result<Cleaned, NsxtError> {
    let mut client = Client::new(config)?;
    let cleaned = remove(&mut client, config, dry_run, poll).await;
    client.close().await;
    cleaned
}

async fn remove(client: &mut Client, config: &NsxtConfig, dry_run: bool, poll: Duration) -> Result<Cleaned, NsxtError> {
    let gateway = match Gateway::find(client, config.api, &config.tier1).await {
        Err(NsxtError::NoGateway(_)) => return Ok(Cleaned::default()),
        gateway => gateway?,
    };
    let there = gateway.routes(client).await?;
    let ours = there.into_iter().filter(|found| found.is_of(&config.cluster)).map(|found| found.id);
    let mut cleaned = Cleaned { gateway: Some(gateway.name().to_owned()), ..Cleaned::default() };
    for id in ours {
        if dry_run {
            cleaned.removed.push(id);
            continue;
        }
        match remove_one(client, &gateway, &id, poll).await {
            Ok(true) => cleaned.removed.push(id),
            Ok(false) => cleaned.failures.push(format!("{id}: accepted, but still there; look at it in NSX-T")),
            Err(error) if error.is_general() => return Err(error),
            Err(error) => cleaned.failures.push(format!("{id}: {error}")),
        }
    }
    Ok(cleaned)
}

/// Removes a route; whether it is gone.
async fn remove_one(client: &mut Client, gateway: &Gateway, id: &str, poll: Duration) -> Result<bool, NsxtError> {
    gateway.remove(client, id).await?;
    for look in 0..LOOKS {
        if look > 0 {
            sleep(poll).await;
        }
        if !gateway.has(client, id).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
