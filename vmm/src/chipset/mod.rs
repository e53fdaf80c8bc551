//! The chipset: the small legacy devices of a PC that every work OS still asks for. Each is plain
//! data behind [`crate::bus::BusDevice`]; none knows of KVM.

pub mod flash;
pub mod fuzzing;
pub mod fw_cfg;
pub mod laptop;
pub mod lpc;
pub mod pm;
pub mod ps2;
pub mod reset;
pub mod rtc;
pub mod serial;
pub mod tpm;
