//! Command line and agent of vip.
