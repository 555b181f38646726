//! Tells the program on the way in who may send to the agent's port: it drops
//! strangers and floods before the host's network stack sees them.
//!
//! It keeps nobody's lease and opens no fence; without it the agent's socket
//! drops the same datagrams, later.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use aya::maps::{Array, HashMap, Map, MapData};
use vip_common::{
    heartbeat::{Admission, Admits, Endpoint},
    names,
};

use super::{DataPlaneError, pinned, typed};

/// The maps that the program on the way in reads for this, open for writing.
pub struct HeartbeatGuard {
    agent: Array<MapData, Endpoint>,
    peers: HashMap<MapData, Endpoint, Admission>,
}

impl HeartbeatGuard {
    /// Opens the maps that are pinned below `dir`.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if they are not there.
    pub fn open(dir: &Path) -> Result<Self, DataPlaneError> {
        Ok(Self {
            agent: typed(names::HEARTBEAT, Map::Array(pinned(dir, names::HEARTBEAT)?))?,
            peers: typed(names::PEERS, Map::HashMap(pinned(dir, names::PEERS)?))?,
        })
    }

    /// Lets in to `agent` what these peers send, as far as each is admitted.
    /// Writes the peers first, and only then keeps others out.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if a map can't be written: then it keeps nobody
    /// out.
    pub fn admit(
        &mut self,
        agent: SocketAddr,
        peers: impl IntoIterator<Item = (SocketAddr, Admits)>,
    ) -> Result<(), DataPlaneError> {
        let wanted: BTreeMap<_, _> =
            peers.into_iter().map(|(address, admits)| (endpoint(address), admits)).collect();
        let admitted = self.replace(&wanted).and_then(|()| self.set_agent(endpoint(agent)));
        if admitted.is_err() {
            // The first error is the one to report.
            let _ = self.lift();
        }
        admitted
    }

    /// Keeps nobody out.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be written.
    pub fn lift(&mut self) -> Result<(), DataPlaneError> {
        self.set_agent(Endpoint::NONE)
    }

    fn set_agent(&mut self, agent: Endpoint) -> Result<(), DataPlaneError> {
        self.agent.set(0, agent, 0).map_err(|e| DataPlaneError::map("write the agent's address", e))
    }

    fn replace(&mut self, wanted: &BTreeMap<Endpoint, Admits>) -> Result<(), DataPlaneError> {
        for (peer, admits) in wanted {
            let written = self.peers.insert(peer, Admission::from(*admits), 0);
            written.map_err(|e| DataPlaneError::map("write what a peer is admitted", e))?;
        }
        let there: Result<Vec<_>, _> = self.peers.keys().collect();
        let there = there.map_err(|e| DataPlaneError::map("read the peers", e))?;
        for gone in there.iter().filter(|peer| !wanted.contains_key(peer)) {
            self.peers.remove(gone).map_err(|e| DataPlaneError::map("forget a peer", e))?;
        }
        Ok(())
    }
}

/// An address in the one form that the maps use, without a scope or flow label.
#[must_use]
pub fn endpoint(address: SocketAddr) -> Endpoint {
    let port = address.port().to_be_bytes();
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Endpoint::v4(ip.octets(), port),
        IpAddr::V6(ip) => Endpoint::v6(ip.octets(), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_endpoint_however_it_is_written() {
        let of = |text: &str| endpoint(text.parse().expect("an address"));
        assert_eq!(of("10.0.1.10:7077"), Endpoint::v4([10, 0, 1, 10], [27, 165]));
        assert_eq!(of("[::ffff:10.0.1.10]:7077"), of("10.0.1.10:7077"));
        assert_ne!(of("[fd00::1]:7077"), of("[fd00::1]:7078"));
    }
}
