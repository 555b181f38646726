//! A browser for the panel: headless Chromium, driven by its own protocol
//! over two pipes. What a page should look like is the tests' business.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde_json::{Value, json};

use super::{Netns, clock, wait_until};

/// How long the browser may take for an answer, and a page to become what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The file descriptors by which the browser reads commands and writes answers.
const COMMANDS_FD: i32 = 3;
const ANSWERS_FD: i32 = 4;
/// What it may be called.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page; ended on drop.
pub struct Browser {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: Option<String>,
    next: u64,
}

/// The browser's program, if there is one.
#[must_use]
pub fn program() -> Option<&'static str> {
    let paths = std::env::var_os("PATH")?;
    NAMES.iter().copied().find(|name| std::env::split_paths(&paths).any(|dir| dir.join(name).is_file()))
}

impl Browser {
    /// Starts `program` inside `ns`, keeping what it keeps in `dir`, with an
    /// empty page of this size.
    ///
    /// # Errors
    /// When it can't be started or does not answer.
    pub fn start(program: &str, ns: &Netns, dir: &Path, width: u32, height: u32) -> Result<Self> {
        let (commands_far, commands) = pipe2(OFlag::O_CLOEXEC)?;
        let (answers, answers_far) = pipe2(OFlag::O_CLOEXEC)?;
        let mut command = ns.command(program)?;
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"])
            .args(["--remote-debugging-pipe", &format!("--window-size={width},{height}")])
            .arg(format!("--user-data-dir={}", dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        hand_over(&mut command, commands_far, answers_far);
        let child = {
            let _gate = super::cleanup::gate()?;
            command.spawn().with_context(|| format!("starting {program}"))?
        };
        drop(command);
        let (told, heard) = channel();
        std::thread::Builder::new().name("browser".into()).spawn(move || {
            // Messages end with a NUL.
            for message in BufReader::new(File::from(answers)).split(0) {
                let Ok(message) = message else { return };
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if told.send(message).is_err() {
                    return;
                }
            }
        })?;
        let mut browser =
            Self { child, commands: File::from(commands), answers: heard, session: None, next: 1 };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session =
            Some(attached["sessionId"].as_str().context("the browser has opened no session")?.to_owned());
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", &size)?;
        Ok(browser)
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.commands.write_all(&bytes).with_context(|| format!("sending {method} to the browser"))?;
        loop {
            let answer = match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the browser has not answered {method} within {PATIENCE:?}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the browser ended at {method}"),
            };
            // Events have no id.
            if answer["id"] == id {
                ensure!(answer["error"].is_null(), "the browser refuses {method}: {}", answer["error"]);
                return Ok(answer["result"].clone());
            }
        }
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When it can't be loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", &json!({ "url": url }))?;
        ensure!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        Ok(())
    }

    /// What a script on the page comes to.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, script: &str) -> Result<Value> {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &params)?;
        ensure!(result["exceptionDetails"].is_null(), "{script}: {}", result["exceptionDetails"]);
        Ok(result["result"]["value"].clone())
    }

    /// The text that a person sees on the page.
    ///
    /// # Errors
    /// When the page can't be asked.
    pub fn text(&mut self) -> Result<String> {
        Ok(self.evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page's text is as wanted.
    ///
    /// # Errors
    /// When it does not become so, with what is there instead.
    pub fn wait(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<()> {
        let mut text = String::new();
        let seen = wait_until(clock::now().plus(PATIENCE), || {
            text = self.text().unwrap_or_default();
            wanted(&text)
        });
        ensure!(seen, "the page has not shown {what} within {PATIENCE:?}; it shows:\n{text}");
        Ok(())
    }

    /// Types a text into what has the focus.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn insert(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({ "text": text })).map(drop)
    }

    /// Presses and releases a key, by its name and its code of old.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Presses the mouse's main button over the middle of what `selector`
    /// finds, keeps it down for `time`, and lets go.
    ///
    /// # Errors
    /// When it is not on the page, or the browser refuses.
    pub fn click(&mut self, selector: &str, time: Duration) -> Result<()> {
        let middle = format!(
            "{{ const box = document.querySelector({}).getBoundingClientRect(); \
             [box.x + box.width / 2, box.y + box.height / 2] }}",
            json!(selector)
        );
        let middle = self.evaluate(&middle)?;
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let mut event = json!({ "type": kind, "x": middle[0], "y": middle[1] });
            if kind != "mouseMoved" {
                (event["button"], event["clickCount"]) = (json!("left"), json!(1));
                event["buttons"] = json!(u8::from(kind == "mousePressed"));
            }
            self.call("Input.dispatchMouseEvent", &event)?;
            if kind == "mousePressed" {
                std::thread::sleep(time);
            }
        }
        Ok(())
    }

    /// Sets whether the person likes it `dark` or `light`.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// A picture of the page, as PNG.
    ///
    /// # Errors
    /// When the browser makes none.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let made = self.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        decoded(made["data"].as_str().context("the browser's answer has no picture")?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended long ago; its helpers end when its pipes do.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Gives the child its ends of the pipes under the numbers that it expects.
fn hand_over(command: &mut std::process::Command, commands: OwnedFd, answers: OwnedFd) {
    // SAFETY: between fork and exec the closure makes system calls on
    // descriptors that it owns, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // Out of the way first: one of them may have the other's number.
            let high = [&commands, &answers].map(|fd| libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10));
            for (from, to) in high.into_iter().zip([COMMANDS_FD, ANSWERS_FD]) {
                if from < 0 || libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// What base64 stands for.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for character in text.bytes().filter(|character| *character != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("the picture is not base64: it has the byte {character}"),
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff)?);
            held &= (1 << bits) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, expected) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decoded(text).unwrap(), expected.as_bytes());
        }
        assert_eq!(decoded("+/8=").unwrap(), [0xfb, 0xff]);
        assert!(decoded("a b").is_err());
    }
}
