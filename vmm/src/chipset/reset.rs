//! Ports that reset the machine or pretend to: the reset control register 0xCF9 and system
//! control port A (0x92).
//!
//! Source: Intel ICH9 datasheet, 13.7.5 "`RST_CNT`" and 13.7.3 "PORT92".

use std::sync::Arc;

use crate::board::power::{Ending, Power};
use crate::bus::BusDevice;

/// `RST_CPU`: a 0 to 1 edge resets.
const RST_CPU: u8 = 1 << 2;
/// `SYS_RST`: hard or soft, kept for reading back.
const SYS_RST: u8 = 1 << 1;
/// `FULL_RST`: kept for reading back.
const FULL_RST: u8 = 1 << 3;

/// The reset control register.
pub struct ResetControl {
    power: Arc<Power>,
    value: u8,
}

impl ResetControl {
    /// After power-on.
    pub fn new(power: Arc<Power>) -> Self {
        Self { power, value: 0 }
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.value;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let [byte] = data else { return };
        if byte & RST_CPU != 0 && self.value & RST_CPU == 0 {
            self.power.end(Ending::Reset);
        }
        self.value = byte & (SYS_RST | FULL_RST | RST_CPU);
    }
}

/// `INIT_NOW` of port A: a 0 to 1 edge resets.
const INIT_NOW: u8 = 1;
/// `ALT_A20_GATE`: there is no A20 gate; firmware sets it and reads it back.
const A20: u8 = 1 << 1;

/// System control port A.
pub struct PortA {
    power: Arc<Power>,
    value: u8,
}

impl PortA {
    /// After power-on: A20 is open.
    pub fn new(power: Arc<Power>) -> Self {
        Self { power, value: A20 }
    }
}

impl BusDevice for PortA {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.value;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let [byte] = data else { return };
        if byte & INIT_NOW != 0 && self.value & INIT_NOW == 0 {
            self.power.end(Ending::Reset);
        }
        self.value = byte & (INIT_NOW | A20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_resets_by_cf9() {
        let power = Arc::new(Power::new().unwrap());
        let mut register = ResetControl::new(power.clone());
        register.write(0, &[SYS_RST]);
        assert!(!power.ended());
        register.write(0, &[SYS_RST | RST_CPU]);
        assert_eq!(power.ending(), Some(&Ending::Reset));
    }

    #[test]
    fn the_a20_gate_is_read_back_and_does_nothing() {
        let power = Arc::new(Power::new().unwrap());
        let mut port = PortA::new(power.clone());
        port.write(0, &[0]);
        let mut byte = [0xff];
        port.read(0, &mut byte);
        assert_eq!((byte, power.ended()), ([0], false));
        port.write(0, &[1]);
        assert!(power.ended());
    }
}
