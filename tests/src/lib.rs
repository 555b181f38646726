//! Integration tests, lab and simulator of vip.
