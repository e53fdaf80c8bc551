//! Whose signatures count: Ed25519 keys (RFC 8032), and the file that a signature comes in.
//!
//! Keys are PEM as every other tool writes them (RFC 8410), so that `openssl pkeyutl -sign
//! -rawin` and a smart card can sign too.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::value::hex;

/// DER of an Ed25519 `SubjectPublicKeyInfo` up to the key itself (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0,
];
/// DER of an Ed25519 `OneAsymmetricKey`, version 1, up to the key itself (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Keys that one laptop can trust. A city has two or three people who sign; 64 leaves room for
/// rotation and keeps the file small.
const MAX_KEYS: usize = 64;
/// Longest trust file: [`MAX_KEYS`] keys in PEM with generous comments.
const MAX_TRUST: usize = 64 * 1024;
/// Longest signature file: a key id of 64 digits, a signature of 88, and JSON around them.
pub const MAX_SIGNATURE: usize = 1024;

/// SHA-256 of a public key: how a signature says whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 32]);

impl KeyId {
    fn of(key: &VerifyingKey) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key, trust or signature file is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Line of the trust file that is no key.
    #[error(
        "line {line} of the trust file is not an Ed25519 public key: give PEM (`openssl pkey -pubout`) or 32 bytes in base64, one key a line"
    )]
    NotAKey {
        /// 1 for the first.
        line: usize,
    },
    /// The trust file names no key.
    #[error("the trust file holds no key: nothing could ever be verified")]
    NoKey,
    /// The trust file is too long or names too many keys.
    #[error("the trust file is too large (at most {MAX_KEYS} keys, {MAX_TRUST} bytes)")]
    TooLarge,
    /// The signature file is too long, no JSON, or has other keys than `keyid` and `sig`.
    #[error("the signature file is not `{{\"keyid\": …, \"sig\": …}}`: {0}")]
    NotASignature(String),
    /// The private key file is not one.
    #[error(
        "not an Ed25519 private key in PEM (PKCS #8): make one with `policyctl keygen --out DIR`"
    )]
    NotAPrivateKey,
}

/// The public keys whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<(KeyId, VerifyingKey)>,
}

impl Trust {
    /// Reads a trust file: public keys in PEM, or in base64 one a line; empty lines and lines that
    /// start with `#` are comments.
    ///
    /// # Errors
    /// [`TrustError`] where a line is no key, a key is weak (of small order), or there is none.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        if text.len() > MAX_TRUST {
            return Err(TrustError::TooLarge);
        }
        let mut keys = Vec::new();
        let mut pem: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = TrustError::NotAKey { line: index + 1 };
            let line = line.trim();
            let der = match (&mut pem, line) {
                (_, "") => continue,
                (None, comment) if comment.starts_with('#') => continue,
                (None, "-----BEGIN PUBLIC KEY-----") => {
                    pem = Some(String::new());
                    continue;
                }
                (Some(body), "-----END PUBLIC KEY-----") => {
                    let der = STANDARD.decode(&body).map_err(|_| wrong.clone())?;
                    pem = None;
                    der.strip_prefix(&SPKI_PREFIX)
                        .ok_or(wrong.clone())?
                        .to_vec()
                }
                (Some(body), line) => {
                    body.push_str(line);
                    continue;
                }
                (None, line) => STANDARD.decode(line).map_err(|_| wrong.clone())?,
            };
            let bytes: [u8; 32] = der.try_into().map_err(|_| wrong.clone())?;
            let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong.clone())?;
            if key.is_weak() {
                return Err(wrong);
            }
            if keys.len() == MAX_KEYS {
                return Err(TrustError::TooLarge);
            }
            keys.push((KeyId::of(&key), key));
        }
        if pem.is_some() {
            return Err(TrustError::NotAKey {
                line: text.lines().count(),
            });
        }
        if keys.is_empty() {
            return Err(TrustError::NoKey);
        }
        Ok(Self { keys })
    }

    /// The ids of its keys.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|(id, _)| *id)
    }

    pub(crate) fn key(&self, id: &str) -> Option<&VerifyingKey> {
        self.keys
            .iter()
            .find(|(known, _)| known.to_string() == id)
            .map(|(_, key)| key)
    }
}

/// What stands in `policy.toml.sig`: `{"keyid": "<SHA-256 of the public key>", "sig": "<base64>"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Id of the key, 64 hexadecimal digits.
    pub keyid: String,
    /// Ed25519 signature over the bytes of the policy file, base64.
    pub sig: String,
}

impl Signature {
    /// Reads a signature file. Duplicate and unknown keys are refused.
    ///
    /// # Errors
    /// [`TrustError::NotASignature`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > MAX_SIGNATURE {
            return Err(TrustError::NotASignature(format!(
                "longer than {MAX_SIGNATURE} bytes"
            )));
        }
        serde_json::from_slice(bytes).map_err(|error| TrustError::NotASignature(error.to_string()))
    }

    /// The file's text.
    pub fn to_file(&self) -> String {
        format!(
            "{{\"keyid\": \"{}\", \"sig\": \"{}\"}}\n",
            self.keyid, self.sig
        )
    }

    pub(crate) fn to_dalek(&self) -> Option<ed25519_dalek::Signature> {
        let bytes: [u8; 64] = STANDARD.decode(&self.sig).ok()?.try_into().ok()?;
        Some(ed25519_dalek::Signature::from_bytes(&bytes))
    }
}

/// A private key that signs policies. It never lies on a laptop.
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.key_id())
    }
}

impl PrivateKey {
    /// A key from 32 random bytes (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads PEM (PKCS #8).
    ///
    /// # Errors
    /// [`TrustError::NotAPrivateKey`].
    pub fn from_pem(pem: &str) -> Result<Self, TrustError> {
        let body: String = pem
            .trim()
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
            .ok_or(TrustError::NotAPrivateKey)?
            .split_ascii_whitespace()
            .collect();
        let der = STANDARD
            .decode(body)
            .map_err(|_| TrustError::NotAPrivateKey)?;
        let seed = der
            .strip_prefix(&PKCS8_PREFIX)
            .ok_or(TrustError::NotAPrivateKey)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| TrustError::NotAPrivateKey)?;
        Ok(Self::from_seed(&seed))
    }

    /// PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` writes it.
    pub fn to_pem(&self) -> String {
        let der = [&PKCS8_PREFIX[..], self.0.as_bytes()].concat();
        pem("PRIVATE KEY", &der)
    }

    /// Its public half, PEM: a line of the trust file.
    pub fn public_pem(&self) -> String {
        let der = [&SPKI_PREFIX[..], self.0.verifying_key().as_bytes()].concat();
        pem("PUBLIC KEY", &der)
    }

    /// Id of its public half.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.0.verifying_key())
    }

    /// Signs the bytes of a policy file.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature {
            keyid: self.key_id().to_string(),
            sig: STANDARD.encode(self.0.sign(bytes).to_bytes()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    // 48 bytes of Ed25519 are 64 characters of base64: one line.
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}
