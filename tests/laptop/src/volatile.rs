//! A disk with a volatile write cache, as real ones have: what was not flushed may be there after a power
//! cut, or not, sector by sector.
//!
//! It is a server of the network block device protocol (NBD's `doc/proto.md`: fixed newstyle handshake,
//! simple replies), which QEMU speaks as a client. Its medium is memory: it outlives each machine that it
//! is plugged into.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const SECTOR: usize = 512;

const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// `NBD_FLAG_HAS_FLAGS`, `NBD_FLAG_SEND_FLUSH`, `NBD_FLAG_SEND_FUA`.
const TRANSMISSION_FLAGS: u16 = 0b1101;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FUA: u16 = 1;
const INVALID: u32 = 22;
/// Longest request; QEMU's are shorter.
const MOST: u32 = 64 << 20;

#[derive(Debug)]
struct Medium {
    /// With what the cache holds.
    seen: Vec<u8>,
    /// Without it.
    safe: Vec<u8>,
    /// Sectors that differ, perhaps several times, in the order of their writes.
    loose: Vec<(usize, [u8; SECTOR])>,
}

/// The disk.
#[derive(Debug, Clone)]
pub struct VolatileDisk {
    socket: PathBuf,
    medium: Arc<Mutex<Medium>>,
}

impl VolatileDisk {
    /// A disk that holds `content` (whole sectors), with a socket at `socket` that machines use.
    pub fn new(content: Vec<u8>, socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let medium = Arc::new(Mutex::new(Medium {
            safe: content.clone(),
            seen: content,
            loose: Vec::new(),
        }));
        let disk = Self {
            socket: socket.to_owned(),
            medium,
        };
        let served = disk.clone();
        thread::Builder::new().name("disk".into()).spawn(move || {
            // One machine at a time; its end is the end of the stream.
            for stream in listener.incoming().filter_map(Result::ok) {
                let _ = served.serve(stream);
            }
        })?;
        Ok(disk)
    }

    /// Where machines find it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The power is gone: of each sector that was written and not flushed, `stays` says whether that is
    /// on the medium. Gives how many there were, and how many of them stayed. The machine has to be off.
    pub fn cut(&self, mut stays: impl FnMut() -> bool) -> (usize, usize) {
        let mut medium = self.lock();
        let loose = std::mem::take(&mut medium.loose);
        let all = loose.len();
        let mut stayed = 0;
        for (at, sector) in loose {
            if stays() {
                medium.safe[at..at + SECTOR].copy_from_slice(&sector);
                stayed += 1;
            }
        }
        let Medium { seen, safe, .. } = &mut *medium;
        seen.clone_from(safe);
        (all, stayed)
    }

    fn lock(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.write_all(b"NBDMAGIC")?;
        stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
        stream.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
        word(&mut stream)?;
        while !self.option(&mut stream)? {}
        loop {
            let mut head = [0; 28];
            stream.read_exact(&mut head)?;
            let field =
                |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap_or([0; 4]));
            let (flags, command) = (field(4) >> 16, field(4) & 0xffff);
            let offset = u64::from(field(16)) << 32 | u64::from(field(20));
            let length = field(24);
            let command = u16::try_from(command).unwrap_or(u16::MAX);
            if field(0) != REQUEST_MAGIC || length > MOST || command == DISCONNECT {
                return Ok(());
            }
            let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
            if command == WRITE {
                stream.read_exact(&mut data)?;
            }
            let error = self.done(command, offset, &mut data);
            if flags & u32::from(FUA) != 0 {
                self.lock().flush();
            }
            stream.write_all(&SIMPLE_REPLY_MAGIC.to_be_bytes())?;
            stream.write_all(&error.to_be_bytes())?;
            stream.write_all(&head[8..16])?;
            if command == READ && error == 0 {
                stream.write_all(&data)?;
            }
        }
    }

    /// Answers one option; whether requests follow.
    fn option(&self, stream: &mut UnixStream) -> io::Result<bool> {
        let mut magic = [0; 8];
        stream.read_exact(&mut magic)?;
        let (option, length) = (word(stream)?, word(stream)?);
        io::copy(&mut stream.take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let length = u32::try_from(data.len()).unwrap_or(0);
            stream.write_all(&REPLY_MAGIC.to_be_bytes())?;
            for word in [option, kind, length] {
                stream.write_all(&word.to_be_bytes())?;
            }
            stream.write_all(data)
        };
        if option != OPTION_GO {
            reply(REPLY_UNSUPPORTED, &[])?;
            return Ok(false);
        }
        let size = self.lock().seen.len() as u64;
        // `NBD_INFO_EXPORT`.
        let mut info = vec![0, 0];
        info.extend(size.to_be_bytes());
        info.extend(TRANSMISSION_FLAGS.to_be_bytes());
        reply(REPLY_INFO, &info)?;
        reply(REPLY_ACK, &[])?;
        Ok(true)
    }

    fn done(&self, command: u16, offset: u64, data: &mut [u8]) -> u32 {
        let mut medium = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        let whole = start.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR);
        match command {
            FLUSH => medium.flush(),
            _ if !whole || end > medium.seen.len() => return INVALID,
            READ => data.copy_from_slice(&medium.seen[start..end]),
            WRITE => medium.write(start, data),
            _ => return INVALID,
        }
        0
    }
}

impl Medium {
    fn write(&mut self, start: usize, data: &[u8]) {
        self.seen[start..start + data.len()].copy_from_slice(data);
        let (sectors, _) = data.as_chunks::<SECTOR>();
        let places = (start..).step_by(SECTOR);
        self.loose.extend(places.zip(sectors.iter().copied()));
    }

    fn flush(&mut self) {
        for (at, sector) in self.loose.drain(..) {
            self.safe[at..at + SECTOR].copy_from_slice(&sector);
        }
    }
}

fn word(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// QEMU's own tool writes, flushes and reads.
    #[test]
    fn a_cut_takes_what_was_not_flushed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let disk = VolatileDisk::new(vec![0; 1 << 20], &folder.path().join("disk")).expect("disk");
        let uri = format!("nbd+unix:///?socket={}", disk.socket().display());
        let io = |commands: &[&str]| {
            let mut tool = Command::new("qemu-io");
            tool.args(["-f", "raw", "-t", "writeback"]);
            for command in commands {
                tool.args(["-c", command]);
            }
            let output = tool.arg(&uri).output();
            let output = output.expect("qemu-io is installed (Debian package qemu-utils)");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        io(&["write -P 7 0 64k", "flush"]);
        // At its end the tool flushes; it is not let.
        io(&["write -P 9 0 4k", "sigraise 9"]);
        assert_eq!(disk.cut(|| false), (8, 0));
        let read = io(&["read -P 7 0 64k", "read -P 9 0 4k"]);
        assert_eq!(read.matches("verification failed").count(), 1, "{read}");
        io(&["write -P 9 0 1k", "sigraise 9"]);
        let mut stays = [true, false].into_iter();
        assert_eq!(disk.cut(|| stays.next().unwrap_or(false)), (2, 1));
        let read = io(&["read -P 9 0 512", "read -P 7 512 4k"]);
        assert!(!read.contains("failed"), "{read}");
    }
}
