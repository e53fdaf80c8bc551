//! Scan codes: which bytes a key of `input-event-codes.h` sends, and how the controller translates
//! them.
//!
//! The keyboard speaks scan code set 2, as every PS/2 keyboard does after power-on; the controller
//! translates it into set 1 where the guest wants that, which is always.
//!
//! Source: "Keyboard Scan Code Specification", revision 1.3a (Microsoft), with the keys of Japanese
//! keyboards; the translation is that of IBM's keyboard controller.

/// What a key is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// One code; the number is that of set 1.
    Plain(u8),
    /// A code behind 0xE0.
    Extended(u8),
    /// Print Screen: a shift key of its own around it.
    PrintScreen,
    /// Pause: it sends all it has when it goes down, and nothing when it goes up.
    Pause,
}

/// Longest sequence: that of Pause.
pub(super) const LONGEST: usize = 8;

/// Prefix of a key that went up.
const BREAK: u8 = 0xf0;
/// Prefix of the keys that came after the first keyboards.
const EXTENDED: u8 = 0xe0;

/// From set 2 to set 1.
const TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];
/// F7 and `SysRq` lie outside the table.
const OUTSIDE: [(u8, u8); 2] = [(0x83, 0x41), (0x84, 0x54)];

/// One byte of the keyboard as the controller hands it on; a code that went up has its highest bit
/// set.
pub(super) fn translate(byte: u8, up: bool) -> u8 {
    let outside = OUTSIDE.iter().find(|(code, _)| *code == byte);
    let code = match (outside, TRANSLATION.get(usize::from(byte))) {
        (Some((_, code)), _) | (None, Some(code)) => *code,
        // Answers and prefixes.
        (None, None) => return byte,
    };
    if up { code | 0x80 } else { code }
}

/// Whether the controller keeps the byte back, to mark the code that follows it.
pub(super) fn marks_break(byte: u8) -> bool {
    byte == BREAK
}

/// The code of set 2 that the controller translates into this one.
const fn untranslate(code: u8) -> u8 {
    let mut outside = 0;
    while outside < OUTSIDE.len() {
        if OUTSIDE[outside].1 == code {
            return OUTSIDE[outside].0;
        }
        outside += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        if TRANSLATION[byte as usize] == code {
            return byte;
        }
        byte += 1;
    }
    0
}

/// The key of an `input-event-codes.h` number, if a PS/2 keyboard has it.
fn key(code: u16) -> Option<Key> {
    use Key::{Extended, Pause, Plain, PrintScreen};
    Some(match code {
        // Linux numbered its keys by set 1 as far as that went; 85 is no key of it and 84 never was.
        1..=83 | 86..=88 => Plain(u8::try_from(code).ok()?),
        // Zenkaku/Hankaku, Ro, Katakana, Hiragana, Henkan, Katakana/Hiragana, Muhenkan, the keypad's
        // comma of Japanese keyboards, Yen.
        85 => Plain(0x76),
        89 => Plain(0x73),
        90 => Plain(0x78),
        91 => Plain(0x77),
        92 => Plain(0x79),
        93 => Plain(0x70),
        94 => Plain(0x7b),
        95 => Plain(0x5c),
        124 => Plain(0x7d),
        // The keypad: Enter, slash, equals, comma.
        96 => Extended(0x1c),
        98 => Extended(0x35),
        117 => Plain(0x59),
        121 => Plain(0x7e),
        // Right Control, Print Screen, right Alt.
        97 => Extended(0x1d),
        99 => PrintScreen,
        100 => Extended(0x38),
        // Home, up, page up, left, right, end, down, page down, insert, delete.
        102 => Extended(0x47),
        103 => Extended(0x48),
        104 => Extended(0x49),
        105 => Extended(0x4b),
        106 => Extended(0x4d),
        107 => Extended(0x4f),
        108 => Extended(0x50),
        109 => Extended(0x51),
        110 => Extended(0x52),
        111 => Extended(0x53),
        119 => Pause,
        // Mute, volume down and up.
        113 => Extended(0x20),
        114 => Extended(0x2e),
        115 => Extended(0x30),
        // Left and right Windows key, menu.
        125 => Extended(0x5b),
        126 => Extended(0x5c),
        127 => Extended(0x5d),
        // Calculator, mail, browser's bookmarks, back, forward, home, refresh and search.
        140 => Extended(0x21),
        155 => Extended(0x6c),
        156 => Extended(0x66),
        158 => Extended(0x6a),
        159 => Extended(0x69),
        172 => Extended(0x32),
        173 => Extended(0x67),
        217 => Extended(0x65),
        // Next, play or pause, previous, stop.
        163 => Extended(0x19),
        164 => Extended(0x22),
        165 => Extended(0x10),
        166 => Extended(0x24),
        // F13 to F23. F24 shares its code with Zenkaku/Hankaku, which staff have.
        183..=193 => Plain(0x64 + u8::try_from(code - 183).ok()?),
        _ => return None,
    })
}

