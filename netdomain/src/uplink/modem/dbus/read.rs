//! Reading values (D-Bus specification, "Message Format").
//!
//! Nothing is copied and nothing allocated. A value that is not wanted is passed over: an array by
//! its length, so that the work is bounded by the bytes that there are.

/// Bytes that are no message, or not of the type that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a D-Bus message is malformed: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

type Read<T> = Result<T, Malformed>;

/// Values inside of values; the specification allows 64 in all. Nothing that is read here has more
/// than six.
const MAX_DEPTH: u8 = 16;

/// Reads values in order. Positions count from the start of the body, to which alignment refers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// A reader of a whole body, or of a header.
    pub(crate) const fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self {
            bytes,
            at: 0,
            big_endian,
        }
    }

    /// Whether nothing is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How many bytes were read.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Passes over padding, up to a multiple of `to`.
    pub(crate) fn align(&mut self, to: usize) -> Read<()> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() {
            return Err(Malformed("the padding is cut"));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Malformed("a value is cut"))?;
        self.at += length;
        Ok(taken)
    }

    /// `y`.
    pub(crate) fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    /// `u`.
    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.align(4)?;
        let bytes = <[u8; 4]>::try_from(self.take(4)?).map_err(|_| Malformed("a value is cut"))?;
        Ok(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    /// `i`.
    pub(crate) fn i32(&mut self) -> Read<i32> {
        Ok(self.u32()?.cast_signed())
    }

    /// `b`.
    pub(crate) fn bool(&mut self) -> Read<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a boolean is neither")),
        }
    }

    /// `s` or `o`.
    pub(crate) fn text(&mut self) -> Read<&'a str> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    /// `g`.
    pub(crate) fn signature(&mut self) -> Read<&'a str> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Read<&'a str> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(Malformed("a string does not end with its only NUL"));
        }
        std::str::from_utf8(text).map_err(|_| Malformed("a string is no UTF-8"))
    }

    /// The elements of an array, whose type has this signature.
    pub(crate) fn array(&mut self, element: &str) -> Read<Reader<'a>> {
        let length = self.u32()? as usize;
        let first = element.bytes().next().ok_or(Malformed("no element"))?;
        self.align(alignment(first)?)?;
        let start = self.at;
        self.take(length)?;
        Ok(Reader {
            bytes: &self.bytes[..self.at],
            at: start,
            big_endian: self.big_endian,
        })
    }

    /// `v`: its signature and a reader at its value, which is passed over here.
    pub(crate) fn variant(&mut self) -> Read<Variant<'a>> {
        let signature = self.signature()?;
        let value = *self;
        if self.skip_one(signature.as_bytes(), 0, 0)? != signature.len() {
            return Err(Malformed("a variant holds more than one value"));
        }
        Ok(Variant { signature, value })
    }

    /// Passes over one value of the type that begins at `at` in `signature`, and gives where the
    /// next type begins.
    fn skip_one(&mut self, signature: &[u8], at: usize, depth: u8) -> Read<usize> {
        if depth > MAX_DEPTH {
            return Err(Malformed("values are nested too deeply"));
        }
        let code = *signature.get(at).ok_or(Malformed("a signature is cut"))?;
        match code {
            b'y' => {
                self.take(1)?;
            }
            b'n' | b'q' => {
                self.align(2)?;
                self.take(2)?;
            }
            b'b' | b'i' | b'u' | b'h' => {
                self.align(4)?;
                self.take(4)?;
            }
            b'x' | b't' | b'd' => {
                self.align(8)?;
                self.take(8)?;
            }
            b's' | b'o' => {
                self.text()?;
            }
            b'g' => {
                self.signature()?;
            }
            b'v' => {
                let inner = self.signature()?.as_bytes();
                if self.skip_one(inner, 0, depth + 1)? != inner.len() {
                    return Err(Malformed("a variant holds more than one value"));
                }
            }
            b'a' => {
                let end = one_type(signature, at + 1, depth + 1)?;
                let element = std::str::from_utf8(&signature[at + 1..end]);
                self.array(element.map_err(|_| Malformed("a signature is no text"))?)?;
                return Ok(end);
            }
            b'(' => {
                self.align(8)?;
                let mut next = at + 1;
                while signature.get(next) != Some(&b')') {
                    next = self.skip_one(signature, next, depth + 1)?;
                }
                return Ok(next + 1);
            }
            _ => return Err(Malformed("a signature names no type")),
        }
        Ok(at + 1)
    }
}

/// A value and its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant<'a> {
    signature: &'a str,
    value: Reader<'a>,
}

impl<'a> Variant<'a> {
    /// A reader at the value, if it is of this type.
    pub(crate) fn of(self, signature: &str) -> Read<Reader<'a>> {
        if self.signature == signature {
            Ok(self.value)
        } else {
            Err(Malformed("a property has another type"))
        }
    }
}

/// Where the type ends that begins at `at`.
fn one_type(signature: &[u8], at: usize, depth: u8) -> Read<usize> {
    if depth > MAX_DEPTH {
        return Err(Malformed("values are nested too deeply"));
    }
    let code = *signature.get(at).ok_or(Malformed("a signature is cut"))?;
    match code {
        b'a' => one_type(signature, at + 1, depth + 1),
        b'(' | b'{' => {
            let close = if code == b'(' { b')' } else { b'}' };
            let mut next = at + 1;
            while signature.get(next) != Some(&close) {
                next = one_type(signature, next, depth + 1)?;
            }
            Ok(next + 1)
        }
        _ => alignment(code).map(|_| at + 1),
    }
}

fn alignment(code: u8) -> Read<usize> {
    Ok(match code {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => return Err(Malformed("a signature names no type")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_that_is_not_wanted_is_passed_over() {
        // A variant of `a(sv)` with no element, and a byte behind it.
        let bytes = [
            5, b'a', b'(', b's', b'v', b')', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        ];
        let mut reader = Reader::new(&bytes, false);
        let variant = reader.variant().unwrap();
        assert!(variant.of("u").is_err());
        assert_eq!(reader.byte(), Ok(7));
        assert!(reader.is_empty());
    }

    #[test]
    fn depth_has_a_bound() {
        let deep: Vec<u8> = [1, b'v', 0].repeat(100);
        assert!(Reader::new(&deep, false).variant().is_err());
        let mut signature = vec![200];
        signature.extend([b'a'; 200]);
        signature.push(0);
        assert!(Reader::new(&signature, false).variant().is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_nothing_is_read_twice(bytes: Vec<u8>, big: bool) {
            let mut reader = Reader::new(&bytes, big);
            while !reader.is_empty() {
                let before = reader.at();
                if reader.variant().is_err() {
                    break;
                }
                prop_assert!(reader.at() > before && reader.at() <= bytes.len());
            }
        }
    }
}
