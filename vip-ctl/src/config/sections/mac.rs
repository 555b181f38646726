//! Hardware addresses as they are written: a node's, `mac = "02:00:5e:10:00:01"`, and a group's,
//! `virtual_mac = "00:00:5e:00:01:33"`.

use toml::Spanned;

use crate::config::text::{report::Report, section::at};

/// A hardware address that one host can have; reports mistakes.
pub(super) fn mac_of(written: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<[u8; 6]>> {
    let text = written.get_ref();
    let problem = match parse(text) {
        None => {
            format!(
                "\"{text}\" is no hardware address: write it as `ip link` shows it on that node, such as mac = \"02:00:5e:10:00:01\""
            )
        }
        Some(mac) if mac == [0; 6] => {
            format!("the hardware address {text} is nobody's: write it as `ip link` shows it on that node")
        }
        Some([first, ..]) if first & 1 == 1 => {
            format!(
                "the hardware address {text} is that of a group of hosts: write the one of that node's interface, as `ip link` shows it"
            )
        }
        Some(mac) => return Some(at(written.span(), mac)),
    };
    report.add(written.span(), problem);
    None
}

/// A group's virtual MAC, or `None` for one that is made of the names of cluster and group;
/// reports mistakes.
pub(super) fn virtual_mac_of(
    written: &Spanned<&str>,
    report: &mut Report<'_>,
) -> Option<Spanned<Option<[u8; 6]>>> {
    let text = written.get_ref();
    if *text == "auto" {
        return Some(at(written.span(), None));
    }
    let problem = match parse(text) {
        None => {
            format!("\"{text}\" is no hardware address: write \"auto\", or one such as \"00:00:5e:00:01:33\"")
        }
        Some([first, ..]) if first & 1 == 1 => {
            format!("the virtual_mac {text} is that of a group of hosts: write \"auto\"")
        }
        Some(mac) if is_virtual(mac) => return Some(at(written.span(), Some(mac))),
        Some(_) => {
            format!(
                "the virtual_mac {text} may be that of a card: write \"auto\", one of VRRP's range (00:00:5e:00:01:01 to :ff), or a locally administered one, such as 02:00:00:00:00:01"
            )
        }
    };
    report.add(written.span(), problem);
    None
}

/// Is this unicast MAC one of RFC 5798's for IPv4, or a locally administered one (IEEE 802)?
fn is_virtual(mac: [u8; 6]) -> bool {
    let [first, .., last] = mac;
    first & 2 != 0 || (mac[..5] == [0, 0, 0x5e, 0, 1] && last != 0)
}

/// Six pairs of hexadecimal digits, with colons or hyphens between them.
fn parse(text: &str) -> Option<[u8; 6]> {
    let separator = text.chars().find(|c| !c.is_ascii_hexdigit()).filter(|c| ":-".contains(*c))?;
    let byte = |pair: &str| {
        let is_pair = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_pair.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(separator).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_ways_to_write_one_are_read_and_no_other() {
        assert_eq!(parse("02:00:5E:10:00:ff"), Some([2, 0, 0x5e, 0x10, 0, 0xff]));
        assert_eq!(parse("02-00-5e-10-00-01"), Some([2, 0, 0x5e, 0x10, 0, 1]));
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "2:0:5e:10:0:1",
            "0200.5e10.0001",
            "02:00:5e:10:00:+1",
            "02:00-5e:10:00:01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
