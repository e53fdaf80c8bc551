//! Looks at the screen from outside: whoever connects to the socket is told the picture of this moment,
//! with its memory, and nothing more.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sekisho_seatlink::{Link, LinkError, Picture, ScanoutId};

use super::Display;

/// Who waits to be answered; each is answered as soon as the main thread turns.
const BACKLOG: i32 = 8;

/// A socket at `path` for the VMM's own user alone. One that nobody listens on any more is replaced.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let address = SocketAddrUnix::new(path)?;
    let left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if left && rustix::net::connect(socket()?, &address) == Err(Errno::CONNREFUSED) {
        std::fs::remove_file(path)?;
    }
    let socket = socket()?;
    rustix::net::bind(&socket, &address)?;
    // Before it listens, so that nobody is faster.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Answers who waits at `listener`, if anybody does.
pub fn answer(listener: &OwnedFd, display: &Display) -> Result<(), LinkError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::accept_with(listener.as_fd(), flags) {
        Ok(socket) => socket,
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let link = Link::new(socket)?;
    let id = ScanoutId::FIRST;
    match display.picture() {
        Some((scanout, memory)) => link.show(Picture::Shown(id, scanout), Some(memory.file()))?,
        None => link.show(Picture::Off(id), None)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view");
        let first = listen(&path).unwrap();
        let taken = listen(&path).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(listen(&file).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }
}
