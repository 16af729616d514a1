//! Compares the gateway's routes with what is wanted, and writes what differs.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;

use super::{
    client::Client,
    error::NsxtError,
    gateway::{Advertising, Gateway, Realization},
    plan::{Plan, Reason, Rules, Step, VipPlan, Wanted, plan},
    route::Found,
    status::{RouteStatus, Status},
};
use crate::config::{NsxtAuth, NsxtConfig};

/// How often a route is read again after others changed it while it was written.
const TRIES: usize = 5;
/// How often a realization is asked for before it waits for the next comparison.
const POLLS: u32 = 10;

/// Keeps the routes of one gateway.
pub(super) struct Keeper {
    config: NsxtConfig,
    rules: Rules,
    client: Option<Client>,
    gateway: Option<Gateway>,
    /// Polls of realizations that are left.
    polls: u32,
    pub(super) status: Status,
}

impl Keeper {
    pub(super) fn new(config: NsxtConfig) -> Self {
        let rules = Rules {
            cluster: config.cluster.clone(),
            max_next_hops: config.max_next_hops.into(),
            distance: config.admin_distance,
            adopt: config.adopt,
        };
        Self { config, rules, client: None, gateway: None, polls: 0, status: Status::default() }
    }

    /// Begins anew: nothing from before is trusted but the memory of refused passwords, and the counts.
    pub(super) fn begin(&mut self) {
        self.gateway = None;
        if matches!(self.config.auth, NsxtAuth::Certificate { .. }) {
            self.client = None;
        }
    }

    /// Ends the sessions.
    pub(super) async fn close(&mut self) {
        if let Some(client) = &mut self.client {
            client.close().await;
        }
    }

    /// Compares and writes once.
    pub(super) async fn pass(&mut self, wanted: &Wanted) -> Result<(), NsxtError> {
        if wanted.vips.is_empty() {
            self.status.routes.clear();
            return Ok(());
        }
        self.status.attempts += 1;
        let result = self.routes(wanted).await;
        let result = match result {
            Ok(()) => self.advertising().await,
            error => error,
        };
        self.look_at_managers();
        self.status.error = result.as_ref().err().map(NsxtError::to_string);
        self.status.passes += u64::from(result.is_ok());
        result
    }

    /// Asks managers that failed whether they are well again.
    pub(super) async fn check_health(&mut self) {
        if let Some(client) = &mut self.client {
            client.check_health().await;
            self.look_at_managers();
        }
    }

    fn look_at_managers(&mut self) {
        if let Some(client) = &self.client {
            self.status.managers = client.managers();
            self.status.counts = client.counts();
        }
    }

    /// Whether a realization is to be asked for again soon.
    pub(super) fn is_waiting(&self) -> bool {
        self.polls > 0 && self.status.routes.values().any(is_unrealized)
    }

    /// Asks how far the routes are.
    pub(super) async fn poll(&mut self) {
        self.polls = self.polls.saturating_sub(1);
        let (Some(client), Some(gateway)) = (&mut self.client, &self.gateway) else { return };
        for (vip, route) in self.status.routes.iter_mut().filter(|(_, route)| is_unrealized(route)) {
            let Some(id) = &route.id else { continue };
            let realization = match gateway.realization(client, id).await {
                Ok(realization) => realization,
                Err(error) => {
                    tracing::debug!(name = id, %error, "realization is unknown");
                    continue;
                }
            };
            match &realization {
                Realization::Realized => tracing::info!(name = id, %vip, "static route is realized"),
                Realization::Failed(reason) if route.realization != realization => {
                    tracing::warn!(name = id, %vip, reason, "static route is not realized; see its alarms in NSX-T");
                }
                Realization::Failed(_) | Realization::Pending => {}
            }
            route.realization = realization;
        }
        self.look_at_managers();
    }

