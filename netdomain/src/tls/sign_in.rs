//! The first of two steps to a gateway that demands a one-time password: an openconnect of its own
//! signs the person in, and ends with its memory of what was typed. What it was given for it, the
//! gateway's cookie, begins the tunnel.
//!
//! openconnect asks on its standard error output, with a line that it does not end, and reads from its
//! standard input. It is given one line there and then the end: it has nothing to try a second time.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};

use sekisho_control::{MAX_ANSWER, Secret};
use zeroize::Zeroizing;

use super::client::{self, Gateway};
use crate::program::Program;

/// What openconnect gives, its cookie and what belongs to it: some 500 bytes, with a key of the
/// gateway's making in it.
const MAX_RESULT: u64 = 4096;
/// A longer one openconnect would not read in again (`read_stdin` takes 1,024 bytes).
const MAX_COOKIE: usize = 1023;

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// The gateway has not asked.
    Quiet(PipeWriter),
    /// It has, and the answer goes here.
    Asked(PipeWriter),
    /// It has its answer.
    Answered,
}

/// A person who is being signed in.
#[derive(Debug)]
pub(super) struct SignIn {
    stage: Stage,
    result: PipeReader,
}

impl SignIn {
    /// Starts openconnect for it.
    pub(super) fn start(gateway: &Gateway, person: &str) -> io::Result<(Program, Self)> {
        let (input, answer) = io::pipe()?;
        let (result, output) = io::pipe()?;
        let program = client::sign_in(gateway, person, input.into(), output.into())?;
        let stage = Stage::Quiet(answer);
        Ok((program, Self { stage, result }))
    }

    /// openconnect waits for something to be typed. True the first time; an error the next.
    pub(super) fn prompted(&mut self) -> Result<bool, String> {
        match std::mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Quiet(answer) => {
                self.stage = Stage::Asked(answer);
                Ok(true)
            }
            // More of the same line.
            Stage::Asked(answer) => {
                self.stage = Stage::Asked(answer);
                Ok(false)
            }
            Stage::Answered => Err("the gateway does not take the answer".into()),
        }
    }

    /// Gives it the answer, and nothing after it.
    pub(super) fn answer(&mut self, answer: &Secret) -> Result<(), String> {
        let Stage::Asked(mut pipe) = std::mem::replace(&mut self.stage, Stage::Answered) else {
            return Err("an answer to no question".into());
        };
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 1));
        line.extend_from_slice(answer.expose().as_bytes());
        line.push(b'\n');
        // It fits into an empty pipe, so this does not wait.
        pipe.write_all(&line)
            .map_err(|error| format!("openconnect does not read the answer: {error}"))
    }

    /// What came of it, once openconnect has ended: a pipe with the cookie in it.
    pub(super) fn cookie(&mut self) -> Result<PipeReader, String> {
        let failed = |error| format!("no cookie: {error}");
        // Its writer is gone, so this does not wait.
        let mut text = Zeroizing::new(Vec::with_capacity(4096));
        let result = (&mut self.result).take(MAX_RESULT);
        { result }.read_to_end(&mut text).map_err(failed)?;
        let cookie = find(&text).ok_or("the gateway does not let the person in")?;
        let (input, mut pipe) = io::pipe().map_err(failed)?;
        pipe.write_all(cookie).map_err(failed)?;
        pipe.write_all(b"\n").map_err(failed)?;
        Ok(input)
    }
}

/// The cookie in what `openconnect --authenticate` prints for a shell to read, if it is one that
/// openconnect reads in again as it is.
fn find(text: &[u8]) -> Option<&[u8]> {
    let cookie = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"COOKIE=\'")?.strip_suffix(b"\'"))?;
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\'';
    ((1..=MAX_COOKIE).contains(&cookie.len()) && cookie.iter().all(plain)).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_where_openconnect_prints_it() {
        let text =
            b"COOKIE='openconnect_strapkey=MHcCAQ==; webvpn=AIBh2HOT6+5F='\nHOST='127.0.0.1'\n\
                     FINGERPRINT='pin-sha256:1Kl0'\n";
        let cookie: &[u8] = b"openconnect_strapkey=MHcCAQ==; webvpn=AIBh2HOT6+5F=";
        assert_eq!(find(text), Some(cookie));
        let long = format!("COOKIE='{}'\n", "a".repeat(MAX_COOKIE + 1));
        for wrong in [
            "",
            "COOKIE=''\n",
            "COOKIE='a\n",
            "XCOOKIE='a'\n",
            "COOKIE='a'; rm'\n",
            "COOKIE='\u{1b}[2J'\n",
            &long,
        ] {
            assert_eq!(find(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn it_is_asked_once_and_answered_once() {
        let (mut input, answer) = io::pipe().unwrap();
        let (result, _output) = io::pipe().unwrap();
        let mut sign_in = SignIn {
            stage: Stage::Quiet(answer),
            result,
        };
        let typed = || Secret::new("755224".into()).unwrap();
        assert_eq!(sign_in.prompted(), Ok(true));
        assert_eq!(sign_in.prompted(), Ok(false));
        sign_in.answer(&typed()).unwrap();
        let mut read = String::new();
        input.read_to_string(&mut read).unwrap();
        assert_eq!(read, "755224\n", "and the end");
        assert!(sign_in.answer(&typed()).is_err());
        assert!(sign_in.prompted().is_err());
    }
}
