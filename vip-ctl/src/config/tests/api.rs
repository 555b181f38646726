//! `[api]`: what is accepted and what is refused.

use super::*;

/// [`FULL`] with a section `[api]` of these lines.
fn with(lines: &str) -> String {
    format!("{FULL}\n[api]\n{lines}")
}

fn errors(lines: &str) -> String {
    parse(&with(lines)).expect_err("must be refused").to_string()
}

#[test]
fn paths_are_taken_from_the_configurations_directory() {
    let text = with(
        "listen = \"10.0.1.10:7078\"\ntls_cert = \"tls.crt\"\ntls_key = \"/k/tls.key\"\ntokens = \"tokens\"\n",
    );
    let api = Config::parse(&text, Path::new("/etc/vip/vip.toml"), "db-b").unwrap().api.unwrap();
    assert_eq!(api.listen, "10.0.1.10:7078".parse().unwrap());
    assert_eq!(api.tokens, Path::new("/etc/vip/tokens"));
    let tls = api.tls.unwrap();
    assert_eq!(
        (tls.cert.as_path(), tls.key.as_path()),
        (Path::new("/etc/vip/tls.crt"), Path::new("/k/tls.key"))
    );
}

#[test]
fn plain_http_stays_on_this_host() {
    for listen in ["127.0.0.1:7078", "127.1.2.3:1", "[::1]:7078"] {
        let config = good(&with(&format!("listen = \"{listen}\"\ntokens = \"t\"\n")));
        assert_eq!(config.api.unwrap().tls, None);
    }
    let found = errors("listen = \"0.0.0.0:7078\"\ntokens = \"t\"\n");
    insta::assert_snapshot!(found, @r#"vip.toml:30:10: without TLS, tokens would cross the network in the clear on 0.0.0.0:7078: add tls_cert and tls_key, or listen on 127.0.0.1"#);
}

#[test]
fn no_section_is_no_listener() {
    assert_eq!(good(FULL).api, None);
}

#[test]
fn what_is_missing_is_named() {
    insta::assert_snapshot!(errors(""), @r#"
    vip.toml:29:1: [api] has no listen: add listen = "127.0.0.1:7078"
    vip.toml:29:1: [api] has no tokens: add tokens = "/etc/vip/tokens"
    "#);
    let half = "listen = \"10.0.1.10:7078\"\ntokens = \"t\"\ntls_cert = \"c\"\n";
    insta::assert_snapshot!(errors(half), @"vip.toml:32:12: a certificate and its key belong together: add tls_key");
    let typo = "listen = \"10.0.1.10:7078\"\ntokens = \"t\"\ntls_cert = \"c\"\ntls_kee = \"k\"\n";
    insta::assert_snapshot!(errors(typo), @r#"vip.toml:33:1: [api] has no key "tls_kee": did you mean "tls_key"?"#);
}

#[test]
fn addresses_that_are_none_are_refused() {
    insta::assert_snapshot!(errors("listen = \"7078\"\ntokens = \"t\"\n"), @r#"vip.toml:30:10: "7078" is no address: write an IP address and a port, such as "127.0.0.1:7078""#);
    insta::assert_snapshot!(errors("listen = \"127.0.0.1:0\"\ntokens = \"t\"\n"), @r#"vip.toml:30:10: listen = "127.0.0.1:0" has port 0: write the port to listen on"#);
    insta::assert_snapshot!(errors("listen = \"224.0.0.1:80\"\ntokens = \"t\"\n"), @r#"vip.toml:30:10: listen = "224.0.0.1:80" is a multicast address: write one of this host's"#);
    insta::assert_snapshot!(errors("listen = 7078\ntokens = \"t\"\n"), @r#"vip.toml:30:10: listen is a string, and 7078 is an integer: write listen = "127.0.0.1:7078""#);
}
