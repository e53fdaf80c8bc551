//! What the kernel says of one power supply: its attribute `uevent`, all properties in one read.
//!
//! Source: Linux `Documentation/ABI/testing/sysfs-class-power`, `Documentation/power/power_supply_class.rst`
//! (micro-units) and `drivers/power/supply/power_supply_sysfs.c` (names). A driver, or firmware behind
//! it, may say anything: what is not understood is left out, and no number is larger than [`MOST`].

/// The longest attribute: a page.
pub const MAX_LEN: usize = 4096;
/// The largest number that goes on: two million Wh, and below the registers' "unknown".
pub const MOST: u32 = 0x7fff_ffff;

/// One power supply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// An adapter, or a port that the laptop is charged by.
    Mains {
        /// Whether current comes.
        online: bool,
    },
    /// A battery of the laptop that is in its place.
    Battery(Battery),
    /// A battery that is not there or tells too little, a mouse's, or something else.
    Other,
}

/// Which way current flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Into the battery.
    In,
    /// Out of it.
    Out,
    /// Neither: full, or held.
    Idle,
}

/// A battery. Energies are in mWh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Battery {
    /// Which way current flows.
    pub flow: Flow,
    /// The battery says that it is about to be empty.
    pub critical: bool,
    /// Power that flows, in mW.
    pub rate: Option<u32>,
    /// What is in it.
    pub now: u32,
    /// What was in it when it was last full.
    pub full: u32,
    /// What was in it when it was full and new.
    pub design: u32,
    /// Voltage now, in mV.
    pub voltage: Option<u32>,
    /// Voltage that it was made for, in mV.
    pub design_voltage: Option<u32>,
    /// How often it was emptied.
    pub cycles: u32,
}

impl Battery {
    /// Both as one.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        let sum = |a: u32, b: u32| a.saturating_add(b).min(MOST);
        let flow = match (self.flow, other.flow) {
            (Flow::Out, _) | (_, Flow::Out) => Flow::Out,
            (Flow::In, _) | (_, Flow::In) => Flow::In,
            _ => Flow::Idle,
        };
        Self {
            flow,
            critical: self.critical && other.critical,
            rate: match (self.rate, other.rate) {
                (Some(a), Some(b)) => Some(sum(a, b)),
                (a, b) => a.or(b),
            },
            now: sum(self.now, other.now),
            full: sum(self.full, other.full),
            design: sum(self.design, other.design),
            voltage: self.voltage.or(other.voltage),
            design_voltage: self.design_voltage.or(other.design_voltage),
            cycles: self.cycles.max(other.cycles),
        }
    }

    /// Whole percent of the last full charge.
    pub fn percent(&self) -> u32 {
        let percent = u64::from(self.now) * 100 / u64::from(self.full.max(1));
        u32::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// The properties, each found by its name.
struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    fn text(&self, name: &str) -> Option<&'a [u8]> {
        self.0.split(|byte| *byte == b'\n').find_map(|line| {
            let rest = line.strip_prefix(b"POWER_SUPPLY_")?;
            rest.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
        })
    }

    /// A number of millionths, which some drivers give a sign for its direction.
    fn micro(&self, name: &str) -> Option<u64> {
        let text = std::str::from_utf8(self.text(name)?).ok()?;
        Some(text.trim().parse::<i64>().ok()?.unsigned_abs())
    }

    /// In thousandths.
    fn milli(&self, name: &str) -> Option<u32> {
        Some(small(self.micro(name)? / 1000))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == Some(value.as_bytes())
    }
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(MOST).min(MOST)
}

/// Millionths of A or Ah at mV, in thousandths of W or Wh.
fn times(micro: u64, millivolt: u32) -> u32 {
    small(u64::try_from(u128::from(micro) * u128::from(millivolt) / 1_000_000).unwrap_or(u64::MAX))
}

