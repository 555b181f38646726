//! The archive that a kernel unpacks as its first root: cpio in the form `newc`
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).
//! What goes into it is [`super::root`]'s.

use std::{
    io::{self, Write},
    path::Path,
};

/// File types of `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// Writes entries one after the other; all belong to root.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// A directory; its parents have to come before it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// A file that all may read and execute.
    ///
    /// # Errors
    /// When it cannot be written, or has more than 4 GiB.
    pub(super) fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn link(&mut self, path: &Path, to: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, to.as_bytes())
    }

    /// The end, without which the kernel takes the archive for a broken one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, owner, group, links, time, size, device, device of a device, name, sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            header.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        header.extend_from_slice(name);
        header.push(0);
        self.padded(&header)?;
        self.padded(content)
    }

    /// Everything begins at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        let rest = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..rest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_at_a_multiple_of_four_bytes() {
        let mut archive = Archive::new(Vec::new());
        archive.directory(Path::new("/bin")).expect("written");
        archive.file(Path::new("/bin/a"), b"12345").expect("written");
        archive.link(Path::new("/sh"), "bin/a").expect("written");
        let bytes = archive.finish().expect("written");
        let text = String::from_utf8_lossy(&bytes);
        let at: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(at.len(), 4, "three entries and the end: {text}");
        assert!(at.iter().all(|at| at % 4 == 0), "{at:?}");
        // A header has 110 bytes, and `bin/a` with its NUL six.
        assert_eq!(&bytes[at[1] + 116..at[1] + 124], b"12345\0\0\0");
        assert_eq!(&text[at[1] + 6 + 8..at[1] + 6 + 16], "000081ed", "a file with 0755");
    }
}
