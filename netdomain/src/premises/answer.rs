//! The beacon's HTTP answer, as far as it must be understood.

/// The nonce as it is written in the request and the answer: 32 bytes in hex.
pub(super) const NONCE: usize = 64;
/// Longest answer: a web server's headers and the nonce.
pub(super) const MAX_ANSWER: usize = 4096;

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// More must come.
    Incomplete,
    /// The nonce, and nothing but the nonce.
    Right,
    /// Anything else.
    Wrong,
}

/// Reads an answer with the status 200 whose body is exactly `nonce`.
pub(super) fn read(bytes: &[u8], nonce: &[u8; NONCE]) -> Answer {
    let status = b"HTTP/1.1 200 ";
    let seen = bytes.len().min(status.len());
    if bytes[..seen] != status[..seen] || bytes.len() > MAX_ANSWER {
        return Answer::Wrong;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer::Incomplete;
    };
    let body = &bytes[end + 4..];
    let seen = body.len().min(NONCE);
    if body.len() > NONCE || body[..seen] != nonce[..seen] {
        Answer::Wrong
    } else if body.len() == NONCE {
        Answer::Right
    } else {
        Answer::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE_A: [u8; NONCE] = [b'a'; NONCE];

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        [head.as_bytes(), b"\r\nServer: nginx\r\n\r\n", body].concat()
    }

    #[test]
    fn only_the_whole_nonce_is_right() {
        let right = answer("HTTP/1.1 200 OK", &NONCE_A);
        assert_eq!(read(&right, &NONCE_A), Answer::Right);
        for len in 0..right.len() {
            assert_eq!(read(&right[..len], &NONCE_A), Answer::Incomplete, "{len}");
        }
    }

    /// T21: yesterday's answer has yesterday's nonce.
    #[test]
    fn t21_another_nonce_is_wrong() {
        let old = answer("HTTP/1.1 200 OK", &[b'b'; NONCE]);
        assert_eq!(read(&old, &NONCE_A), Answer::Wrong);
    }

    #[test]
    fn more_or_another_status_is_wrong() {
        let more = answer("HTTP/1.1 200 OK", &[b'a'; NONCE + 1]);
        assert_eq!(read(&more, &NONCE_A), Answer::Wrong);
        let other = answer("HTTP/1.1 302 Found", &NONCE_A);
        assert_eq!(read(&other, &NONCE_A), Answer::Wrong);
        assert_eq!(read(&[b'H'; MAX_ANSWER + 1], &NONCE_A), Answer::Wrong);
    }
}