/// Reads the attribute; at most [`MAX_LEN`] bytes of it. `None` where it is torn or no supply's.
pub fn parse(bytes: &[u8]) -> Option<Supply> {
    let properties = Properties(&bytes[..bytes.len().min(MAX_LEN)]);
    let kind = properties.text("TYPE")?;
    if properties.is("SCOPE", "Device") {
        return Some(Supply::Other);
    }
    if kind == b"Battery" {
        let battery = battery(&properties);
        return Some(battery.map_or(Supply::Other, Supply::Battery));
    }
    // USB_C, USB_PD and the like are older kernels' words for ports.
    let mains = kind == b"Mains" || kind.starts_with(b"USB");
    let online = properties.text("ONLINE").map(|text| text != b"0");
    Some(match online.filter(|_| mains) {
        Some(online) => Supply::Mains { online },
        None => Supply::Other,
    })
}

fn battery(properties: &Properties<'_>) -> Option<Battery> {
    if properties.is("PRESENT", "0") {
        return None;
    }
    let voltage = properties.milli("VOLTAGE_NOW").filter(|found| *found > 0);
    let design_voltage = properties.milli("VOLTAGE_MIN_DESIGN");
    let design_voltage = design_voltage.filter(|found| *found > 0);
    let at = design_voltage.or(voltage);
    let energy = |what: &str| {
        let told = properties.milli(&format!("ENERGY_{what}"));
        told.or_else(|| Some(times(properties.micro(&format!("CHARGE_{what}"))?, at?)))
    };
    let design = energy("FULL_DESIGN").filter(|found| *found > 0);
    let full = energy("FULL").filter(|found| *found > 0).or(design)?;
    let by_percent = || {
        let percent = properties.micro("CAPACITY")?.min(100);
        Some(small(u64::from(full) * percent / 100))
    };
    let power = properties.milli("POWER_NOW");
    let rate = power.or_else(|| Some(times(properties.micro("CURRENT_NOW")?, voltage.or(at)?)));
    let flow = match properties.text("STATUS") {
        Some(b"Charging") => Flow::In,
        Some(b"Discharging") => Flow::Out,
        _ => Flow::Idle,
    };
    Some(Battery {
        flow,
        critical: properties.is("CAPACITY_LEVEL", "Critical"),
        rate,
        now: energy("NOW").or_else(by_percent)?,
        full,
        design: design.unwrap_or(full),
        voltage,
        design_voltage,
        cycles: properties.micro("CYCLE_COUNT").map_or(0, small),
    })
}

/// What `/proc/acpi/button/lid/*/state` says: whether the lid is open. `None` where it is torn.
pub fn parse_lid(bytes: &[u8]) -> Option<bool> {
    let word = bytes.strip_prefix(b"state:")?.trim_ascii();
    match word {
        b"open" => Some(true),
        b"closed" => Some(false),
        _ => None,
    }
}

