//! `VipPool` objects as pools.

use super::PoolObject;
use crate::{kubernetes::crds::VipPool, model::Pool};

impl PoolObject for VipPool {
    /// The pool that is in force, which after a bad edit is an earlier one.
    fn pool(&self) -> Result<Pool, String> {
        self.in_force().map_err(|error| error.to_string())
    }
}
