//! The headers of TPM commands and responses: what the VMM has to read of them, and the answers that
//! it gives itself.
//!
//! Source: TPM 2.0 Library, Part 1, "Command/Response Structure", and Part 2, `TPM_ST`, `TPM_RC`.

use super::crb::BUFFER_LEN;

/// Tag, size, and a command code or a response code.
pub const HEADER_LEN: usize = 10;

/// `TPM_ST_NO_SESSIONS`.
pub const NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
pub const SESSIONS: u16 = 0x8002;
/// `TPM_ST_RSP_COMMAND`: the tag of the answer to a tag that is none.
const RSP_COMMAND: u16 = 0x00c4;

/// `TPM_CC_Shutdown`.
pub const SHUTDOWN: u32 = 0x145;
/// A command of swtpm's own, by which a client of its data channel chooses the locality.
const SET_LOCALITY: u32 = 0x2000_1000;

/// Why a command goes no further, or what became of it: a `TPM_RC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `TPM_RC_BAD_TAG`.
    Tag,
    /// `TPM_RC_COMMAND_SIZE`.
    Size,
    /// `TPM_RC_COMMAND_CODE`.
    Code,
    /// `TPM_RC_FAILURE`: there is no TPM any more.
    Failure,
}

impl Refusal {
    /// The response that says so.
    pub fn response(self) -> Response {
        let (tag, code) = match self {
            Self::Tag => (RSP_COMMAND, 0x01e_u32),
            Self::Size => (NO_SESSIONS, 0x142),
            Self::Code => (NO_SESSIONS, 0x143),
            Self::Failure => (NO_SESSIONS, 0x101),
        };
        let mut bytes = tag.to_be_bytes().to_vec();
        bytes.extend(10_u32.to_be_bytes());
        bytes.extend(code.to_be_bytes());
        Response(bytes)
    }
}

