//! What a laptop has beside, in AML: battery, mains adapter, lid, sleep button, and the methods that its
//! events run. Values come out of the window of [`crate::chipset::laptop`].
//!
//! Source: ACPI 6.5, 9.4 (lid), 4.8.3.2 (sleep button), 10.2 (batteries), 10.3 (adapter), 5.6.4
//! (general-purpose events).

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Index, Method, Name, Notify, ONE, OpRegion, OpRegionSpace, Package, Path,
    Return, Scope, Store, ZERO,
};

use super::bytes_of;
use super::dsdt::Raw;
use crate::board::layout::LAPTOP;
use crate::chipset::laptop::{Event, WINDOW};

/// `_STA`: present, enabled, shown, working; and, for a battery, one that is in its place (ACPI 6.5,
/// 6.3.7 and 10.2.1).
const PLACE: u8 = 0xf;
const PLACE_AND_BATTERY: u8 = 0x1f;

/// What ACPI tells an operating system by a notification: something changed (0x80; of a battery its
/// state), or a battery's `_BIX` did (0x81).
const CHANGED: u8 = 0x80;
const INFO_CHANGED: u8 = 0x81;

/// Numbers of a battery that nobody measures here: accuracy in thousandths of a percent, how long and how
/// short a sample and an average take in ms, steps between two capacities in mWh.
const ACCURACY: u32 = 95_000;
const SAMPLE: u32 = 2000;
const STEP: u32 = 10;

/// The fields of the window, in its order.
const FIELDS: [&[u8; 4]; 10] = [
    b"BSTT", b"BRTE", b"BCAP", b"BVOL", b"BDES", b"BFUL", b"BDVO", b"BWRN", b"BLOW", b"BCYC",
];

/// Everything of it.
pub(super) fn devices() -> Vec<u8> {
    let mut body = window();
    let mut devices = Vec::new();
    adapter(&mut devices);
    battery(&mut devices);
    lid_and_button(&mut devices);
    body.extend(Scope::raw("\\_SB_".into(), devices));
    body.extend(Scope::raw("\\_GPE".into(), events()));
    body
}

fn window() -> Vec<u8> {
    let mut bytes = Vec::new();
    OpRegion::new("\\LAPW".into(), OpRegionSpace::SystemIO, &LAPTOP, &WINDOW)
        .to_aml_bytes(&mut bytes);
    let mut fields = vec![
        FieldEntry::Named(*b"ACON", 1),
        FieldEntry::Named(*b"LIDO", 1),
        FieldEntry::Named(*b"BATP", 1),
        FieldEntry::Reserved(29),
    ];
    fields.extend(FIELDS.map(|name| FieldEntry::Named(*name, 32)));
    Field::new(
        "\\LAPW".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        fields,
    )
    .to_aml_bytes(&mut bytes);
    bytes
}

/// Whom it feeds: the whole machine.
fn feeds() -> Raw {
    let mut bytes = Vec::new();
    let machine = Path::new("\\_SB_");
    Name::new("_PCL".into(), &Package::new(vec![&machine])).to_aml_bytes(&mut bytes);
    Raw(bytes)
}

fn field(name: &str) -> Path {
    Path::new(name)
}

fn method(name: &str, serialized: bool, body: Vec<&dyn Aml>, sink: &mut Vec<u8>) {
    Method::new(name.into(), 0, serialized, body).to_aml_bytes(sink);
}

fn adapter(devices: &mut Vec<u8>) {
    let mut inside = Vec::new();
    Name::new("_HID".into(), &"ACPI0003").to_aml_bytes(&mut inside);
    feeds().to_aml_bytes(&mut inside);
    method(
        "_PSR",
        false,
        vec![&Return::new(&field("ACON"))],
        &mut inside,
    );
    Device::new("ADP1".into(), vec![&Raw(inside)]).to_aml_bytes(devices);
}

/// Elements of a package that a method fills before it gives it: where, and with which field.
type Fill = &'static [(u8, &'static str)];

