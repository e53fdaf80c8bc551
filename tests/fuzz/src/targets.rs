//! One file a target.

pub(crate) mod control;
pub(crate) mod frame_link;
pub(crate) mod gate;
pub(crate) mod net_hdr;
pub(crate) mod policy;
pub(crate) mod policy_words;
pub(crate) mod ring;
pub(crate) mod seat;
