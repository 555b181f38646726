//! `cargo xtask bench agent` from outside: a row of it, as people and as
//! programs read it. What figures are good is in `docs/performance.md`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::lab::find_vip_ctl;
use vip_tests_macros::lab_test;

#[lab_test]
fn a_row_of_the_bench_is_measured_and_written_as_json() -> Result<()> {
    let json = std::env::temp_dir().join(format!("vip-bench-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_vip-bench"))
        .args(["agent", "--groups", "100", "--lease", "1s", "--json"])
        .arg(&json)
        .arg("--vip-ctl")
        .arg(find_vip_ctl()?)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("holder CPU %"), "no table: {said}");

    let document: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    std::fs::remove_file(&json)?;
    let [row] = &document["rows"].as_array().context("no rows")?[..] else { anyhow::bail!("{document}") };
    assert_eq!((&row["groups"], &row["lease_ms"], &row["nodes"]), (&100.into(), &1_000.into(), &3.into()));
    let number = |name: &str| row[name].as_f64().with_context(|| format!("no {name} in {row}"));
    ensure!(
        number("holder_cpu_percent")? > 0.0
            && number("floor_cpu_percent")? > 0.0
            && number("bytes_per_s")? > 0.0,
        "{row}"
    );
    // 100 groups never fill a socket, and a check is run every 100 ms.
    assert_eq!(row["lost"], 0);
    let heard = number("check_heard_ms")?;
    ensure!(heard > 0.0 && heard < 10_000.0, "{row}");
    Ok(())
}
