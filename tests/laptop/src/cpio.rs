//! The archive format of an initrd: cpio "newc", as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` has it.

use std::collections::BTreeSet;
use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Writes an archive, entry by entry. Folders above an entry are made as needed.
pub struct Archive<W> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            folders: BTreeSet::new(),
        }
    }

    /// A folder. Paths are relative to the root of the initrd, without a slash before.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.above(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER | 0o755, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A file with its permission bits.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, REGULAR | mode, (0, 0), content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, LINK | 0o777, (0, 0), to.as_bytes())
    }

    /// A character device. The kernel opens `dev/console` before init can mount anything.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, CHARACTER | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, (0, 0), 0)?;
        Ok(self.out)
    }

    fn above(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path} is too large for an initrd")))?;
        self.header(path, mode, device, size)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn header(&mut self, path: &str, mode: u32, device: (u32, u32), size: u32) -> io::Result<()> {
        let name = u32::try_from(path.len() + 1).map_err(|_| io::Error::other("name too long"))?;
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0,
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        // Magic and fields are 110 bytes; header and name together end on four bytes.
        self.pad(110 + path.len() + 1)
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// cpio(1) is the judge: it must list and extract what was put in.
    #[test]
    fn cpio_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/file", 0o644, b"content").expect("file");
        archive
            .file("a/b/odd", 0o755, b"1234567890123")
            .expect("file");
        archive.link("link", "a/b/file").expect("link");
        let bytes = archive.finish().expect("finished");

        let place = tempfile::tempdir().expect("temporary folder");
        let spawned = Command::new("cpio")
            .args(["--extract", "--quiet", "--no-absolute-filenames"])
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = spawned else {
            sekisho_skip::skip("cpio is not installed");
            return;
        };
        cpio.stdin
            .take()
            .expect("pipe")
            .write_all(&bytes)
            .expect("fed");
        assert!(cpio.wait().expect("cpio").success());
        let read = |name: &str| std::fs::read(place.path().join(name)).expect(name);
        assert_eq!(read("a/b/file"), b"content");
        assert_eq!(read("a/b/odd"), b"1234567890123");
        assert_eq!(read("link"), b"content");
    }
}
