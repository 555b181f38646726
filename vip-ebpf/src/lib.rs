//! The data plane of vip.
