//! The programs that check for a mutant, and how to run them: the arguments, the
//! time limit, and which output means that they notice it. [`super::verdict`]
//! judges the answers.

use std::{
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::verdict::{Again, Answer, Checker, Mutant, parse_list};
use crate::{
    build::{self, Artifact, Warnings},
    place::Place,
    process::{self, Watched},
    setup::{self, Need},
};

/// Tells a program which mutant to be.
const MUTANT: &str = "VIP_MUTANT";

/// Parts of the names of tests that take seconds each, and so run last: of the
/// engine, of vip-lease and of vip-ctl.
const SLOW_UNIT_TESTS: &[&str] =
    &["operate::more_groups_than_are_asked_for_at_once_are_preempted_one_round_after_the_other"];
const SLOW_LEASE_TESTS: &[&str] = &[
    "table::tests::no_vip_is_ever_answered_twice",
    "transport::tests::forged::",
    "transport::tests::replay::",
];
const SLOW_GLUE_TESTS: &[&str] = &["records::membership::tests::chains::"];

/// vip-lease's tests in which engines vote and are given other groups: of these,
/// the only ones that can notice an engine's mutant.
const GROUP_TESTS: &str = "table::";
/// vip-ctl's tests that run code of vip-lease.
const LOOP_TESTS: &[&str] = &["agent::lease_loop::", "agent::hooks::"];

/// The test that lists the mutants of vip-lease, and of vip-ctl.
const LIST: &str = "mutant::tests::each_has_a_name_and_is_told";

/// How long a program of tests may take: the slowest takes some thirty seconds of
/// a processor of its own, and must not seem to hang on one that others use.
const TESTS_LIMIT: Duration = Duration::from_secs(100);
/// The same for a scenario, which takes milliseconds.
const SCENARIO_LIMIT: Duration = Duration::from_secs(30);
/// How long to try seeds, however many are left.
const SEEDS_LIMIT: Duration = Duration::from_secs(90);
/// How much longer than that the simulation may take before it counts as hanging.
const SEED_LIMIT: Duration = Duration::from_secs(60);
/// How long the model check may take for one mutant.
const MODEL_LIMIT: Duration = Duration::from_secs(120);

/// Programs that can be told which mutant to be.
pub(super) struct Programs {
    engine_tests: Artifact,
    lease_tests: Artifact,
    glue_tests: Artifact,
    sim: PathBuf,
    model: PathBuf,
    list: PathBuf,
    scenarios: Vec<PathBuf>,
}

impl Programs {
    /// Builds them.
    ///
    /// # Errors
    /// When a tool is missing or something does not compile.
    pub(super) fn build(place: &Place) -> anyhow::Result<Self> {
        let tools = setup::ensure(place, Need::Build)?;
        // vip-ctl's tests embed it.
        build::object(place, &tools, Warnings::Show)?;
        let programs = [["vip-sim", "vip-sim"], ["vip-model", "vip-model"], ["vip-model", "vip-mutants"]];
        let [sim, model, list] = build::host_programs_with(place, "release", programs, &["mutants"])?;
        let [engine_tests, lease_tests, glue_tests] =
            unit_tests(place, ["vip_engine", "vip_lease", "vip_ctl"])?;
        Ok(Self {
            engine_tests,
            lease_tests,
            glue_tests,
            sim,
            model,
            list,
            scenarios: scenarios(&place.root().join("tests/sim/scenarios"))?,
        })
    }

    /// All mutants that there are.
    ///
    /// # Errors
    /// When a program does not list them, or two have one name.
    pub(super) fn list(&self) -> anyhow::Result<Vec<Mutant>> {
        let engine = process::output_of(&mut Command::new(&self.list))?;
        let listed = |tests: &Artifact| {
            process::output_of(Command::new(&tests.executable).args(["--exact", LIST, "--nocapture"]))
        };
        let (lease, glue) = (listed(&self.lease_tests)?, listed(&self.glue_tests)?);
        let all = [parse_list(&engine), parse_list(&lease), parse_list(&glue)];
        if all.iter().any(Vec::is_empty) {
            bail!("no mutants are listed by `vip-mutants`, or by the test {LIST} of vip-lease or of vip-ctl");
        }
        let all = all.concat();
        let mut names: Vec<_> = all.iter().map(|mutant| &mutant.name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            bail!("two mutants have the name {}: rename one of them", twice[0]);
        }
        Ok(all)
    }

    /// Runs one of them.
    ///
    /// # Errors
    /// When it can't be run, or on Ctrl-C.
    pub(super) fn ask(
        &self,
        checker: Checker,
        mutant: Option<&str>,
        again: &Again,
    ) -> anyhow::Result<Answer> {
        match checker {
            Checker::UnitTests => self.unit(&skipping(SLOW_UNIT_TESTS), mutant, again),
            Checker::SlowUnitTests => self.unit(SLOW_UNIT_TESTS, mutant, again),
            Checker::GroupTests => self.lease(&[GROUP_TESTS], mutant, again),
            Checker::NearLeaseTests => {
                let near = near(mutant);
                self.lease(&[skipping(SLOW_LEASE_TESTS), vec![&near]].concat(), mutant, again)
            }
            Checker::LeaseTests => self.lease(&skipping(SLOW_LEASE_TESTS), mutant, again),
            Checker::SlowLeaseTests => self.lease(SLOW_LEASE_TESTS, mutant, again),
            Checker::LoopTests => self.glue(LOOP_TESTS, mutant, again),
            Checker::NearGlueTests => {
                let near = near(mutant);
                self.glue(&[skipping(SLOW_GLUE_TESTS), vec![&near]].concat(), mutant, again)
            }
            Checker::GlueTests => self.glue(&skipping(SLOW_GLUE_TESTS), mutant, again),
            Checker::SlowGlueTests => self.glue(SLOW_GLUE_TESTS, mutant, again),
            Checker::Scenarios => self.scenarios(mutant, again),
            Checker::Simulation(seeds) => self.simulation(seeds, mutant, again),
            Checker::Model => self.model(mutant),
        }
    }

    fn unit(&self, args: &[&str], mutant: Option<&str>, again: &Again) -> anyhow::Result<Answer> {
        tests(&self.engine_tests, "unit test", args, mutant, again)
    }

    fn lease(&self, args: &[&str], mutant: Option<&str>, again: &Again) -> anyhow::Result<Answer> {
        tests(&self.lease_tests, "vip-lease's test", args, mutant, again)
    }

    fn glue(&self, args: &[&str], mutant: Option<&str>, again: &Again) -> anyhow::Result<Answer> {
        tests(&self.glue_tests, "vip-ctl's test", args, mutant, again)
    }

    fn scenarios(&self, mutant: Option<&str>, again: &Again) -> anyhow::Result<Answer> {
        for file in &self.scenarios {
            if matches!(again, Again::Scenario(other) if other != file) {
                continue;
            }
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let mut command = told(&self.sim, mutant);
            command.arg("--scenario").arg(file);
            let who = match process::watch(&mut command, SCENARIO_LIMIT, |_| ControlFlow::Continue(()))? {
                Watched::Ended(status) if status.success() => continue,
                Watched::Ended(_) | Watched::Enough => format!("scenario {name}"),
                Watched::Overdue => format!("a hang of scenario {name}"),
            };
            return Ok(Answer::Wrong(who, Some(Again::Scenario(file.clone()))));
        }
        Ok(Answer::Well)
    }

    fn simulation(&self, seeds: u64, mutant: Option<&str>, again: &Again) -> anyhow::Result<Answer> {
        let (start, seeds) = match again {
            Again::Seed(seed) => (*seed, 1),
            Again::Test(_) | Again::Scenario(_) | Again::All => (0, seeds),
        };
        let mut command = told(&self.sim, mutant);
        command.args(["--start", &start.to_string(), "--seeds", &seeds.to_string()]);
        command.args(["--at-most", &format!("{}s", SEEDS_LIMIT.as_secs())]);
        let (mut lines, mut failed) = (Lines::default(), None);
        let end = process::watch(&mut command, SEEDS_LIMIT + SEED_LIMIT, |bytes| {
            failed = failed.or_else(|| lines.find(bytes, failed_seed));
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(seed) = failed {
            let tried = seed - start + 1;
            let who = format!("sim after {tried} seed{}", if tried == 1 { "" } else { "s" });
            return Ok(Answer::Wrong(who, Some(Again::Seed(seed))));
        }
        Ok(match end {
            Watched::Ended(status) if status.success() => Answer::Well,
            Watched::Ended(status) => {
                Answer::Wrong(format!("sim, which ended with {status}"), Some(Again::All))
            }
            Watched::Enough | Watched::Overdue => Answer::Wrong("a hang of sim".into(), Some(Again::All)),
        })
    }

    /// It looks at the same without the mutant by itself.
    fn model(&self, mutant: Option<&str>) -> anyhow::Result<Answer> {
        let Some(mutant) = mutant else { return Ok(Answer::Well) };
        let mut command = Command::new(&self.model);
        command.args(["--only", mutant]);
        let (mut lines, mut caught) = (Lines::default(), None);
        let mut reader = ModelReader::new(mutant);
        process::watch(&mut command, MODEL_LIMIT, |bytes| {
            caught = caught.or_else(|| lines.find(bytes, |line| reader.read(line)));
            if caught.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(if caught == Some(true) { Answer::Wrong("model".into(), None) } else { Answer::Well })
    }
}

/// The unit tests of these libraries, with the mutants in them.
fn unit_tests<const N: usize>(place: &Place, libraries: [&str; N]) -> anyhow::Result<[Artifact; N]> {
    let mut command = place.cargo();
    command.args(["test", "--locked", "--lib", "--no-run"]);
    for library in libraries {
        let package = library.replace('_', "-");
        command.args(["--package", &package, "--features", &format!("{package}/mutants")]);
    }
    command.arg("--message-format=json-render-diagnostics");
    let (status, artifacts) = build::artifacts(&mut command)?;
    if !status.success() {
        bail!("`{}` failed", process::spell(&command));
    }
    let mut found = Vec::new();
    for library in libraries {
        let is_it = |artifact: &&Artifact| artifact.kind == "lib" && artifact.name == library;
        let artifact = artifacts.iter().find(is_it);
        found.push(artifact.with_context(|| format!("cargo built no unit tests of {library}"))?.clone());
    }
    found.try_into().map_err(|_| anyhow::anyhow!("cargo built more or fewer programs than xtask asked for"))
}

fn scenarios(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.with_context(|| format!("cannot list {}", dir.display()))?.path());
    }
    files.sort();
    Ok(files)
}

fn told(program: &Path, mutant: Option<&str>) -> Command {
    let mut command = Command::new(program);
    match mutant {
        Some(name) => command.env(MUTANT, name),
        None => command.env_remove(MUTANT),
    };
    command
}

/// The part of the names of tests of the module that a mutant's name begins with.
fn near(mutant: Option<&str>) -> String {
    format!("{}::", mutant.and_then(|name| name.split('-').next()).unwrap_or_default())
}

fn skipping<'a>(slow: &[&'a str]) -> Vec<&'a str> {
    slow.iter().flat_map(|test| ["--skip", *test]).collect()
}

