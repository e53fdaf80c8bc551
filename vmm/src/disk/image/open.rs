//! How images are opened and made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatAccess, FormatCreateBuilder as _};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

use super::header::{Backing, Refusal, check};
use super::{Image, Ordered};
use crate::machine::DiskFormat;

/// Where changes go that nobody wants to keep, unless `TMPDIR` says otherwise: on a disk, as they may be
/// many.
const TEMPORARY: &str = "/var/tmp";

/// What becomes of the guest's changes.
#[derive(Debug, Clone, Copy)]
pub enum Changes<'a> {
    /// They are written to the image.
    Kept,
    /// They are in this file, which is made if it is not there; the image stays what it is.
    Overlay(&'a Path),
    /// They end with the VMM; the image stays what it is.
    Temporary,
}

/// An image to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The image, or the base of an overlay.
    pub path: &'a Path,
    /// Its format.
    pub format: DiskFormat,
    /// Whether the guest may change nothing.
    pub read_only: bool,
    /// What becomes of its changes.
    pub changes: Changes<'a>,
}

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The host's error.
    #[error("{path} cannot be used: {source}")]
    Host {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// What the image says of itself.
    #[error("{path} is not opened: {refusal}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The reason.
        refusal: Refusal,
    },
    /// Another one has it.
    #[error("{0} is in use by another machine; what both write would be lost")]
    Busy(PathBuf),
}

/// An image on its file, its writes in order.
type Access<S = Storage> = FormatAccess<Ordered<S>>;

/// Gives an error its file.
fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> ImageError + '_ {
    move |error| ImageError::Host {
        path: path.to_owned(),
        source: error.into(),
    }
}

impl Image {
    /// Opens what the plan names, and nothing else.
    pub fn open(plan: &Plan<'_>) -> Result<Self, ImageError> {
        let read_only = plan.read_only;
        let access = match plan.changes {
            Changes::Kept => image(plan.path, plan.format, !read_only)?,
            Changes::Overlay(path) => overlay(path, plan, !read_only)?,
            Changes::Temporary => temporary(plan, !read_only)?,
        };
        let kept = !read_only && !matches!(plan.changes, Changes::Temporary);
        Ok(Self { access, kept })
    }
}

/// An image without anything below it.
fn image(path: &Path, format: DiskFormat, write: bool) -> Result<Access, ImageError> {
    let file = File::options().read(true).write(write).open(path);
    let file = file.map_err(at(path))?;
    lock(&file, path, write)?;
    match format {
        DiskFormat::Raw => {
            let storage = Storage::try_from(file).map_err(at(path))?;
            let raw = Raw::open_image(Ordered::data(storage), write).map_err(at(path))?;
            Ok(FormatAccess::new(raw))
        }
        DiskFormat::Qcow2 => qcow2(file, path, write, None),
    }
}

/// A qcow2 image over a base, or over nothing. Its own word on what lies below it is not followed.
fn qcow2(
    file: File,
    path: &Path,
    write: bool,
    base: Option<(Access, &str)>,
) -> Result<Access, ImageError> {
    let named = base.as_ref().map(|(_, name)| *name);
    let backing = named.map_or(Backing::Nothing, Backing::Given);
    let checked = check(&file, backing).map_err(at(path))?;
    checked.map_err(|refusal| ImageError::Refused {
        path: path.to_owned(),
        refusal,
    })?;
    let storage = Storage::try_from(file).map_err(at(path))?;
    access(storage, write, base.map(|(access, _)| access)).map_err(at(path))
}

/// A qcow2 image whose header was checked.
pub(super) fn access<S: imago::Storage>(
    storage: S,
    write: bool,
    base: Option<Access<S>>,
) -> io::Result<Access<S>> {
    let (tables, data) = Ordered::pair(storage);
    let mut image = Qcow2::open_image(tables, write)?;
    image.set_data_file(Some(data));
    image.set_backing(base);
    Ok(FormatAccess::new(image))
}

fn overlay(path: &Path, plan: &Plan<'_>, write: bool) -> Result<Access, ImageError> {
    let base = image(plan.path, plan.format, false)?;
    let name = fs::canonicalize(plan.path).map_err(at(plan.path))?;
    let name = name.to_string_lossy();
    let file = match File::options().read(true).write(write).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && write => {
            let made = make(path, &base, &name, plan.format);
            if made.is_err() {
                // Half an image is none. It was not there before.
                let _ = fs::remove_file(path);
            }
            made?
        }
        opened => opened.map_err(at(path))?,
    };
    lock(&file, path, write)?;
    qcow2(file, path, write, Some((base, &name)))
}

/// Makes an overlay without changes, for good.
fn make(path: &Path, base: &Access, name: &str, format: DiskFormat) -> Result<File, ImageError> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(path).map_err(at(path))?;
    create(&file, path, base, name, format)?;
    file.sync_all().map_err(at(path))?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at(folder))?;
    Ok(file)
}

fn create(
    file: &File,
    path: &Path,
    base: &Access,
    name: &str,
    format: DiskFormat,
) -> Result<(), ImageError> {
    let storage = file.try_clone().and_then(Storage::try_from);
    Qcow2::<Storage>::create_builder(storage.map_err(at(path))?)
        .size(base.size())
        .backing(name.to_owned(), format.to_string())
        .create()
        .map_err(at(path))
}

/// An overlay in a file without a name, which the host takes back when the VMM ends, however it ends.
fn temporary(plan: &Plan<'_>, write: bool) -> Result<Access, ImageError> {
    let base = image(plan.path, plan.format, false)?;
    if !write {
        return Ok(base);
    }
    let folder = std::env::var_os("TMPDIR").map_or_else(|| TEMPORARY.into(), PathBuf::from);
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let file = options.mode(0o600).open(&folder).map_err(at(&folder))?;
    let name = plan.path.to_string_lossy();
    create(&file, &folder, &base, &name, plan.format)?;
    qcow2(file, &folder, true, Some((base, &name)))
}

/// Takes a disk for one machine: what is written has one user, what is read has no writer.
pub fn lock(file: &File, path: &Path, write: bool) -> Result<(), ImageError> {
    let kind = if write {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match flock(file, kind) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(ImageError::Busy(path.to_owned())),
        Err(error) => Err(at(path)(error)),
    }
}
