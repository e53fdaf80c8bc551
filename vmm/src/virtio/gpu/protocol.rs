//! The commands of the 2D mode, copied out of guest memory once and taken apart (virtio 1.2, section
//! 5.7.6).

use sekisho_seatlink::Rect;

use crate::virtio::{Chain, GuestRam};

/// Length of the header that requests and answers begin with.
pub(super) const HEADER_LEN: usize = 24;
/// The longest request but for the list of [`Command::AttachBacking`].
const REQUEST_LEN: usize = 56;
/// Where that list begins, and the length of an entry.
const LIST_AT: u64 = 32;
const ENTRY_LEN: u64 = 16;
/// `VIRTIO_GPU_FLAG_FENCE`.
const FENCE: u32 = 1;

/// What the driver asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    GetDisplayInfo,
    GetEdid {
        scanout: u32,
    },
    Create {
        id: u32,
        format: u32,
        sides: (u32, u32),
    },
    Unref {
        id: u32,
    },
    SetScanout {
        part: Rect,
        scanout: u32,
        id: u32,
    },
    Flush {
        part: Rect,
        id: u32,
    },
    Transfer {
        part: Rect,
        offset: u64,
        id: u32,
    },
    AttachBacking {
        id: u32,
        entries: u32,
    },
    DetachBacking {
        id: u32,
    },
    UpdateCursor {
        at: (u32, u32),
        scanout: u32,
        id: u32,
        hot: (u32, u32),
    },
    MoveCursor {
        at: (u32, u32),
        scanout: u32,
    },
}

/// How an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Answer {
    NoData = 0x1100,
    DisplayInfo = 0x1101,
    Edid = 0x1104,
    Unspecified = 0x1200,
    OutOfMemory = 0x1201,
    InvalidScanout = 0x1202,
    InvalidResource = 0x1203,
    InvalidParameter = 0x1205,
}

/// A request: what is asked, and its header, of which the fence goes into the answer.
pub(super) struct Request {
    words: [u32; REQUEST_LEN / 4],
    length: usize,
}

impl Request {
    /// Copies it out of the chain's readable bytes.
    pub(super) fn read(ram: &GuestRam, chain: &Chain) -> Self {
        let mut bytes = [0; REQUEST_LEN];
        let length = chain.read_at(ram, 0, &mut bytes);
        let mut words = [0; REQUEST_LEN / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { words, length }
    }

    /// What is asked; an error for what is not known or too short.
    pub(super) fn command(&self) -> Result<Command, Answer> {
        // The words behind the header.
        let word = |index: usize| self.words[HEADER_LEN / 4 + index];
        let part = Rect {
            x: word(0),
            y: word(1),
            width: word(2),
            height: word(3),
        };
        let first = word(0);
        // The length of what is said, and what it says.
        let (length, command) = match self.words[0] {
            0x100 => (24, Command::GetDisplayInfo),
            0x101 => (
                40,
                Command::Create {
                    id: first,
                    format: word(1),
                    sides: (word(2), word(3)),
                },
            ),
            0x102 => (28, Command::Unref { id: first }),
            0x103 => (
                48,
                Command::SetScanout {
                    part,
                    scanout: word(4),
                    id: word(5),
                },
            ),
            0x104 => (44, Command::Flush { part, id: word(4) }),
            0x105 => (
                52,
                Command::Transfer {
                    part,
                    offset: u64::from(word(5)) << 32 | u64::from(word(4)),
                    id: word(6),
                },
            ),
            0x106 => (
                32,
                Command::AttachBacking {
                    id: first,
                    entries: word(1),
                },
            ),
            0x107 => (28, Command::DetachBacking { id: first }),
            0x10a => (28, Command::GetEdid { scanout: first }),
            0x300 => (
                52,
                Command::UpdateCursor {
                    at: (word(1), word(2)),
                    scanout: first,
                    id: word(4),
                    hot: (word(5), word(6)),
                },
            ),
            0x301 => (
                36,
                Command::MoveCursor {
                    at: (word(1), word(2)),
                    scanout: first,
                },
            ),
            _ => return Err(Answer::Unspecified),
        };
        if self.length < length {
            return Err(Answer::InvalidParameter);
        }
        Ok(command)
    }

    /// The header of the answer to it.
    pub(super) fn header(&self, answer: Answer) -> [u8; HEADER_LEN] {
        let [_, flags, fence_low, fence_high, context, ..] = self.words;
        let mut words = [answer as u32, 0, 0, 0, 0, 0];
        if flags & FENCE != 0 {
            words[1..5].copy_from_slice(&[FENCE, fence_low, fence_high, context]);
        }
        let mut header = [0; HEADER_LEN];
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }
}

/// Entry `index` of the list behind [`Command::AttachBacking`]: address and length.
pub(super) fn entry(ram: &GuestRam, chain: &Chain, index: u32) -> Option<(u64, u32)> {
    let (mut address, mut length) = ([0; 8], [0; 4]);
    let at = LIST_AT + u64::from(index) * ENTRY_LEN;
    let whole = chain.read_at(ram, at, &mut address) == address.len()
        && chain.read_at(ram, at + 8, &mut length) == length.len();
    whole.then(|| (u64::from_le_bytes(address), u32::from_le_bytes(length)))
}
