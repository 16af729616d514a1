//! What packets meet of an agent's work: the words that it published in the pinned maps.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result};
use lb_agent::{
    dataplane::{PinDirectory, Tables},
    model::Protocol,
};
use lb_common::{
    addr::Be16,
    maps::{published::RingWord, services::VipKey},
};

/// The words of an agent's services.
pub struct Words(Tables);

impl Words {
    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    /// If they are not there.
    pub fn open(pins: &Path) -> Result<Self> {
        let pins = PinDirectory::new(pins);
        Ok(Self(Tables::open(|name| pins.map(name))?))
    }

    /// How many services have a ring.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn served(&self) -> Result<u32> {
        let mut served = 0;
        for entry in self.0.services.iter() {
            let (_, entry) = entry.context("reading SERVICES")?;
            served += u32::from(!RingWord::from_bits(self.of_index(entry.index)?).is_empty());
        }
        Ok(served)
    }

    /// Index of the service of a TCP port.
    ///
    /// # Errors
    /// If there is none.
    pub fn index(&self, vip: IpAddr, port: u16) -> Result<u32> {
        let key = VipKey::new(vip.into(), Be16::new(port), Protocol::Tcp.number());
        Ok(self.0.services.get(&key, 0).with_context(|| format!("looking for {vip}:{port}"))?.index)
    }

    /// The word of the service at an index: another one whenever its ring is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_index(&self, index: u32) -> Result<u64> {
        self.0.published.get(&index, 0).context("reading PUBLISHED")
    }
}
