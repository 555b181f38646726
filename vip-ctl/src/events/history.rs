//! The history of a node: changes and hooks, one JSON object a line, in the state
//! directory. It is a record for people. Nothing depends on it: a disk that is
//! full or hangs costs lines of it, and nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt},
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

use super::Event;
use crate::clock;

const FILE: &str = "history.jsonl";
const FORMER: &str = "history.jsonl.1";
/// Bytes after which the writer starts a new file, and keeps the former one. Some
/// ten thousand changes each.
const LEN_MAX: u64 = 4 << 20;
/// Records that wait for the disk; ten thousand groups can move at once.
const WAITING_MAX: usize = 32_768;
/// Bytes to read at once from a file's end.
const BLOCK_LEN: u64 = 64 << 10;
/// A longer line is no record: a hook's output is cut off far below this many
/// bytes.
const LINE_LEN_MAX: usize = 256 << 10;
/// How often at most the log complains that records are lost.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Starts the thread that writes the history in `state_dir`; returns the channel
/// to it.
///
/// # Errors
/// If the thread can't be started.
pub fn start(state_dir: &Path) -> io::Result<SyncSender<Arc<Event>>> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let writer = Writer { dir: state_dir.to_owned(), file: None, complained: None };
    thread::Builder::new().name("history".into()).spawn(move || writer.run(&receiver))?;
    Ok(sender)
}

struct Writer {
    dir: PathBuf,
    /// The open file, with its length.
    file: Option<(File, u64)>,
    complained: Option<BootNs>,
}

