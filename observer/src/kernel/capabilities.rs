//! What the kernel side has counted of checks of capabilities.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use observer_common::{CapabilityChecks, CapabilityKey};

use super::{KernelError, load::chain};

const NAME: &str = "CAPABILITIES";

/// The kernel side's table.
pub struct CapabilityTable {
    checks: HashMap<MapData, CapabilityKey, CapabilityChecks>,
    /// Checks that meant no use are told apart.
    pub classified: bool,
}

impl CapabilityTable {
    pub(super) fn new(bpf: &mut Ebpf, classified: bool) -> Result<Self, KernelError> {
        let map = bpf
            .take_map(NAME)
            .ok_or(KernelError::Map { name: NAME, what: "not in the object file".into() })?;
        let checks =
            HashMap::try_from(map).map_err(|error| KernelError::Map { name: NAME, what: chain(&error) })?;
        Ok(CapabilityTable { checks, classified })
    }

    /// Everything in it. An entry that comes or goes during the walk is seen the next time.
    pub fn read(&self) -> Vec<(CapabilityKey, CapabilityChecks)> {
        self.checks.iter().filter_map(Result::ok).collect()
    }

    /// Takes out an entry that belongs to nobody any more.
    pub fn forget(&mut self, key: &CapabilityKey) {
        // Already gone is as good.
        let _ = self.checks.remove(key);
    }
}
