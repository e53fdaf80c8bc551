//! From bytes and a signature to a policy that may be applied.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::draft::Draft;
use crate::fault::PolicyError;
use crate::schema::Policy;
use crate::source::MAX_POLICY;
use crate::trust::{Signature, Trust, TrustError};

/// A value that was signed by a trusted key, is well formed, in force, and not older than one seen
/// before. [`verify`] is the only way to make one.
///
/// ```compile_fail
/// fn forge(policy: sekisho_policy::Policy) -> sekisho_policy::Verified<sekisho_policy::Policy> {
///     sekisho_policy::Verified { value: policy }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    floor: Floor,
}

impl<T> Verified<T> {
    /// What to remember: from now on, nothing older is accepted.
    pub fn floor(&self) -> &Floor {
        &self.floor
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The newest that was ever accepted. Kept by the caller, stored before the policy is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Version of that policy.
    pub version: u64,
    /// SHA-256 of its bytes: the same version with other bytes is refused.
    pub digest: Option<[u8; 32]>,
    /// No honest clock shows less than this.
    pub time: Timestamp,
}

/// The time, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// The machine's wall clock; may be wrong.
    pub now: Timestamp,
    /// What was accepted before.
    pub floor: Floor,
}

impl Clock {
    /// The machine's wall clock, now.
    pub fn system(floor: Floor) -> Self {
        Self {
            now: Timestamp::now(),
            floor,
        }
    }
}

/// Why a policy is not applied.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Longer than [`MAX_POLICY`].
    #[error("the policy file is longer than {MAX_POLICY} bytes; it was not read")]
    TooLong,
    /// The signature file is not one.
    #[error(transparent)]
    Signature(#[from] TrustError),
    /// Signed by a key that is not trusted here.
    #[error("the policy is signed by key {keyid}, which is not in the trust file")]
    UnknownKey {
        /// As the signature file names it.
        keyid: String,
    },
    /// The signature does not belong to these bytes.
    #[error(
        "the signature does not fit the policy file: it was changed after signing, or belongs to another file"
    )]
    BadSignature,
    /// Signed, but not a policy that can be applied.
    #[error("the policy is signed but cannot be applied: {0}")]
    Policy(Box<PolicyError>),
    /// Older than one that was accepted before.
    #[error(
        "the policy has version {version}, but version {floor} was applied before; a laptop never goes back"
    )]
    Older {
        /// Its version.
        version: u64,
        /// The version accepted before.
        floor: u64,
    },
    /// The same version with other bytes.
    #[error(
        "another policy with the same version {version} was applied before; raise `version` and sign again"
    )]
    Replaced {
        /// The version of both.
        version: u64,
    },
    /// Past its time.
    #[error("the policy expired at {expires}; IT must sign a new one")]
    Expired {
        /// Its end.
        expires: Timestamp,
    },
}

/// Checks the signature over the exact bytes, then parses, then checks what the policy says, runs
/// its own tests, and compares version and time with what was accepted before.
///
/// A clock that is behind is corrected by the floor and by the policy's own `issued`, so that an
/// empty clock battery is no dead end; a clock that is ahead can only refuse.
///
/// # Errors
/// [`VerifyError`]; nothing of the policy's content is looked at before the signature holds.
pub fn verify(
    bytes: &[u8],
    signature: &[u8],
    trust: &Trust,
    clock: &Clock,
) -> Result<Verified<Policy>, VerifyError> {
    if bytes.len() > MAX_POLICY {
        return Err(VerifyError::TooLong);
    }
    let signature = Signature::parse(signature)?;
    let key = trust
        .key(&signature.keyid)
        .ok_or_else(|| VerifyError::UnknownKey {
            keyid: signature.keyid.chars().take(64).collect(),
        })?;
    let bits = signature.to_dalek().ok_or(VerifyError::BadSignature)?;
    key.verify_strict(bytes, &bits)
        .map_err(|_| VerifyError::BadSignature)?;

    let draft = Draft::parse("policy.toml", bytes).map_err(VerifyError::Policy)?;
    draft.run_tests().map_err(VerifyError::Policy)?;
    let value = draft.into_policy();

    let floor = &clock.floor;
    let version = value.policy.version;
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    if version < floor.version {
        return Err(VerifyError::Older {
            version,
            floor: floor.version,
        });
    }
    if version == floor.version && floor.digest.is_some_and(|known| known != digest) {
        return Err(VerifyError::Replaced { version });
    }
    let time = floor.time.max(value.policy.issued);
    if clock.now.max(time) >= value.policy.expires {
        return Err(VerifyError::Expired {
            expires: value.policy.expires,
        });
    }
    Ok(Verified {
        value,
        floor: Floor {
            version,
            digest: Some(digest),
            time,
        },
    })
}