    async fn routes(&mut self, wanted: &Wanted) -> Result<(), NsxtError> {
        for _ in 0..TRIES {
            let there = self.read().await?;
            let (Some(client), Some(gateway)) = (&mut self.client, &self.gateway) else { continue };
            let plan = plan(wanted, &self.rules, gateway.dialect(), &there);
            let mut pass = Pass { client, gateway, status: &mut self.status, wrote: false };
            let is_settled = pass.perform(plan, &there).await?;
            if pass.wrote {
                self.polls = POLLS;
            }
            if is_settled {
                return Ok(());
            }
        }
        Err(NsxtError::Contended { gateway: self.config.tier1.clone(), tries: TRIES })
    }

    /// The routes that are there. A gateway that is gone is looked for again once.
    async fn read(&mut self) -> Result<Vec<Found>, NsxtError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.config)?,
        };
        let known = self.gateway.take();
        let result = Self::find_and_read(&mut client, &self.config, known).await;
        self.client = Some(client);
        let (gateway, there) = result?;
        self.status.gateway = Some(gateway.name().to_owned());
        self.status.api = Some(gateway.dialect());
        self.gateway = Some(gateway);
        Ok(there)
    }

    async fn find_and_read(
        client: &mut Client,
        config: &NsxtConfig,
        known: Option<Gateway>,
    ) -> Result<(Gateway, Vec<Found>), NsxtError> {
        if let Some(gateway) = known {
            match gateway.routes(client).await {
                Err(error) if error.is_absence() => {}
                result => return Ok((gateway, result?)),
            }
        }
        let gateway = Gateway::find(client, config.api, &config.tier1).await?;
        let there = gateway.routes(client).await?;
        Ok((gateway, there))
    }

    /// Checks that routes of the gateway are told to its neighbours, and says or mends what keeps them.
    async fn advertising(&mut self) -> Result<(), NsxtError> {
        let (Some(client), Some(gateway)) = (&mut self.client, &self.gateway) else { return Ok(()) };
        let name = gateway.name();
        let hint = match gateway.advertising(client).await {
            Ok(Advertising::On) => None,
            Ok(Advertising::Isolated) => {
                Some(format!("gateway {name} has no Tier-0 gateway, so nobody hears of its routes; link one"))
            }
            Ok(Advertising::Off { object }) if self.config.fix_advertisement => {
                match gateway.advertise(client, object).await {
                    Ok(()) => {
                        tracing::info!(gateway = name, "advertisement of static routes is switched on");
                        None
                    }
                    Err(error) if error.is_general() => return Err(error),
                    Err(error) => Some(format!("advertisement of static routes can't be switched on: {error}")),
                }
            }
            Ok(Advertising::Off { .. }) => Some(format!(
                "gateway {name} does not advertise static routes (TIER1_STATIC_ROUTES), so its Tier-0 gateway does not know the VIP; \
                 switch that on there, or set `fixAdvertisement: true`"
            )),
            Err(error) if error.is_general() => return Err(error),
            Err(error) => Some(format!("whether static routes are advertised can't be read: {error}")),
        };
        let hints = Vec::from_iter(hint);
        if self.status.hints != hints {
            for hint in &hints {
                tracing::warn!(gateway = name, "{hint}");
            }
            self.status.hints = hints;
        }
        Ok(())
    }
}

/// Whether a route is there that is not known to be in force.
fn is_unrealized(route: &RouteStatus) -> bool {
    route.id.is_some() && route.realization != Realization::Realized
}

/// Performs a plan.
struct Pass<'k> {
    client: &'k mut Client,
    gateway: &'k Gateway,
    status: &'k mut Status,
    /// Whether realizations are to be asked for.
    wrote: bool,
}

