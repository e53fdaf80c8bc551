//! Keys by their place on the keyboard: XT scancodes, as QEMU's extended key event carries them
//! (rfbproto, "QEMU Extended Key Event Message": a second byte 0xe0 sets bit 7), to the numbers of
//! Linux' `input-event-codes.h`.

/// Bit of a code that came behind 0xe0.
const EXTENDED: u32 = 0x80;

/// The key of that code, if there is one.
pub fn key(code: u32) -> Option<u16> {
    let key = match code {
        // `KEY_ESC` to `KEY_KPDOT`, `KEY_102ND`, `KEY_F11`, `KEY_F12`: Linux took these over.
        0x01..=0x53 | 0x56..=0x58 => u16::try_from(code).ok()?,
        0x59 => 117, // KEY_KPEQUAL
        0x70 => 93,  // KEY_KATAKANAHIRAGANA
        0x73 => 89,  // KEY_RO
        0x76 => 85,  // KEY_ZENKAKUHANKAKU
        0x77 => 91,  // KEY_HIRAGANA
        0x78 => 90,  // KEY_KATAKANA
        0x79 => 92,  // KEY_HENKAN
        0x7b => 94,  // KEY_MUHENKAN
        0x7d => 124, // KEY_YEN
        0x7e => 121, // KEY_KPCOMMA
        _ => match code.checked_sub(EXTENDED)? {
            0x1c => 96,  // KEY_KPENTER
            0x1d => 97,  // KEY_RIGHTCTRL
            0x20 => 113, // KEY_MUTE
            0x2e => 114, // KEY_VOLUMEDOWN
            0x30 => 115, // KEY_VOLUMEUP
            0x35 => 98,  // KEY_KPSLASH
            0x37 => 99,  // KEY_SYSRQ
            0x38 => 100, // KEY_RIGHTALT
            0x46 => 119, // KEY_PAUSE
            0x47 => 102, // KEY_HOME
            0x48 => 103, // KEY_UP
            0x49 => 104, // KEY_PAGEUP
            0x4b => 105, // KEY_LEFT
            0x4d => 106, // KEY_RIGHT
            0x4f => 107, // KEY_END
            0x50 => 108, // KEY_DOWN
            0x51 => 109, // KEY_PAGEDOWN
            0x52 => 110, // KEY_INSERT
            0x53 => 111, // KEY_DELETE
            0x5b => 125, // KEY_LEFTMETA
            0x5c => 126, // KEY_RIGHTMETA
            0x5d => 127, // KEY_COMPOSE
            _ => return None,
        },
    };
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn japanese_keys_have_their_place() {
        assert_eq!(key(0x79), Some(92));
        assert_eq!(key(0x7b), Some(94));
        assert_eq!(key(0x70), Some(93));
        assert_eq!(key(0x7d), Some(124));
        assert_eq!(key(0x73), Some(89));
        // Hankaku/Zenkaku stands where Western keyboards have the grave accent.
        assert_eq!(key(0x29), Some(41));
        assert_eq!(key(0x1e), Some(30));
        assert_eq!(key(EXTENDED | 0x48), Some(103));
        for none in [0, 0x54, 0x7f, EXTENDED, 0x100, u32::MAX] {
            assert_eq!(key(none), None, "{none:#x}");
        }
    }
}
