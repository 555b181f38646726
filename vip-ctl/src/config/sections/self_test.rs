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