/// The bytes of set 2 that a key sends when it goes down or up; none for a key that a PS/2 keyboard
/// does not have.
pub(super) fn sequence(code: u16, down: bool) -> Option<Sequence> {
    let mut bytes = Sequence::default();
    let plain = |bytes: &mut Sequence, code| {
        if !down {
            bytes.push(BREAK);
        }
        bytes.push(untranslate(code));
    };
    match key(code)? {
        Key::Plain(code) => plain(&mut bytes, code),
        Key::Extended(code) => {
            bytes.push(EXTENDED);
            plain(&mut bytes, code);
        }
        Key::PrintScreen => {
            let parts = if down { [0x2a, 0x37] } else { [0x37, 0x2a] };
            for code in parts {
                bytes.push(EXTENDED);
                plain(&mut bytes, code);
            }
        }
        Key::Pause if down => {
            for byte in [0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77] {
                bytes.push(byte);
            }
        }
        Key::Pause => {}
    }
    Some(bytes)
}

/// The bytes of one key.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Sequence {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// In the order in which they are sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(bytes: &[u8]) -> Vec<u8> {
        let mut up = false;
        let mut out = Vec::new();
        for byte in bytes {
            if marks_break(*byte) {
                up = true;
            } else {
                out.push(translate(*byte, up));
                up = false;
            }
        }
        out
    }

    fn sent(code: u16, down: bool) -> Vec<u8> {
        sequence(code, down).unwrap().bytes().to_vec()
    }

    /// What the specification's table gives for some keys, in both sets.
    #[test]
    fn keys_have_the_codes_of_the_specification() {
        for (code, set1, set2) in [
            (1, &[0x01][..], &[0x76][..]),
            (30, &[0x1e], &[0x1c]),
            (57, &[0x39], &[0x29]),
            (65, &[0x41], &[0x83]),
            (88, &[0x58], &[0x07]),
            (97, &[0xe0, 0x1d], &[0xe0, 0x14]),
            (103, &[0xe0, 0x48], &[0xe0, 0x75]),
            (111, &[0xe0, 0x53], &[0xe0, 0x71]),
            (125, &[0xe0, 0x5b], &[0xe0, 0x1f]),
            // Ro, Yen, Henkan, Muhenkan, Katakana/Hiragana.
            (89, &[0x73], &[0x51]),
            (124, &[0x7d], &[0x6a]),
            (92, &[0x79], &[0x64]),
            (94, &[0x7b], &[0x67]),
            (93, &[0x70], &[0x13]),
        ] {
            assert_eq!(sent(code, true), set2, "key {code}");
            assert_eq!(translated(&sent(code, true)), set1, "key {code}");
            let mut up = set1.to_vec();
            *up.last_mut().unwrap() |= 0x80;
            assert_eq!(translated(&sent(code, false)), up, "key {code}");
        }
    }

    #[test]
    fn print_screen_and_pause_are_what_they_always_were() {
        assert_eq!(translated(&sent(99, true)), [0xe0, 0x2a, 0xe0, 0x37]);
        assert_eq!(translated(&sent(99, false)), [0xe0, 0xb7, 0xe0, 0xaa]);
        let pause = [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5];
        assert_eq!(translated(&sent(119, true)), pause);
        assert!(sent(119, false).is_empty());
    }

    #[test]
    fn no_two_keys_look_alike() {
        let mut seen = std::collections::HashMap::new();
        for code in 0..768 {
            if let Some(sequence) = sequence(code, true) {
                assert!(!sequence.bytes().contains(&0), "key {code}");
                let other = seen.insert(sequence.bytes().to_vec(), code);
                assert_eq!(other, None, "key {code}");
            }
        }
        assert!(seen.len() > 130);
    }
}
