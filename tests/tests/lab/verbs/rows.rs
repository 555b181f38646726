//! What every verb prints and exits with: one row a call, in the order of the calls. `verbs.rs`
//! says how to read a row.

/// The arguments, the exit code, and the expected output.
pub type Row = (&'static str, i32, &'static str);

/// Where nothing is loaded and no agent runs.
pub const ALONE: &[Row] = &[
    ("status", 69, "no data plane is loaded at … run `vip-ctl load"),
    ("-o json status", 69, "run `vip-ctl load"),
    ("metrics", 69, "run `vip-ctl load"),
    ("-o json metrics", 69, "run `vip-ctl load"),
    ("promote db", 69, "run `vip-ctl load"),
    ("promote db --dry-run", 69, "run `vip-ctl load"),
    ("demote db", 69, "run `vip-ctl load"),
    ("-o json demote db", 69, "run `vip-ctl load"),
    ("switchover db", 69, "no agent runs on this node … by hand, demote there and promote here"),
    ("switchover db --dry-run", 69, "no agent runs on this node … a switchover needs one"),
    ("failover db", 69, "no agent runs on this node … a failover needs one"),
    ("standby", 69, "no agent runs on this node … standby needs one"),
    ("unstandby", 69, "no agent runs on this node … standby needs one"),
    ("pause", 69, "no agent runs on this node … a pause needs one"),
    ("pause --dry-run", 69, "no agent runs on this node … a pause needs one"),
    ("resume", 69, "no agent runs on this node … a pause needs one"),
    ("-o json resume", 69, "no agent runs on this node"),
    ("reload", 69, "no agent runs on this node … start it with `vip-ctl agent`"),
    ("-o json reload", 69, "no agent runs on this node"),
    ("events", 69, "no agent runs on this node … events needs one"),
    ("explain db", 69, "no agent runs on this node … explain needs one"),
    ("frame-log", 69, "run `vip-ctl load"),
    ("monitor", 64, "stdout is none: run it in one, or use `vip-ctl status`"),
    ("switchovr", 64, "'switchover'"),
    ("history", 0, "nothing has moved here yet"),
    ("-o json history", 0, r#"{"history":[]}"#),
    ("history nothing", 0, "nothing has moved here yet"),
    ("history --since yesterday", 64, "--since <TIME>"),
    ("load --iface nowhere0 --vip {vip}", 66, "there is no interface \"nowhere0\" here"),
    ("load --iface lo --vip {vip}", 66, "lo is no Ethernet interface"),
    ("load --iface eth0 --vip {vip}/33", 64, "\"33\" is no length of a prefix: write one from 1 to 32"),
    ("load --iface eth0 --vip 10.77.0.1", 107, "10.77.0.1 is an address of eth0 on this host"),
    ("-o json load --iface nowhere0 --vip {vip}", 66, "there is no interface \"nowhere0\" here"),
    ("unload --dry-run", 0, "dry run: nothing would change"),
    ("unload", 0, "nothing was loaded"),
    ("-o json unload", 0, r#"{"unloaded":false}"#),
    ("doctor", 0, "ok       kernel … ok       data plane     none is loaded … 0 errors, "),
    ("doctor --config /nonexistent/vip.toml", 1, "error    configuration … /nonexistent/vip.toml"),
    ("-o json doctor --config {config}", 1, r#"{"findings":[{"level":"error","subject":"key"},"…"]}"#),
    ("agent --config /nonexistent/vip.toml", 78, "/nonexistent/vip.toml"),
    ("-o json agent --config /nonexistent/vip.toml", 64, "agent prints no JSON"),
    ("agent --config {config}", 78, "there is no key file {cluster_key}: make one with `vip-ctl keygen"),
    ("check --config /nonexistent/vip.toml", 78, "/nonexistent/vip.toml"),
    ("check --config {broken}", 78, "{broken}:2:1: … nmae … ^^^^"),
    (
        "-o json check --config {broken}",
        78,
        r#"{"ok":false,"errors":[{"file":"{broken}","line":2,"column":1,"text":"nmae"},"…"],"warnings":[]}"#,
    ),
    ("check --config {config}", 78, "there is no key file {cluster_key}"),
    ("check --config {config} --no-host", 0, "{config} is right: node {me} of cluster lab"),
    ("keygen {cluster_key} --dry-run", 0, "a new key with the number 1 would be written to {cluster_key}"),
    (
        "-o json keygen {cluster_key} --id 7 --dry-run",
        0,
        r#"{"dry_run":true,"would":["a new key with the number 7 would be written to {cluster_key}"]}"#,
    ),
    ("keygen {cluster_key}", 0, "wrote {cluster_key}: copy it to every node of the cluster, mode 0600"),
    ("keygen {cluster_key}", 73, "{cluster_key} exists already, and a key is never overwritten"),
    ("keygen {cluster_key} --dry-run", 73, "{cluster_key} is there already"),
    ("-o json keygen {new_key} --id 2", 0, r#"{"file":"{new_key}","id":2}"#),
    ("-o json keygen {new_key}", 73, "{new_key} exists already"),
    ("keygen {new_key} --id 256", 64, "--id <NUMBER>"),
    ("check --config {config}", 0, "group db: {vip} … in all: groups 1, VIPs 1, checks 0"),
    (
        "-o json check --config {config}",
        0,
        r#"{"ok":true,"errors":[],"configuration":{"node":"{me}","groups":[{"name":"db","vips":["{vip}"]}]}}"#,
    ),
    ("member list --config /nonexistent/vip.toml", 66, "/nonexistent/vip.toml can't be read"),
    ("member list --config {broken}", 78, "{broken}:2:1"),
    (
        "member list --config {copy}",
        0,
        "generation 1 of the membership, no agent has run here yet … {me} … id 0 … not confirmed yet",
    ),
    ("member add --config {copy} db-d 10.77.0.9", 64, "<ADDRESS:PORT>"),
    (
        "member add --config {copy} db-d 10.77.0.9:7077",
        107,
        "no agent has run here yet … write the nodes into {copy} by hand if no agent has run anywhere",
    ),
    ("-o json member add --config {copy} db-d 10.77.0.9:7077 --dry-run", 107, "no agent has run here yet"),
    ("member remove --config {copy} {you}", 107, "else make the change on a node that has one"),
    ("-o json member remove --config {copy} {you}", 107, "no agent has run here yet"),
    (
        "-o json member list --config {copy}",
        0,
        r#"{"generation":1,"in_use":false,"nodes":[{"name":"{me}","id":0,"votes":true,"confirmed":false},"…"]}"#,
    ),
    ("convert /nonexistent/keepalived.conf", 66, "/nonexistent/keepalived.conf can't be read"),
    ("convert {keepalived} --node {me}", 0, "name = \"{me}\" … interface = \"eth0\" … \"{vip}/24\""),
    ("-o json convert {keepalived}", 0, r#"{"toml":"…{vip}…","notes":["…"],"out":null}"#),
    ("completions bash", 0, "_vip__ctl() { … switchover"),
    ("completions zsh", 0, "#compdef vip-ctl … switchover"),
    ("completions fish", 0, "complete -c vip-ctl … switchover"),
    ("completions tcsh", 64, "[possible values: bash, zsh, fish]"),
    ("man", 0, ".TH VIP-CTL 8 … switchover"),
    ("-o json man", 0, r#"{"page":"….TH VIP-CTL 8…"}"#),
    ("man {dir}", 0, "manual pages to {dir}"),
    ("-o json man {dir}", 0, r#"{"dir":"{dir}","pages":["vip-ctl.8","vip-ctl-member-add.8","…"]}"#),
    ("man {copy}/man8", 73, "could not write {copy}/man8: "),
];

/// On a node that is worked by hand, from before the data plane is loaded on.
pub const BY_HAND: &[Row] = &[
    (
        "load --iface eth0 --vip {vip} --group db --dry-run",
        0,
        "dry run: programs and maps would be loaded … {vip} would be guarded, in group db",
    ),
    ("load --iface eth0 --vip {vip} --group db", 0, "eth0: tc mode, egress gate on … {vip} in group db"),
    ("load --iface eth0 --vip {vip} --group db", 0, "eth0: tc mode as before, egress gate on"),
    ("load --iface eth0 --vip {vip} --group web --dry-run", 64, "the VIP {vip} is in group \"db\" already"),
    ("status", 0, "from its maps alone (no agent answers) … eth0: tc mode, carrier … db: standby"),
    ("promote --dry-run", 0, "dry run: group db would be active on this node, by hand"),
    ("demote --dry-run", 0, "dry run: nothing would change"),
    ("promote nothing", 105, "there is no group or VIP \"nothing\" here"),
    ("promote", 0, "group db is active on this node\n"),
    ("promote {vip}", 0, "group db is active on this node (it was already)"),
    ("-o json promote", 0, r#"{"group":"db","state":"active","changed":false}"#),
    ("-o json demote --dry-run", 0, r#"{"dry_run":true,"would":["group db would be standby on this node"]}"#),
    ("agent --config {config}", 107, "is promoted by hand on this node: run `vip-ctl demote db` first"),
    (
        "-o json status",
        0,
        r#"{"cluster":null,"mode":"manual","interfaces":[{"name":"eth0","mode":"tc","carrier":true}],
            "groups":[{"name":"db","mode":"manual","state":"active","vips":[{"address":"{vip}"}]}]}"#,
    ),
    ("metrics", 0, "# TYPE vip_up gauge … vip_up{node=\" … \"} 1\n"),
    (
        "-o json metrics",
        0,
        r#"{"metrics":[
            {"name":"vip_up","value":"1"},
            {"name":"vip_state","labels":{"group":"db","vip":"{vip}","state":"active"},"value":"1"},
            "…"]}"#,
    ),
    ("explain db", 69, "no agent runs on this node … explain needs one"),
    ("doctor", 0, "ok       mode           eth0: … tc mode … 0 errors, "),
    (
        "-o json doctor",
        0,
        r#"{"errors":0,"findings":[{"level":"ok","subject":"data plane","of":"eth0"},"…"]}"#,
    ),
    ("doctor --quiet", 0, "0 errors, "),
    ("frame-log", 69, "switch it on by `vip-ctl load --iface IFACE --frame-log`"),
    ("unload --dry-run", 0, "dry run: group db is active here and would end … would be taken off eth0"),
    ("demote", 0, "group db is standby on this node\n"),
    ("demote db", 0, "group db is standby on this node (it was already)"),
    ("-o json demote db", 0, r#"{"group":"db","state":"standby","changed":false}"#),
    ("-o json demote nothing", 105, "there is no group or VIP \"nothing\" here"),
    ("load --iface eth0 --vip {vip} --group web", 64, "the VIP {vip} is in group \"db\" already"),
    // What is refused leaves nothing: there is one group still.
    ("promote", 0, "group db is active on this node"),
    ("demote", 0, "group db is standby on this node"),
    ("load --iface eth0 --vip 10.77.0.101 --group web", 0, "10.77.0.101 in group web"),
    ("promote", 64, "there are several groups here: name one of "),
    ("-o json promote web", 0, r#"{"group":"web","state":"active","changed":true}"#),
    ("-o json demote web", 0, r#"{"group":"web","state":"standby","changed":true}"#),
    ("unload --vip 10.77.0.199", 105, "there is no group or VIP \"10.77.0.199\" here"),
    ("unload --iface eth7", 66, "no program of vip is on eth7"),
    ("unload --iface eth0", 64, "no interface would be left"),
    (
        "unload --vip 10.77.0.101 --dry-run",
        0,
        "dry run: 10.77.0.101 of group web would be taken off … group web would end",
    ),
    ("unload --vip 10.77.0.101", 0, "taken off: 10.77.0.101\n"),
    // The only group that is left needs no name.
    ("promote", 0, "group db is active on this node"),
    ("-o json unload --vip {vip}", 0, r#"{"removed":["{vip}"],"warnings":[]}"#),
    ("unload", 0, "unloaded: no VIP is answered here any more"),
    (
        "-o json load --iface eth0 --vip {vip} --frame-log",
        0,
        r#"{"interfaces":[{"name":"eth0","mode":"tc","kept":false,"gate":"…"}],
            "changes":["{vip} in group default","…"],"warnings":[]}"#,
    ),
];

/// After those.
pub const TAKEN_OFF: &[Row] = &[
    (
        "-o json unload --dry-run",
        0,
        r#"{"dry_run":true,"would":["the programs would be taken off eth0","…"]}"#,
    ),
    ("-o json unload", 0, r#"{"unloaded":true}"#),
    ("status", 69, "run `vip-ctl load"),
];

/// At the holder of a cluster that is well.
pub const WELL: &[Row] = &[
    (
        "status",
        0,
        "node {me} … of cluster lab, quorate … {you} … heard … group db: active, holder {me}, epoch … {vip}",
    ),
    (
        "-o json status",
        0,
        r#"{"node":"{me}","cluster":"lab","quorate":true,"silent":false,"paused":false,"generation":1,
            "nodes":[{"name":"{you}","role":"node","heard":true,"standby":false},"…"],
            "groups":[{"name":"db","state":"active","mode":"cluster","holder":"{me}","eligible":true,
                "vips":[{"address":"{vip}"}]}]}"#,
    ),
    (
        "metrics",
        0,
        "vip_up{cluster=\"lab\",node=\"{me}\"} 1\n … vip_quorate{cluster=\"lab\",node=\"{me}\"} 1\n",
    ),
    (
        "-o json metrics",
        0,
        r#"{"metrics":[
            {"name":"vip_quorate","labels":{"cluster":"lab","node":"{me}"},"value":"1"},
            {"name":"vip_state","labels":{"node":"{me}","group":"db","state":"active"},"value":"1"},
            {"name":"vip_heartbeats_received_total","value":"…"},
            "…"]}"#,
    ),
    ("promote db", 0, "group db is held by {me}\n"),
    ("promote --dry-run", 0, "dry run: nothing would change"),
    ("-o json promote {vip}", 0, r#"{"group":"db","holder":"{me}"}"#),
    ("promote nothing", 105, "there is no group or VIP \"nothing\": name one of db"),
    ("switchover db --to {you} --dry-run", 0, "group db would go from {me} to {you}, which is ready"),
    (
        "-o json switchover db --to {you} --dry-run",
        0,
        r#"{"dry_run":true,"would":["group db would go from {me} to {you}, which is ready"]}"#,
    ),
    ("switchover db --to {you}", 0, "group db is held by {you}\n"),
    ("-o json switchover db --to {me}", 0, r#"{"group":"db","holder":"{me}"}"#),
    ("switchover db --to nobody", 105, "there is no node \"nobody\": name one of "),
    (
        "-o json failover --to {you} --dry-run",
        0,
        r#"{"dry_run":true,"would":["group db would go from {me} to {you}, which is ready"]}"#,
    ),
    ("failover db --to {you}", 0, "group db is held by {you}\n"),
    ("failover --dry-run", 0, "dry run: group db would go from {you} to {me}, which is ready"),
    ("-o json failover db", 0, r#"{"group":"db","holder":"{me}"}"#),
    ("failover nothing", 105, "there is no group or VIP \"nothing\": name one of db"),
    ("pause --dry-run", 0, "dry run: nothing would move by itself any more"),
    ("pause", 0, "paused: leases go on, and nothing moves by itself until `vip-ctl resume`"),
    ("-o json pause", 0, r#"{"paused":true}"#),
    ("pause --dry-run", 0, "dry run: nothing would change"),
    ("status", 0, "PAUSED: no automatic moves until `vip-ctl resume`"),
    ("explain db", 0, "the cluster is PAUSED … nobody takes over by itself: the cluster is paused"),
    ("-o json resume --dry-run", 0, r#"{"dry_run":true,"would":["groups would move by themselves again"]}"#),
    ("resume", 0, "resumed: groups move by themselves again"),
    ("-o json resume", 0, r#"{"paused":false}"#),
    (
        "explain db",
        0,
        "group db is held by {me}, epoch … {me} hears a majority … {you} … is ready … if {me} dies, {you} takes over",
    ),
    (
        "-o json explain {vip}",
        0,
        r#"{"group":"db","node":"{me}","state":"active","holder":"{me}","quorate":true,"paused":false,
            "nodes":[{"node":"{me}","because":"holds it"},{"node":"{you}","ready":true,"heard":true},"…"],
            "next":["if {me} dies, {you} takes over within about … ms"]}"#,
    ),
    ("explain nothing", 105, "there is no group or VIP \"nothing\": name one of db"),
    ("history db", 0, " db: … elected"),
    ("history db --since 1h", 0, " db: … elected"),
    ("history db --since 0s", 0, "nothing has moved here yet, or not in that time"),
    ("-o json history db --since 0s", 0, r#"{"history":[]}"#),
    (
        "-o json history db --limit 1",
        0,
        r#"{"history":[{"group":"db","node":"{me}","kind":"changed","to":"active","holder":"{me}","hooks":[]}]}"#,
    ),
    ("history nothing", 105, "there is no group \"nothing\", and none in the history: name one of db"),
    ("-o json history nothing", 105, "there is no group \"nothing\", and none in the history"),
    ("events db", 0, " changed   db: … elected"),
    ("events", 0, " connected … {you}"),
    ("-o json events {vip}", 0, r#"{"kind":"changed","group":"db","node":"{me}","to":"active"}"#),
    ("events nothing", 105, "there is no group or VIP \"nothing\": name one of db"),
    ("-o json events nothing", 105, "there is no group or VIP \"nothing\""),
    ("member list --config {config}", 0, "generation 1 of the membership, in use here … {you} … confirmed"),
    (
        "-o json member list --config {config}",
        0,
        r#"{"generation":1,"in_use":true,"nodes":[{"name":"{you}","confirmed":true,"votes":true},"…"]}"#,
    ),
    ("member add --config {config} {you} 10.77.0.9:7077", 78, "there is a node \"{you}\" already"),
    ("member remove --config {config} nobody", 105, "there is no node \"nobody\""),
    (
        "member remove --config {copy} {you} --dry-run",
        0,
        "{you} would be removed from {copy}, as generation 2 of the membership",
    ),
    (
        "-o json member add --config {copy} db-d 10.77.0.9:7077 --dry-run",
        0,
        r#"{"dry_run":true,"would":["db-d would be added to {copy}, as generation 2 of the membership"]}"#,
    ),
    (
        "member add --config {copy} db-d 10.77.0.9:7077",
        0,
        "added db-d in {copy}: this is generation 2 … start its agent",
    ),
    (
        "-o json member add --config {eye} eye 10.77.0.10:7077 --observer",
        0,
        r#"{"file":"{eye}","generation":2}"#,
    ),
    (
        "-o json member list --config {eye}",
        0,
        r#"{"generation":2,"in_use":false,"nodes":[
            {"name":"{me}","votes":true,"confirmed":false},
            {"name":"eye","id":3,"address":"10.77.0.10:7077","votes":false},
            "…"]}"#,
    ),
    ("member remove --config {less} {me}", 107, "{me} is this very node: stop its agent"),
    (
        "member remove --config {less} {you}",
        0,
        "removed {you} in {less}: this is generation 2 … `vip-ctl standby {you}` … stop the agent on {you}",
    ),
    ("-o json member remove --config {lesser} {you}", 0, r#"{"file":"{lesser}","generation":2}"#),
    (
        "member remove --config {copy} db-d",
        107,
        "{copy} has generation 2, and the agent takes part in generation 1: restart the agent first",
    ),
    ("-o json member add --config {copy} db-e 10.77.0.10:7077", 107, "restart the agent first"),
    (
        "member list --config {copy}",
        0,
        "generation 2 of the membership, not in use here yet: the agent took part in generation 1",
    ),
    ("check --config {config}", 0, "3 voters, of which 1 may fail … group db: {vip}"),
    (
        "-o json check --config {config}",
        0,
        r#"{"ok":true,"errors":[],"warnings":[],"configuration":{"voters":3,"groups":[{"name":"db"}]}}"#,
    ),
    ("agent --config {config}", 75, "the agent (pid "),
    ("load --iface eth0 --vip {vip}", 75, "the agent (pid … ) runs this node: stop it first"),
    ("load --iface eth0 --vip {vip} --dry-run", 75, "the agent (pid "),
    ("unload", 75, "the agent (pid "),
    ("-o json unload --dry-run", 75, "the agent (pid "),
    ("frame-log", 69, "switch it on by `vip-ctl load --iface IFACE --frame-log`"),
    ("monitor", 64, "monitor draws on a terminal"),
    ("doctor --config {config}", 0, "ok       agent          it runs (pid … 0 errors, "),
    ("keygen {new_key}", 0, "wrote {new_key}: copy it to every node of the cluster, mode 0600"),
    ("keygen {new_key}", 73, "{new_key} exists already, and a key is never overwritten"),
];

/// On that holder, until no other node can hold.
pub const STANDBY: &[Row] = &[
    ("standby nobody", 105, "there is no node \"nobody\": name one of "),
    ("-o json unstandby nobody", 105, "there is no node \"nobody\""),
    ("standby {you} --dry-run", 0, "dry run: node {you} would be put on standby and take nothing"),
    ("standby {you}", 0, "node {you} is on standby and holds nothing\n"),
    ("standby {you} --dry-run", 0, "dry run: nothing would change"),
    ("switchover db --to {you}", 107, "group db: the target is not ready to take the group"),
    ("-o json standby {third}", 0, r#"{"node":"{third}","standby":true}"#),
];

/// After those, once the holder knows of both.
pub const NOBODY_ELSE: &[Row] = &[
    ("explain db", 0, "{you} … is on standby until `vip-ctl unstandby {you}` … nobody takes over"),
    ("switchover db", 107, "group db: no other node is ready to take the group"),
    ("standby", 107, "no other node is ready to take what {me} holds, so nobody would answer"),
    ("-o json standby {me}", 107, "no other node is ready to take what {me} holds"),
    ("standby --dry-run", 107, "refused: no other node is ready to take the group"),
    (
        "-o json standby --force --dry-run",
        0,
        r#"{"dry_run":true,"would":["node {me} would be put on standby and take nothing",
            "group db would be released by {me}, and nobody would answer: no other node is ready to take it"]}"#,
    ),
    ("standby --force", 0, "node {me} is on standby and holds nothing\n"),
    ("switchover db", 107, "group db: nobody holds the group"),
    ("-o json demote db", 107, "group db: nobody holds the group"),
    ("explain db", 0, "held by nobody that {me} knows of … nobody holds it: no node is ready to take it"),
    ("unstandby --dry-run", 0, "dry run: node {me} would take groups again"),
    ("-o json unstandby", 0, r#"{"node":"{me}","standby":false}"#),
    ("promote db", 0, "group db is held by {me}\n"),
    ("unstandby {you}", 0, "node {you} is not on standby\n"),
    ("-o json unstandby {third}", 0, r#"{"node":"{third}","standby":false}"#),
];

/// After those, once the others are ready again.
pub const DEMOTED: &[Row] = &[
    ("demote --dry-run", 0, "dry run: group db would go from {me} to {you}, which is ready"),
    ("demote db", 0, "group db is held by {you}\n"),
    ("promote db", 0, "group db is held by {me}\n"),
    ("-o json demote nothing", 105, "there is no group or VIP \"nothing\": name one of db"),
];

/// The same with JSON, once the others are ready again.
pub const DEMOTED_AGAIN: &[Row] = &[
    ("-o json demote", 0, r#"{"group":"db","holder":"{you}"}"#),
    ("promote db", 0, "group db is held by {me}\n"),
];

/// With the configuration that the agent has.
pub const RELOAD_SAME: &[Row] = &[
    ("reload --dry-run", 0, "dry run: nothing would change"),
    ("-o json reload --dry-run", 0, r#"{"dry_run":true,"would":[]}"#),
    ("reload", 0, "no group has changed"),
    ("-o json reload", 0, r#"{"added":[],"removed":[],"changed":[],"anew":[]}"#),
];

/// With one group more in it, `web`.
pub const RELOAD_MORE: &[Row] = &[
    ("reload --dry-run", 0, "dry run: group web would be added"),
    ("reload", 0, "added: web"),
    ("promote", 64, "there are several groups: name one of db, web"),
];

/// Without that again.
pub const RELOAD_LESS: &[Row] = &[
    (
        "-o json reload --dry-run",
        0,
        r#"{"dry_run":true,"would":["group web would be removed, and released if it is held"]}"#,
    ),
    ("-o json reload", 0, r#"{"added":[],"removed":["web"],"changed":[],"anew":[]}"#),
];

/// With an unknown key in it.
pub const RELOAD_WRONG: &[Row] = &[
    ("reload --dry-run", 78, "{config}: … nmae"),
    ("reload", 78, "{config}: … nmae"),
    ("-o json reload", 78, "{config}: … nmae"),
];

/// With another lease in it.
pub const RELOAD_RESTART: &[Row] = &[
    ("reload --dry-run", 78, "changed, which takes a restart of the agent"),
    (
        "reload",
        78,
        "changed, which takes a restart of the agent on every node: nodes that differ in it do not hear each other",
    ),
];

/// Where the other agents have ended and nobody holds any more.
pub const NO_QUORUM: &[Row] = &[
    ("status", 0, "of cluster lab, NO QUORUM … silent … group db: standby, holder unknown"),
    ("-o json status", 0, r#"{"quorate":false,"groups":[{"name":"db","state":"standby","holder":null}]}"#),
    ("explain db", 0, "{me} HEARS NO MAJORITY of the voters … this node hears 1 of 3 voters and needs 2"),
    ("promote db", 106, "group db: no quorum: this node does not hear a majority of the voters"),
    ("promote --dry-run", 106, "refused: no quorum"),
    ("-o json demote db", 106, "group db: no quorum"),
    ("switchover db", 106, "group db: no quorum"),
    ("-o json switchover db --dry-run", 106, "refused: no quorum"),
    ("failover db", 106, "group db: no quorum: any of … if that is sure, repeat it with --force"),
    ("-o json failover db --dry-run", 106, "repeat it with --force"),
    ("failover db --to {you} --force", 107, "only this node can be made to answer: run it on {you}"),
    ("standby {you}", 107, "node {you}: this node does not hear the target"),
    ("-o json unstandby {you}", 107, "node {you}: this node does not hear the target"),
    ("failover db --force --dry-run", 0, "group db would be held by {me} BY FORCE, without a quorum"),
    ("failover db --force", 0, "group db is held by {me}\n"),
    ("status", 0, "group db: active, holder {me}, epoch … BY FORCE"),
];

/// Where the agent has ended, too, and its groups are still in the maps.
pub const ENDED: &[Row] = &[
    ("status", 0, "from its maps alone (no agent answers) … group db: standby"),
    ("promote db", 107, "the group \"db\" belongs to an agent, which does not run now"),
    ("-o json demote db", 107, "the group \"db\" belongs to an agent, which does not run now"),
    ("load --iface eth0 --vip {vip} --group db", 107, "the group \"db\" belongs to an agent"),
    ("history db", 0, " db: … elected"),
    ("unload", 0, "unloaded: no VIP is answered here any more"),
];

/// Every table.
pub const ALL: &[&[Row]] = &[
    ALONE,
    BY_HAND,
    TAKEN_OFF,
    WELL,
    STANDBY,
    NOBODY_ELSE,
    DEMOTED,
    DEMOTED_AGAIN,
    RELOAD_SAME,
    RELOAD_MORE,
    RELOAD_LESS,
    RELOAD_WRONG,
    RELOAD_RESTART,
    NO_QUORUM,
    ENDED,
];
