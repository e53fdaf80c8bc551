//! The supervisor's channel: what it may ask of a running guest, and what it is told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sekisho_control::{Channel, ChannelError, Command, Port, Report};
use thiserror::Error;

/// What the VMM has to do.
#[derive(Debug)]
pub enum Order {
    /// Hand this fresh socket to the NIC.
    Link(OwnedFd),
    /// Hand this fresh socket to the first console port.
    GuestChannel(OwnedFd),
    /// Hand this fresh socket to the screen.
    Seat(OwnedFd),
    /// Press the power button.
    PowerButton,
    /// The host is about to sleep: stand still.
    Sleep,
    /// It woke up.
    Wake,
    /// Press the power button, and switch off if the guest does not do it in time.
    Shutdown,
    /// The supervisor is gone: nobody watches over this guest any more.
    Orphaned,
}

/// Why the channel could not be set up.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The word on the command line names no usable descriptor.
    #[error("--control: {0}")]
    Inherited(#[from] sekisho_control::InheritedError),
    /// It is another kind of descriptor.
    #[error("--control: {0}")]
    Channel(#[from] ChannelError),
}

/// The VMM's end of the channel, which may not be there.
pub struct Control {
    channel: Option<Channel<Report, Command>>,
}

impl Control {
    /// Takes the inherited descriptor, where there is one.
    pub fn open(word: Option<&str>) -> Result<Self, ControlError> {
        let open = |word| -> Result<_, ControlError> {
            Ok(Channel::from_fd(sekisho_control::inherited(word)?)?)
        };
        let channel = word.map(open).transpose()?;
        Ok(Self { channel })
    }

    /// What to wait for: readable when [`Control::take`] has something.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// The next order, if there is one now.
    pub fn take(&mut self) -> Option<Order> {
        loop {
            match self.channel.as_ref()?.recv() {
                Ok(None) => return None,
                Ok(Some(received)) => {
                    if let Some(order) = order(&received.message, received.fds) {
                        return Some(order);
                    }
                }
                Err(error) => {
                    tracing::warn!("the supervisor's channel ended: {error}");
                    self.channel = None;
                    return Some(Order::Orphaned);
                }
            }
        }
    }

    /// Tells the supervisor. A report that does not fit into its socket is lost: a supervisor
    /// that reads nothing must not stop the guest.
    pub fn report(&self, report: &Report) {
        let Some(channel) = &self.channel else { return };
        if let Err(error) = channel.send(report, &[]) {
            tracing::warn!("the supervisor could not be told {report:?}: {error}");
        }
    }
}

fn order(command: &Command, fds: Vec<OwnedFd>) -> Option<Order> {
    match command {
        Command::Attach { port: Port::Link } => fds.into_iter().next().map(Order::Link),
        Command::Attach {
            port: Port::GuestChannel,
        } => fds.into_iter().next().map(Order::GuestChannel),
        Command::Attach { port: Port::Seat } => fds.into_iter().next().map(Order::Seat),
        Command::PowerButton => Some(Order::PowerButton),
        Command::Shutdown => Some(Order::Shutdown),
        Command::Suspend => Some(Order::Sleep),
        Command::Resume => Some(Order::Wake),
        other => {
            tracing::warn!("the supervisor asks for what is not the VMM's: {other:?}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel<Command, Report>, Control) {
        let (supervisor, vmm) = sekisho_control::pair().unwrap();
        let channel = Some(Channel::from_fd(vmm).unwrap());
        (Channel::from_fd(supervisor).unwrap(), Control { channel })
    }

    #[test]
    fn a_link_comes_with_its_socket() {
        let (supervisor, mut control) = pair();
        let (socket, _peer) = sekisho_control::pair().unwrap();
        let attach = Command::Attach { port: Port::Link };
        supervisor.send(&attach, &[socket.as_fd()]).unwrap();
        assert!(matches!(control.take(), Some(Order::Link(_))));
        assert!(control.take().is_none());
    }

    #[test]
    fn what_is_not_the_vmms_is_passed_over() {
        let (supervisor, mut control) = pair();
        supervisor.send(&Command::AskAgain, &[]).unwrap();
        supervisor.send(&Command::PowerButton, &[]).unwrap();
        assert!(matches!(control.take(), Some(Order::PowerButton)));
    }

    #[test]
    fn a_dead_supervisor_is_noticed_once() {
        let (supervisor, mut control) = pair();
        drop(supervisor);
        assert!(matches!(control.take(), Some(Order::Orphaned)));
        assert!(control.take().is_none());
        assert!(control.source().is_none());
        control.report(&Report::Ready);
    }
}
