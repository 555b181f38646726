//! `cargo xtask test`: sets up, builds, and runs all tests of the workspace.
//! Counting is [`crate::tally`]'s.
//!
//! Test programs are built by cargo and run from here, one after the other: so
//! each has an exit code of its own. One that makes network namespaces runs its tests
//! one by one, and is run anew for each of its modules; some modules at a time, since
//! tests of real programs mostly wait.
//!
//! A lab test that fails while the machine was seen to stand still is run once
//! more, and both runs are told. What it says of safety is never run again.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};

use crate::{
    build::{self, Artifact, Warnings},
    place::Place,
    process,
    setup::{self, Need},
    stall::StallWatch,
    tally::{Reader, Tally, parse_skips},
};

/// Names the file to which a test that skips itself (no privilege, say) adds a
/// line `skipped: NAME: why`.
const SKIPS: &str = "VIP_TEST_SKIPS";

/// Names the vip-ctl that tests run.
const VIP_CTL: &str = "VIP_CTL";

/// A test program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// From here on a stall explains that a lease ran out: half of the shortest
/// one that the lab's tests use, apart from the busy test, which measures itself.
const STALL: Duration = Duration::from_millis(250);

/// Modules that measure how fast something is: nothing runs beside them.
const ALONE: [&str; 2] = ["bench", "demo"];

/// How many modules run at a time at most, on as many CPUs. Most of a lab test's time nobody
/// does anything: two of them keep two CPUs half busy.
const LANES_MAX: usize = 2;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub(crate) struct TestArgs {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Run only tests of these packages
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// Pass these arguments on to each test program
    #[arg(last = true, value_name = "ARGS")]
    harness: Vec<String>,
}

