//! `cargo xtask demo` from outside: its exit code, its JSON, and that it
//! leaves nothing behind, also on Ctrl-C.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vip_tests::lab::{cleanup, find_vip_ctl};
use vip_tests_macros::lab_test;

fn demo() -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip-demo"));
    command.arg("--vip-ctl").arg(find_vip_ctl()?);
    Ok(command)
}

/// What belongs to a lab of the process `pid`.
fn leftovers(pid: u32) -> Vec<PathBuf> {
    let prefixes = [format!("vip-{pid}-"), format!("vip-lab-{pid}-"), format!("{pid}-")];
    ["/run/netns", cleanup::LABS_DIR, cleanup::BPFFS_DIR]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

#[lab_test]
fn the_demo_ends_well_with_json_and_leaves_nothing() -> Result<()> {
    let json = std::env::temp_dir().join(format!("vip-demo-{}.json", std::process::id()));
    let child = demo()?
        .args(["--witness", "--lease", "1s"])
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("answered by two"), "no table: {said}");

    let document: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    std::fs::remove_file(&json)?;
    let steps = document["steps"].as_array().context("no steps")?;
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, ["cut", "return", "kill", "restart", "stop", "continue", "switchover"]);
    for step in steps {
        let (before, after) = (step["holder_before"].as_str(), step["holder_after"].as_str());
        ensure!(before.is_some() && after.is_some(), "{step}");
        let moves = ["cut", "kill", "stop", "switchover"].iter().any(|name| step["name"] == *name);
        assert_eq!(before != after, moves, "{step}");
        ensure!(step["gap_ms"].as_f64().is_some_and(|gap| (0.0..2000.0).contains(&gap)), "{step}");
        ensure!(step["probes_sent"].as_u64().is_some_and(|sent| sent >= 900), "{step}");
        ensure!(step["probes_lost"].is_u64(), "{step}");
        assert_eq!(step["answered_by_two"], 0, "{step}");
    }
    assert_eq!(leftovers(pid), Vec::<PathBuf>::new());
    Ok(())
}

/// Reads the demo's output until a line contains `what`.
fn wait_for_line(child: &mut Child, what: &str) -> Result<BufReader<std::process::ChildStdout>> {
    let mut stdout = BufReader::new(child.stdout.take().context("its output")?);
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        ensure!(stdout.read_line(&mut line)? > 0, "it ended without `{what}`");
    }
    Ok(stdout)
}

#[lab_test]
fn the_demo_cleans_up_on_ctrl_c() -> Result<()> {
    // While it builds, while agents run, and while one is broken.
    for moment in ["building", "holds", "cut: "] {
        let mut child = demo()?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let pid = child.id();
        let _stdout = wait_for_line(&mut child, moment)?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        assert_eq!(child.wait()?.code(), Some(130), "{moment}");
        assert_eq!(leftovers(pid), Vec::<PathBuf>::new(), "{moment}");
    }
    Ok(())
}
