//! Runs a load by `io_uring`, past the page cache.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{Direction, Load, Order, Ran};

/// A load takes at most so many bytes of memory.
const MOST_MEMORY: usize = 256 << 20;
/// Direct transfers begin and end on it.
const PAGE: u32 = 4096;

/// Runs a load to its end: no request is started once its time is over, and all that were are waited for.
///
/// # Errors
///
/// What the system refuses, a request that came short, and a load that the disk has no room for.
pub fn run(load: &Load) -> io::Result<Ran> {
    let access = match load.direction {
        Direction::Read => OFlags::RDONLY,
        Direction::Write => OFlags::RDWR,
    };
    let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(&load.device, flags, Mode::empty())?;
    let blocks = seek(&file, SeekFrom::End(0))? / u64::from(load.block.max(1));
    let (block, depth) = (usize::try_from(load.block), usize::try_from(load.depth));
    let (Ok(block), Ok(depth)) = (block, depth) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let bytes = block.saturating_mul(depth);
    let whole = load.block.is_multiple_of(PAGE);
    if blocks == 0 || !whole || !(1..=MOST_MEMORY).contains(&bytes) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let buffers = Buffers::new(bytes)?;
    let mut ring = IoUring::new(load.depth)?;
    let mut places = Places {
        blocks,
        next: 0,
        order: load.order,
    };
    let began = Instant::now();
    let (mut requests, mut under_way) = (0, 0);
    for slot in 0..load.depth {
        push(&mut ring, load, &file, &buffers, places.next(), slot)?;
        under_way += 1;
    }
    while under_way > 0 {
        ring.submit_and_wait(1)?;
        let done: Vec<_> = ring.completion().collect();
        let more = began.elapsed() < load.time;
        for answer in done {
            under_way -= 1;
            if u32::try_from(answer.result()) != Ok(load.block) {
                return Err(error(answer.result()));
            }
            requests += 1;
            if more {
                let slot = u32::try_from(answer.user_data()).map_err(io::Error::other)?;
                push(&mut ring, load, &file, &buffers, places.next(), slot)?;
                under_way += 1;
            }
        }
    }
    let time = began.elapsed();
    buffers.unmap();
    Ok(Ran { requests, time })
}

fn error(result: i32) -> io::Error {
    if result < 0 {
        io::Error::from_raw_os_error(-result)
    } else {
        io::Error::other(format!("a request ended after {result} bytes"))
    }
}

fn push(
    ring: &mut IoUring,
    load: &Load,
    file: &OwnedFd,
    buffers: &Buffers,
    place: u64,
    slot: u32,
) -> io::Result<()> {
    let fd = types::Fd(file.as_raw_fd());
    let buffer = buffers.at(u64::from(slot) * u64::from(load.block));
    let offset = place * u64::from(load.block);
    let entry: squeue::Entry = match load.direction {
        Direction::Read => opcode::Read::new(fd, buffer, load.block)
            .offset(offset)
            .build(),
        Direction::Write => opcode::Write::new(fd, buffer, load.block)
            .offset(offset)
            .build(),
    };
    // SAFETY: the buffer of a slot is inside the mapping and belongs to one request at a time; mapping
    // and file stay until the request has completed.
    let pushed = unsafe { ring.submission().push(&entry.user_data(slot.into())) };
    pushed.map_err(io::Error::other)
}

/// Which block comes next.
struct Places {
    blocks: u64,
    next: u64,
    order: Order,
}

impl Places {
    fn next(&mut self) -> u64 {
        match self.order {
            Order::Sequential => {
                let place = self.next;
                self.next = (self.next + 1) % self.blocks;
                place
            }
            Order::Random => {
                // The same places in each run; Knuth's MMIX generator, its upper bits.
                self.next = self
                    .next
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (self.next >> 33) % self.blocks
            }
        }
    }
}

/// Memory for all requests, on a page. It stays where a load fails: the kernel may still work on it.
struct Buffers {
    start: *mut u8,
    bytes: usize,
}

impl Buffers {
    fn new(bytes: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // There before the load begins.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) }?;
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    fn at(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.start.wrapping_add(offset.min(self.bytes))
    }

    /// Gives it back, once no request is under way any more.
    fn unmap(self) {
        // SAFETY: the mapping is this value's own, and nobody has an address in it.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::time::Duration;

    use super::*;

    const LENGTH: u64 = 64 << 12;

    /// On a disk: what lies in memory knows no direct transfers on older kernels.
    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes = vec![7; usize::try_from(LENGTH).unwrap()];
        file.as_file().write_all_at(&bytes, 0).unwrap();
        file
    }

    fn load(image: &tempfile::NamedTempFile, direction: Direction, order: Order) -> Load {
        Load {
            device: image.path().to_string_lossy().into_owned(),
            direction,
            order,
            block: 4096,
            depth: 8,
            time: Duration::from_millis(50),
        }
    }

    #[test]
    fn a_load_goes_over_the_whole_disk_and_is_counted() {
        let image = image();
        for order in [Order::Random, Order::Sequential] {
            let ran = run(&load(&image, Direction::Read, order)).unwrap();
            assert!(ran.requests >= 8 && ran.time >= Duration::from_millis(50));
        }
        let mut bytes = vec![0; usize::try_from(LENGTH).unwrap()];
        image.as_file().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7), "a load of reads wrote");
        let written = run(&load(&image, Direction::Write, Order::Sequential)).unwrap();
        assert!(written.requests >= 64, "{written:?}");
        image.as_file().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn random_places_are_all_over_the_disk() {
        let mut places = Places {
            blocks: 64,
            next: 0,
            order: Order::Random,
        };
        let mut seen = [false; 64];
        for _ in 0..4096 {
            seen[usize::try_from(places.next()).unwrap()] = true;
        }
        assert_eq!(seen, [true; 64]);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let image = image();
        let good = load(&image, Direction::Read, Order::Random);
        for wrong in [
            Load {
                block: 0,
                ..good.clone()
            },
            Load {
                block: 512,
                ..good.clone()
            },
            Load {
                block: 1 << 30,
                ..good.clone()
            },
            Load {
                depth: 0,
                ..good.clone()
            },
            Load {
                device: "/nowhere".to_owned(),
                ..good
            },
        ] {
            assert!(run(&wrong).is_err(), "{wrong}");
        }
        let short = load(&image, Direction::Read, Order::Sequential);
        image.as_file().set_len(LENGTH - 4096 + 512).unwrap();
        assert!(run(&short).is_ok(), "what is no whole block is left out");
    }
}
