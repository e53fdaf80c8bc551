//! What a person types to prove to be there.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// Longest answer. A one-time password has six to eight digits, a smart card's PIN up to sixteen
/// characters.
pub const MAX_ANSWER: usize = 64;

/// An answer of the person's: a one-time password or a PIN. Its memory is erased when it is dropped,
/// it cannot be copied, and nothing that prints values for people shows it.
///
/// It has 1 to [`MAX_ANSWER`] characters, each printable ASCII other than `"`, `\` and space: such
/// text is the same in JSON as in memory, so that no parser needs a second buffer for it, and has no
/// line end that a program asking for a line could take for one.
#[derive(PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// The text cannot be an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an answer has 1 to {MAX_ANSWER} letters, digits and signs, without spaces, quotation marks and backslashes"
)]
pub struct NoAnswer;

impl Secret {
    /// Takes what was typed.
    ///
    /// # Errors
    /// [`NoAnswer`]; what was given is erased all the same.
    pub fn new(text: String) -> Result<Self, NoAnswer> {
        let text = Zeroizing::new(text);
        if fits(&text) {
            Ok(Self(text))
        } else {
            Err(NoAnswer)
        }
    }

    /// The text, for the one who is to judge it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn fits(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=MAX_ANSWER).contains(&text.len()) && text.bytes().all(plain)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an answer of 1 to {MAX_ANSWER} characters")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                // The message must not hold what was typed.
                if fits(text) {
                    Ok(Secret(Zeroizing::new(text.to_owned())))
                } else {
                    Err(E::custom(NoAnswer))
                }
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
                Secret::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_never_shown() {
        let secret = Secret::new("755224".to_owned()).unwrap();
        assert!(!format!("{secret:?} {secret:#?}").contains("755224"));
        let error = serde_json::from_str::<Secret>("\"75 52\\n24\"").unwrap_err();
        assert!(!error.to_string().contains("52"), "{error}");
    }

    proptest! {
        /// What it takes is the same in JSON as in memory, and it takes no more than it says.
        #[test]
        fn plain_text_and_no_other(text in "\\PC{0,80}|[!-~]{0,80}|[0-9\"\\\\ \n]{1,9}") {
            let allowed = (1..=MAX_ANSWER).contains(&text.len())
                && text.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'"' && b != b'\\');
            let taken = Secret::new(text.clone());
            prop_assert_eq!(taken.is_ok(), allowed);
            if let Ok(secret) = taken {
                let json = serde_json::to_string(&secret).unwrap();
                prop_assert_eq!(&json, &format!("\"{text}\""));
                prop_assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
            }
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Secret>(&json).is_ok(), allowed);
        }
    }
}
