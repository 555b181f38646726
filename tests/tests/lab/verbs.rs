//! Every verb of `vip-ctl`: its output and its exit code where nothing runs, on a node worked by
//! hand, and in a cluster. Other tests check what the verbs do.
//!
//! The tables are in `rows.rs`. In a row, `{me}` and the like stand for a value from [`Names`],
//! and `…` for anything. The expected text must be somewhere in stdout or, if the verb fails, in
//! stderr. After `-o json` the row has JSON, which the object on stdout must contain: members
//! that the row does not name are ignored, and an array must be as long as in the row unless that
//! ends with `"…"`. If a row asks for JSON and has a sentence, this is the error's message.

mod rows;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddrV4,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use vip_tests::lab::{
    GROUP, Lab, LabSpec, Node, SERVICE_PORT, VIP, clock, echo::ask_udp, find_vip_ctl, wait_until,
};

use self::rows::Row;
use vip_tests_macros::{lab_test, tool_test};

/// Longer than a busy machine stands still: nothing moves unless it is told to.
const LEASE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer from a VIP that no node answers for.
const BRIEF: Duration = Duration::from_millis(20);
/// How many VIPs come and go with one reload, how many reloads run at once, and how often to try
/// that until one is refused; mostly the first try is enough.
const VIPS_MOVED: u8 = 200;
const AT_ONCE: usize = 6;
const ROUNDS: usize = 10;
/// Characters of a wrong output that are shown.
const SHOWN: usize = 1500;

/// What no row tests, and why: a verb, and its `text`, `json` or `failure`.
const APART: &[(&str, &str, &str)] = &[
    ("agent", "text", "it goes on until a signal: the_agent_ends_well, below"),
    ("agent", "json", "it has a log instead"),
    ("frame-log", "text", "it follows: frames_are_followed, below"),
    ("frame-log", "json", "it has a log instead"),
    ("monitor", "text", "it draws on a terminal: `monitor.rs`"),
    ("monitor", "json", "it draws on a terminal"),
    ("completions", "json", "the script is for a shell"),
];

