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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_without_sense_waits_for_the_controllers_word() {
        let read = |spec: &str, status: serde_json::Value| {
            let pool = json!({"apiVersion": "levee.dev/v1alpha1", "kind": "VipPool", "status": status,
                "metadata": {"name": "edge", "uid": "u", "generation": 2}, "spec": {"addresses": [spec]}});
            serde_json::from_value::<VipPool>(pool).unwrap().pool()
        };
        let good = read("192.0.2.1", json!({})).unwrap();
        assert_eq!((&good.uid[..], good.spec.is_some(), good.is_judged), ("u", true, false));
        assert!(read("web", json!({})).unwrap_err().contains("`web`"));
        let nothing = read("web", json!({"observedGeneration": 2})).unwrap();
        assert_eq!((nothing.spec, nothing.last_good, nothing.is_judged), (None, None, true));
        let earlier = json!({"observedGeneration": 2, "inForce": {"addresses": ["192.0.2.1"]}});
        assert_eq!(read("web", earlier).unwrap().last_good, good.spec);
    }
}
