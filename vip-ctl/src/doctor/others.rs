//! Other programs that manage this host's network and may remove what is ours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Findings, Patient};
use crate::host::LOOPBACK;

/// What systemd-networkd records of each link that it knows.
const NETWORKD: &str = "/run/systemd/netif/links";
/// What NetworkManager records of each device.
const NETWORK_MANAGER: &str = "/run/NetworkManager/devices";
/// Where networkd's own settings are; a later file overrides an earlier one
/// (networkd.conf(5)).
const NETWORKD_CONF: &[&str] = &["/usr/lib/systemd", "/run/systemd", "/etc/systemd"];
/// The key that makes networkd remove rules that it did not make.
const FOREIGN_RULES: &str = "ManageForeignRoutingPolicyRules";

pub(super) fn examine(_patient: &Patient<'_>, found: &mut Findings) {
    if !Path::new(NETWORKD).exists() {
        found.ok("networkd", "systemd-networkd does not run here");
    } else if keeps_foreign_rules(&networkd_texts()) {
        found.ok("networkd", format!("{FOREIGN_RULES}=no: systemd-networkd leaves our routing rules alone"));
    } else {
        found.warning(
            "networkd",
            format!(
                "systemd-networkd removes our routing rules whenever it restarts, and the agent puts them back: write {FOREIGN_RULES}=no under [Network] in /etc/systemd/networkd.conf.d/vip.conf"
            ),
        );
    }
    let lo = fs::read_to_string(format!("{NETWORK_MANAGER}/{LOOPBACK}"));
    if !Path::new(NETWORK_MANAGER).exists() {
        found.ok("NetworkManager", "it does not run here");
    } else if lo.is_ok_and(|text| text.lines().any(|line| line.trim() == "managed=true")) {
        found.warning(
            "NetworkManager",
            "it manages lo and may take VIPs off it, which the agent puts back: write unmanaged-devices=interface-name:lo under [keyfile] in /etc/NetworkManager/conf.d/vip.conf",
        );
    } else {
        found.ok("NetworkManager", "it leaves lo alone");
    }
}

/// The texts of networkd's settings, in the order in which they apply.
fn networkd_texts() -> Vec<String> {
    let mut files: Vec<PathBuf> =
        NETWORKD_CONF.iter().map(|dir| Path::new(dir).join("networkd.conf")).collect();
    let mut drop_ins: Vec<PathBuf> = NETWORKD_CONF
        .iter()
        .filter_map(|dir| fs::read_dir(Path::new(dir).join("networkd.conf.d")).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    drop_ins.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    files.extend(drop_ins);
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// Do the settings tell networkd to leave others' rules alone? The last one
/// counts.
fn keeps_foreign_rules(texts: &[String]) -> bool {
    let mut values = texts.iter().flat_map(|text| text.lines()).rev().filter_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        (key.trim() == FOREIGN_RULES).then(|| value.trim().to_ascii_lowercase())
    });
    values.next().is_some_and(|value| ["no", "false", "off", "0"].contains(&value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_foreign_rules_counts() {
        let text = |text: &str| text.to_owned();
        assert!(!keeps_foreign_rules(&[]));
        assert!(!keeps_foreign_rules(&[text("[Network]\n#ManageForeignRoutingPolicyRules=no\n")]));
        assert!(keeps_foreign_rules(&[text("[Network]\nManageForeignRoutingPolicyRules = no\n")]));
        let last = [
            text("ManageForeignRoutingPolicyRules=no"),
            text("[Network]\nManageForeignRoutingPolicyRules=yes"),
        ];
        assert!(!keeps_foreign_rules(&last));
    }
}
