//! The DSDT: the PCI root with its windows, the small legacy devices, and S5.

use std::ops::Range;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO,
    If, Memory32Fixed, Method, Name, Or, Package, Path, ResourceTemplate, Return, Scope, Uuid,
    ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::{Hardware, header, laptop};
use crate::board::layout::{
    CMOS_BASE, COM1_BASE, COM1_IRQ, I8042_COMMAND, I8042_DATA, KEYBOARD_IRQ, LAPTOP, LOW_RAM_LIMIT,
    MOUSE_IRQ, PCI_CONFIG, PCI_MMIO32, PM_BASE, PM_LEN, RTC_IRQ, TPM,
};
use crate::chipset::laptop::WINDOW;
use crate::chipset::pm::SLEEP_S5;

/// PCI Firmware Specification 3.3, 4.5.1: `_OSC` of a host bridge.
const OSC_UUID: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/// `_OSC`: the UUID is not known.
const OSC_UNKNOWN_UUID: u8 = 4;
/// GSIs of the four interrupt pins, as ICH9 routes them. No function of this board has a pin; an
/// operating system still wants the table.
const FIRST_PIRQ_GSI: u32 = 16;

/// An ISA interrupt: edge-triggered, active high, not shared (ACPI 6.5, 6.4.2.1).
struct IsaInterrupt(u32);

impl Aml for IsaInterrupt {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1u16.checked_shl(self.0).unwrap_or(0));
    }
}

/// The table.
pub(super) fn table(hardware: &Hardware) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(pci_root(hardware));
    if hardware.tpm {
        body.extend(tpm());
    }
    if hardware.laptop {
        body.extend(laptop::devices());
    }
    processors(hardware.cpus, &mut body);
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&SLEEP_S5, &ZERO, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut body);
    let mut table = header(*b"DSDT", 2);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

fn processors(cpus: u8, body: &mut Vec<u8>) {
    let mut inside = Vec::new();
    for cpu in 0..cpus {
        let name = format!("C{cpu:03X}");
        Device::new(
            Path::new(&name),
            vec![
                &Name::new("_HID".into(), &"ACPI0007"),
                &Name::new("_UID".into(), &cpu),
            ],
        )
        .to_aml_bytes(&mut inside);
    }
    body.extend(Scope::raw("\\_SB_".into(), inside));
}

fn pci_root(hardware: &Hardware) -> Vec<u8> {
    let (ecam, mmio64) = (&hardware.ecam, &hardware.mmio64);
    // Devices may lie on either side of ECAM, from where RAM ends to where the chipset begins.
    let narrow = |range: Range<u64>| {
        let bound = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
        AddressSpace::<u32>::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            bound(range.start),
            bound(range.end - 1),
            None,
        )
    };
    let mut children = Vec::new();
    for (name, value) in [
        ("_HID", &EISAName::new("PNP0A08") as &dyn Aml),
        ("_CID", &EISAName::new("PNP0A03")),
        ("_UID", &ZERO),
        ("_BBN", &ZERO),
    ] {
        Name::new(name.into(), value).to_aml_bytes(&mut children);
    }
    Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![
            &AddressSpace::<u16>::new_bus_number(0, 0),
            &IO::new(PCI_CONFIG, PCI_CONFIG, 1, 8),
            &AddressSpace::<u16>::new_io(0, PCI_CONFIG - 1, None),
            &AddressSpace::<u16>::new_io(PCI_CONFIG + 8, u16::MAX, None),
            &narrow(LOW_RAM_LIMIT..ecam.start),
            &narrow(ecam.end..PCI_MMIO32.end),
            &AddressSpace::<u64>::new_memory(
                AddressSpaceCacheable::Cacheable,
                true,
                mmio64.start,
                mmio64.end - 1,
                None,
            ),
        ]),
    )
    .to_aml_bytes(&mut children);
    interrupt_routing(&mut children);
    osc(&mut children);
    lpc(hardware, &mut children);
    let mut root = Vec::new();
    Device::new("PCI0".into(), vec![&Raw(children)]).to_aml_bytes(&mut root);
    ecam_reservation(ecam).to_aml_bytes(&mut root);
    Scope::raw("\\_SB_".into(), root)
}

/// Bytes that are AML already.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The ECAM window belongs to nobody else: operating systems look for a motherboard resource
/// before they use it (PCI Firmware Specification 3.3, 4.1.2).
fn ecam_reservation(ecam: &Range<u64>) -> Raw {
    let (base, length) = (ecam.start, ecam.end - ecam.start);
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    Device::new(
        "DRAC".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C01")),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(
                    true,
                    narrow(base),
                    narrow(length),
                )]),
            ),
        ],
    )
    .to_aml_bytes(&mut bytes);
    Raw(bytes)
}

