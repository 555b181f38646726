//! The history of a node: changes and hooks, one JSON object a line, in the
//! state directory. It is a record for people. Nothing depends on it: a disk
//! that is full or hangs costs lines of it, and nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing::warn;
use vip_common::BootNs;

use crate::{dataplane::clock, event::Event};

const FILE: &str = "history.jsonl";
const FORMER: &str = "history.jsonl.1";
/// Bytes after which a file is put aside; one is kept. Some ten thousand changes each.
const LEN_MAX: u64 = 4 << 20;
/// Records that wait for the disk; ten thousand groups can move at once.
const WAITING_MAX: usize = 32_768;
/// How often at most it is complained that records are lost.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Starts the thread that writes the history in `state_dir`; where to send
/// what belongs there.
///
/// # Errors
/// If there is no thread to be had.
pub fn start(state_dir: &Path) -> io::Result<SyncSender<Arc<Event>>> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let writer = Writer { dir: state_dir.to_owned(), file: None, complained: None };
    thread::Builder::new().name("history".into()).spawn(move || writer.run(&receiver))?;
    Ok(sender)
}

struct Writer {
    dir: PathBuf,
    /// With its length.
    file: Option<(File, u64)>,
    complained: Option<BootNs>,
}

impl Writer {
    fn run(mut self, events: &Receiver<Arc<Event>>) {
        while let Ok(event) = events.recv() {
            if let Err(e) = self.write(&event) {
                // Opened anew for the next one.
                self.file = None;
                let now = clock::now();
                if self.complained.is_none_or(|last| now.since(last) >= COMPLAINT_PAUSE) {
                    self.complained = Some(now);
                    warn!("the history in {} loses records: {e}", self.dir.display());
                }
            }
        }
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.file.as_ref().is_some_and(|(_, len)| *len >= LEN_MAX) {
            self.file = None;
            fs::rename(self.dir.join(FILE), self.dir.join(FORMER))?;
        }
        let (file, len) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(open(&self.dir)?),
        };
        file.write_all(&line)?;
        *len += line.len() as u64;
        Ok(())
    }
}

/// Opens the file to be appended to, after a whole line.
fn open(dir: &Path) -> io::Result<(File, u64)> {
    fs::create_dir_all(dir)?;
    // What a hook prints may be nobody else's business.
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    let mut file = options.open(dir.join(FILE))?;
    let mut len = file.seek(SeekFrom::End(0))?;
    if len > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // What a full disk or a crash has cut off stays a line of its own.
            file.write_all(b"\n")?;
            len += 1;
        }
    }
    Ok((file, len))
}

/// What the history has, oldest first. Lines that can't be read are left out.
///
/// # Errors
/// If a file is there and can't be read.
pub fn read(state_dir: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for name in [FORMER, FILE] {
        let file = match File::open(state_dir.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for line in BufReader::new(file).split(b'\n') {
            events.extend(serde_json::from_slice::<Event>(&line?).ok());
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Change, Events, Kind};

    fn dir(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("vip-history-{name}-{}", std::process::id()))
    }

    fn writer(dir: &Path) -> Writer {
        Writer { dir: dir.to_owned(), file: None, complained: None }
    }

    fn event(message: &str) -> Arc<Event> {
        Events::new("db-a", None).publish(Some("db"), Kind::Changed(Change::default()), message)
    }

    fn messages(dir: &Path) -> Vec<String> {
        read(dir).unwrap().into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn what_was_written_is_read_also_by_the_next_agent_and_after_a_torn_line() {
        let dir = dir("torn");
        assert!(read(&dir).unwrap().is_empty(), "what was never written is empty");
        let mut first = writer(&dir);
        first.write(&event("one")).unwrap();
        first.write(&event("two")).unwrap();
        drop(first);
        OpenOptions::new().append(true).open(dir.join(FILE)).unwrap().write_all(b"{\"seq\":3,").unwrap();
        writer(&dir).write(&event("four")).unwrap();
        assert_eq!(messages(&dir), ["one", "two", "four"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn one_file_is_put_aside_and_no_more() {
        let dir = dir("rotate");
        let mut writer = writer(&dir);
        let long = "x".repeat(usize::try_from(LEN_MAX).unwrap() / 4);
        for _ in 0..14 {
            writer.write(&event(&long)).unwrap();
        }
        let len = |name| fs::metadata(dir.join(name)).unwrap().len();
        assert!(len(FILE) + len(FORMER) < 3 * LEN_MAX);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        assert!(messages(&dir).len() >= 4);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_disk_that_is_full_costs_records_until_there_is_room_again() {
        let dir = dir("full");
        fs::create_dir_all(&dir).unwrap();
        // Writing there fails as on a full disk.
        std::os::unix::fs::symlink("/dev/full", dir.join(FILE)).unwrap();
        let (sender, receiver) = sync_channel(8);
        let thread = thread::spawn({
            let writer = writer(&dir);
            move || writer.run(&receiver)
        });
        sender.send(event("lost")).unwrap();
        thread::sleep(Duration::from_millis(200));
        fs::remove_file(dir.join(FILE)).unwrap();
        sender.send(event("kept")).unwrap();
        drop(sender);
        thread.join().unwrap();
        assert_eq!(messages(&dir), ["kept"]);
        fs::remove_dir_all(dir).unwrap();
    }
}
