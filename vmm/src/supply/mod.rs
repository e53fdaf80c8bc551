//! The host's battery, mains adapter and lid, as the work OS is to see them.
//!
//! [`uevent`] reads what the kernel says of one supply, [`host`] all of a host, from descriptors that
//! were opened before the sandbox closed; here they become one.
//!
//! Several batteries become one: the tables of a guest are made once and name one battery, a work OS
//! warns and hibernates by the sum in any case, and which cells the laptop has is no affair of a guest's.
//! For the same reason no serial number, maker or model goes through.

pub mod host;
pub mod uevent;

use uevent::{Battery, Flow, Supply};

/// Everything of power that a work OS is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Power {
    /// Whether the laptop has current from outside.
    pub online: bool,
    /// Its batteries as one; `None` where there is none.
    pub battery: Option<Battery>,
}

impl Default for Power {
    /// A machine without batteries, which runs, so that it has current.
    fn default() -> Self {
        Self {
            online: true,
            battery: None,
        }
    }
}

impl Power {
    /// Puts the supplies of a host together.
    pub fn of(supplies: &[Supply]) -> Self {
        let batteries = supplies.iter().filter_map(|supply| match supply {
            Supply::Battery(battery) => Some(*battery),
            _ => None,
        });
        let battery = batteries.reduce(Battery::beside);
        let mut mains = supplies.iter().filter_map(|supply| match supply {
            Supply::Mains { online } => Some(*online),
            _ => None,
        });
        let online = match mains.next() {
            Some(first) => first || mains.any(|online| online),
            // No adapter that could be asked: what flows tells.
            None => battery.is_none_or(|battery| battery.flow != Flow::Out),
        };
        Self { online, battery }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn battery(full: u32, now: u32, flow: Flow) -> Battery {
        Battery {
            flow,
            critical: false,
            rate: Some(5000),
            now,
            full,
            design: full + 1000,
            voltage: Some(12_000),
            design_voltage: Some(11_400),
            cycles: 7,
        }
    }

    #[test]
    fn several_batteries_are_one() {
        let small = Battery {
            rate: None,
            cycles: 9,
            ..battery(20_000, 1000, Flow::Idle)
        };
        let supplies = [
            Supply::Battery(small),
            Supply::Other,
            Supply::Battery(battery(40_000, 30_000, Flow::Out)),
        ];
        let power = Power::of(&supplies);
        let one = power.battery.unwrap();
        assert_eq!((one.now, one.full, one.design), (31_000, 60_000, 62_000));
        assert_eq!((one.flow, one.rate, one.cycles), (Flow::Out, Some(5000), 9));
        assert!(!power.online, "it flows out and there is no adapter");
        // Full to the brim of a register.
        let most = Supply::Battery(battery(uevent::MOST, uevent::MOST, Flow::In));
        let one = Power::of(&[most, most]).battery.unwrap();
        assert_eq!((one.now, one.full), (uevent::MOST, uevent::MOST));
    }

    #[test]
    fn any_adapter_is_enough_and_none_at_all_is_a_desktop() {
        let [off, on] = [false, true].map(|online| Supply::Mains { online });
        let draining = Supply::Battery(battery(40_000, 30_000, Flow::Out));
        assert!(Power::of(&[off, on, draining]).online);
        assert!(!Power::of(&[off, off]).online);
        assert_eq!(Power::of(&[]), Power::default());
    }
}
