//! The codec on the link: one output from a converter to a speaker, one input from a microphone to a
//! converter, with gain and mute at the converters (HDA specification 1.0a, chapter 7, here called HDA).
//!
//! Verbs are answered at once and cost the same whatever they say. What no node knows is answered by
//! zero, as the specification asks.

/// QEMU's codec with one output and one input, whose nodes these are; drivers go by the nodes.
const VENDOR: u32 = 0x1af4_0022;
const REVISION: u32 = 0x0010_0101;

const ROOT: u8 = 0;
const GROUP: u8 = 1;
const DAC: u8 = 2;
const SPEAKER: u8 = 3;
const ADC: u8 = 4;
const MICROPHONE: u8 = 5;

/// Rates and sizes (HDA 7.3.4.7): 44.1 and 48 kHz, 16 bits.
const PCM: u32 = 1 << 17 | 1 << 6 | 1 << 5;
/// Steps of gain below the loudest, one decibel each, and a mute (HDA 7.3.4.10).
const STEPS: u8 = 0x4a;
const AMPLIFIER: u32 = 1 << 31 | 3 << 16 | (STEPS as u32) << 8 | STEPS as u32;
const MUTE: u8 = 0x80;
/// Power states D0 and D3.
const POWER_STATES: u32 = 1 << 3 | 1;
/// Built in, speaker, the only one of its association (HDA 7.3.3.31).
const SPEAKER_DEFAULT: u32 = 0x9017_0110;
const MICROPHONE_DEFAULT: u32 = 0x90a7_0120;
const PIN_OUT: u8 = 0x40;
const PIN_IN: u8 = 0x20;

/// How a stream is to be read (HDA 3.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Frames per second.
    pub rate: u32,
}

impl Format {
    /// Bytes of a frame: two samples of 16 bits.
    pub const FRAME: usize = 4;

    /// Reads the register's 16 bits; `None` for what the codec does not offer.
    pub fn parse(register: u16) -> Option<Self> {
        match register {
            0x0011 => Some(Self { rate: 48_000 }),
            0x4011 => Some(Self { rate: 44_100 }),
            _ => None,
        }
    }

    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        u64::from(self.rate) * Self::FRAME as u64
    }
}

/// A converter: what it is set to.
#[derive(Debug, Clone, Copy)]
struct Converter {
    format: u16,
    /// Stream in the upper four bits, channel in the lower.
    stream: u8,
    /// Gain and mute, left and right.
    gain: [u8; 2],
    power: u8,
}

impl Converter {
    const POWER_ON: Self = Self {
        format: 0x0011,
        stream: 0,
        gain: [STEPS; 2],
        power: 0,
    };

    /// Gains in parts of 65536, left and right.
    fn levels(self) -> [i64; 2] {
        self.gain.map(|gain| {
            if gain & MUTE != 0 {
                return 0;
            }
            // A decibel less for each step below the top: 10^(-1/20) in parts of 65536.
            let down = STEPS - gain.min(STEPS);
            (0..down).fold(1 << 16, |level: i64, _| (level * 58_409) >> 16)
        })
    }
}

/// The codec at address 0 of the link.
#[derive(Debug)]
pub(super) struct Codec {
    dac: Converter,
    adc: Converter,
    speaker: u8,
    microphone: u8,
    power: u8,
    subsystem: u32,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            dac: Converter::POWER_ON,
            adc: Converter::POWER_ON,
            speaker: PIN_OUT,
            microphone: PIN_IN,
            power: 0,
            subsystem: VENDOR,
        }
    }
}

impl Codec {
    /// Answers a command as it stands in the CORB; `None` where it is for a codec that is not there.
    pub(super) fn command(&mut self, command: u32) -> Option<u32> {
        let [low, middle, node, address] = command.to_le_bytes();
        // Four bits of codec, eight of node, then a verb: four bits with 16 of payload, or twelve
        // with 8 (HDA 7.3).
        if address & 0xf0 != 0 {
            return None;
        }
        let (code, node) = (node & 0x0f, node >> 4 | address << 4);
        let word = u16::from_le_bytes([low, middle]);
        Some(match code {
            0x2 => self.set_format(node, word),
            0x3 => self.set_gain(node, word),
            0xa => self.converter(node).map_or(0, |it| it.format.into()),
            0xb => self.gain(node, word),
            0x7 => self.set(node, middle, low),
            0xf => self.get(node, middle, low),
            _ => 0,
        })
    }

    /// Turns what the guest plays in stream `stream` into what the speaker gets: silence where the
    /// path is not set up.
    pub(super) fn play(&self, stream: u8, frames: &mut [u8]) {
        let open = self.power == 0 && self.speaker & PIN_OUT != 0;
        pass(self.dac, open, stream, frames);
    }

    /// The same for what the microphone gives.
    pub(super) fn record(&self, stream: u8, frames: &mut [u8]) {
        let open = self.power == 0 && self.microphone & PIN_IN != 0;
        pass(self.adc, open, stream, frames);
    }

    fn converter(&mut self, node: u8) -> Option<&mut Converter> {
        match node {
            DAC => Some(&mut self.dac),
            ADC => Some(&mut self.adc),
            _ => None,
        }
    }

