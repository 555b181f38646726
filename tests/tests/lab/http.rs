//! The agent's HTTP API from outside, over its unix socket: what it answers,
//! what it does to the cluster, and what it refuses.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vip_tests::lab::http::{Answer, Ask};
use vip_tests::lab::rig::{Rig, WATCH};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, VIP, clock, disk, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

fn get(node: &Node, path: &str) -> Result<Answer> {
    Ask::get(path).to_unix(&node.http_socket())
}

fn post(node: &Node, path: &str, body: &Value) -> Result<Answer> {
    Ask::post(path, body).to_unix(&node.http_socket())
}

/// Requires an error with this status, error code and exit code.
fn refused(answer: &Answer, status: u16, code: &str, exit: u64) -> Result<()> {
    ensure!(answer.status == status, "{answer:?}");
    let found = answer.error()?;
    ensure!(found == (code.to_owned(), exit), "{answer:?}");
    Ok(())
}

#[lab_test]
fn what_is_read_by_http_is_what_the_verbs_say() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;

    let mode = std::fs::metadata(holder.http_socket())?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the socket asks for no token, so it is root's alone: {mode:o}");

    let status = get(holder, "/api/v1/status")?;
    ensure!(status.status == 200, "{status:?}");
    let text: Value = serde_json::from_str(&holder.succeed(&["status", "-o", "json"])?)?;
    let json = status.json()?;
    for field in ["node", "version", "cluster", "quorate", "mode", "interfaces", "generation"] {
        ensure!(json[field] == text[field], "{field}: {} and {}", json[field], text[field]);
    }
    ensure!(json["groups"][0]["holder"] == holder.name(), "{json}");
    let version = json["version"].as_str().context("a version")?;
    ensure!(holder.succeed(&["--version"])?.contains(version), "{version}");
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        ensure!(status.headers.get(name).is_some_and(|found| found == value), "{name}: {status:?}");
    }
    ensure!(status.headers.contains_key("content-security-policy"));
    ensure!(!status.headers.contains_key("access-control-allow-origin"));

    let by_vip = get(holder, &format!("/api/v1/groups/{VIP}"))?.json()?;
    ensure!(by_vip["name"] == GROUP && by_vip["state"] == "active", "{by_vip}");
    ensure!(get(holder, "/api/v1/groups")?.json()?.as_array().is_some_and(|groups| groups.len() == 1));
    let names = |status: &Value| -> Vec<Value> {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().map(|node| node["name"].clone()).collect()
    };
    ensure!(names(&json) == names(&text), "{json} and {text}");
    ensure!(get(holder, "/api/v1/nodes")?.json()?.as_array().is_some_and(|nodes| nodes.len() == 3));
    refused(&get(holder, "/api/v1/groups/nosuch")?, 404, "no_such", 105)?;
    refused(&get(holder, "/api/v2/status")?, 404, "no_such", 105)?;

    let metrics = get(holder, "/metrics")?;
    ensure!(metrics.status == 200 && metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    ensure!(
        metrics.body.contains(&format!("vip_quorate{{cluster=\"lab\",node=\"{}\"}} 1", holder.name())),
        "{metrics:?}"
    );
    let build =
        format!("vip_build_info{{cluster=\"lab\",node=\"{}\",version=\"{version}\"}} 1", holder.name());
    ensure!(metrics.body.contains(&build), "no {build} in {metrics:?}");
    let described = get(holder, "/api/v1/openapi.json")?;
    ensure!(described.json()?["paths"]["/api/v1/status"]["get"].is_object(), "{described:?}");
    for path in ["/healthz", "/readyz"] {
        let well = get(holder, path)?;
        ensure!(well.status == 200 && well.json()?["ok"] == true, "{path}: {well:?}");
    }

    // Without the others the agent is alive, but not ready.
    for node in lab.nodes().iter().filter(|node| node.name() != holder.name()) {
        node.kill_agent()?;
    }
    let unready = wait_until(clock::now().plus(PATIENCE), || {
        // The agent refuses a client that asks too often.
        std::thread::sleep(Duration::from_millis(100));
        get(holder, "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    ensure!(unready, "{:?}", get(holder, "/readyz")?);
    ensure!(get(holder, "/healthz")?.status == 200);
    refused(&post(holder, &format!("/api/v1/groups/{GROUP}/promote"), &Value::Null)?, 503, "no_quorum", 106)?;
    // An agent that ends removes its socket.
    ensure!(holder.stop_agent()?.success());
    ensure!(!holder.http_socket().exists());
    Ok(())
}

#[lab_test]
fn what_is_done_by_http_moves_the_vip() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let other = rig.lab.nodes().iter().find(|node| node.name() != old.name()).context("three nodes")?;
    let path = |verb: &str| format!("/api/v1/groups/{GROUP}/{verb}");
    let start = clock::now();
    let moved = post(old, &path("switchover"), &json!({ "to": other.name() }))?;
    ensure!(moved.status == 200 && moved.json()?["holder"] == other.name(), "{moved:?}");
    rig.expect_move(start, old.name())?;

    let start = clock::now();
    let promoted = post(old, &path("promote"), &Value::Null)?;
    ensure!(promoted.status == 200 && promoted.json()?["holder"] == old.name(), "{promoted:?}");
    rig.expect_move(start, other.name())?;

    let start = clock::now();
    let standby = post(other, &format!("/api/v1/nodes/{}/standby", old.name()), &Value::Null)?;
    ensure!(standby.status == 200 && standby.json()?["standby"] == true, "{standby:?}");
    let (now, _) = rig.expect_move(start, old.name())?;
    refused(&post(now, &path("switchover"), &json!({ "to": old.name() }))?, 409, "refused", 107)?;
    let back = post(now, &format!("/api/v1/nodes/{}/unstandby", old.name()), &json!({}))?;
    ensure!(back.status == 200 && back.json()?["standby"] == false, "{back:?}");

    let start = clock::now();
    ensure!(post(now, "/api/v1/pause", &Value::Null)?.json()?["paused"] == true);
    ensure!(get(now, "/api/v1/status")?.json()?["paused"] == true);
    ensure!(post(now, "/api/v1/resume", &Value::Null)?.json()?["paused"] == false);
    rig.expect_calm(start, now.name())?;

    let start = clock::now();
    let failed_over = post(now, &path("failover"), &json!({ "to": old.name() }))?;
    ensure!(failed_over.status == 200 && failed_over.json()?["holder"] == old.name(), "{failed_over:?}");
    rig.expect_move(start, now.name())?;
    let demoted = post(now, &path("demote"), &Value::Null)?;
    ensure!(demoted.status == 200, "{demoted:?}");
    Ok(())
}

#[lab_test]
fn what_is_wrong_is_refused_and_moves_nothing() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?;
    let (socket, start) = (holder.http_socket(), clock::now());
    let path = format!("/api/v1/groups/{GROUP}/switchover");
    let to = |body: &Value| Ask::post(&path, body);

    // A page of another site cannot send this header.
    let unmarked = Ask { headers: Vec::new(), ..to(&Value::Null) };
    refused(&unmarked.to_unix(&socket)?, 403, "forbidden", 77)?;
    // A request for another host name is refused: somebody may have bound it to this address.
    refused(&to(&Value::Null).with("host", "evil.example").to_unix(&socket)?, 421, "wrong_host", 77)?;
    // So is a request that a page of another site makes, whatever it asks for.
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/history", "/nosuch"] {
        let ask = |site: &str| Ask::get(path).with("sec-fetch-site", site).to_unix(&socket);
        refused(&ask("cross-site")?, 403, "forbidden", 77)?;
        ensure!(ask("same-origin")?.status == if path == "/nosuch" { 404 } else { 200 }, "{path}");
    }
    refused(&to(&Value::Null).with("sec-fetch-site", "cross-site").to_unix(&socket)?, 403, "forbidden", 77)?;
    for path in ["/healthz", "/readyz"] {
        ensure!(
            Ask::get(path).with("sec-fetch-site", "cross-site").to_unix(&socket)?.status == 200,
            "{path}"
        );
    }
    refused(&to(&json!({ "to": "nobody" })).to_unix(&socket)?, 404, "no_such", 105)?;
    refused(&to(&json!({ "too": "db-a" })).to_unix(&socket)?, 400, "bad_request", 64)?;
    refused(&to(&json!({ "to": 7 })).to_unix(&socket)?, 400, "bad_request", 64)?;
    let form = Ask { headers: vec![("x-vip-request", "1".into())], ..to(&json!({})) };
    refused(&form.to_unix(&socket)?, 400, "bad_request", 64)?;
    let long = json!({ "to": "x".repeat(20_000) });
    refused(&to(&long).to_unix(&socket)?, 413, "too_large", 64)?;
    refused(&Ask::get(&path).to_unix(&socket)?, 405, "method_not_allowed", 64)?;
    refused(&post(holder, "/api/v1/groups/nosuch/demote", &Value::Null)?, 404, "no_such", 105)?;
    refused(&post(holder, "/api/v1/groups/%ff/demote", &Value::Null)?, 400, "bad_request", 64)?;
    let fat = Ask::get("/healthz").with("x-much", "y".repeat(100_000));
    ensure!(fat.to_unix(&socket).is_ok_and(|answer| answer.status == 431));

    // Some clients send nothing, half a request, or read no answer, and one asks too much: the
    // agent still serves others, and renews its lease in time.
    let idle: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&socket)).collect::<Result<_, _>>()?;
    for mut stream in &idle {
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\n")?;
    }
    let busy: Vec<_> = (0..200).map(|_| get(holder, "/api/v1/status")).collect::<Result<_>>()?;
    ensure!(busy.iter().any(|answer| answer.status == 200));
    let too_many = busy.iter().find(|answer| answer.status == 429).context("200 requests at once")?;
    refused(too_many, 429, "too_many", 75)?;
    ensure!(too_many.headers.contains_key("retry-after"));
    std::thread::sleep(WATCH);
    ensure!(get(holder, "/healthz")?.status == 200);
    drop(idle);
    rig.expect_calm(start, holder.name())?;
    Ok(())
}

