//! The panel in a real browser: what a person sees, that a switchover needs a
//! confirmation and is done by keyboard alone, and that nothing is loaded
//! from anywhere else.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::browser::{self, Browser};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, skip, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const TAB: u32 = 9;
const ENTER: u32 = 13;
const ESCAPE: u32 = 27;
/// Where to put pictures for a person to look at.
const SHOW: &str = "VIP_PANEL_PICTURES";

#[lab_test]
fn a_person_sees_the_cluster_and_moves_a_group() -> Result<()> {
    let Some(program) = browser::program() else {
        skip::note(TEST, "there is no browser: install Debian's chromium");
        return Ok(());
    };
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?));
    let lab = Lab::new(&spec)?;
    for node in lab.nodes() {
        node.ns().ip("link set lo up")?;
        let file = node.config_file();
        let tokens = file.with_file_name("tokens");
        std::fs::write(&tokens, format!("operate {TOKEN}\n"))?;
        std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600))?;
        let text = std::fs::read_to_string(&file)?;
        node.write_config(&format!("{text}\n[api]\nlisten = \"127.0.0.1:7078\"\ntokens = \"tokens\"\n"))?;
    }
    let rig = Rig::start(lab, &spec, ArpProbes::Off, |_| ())?;
    let holder = rig.holder()?;
    let dir = rig.lab.id().dir().join("browser");
    let mut browser = Browser::start(program, holder.ns(), &dir, 1000, 1090)?;
    browser.open("http://127.0.0.1:7078/")?;

    // The page rejects a wrong token. A good one opens it, and stays in this tab only.
    browser.wait("the question who it is", |text| text.contains("Who are you?"))?;
    let typed = "document.activeElement.id";
    ensure!(browser.evaluate(typed)? == "token", "the field has the focus");
    browser.insert(&"0".repeat(32))?;
    browser.press("Enter", ENTER)?;
    browser.wait("the refusal", |text| text.contains("the token is not known here"))?;
    browser.evaluate("document.getElementById('token').focus()")?;
    browser.insert(TOKEN)?;
    browser.press("Enter", ENTER)?;
    let (vip, held) = (VIP.to_string(), format!("held by {}", holder.name()));
    browser.wait("the cluster", |text| {
        ["vip lab", "quorate", "active here", "db-a", "db-b", "db-c", "heard", &vip, &held, "lease "]
            .iter()
            .all(|part| text.contains(part))
    })?;
    ensure!(browser.evaluate("localStorage.length")? == 0 && browser.evaluate("document.cookie")? == "");
    let loaded =
        "performance.getEntriesByType('resource').every(entry => entry.name.startsWith(location.origin))";
    ensure!(browser.evaluate(loaded)? == true);
    // A script that found its way into the page would not run.
    let injected = "{ const s = document.createElement('script'); s.textContent = 'window.evil = 1'; \
                    document.body.append(s); s.remove(); window.evil === undefined }";
    ensure!(browser.evaluate(injected)? == true, "the policy keeps scripts out");

    // Every column has a heading, and no row looks like an alarm where nothing was dropped.
    let headed = "[...document.querySelectorAll('th')].every(th => th.textContent.trim())";
    ensure!(browser.evaluate(headed)? == true, "{}", browser.text()?);
    for (dropped, kind) in [(0, "nothing"), (1, "dropped")] {
        let drawn =
            format!("spark([{{ dropped: 0 }}, {{ dropped: {dropped} }}], 'dropped').firstChild.classList[0]");
        ensure!(browser.evaluate(&drawn)? == kind, "{dropped} dropped");
    }

    // By keyboard alone: go to the button, answer no, then answer yes.
    let start = clock::now();
    let on_button = "document.activeElement.dataset.move === 'db'";
    for _ in 0..8 {
        if browser.evaluate(on_button)? == true {
            break;
        }
        browser.press("Tab", TAB)?;
    }
    ensure!(browser.evaluate(on_button)? == true, "{}", browser.text()?);
    browser.press("Enter", ENTER)?;
    browser.wait("the question", |text| text.contains("Move db away from") && text.contains("Cancel"))?;
    if let Some(to) = std::env::var_os(SHOW) {
        std::fs::write(Path::new(&to).join("panel-ask.png"), browser.picture()?)?;
    }
    browser.press("Escape", ESCAPE)?;
    std::thread::sleep(Duration::from_millis(500));
    rig.expect_calm(start, holder.name())?;
    a_person_takes_their_time(&mut browser)?;

    let target = rig.lab.nodes().iter().find(|node| node.name() != holder.name()).context("three nodes")?;
    let start = clock::now();
    browser.evaluate("document.querySelector('[data-move=db]').click()")?;
    browser.wait("the question", |text| text.contains("Move db away from"))?;
    let offered =
        browser.evaluate("[...document.querySelectorAll('#ask-to option')].map(o => o.value).join()")?;
    ensure!(
        !offered.as_str().unwrap_or_default().contains(holder.name()),
        "the holder is no target: {offered}"
    );
    browser.evaluate(&format!("document.getElementById('ask-to').value = '{}'", target.name()))?;
    browser.evaluate("document.getElementById('ask-yes').click()")?;
    let outcome = format!("{} holds {GROUP} now", target.name());
    browser.wait("the outcome", |text| text.contains(&outcome))?;
    rig.expect_move(start, holder.name())?;
    browser.wait("the history", |text| text.contains("Moves") && text.contains("active -> standby"))?;
    browser.wait("the new state", |text| text.contains(&format!("held by {}", target.name())))?;

    // When this node takes over, the page shows the gap, and the plot has a point for it.
    let points = "document.querySelectorAll('#plot circle').length";
    let before = browser.evaluate(points)?.as_u64().context("a number of points")?;
    target.succeed(&["switchover", GROUP, "--to", holder.name()])?;
    let told = format!("{} takeover", before + 1);
    browser.wait("the gap", |text| text.contains(&told) && text.contains("by this node"))?;
    ensure!(browser.evaluate(points)?.as_u64() == Some(before + 1));
    let point =
        browser.evaluate("[...document.querySelectorAll('#plot circle title')].at(-1).textContent")?;
    ensure!(
        point.as_str().is_some_and(|point| point.starts_with("db, ") && point.ends_with(" ms")),
        "{point}"
    );
    if let Some(to) = std::env::var_os(SHOW) {
        show(&rig, holder, target, &mut browser, Path::new(&to))?;
    }

    // The agent goes away, and comes back.
    holder.kill_agent()?;
    browser.wait("that nobody answers", |text| text.contains("The agent does not answer"))?;
    holder.start_agent()?;
    browser.wait("the agent again", |text| text.contains("quorate") && !text.contains("does not answer"))?;
    Ok(())
}