/// Runs a program of tests until one fails.
fn tests(
    program: &Artifact,
    kind: &str,
    args: &[&str],
    mutant: Option<&str>,
    again: &Again,
) -> anyhow::Result<Answer> {
    let scratch = Scratch::new()?;
    let mut command = told(&program.executable, mutant);
    let package = program.manifest.parent().context("a Cargo.toml without directory")?;
    command
        // As cargo does.
        .current_dir(package)
        .env("CARGO_MANIFEST_DIR", package)
        .env("TMPDIR", &scratch.0)
        // Mutants already run in parallel; and one that hangs gets noticed.
        .arg("--test-threads=1")
        // A failure here is no regression: it leaves no file in the tree.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("INSTA_UPDATE", "no");
    match again {
        Again::Test(test) => command.args(["--exact", test]),
        Again::Scenario(_) | Again::Seed(_) | Again::All => command.args(args),
    };
    let mut reader = TestReader::default();
    let end = process::watch(&mut command, TESTS_LIMIT, |bytes| reader.feed(bytes))?;
    let running = reader.running();
    let (who, test) = match (end, reader.failed, running) {
        (_, Some(failed), _) => (format!("{kind} {failed}"), Some(failed)),
        (Watched::Ended(status), None, _) if status.success() => return Ok(Answer::Well),
        (Watched::Ended(status), None, Some(running)) => {
            (format!("{kind} {running}, which ended with {status}"), Some(running))
        }
        (Watched::Enough | Watched::Overdue, None, Some(running)) => {
            (format!("a hang of {kind} {running}"), Some(running))
        }
        (end, None, None) => (format!("{kind}s ({end:?})"), None),
    };
    Ok(Answer::Wrong(who, Some(test.map_or(Again::All, Again::Test))))
}