/// The names in rows, and the values that they stand for.
struct Names(Vec<(&'static str, String)>);

impl Names {
    /// As seen from `me`; if it dies, `you` takes over.
    fn new(lab: &Lab, me: &Node) -> Result<Self> {
        let mut others = lab.nodes().iter().map(Node::name).filter(|name| *name != me.name());
        let you = others.next().context("a second node")?;
        let third = others.next().context("a third node")?;
        let at = |name: &str| me.run_dir().join(name).display().to_string();
        let (copy, broken, keepalived) = (at("copy.toml"), at("broken.toml"), at("keepalived.conf"));
        let copies = [copy.clone(), at("eye.toml"), at("less.toml"), at("lesser.toml")];
        for copy in &copies {
            std::fs::copy(me.config_file(), copy)?;
        }
        let [_, eye, less, lesser] = copies;
        std::fs::write(&broken, "[node]\nnmae = \"db-a\"\n")?;
        let instance = "interface eth0\nvirtual_router_id 51\nvirtual_ipaddress {";
        std::fs::write(&keepalived, format!("vrrp_instance db {{\n{instance}\n{VIP}/24\n}}\n}}\n"))?;
        Ok(Self(vec![
            ("{me}", me.name().into()),
            ("{you}", you.into()),
            ("{third}", third.into()),
            ("{vip}", VIP.to_string()),
            ("{config}", me.config_file().display().to_string()),
            ("{copy}", copy),
            ("{eye}", eye),
            ("{less}", less),
            ("{lesser}", lesser),
            ("{broken}", broken),
            ("{keepalived}", keepalived),
            ("{cluster_key}", lab.key_file().display().to_string()),
            ("{new_key}", at("new.key")),
            ("{dir}", at("man8")),
        ]))
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Makes all calls of a table on `node`.
    fn run(&self, node: &Node, rows: &[Row]) -> Result<()> {
        let mut wrong = Vec::new();
        for (args, code, said) in rows {
            let (args, said) = (self.fill(args), self.fill(said));
            let out = node.run(&args.split_whitespace().collect::<Vec<_>>())?;
            if !is_as_told(&args, *code, &said, &out) {
                let (stdout, stderr) = told(&out);
                let text: String = stdout.chars().take(SHOWN).chain(stderr.chars().take(SHOWN)).collect();
                wrong.push(format!("{args}: expected {code} and {said}\ngot {}\n{text}", out.status));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

fn told(out: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr))
}

/// Is this what the row expects?
fn is_as_told(args: &str, code: i32, said: &str, out: &Output) -> bool {
    let (stdout, stderr) = told(out);
    if out.status.code() != Some(code) {
        return false;
    }
    if !args.starts_with("-o json ") {
        // Exit code 1 means that the verb did its work, and found something wrong.
        return is_in(said, if code < 2 { &stdout } else { &stderr });
    }
    let all: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&stdout).into_iter().collect();
    let Ok(all) = all else { return false };
    // Events are one object each; all else is one.
    if all.len() != 1 && !(code == 0 && args.starts_with("-o json events")) {
        return false;
    }
    if let Ok(wanted) = serde_json::from_str(said) {
        return all.iter().any(|value| has(value, &wanted));
    }
    let error = |value: &Value| {
        value["error"]["code"] == code && value["error"]["message"].as_str().is_some_and(|e| is_in(said, e))
    };
    code != 0 && all.iter().all(error) && is_in(said, &stderr)
}

/// Is this somewhere in the text?
fn is_in(wanted: &str, text: &str) -> bool {
    is_like(&format!("…{wanted}…"), text)
}

/// Is the text this, where `…` and the blanks around it stand for anything?
fn is_like(wanted: &str, text: &str) -> bool {
    let Some((first, rest)) = wanted.split_once('…') else { return text == wanted };
    let Some(mut text) = text.strip_prefix(first.trim_end_matches(' ')) else { return false };
    let mut pieces: Vec<_> = rest.split('…').map(|piece| piece.trim_matches(' ')).collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    text.ends_with(last)
}

/// Does `value` contain what `wanted` names?
fn has(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::String(text), Value::String(wanted)) => is_like(wanted, text),
        (Value::Object(members), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| members.get(name).is_some_and(|value| has(value, wanted)))
        }
        (Value::Array(items), Value::Array(wanted)) => {
            let (wanted, is_open) = match wanted.split_last() {
                Some((last, before)) if *last == "…" => (before, true),
                _ => (&wanted[..], false),
            };
            let is_there = |wanted| items.iter().any(|item| has(item, wanted));
            wanted.iter().all(is_there) && (is_open || items.len() == wanted.len())
        }
        (value, wanted) => value == wanted,
    }
}

/// What `vip-ctl ARGS` prints, where that needs no node.
fn printed(args: &[&str]) -> Result<String> {
    let out = Command::new(find_vip_ctl()?).args(args).output()?;
    ensure!(out.status.success(), "{args:?}: {out:?}");
    Ok(String::from_utf8(out.stdout)?)
}

/// The verbs that a help text names, `help` itself left out; none if it names none.
fn verbs(help: &str) -> BTreeSet<String> {
    let list = help.split_once("Commands:").map_or("", |(_, list)| list);
    let lines = list.lines().skip(1).take_while(|line| !line.is_empty());
    let verbs = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs: BTreeSet<_> = verbs.filter_map(|line| Some(line.split_whitespace().next()?.into())).collect();
    verbs.into_iter().filter(|verb| verb != "help").collect()
}

/// What the rows test of a verb: `text`, `json` or `failure`.
fn covered(verb: &str) -> Vec<&'static str> {
    let of_verb = |(args, code, _): &Row| {
        let said = args.strip_prefix("-o json ").unwrap_or(args);
        let is_it = said.strip_prefix(verb).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        is_it.then_some(match (*code, args.len() == said.len()) {
            (0, true) => "text",
            (0, false) => "json",
            _ => "failure",
        })
    };
    rows::ALL.iter().flat_map(|table| table.iter()).filter_map(of_verb).collect()
}

