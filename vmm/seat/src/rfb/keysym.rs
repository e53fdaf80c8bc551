//! Keys by what is written on them: X keysyms (`keysymdef.h`) to the numbers of Linux'
//! `input-event-codes.h`, for viewers that do not tell the key's place.
//!
//! A keysym says what the viewer's keyboard writes; which key that is depends on the guest's layout.
//! A shifted character is found on the key of its own, since the viewer sends Shift as a key.

/// The guest's keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// OADG 109A.
    #[default]
    Japanese,
    /// ANSI.
    Us,
}

/// Keys whose letters are the same everywhere: plain characters, then the key's number.
const LETTERS: [(&str, u16); 4] = [
    ("1234567890", 2),
    ("qwertyuiop", 16),
    ("asdfghjkl", 30),
    ("zxcvbnm", 44),
];

/// What a layout writes: the key, plain and with Shift.
type Written = [(u16, char, char)];

const JAPANESE: &Written = &[
    (2, '1', '!'),
    (3, '2', '"'),
    (4, '3', '#'),
    (5, '4', '$'),
    (6, '5', '%'),
    (7, '6', '&'),
    (8, '7', '\''),
    (9, '8', '('),
    (10, '9', ')'),
    (12, '-', '='),
    (13, '^', '~'),
    (124, '¥', '|'),
    (26, '@', '`'),
    (27, '[', '{'),
    (39, ';', '+'),
    (40, ':', '*'),
    (43, ']', '}'),
    (51, ',', '<'),
    (52, '.', '>'),
    (53, '/', '?'),
    (89, '\\', '_'),
];

const US: &Written = &[
    (2, '1', '!'),
    (3, '2', '@'),
    (4, '3', '#'),
    (5, '4', '$'),
    (6, '5', '%'),
    (7, '6', '^'),
    (8, '7', '&'),
    (9, '8', '*'),
    (10, '9', '('),
    (11, '0', ')'),
    (12, '-', '_'),
    (13, '=', '+'),
    (26, '[', '{'),
    (27, ']', '}'),
    (39, ';', ':'),
    (40, '\'', '"'),
    (41, '`', '~'),
    (43, '\\', '|'),
    (51, ',', '<'),
    (52, '.', '>'),
    (53, '/', '?'),
];

/// The key that has this keysym, if there is one.
pub fn key(keysym: u32, layout: Layout) -> Option<u16> {
    match keysym {
        0x20..=0x7e | 0xa5 => written(char::from_u32(keysym)?, layout),
        _ => named(keysym),
    }
}

fn written(character: char, layout: Layout) -> Option<u16> {
    if character == ' ' {
        return Some(57);
    }
    let small = character.to_ascii_lowercase();
    for (letters, first) in LETTERS {
        if let Some(at) = letters.find(small) {
            return Some(first + u16::try_from(at).ok()?);
        }
    }
    let keys = match layout {
        Layout::Japanese => JAPANESE,
        Layout::Us => US,
    };
    let key = keys
        .iter()
        .find(|(_, plain, shifted)| character == *plain || character == *shifted);
    key.map(|(key, ..)| *key)
}