/// A directory for what tests leave behind when they are killed.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short: sockets are made in it.
        let dir = env::temp_dir().join(format!("vip-mutants-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it harms nobody.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// Puts lines together from pieces as they come.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The verdict of the first line that `bytes` completes.
    fn find<T>(&mut self, bytes: &[u8], mut read: impl FnMut(&str) -> Option<T>) -> Option<T> {
        for byte in bytes {
            if *byte != b'\n' {
                self.0.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.0);
            let found = read(String::from_utf8_lossy(&line).trim_end());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The line that has no end yet.
    fn begun(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Reads what libtest prints with one thread: a test's name when it begins, and
/// on the same line how it ended.
#[derive(Default)]
struct TestReader {
    lines: Lines,
    failed: Option<String>,
}

impl TestReader {
    fn feed(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let failed = |line: &str| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(named);
        self.failed = self.failed.take().or_else(|| self.lines.find(bytes, failed));
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The test that has begun and not ended.
    fn running(&self) -> Option<String> {
        self.lines.begun().strip_prefix("test ")?.strip_suffix(" ... ").map(named)
    }
}

/// A test's name without libtest's additions.
fn named(test: &str) -> String {
    test.trim_end_matches(" - should panic").to_owned()
}

/// The seed in a line that reports an error.
fn failed_seed(line: &str) -> Option<u64> {
    let (seed, what) = line.strip_prefix("seed ")?.split_once(": ")?;
    (what != "ok").then(|| seed.parse().ok()).flatten()
}

/// Reads what `vip-model` prints about a mutant: whether it catches the mutant,
/// and then whether the same scope is clean without it.
struct ModelReader {
    line: String,
    is_caught: bool,
}

impl ModelReader {
    fn new(mutant: &str) -> Self {
        Self { line: format!("mutant {mutant}: "), is_caught: false }
    }

    /// Whether it has caught the mutant, once that is clear.
    fn read(&mut self, line: &str) -> Option<bool> {
        if self.is_caught {
            return Some(line.trim_start().starts_with("without it clean"));
        }
        let verdict = line.strip_prefix(&self.line)?;
        self.is_caught = verdict.starts_with("caught");
        (!self.is_caught).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_it_and_what_runs_is_known() {
        let mut reader = TestReader::default();
        assert!(reader.feed(b"\nrunning 3 tests\ntest a::one ... ok\ntest a::t").is_continue());
        assert_eq!(reader.running(), None);
        assert!(reader.feed(b"wo ... ").is_continue());
        assert_eq!(reader.running().as_deref(), Some("a::two"));
        assert!(reader.feed(b"FAILED\ntest a::three ... FAILED\n").is_break());
        assert_eq!(reader.failed.as_deref(), Some("a::two"));
        let mut reader = TestReader::default();
        assert!(reader.feed(b"test a::four - should panic ... FAILED\n").is_break());
        assert_eq!(reader.failed.as_deref(), Some("a::four"));
    }

    #[test]
    fn a_seed_that_fails_is_told_from_a_trace_and_from_a_seed_that_does_not() {
        assert_eq!(failed_seed("seed 17: db is answered by two nodes"), Some(17));
        for line in ["seed 17: ok", "  12.3ms seed 17: x", "seed x: y", "3000 schedules", "seed 17"] {
            assert_eq!(failed_seed(line), None, "{line}");
        }
    }

    #[test]
    fn the_model_has_caught_what_is_clean_without_the_mutant() {
        let read = |lines: &str| {
            let mut reader = ModelReader::new("no-margin");
            Lines::default().find(lines.as_bytes(), |line| reader.read(line))
        };
        let caught = "mutant no-margin-at-all: missed\nmutant no-margin: caught (states 5, depth 3)\n";
        assert_eq!(read(&format!("{caught}  without it clean to depth 3 (9 states)\n")), Some(true));
        assert_eq!(read(&format!("{caught}  without it NOT CLEAN to depth 3 (9 states)\n")), Some(false));
        assert_eq!(read("mutant no-margin: missed (states 5, depth 3)\n"), Some(false));
        // It does not look for this mutant.
        assert_eq!(read("model FAILED: 0 states\n"), None);
    }
}
