//! The power button: input devices that have a power key (`linux/input.h`).

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// `EV_KEY`, `KEY_POWER`; a press has the value 1.
const EVENT_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// `struct input_event` on a 64-bit machine: two words of time, type, code, value.
const EVENT: usize = 24;
/// Events read at once; a button sends four for each press.
const EVENTS: usize = 32;

/// Opens every input device that has a power key.
pub(crate) fn open() -> Vec<File> {
    let list = fs::read_to_string("/proc/bus/input/devices").unwrap_or_default();
    let nodes = with_power_key(&list);
    let buttons: Vec<File> = nodes
        .iter()
        .filter_map(|node| {
            OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(Path::new("/dev/input").join(node))
                .inspect_err(|error| tracing::warn!(node, %error, "a power button is not readable"))
                .ok()
        })
        .collect();
    if buttons.is_empty() {
        tracing::warn!("there is no power button to listen to");
    }
    buttons
}

/// Names of the event nodes (`event0`) of devices whose key map has the power key.
fn with_power_key(list: &str) -> Vec<String> {
    list.split("\n\n")
        .filter(|device| {
            device
                .lines()
                .find_map(|line| line.strip_prefix("B: KEY="))
                .is_some_and(has_power_key)
        })
        .filter_map(|device| {
            let handlers = device
                .lines()
                .find_map(|line| line.strip_prefix("H: Handlers="))?;
            let node = handlers
                .split_whitespace()
                .find(|handler| handler.starts_with("event"))?;
            Some(node.to_owned())
        })
        .collect()
}

/// The map is 64-bit words in hexadecimal, the highest first.
fn has_power_key(map: &str) -> bool {
    let word = usize::from(KEY_POWER / 64);
    map.split_whitespace()
        .rev()
        .nth(word)
        .and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (KEY_POWER % 64) & 1 == 1)
}

/// Reads what a button has to say; whether it was pressed. An error means that it is gone.
pub(crate) fn pressed(button: &mut File) -> std::io::Result<bool> {
    let mut buffer = [0; EVENT * EVENTS];
    let length = match button.read(&mut buffer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        other => other?,
    };
    Ok(buffer[..length].chunks_exact(EVENT).any(is_press))
}

fn is_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (half(16), half(18), value) == (EVENT_KEY, KEY_POWER, PRESSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_button_among_the_devices() {
        let list = "I: Bus=0019 Vendor=0000 Product=0001 Version=0000\nN: Name=\"Power Button\"\n\
                    H: Handlers=kbd event0 \nB: EV=3\nB: KEY=10000000000000 0\n\n\
                    N: Name=\"Mouse\"\nH: Handlers=mouse0 event1 \nB: KEY=1f0000 0 0 0 0\n\n\
                    N: Name=\"Keyboard\"\nH: Handlers=sysrq kbd leds event2 \n\
                    B: KEY=402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n";
        assert_eq!(with_power_key(list), ["event0", "event2"]);
    }

    #[test]
    fn a_press_is_a_press_and_its_end_is_not() {
        let mut event = [0; EVENT];
        event[16] = 1;
        event[18] = 116;
        assert!(!is_press(&event));
        event[20] = 1;
        assert!(is_press(&event));
        event[18] = 30;
        assert!(!is_press(&event));
    }
}
