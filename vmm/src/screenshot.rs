//! `sekisho-vmm screenshot`: asks a running VMM what its guest's screen shows and saves it as PNG.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sekisho_seatlink::{Link, LinkError, Mode, Picture, Scanout};
use thiserror::Error;

/// A VMM answers within one turn of its main thread.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum ScreenshotError {
    /// Nobody to ask.
    #[error("--socket {path} cannot be asked: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It did not answer.
    #[error("the VMM does not answer")]
    Silent,
    /// Its answer.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No picture.
    #[error("the guest's screen shows nothing")]
    Off,
    /// The pixels.
    #[error("the picture cannot be read: {0}")]
    Read(io::Error),
    /// The file.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Saves what the screen behind `socket` shows as `file`; its sides.
pub fn save(socket: &Path, file: &Path) -> Result<Mode, ScreenshotError> {
    let link = connect(socket).map_err(|source| ScreenshotError::Connect {
        path: socket.to_owned(),
        source,
    })?;
    let (scanout, memory) = ask(&link)?;
    let pixels = pixels(scanout, &memory.into()).map_err(ScreenshotError::Read)?;
    write(file, scanout.mode(), &pixels).map_err(|source| ScreenshotError::Write {
        path: file.to_owned(),
        source,
    })?;
    Ok(scanout.mode())
}

fn connect(path: &Path) -> io::Result<Link> {
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(Link::new(socket)?)
}

fn ask(link: &Link) -> Result<(Scanout, OwnedFd), ScreenshotError> {
    let patience = Timespec::try_from(PATIENCE).map_err(|_| ScreenshotError::Silent)?;
    let mut fds = [PollFd::new(link, PollFlags::IN)];
    poll(&mut fds, Some(&patience)).map_err(LinkError::from)?;
    match link.picture()? {
        Some((Picture::Shown(_, scanout), Some(memory))) => Ok((scanout, memory)),
        Some(_) => Err(ScreenshotError::Off),
        None => Err(ScreenshotError::Silent),
    }
}

/// Red, green and blue of each pixel.
fn pixels(scanout: Scanout, memory: &File) -> io::Result<Vec<u8>> {
    let mode = scanout.mode();
    let mut line = vec![0; mode.width() as usize * 4];
    let mut pixels = Vec::with_capacity(line.len() * mode.height() as usize);
    for y in 0..mode.height() {
        let start = u64::from(scanout.offset()) + u64::from(y) * u64::from(scanout.stride());
        memory.read_exact_at(&mut line, start)?;
        for pixel in line.chunks_exact(4) {
            pixels.extend([pixel[2], pixel[1], pixel[0]]);
        }
    }
    Ok(pixels)
}

fn write(path: &Path, mode: Mode, pixels: &[u8]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(&mut out, mode.width(), mode.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    out.flush()
}
