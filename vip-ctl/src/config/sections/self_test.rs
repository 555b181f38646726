//! `self_test` in `[node]`: what follows where peers do not hear this node's data plane.

use crate::config::text::{report::Report, section::Section};

/// What follows where most peers find that the data plane's answers on an interface do not
/// arrive, while the host's own do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelfTest {
    /// The node takes nothing over, and gives what it holds to one that is ready for it.
    #[default]
    Release,
    /// It is told, and nothing more.
    Alarm,
    /// Nobody is asked, and nobody is heard.
    Off,
}

/// Reads the key; what is wrong is reported.
pub(super) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Option<SelfTest> {
    let what = "\"release\", \"alarm\" or \"off\"";
    let given = section.string("self_test", what, report)?;
    match &**given.get_ref() {
        "release" => Some(SelfTest::Release),
        "alarm" => Some(SelfTest::Alarm),
        "off" => Some(SelfTest::Off),
        other => {
            report.add(given.span(), format!("self_test = {other:?} means nothing: write {what}"));
            None
        }
    }
}

/// Reads `steer`: whether this node sends on to the holder what clients send to it by
/// mistake. Where the other nodes are, the test says.
pub(super) fn read_steer(section: &Section<'_>, self_test: SelfTest, report: &mut Report<'_>) -> bool {
    let given = section.boolean("steer", report);
    let is_tested = self_test != SelfTest::Off;
    if let Some(given) = given.as_ref().filter(|given| *given.get_ref() && !is_tested) {
        let message = "steer = true takes the self-test, which finds where the other nodes are: leave out self_test = \"off\", or steer";
        report.add(given.span(), message.to_owned());
    }
    is_tested && given.is_none_or(|given| *given.get_ref())
}
