//! A disk that firmware starts from: a partition table (GPT), an EFI system partition with files, and
//! behind it, where there is one, the file system of an operating system.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::debian::FetchError;

/// Where the partition begins: on the first mebibyte, as installers put it.
pub(crate) const START: u64 = 1 << 20;
/// Room behind the partition for the second copy of the table.
const END: u64 = 1 << 20;

/// The file system of an operating system.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    /// The folder that becomes it.
    pub tree: &'a Path,
    /// Its size in bytes, a multiple of 1 MiB.
    pub size: u64,
    /// Its identifier.
    pub uuid: &'a str,
}

/// Makes the image at `path`, of `size` bytes (a multiple of 1 MiB, some MiB at least), with these
/// files: where they go, as in `EFI/BOOT/BOOTX64.EFI`, and where they are.
pub fn make(path: &Path, size: u64, files: &[(&str, &Path)]) -> Result<(), FetchError> {
    let sectors = (size - START - END) / 512;
    let table = format!(
        "label: gpt\nstart={}, size={sectors}, type=uefi\n",
        START / 512
    );
    partition(path, size, &table)?;
    system_partition(path, sectors, files)
}

/// As [`make`], with an EFI system partition of `size` bytes and `root` (ext4) behind it.
pub fn make_with_root(
    path: &Path,
    size: u64,
    files: &[(&str, &Path)],
    root: Root<'_>,
) -> Result<(), FetchError> {
    let table = format!(
        "label: gpt\nstart={}, size={}, type=uefi\nsize={}, type=linux\n",
        START / 512,
        size / 512,
        root.size / 512,
    );
    partition(path, START + size + root.size + END, &table)?;
    system_partition(path, size / 512, files)?;
    let arguments = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-U",
        root.uuid,
        "-d",
        &root.tree.to_string_lossy(),
        "-E",
        &format!("offset={}", START + size),
        &path.to_string_lossy(),
        &format!("{}k", root.size / 1024),
    ];
    feed("mke2fs", &arguments, "")
}

fn partition(path: &Path, size: u64, table: &str) -> Result<(), FetchError> {
    let cannot = |source| FetchError::Cache {
        path: path.to_owned(),
        source,
    };
    let image = File::create(path).map_err(cannot)?;
    image.set_len(size).map_err(cannot)?;
    feed("sfdisk", &["--quiet", &path.to_string_lossy()], table)
}

fn system_partition(path: &Path, sectors: u64, files: &[(&str, &Path)]) -> Result<(), FetchError> {
    let partition = format!("{}@@{START}", path.display());
    feed(
        "mformat",
        &["-i", &partition, "-T", &sectors.to_string(), "-F", "::"],
        "",
    )?;
    add(path, files)
}

/// Puts files into the EFI system partition of an image that [`make`] or [`make_with_root`] made.
pub fn add(path: &Path, files: &[(&str, &Path)]) -> Result<(), FetchError> {
    let partition = format!("{}@@{START}", path.display());
    let mut made = Vec::new();
    for (to, from) in files {
        for (at, _) in to.match_indices('/') {
            let folder = &to[..at];
            if !made.contains(&folder) {
                feed("mmd", &["-i", &partition, &format!("::{folder}")], "")?;
                made.push(folder);
            }
        }
        let from = from.to_string_lossy();
        feed("mcopy", &["-i", &partition, &from, &format!("::{to}")], "")?;
    }
    Ok(())
}

/// Runs a program with `input` on its standard input.
fn feed(program: &'static str, arguments: &[&str], input: &str) -> Result<(), FetchError> {
    let missing = |source| FetchError::Program { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing tells by its status what it thinks of that.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(FetchError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        said: said.trim_end().to_owned(),
    })
}
