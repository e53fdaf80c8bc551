//! What the municipality gave this laptop: the signed policy, and the memory of the last one.
//!
//! Gate and uplink judge alike. Both read before their sandbox closes, as they read every file. The
//! gate alone writes: two writers could take each other's floor back, and what the uplink cannot
//! know of a policy (that it can be served) the gate has found out.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sekisho_policy::{
    Clock, FloorError, FloorFile, MAX_POLICY, Policy, Trust, TrustError, Verified, VerifyError,
    verify,
};
use thiserror::Error;

/// The files of a policy, as they are named on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Papers {
    /// The signed policy.
    #[arg(long)]
    pub policy: PathBuf,
    /// Its signature.
    #[arg(long)]
    pub signature: PathBuf,
    /// The public keys that may sign it.
    #[arg(long)]
    pub trust: PathBuf,
    /// The gate's own folder: it remembers the last policy, and the time of the last handshake. The
    /// uplink only reads there.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// Why no policy is applied, and so there is no network.
#[derive(Debug, Error)]
pub enum PapersError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The trust file holds no keys.
    #[error("the keys that may sign the policy cannot be used: {0}")]
    Trust(#[from] TrustError),
    /// The policy is not to be believed, or not any more.
    #[error(transparent)]
    Policy(#[from] VerifyError),
    /// What was applied before is not known, or cannot be remembered.
    #[error(transparent)]
    Floor(#[from] FloorError),
}

impl Papers {
    /// The policy, if it may be applied: signed, in force, and not older than the last one.
    ///
    /// # Errors
    /// [`PapersError`]; there is no network without a policy.
    pub fn read(&self) -> Result<Verified<Policy>, PapersError> {
        let floor = FloorFile::in_folder(&self.state)?.read()?;
        let trust = Trust::parse(&String::from_utf8_lossy(&read(&self.trust)?))?;
        let (policy, signature) = (read(&self.policy)?, read(&self.signature)?);
        Ok(verify(&policy, &signature, &trust, &Clock::system(floor))?)
    }

    /// Remembers for ever that this policy was applied.
    ///
    /// # Errors
    /// [`PapersError::Floor`]; the policy must not be applied then.
    pub fn remember(&self, policy: &Verified<Policy>) -> Result<(), PapersError> {
        let file = FloorFile::in_folder(&self.state)?;
        // Most starts are with the policy of the last one.
        if file.read()? != *policy.floor() {
            file.keep(policy.floor())?;
        }
        Ok(())
    }
}

/// No file of ours is longer than a policy may be; each is refused by its own reader if it is too
/// long for that.
fn read(path: &Path) -> Result<Vec<u8>, PapersError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_POLICY as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| PapersError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}
