//! An HTTP client that is small enough to be trusted by reading: one request
//! a connection, over whatever stream it is given. What answers mean is the
//! tests' business.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long a server may be silent in the middle of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("the body is not JSON: {self:?}"))
    }

    /// The word and the exit code of an error.
    ///
    /// # Errors
    /// When it is no error of the documented form.
    pub fn error(&self) -> Result<(String, u64)> {
        let json = self.json()?;
        let error = &json["error"];
        ensure!(
            error["message"].as_str().is_some_and(|message| !message.is_empty()),
            "no error message: {self:?}"
        );
        let code = error["code"].as_str().with_context(|| format!("no error code: {self:?}"))?;
        let exit = error["exit"].as_u64().with_context(|| format!("no exit code: {self:?}"))?;
        Ok((code.to_owned(), exit))
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// GET or POST.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// Further headers.
    pub headers: Vec<(&'a str, String)>,
    /// The body; none if empty.
    pub body: String,
}

impl<'a> Ask<'a> {
    /// A GET.
    #[must_use]
    pub fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: Vec::new(), body: String::new() }
    }

    /// A POST of JSON, with the header that it needs; without a body if `body` is null.
    #[must_use]
    pub fn post(path: &'a str, body: &Value) -> Self {
        let mut headers = vec![("x-vip-request", "1".to_owned())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        Self { method: "POST", path, headers, body }
    }

    /// The same with a header more.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with a token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    /// Sends it through the unix socket `path`.
    ///
    /// # Errors
    /// When nobody listens there, or the answer is no HTTP.
    pub fn to_unix(&self, path: &Path) -> Result<Answer> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        self.over(stream)
    }

    /// Sends it over a connection, and reads to its end.
    ///
    /// # Errors
    /// When the stream fails, or the answer is no HTTP.
    pub fn over(&self, mut stream: impl Read + Write) -> Result<Answer> {
        let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            text += "host: localhost\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        // A server may refuse and close before it has read all: its answer counts.
        let sent = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        match parse(&bytes) {
            Ok(answer) => Ok(answer),
            Err(e) => bail!("{} {}: {e:#} (sent: {sent:?}, read: {read:?})", self.method, self.path),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) =
        text.split_once("\r\n\r\n").with_context(|| format!("the answer is not HTTP: {text:?}"))?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).context("the answer has no status line")?;
    let headers: Option<BTreeMap<_, _>> = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect();
    let headers = headers.context("the answer has a header without a colon")?;
    if let Some(len) = headers.get("content-length") {
        ensure!(
            body.len() == len.parse::<usize>()?,
            "the body has {} bytes, its header says {len}",
            body.len()
        );
    }
    Ok(Answer { status: status.parse()?, headers, body: body.to_owned() })
}