/// `cargo xtask test`.
///
/// # Errors
/// When a tool is missing or the programs under test do not build. Failed tests
/// are no error, but an exit code.
pub(crate) fn run(place: &Place, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let tools = setup::ensure(place, Need::Lab)?;
    build::object(place, &tools, Warnings::Show)?;
    let tally = all(place, args)?;
    println!("{tally}");
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests; the BPF object has to be there.
///
/// # Errors
/// When vip-ctl does not build or cargo cannot be run.
pub(crate) fn all(place: &Place, args: &TestArgs) -> anyhow::Result<Tally> {
    let [vip_ctl] = build::host_programs(place, "release", [["vip-ctl", "vip-ctl"]])?;
    let mut tally = Tally::default();
    let (status, mut programs) = build::artifacts(cargo_test(place, args).args([
        "--lib",
        "--bins",
        "--tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    if !status.success() {
        eprintln!("xtask: some tests do not compile, which counts as one failure");
        tally.check(false);
    }
    // `--tests` makes cargo build the packages' programs for them, too; those
    // are told apart by where cargo puts them.
    programs.retain(|program| program.executable.parent().is_some_and(|dir| dir.ends_with("deps")));
    // Quick ones first; those with namespaces last.
    programs.sort_by_key(|program| (program.kind == "test", program.manifest.clone(), program.name.clone()));
    for program in &programs {
        let runner = Runner { place, program, vip_ctl: &vip_ctl, args };
        let (mut alone, mut beside) =
            parts(program, args)?.into_iter().partition::<Vec<_>, _>(Part::is_alone);
        if beside.len() == 1 {
            // Then there is nothing to keep its output apart from.
            alone.append(&mut beside);
        }
        tally.add(runner.run_beside(beside)?);
        for part in &alone {
            tally.add(runner.run(part, &mut say)?);
        }
    }
    tally.add(run_doc_tests(place, args)?);
    Ok(tally)
}

fn cargo_test(place: &Place, args: &TestArgs) -> Command {
    let mut command = place.cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    if args.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &args.package {
        command.args(["-p", package]);
    }
    command
}

/// The lab's test program, built as [`all`] builds it.
///
/// # Errors
/// When it does not compile or cargo cannot be run.
pub(crate) fn lab_program(place: &Place) -> anyhow::Result<PathBuf> {
    let mut command = cargo_test(place, &TestArgs::default());
    command.args(["--test", "lab", "--no-run", "--message-format=json-render-diagnostics"]);
    let (status, programs) = build::artifacts(&mut command)?;
    if !status.success() {
        bail!("`{}` failed", process::spell(&command));
    }
    let lab = programs.into_iter().find(|program| program.kind == "test" && program.name == "lab");
    Ok(lab.context("cargo built no test program lab")?.executable)
}

/// What of a test program is run at once, with an exit code and a time limit of its own.
enum Part {
    /// All that the filter lets through.
    All,
    /// A module's tests, by their full names.
    Module { name: String, tests: Vec<String> },
}

impl Part {
    /// Does it measure how fast something is, so that nothing may run beside it?
    fn is_alone(&self) -> bool {
        match self {
            Self::All => true,
            Self::Module { name, .. } => ALONE.contains(&&**name),
        }
    }

    /// How many tests it has.
    fn len(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Module { tests, .. } => tests.len(),
        }
    }
}

/// An integration test is run a module at a time: a crash of one costs the others nothing.
fn parts(program: &Artifact, args: &TestArgs) -> anyhow::Result<Vec<Part>> {
    if program.kind != "test" {
        return Ok(vec![Part::All]);
    }
    let mut list = Command::new(&program.executable);
    list.args(["--list", "--format=terse"]).args(&args.filter);
    let modules = parse_modules(&process::output_of(&mut list)?);
    if modules.keys().all(String::is_empty) {
        return Ok(vec![Part::All]);
    }
    Ok(modules.into_iter().map(|(name, tests)| Part::Module { name, tests }).collect())
}

/// The tests in libtest's terse list, by their outermost module; that of a test without one is empty.
fn parse_modules(list: &str) -> BTreeMap<String, Vec<String>> {
    let mut modules = BTreeMap::<String, Vec<String>>::new();
    for test in list.lines().filter_map(|line| line.strip_suffix(": test")) {
        let module = test.split_once("::").map_or("", |(module, _)| module);
        modules.entry(module.to_owned()).or_default().push(test.to_owned());
    }
    modules
}

/// A test program, and what its runs need.
struct Runner<'a> {
    place: &'a Place,
    program: &'a Artifact,
    vip_ctl: &'a Path,
    args: &'a TestArgs,
}

impl Runner<'_> {
    /// Runs the parts some at a time, those with the most tests first; shows what each printed
    /// once it has ended.
    fn run_beside(&self, mut parts: Vec<Part>) -> anyhow::Result<Tally> {
        // The last is taken first.
        parts.sort_by_key(Part::len);
        let lanes = thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX);
        let queue = Mutex::new(parts);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = || -> anyhow::Result<Tally> {
            let mut tally = Tally::default();
            while let Some(part) = next() {
                let mut printed = Vec::new();
                let run = self.run(&part, &mut |bytes| printed.extend_from_slice(bytes));
                say(&printed);
                tally.add(run?);
            }
            Ok(tally)
        };
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
            let mut tally = Tally::default();
            for lane in lanes {
                tally.add(lane.join().map_err(|_| anyhow!("a lane of tests panicked"))??);
            }
            Ok(tally)
        })
    }

    /// Runs a part; `say` is told what it prints, as it comes.
    fn run(&self, part: &Part, say: &mut impl FnMut(&[u8])) -> anyhow::Result<Tally> {
        let package = self.program.manifest.parent().context("a Cargo.toml without directory")?;
        let shown = package.strip_prefix(self.place.root()).unwrap_or(package).display();
        let (module, tests) = match part {
            Part::All => (String::new(), &[][..]),
            Part::Module { name, tests } => (format!(" {name}"), &tests[..]),
        };
        say(format!("\n=== {shown}: {} {}{module}\n", self.program.kind, self.program.name).as_bytes());
        let skips = SkipFile::new(self.place)?;
        let (reader, success, stall) = self.run_tests(package, tests, &skips, say)?;
        let again = reader
            .excusable()
            .filter(|_| self.program.kind == "test" && stall > STALL)
            .map(<[String]>::to_vec);
        let mut passed_later = 0;
        if let Some(again) = again {
            let names = again.join(", ");
            say(format!("\nfailed while this machine stood still for {stall:.0?}; running again: {names}\n")
                .as_bytes());
            let (reader, success, _) = self.run_tests(package, &again, &skips, say)?;
            let second = reader.finish(success, 0);
            if second.failed == 0 && second.passed == again.len() {
                say(format!("failed first and passed in a second run: {names}\n").as_bytes());
                passed_later = again.len();
            }
        }
        let skipped = skips.read()?;
        let skipped = parse_skips(&skipped);
        for line in &skipped {
            say(format!("{line}\n").as_bytes());
        }
        if passed_later > 0 {
            // All that had failed have passed now, and the program's exit code said no more.
            let mut tally = reader.finish(true, skipped.len());
            tally.failed -= passed_later;
            tally.passed += passed_later;
            return Ok(tally);
        }
        Ok(reader.finish(success, skipped.len()))
    }

    /// Runs these tests, or all; what they said, whether the program ended well, and for how
    /// long the machine stood still.
    fn run_tests(
        &self,
        package: &Path,
        tests: &[String],
        skips: &SkipFile,
        say: &mut impl FnMut(&[u8]),
    ) -> anyhow::Result<(Reader, bool, Duration)> {
        let mut command = Command::new(&self.program.executable);
        command
            // As cargo does.
            .current_dir(package)
            .env("CARGO_MANIFEST_DIR", package)
            .env(VIP_CTL, self.vip_ctl)
            .env(SKIPS, &skips.path);
        if self.program.kind == "test" && env::var_os("RUST_TEST_THREADS").is_none() {
            command.arg("--test-threads=1");
        }
        if tests.is_empty() {
            command.args(&self.args.filter);
        } else {
            command.arg("--exact").args(tests);
        }
        command.args(&self.args.harness);
        let mut reader = Reader::default();
        let watch = StallWatch::start();
        let status = process::run_streamed(&mut command, LIMIT, |bytes| {
            say(bytes);
            reader.feed(bytes);
        });
        let stall = watch.finish();
        let status = status?;
        if !status.success() && status.code() != Some(101) {
            // 101 is libtest's own; anything else is news.
            eprintln!("xtask: {} ended with {status}", self.program.executable.display());
        }
        Ok((reader, status.success(), stall))
    }
}

