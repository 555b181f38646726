//! Tests of the whole program: real agents, interfaces and clients in network
//! namespaces. They are one program, which is linked once; each module is about one
//! matter, and `cargo xtask test` runs them one after the other.

mod announce;
mod bench;
mod bonds;
mod checks;
mod convert;
mod demo;
mod disk;
mod docker;
mod doctor;
mod failover;
mod fixtures;
mod gates;
mod gateway;
mod guests;
mod hooks;
mod host;
mod http;
mod http_tcp;
mod interrupted;
mod local_clients;
mod modes;
mod monitor;
mod nics;
mod noticed;
mod operate;
mod other_layout;
mod package;
mod panel;
mod partition;
mod real_hosts;
mod reload;
mod routed;
mod second_ways_in;
mod security;
mod silent;
mod stale;
mod steered;
mod suppressed;
mod the_lab;
mod translated;
mod tutorial;
mod two_networks;
mod verbs;
mod virtual_mac;