/// `_BST` (ACPI 6.5, 10.2.2.6).
const STATE: Fill = &[(0, "BSTT"), (1, "BRTE"), (2, "BCAP"), (3, "BVOL")];
/// `_BIX`, revision 0 (10.2.2.2).
const EXTENDED: Fill = &[
    (2, "BDES"),
    (3, "BFUL"),
    (5, "BDVO"),
    (6, "BWRN"),
    (7, "BLOW"),
    (8, "BCYC"),
];
/// `_BIF` (10.2.2.1), which older operating systems ask for.
const INFORMATION: Fill = &[
    (1, "BDES"),
    (2, "BFUL"),
    (4, "BDVO"),
    (5, "BWRN"),
    (6, "BLOW"),
];

/// A package under `name`, and a method that fills it and gives it.
fn filled(method_name: &str, name: &str, package: Vec<&dyn Aml>, fill: Fill, sink: &mut Vec<u8>) {
    Name::new(name.into(), &Package::new(package)).to_aml_bytes(sink);
    let mut body = Vec::new();
    for (index, from) in fill {
        Store::new(&Index::new(&ZERO, &field(name), index), &field(from)).to_aml_bytes(&mut body);
    }
    Return::new(&field(name)).to_aml_bytes(&mut body);
    method(method_name, true, vec![&Raw(body)], sink);
}

fn battery(devices: &mut Vec<u8>) {
    let mut inside = Vec::new();
    for (name, value) in [
        ("_HID", &EISAName::new("PNP0C0A") as &dyn Aml),
        ("_UID", &ONE),
    ] {
        Name::new(name.into(), value).to_aml_bytes(&mut inside);
    }
    feeds().to_aml_bytes(&mut inside);
    let there = field("BATP");
    let (full, empty) = (Return::new(&PLACE_AND_BATTERY), Return::new(&PLACE));
    let is_there = Equal::new(&there, &ONE);
    let (then, otherwise) = (If::new(&is_there, vec![&full]), Else::new(vec![&empty]));
    method("_STA", false, vec![&then, &otherwise], &mut inside);
    let (zero, unit): (&dyn Aml, &dyn Aml) = (&ZERO, &ZERO);
    let rechargeable: &dyn Aml = &ONE;
    let (accuracy, sample, step): (&dyn Aml, &dyn Aml, &dyn Aml) = (&ACCURACY, &SAMPLE, &STEP);
    // No model, no serial number: which cells they are is nobody's affair.
    let names: [&dyn Aml; 4] = [&"Sekisho", &"", &"LION", &"Sekisho"];
    filled("_BST", "PBST", vec![zero; 4], STATE, &mut inside);
    let mut package = vec![zero, unit, zero, zero, rechargeable, zero, zero, zero, zero];
    package.extend([accuracy, sample, sample, sample, sample, step, step]);
    package.extend(names);
    filled("_BIX", "PBIX", package, EXTENDED, &mut inside);
    let mut package = vec![unit, zero, zero, rechargeable, zero, zero, zero, step, step];
    package.extend(names);
    filled("_BIF", "PBIF", package, INFORMATION, &mut inside);
    Device::new("BAT0".into(), vec![&Raw(inside)]).to_aml_bytes(devices);
}

fn lid_and_button(devices: &mut Vec<u8>) {
    let mut inside = Vec::new();
    Name::new("_HID".into(), &EISAName::new("PNP0C0D")).to_aml_bytes(&mut inside);
    method(
        "_LID",
        false,
        vec![&Return::new(&field("LIDO"))],
        &mut inside,
    );
    Device::new("LID0".into(), vec![&Raw(inside)]).to_aml_bytes(devices);
    let id = Name::new("_HID".into(), &EISAName::new("PNP0C0E"));
    Device::new("SLPB".into(), vec![&id]).to_aml_bytes(devices);
}

/// One method an event, "edge": the operating system clears the event first, so that one which comes
/// while the method runs is seen again.
fn events() -> Vec<u8> {
    let mut methods = Vec::new();
    for event in Event::ALL {
        let (device, value) = match event {
            Event::Mains => ("\\_SB_.ADP1", CHANGED),
            Event::Battery => ("\\_SB_.BAT0", CHANGED),
            Event::BatteryInfo => ("\\_SB_.BAT0", INFO_CHANGED),
            Event::Lid => ("\\_SB_.LID0", CHANGED),
            Event::SleepButton => ("\\_SB_.SLPB", CHANGED),
        };
        let name = format!("_E{:02X}", event as u8);
        let notify = bytes_of(&Notify::new(&Path::new(device), &value));
        method(&name, false, vec![&Raw(notify)], &mut methods);
    }
    methods
}
