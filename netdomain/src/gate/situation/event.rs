//! What happens to the gate, and what its shell must do about it.

use sekisho_control::{DemandId, PathId, TokenFault, UplinkKind, WireId};

use super::paths::PathInfo;

/// What happens to the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The uplink handed over a path whose peer policy names.
    PathUp(PathInfo),
    /// The path is gone.
    PathLost(PathId),
    /// The port has no carrier any more.
    CarrierLost(String),
    /// The gateway authenticated a datagram that came over this path.
    Heard {
        /// The path.
        path: PathId,
        /// Whether it completed a handshake that we began.
        handshake: bool,
    },
    /// Guest data left over the current path.
    Sent,
    /// The kernel refused to send over this path.
    SendFailed(PathId),
    /// The tunnel had no session to seal with.
    SessionGone,
    /// The gateway answered the second key over this path, which is not in use.
    Checked(PathId),
    /// The engine of this path's tunnel says that the gateway has proven itself and the tunnel is
    /// up.
    EngineUp(PathId),
    /// The engine ended the tunnel of this path.
    EngineDown(PathId),
    /// The engine of this path's tunnel, or its program, is gone; the gateway may be well.
    EngineCrashed(PathId),
    /// The engine of this path's tunnel needs the second factor.
    EngineAsks(PathId),
    /// The engine of this path's tunnel says that the token opened with the person's PIN.
    TokenOpened(PathId),
    /// The engine ended the tunnel of this path because of the token.
    TokenFailed(PathId, TokenFault),
    /// The person answered this asking.
    Answered(DemandId),
    /// The person is there.
    AskAgain,
    /// The beacon was proven over this port.
    Proven(String),
    /// The proof over this port failed or ended.
    Disproven(String),
    /// The uplink handed over the wire of a port, of this kind.
    WireUp(WireId, String, UplinkKind),
    /// The wire is gone, or takes nothing any more.
    WireLost(WireId),
    /// The channel to the uplink process ended.
    UplinkGone,
    /// The laptop is about to sleep.
    Suspend,
    /// The laptop woke up.
    Resume,
    /// A clock jumped.
    Doubt,
    /// Time passed.
    Tick,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a handshake initiation over this path.
    Initiate(PathId),
    /// Send an empty authenticated packet over this path.
    Kick(PathId),
    /// Ask over this path, which is not in use, with the second key.
    Check(PathId),
    /// Let the engine of this path's tunnel begin.
    Engage(PathId),
    /// Hand the person's answer to the engine of this path's tunnel.
    HandOver(PathId),
    /// Let the engine erase the PIN that it keeps.
    Forget,
    /// Let the engine take its tunnel from one path to another, to the same gateway.
    Move {
        /// The path that it was on.
        from: PathId,
        /// The path that it is on from now on.
        to: PathId,
    },
    /// Let the engine of this path's tunnel end; nothing is sent by it any more.
    Disengage(PathId),
    /// Forget every session with every gateway.
    ResetTunnels,
    /// Close the path's socket at once.
    Close(PathId),
    /// Read the path's socket a little longer, send nothing on it.
    Drain(PathId),
    /// Ask the uplink for a connection to the beacon over this port.
    Probe(String),
    /// Ask the uplink for a connection over this port, to hear who answers there: no gateway does.
    Knock(String),
    /// Tell the uplink whether the proof over this port holds.
    Premises(String, bool),
    /// Ask the uplink for the wire of this proven port.
    AskWire(String),
    /// Close this wire at once.
    CloseWire(WireId),
    /// The situation changed.
    Report,
}
