//! The sockets and the wire that the gate is handed.

use std::{net::SocketAddrV4, os::fd::AsFd};

use rustix::net::Shutdown;
use sekisho_control::{PathId, UplinkKind, UplinkToGate};

use super::{Turn, UplinkError, now};
use crate::uplink::{
    Transport,
    ports::{Action, Bound, OpenWire},
    sockets::{open_path, open_stream},
};

/// Connections of one path that live at a time: a tunnel over TLS is one that signs in and one that
/// carries, and the next attempt may begin before the last has ended.
const MAX_STREAMS: usize = 4;

impl Turn {
    pub(super) fn open_path(
        &mut self,
        from: Bound,
        message: UplinkToGate,
    ) -> Result<(), UplinkError> {
        let UplinkToGate::Path { id, peer, .. } = message else {
            return Ok(());
        };
        match open_path(&from.port, from.address, peer) {
            Ok(socket) => {
                self.tell(&message, &[socket.as_fd()])?;
                self.paths.insert(id, vec![socket]);
            }
            Err(error) => {
                let port = from.port.clone();
                let path = message;
                if self.shortage.add(Action::OpenPath { from, path }, now()) {
                    tracing::warn!(port, %peer, %error, "no path to this gateway for now");
                }
            }
        }
        Ok(())
    }

    pub(super) fn open_stream(
        &mut self,
        id: PathId,
        transport: Transport,
        from: &Bound,
        to: SocketAddrV4,
    ) -> Result<(), UplinkError> {
        let opened = match transport {
            Transport::Tcp => open_stream(&from.port, from.address, to),
            Transport::Udp | Transport::Esp => open_path(&from.port, from.address, to),
        };
        match opened {
            Ok(socket) => {
                self.tell(&UplinkToGate::Stream { id }, &[socket.as_fd()])?;
                let streams = self.paths.entry(id).or_default();
                if streams.len() >= MAX_STREAMS {
                    let _ = rustix::net::shutdown(streams.remove(0), Shutdown::Both);
                }
                streams.push(socket);
            }
            // Whoever asked gives up in its own time.
            Err(error) => tracing::warn!(port = from.port, peer = %to, %error, "no connection"),
        }
        Ok(())
    }

    /// Opens the wire and hands it over; what cannot be opened is shut again, and asked for again.
    pub(super) fn open_wire(&mut self, plan: &OpenWire) -> Result<(), UplinkError> {
        let port = plan.port.name.clone();
        let Some(wire) = &self.wire else {
            self.ports.wire_failed(plan.id);
            return Ok(());
        };
        let joined = wire.join(plan, &mut self.routing, &mut self.sets);
        if !matches!(joined, Ok(true)) {
            if let Err(error) = joined {
                tracing::warn!(port, %error, "no wire");
            } else {
                tracing::info!(port, "the carrier was lost since the proof: no wire");
            }
            wire.cut(plan, &mut self.routing, &mut self.sets)?;
            self.ports.wire_failed(plan.id);
            return Ok(());
        }
        tracing::info!(port, address = %plan.address, "a wire onto the office LAN");
        let message = UplinkToGate::Wire {
            id: plan.id,
            port,
            kind: UplinkKind::Wired,
            index: plan.port.index,
            losses: plan.losses,
            lan: plan.lan,
        };
        self.tell(&message, &wire.descriptors())
    }

    pub(super) fn open_beacon(&mut self, from: Bound, to: SocketAddrV4) -> Result<(), UplinkError> {
        let port = from.port;
        match open_stream(&port, from.address, to) {
            Ok(socket) => {
                self.beaconless.remove(&port);
                self.tell(&UplinkToGate::Beacon { port }, &[socket.as_fd()])
            }
            Err(error) => {
                // The gate asks again and again; it is news once.
                if self.beaconless.insert(port.clone()) {
                    tracing::warn!(port, %error, "no connection to the beacon");
                }
                Ok(())
            }
        }
    }

    pub(super) fn open_knock(&mut self, from: &Bound, to: SocketAddrV4) -> Result<(), UplinkError> {
        let port = from.port.clone();
        match open_stream(&port, from.address, to) {
            Ok(socket) => self.tell(&UplinkToGate::Knock { port }, &[socket.as_fd()]),
            Err(error) => {
                // The gate asks again.
                tracing::debug!(port, %error, "nobody to ask");
                Ok(())
            }
        }
    }
}