fn run_doc_tests(place: &Place, args: &TestArgs) -> anyhow::Result<Tally> {
    let mut reader = Reader::default();
    let mut command = cargo_test(place, args);
    command.arg("--doc").args(&args.filter).arg("--").args(&args.harness);
    let status = process::run_streamed(&mut command, LIMIT, |bytes| {
        say(bytes);
        reader.feed(bytes);
    })?;
    Ok(reader.finish(status.success(), 0))
}

/// Shows output as it comes, also where a test is still running.
fn say(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    // A reader that went away (`| head`) is no reason to leave tests half done.
    let _unread = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Where the tests of one program note that they skipped themselves.
struct SkipFile {
    path: PathBuf,
}

impl SkipFile {
    fn new(place: &Place) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = place.root().join(format!("target/test-skips-{}-{number}", std::process::id()));
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path })
    }

    fn read(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

impl Drop for SkipFile {
    fn drop(&mut self) {
        // It is below target/: left behind, it harms nobody.
        let _left = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_apart_by_their_outermost_module() {
        let list = "host::a: test\nbare: test\nhost::deep::b: test\nhost::c: benchmark\nhttp::d: test\n";
        let modules = parse_modules(list);
        let all: Vec<_> = modules.iter().map(|(name, tests)| (name.as_str(), tests.as_slice())).collect();
        let [bare, host, http] = [&["bare"][..], &["host::a", "host::deep::b"], &["http::d"]]
            .map(|tests| tests.iter().map(|&test| test.to_owned()).collect::<Vec<_>>());
        assert_eq!(all, [("", &bare[..]), ("host", &host), ("http", &http)]);
    }
}