/// Entry point for fuzzers: `data` as what a kernel says of supplies, one behind each zero byte.
///
/// # Panics
/// If a number is larger than a register holds: what a fuzzer is to find.
pub fn fuzz(data: &[u8]) {
    let supplies: Vec<Supply> = data.split(|byte| *byte == 0).filter_map(parse).collect();
    let _ = parse_lid(data);
    if let Some(battery) = super::Power::of(&supplies).battery {
        for number in [battery.now, battery.full, battery.design, battery.cycles] {
            assert!(number <= MOST);
        }
        assert!(battery.full > 0 && battery.percent() <= 100);
        for number in [battery.rate, battery.voltage, battery.design_voltage] {
            assert!(number.is_none_or(|number| number <= MOST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a laptop's kernel says it, in energies.
    const BAT0: &[u8] = b"POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_TYPE=Battery\n\
        POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_PRESENT=1\n\
        POWER_SUPPLY_TECHNOLOGY=Li-poly\nPOWER_SUPPLY_CYCLE_COUNT=42\n\
        POWER_SUPPLY_VOLTAGE_MIN_DESIGN=11520000\nPOWER_SUPPLY_VOLTAGE_NOW=11934000\n\
        POWER_SUPPLY_POWER_NOW=6921000\nPOWER_SUPPLY_ENERGY_FULL_DESIGN=50450000\n\
        POWER_SUPPLY_ENERGY_FULL=47310000\nPOWER_SUPPLY_ENERGY_NOW=31060000\n\
        POWER_SUPPLY_CAPACITY=65\nPOWER_SUPPLY_CAPACITY_LEVEL=Normal\n\
        POWER_SUPPLY_MODEL_NAME=01AV405\nPOWER_SUPPLY_SERIAL_NUMBER= 1234\n";

    fn of(bytes: &[u8]) -> Battery {
        match parse(bytes) {
            Some(Supply::Battery(battery)) => battery,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn energies_and_charges_become_milliwatt_hours() {
        let expected = Battery {
            flow: Flow::Out,
            critical: false,
            rate: Some(6921),
            now: 31_060,
            full: 47_310,
            design: 50_450,
            voltage: Some(11_934),
            design_voltage: Some(11_520),
            cycles: 42,
        };
        assert_eq!(of(BAT0), expected);
        assert_eq!(expected.percent(), 65);
        let charges = of(b"POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Charging\n\
            POWER_SUPPLY_VOLTAGE_MIN_DESIGN=10000000\nPOWER_SUPPLY_VOLTAGE_NOW=12000000\n\
            POWER_SUPPLY_CURRENT_NOW=-500000\nPOWER_SUPPLY_CHARGE_FULL=4000000\n\
            POWER_SUPPLY_CAPACITY=50\nPOWER_SUPPLY_CAPACITY_LEVEL=Critical\n");
        assert_eq!((charges.flow, charges.rate), (Flow::In, Some(6000)));
        assert_eq!((charges.now, charges.full), (20_000, 40_000));
        assert_eq!((charges.design, charges.critical), (40_000, true));
    }

    #[test]
    fn what_is_no_battery_of_the_laptop_is_none() {
        for text in [
            "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_SCOPE=Device\nPOWER_SUPPLY_ENERGY_FULL=1000000\n\
             POWER_SUPPLY_ENERGY_NOW=1000\n",
            "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_PRESENT=0\nPOWER_SUPPLY_ENERGY_FULL=1000000\n",
            "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_CAPACITY=50\n",
            "POWER_SUPPLY_TYPE=UPS\nPOWER_SUPPLY_ONLINE=1\n",
            "POWER_SUPPLY_TYPE=Mains\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Supply::Other), "{text}");
        }
        let port = b"POWER_SUPPLY_TYPE=USB\nPOWER_SUPPLY_ONLINE=1\n";
        assert_eq!(parse(port), Some(Supply::Mains { online: true }));
        let adapter = b"POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=0\n";
        assert_eq!(parse(adapter), Some(Supply::Mains { online: false }));
        // Torn, empty, or not a supply's.
        for text in [&b""[..], b"\xff\xfe", b"POWER_SUPPLY_NAME=BAT0\nPOWER_"] {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn no_number_is_too_large_or_divides_by_zero() {
        let text = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_VOLTAGE_NOW=9223372036854775807\n\
            POWER_SUPPLY_CURRENT_NOW=-9223372036854775808\nPOWER_SUPPLY_CYCLE_COUNT=99999999999\n\
            POWER_SUPPLY_CHARGE_FULL=9223372036854775807\n\
            POWER_SUPPLY_CHARGE_NOW=9223372036854775807\n\
            POWER_SUPPLY_ENERGY_FULL_DESIGN=99999999999999999999999\n";
        fuzz(text.as_bytes());
        let battery = of(text.as_bytes());
        assert_eq!((battery.full, battery.rate), (MOST, Some(MOST)));
        let empty = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_ENERGY_FULL=0\n";
        assert_eq!(parse(empty.as_bytes()), Some(Supply::Other));
    }

    #[test]
    fn a_lid_is_open_or_closed() {
        assert_eq!(parse_lid(b"state:      open\n"), Some(true));
        assert_eq!(parse_lid(b"state:      closed\n"), Some(false));
        for torn in [&b""[..], b"state:", b"open", b"state: ajar\n"] {
            assert_eq!(parse_lid(torn), None);
        }
    }
}