/// A click counts even if the page is drawn anew while the button is down, and selected text
/// stays selected.
fn a_person_takes_their_time(browser: &mut Browser) -> Result<()> {
    let is_asked = "document.getElementById('ask').open";
    for _ in 0..6 {
        browser.click("[data-move=db]", Duration::from_millis(600))?;
        let asked = wait_until(clock::now().plus(PATIENCE), || {
            browser.evaluate(is_asked).is_ok_and(|is_asked| is_asked == true)
        });
        ensure!(asked, "a slow click was lost:\n{}", browser.text()?);
        browser.press("Escape", ESCAPE)?;
        ensure!(browser.evaluate(is_asked)? == false);
    }
    let selected = "getSelection().toString()";
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#groups h2'))")?;
    ensure!(browser.evaluate(selected)? == GROUP);
    browser.wait("why it stands still", |text| text.contains("Not drawn anew while text is selected"))?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(browser.evaluate(selected)? == GROUP, "what was selected is gone");
    browser.evaluate("getSelection().removeAllRanges()")?;
    let mark = "document.querySelector('#groups h2').dataset.old";
    browser.evaluate(&format!("{mark} = 'yes'"))?;
    let is_new =
        wait_until(clock::now().plus(PATIENCE), || browser.evaluate(mark).is_ok_and(|mark| mark.is_null()));
    ensure!(is_new, "it is drawn anew again");
    browser.wait("no more of that", |text| !text.contains("Not drawn anew"))
}

/// Pictures of a cluster in which something has happened.
fn show(rig: &Rig, node: &Node, other: &Node, browser: &mut Browser, to: &Path) -> Result<()> {
    for round in 0..7 {
        node.succeed(&["switchover", GROUP, "--to", other.name()])?;
        std::thread::sleep(Duration::from_secs(2));
        if round % 3 == 1 {
            other.kill_agent()?;
            rig.wait_answerer(Some(other.name()), || ())?;
            other.start_agent()?;
            rig.lab.wait_quorate(PATIENCE)?;
        }
        if rig.holder()?.name() != node.name() {
            node.succeed(&["switchover", GROUP, "--to", node.name()])?;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_secs(20));
    for scheme in ["dark", "light"] {
        browser.prefer(scheme)?;
        std::fs::write(to.join(format!("panel-{scheme}.png")), browser.picture()?)?;
    }
    Ok(())
}
