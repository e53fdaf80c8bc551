//! The SIM's part of the loop: what the process that asks ModemManager says. It may say anything.

use std::os::fd::OwnedFd;

use rustix::event::epoll;
use sekisho_control::{Channel, ModemFound, ModemToUplink, Report};

use super::{Event, MESSAGES_PER_TURN, MODEM, Turn, UplinkError};

impl Turn {
    /// Takes a channel in place of any other; its bearer is told anew.
    pub(in crate::uplink) fn attach_modem(&mut self, socket: OwnedFd) -> Result<(), UplinkError> {
        self.lose_modem()?;
        match Channel::from_fd(socket) {
            Ok(channel) => {
                self.watch(&channel, MODEM)?;
                self.modem = Some(channel);
            }
            Err(error) => tracing::warn!(%error, "no channel to whoever asks for the SIM"),
        }
        Ok(())
    }

    /// Tells people that nobody asks for a SIM that policy describes.
    pub(super) fn miss_modem(&mut self) -> Result<(), UplinkError> {
        if self.endpoints.mobile.is_none() || self.modem.is_some() {
            return Ok(());
        }
        self.report(&Report::Modem {
            found: ModemFound::Unasked,
            operator: String::new(),
            signal: None,
        })
    }

    /// Messages of one turn; one that breaks a rule ends the channel, and the bearer with it.
    pub(super) fn on_modem(&mut self) -> Result<(), UplinkError> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(modem) = &self.modem else {
                break;
            };
            match modem.recv() {
                Ok(Some(received)) => self.feed(Event::Bearer(match received.message {
                    ModemToUplink::Bearer(bearer) => Some(bearer),
                    ModemToUplink::NoBearer => None,
                }))?,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "nobody asks for the SIM any more; it is shut");
                    self.lose_modem()?;
                }
            }
        }
        Ok(())
    }

    fn lose_modem(&mut self) -> Result<(), UplinkError> {
        if let Some(modem) = self.modem.take() {
            let _ = epoll::delete(&self.epoll, &modem);
        }
        self.feed(Event::Bearer(None))
    }
}