#[lab_test]
fn events_are_streamed_and_the_history_is_told() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let old = lab.wait_holder(GROUP, PATIENCE)?;
    let mut stream = UnixStream::connect(old.http_socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /api/v1/events?group=db HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    // The stream begins with earlier events; those of the switchover follow.
    let mut lines = BufReader::new(stream).lines();
    let mut next = |what: &str, wanted: &dyn Fn(&Value) -> bool| -> Result<Value> {
        for line in lines.by_ref() {
            let line = line.with_context(|| format!("waiting for {what}"))?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data)?;
            if event["kind"] == "changed" && wanted(&event) {
                return Ok(event);
            }
        }
        anyhow::bail!("the stream ended before {what}")
    };
    let taken = next("the lease", &|event| event["to"] == "active")?;
    ensure!(taken["node"] == old.name() && taken["group"] == GROUP, "{taken}");
    let moved = post(old, &format!("/api/v1/groups/{GROUP}/switchover"), &Value::Null)?;
    ensure!(moved.status == 200, "{moved:?}");
    let lost = next("its loss", &|event| event["from"] == "active")?;
    ensure!(lost["seq"].as_u64() > taken["seq"].as_u64(), "{lost} after {taken}");

    let told = |path: &str| -> Result<Vec<Value>> {
        let answer = get(old, path)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.json()?.as_array().context("an array")?.clone())
    };
    // Another thread writes the history: wait for it.
    let written = wait_until(clock::now().plus(PATIENCE), || {
        told(&format!("/api/v1/history?group={VIP}")).is_ok_and(|records| records.contains(&lost))
    });
    ensure!(written, "{:?}", told("/api/v1/history")?);
    ensure!(told("/api/v1/history?limit=1")?.len() == 1);
    refused(&get(old, "/api/v1/history?group=nosuch")?, 404, "no_such", 105)?;
    refused(&get(old, "/api/v1/history?limit=many")?, 400, "bad_request", 64)?;
    refused(&get(old, "/api/v1/history?what=ever")?, 400, "bad_request", 64)?;

    // A client that comes back gets the events since its last id. If that id is of another run of
    // the agent, it gets all.
    let (id, first) = first_message(old, None)?;
    ensure!(first["seq"] == 1, "{first}");
    let (run, _) = id.split_once('-').with_context(|| format!("{id} names a run and a number"))?;
    let (next_id, next) = first_message(old, Some(&id))?;
    ensure!(next["seq"] == 2 && next_id == format!("{run}-2"), "{next_id}: {next}");
    for other in ["1".to_owned(), "0000000000000000-1".to_owned(), format!("{run}-")] {
        let (_, first) = first_message(old, Some(&other))?;
        ensure!(first["seq"] == 1, "{other} has swallowed what was before {first}");
    }
    Ok(())
}

