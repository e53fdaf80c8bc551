//! The channel into the work OS: protocol, guest agent, host end.
