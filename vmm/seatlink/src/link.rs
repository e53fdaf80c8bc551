//! The socket between them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use thiserror::Error;

use crate::message::{Input, MESSAGE, MessageError, Picture};

/// One end of the link, non-blocking.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// Why the link is of no use any more: both sides close it then, and a new one is needed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The other side has gone.
    #[error("the other side has closed the link")]
    Closed,
    /// The other side says what it must not.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message with a file where none belongs, or without the one that belongs to it.
    #[error("a message whose file is missing or not asked for")]
    File,
    /// The kernel.
    #[error("the link fails: {0}")]
    Host(#[from] Errno),
}

impl Link {
    /// Two ends that are joined.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// An end that was made elsewhere: a `SOCK_SEQPACKET` socket, which becomes non-blocking.
    pub fn new(socket: OwnedFd) -> Result<Self, Errno> {
        if rustix::net::sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
            return Err(Errno::PROTOTYPE);
        }
        // What a sandboxed process may do, unlike the shorter ioctl.
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        Ok(Self(socket))
    }

    /// Says something of a picture, with the memory file that belongs to it. False: there is no
    /// room, it was not said.
    pub fn show(&self, picture: Picture, file: Option<BorrowedFd<'_>>) -> Result<bool, LinkError> {
        if picture.has_file() != file.is_some() {
            return Err(LinkError::File);
        }
        self.send(&picture.encode(), file)
    }

    /// Tells of an input. False: there is no room, it was not said.
    pub fn tell(&self, input: Input) -> Result<bool, LinkError> {
        self.send(&input.encode(), None)
    }

    /// The next word on a picture, with its memory file; none if there is none yet.
    pub fn picture(&self) -> Result<Option<(Picture, Option<OwnedFd>)>, LinkError> {
        let Some((packet, file)) = self.receive()? else {
            return Ok(None);
        };
        let picture = Picture::decode(packet.bytes())?;
        if picture.has_file() != file.is_some() {
            return Err(LinkError::File);
        }
        Ok(Some((picture, file)))
    }

    /// The next input; none if there is none yet.
    pub fn input(&self) -> Result<Option<Input>, LinkError> {
        match self.receive()? {
            None => Ok(None),
            Some((_, Some(_))) => Err(LinkError::File),
            Some((packet, None)) => Ok(Some(Input::decode(packet.bytes())?)),
        }
    }

    fn send(
        &self,
        packet: &[u8; MESSAGE],
        file: Option<BorrowedFd<'_>>,
    ) -> Result<bool, LinkError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = file.as_slice();
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.0, &[IoSlice::new(packet)], &mut control, flags) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&self) -> Result<Option<(Packet, Option<OwnedFd>)>, LinkError> {
        // One byte more than a message, so that a longer one is seen to be longer.
        let mut bytes = [0; MESSAGE + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        );
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(error) => return Err(error.into()),
        };
        // Room for one: what else was sent along, the kernel has closed.
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        // An empty packet and the end look alike, and neither is a message.
        if length == 0 {
            return Err(LinkError::Closed);
        }
        Ok(Some((Packet { bytes, length }, file)))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Packet {
    bytes: [u8; MESSAGE + 1],
    length: usize,
}

impl Packet {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::message::{Mode, Scanout, ScanoutId};

    fn scanout() -> Picture {
        let mode = Mode::new(4, 4).unwrap();
        Picture::Shown(ScanoutId::FIRST, Scanout::new(mode, 16, 0).unwrap())
    }

    #[test]
    fn a_picture_comes_with_its_file_and_inputs_go_back() {
        let (vmm, seat) = Link::pair().unwrap();
        assert!(seat.picture().unwrap().is_none());
        let file = memfd_create("picture", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, b"pixels").unwrap();
        assert!(vmm.show(scanout(), Some(file.as_fd())).unwrap());
        let (picture, given) = seat.picture().unwrap().unwrap();
        assert_eq!(picture, scanout());
        let mut pixels = [0; 6];
        rustix::io::pread(given.unwrap(), &mut pixels, 0).unwrap();
        assert_eq!(&pixels, b"pixels");
        assert!(seat.tell(Input::AllUp).unwrap());
        assert_eq!(vmm.input().unwrap(), Some(Input::AllUp));
        drop(seat);
        assert!(matches!(vmm.input(), Err(LinkError::Closed)));
        assert!(matches!(
            vmm.show(Picture::Off(ScanoutId::FIRST), None),
            Err(LinkError::Closed)
        ));
    }

    #[test]
    fn a_file_comes_where_it_belongs_and_nowhere_else() {
        let (vmm, seat) = Link::pair().unwrap();
        assert!(matches!(vmm.show(scanout(), None), Err(LinkError::File)));
        let file = memfd_create("none", MemfdFlags::CLOEXEC).unwrap();
        // The other side says it all the same.
        vmm.send(&scanout().encode(), None).unwrap();
        assert!(matches!(seat.picture(), Err(LinkError::File)));
        seat.send(&Input::AllUp.encode(), Some(file.as_fd()))
            .unwrap();
        assert!(matches!(vmm.input(), Err(LinkError::File)));
    }

    #[test]
    fn files_that_nobody_asked_for_are_closed() {
        let (vmm, seat) = Link::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [write.as_fd(), write.as_fd(), write.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let packet = scanout().encode();
        let flags = SendFlags::empty();
        sendmsg(&vmm.0, &[IoSlice::new(&packet)], &mut control, flags).unwrap();
        let (_, file) = seat.picture().unwrap().unwrap();
        assert!(file.unwrap().as_raw_fd() > write.as_raw_fd());
        drop(write);
        // Every copy is gone, or this would wait.
        assert_eq!(rustix::io::read(&read, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn a_longer_packet_is_no_message_and_a_full_socket_is_not_waited_for() {
        let (vmm, seat) = Link::pair().unwrap();
        rustix::net::send(&vmm.0, &[0; 4096], SendFlags::empty()).unwrap();
        assert!(matches!(
            seat.picture(),
            Err(LinkError::Message(MessageError::Length(33)))
        ));
        let mut said = 0;
        while seat.tell(Input::AllUp).unwrap() {
            said += 1;
            assert!(said < 100_000);
        }
        assert!(said > 0);
    }
}
