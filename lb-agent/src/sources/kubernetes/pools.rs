//! `VipPool` objects as pools.

use super::PoolObject;
use crate::{kubernetes::crds::VipPool, model::ClusterPool};

impl PoolObject for VipPool {
    /// A spec that makes no sense is nothing to act on before the controller has said what is in force instead.
    fn pool(&self) -> Result<ClusterPool, String> {
        let (last_good, is_judged) = (self.last_good(), self.is_judged());
        let spec = match self.spec.pool() {
            Ok(spec) => Some(spec),
            Err(_) if is_judged || last_good.is_some() => None,
            Err(error) => return Err(error.to_string()),
        };
        let (uid, created) = (self.metadata.uid.clone().unwrap_or_default(), self.created());
        Ok(ClusterPool {
            uid,
            created,
            deleting: self.metadata.deletion_timestamp.is_some(),
            spec,
            last_good,
            is_judged,
        })
    }
}