/// The first message of a node's stream of events, with its id.
fn first_message(node: &Node, seen: Option<&str>) -> Result<(String, Value)> {
    let mut stream = UnixStream::connect(node.http_socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let seen = seen.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    stream.write_all(format!("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n{seen}\r\n").as_bytes())?;
    let (mut id, mut data) = (None, None);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        id = id.or_else(|| line.strip_prefix("id: ").map(str::to_owned));
        data = data.or_else(|| line.strip_prefix("data: ").map(str::to_owned));
        if let (Some(id), Some(data)) = (&id, &data) {
            return Ok((id.clone(), serde_json::from_str(data)?));
        }
    }
    anyhow::bail!("the stream ended before a message")
}

/// A pipe that nobody writes to stands for a disk that hangs: opening it waits.
#[lab_test]
fn a_disk_that_hangs_costs_the_history_and_nothing_else() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let file = node.state_dir().join("history.jsonl");
    let written = wait_until(clock::now().plus(PATIENCE), || file.exists());
    ensure!(written, "no {}", file.display());
    // The agent has the old file open, and goes on writing to it.
    disk::hang(&file)?;
    let socket = node.http_socket();
    std::thread::scope(|scope| -> Result<()> {
        let askers: Vec<_> =
            (0..6).map(|_| scope.spawn(|| Ask::get("/api/v1/history").to_unix(&socket))).collect();
        // Give the agent time to refuse all requests but the first.
        std::thread::sleep(Duration::from_secs(3));
        for path in ["/api/v1/status", "/metrics", "/readyz", "/healthz"] {
            ensure!(get(node, path)?.status == 200, "{path}");
        }
        // Opens the pipe for writing and closes it: the waiting reader sees an empty file.
        std::fs::OpenOptions::new().read(true).write(true).open(&file)?;
        let answers = askers.into_iter().map(|asker| asker.join().expect("no panic"));
        let answers: Vec<Answer> = answers.collect::<Result<_>>()?;
        let (read, sent_away): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        ensure!(read.len() == 1, "{answers:?}");
        for answer in sent_away {
            refused(answer, 503, "busy", 75)?;
            ensure!(answer.headers.contains_key("retry-after"), "{answer:?}");
        }
        Ok(())
    })?;
    std::fs::remove_file(&file)?;
    let again = wait_until(clock::now().plus(PATIENCE), || {
        get(node, "/api/v1/history").is_ok_and(|answer| answer.status == 200)
    });
    ensure!(again, "{:?}", get(node, "/api/v1/history")?);
    Ok(())
}

#[lab_test]
fn a_dead_agents_socket_is_the_next_agents() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    holder.kill_agent()?;
    // A killed agent leaves its socket, which the next agent takes over.
    ensure!(holder.http_socket().exists());
    ensure!(get(holder, "/healthz").is_err());
    holder.start_agent()?;
    lab.wait_quorate(PATIENCE)?;
    ensure!(get(holder, "/healthz")?.status == 200);
    Ok(())
}
