//! Peers with a configured hardware address: the keeper pins them on this host,
//! on witnesses and observers too, and pins them again when somebody removes an
//! entry.

use std::net::IpAddr;

use tracing::{error, warn};

use crate::{
    config::Config,
    host::{Host, HostError, Pin},
    paths::Paths,
};

/// The peers to pin on this host.
pub struct Pins {
    /// `None` where there is nothing to pin.
    host: Option<Host>,
    wanted: Vec<Pin>,
}

impl Pins {
    /// Pins the peers of this configuration. Logs what it can't pin, and the
    /// agent runs without: the kernel then learns those peers' addresses as
    /// usual.
    pub fn set_up(config: &Config, paths: &Paths) -> Self {
        let wanted = wanted(config);
        // Even if there are no pins: those of the former configuration go.
        let host = Host::open(&paths.run_dir)
            .and_then(|host| host.unpin_neighbours(&wanted).map(|()| host))
            .inspect_err(|e| error!("peers' neighbour entries can't be pinned: {e}"))
            .ok()
            .filter(|_| !wanted.is_empty());
        let pins = Self { host, wanted };
        pins.repair(false);
        pins
    }

    /// Pins again what somebody removed, and logs it if the pin was there before.
    pub fn look(&self) {
        self.repair(true);
    }

    fn repair(&self, is_again: bool) {
        let Some(host) = &self.host else { return };
        match host.pin_neighbours(&self.wanted) {
            Ok(done) if is_again && !done.is_empty() => {
                warn!("somebody changed peers' neighbour entries: {}", done.join("; "));
            }
            Ok(done) => done.iter().for_each(|done| tracing::info!("{done}")),
            Err(e) => error!("peers' neighbour entries can't be pinned: {e}"),
        }
    }

    /// The addresses whose neighbour entries netlink watches.
    pub fn watched(config: &Config) -> Vec<IpAddr> {
        wanted(config).into_iter().map(|pin| pin.address).collect()
    }

    /// Puts back the entries from before the agent.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn release(paths: &Paths) -> Result<(), HostError> {
        Host::open(&paths.run_dir)?.unpin_neighbours(&[])
    }
}

fn wanted(config: &Config) -> Vec<Pin> {
    let others = config.cluster.nodes.iter().filter(|node| node.id != config.me);
    others
        .filter_map(|node| Some(Pin { address: node.address.ip().to_canonical(), mac: node.mac? }))
        .collect()
}