    fn set_format(&mut self, node: u8, word: u16) -> u32 {
        if let Some(converter) = self.converter(node) {
            converter.format = word;
        }
        0
    }

    fn set_gain(&mut self, node: u8, word: u16) -> u32 {
        // Bits 15 and 14 say output and input; 13 and 12 left and right.
        let side = match node {
            DAC => 1 << 15,
            _ => 1 << 14,
        };
        let gain = word.to_le_bytes()[0];
        let gain = gain & MUTE | (gain & !MUTE).min(STEPS);
        if word & side != 0
            && let Some(converter) = self.converter(node)
        {
            for (slot, bit) in converter.gain.iter_mut().zip([1 << 13, 1 << 12]) {
                if word & bit != 0 {
                    *slot = gain;
                }
            }
        }
        0
    }

    fn gain(&mut self, node: u8, word: u16) -> u32 {
        let output = word & 1 << 15 != 0;
        let channel = usize::from(word & 1 << 13 == 0);
        match self.converter(node) {
            Some(converter) if output == (node == DAC) => converter.gain[channel].into(),
            _ => 0,
        }
    }

    fn set(&mut self, node: u8, verb: u8, value: u8) -> u32 {
        match (verb, node) {
            (0x05, GROUP) => self.power = value & 0x3,
            (0x06, _) => {
                if let Some(converter) = self.converter(node) {
                    converter.stream = value;
                }
            }
            (0x05, _) => {
                if let Some(converter) = self.converter(node) {
                    converter.power = value & 0x3;
                }
            }
            (0x07, SPEAKER) => self.speaker = value & PIN_OUT,
            (0x07, MICROPHONE) => self.microphone = value & PIN_IN,
            (0x20..=0x23, GROUP) => {
                let mut bytes = self.subsystem.to_le_bytes();
                bytes[usize::from(verb - 0x20)] = value;
                self.subsystem = u32::from_le_bytes(bytes);
            }
            (0xff, GROUP) => {
                let subsystem = self.subsystem;
                *self = Self {
                    subsystem,
                    ..Self::default()
                };
            }
            _ => {}
        }
        0
    }

    fn get(&mut self, node: u8, verb: u8, value: u8) -> u32 {
        match (verb, node) {
            (0x00, _) => parameter(node, value),
            // The first entry of a connection list, and none behind it.
            (0x02, SPEAKER) if value == 0 => DAC.into(),
            (0x02, ADC) if value == 0 => MICROPHONE.into(),
            // Set and reached, which are always the same.
            (0x05, GROUP) => u32::from(self.power) * 0x11,
            (0x05, _) => self
                .converter(node)
                .map_or(0, |it| u32::from(it.power) * 0x11),
            (0x06, _) => self.converter(node).map_or(0, |it| it.stream.into()),
            (0x07, SPEAKER) => self.speaker.into(),
            (0x07, MICROPHONE) => self.microphone.into(),
            (0x1c, SPEAKER) => SPEAKER_DEFAULT,
            (0x1c, MICROPHONE) => MICROPHONE_DEFAULT,
            (0x20, GROUP) => self.subsystem,
            _ => 0,
        }
    }
}

/// What a node says of itself (HDA 7.3.4).
fn parameter(node: u8, parameter: u8) -> u32 {
    match (node, parameter) {
        (ROOT, 0x00) => VENDOR,
        (ROOT, 0x02) => REVISION,
        // First node and number of nodes.
        (ROOT, 0x04) => u32::from(GROUP) << 16 | 1,
        (GROUP, 0x04) => u32::from(DAC) << 16 | 4,
        (GROUP | DAC | ADC, 0x0a) => PCM,
        // An audio function group; PCM and nothing else; one connection.
        (GROUP, 0x05) | (GROUP | DAC | ADC, 0x0b) | (SPEAKER | ADC, 0x0e) => 1,
        (GROUP | DAC | ADC, 0x0f) => POWER_STATES,
        // Type, power control, connection list, format and amplifier of its own, amplifier, stereo.
        (DAC, 0x09) => 1 << 10 | 0x1d,
        (ADC, 0x09) => 1 << 20 | 1 << 10 | 1 << 8 | 0x1b,
        (SPEAKER, 0x09) => 4 << 20 | 1 << 8 | 1,
        (MICROPHONE, 0x09) => 4 << 20 | 1,
        (SPEAKER, 0x0c) => 1 << 4,
        (MICROPHONE, 0x0c) => 1 << 5,
        (DAC, 0x12) | (ADC, 0x0d) => AMPLIFIER,
        _ => 0,
    }
}

fn pass(converter: Converter, open: bool, stream: u8, frames: &mut [u8]) {
    // Stream 0 is that of converters which are not in use.
    if !open || converter.power != 0 || stream == 0 || converter.stream >> 4 != stream {
        frames.fill(0);
        return;
    }
    let levels = converter.levels();
    for (sample, level) in frames.chunks_exact_mut(2).zip(levels.iter().cycle()) {
        let value = (i64::from(i16::from_le_bytes([sample[0], sample[1]])) * level) >> 16;
        // A level is one at most, so that nothing is cut here.
        let value = i16::try_from(value).unwrap_or_default();
        sample.copy_from_slice(&value.to_le_bytes());
    }
}
