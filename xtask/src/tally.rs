//! Counts tests in what libtest prints, and reports the sum. [`crate::test`] runs
//! the tests.

use std::fmt;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// Good only if something ran and nothing failed: a run that skipped
    /// everything has shown nothing.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts one check that is not a libtest test.
    pub(crate) fn check(&mut self, good: bool) {
        if good {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// The last line of `cargo xtask test` and `ci`; scripts read it.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads one test program's output, in pieces as they come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    /// From summaries, which are exact.
    told: Tally,
    /// Tests that the harness announced and has not summed up yet.
    announced: Option<usize>,
    /// Single results since then, for a program that dies before its summary.
    seen: Tally,
    /// The names below the last `failures:`.
    named: Vec<String>,
    /// Was there a line about something that no noise explains?
    unsafe_seen: bool,
}

/// Lines of lab tests when two nodes had the VIP, or one without a lease: see
/// `Rig::expect_move`, `Rig::expect_silence` and the tests of `tests/`.
const UNSAFE: [&str; 10] = [
    "answered by two",
    "answered in turns",
    "VIP as source",
    "two holders",
    "has answered",
    "without a lease",
    "before it was promoted",
    "is not guarded",
    "while the hook ran",
    "before pre_demote had ended",
];

/// Up to this many failures at once may come from noise.
const EXCUSABLE_MAX: usize = 2;

impl Reader {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.read_line(String::from_utf8_lossy(&line).trim_end());
            } else {
                self.line.push(*byte);
            }
        }
    }

    /// The tests of a program whose failures may come from a machine that stood
    /// still: few, all known by name, and none about safety. The caller must know
    /// that the machine did stand still.
    pub(crate) fn excusable(&self) -> Option<&[String]> {
        let summed_up = self.announced.is_none() && self.told.failed == self.named.len();
        let few = (1..=EXCUSABLE_MAX).contains(&self.named.len());
        (summed_up && few && !self.unsafe_seen).then_some(&self.named[..])
    }

    fn read_line(&mut self, line: &str) {
        self.unsafe_seen |= UNSAFE.iter().any(|words| line.contains(words)) || counts_two(line);
        if line == "failures:" {
            self.named.clear();
        } else if self.told.failed == 0
            && let Some(name) = line.strip_prefix("    ")
            && !name.contains(char::is_whitespace)
        {
            self.named.push(name.to_owned());
        }
        if let Some(number) = line.strip_prefix("running ").and_then(|rest| {
            rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))?.parse::<usize>().ok()
        }) {
            self.close();
            self.announced = Some(number);
        } else if self.announced.is_some()
            && let Some(sum) = parse_summary(line)
        {
            self.told.add(sum);
            self.announced = None;
            self.seen = Tally::default();
        } else if line.starts_with("test ") {
            // With output of the test itself in between, the verdict may stand
            // on a line without the name; then only the summary counts it.
            if line.ends_with(" ... ok") {
                self.seen.passed += 1;
            } else if line.ends_with(" ... FAILED") {
                self.seen.failed += 1;
            } else if line.contains(" ... ignored") {
                self.seen.skipped += 1;
            }
        }
    }

    /// Takes stock of tests that were announced and never summed up: the program
    /// died in one of them.
    fn close(&mut self) {
        if self.announced.take().is_some() {
            let mut seen = std::mem::take(&mut self.seen);
            seen.failed += 1;
            self.told.add(seen);
        }
    }

    /// The sum of a program that ended, `success` being what its exit code said,
    /// after `skips`, the number of tests that passed only because they skipped
    /// themselves.
    pub(crate) fn finish(mut self, success: bool, skips: usize) -> Tally {
        self.close();
        let mut sum = self.told;
        let skips = skips.min(sum.passed);
        sum.passed -= skips;
        sum.skipped += skips;
        if !success && sum.failed == 0 {
            sum.failed = 1;
        }
        sum
    }
}

