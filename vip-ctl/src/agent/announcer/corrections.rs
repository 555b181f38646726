//! Tells single clients where a VIP is, who have missed its announcements and send to
//! another node. That one hears it from their own packets, so each is told within
//! milliseconds; how often, is limited.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vip_common::BootNs;

use crate::engine::StaleClient;

/// How long to wait before a client is told again.
const PAUSE: Duration = Duration::from_millis(20);
/// How many clients can be told within that time: 5,000 a second.
const CLIENTS_MAX: usize = 100;

/// Whom this node has told of late.
#[derive(Debug, Default)]
pub(super) struct Corrections {
    told: BTreeMap<(IpAddr, [u8; 6]), BootNs>,
}

impl Corrections {
    /// May this client be told now? Then it counts as told.
    pub(super) fn is_due(&mut self, client: StaleClient, now: BootNs) -> bool {
        self.told.retain(|_, told| now.since(*told) < PAUSE);
        let key = (client.vip, client.mac);
        if self.told.contains_key(&key) || self.told.len() >= CLIENTS_MAX {
            return false;
        }
        self.told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_once_in_a_while_and_only_so_many_are() {
        let mut corrections = Corrections::default();
        let client =
            |number: u8| StaleClient { vip: IpAddr::from([10, 0, 0, 1]), mac: [2, 0, 0, 0, 0, number] };
        let start = BootNs(1_000_000_000);
        assert!(corrections.is_due(client(0), start) && !corrections.is_due(client(0), start));
        let told = (1..=u8::MAX).filter(|number| corrections.is_due(client(*number), start)).count();
        assert_eq!(told, CLIENTS_MAX - 1);
        let later = start.plus(PAUSE);
        assert!(
            corrections.is_due(client(0), later) && corrections.told.len() == 1,
            "the others are forgotten"
        );
    }
}
