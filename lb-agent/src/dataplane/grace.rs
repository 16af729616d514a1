//! Waiting until every packet that was under way has left the program.

use aya::maps::{Array, ArrayOfMaps, MapData};
use rustix::thread::{MembarrierCommand, membarrier};

use super::error::DataplaneError;

/// Waits for RCU grace periods.
pub struct Grace {
    outer: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

impl Grace {
    /// From the map of maps that the object has for this purpose.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if its inner map cannot be created.
    pub fn new(outer: ArrayOfMaps<MapData, Array<MapData, u32>>) -> Result<Self, DataplaneError> {
        let inner =
            Array::create(1, 0).map_err(|error| DataplaneError::map("GRACE", "creating its inner map", &error))?;
        Ok(Self { outer, inner })
    }

    /// Returns once no packet is under way that entered the program before the call: 8 to 20 ms, as a rule.
    ///
    /// `membarrier` waits for a grace period (Linux 4.3) and refuses on nohz_full kernels, where an update of a map of
    /// maps does the same.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if the kernel refuses both.
    pub fn wait(&mut self) -> Result<(), DataplaneError> {
        if membarrier(MembarrierCommand::Global).is_ok() {
            return Ok(());
        }
        self.wait_by_update()
    }

    fn wait_by_update(&mut self) -> Result<(), DataplaneError> {
        self.outer.set(0, &self.inner, 0).map_err(|error| DataplaneError::map("GRACE", "updating", &error))
    }
}