fn named(keysym: u32) -> Option<u16> {
    let key = match keysym {
        0xff08 => 14,                                                 // BackSpace
        0xff09 | 0xfe20 => 15,                                        // Tab, ISO_Left_Tab
        0xff0d => 28,                                                 // Return
        0xff13 => 119,                                                // Pause
        0xff14 => 70,                                                 // Scroll_Lock
        0xff15 | 0xff61 => 99,                                        // Sys_Req, Print
        0xff1b => 1,                                                  // Escape
        0xff22 => 94,                                                 // Muhenkan
        0xff21 | 0xff23 => 92,                                        // Kanji, Henkan
        0xff25..=0xff27 | 0xff2d => 93, // Hiragana, Katakana, Hiragana_Katakana, Kana_Lock
        0xff28..=0xff2a => 41, // Zenkaku, Hankaku, Zenkaku_Hankaku: where Linux has the grave
        0xff50 => 102,         // Home
        0xff51 => 105,         // Left
        0xff52 => 103,         // Up
        0xff53 => 106,         // Right
        0xff54 => 108,         // Down
        0xff55 => 104,         // Prior
        0xff56 => 109,         // Next
        0xff57 => 107,         // End
        0xff63 => 110,         // Insert
        0xff20 | 0xff67 => 127, // Multi_key, Menu
        0xff7f => 69,          // Num_Lock
        0xff8d => 96,          // KP_Enter
        0xff95 | 0xffb7 => 71, // KP_Home, KP_7
        0xff97 | 0xffb8 => 72, // KP_Up, KP_8
        0xff9a | 0xffb9 => 73, // KP_Prior, KP_9
        0xff96 | 0xffb4 => 75, // KP_Left, KP_4
        0xff9d | 0xffb5 => 76, // KP_Begin, KP_5
        0xff98 | 0xffb6 => 77, // KP_Right, KP_6
        0xff9c | 0xffb1 => 79, // KP_End, KP_1
        0xff99 | 0xffb2 => 80, // KP_Down, KP_2
        0xff9b | 0xffb3 => 81, // KP_Next, KP_3
        0xff9e | 0xffb0 => 82, // KP_Insert, KP_0
        0xff9f | 0xffae => 83, // KP_Delete, KP_Decimal
        0xffaa => 55,          // KP_Multiply
        0xffab => 78,          // KP_Add
        0xffac => 121,         // KP_Separator
        0xffad => 74,          // KP_Subtract
        0xffaf => 98,          // KP_Divide
        0xffbd => 117,         // KP_Equal
        0xffbe..=0xffc7 => u16::try_from(keysym - 0xffbe).ok()? + 59, // F1 to F10
        0xffc8 => 87,          // F11
        0xffc9 => 88,          // F12
        0xffe1 => 42,          // Shift_L
        0xffe2 => 54,          // Shift_R
        0xffe3 => 29,          // Control_L
        0xffe4 => 97,          // Control_R
        0xff2f | 0xff30 | 0xffe5 => 58, // Eisu_Shift, Eisu_toggle, Caps_Lock
        0xffe7 | 0xffeb => 125, // Meta_L, Super_L
        0xffe8 | 0xffec => 126, // Meta_R, Super_R
        0xffe9 => 56,          // Alt_L
        0xffea | 0xfe03 => 100, // Alt_R, ISO_Level3_Shift
        0xffff => 111,         // Delete
        0x1008_ff11 => 114,    // XF86AudioLowerVolume
        0x1008_ff12 => 113,    // XF86AudioMute
        0x1008_ff13 => 115,    // XF86AudioRaiseVolume
        _ => return None,
    };
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_character_has_a_key_in_both_layouts() {
        for layout in [Layout::Japanese, Layout::Us] {
            let keys: BTreeSet<u16> = (0x20..=0x7e)
                .map(|keysym| key(keysym, layout).unwrap_or_else(|| panic!("{keysym:#x}")))
                .collect();
            // A hundred and nine keys write one character more than ANSI's: the yen sign.
            assert!((48..=49).contains(&keys.len()), "{}", keys.len());
        }
    }

    #[test]
    fn the_layouts_differ_where_the_keyboards_do() {
        let both = |character: char| {
            let keysym = u32::from(character);
            (key(keysym, Layout::Japanese), key(keysym, Layout::Us))
        };
        assert_eq!(both('@'), (Some(26), Some(3)));
        assert_eq!(both('"'), (Some(3), Some(40)));
        assert_eq!(both('_'), (Some(89), Some(12)));
        assert_eq!(both('¥'), (Some(124), None));
        assert_eq!(both('A'), (Some(30), Some(30)));
        assert_eq!(both('0'), (Some(11), Some(11)));
    }

    #[test]
    fn japanese_keys_are_known_by_name() {
        let key = |keysym| key(keysym, Layout::Japanese);
        assert_eq!(key(0xff23), Some(92));
        assert_eq!(key(0xff22), Some(94));
        assert_eq!(key(0xff2a), Some(41));
        assert_eq!(key(0xff27), Some(93));
        assert_eq!(key(0xffc7), Some(68));
        assert_eq!(key(0x0100_3042), None);
    }
}