impl Writer {
    fn run(mut self, events: &Receiver<Arc<Event>>) {
        while let Ok(event) = events.recv() {
            if let Err(e) = self.write(&event) {
                // Opens it anew for the next record.
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

/// Opens the file for appending, after a whole line.
fn open(dir: &Path) -> io::Result<(File, u64)> {
    fs::create_dir_all(dir)?;
    // Nobody else shall read what a hook prints.
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    let mut file = options.open(dir.join(FILE))?;
    let mut len = file.seek(SeekFrom::End(0))?;
    if len > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // Ends a line that a full disk or a crash has cut off.
            file.write_all(b"\n")?;
            len += 1;
        }
    }
    Ok((file, len))
}

/// The records of the history, oldest first, without lines that can't be parsed.
///
/// # Errors
/// If a file exists but cannot be read.
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

/// The latest records that are `wanted`, each as the JSON that was written, the
/// oldest first: at most `count_max`, and at most `len_max` bytes of them. Reads
/// the files from their ends, and only as far as necessary.
///
/// # Errors
/// If a file exists but cannot be read.
pub fn latest(
    state_dir: &Path,
    count_max: usize,
    len_max: usize,
    wanted: impl Fn(&Event) -> bool,
) -> io::Result<Vec<String>> {
    let (mut records, mut len) = (Vec::new(), 0);
    let mut last = None;
    'files: for name in [FILE, FORMER] {
        if records.len() >= count_max {
            break;
        }
        let file = match File::open(state_dir.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let metadata = file.metadata()?;
        let is = (metadata.dev(), metadata.ino());
        if last.replace(is) == Some(is) {
            // The writer has started a new file meanwhile, so its records are here
            // already.
            break;
        }
        let mut lines = Backwards { file, left: metadata.len(), held: Vec::new() };
        while records.len() < count_max
            && let Some(line) = lines.next()?
        {
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            if !wanted(&event) {
                continue;
            }
            // JSON is valid UTF-8.
            let Ok(line) = String::from_utf8(line) else { continue };
            len += line.len();
            if len > len_max {
                break 'files;
            }
            records.push(line);
        }
    }
    records.reverse();
    Ok(records)
}

/// The lines of a file, the last one first.
struct Backwards {
    file: File,
    /// Bytes before the part that was read.
    left: u64,
    /// The part that was read and not returned yet.
    held: Vec<u8>,
}

impl Backwards {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        // Bytes at the end that have no line's end.
        let mut searched = 0;
        loop {
            let unsearched = self.held.len() - searched;
            if let Some(at) = self.held[..unsearched].iter().rposition(|byte| *byte == b'\n') {
                let line = self.held.split_off(at + 1);
                self.held.pop();
                return Ok(Some(line));
            }
            if self.left == 0 {
                let line = std::mem::take(&mut self.held);
                return Ok((!line.is_empty()).then_some(line));
            }
            if self.held.len() > LINE_LEN_MAX {
                // Such a line is no record, and neither is its rest.
                self.held.clear();
            }
            searched = self.held.len();
            let len = self.left.min(BLOCK_LEN);
            self.left -= len;
            let mut block = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut block, self.left)?;
            block.append(&mut self.held);
            self.held = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Change, Events, Kind};

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

    /// The messages of the latest records.
    fn latest_messages(dir: &Path, count: usize, len: usize) -> Vec<String> {
        let records = latest(dir, count, len, |event| event.message != "unwanted").unwrap();
        let message = |line: &String| serde_json::from_str::<Event>(line).unwrap().message;
        records.iter().map(message).collect()
    }

    #[test]
    fn the_latest_records_are_read_from_the_end_and_no_more() {
        let dir = dir("latest");
        assert!(
            latest(&dir, 10, LINE_LEN_MAX, |_| true).unwrap().is_empty(),
            "what was never written is empty"
        );
        let mut writer = writer(&dir);
        writer.write(&event("oldest")).unwrap();
        fs::rename(dir.join(FILE), dir.join(FORMER)).unwrap();
        writer.file = None;
        // Several blocks of them, so that lines cross the blocks' borders.
        for number in 0..2_000 {
            writer.write(&event(&format!("{number} {}", "x".repeat(number % 97)))).unwrap();
            writer.write(&event("unwanted")).unwrap();
        }
        OpenOptions::new().append(true).open(dir.join(FILE)).unwrap().write_all(b"{\"seq\":3,").unwrap();
        let all = latest_messages(&dir, usize::MAX, usize::MAX);
        let without: Vec<_> = messages(&dir).into_iter().filter(|message| message != "unwanted").collect();
        assert_eq!(all.len(), 2_001);
        assert_eq!(all, without, "the same as from the beginning");
        assert_eq!(latest_messages(&dir, 3, usize::MAX), all[1_998..]);
        assert!(latest_messages(&dir, 0, usize::MAX).is_empty());
        let some = latest_messages(&dir, usize::MAX, 10_000);
        assert!((10..60).contains(&some.len()), "{}", some.len());
        assert_eq!(some, all[all.len() - some.len()..], "the latest ones that fit");

        // Nothing is read without need: neither the former file, which would fail ...
        fs::remove_file(dir.join(FORMER)).unwrap();
        fs::create_dir(dir.join(FORMER)).unwrap();
        assert_eq!(latest_messages(&dir, 2_000, usize::MAX).len(), 2_000);
        assert!(latest(&dir, 2_001, usize::MAX, |event| event.message != "unwanted").is_err());
        // ... nor what is before the last blocks.
        let file = File::open(dir.join(FILE)).unwrap();
        let len = file.metadata().unwrap().len();
        let mut lines = Backwards { file, left: len, held: Vec::new() };
        for _ in 0..10 {
            assert!(lines.next().unwrap().is_some());
        }
        assert_eq!(lines.left, len - BLOCK_LEN);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_record_may() {
        let dir = dir("endless");
        let mut writer = writer(&dir);
        writer.write(&event("before")).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.join(FILE)).unwrap();
        file.write_all(&vec![b'x'; 3 * LINE_LEN_MAX]).unwrap();
        file.write_all(b"\n").unwrap();
        writer.write(&event("after")).unwrap();
        assert_eq!(latest_messages(&dir, 10, usize::MAX), ["before", "after"]);
        let file = File::open(dir.join(FILE)).unwrap();
        let mut lines = Backwards { left: file.metadata().unwrap().len(), file, held: Vec::new() };
        while lines.next().unwrap().is_some() {
            assert!(lines.held.capacity() <= 2 * LINE_LEN_MAX, "{}", lines.held.capacity());
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
