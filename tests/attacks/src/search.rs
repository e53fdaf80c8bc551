//! Where a text that nobody is to keep is looked for.

use std::{fs, os::unix::fs::FileExt, path::Path};

use crate::must;

/// Whether a file somewhere below holds this text.
pub fn on_disk(folder: &Path, text: &str) -> bool {
    let entries = must(fs::read_dir(folder)).flatten();
    entries.into_iter().any(|entry| {
        let kind = must(entry.file_type());
        if kind.is_dir() {
            on_disk(&entry.path(), text)
        } else {
            kind.is_file() && holds(&fs::read(entry.path()).unwrap_or_default(), text)
        }
    })
}

/// Whether the text is among these bytes.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// Whether a process has this text anywhere in the memory that it may write.
pub fn in_memory(pid: u32, text: &str) -> bool {
    let maps = must(fs::read_to_string(format!("/proc/{pid}/maps")));
    let memory = must(fs::File::open(format!("/proc/{pid}/mem")));
    let mut read = 0;
    let found = maps.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            return false;
        };
        if !rights.starts_with("rw") {
            return false;
        }
        let (from, to) = range.split_once('-').unwrap_or_default();
        let number = |text| must(u64::from_str_radix(text, 16));
        let mut bytes = vec![0; must(usize::try_from(number(to) - number(from)))];
        // Some areas of the kernel's cannot be read.
        let got = memory.read_at(&mut bytes, number(from)).unwrap_or(0);
        read += got;
        holds(&bytes[..got], text)
    });
    assert!(read > 100_000, "the memory of {pid} was not read");
    found
}
