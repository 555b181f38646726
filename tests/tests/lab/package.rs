//! The Debian package on a clean Debian: what `cargo xtask dist --check` does,
//! with the `vip-ctl` under test in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::find_vip_ctl;
use vip_tests_macros::lab_test;

#[lab_test("dpkg-deb", "debootstrap")]
fn the_package_installs_and_purges_on_a_clean_debian() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out: PathBuf = std::env::temp_dir().join(format!("vip-dist-{}", std::process::id()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&root).args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "xtask",
        "--",
        "dist",
        "--check",
    ]);
    command.arg("--vip-ctl").arg(find_vip_ctl()?.canonicalize()?).arg("--out").arg(&out);
    let output = command.output().context("running cargo xtask dist")?;
    let files: Vec<_> = std::fs::read_dir(&out)
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    // What could not be removed is in a temporary directory anyhow.
    let _removed = std::fs::remove_dir_all(&out);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for end in [".deb", ".tar.gz"] {
        ensure!(files.iter().any(|file| file.ends_with(end)), "no {end} among {files:?}");
    }
    Ok(())
}
