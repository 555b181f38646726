//! `[[group]]`: names, VIPs and priorities.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use toml::Spanned;
use vip_common::layout::GROUP_NAME_LEN;

use super::{
    checked_name, delay_of,
    health::{self, Health},
    hooks,
    mac::virtual_mac_of,
};
use crate::config::{
    PREEMPT_DELAY_DEFAULT, PRIORITY_MAX,
    text::{
        report::Report,
        section::{Section, at, wrong_type},
    },
};

pub(in crate::config) struct GroupDraft {
    pub(in crate::config) name: Option<Spanned<String>>,
    pub(in crate::config) vips: Vec<Spanned<IpAddr>>,
    /// What is said of where they belong.
    pub(in crate::config) homes: Vec<(IpAddr, HomeDraft)>,
    /// Are they gateways?
    pub(in crate::config) is_gateway: bool,
    /// Its virtual MAC, if it has one; `None` inside for one that is made of names.
    pub(in crate::config) virtual_mac: Option<Spanned<Option<[u8; 6]>>>,
    /// By node: where the file names it, and its priority.
    pub(in crate::config) priorities: Vec<(Spanned<String>, u8)>,
    pub(in crate::config) preempt: Option<Duration>,
    pub(in crate::config) health: Health,
    pub(in crate::config) hooks: hooks::Draft,
    pub(in crate::config) span: Range<usize>,
}

/// Where a VIP belongs.
pub(in crate::config) struct HomeDraft {
    /// The name or label of an interface.
    pub(in crate::config) interface: Option<Spanned<String>>,
    pub(in crate::config) prefix: Option<u8>,
    /// Where the VIP stands.
    pub(in crate::config) span: Range<usize>,
}

/// A VIP as it is written, and the interface if it names one.
type Written<'a> = (Spanned<&'a str>, Option<Spanned<&'a str>>);

pub(super) fn group_draft(section: &Section<'_>, report: &mut Report<'_>) -> GroupDraft {
    let name = section.required("name", "\"db\"", report).and_then(|name| group_name_of(&name, report));
    let example = "[\"10.0.1.12\"]";
    section.require("vips", example, report);
    let written = written_vips(section, example, report);
    let interface = section.string("interface", "\"eth0\"", report);
    if let Some(vips) = section.get("vips")
        && vips.get_ref().as_array().is_some_and(|array| array.is_empty())
    {
        report.add(vips.span(), format!("the group has no VIP: write vips = {example}, or remove the group"));
    }
    let (mut vips, mut homes) = (Vec::new(), Vec::new());
    for (written, own) in written {
        let Some((vip, prefix)) = vip_of(&written, report) else { continue };
        let interface = own.as_ref().or(interface.as_ref());
        let interface = interface.map(|name| at(name.span(), (*name.get_ref()).to_owned()));
        if interface.is_some() || prefix.is_some() {
            homes.push((*vip.get_ref(), HomeDraft { interface, prefix, span: vip.span() }));
        }
        vips.push(vip);
    }
    let is_gateway = section.boolean("gateway", report).is_some_and(Spanned::into_inner);
    let virtual_mac = section.string("virtual_mac", "\"auto\"", report);
    let virtual_mac = virtual_mac.and_then(|written| virtual_mac_of(&written, report));
    let preempts = section.boolean("preempt", report).is_some_and(Spanned::into_inner);
    let delay = delay_of(section, "preempt_delay", report);
    // A wrong or misspelt preempt was reported already.
    let is_told = section.get("preempt").is_some_and(|written| written.get_ref().as_bool().is_none())
        || section.lacks_by_typo("preempt");
    if let Some(written) = section.get("preempt_delay").filter(|_| !preempts && !is_told) {
        let text = report.text(written.span());
        let message = format!(
            "preempt_delay = {text} does nothing without preempt = true: add that, or remove preempt_delay"
        );
        report.add(written.span(), message);
    }
    let preempt = preempts.then(|| delay.unwrap_or(PREEMPT_DELAY_DEFAULT));
    let (priorities, health) = (priorities(section, report), health::of_group(section, &vips, report));
    let hooks = hooks::read(section, "[group.hooks]", report);
    let span = section.span.clone();
    GroupDraft { name, vips, homes, is_gateway, virtual_mac, priorities, preempt, health, hooks, span }
}

/// The VIPs, each as a string or as a table with its interface.
fn written_vips<'a>(section: &Section<'a>, example: &str, report: &mut Report<'_>) -> Vec<Written<'a>> {
    let Some(value) = section.get("vips") else { return Vec::new() };
    let Some(array) = value.get_ref().as_array() else {
        // Reports the type.
        section.strings("vips", example, report);
        return Vec::new();
    };
    let mut written = Vec::new();
    for element in array {
        match (element.get_ref().as_str(), element.get_ref().as_table()) {
            (Some(text), _) => written.push((at(element.span(), text), None)),
            (None, Some(table)) => {
                let vip = Section::new("[[group.vips]]", table, element.span(), report);
                let address = vip.required("address", "\"10.0.1.12\"", report);
                let interface = vip.string("interface", "\"eth0\"", report);
                written.extend(address.map(|address| (address, interface)));
            }
            (None, None) => {
                wrong_type("vips", "an array of strings", &format!("vips = {example}"), element, report);
            }
        }
    }
    written
}

