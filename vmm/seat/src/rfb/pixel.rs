//! Pixels as a viewer wants them (RFC 6143 §7.4).

/// How a pixel is written. Only true colour: no viewer of this century has a palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    bits: u8,
    depth: u8,
    big_endian: bool,
    /// Red, green, blue: the largest value and where it stands.
    channels: [(u16, u8); 3],
}

impl Format {
    /// The seat's own pixels.
    pub(super) const OWN: Self = Self {
        bits: 32,
        depth: 24,
        big_endian: false,
        channels: [(255, 16), (255, 8), (255, 0)],
    };

    /// A format that can be written; 16 bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.get(..16)?.try_into().ok()?;
        let [bits, depth, big_endian, true_colour, rest @ ..] = *bytes;
        if !matches!(bits, 8 | 16 | 32) || depth == 0 || depth > bits || true_colour == 0 {
            return None;
        }
        let channel = |index: usize| {
            let most = u16::from_be_bytes([rest[index * 2], rest[index * 2 + 1]]);
            let shift = rest[6 + index];
            // All of a channel is within the pixel.
            let width = u16::BITS - most.leading_zeros() + u32::from(shift);
            (most > 0 && width <= u32::from(bits)).then_some((most, shift))
        };
        Some(Self {
            bits,
            depth,
            big_endian: big_endian != 0,
            channels: [channel(0)?, channel(1)?, channel(2)?],
        })
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        let [(red, red_at), (green, green_at), (blue, blue_at)] = self.channels;
        let [red, green, blue] = [red, green, blue].map(u16::to_be_bytes);
        [
            self.bits,
            self.depth,
            self.big_endian.into(),
            1,
            red[0],
            red[1],
            green[0],
            green[1],
            blue[0],
            blue[1],
            red_at,
            green_at,
            blue_at,
            0,
            0,
            0,
        ]
    }

    /// The number that stands for a pixel of ours.
    fn number(self, pixel: u32) -> u32 {
        let [blue, green, red, _] = pixel.to_le_bytes();
        let values = [red, green, blue].into_iter().zip(self.channels);
        values.fold(0, |number, (value, (most, shift))| {
            let scaled = (u32::from(value) * u32::from(most) + 127) / 255;
            number | scaled << shift
        })
    }

    /// Writes a pixel of ours.
    pub(super) fn write(self, pixel: u32, into: &mut Vec<u8>) {
        let number = self.number(pixel);
        let bytes = usize::from(self.bits / 8);
        if self.big_endian {
            into.extend_from_slice(&number.to_be_bytes()[4 - bytes..]);
        } else {
            into.extend_from_slice(&number.to_le_bytes()[..bytes]);
        }
    }

    /// Writes a pixel as ZRLE does (RFC 6143 §7.7.5): three bytes where three hold it.
    pub(super) fn write_compressed(self, pixel: u32, into: &mut Vec<u8>) {
        let bits = self
            .channels
            .into_iter()
            .fold(0_u32, |bits, (most, shift)| bits | u32::from(most) << shift);
        let (low, high) = (bits < 1 << 24, bits.trailing_zeros() >= 8);
        if self.bits != 32 || self.depth > 24 || !(low || high) {
            return self.write(pixel, into);
        }
        let number = self.number(pixel);
        let number = if low { number } else { number >> 8 };
        if self.big_endian {
            into.extend_from_slice(&number.to_be_bytes()[1..]);
        } else {
            into.extend_from_slice(&number.to_le_bytes()[..3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_are_written_as_they_say() {
        let written = |format: Format| {
            let (mut plain, mut compressed) = (Vec::new(), Vec::new());
            format.write(0x12_80ff, &mut plain);
            format.write_compressed(0x12_80ff, &mut compressed);
            (plain, compressed)
        };
        assert_eq!(
            written(Format::OWN),
            (vec![0xff, 0x80, 0x12, 0], vec![0xff, 0x80, 0x12])
        );
        let swapped = Format {
            big_endian: true,
            channels: [(255, 8), (255, 16), (255, 24)],
            ..Format::OWN
        };
        assert_eq!(
            written(swapped),
            (vec![0xff, 0x80, 0x12, 0], vec![0xff, 0x80, 0x12])
        );
        let five_six_five = Format {
            bits: 16,
            depth: 16,
            big_endian: false,
            channels: [(31, 11), (63, 5), (31, 0)],
        };
        let number = 2_u16 << 11 | 32 << 5 | 31;
        let bytes = number.to_le_bytes().to_vec();
        assert_eq!(written(five_six_five), (bytes.clone(), bytes));
    }

    #[test]
    fn a_format_comes_back_from_its_bytes() {
        assert_eq!(Format::parse(&Format::OWN.bytes()), Some(Format::OWN));
    }

    proptest! {
        /// A format that is taken writes as many bytes as it says, whatever it says.
        #[test]
        fn any_format_is_refused_or_can_be_written(
            bits in prop_oneof![Just(8_u8), Just(16), Just(32), any::<u8>()],
            rest: [u8; 15],
            pixel: u32,
        ) {
            let mut bytes = [0; 16];
            bytes[0] = bits;
            bytes[1..].copy_from_slice(&rest);
            if let Some(format) = Format::parse(&bytes) {
                let mut written = Vec::new();
                format.write(pixel, &mut written);
                prop_assert_eq!(written.len(), usize::from(bits / 8));
                format.write_compressed(pixel, &mut written);
            }
        }
    }
}
