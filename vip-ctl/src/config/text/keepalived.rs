//! keepalived's words, which people write by habit: the key that means the same
//! here, or that none is needed. `vip-ctl convert` is for whole files; this is
//! for a single word.

/// One of keepalived's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Word {
    /// Our key with the same meaning, if there is one: the file then does not
    /// lack it.
    pub(in crate::config) means: Option<&'static str>,
    /// What to write instead.
    pub(in crate::config) mend: &'static str,
}

/// What to do with those of its words about gratuitous ARP that have no counterpart.
const GARP_NOT: &str = "leave it out, since the agent announces a VIP by itself when it has to";
/// The words; one that ends with `*` stands for all words that begin so.
const WORDS: &[(&str, Option<&str>, &str)] = &[
    (
        "nopreempt",
        Some("preempt"),
        "write preempt = false, or leave it out, since no node preempts unless it is told to",
    ),
    ("state", None, "leave it out, and let priority say which node is preferred"),
    (
        "virtual_ipaddress*",
        Some("vips"),
        "write vips = [\"10.0.1.12\"], with interface = \"eth0\" for its device",
    ),
    ("virtual_router_id", None, "leave it out, since a group is known by its name"),
    ("advert_int", Some("lease"), "leave it out; lease under [cluster] says how fast a failover is"),
    ("track_script", Some("check"), "write a [[group.check]] with exec = [\"/path/to/program\"]"),
    ("vrrp_script", Some("check"), "write a [[group.check]] with exec = [\"/path/to/program\"]"),
    ("track_process", Some("check"), "write a [[group.check]] with process = \"name\""),
    ("vrrp_track_process", Some("check"), "write a [[group.check]] with process = \"name\""),
    ("track_file", Some("check"), "write a [[group.check]] with file = \"/path\""),
    ("vrrp_track_file", Some("check"), "write a [[group.check]] with file = \"/path\""),
    ("unicast_*", Some("node"), "write a [[cluster.node]] with name and address for each node"),
    ("mcast_*", Some("node"), "write a [[cluster.node]] with name and address for each node"),
    ("garp_master_refresh_repeat", None, GARP_NOT),
    ("garp_lower_prio*", None, GARP_NOT),
    ("garp_extra_if", None, GARP_NOT),
    ("vrrp_garp_lower_prio*", None, GARP_NOT),
    ("vrrp_garp_*", None, "write it under [node], without vrrp_"),
    ("auth*", Some("key_file"), "leave it out; key_file under [cluster] names the key that nodes trust"),
    ("notify_master", None, "write post_promote = [\"/path/to/program\"] under [group.hooks]"),
    ("notify_backup", None, "write post_demote = [\"/path/to/program\"] under [group.hooks]"),
    ("notify_stop", None, "write post_demote = [\"/path/to/program\"] under [group.hooks]"),
    ("notify_fault", None, "write on_fault = [\"/path/to/program\"] under [group.hooks]"),
    (
        "notify",
        None,
        "write post_promote, post_demote and on_fault under [group.hooks], each as [\"/path/to/program\"]",
    ),
    ("smtp_alert", None, "write webhook = \"https://alerts.example/vip\" under [hooks]"),
    ("notification_email*", None, "write webhook = \"https://alerts.example/vip\" under [hooks]"),
    ("vrrp_instance", Some("group"), "write a [[group]] with name and vips"),
    ("vrrp_sync_group", Some("group"), "write one [[group]] with all the vips that move together"),
    ("global_defs", None, "leave it out; name under [node] is this node's name"),
    ("router_id", None, "leave it out; name under [node] is this node's name"),
    ("dont_track_primary", None, "leave it out, since interfaces under [node] always have to be up"),
    (
        "use_vmac",
        Some("virtual_mac"),
        "write virtual_mac = \"00:00:5e:00:01:33\", whose last byte is the virtual_router_id, or virtual_mac = \"auto\"",
    ),
];

/// The advice on `typed`, if keepalived has that word.
pub(in crate::config) fn word(typed: &str) -> Option<Word> {
    let is_it = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => typed.starts_with(beginning),
        None => typed == pattern,
    };
    let (_, means, mend) = WORDS.iter().find(|(pattern, ..)| is_it(pattern))?;
    Some(Word { means: *means, mend })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::text::section::KEYS;

    #[test]
    fn no_word_is_a_key_of_ours_and_what_it_means_is() {
        let keys = || KEYS.iter().flat_map(|(_, keys)| keys.iter().copied());
        for key in keys() {
            assert_eq!(word(key), None, "{key} is ours");
        }
        for (pattern, means, _) in WORDS {
            let known = means.is_none_or(|means| means == "group" || keys().any(|key| key == means));
            assert!(known, "{pattern} means {means:?}, which is no key");
        }
    }

    #[test]
    fn words_are_found_whole_or_by_their_beginning() {
        assert!(word("nopreempt").is_some_and(|word| word.mend.contains("preempt = false")));
        assert!(word("virtual_ipaddress_excluded").is_some_and(|word| word.means == Some("vips")));
        assert!(word("garp_lower_prio_repeat").is_some());
        assert!(word("notify_master").is_some_and(|word| word.mend.contains("post_promote =")));
        assert_eq!(word("nopreempts"), None);
        assert_eq!(word("status"), None);
    }
}