#[test]
fn every_verb_has_a_row_for_its_text_its_json_and_its_failure() -> Result<()> {
    let mut names = BTreeSet::new();
    for verb in verbs(&printed(&["--help"])?) {
        let below = verbs(&printed(&["help", &verb])?);
        if below.is_empty() {
            names.insert(verb);
        } else {
            names.extend(below.into_iter().map(|what| format!("{verb} {what}")));
        }
    }
    ensure!(names.contains("status") && names.contains("member add"), "{names:?}");
    let mut wrong = Vec::new();
    for name in &names {
        let covered = covered(name);
        for what in ["text", "json", "failure"] {
            let is_apart = APART.iter().any(|(verb, left_out, _)| verb == name && *left_out == what);
            if covered.contains(&what) == is_apart {
                wrong.push(format!("{name}: {what} is {}", if is_apart { "in both" } else { "nowhere" }));
            }
        }
    }
    let gone = APART.iter().filter(|(verb, ..)| !names.contains(*verb));
    wrong.extend(gone.map(|(verb, ..)| format!("there is no {verb}")));
    for (args, code, said) in rows::ALL.iter().flat_map(|table| table.iter()) {
        let is_object = serde_json::from_str::<Value>(said).is_ok_and(|value| value.is_object());
        if said.trim_matches(['…', ' ']).is_empty() || *code == 0 && args.starts_with("-o json") != is_object
        {
            wrong.push(format!("{args}: {said:?} is no expectation"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_row_is_not_met_by_something_else() {
    assert!(is_in("a … c", "xabcx") && is_in("b", "abc"));
    for wanted in ["c … a", "a … a", "ac"] {
        assert!(!is_in(wanted, "xabcx"), "{wanted}");
    }
    assert!(is_like("about … ms", "about 5 ms") && !is_like("about … ms", "about 5 ms or so"));
    let value = serde_json::json!({ "a": [1, 2], "b": { "c": "text", "d": null } });
    for (wanted, is_so) in [
        (r#"{"a":[2,1]}"#, true),
        (r#"{"a":[2,"…"],"b":{"c":"te…"}}"#, true),
        (r#"{"a":[2]}"#, false),
        (r#"{"a":[3,"…"]}"#, false),
        (r#"{"b":{"c":"ext"}}"#, false),
        (r#"{"b":{"d":"…"}}"#, false),
        (r#"{"b":{"e":null}}"#, false),
    ] {
        assert_eq!(has(&value, &serde_json::from_str(wanted).unwrap()), is_so, "{wanted}");
    }
}

#[lab_test]
fn every_verb_says_what_is_missing_where_nothing_runs_and_works_by_hand() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let node = lab.nodes().first().context("three nodes")?;
    let names = Names::new(&lab, node)?;
    names.run(node, rows::ALONE)?;
    for verb in verbs(&printed(&["--help"])?) {
        let page = std::fs::read_to_string(names.fill(&format!("{{dir}}/vip-ctl-{verb}.8")))?;
        ensure!(page.contains(&format!(".TH VIP-CTL-{} 8", verb.to_uppercase())), "{verb}: {page}");
    }
    names.run(node, rows::BY_HAND)?;
    frames_are_followed(&lab, node)?;
    names.run(node, rows::TAKEN_OFF)
}

/// `frame-log` prints each frame until it ends.
fn frames_are_followed(lab: &Lab, node: &Node) -> Result<()> {
    let mut command = node.vip_ctl()?;
    command.args(["frame-log", "--seconds", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut following = command.spawn()?;
    let client = lab.client()?;
    while following.try_wait()?.is_none() {
        // Nobody answers: the test needs only the ARP request that comes first.
        let asked = ask_udp(&client.ns, SocketAddrV4::new(VIP, SERVICE_PORT), BRIEF);
        ensure!(asked.is_err(), "answered by {asked:?}");
    }
    let out = following.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    let is_told = |what: &str| said.lines().any(|line| line.contains(what));
    ensure!(out.status.success() && is_told(&format!(": a frame for {VIP}")), "{out:?}");
    ensure!(is_told(": no lease"), "{out:?}");
    Ok(())
}

/// Waits until the others could take the group, and everybody has confirmed the membership.
fn wait_ready(names: &Names, holder: &Node) -> Result<()> {
    let ready: &[Row] = &[
        ("switchover db --to {you} --dry-run", 0, "{you}, which is ready"),
        ("switchover db --to {third} --dry-run", 0, "{third}, which is ready"),
        (
            "-o json member list --config {config}",
            0,
            r#"{"nodes":[{"name":"{me}","confirmed":true},{"name":"{you}","confirmed":true},{"name":"{third}","confirmed":true}]}"#,
        ),
    ];
    wait_for(names, holder, ready)
}

/// Waits until these rows are met.
fn wait_for(names: &Names, node: &Node, rows: &[Row]) -> Result<()> {
    let is_so = wait_until(clock::now().plus(PATIENCE), || names.run(node, rows).is_ok());
    if is_so { Ok(()) } else { names.run(node, rows) }
}

#[lab_test]
fn every_verb_does_what_it_says_in_a_cluster() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let names = Names::new(&lab, holder)?;
    wait_ready(&names, holder)?;
    names.run(holder, rows::WELL)?;
    names.run(holder, rows::STANDBY)?;
    // It may take a heartbeat or two until this node hears what the others say of themselves.
    wait_for(&names, holder, &rows::NOBODY_ELSE[..2])?;
    names.run(holder, rows::NOBODY_ELSE)?;
    for rows in [rows::DEMOTED, rows::DEMOTED_AGAIN] {
        wait_ready(&names, holder)?;
        names.run(holder, rows)?;
    }

    let config = std::fs::read_to_string(holder.config_file())?;
    let more = format!("{config}\n[[group]]\nname = \"web\"\nvips = [\"10.77.0.101\"]\n");
    for (text, rows) in [
        (&config, rows::RELOAD_SAME),
        (&more, rows::RELOAD_MORE),
        (&config, rows::RELOAD_LESS),
        (&config.replace("[node]\nname", "[node]\nnmae"), rows::RELOAD_WRONG),
        (&config.replace("lease = \"1s\"", "lease = \"2s\""), rows::RELOAD_RESTART),
    ] {
        holder.write_config(text)?;
        names.run(holder, rows)?;
    }
    holder.write_config(&config)?;
    one_reload_at_a_time(&names, holder)?;

    for node in lab.nodes().iter().filter(|node| node.name() != holder.name()) {
        node.kill_agent()?;
    }
    wait_for(&names, holder, &rows::NO_QUORUM[..3])?;
    names.run(holder, rows::NO_QUORUM)?;
    the_agent_ends_well(holder)?;
    names.run(holder, rows::ENDED)
}

/// Of reloads that come at once one is done, and others are told to try again
/// or find nothing left to do. Ends with the configuration that was there.
fn one_reload_at_a_time(names: &Names, node: &Node) -> Result<()> {
    let config = std::fs::read_to_string(node.config_file())?;
    // Many VIPs come and go, so that it takes a while.
    let vips: Vec<_> = (1..=VIPS_MOVED).map(|last| format!("\"10.78.0.{last}\"")).collect();
    let more = format!("{config}\n[[group]]\nname = \"web\"\nvips = [{}]\n", vips.join(", "));
    let mut was_refused = false;
    for _ in 0..ROUNDS {
        node.write_config(&more)?;
        node.succeed(&["reload"])?;
        node.write_config(&config)?;
        let outs: Result<Vec<_>> = std::thread::scope(|scope| {
            let run = || node.run(&["-o", "json", "reload"]);
            let runs: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
            runs.into_iter().map(|run| run.join().map_err(|_| anyhow!("it panicked"))?).collect()
        });
        let outs = outs?;
        let as_told =
            |code, said| outs.iter().filter(|out| is_as_told("-o json reload", code, said, out)).count();
        let refused = as_told(75, "another reload is under way: try again");
        let done = as_told(0, r#"{"added":[],"changed":[],"anew":[]}"#);
        ensure!(done > 0 && done + refused == AT_ONCE, "{outs:?}");
        was_refused = refused > 0;
        if was_refused {
            break;
        }
    }
    ensure!(was_refused, "{AT_ONCE} reloads at once were never too many");
    names.run(node, rows::RELOAD_SAME)
}

/// The agent ends on SIGTERM, and with it `vip-ctl events --follow`.
fn the_agent_ends_well(node: &Node) -> Result<()> {
    let mut command = node.vip_ctl()?;
    command.args(["events", "--follow", GROUP]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut following = command.spawn()?;
    let mut first = String::new();
    BufReader::new(following.stdout.take().context("its output")?).read_line(&mut first)?;
    ensure!(is_in(" changed … db:", &first), "{first:?}");
    let ended = node.stop_agent()?;
    ensure!(ended.success() && is_in("SIGTERM: ending", &node.log_tail()), "{ended}: {}", node.log_tail());
    let out = following.wait_with_output()?;
    let (_, stderr) = told(&out);
    ensure!(out.status.code() == Some(69) && is_in("the agent has ended", &stderr), "{out:?}");
    Ok(())
}

/// What a shell prints for a script.
fn shell(name: &str, args: &[&str], script: &str) -> Result<String> {
    let mut command = Command::new(name);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("its input")?.write_all(script.as_bytes())?;
    let out = child.wait_with_output()?;
    let (stdout, stderr) = told(&out);
    if !out.status.success() || !stderr.is_empty() {
        bail!("{name} {args:?}: {} {stderr}", out.status);
    }
    Ok(stdout)
}

#[tool_test("bash")]
fn bash_completes() -> Result<()> {
    let script = printed(&["completions", "bash"])?;
    shell("bash", &["-n"], &script)?;
    let complete = "COMP_WORDS=(vip-ctl switcho)\nCOMP_CWORD=1\n_vip__ctl vip-ctl switcho vip-ctl\n";
    let completed =
        shell("bash", &["-s"], &format!("{script}\n{complete}printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"))?;
    ensure!(completed == "switchover\n", "{completed}");
    Ok(())
}

#[tool_test("zsh")]
fn zsh_reads_what_completes() -> Result<()> {
    shell("zsh", &["-n"], &printed(&["completions", "zsh"])?)?;
    ensure!(shell("zsh", &["-n"], "if then (").is_err(), "zsh reads anything");
    Ok(())
}

#[tool_test("fish")]
fn fish_completes() -> Result<()> {
    let script = printed(&["completions", "fish"])?;
    shell("fish", &["--no-execute"], &script)?;
    let completed = shell("fish", &[], &format!("{script}\ncomplete --do-complete 'vip-ctl switcho'\n"))?;
    ensure!(completed.starts_with("switchover"), "{completed}");
    Ok(())
}