struct Header {
    tag: u16,
    size: usize,
    code: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [t0, t1, s0, s1, s2, s3, c0, c1, c2, c3] = *bytes.first_chunk()?;
        Some(Self {
            tag: u16::from_be_bytes([t0, t1]),
            size: usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok()?,
            code: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// A command whose header is in order; the rest is the TPM's to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    bytes: Vec<u8>,
    code: u32,
}

impl Command {
    /// Takes the command at the start of `buffer`.
    ///
    /// swtpm would take another tag for a prefix of its own that names the locality to act from: so
    /// only the two that commands have go on to it.
    pub fn parse(buffer: &[u8]) -> Result<Self, Refusal> {
        let header = Header::parse(buffer).ok_or(Refusal::Size)?;
        if !matches!(header.tag, NO_SESSIONS | SESSIONS) {
            return Err(Refusal::Tag);
        }
        if header.size < HEADER_LEN {
            return Err(Refusal::Size);
        }
        let bytes = buffer.get(..header.size).ok_or(Refusal::Size)?;
        if header.code == SET_LOCALITY {
            return Err(Refusal::Code);
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            code: header.code,
        })
    }

    /// `TPM2_Shutdown(TPM_SU_CLEAR)`: the power is about to go.
    pub fn shutdown() -> Self {
        let mut bytes = NO_SESSIONS.to_be_bytes().to_vec();
        bytes.extend(12_u32.to_be_bytes());
        bytes.extend(SHUTDOWN.to_be_bytes());
        bytes.extend([0, 0]);
        Self {
            bytes,
            code: SHUTDOWN,
        }
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The command code.
    pub fn code(&self) -> u32 {
        self.code
    }
}

/// A whole response: its header tells its length, which fits the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response(Vec<u8>);

impl Response {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The response code; 0 is success.
    pub fn code(&self) -> u32 {
        Header::parse(&self.0).map_or(u32::MAX, |header| header.code)
    }
}

/// What is wrong with what came for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// Not a tag that a response has.
    #[error("its answer starts with {0:#06x}, which no response of a TPM does")]
    Tag(u16),
    /// Shorter than a header, or longer than the buffer.
    #[error("its answer says that it is {0} bytes long, and can be {HEADER_LEN} to {BUFFER_LEN}")]
    Size(usize),
    /// More came than the header tells.
    #[error("it sent {0} bytes behind the end of its answer")]
    Behind(usize),
}

/// A response that comes in pieces.
#[derive(Debug, Default)]
pub struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes the next piece; the response once it is whole.
    pub fn take(&mut self, piece: &[u8]) -> Result<Option<Response>, BadResponse> {
        self.0.extend(piece);
        let Some(header) = Header::parse(&self.0) else {
            return Ok(None);
        };
        if !matches!(header.tag, NO_SESSIONS | SESSIONS | RSP_COMMAND) {
            return Err(BadResponse::Tag(header.tag));
        }
        if !(HEADER_LEN..=BUFFER_LEN).contains(&header.size) {
            return Err(BadResponse::Size(header.size));
        }
        match self.0.len().checked_sub(header.size) {
            None => Ok(None),
            Some(0) => Ok(Some(Response(std::mem::take(&mut self.0)))),
            Some(behind) => Err(BadResponse::Behind(behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u16, size: u32, code: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = tag.to_be_bytes().to_vec();
        bytes.extend(size.to_be_bytes());
        bytes.extend(code.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn a_command_is_what_its_header_tells() {
        let mut buffer = message(NO_SESSIONS, 12, 0x17b, &[0, 16, 0xee, 0xee]);
        let command = Command::parse(&buffer).unwrap();
        assert_eq!((command.bytes(), command.code()), (&buffer[..12], 0x17b));
        for (size, refusal) in [
            (9, Refusal::Size),
            (15, Refusal::Size),
            (u32::MAX, Refusal::Size),
        ] {
            buffer[2..6].copy_from_slice(&size.to_be_bytes());
            assert_eq!(Command::parse(&buffer), Err(refusal), "{size}");
        }
        assert_eq!(Command::parse(&buffer[..9]), Err(Refusal::Size));
        assert_eq!(
            Command::parse(Command::shutdown().bytes()).unwrap(),
            Command::shutdown()
        );
    }

    #[test]
    fn what_would_choose_swtpms_locality_goes_no_further() {
        // swtpm's prefix: 8, the locality, the length of what follows.
        let prefix = [0, 0, 0, 8, 4, 0, 0, 0, 12, 0x80, 1, 0, 0, 0, 12];
        assert_eq!(Command::parse(&prefix), Err(Refusal::Tag));
        let own = message(NO_SESSIONS, 11, 0x2000_1000, &[4]);
        assert_eq!(Command::parse(&own), Err(Refusal::Code));
    }

    #[test]
    fn a_response_comes_in_pieces_and_is_whole_or_wrong() {
        let whole = message(NO_SESSIONS, 12, 0, &[1, 2]);
        let mut incoming = Incoming::default();
        for byte in &whole[..11] {
            assert_eq!(incoming.take(&[*byte]), Ok(None));
        }
        let response = incoming.take(&whole[11..]).unwrap().unwrap();
        assert_eq!((response.bytes(), response.code()), (&whole[..], 0));

        let wrong = |bytes: &[u8]| Incoming::default().take(bytes).unwrap_err();
        let tag = message(0x8003, 10, 0, &[]);
        assert_eq!(wrong(&tag), BadResponse::Tag(0x8003));
        for size in [0, 9, 3969, u32::MAX] {
            let size_of = usize::try_from(size).unwrap();
            let bytes = message(NO_SESSIONS, size, 0, &[]);
            assert_eq!(wrong(&bytes), BadResponse::Size(size_of));
        }
        let behind = message(NO_SESSIONS, 10, 0, &[7]);
        assert_eq!(wrong(&behind), BadResponse::Behind(1));
    }

    #[test]
    fn a_refusal_is_a_response() {
        for refusal in [Refusal::Tag, Refusal::Size, Refusal::Code, Refusal::Failure] {
            let response = refusal.response();
            let taken = Incoming::default().take(response.bytes()).unwrap();
            assert_eq!(taken, Some(response));
        }
    }
}