/// A VIP, with the length of its prefix if that is written.
fn vip_of(vip: &Spanned<&str>, report: &mut Report<'_>) -> Option<(Spanned<IpAddr>, Option<u8>)> {
    let (text, prefix) = match vip.get_ref().split_once('/') {
        Some((address, length)) if address.parse::<Ipv4Addr>().is_ok() => (address, Some(length)),
        Some(_) | None => (*vip.get_ref(), None),
    };
    let address = at(vip.span(), text);
    let address = address_of(&address, report)?;
    let Some(length) = prefix else { return Some((address, None)) };
    match prefix_of(*address.get_ref(), length) {
        Ok(prefix) => Some((address, prefix)),
        Err(problem) => {
            report.add(vip.span(), format!("the VIP {}: {problem}", vip.get_ref()));
            None
        }
    }
}

/// The length of a VIP's prefix; `None` if that is the address alone.
///
/// # Errors
/// What is wrong with it.
pub fn prefix_of(vip: IpAddr, length: &str) -> Result<Option<u8>, String> {
    let (IpAddr::V4(v4), Ok(prefix @ 1..=32)) = (vip, length.parse::<u8>()) else {
        return Err(format!("\"{length}\" is no length of a prefix: write one from 1 to 32"));
    };
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    match v4.to_bits() & hosts {
        0 if prefix < 31 => Err("it is the address of that network itself: write one of its hosts'".into()),
        all if all == hosts && prefix < 31 => {
            Err("it is the broadcast address of that network: write one of its hosts'".into())
        }
        _ => Ok((prefix < 32).then_some(prefix)),
    }
}

fn address_of(vip: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<IpAddr>> {
    let text = vip.get_ref();
    let problem = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => {
            format!("the VIP {text} is IPv6, which isn't there yet: remove it, or write an IPv4 address")
        }
        Ok(IpAddr::V4(v4)) => {
            let kind = if v4.is_unspecified() {
                "the unspecified address"
            } else if v4.is_loopback() {
                "a loopback address"
            } else if v4.is_multicast() {
                "a multicast address"
            } else if v4.is_broadcast() {
                "the broadcast address"
            } else if v4.octets()[0] == 0 {
                "an address of the unused network 0.0.0.0/8"
            } else {
                return Some(at(vip.span(), IpAddr::V4(v4)));
            };
            format!("the VIP {text} is {kind}, which no server can take over: write another")
        }
        Err(_) => no_vip(text),
    };
    report.add(vip.span(), problem);
    None
}

/// What is wrong with a VIP that is no address, and the address that it may
/// contain.
fn no_vip(text: &str) -> String {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    if is_address(text.trim()) {
        return format!("\"{text}\" has a blank beside the address: write \"{}\"", text.trim());
    }
    if let Some((address, device)) = text
        .split_once(" dev ")
        .filter(|(address, _)| is_address(address.split('/').next().unwrap_or_default().trim()))
    {
        let (address, device) = (address.trim(), device.trim());
        return format!(
            "\"{text}\" names its interface as keepalived does: write {{ address = \"{address}\", interface = \"{device}\" }}"
        );
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return format!("the VIP {text} has a port, and a VIP has none: write \"{}\"", socket.ip());
    }
    let first = text.split_once('-').and_then(|(first, _)| first.trim().parse::<Ipv4Addr>().ok());
    if let Some(first) = first {
        let second = Ipv4Addr::from_bits(first.to_bits().wrapping_add(1));
        return format!(
            "\"{text}\" is a range: write each address by itself, \"{first}\", \"{second}\" and so on"
        );
    }
    let several: Vec<_> = text.split([',', ' ']).filter(|part| !part.is_empty()).collect();
    if several.len() > 1 && several.iter().all(|part| is_address(part)) {
        return format!("\"{text}\" is more than one address: write \"{}\"", several.join("\", \""));
    }
    format!("\"{text}\" is no IPv4 address: write one, such as \"10.0.1.12\"")
}

fn priorities(section: &Section<'_>, report: &mut Report<'_>) -> Vec<(Spanned<String>, u8)> {
    let example = "priority = { db-a = 150, db-b = 100 }";
    let Some((table, _)) = section.table("priority", example, report) else { return Vec::new() };
    let mut priorities = Vec::new();
    for (node, value) in table {
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type("a priority", "an integer", example, value, report);
            continue;
        };
        let priority = u8::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|priority| (1..=PRIORITY_MAX).contains(priority));
        match priority {
            Some(priority) => priorities.push((at(node.span(), node.get_ref().to_string()), priority)),
            None => {
                let message =
                    format!("the priority {integer} is out of range: write one from 1 to {PRIORITY_MAX}");
                report.add(value.span(), message);
            }
        }
    }
    priorities
}

pub(super) fn group_name_of(name: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    checked_name("group", name, GROUP_NAME_LEN, "small letters, digits", valid, report)
}
