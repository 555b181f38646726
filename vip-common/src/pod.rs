//! The promise to aya that these types are plain bytes. Nothing else is here.

use crate::{
    counter::Counters,
    event::Event,
    heartbeat::{Admission, Endpoint},
    layout::{
        Gateways, GroupConfig, GroupIndex, Heard, Holder, Hops, IfaceConfig, NodeConfig, SkbOffsets,
        VipEntry, VipSlot, VirtualMac, VirtualMacKey,
    },
    lease::Lease,
};

macro_rules! pod {
    ($($t:ty),+ $(,)?) => { $(
        // SAFETY: `repr(C)` or `repr(transparent)` over integers and byte
        // arrays, `Copy`, without implicit padding and with every bit pattern valid.
        unsafe impl aya::Pod for $t {}
    )+ };
}

pod!(
    Admission,
    Counters,
    Endpoint,
    Event,
    Gateways,
    GroupConfig,
    GroupIndex,
    Heard,
    Holder,
    Hops,
    IfaceConfig,
    Lease,
    NodeConfig,
    SkbOffsets,
    VipEntry,
    VipSlot,
    VirtualMac,
    VirtualMacKey,
);