/// The TPM (TCG PC Client Platform Firmware Profile 1.05, 3.3: its `_HID`).
fn tpm() -> Vec<u8> {
    /// Present, enabled, shown, working (ACPI 6.5, 6.3.7).
    const STATUS: u8 = 0xf;
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let registers = Memory32Fixed::new(true, narrow(TPM.start), narrow(TPM.end - TPM.start));
    let mut inside = Vec::new();
    Device::new(
        "TPM_".into(),
        vec![
            &Name::new("_HID".into(), &"MSFT0101"),
            &Name::new("_UID".into(), &1u8),
            &Name::new("_STA".into(), &STATUS),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers])),
        ],
    )
    .to_aml_bytes(&mut inside);
    Scope::raw("\\_SB_".into(), inside)
}

fn interrupt_routing(children: &mut Vec<u8>) {
    // Any function of device 31 (its address with all functions), by pin.
    const DEVICE_31: u32 = 0x001f_ffff;
    let gsis = [0u32, 1, 2, 3].map(|pin| FIRST_PIRQ_GSI + pin);
    let route = |pin: u8| -> Raw {
        let mut bytes = Vec::new();
        Package::new(vec![&DEVICE_31, &pin, &ZERO, &gsis[usize::from(pin & 3)]])
            .to_aml_bytes(&mut bytes);
        Raw(bytes)
    };
    let routes = [0, 1, 2, 3].map(route);
    let rows = routes.iter().map(|route| route as &dyn Aml).collect();
    Name::new("_PRT".into(), &Package::new(rows)).to_aml_bytes(children);
}

/// `_OSC`: the operating system may have whatever it asks for; there is no firmware to share with.
fn osc(children: &mut Vec<u8>) {
    let uuid = Uuid::new(OSC_UUID);
    Method::new(
        "_OSC".into(),
        4,
        false,
        vec![
            &If::new(&Equal::new(&Arg(0), &uuid), vec![&Return::new(&Arg(3))]),
            &Else::new(vec![
                &CreateDWordField::new(&Path::new("CDW1"), &Arg(3), &ZERO),
                &Or::new(&Path::new("CDW1"), &Path::new("CDW1"), &OSC_UNKNOWN_UUID),
                &Return::new(&Arg(3)),
            ]),
        ],
    )
    .to_aml_bytes(children);
}

/// The LPC bridge and what is behind it.
fn lpc(hardware: &Hardware, children: &mut Vec<u8>) {
    let mut inside = Vec::new();
    Name::new("_ADR".into(), &0x001f_0000u32).to_aml_bytes(&mut inside);
    let pm_len = u8::try_from(PM_LEN).unwrap_or(u8::MAX);
    legacy(
        "PMR_",
        "PNP0C02",
        &ResourceTemplate::new(vec![
            &IO::new(PM_BASE, PM_BASE, 1, pm_len),
            &IO::new(LAPTOP, LAPTOP, 1, WINDOW),
            &IO::new(0x92, 0x92, 1, 1),
        ]),
    )
    .to_aml_bytes(&mut inside);
    legacy(
        "RTC_",
        "PNP0B00",
        &ResourceTemplate::new(vec![
            &IO::new(CMOS_BASE, CMOS_BASE, 1, 2),
            &IsaInterrupt(RTC_IRQ),
        ]),
    )
    .to_aml_bytes(&mut inside);
    if hardware.ps2 {
        legacy(
            "KBD_",
            "PNP0303",
            &ResourceTemplate::new(vec![
                &IO::new(I8042_DATA, I8042_DATA, 1, 1),
                &IO::new(I8042_COMMAND, I8042_COMMAND, 1, 1),
                &IsaInterrupt(KEYBOARD_IRQ),
            ]),
        )
        .to_aml_bytes(&mut inside);
        legacy(
            "MOU_",
            "PNP0F13",
            &ResourceTemplate::new(vec![&IsaInterrupt(MOUSE_IRQ)]),
        )
        .to_aml_bytes(&mut inside);
    }
    if hardware.serial {
        legacy(
            "COM1",
            "PNP0501",
            &ResourceTemplate::new(vec![
                &IO::new(COM1_BASE, COM1_BASE, 1, 8),
                &IsaInterrupt(COM1_IRQ),
            ]),
        )
        .to_aml_bytes(&mut inside);
    }
    Device::new("LPC_".into(), vec![&Raw(inside)]).to_aml_bytes(children);
}

fn legacy(name: &str, id: &str, resources: &dyn Aml) -> Raw {
    let mut bytes = Vec::new();
    Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(id)),
            &Name::new("_CRS".into(), resources),
        ],
    )
    .to_aml_bytes(&mut bytes);
    Raw(bytes)
}
