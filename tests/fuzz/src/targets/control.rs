//! A channel between our own processes whose peer sends whatever it likes.

use std::{
    fmt::Debug,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use sekisho_control::{
    Carries, Channel, ChannelError, Command, EngineToGate, GateToEngine, GateToUplink, Report,
    UplinkToGate, pair,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::input::Input;

/// Most descriptors that the peer sends along.
const MAX_STRAY: u8 = 8;

/// One byte for the type of message, one for the number of descriptors, the text.
///
/// # Panics
/// When a message comes out that does not survive being sent again.
pub fn control(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let descriptors = input.byte() % (MAX_STRAY + 1);
    let text = input.rest();
    match kind % 6 {
        0 => receive::<Command>(descriptors, text),
        1 => receive::<Report>(descriptors, text),
        2 => receive::<UplinkToGate>(descriptors, text),
        4 => receive::<GateToEngine>(descriptors, text),
        5 => receive::<EngineToGate>(descriptors, text),
        _ => receive::<GateToUplink>(descriptors, text),
    }
}

fn receive<M>(descriptors: u8, text: &[u8])
where
    M: Serialize + DeserializeOwned + Carries + Debug + PartialEq,
{
    let Ok((ours, theirs)) = pair() else { return };
    let Ok(channel) = Channel::<M, M>::from_fd(ours) else {
        return;
    };
    let stray = vec![theirs.as_fd(); usize::from(descriptors)];
    if !send(&theirs, text, &stray) {
        return;
    }
    match channel.recv() {
        Ok(Some(received)) => {
            assert_eq!(received.fds.len(), received.message.descriptors());
            assert_eq!(received.fds.len(), stray.len());
            again(&received.message);
        }
        Ok(None) => panic!("a message was lost"),
        Err(error) => {
            assert!(error.ends());
            assert!(matches!(channel.recv(), Err(ChannelError::Closed)));
        }
    }
}

fn send(socket: &OwnedFd, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_STRAY as usize))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let pieces = [IoSlice::new(text)];
    sendmsg(socket, &pieces, &mut ancillary, SendFlags::DONTWAIT).is_ok()
}

/// A message that was understood means the same when it is sent on.
fn again<M>(message: &M)
where
    M: Serialize + DeserializeOwned + Carries + Debug + PartialEq,
{
    let Ok((one, other)) = pair() else { return };
    let channels = Channel::<M, M>::from_fd(one).and_then(|one| {
        let descriptors = vec![other.as_fd(); message.descriptors()];
        match one.send(message, &descriptors) {
            // Escapes can make the text longer than it came.
            Err(ChannelError::TooLong) => Ok(None),
            sent => sent.map(|()| Some(one)),
        }
    });
    match channels {
        Ok(Some(_one)) => {}
        Ok(None) => return,
        Err(error) => panic!("{message:?} cannot be sent: {error}"),
    }
    let other = Channel::<M, M>::from_fd(other);
    match other.and_then(|other| other.recv()) {
        Ok(Some(received)) => assert_eq!(&received.message, message),
        other => panic!("{message:?} came back as {other:?}"),
    }
}
