//! Where sound goes to and comes from.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::codec::Format;

/// Longest recording that is taken from a file: 87 s at 48 kHz, which is kept in memory.
const MAX_RECORDING: u64 = 16 << 20;
/// Longest recording that is written: six hours, below the 4 GiB that a WAV file can have, and the
/// work OS fills no disk by it.
const MAX_PLAYED: u64 = 3 << 30;
/// Bytes before the samples of a plain WAV file.
const HEADER: usize = 44;

/// The other end of the codec's jacks. Frames are two signed samples of 16 bits, little endian, left
/// and right. Both calls come from the I/O thread and return at once, whatever the other end does.
pub trait Sound: Send {
    /// Takes frames in for the speaker.
    fn play(&mut self, format: Format, frames: &[u8]);

    /// Fills `frames` from the microphone, with silence where there is nothing.
    fn record(&mut self, format: Format, frames: &mut [u8]);
}

/// Nobody hears, and nobody speaks.
#[derive(Debug, Default)]
pub struct Nobody;

impl Sound for Nobody {
    fn play(&mut self, _format: Format, _frames: &[u8]) {}

    fn record(&mut self, _format: Format, frames: &mut [u8]) {
        frames.fill(0);
    }
}

/// WAV files, for tests: one that is written, one that is played into the microphone once. A file has
/// one rate, that of the first frames; what has another is left out.
#[derive(Debug)]
pub struct Files {
    output: File,
    written: u64,
    output_rate: Option<Format>,
    input: Vec<u8>,
    input_rate: Option<Format>,
    read: usize,
    failures: u64,
}

impl Files {
    /// Makes `output`, and reads `input`, where there is one, to its end.
    pub fn open(output: &Path, input: Option<&Path>) -> io::Result<Self> {
        let (input_rate, input) = match input {
            None => (None, Vec::new()),
            Some(path) => {
                let mut bytes = Vec::new();
                File::open(path)?
                    .take(MAX_RECORDING)
                    .read_to_end(&mut bytes)?;
                let (format, samples) = parse(&bytes).ok_or_else(|| {
                    let what = "it is no plain WAV file of two channels, 16 bits, 44.1 or 48 kHz";
                    io::Error::new(io::ErrorKind::InvalidData, what)
                })?;
                (Some(format), samples.to_vec())
            }
        };
        Ok(Self {
            output: File::create(output)?,
            written: 0,
            output_rate: None,
            input,
            input_rate,
            read: 0,
            failures: 0,
        })
    }

    fn write(&mut self, format: Format, frames: &[u8]) -> io::Result<()> {
        if self.output_rate.is_none() {
            self.output_rate = Some(format);
        }
        if self.output_rate != Some(format) || self.written >= MAX_PLAYED {
            return Err(io::Error::other("another rate, or too much"));
        }
        self.output
            .write_all_at(frames, HEADER as u64 + self.written)?;
        self.written += frames.len() as u64;
        // The header goes last, so that the file is whole between two calls.
        self.output.write_all_at(&header(format, self.written), 0)
    }
}

impl Sound for Files {
    fn play(&mut self, format: Format, frames: &[u8]) {
        if let Err(error) = self.write(format, frames) {
            self.failures += 1;
            if self.failures.is_power_of_two() {
                tracing::warn!(failures = self.failures, "sound was not written: {error}");
            }
        }
    }

    fn record(&mut self, format: Format, frames: &mut [u8]) {
        frames.fill(0);
        if self.input_rate != Some(format) {
            return;
        }
        let rest = self.input.get(self.read..).unwrap_or_default();
        let count = rest.len().min(frames.len());
        frames[..count].copy_from_slice(&rest[..count]);
        self.read += count;
    }
}

/// The header of a WAV file with so many bytes of samples.
fn header(format: Format, length: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let length = u32::try_from(length).unwrap_or(u32::MAX - 36);
    let speed = u32::try_from(format.bytes_per_second()).unwrap_or(0);
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RIFF");
    put(4, &(length + 36).to_le_bytes());
    put(8, b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    put(24, &format.rate.to_le_bytes());
    put(28, &speed.to_le_bytes());
    put(32, b"\x04\0\x10\0data");
    put(40, &length.to_le_bytes());
    header
}

/// The samples of a WAV file with a header like [`header`]'s.
fn parse(bytes: &[u8]) -> Option<(Format, &[u8])> {
    let (start, samples) = bytes.split_at_checked(HEADER)?;
    let formats = [48_000, 44_100].map(|rate| Format { rate });
    let format = formats.into_iter().find(|format| {
        let model = header(*format, 0);
        start[8..40] == model[8..40] && start[..4] == model[..4]
    })?;
    let length = u32::from_le_bytes(start[40..].try_into().ok()?);
    let length = usize::try_from(length).ok()?.min(samples.len());
    Some((format, &samples[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_played_can_be_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let (out, back) = (folder.path().join("out.wav"), folder.path().join("b.wav"));
        let format = Format { rate: 44_100 };
        let mut files = Files::open(&out, None).unwrap();
        files.play(format, &[1, 2, 3, 4]);
        files.play(Format { rate: 48_000 }, &[9; 4]);
        files.play(format, &[5, 6, 7, 8]);
        assert_eq!(std::fs::metadata(&out).unwrap().len(), 52);
        let mut files = Files::open(&back, Some(&out)).unwrap();
        let mut frames = [0xff; 12];
        files.record(Format { rate: 48_000 }, &mut frames);
        assert_eq!(frames, [0; 12]);
        files.record(format, &mut frames);
        assert_eq!(frames, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b"RIFF"[..], &[0; 100]] {
            assert!(parse(bytes).is_none());
        }
        let mut mono = header(Format { rate: 48_000 }, 0);
        mono[22] = 1;
        assert!(parse(&mono).is_none());
    }
}