/// Whether a line shows a count of frames from a second node other than 0, as
/// Debug or JSON spell it.
fn counts_two(line: &str) -> bool {
    line.split("answered_by_two").skip(1).any(|rest| {
        let count = rest.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '}');
        count.starts_with(|c: char| ('1'..='9').contains(&c))
    })
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
fn parse_summary(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("test result: ")?;
    let counts = rest.split_once(". ")?.1;
    let count = |name: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim_end().parse::<usize>().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// How many different tests the file of skips names, and why it skips each. A
/// line is `skipped: NAME: why`.
pub(crate) fn parse_skips(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("skipped: ") else { continue };
        let name = rest.split(": ").next().unwrap_or(rest);
        if !names.contains(&name) {
            names.push(name);
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool, skips: usize) -> Tally {
        let mut reader = Reader::default();
        // In pieces that respect nothing, as a pipe gives them.
        for piece in text.as_bytes().chunks(7) {
            reader.feed(piece);
        }
        reader.finish(success, skips)
    }

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally { passed, failed, skipped }
    }

    const GOOD: &str = "\nrunning 3 tests\ntest a ... ok\ntest b ... ignored, slow\ntest c ... ok\n\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s\n\n";
    const BAD: &str = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\
        test result: nonsense\n\nfailures:\n    b\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn summaries_are_counted_and_ignored_tests_are_skipped_ones() {
        assert_eq!(read(GOOD, true, 0), tally(2, 0, 1));
        assert_eq!(read(BAD, false, 0), tally(1, 1, 0));
        assert_eq!(read(&[GOOD, BAD].concat(), false, 0), tally(3, 1, 1));
    }

    #[test]
    fn tests_that_skipped_themselves_have_not_passed() {
        assert_eq!(read(GOOD, true, 1), tally(1, 0, 2));
        assert_eq!(read(GOOD, true, 9), tally(0, 0, 3), "never more than passed");
    }

    #[test]
    fn a_program_that_dies_has_failed_once() {
        let dies = "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... ";
        assert_eq!(read(dies, false, 0), tally(2, 1, 0));
        assert_eq!(read("", false, 0), tally(0, 1, 0), "it did not even start");
        assert_eq!(read(GOOD, false, 0), tally(2, 1, 1), "it failed after its summary");
        assert_eq!(
            read(&["running 1 test\n", GOOD].concat(), false, 0),
            tally(2, 1, 1),
            "one of two harnesses died"
        );
    }

    #[test]
    fn few_failures_are_excusable_and_none_about_safety() {
        let excusable = |text: &str| {
            let mut reader = Reader::default();
            reader.feed(text.as_bytes());
            reader.excusable().map(<[String]>::to_vec)
        };
        assert_eq!(excusable(BAD), Some(vec!["b".to_owned()]));
        assert_eq!(excusable(GOOD), None, "nothing failed");
        assert_eq!(excusable(&BAD.replace("nonsense", "answered by two: 3")), None);
        assert_eq!(excusable(&BAD.replace("nonsense", "V { answered_by_two: 12 }")), None);
        assert_eq!(excusable(&BAD.replace("nonsense", "{\"answered_by_two\":7}")), None);
        assert!(excusable(&BAD.replace("nonsense", "V { answered_by_two: 0 }, 7")).is_some());
        assert_eq!(excusable(&BAD.replace("    b\n", "    b\n    c\n")), None, "two names and one failure");
        let many = BAD.replace("1 failed", "3 failed").replace("    b\n", "    b\n    c\n    d\n");
        assert_eq!(excusable(&many), None);
        assert_eq!(excusable("running 2 tests\ntest a ... FAILED\n"), None, "it died");
        let talks = BAD.replace("nonsense", "nonsense\n    indented\n   0: main");
        assert_eq!(excusable(&talks), Some(vec!["b".to_owned()]));
    }

    #[test]
    fn what_tests_print_is_not_counted() {
        let talk = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(&[talk, GOOD].concat(), true, 0), tally(2, 0, 1));
    }

    #[test]
    fn a_run_in_which_nothing_passed_is_not_good() {
        assert!(!tally(0, 0, 0).is_good());
        assert!(!tally(0, 0, 5).is_good());
        assert!(!tally(5, 1, 0).is_good());
        assert!(tally(5, 0, 1).is_good());
    }

    #[test]
    fn the_last_line_has_the_shape_that_scripts_read() {
        assert_eq!(tally(12, 3, 4).to_string(), "12 passed, 3 failed, 4 skipped");
    }

    #[test]
    fn a_test_that_skips_twice_is_one_test() {
        let text = "skipped: cut: no root\nskipped: cut: no bridge\nnoise\nskipped: kill: no root: really\n";
        assert_eq!(parse_skips(text), ["skipped: cut: no root", "skipped: kill: no root: really"]);
    }
}