impl Pass<'_> {
    /// Performs it; whether nothing has to be read again. What goes wrong with one route does not stop the others.
    async fn perform(&mut self, plan: Plan, there: &[Found]) -> Result<bool, NsxtError> {
        let mut is_settled = true;
        let mut routes = BTreeMap::new();
        for (vip, vip_plan) in plan.vips {
            let before = self.status.routes.get(&vip).cloned();
            match self.vip(vip, vip_plan, before.as_ref(), there).await? {
                Some(route) => routes.extend([(vip, route)]),
                None => {
                    is_settled = false;
                    routes.extend(before.map(|before| (vip, before)));
                }
            }
        }
        self.status.routes = routes;
        for id in plan.stale {
            self.remove(&id).await?;
        }
        Ok(is_settled)
    }

    /// Performs the plan of one VIP; `None` if the routes have to be read again.
    async fn vip(
        &mut self,
        vip: IpAddr,
        plan: VipPlan,
        before: Option<&RouteStatus>,
        there: &[Found],
    ) -> Result<Option<RouteStatus>, NsxtError> {
        let VipPlan { hops, left_out, steps } = plan;
        if left_out > 0 && before.is_none_or(|before| before.left_out != left_out) {
            tracing::warn!(%vip, left_out, "more ready nodes than `maxNextHops`; the route has only as many");
        }
        let mut route = RouteStatus { id: None, hops, left_out, problem: None, realization: Realization::Pending };
        for step in steps {
            match self.step(step, &mut route, before, there).await {
                Ok(()) => {}
                Err(error) if error.is_stale() => return Ok(None),
                Err(error) if error.is_general() => return Err(error),
                Err(error) => route.problem = Some(error.to_string()),
            }
        }
        let old = before.and_then(|before| before.problem.as_ref());
        if let Some(problem) = route.problem.as_ref().filter(|problem| Some(*problem) != old) {
            tracing::warn!(%vip, "{problem}");
        }
        Ok(Some(route))
    }

    async fn step(
        &mut self,
        step: Step,
        route: &mut RouteStatus,
        before: Option<&RouteStatus>,
        there: &[Found],
    ) -> Result<(), NsxtError> {
        match step {
            Step::Keep { id } => {
                let known = before.filter(|before| before.id.as_ref() == Some(&id) && before.hops == route.hops);
                if let Some(known) = known {
                    route.realization = known.realization.clone();
                }
                self.wrote |= route.realization != Realization::Realized;
                route.id = Some(id);
            }
            Step::Create { id, body } => {
                self.write(&id, body, None, &route.hops).await?;
                route.id = Some(id);
            }
            Step::Replace { id, body } => {
                let found = there.iter().find(|found| found.id == id);
                route.id = Some(id.clone());
                self.write(&id, body, found, &route.hops).await?;
            }
            Step::Remove { id } => self.remove(&id).await?,
            Step::Refuse(reason) => {
                if let Reason::NoHops { kept } = &reason
                    && !kept.is_empty()
                {
                    route.id = before.and_then(|before| before.id.clone());
                    route.realization = before.map_or(Realization::Pending, |before| before.realization.clone());
                }
                route.problem = Some(reason.to_string());
            }
        }
        Ok(())
    }

    async fn write(&mut self, id: &str, body: Value, found: Option<&Found>, hops: &[IpAddr]) -> Result<(), NsxtError> {
        let shown = hops.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        match found {
            None => {
                self.gateway.create(self.client, id, body).await?;
                tracing::info!(name = id, hops = shown, "static route is created");
            }
            Some(found) => {
                let former = found.addresses().map(|hop| hop.to_string()).collect::<Vec<_>>().join(",");
                self.gateway.replace(self.client, id, body).await?;
                tracing::info!(name = id, hops = shown, former, "static route is changed");
            }
        }
        self.wrote = true;
        self.status.updates += 1;
        Ok(())
    }

    async fn remove(&mut self, id: &str) -> Result<(), NsxtError> {
        match self.gateway.remove(self.client, id).await {
            Err(error) if error.is_general() => return Err(error),
            Err(error) => tracing::warn!(name = id, %error, "static route can't be removed"),
            Ok(()) => {
                tracing::info!(name = id, "static route is removed");
                self.status.updates += 1;
            }
        }
        Ok(())
    }
}
