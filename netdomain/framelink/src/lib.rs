//! Moves Ethernet frames between two processes that distrust each other: the VMM and the gate.
//!
//! A message is a 12-byte `virtio_net_hdr_v1` (virtio 1.2, section 5.1.6) followed by one Ethernet
//! frame of at most 64 KiB, so that a super-frame (TCP segmentation offload) crosses whole. Either
//! side may crash, stall, lie or be replaced by an attacker; the other side keeps its memory safe
//! and its work bounded, and comes back when a healthy peer connects.
