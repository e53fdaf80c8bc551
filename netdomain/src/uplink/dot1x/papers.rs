//! The laptop's papers for 802.1X, read before the sandbox closes.
//!
//! ```toml
//! # dot1x.toml; paths are relative to this file
//! identity = "mihon-0001@mihon-city.example"
//! authority = "radius-ca.pem"     # the one whose hash the policy pins may be one of several
//! certificate = "dot1x.pem"       # the laptop's, and after it what leads to its authority
//! key = "dot1x.key"
//! ```

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;

use super::{super::wifi::Word, Dot1xError};

/// Longest of these files, in bytes: a bundle of some dozen authorities.
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    identity: Word,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// What the supplicant is given.
pub(super) struct Papers {
    /// Whom the laptop says that it is.
    pub(super) identity: Word,
    /// Certificate of the authority that the policy pins (DER).
    pub(super) authority: Vec<u8>,
    /// The laptop's own (PEM).
    pub(super) certificate: Vec<u8>,
    /// And its key (PEM).
    pub(super) key: Vec<u8>,
}

impl Papers {
    /// Reads `dot1x.toml` and what it names; `pin` is the hash of the authority's certificate.
    pub(super) fn read(path: &Path, pin: &[u8; 32]) -> Result<Self, Dot1xError> {
        let text =
            String::from_utf8(read(path)?).map_err(|error| unusable(path, &error.to_string()))?;
        let table: Table =
            toml::from_str(&text).map_err(|error| unusable(path, error.message()))?;
        let beside = |file: &Path| path.parent().unwrap_or(Path::new("")).join(file);
        let (certificate, key) = (beside(&table.certificate), beside(&table.key));
        let papers = Self {
            identity: table.identity,
            authority: pinned(&beside(&table.authority), pin)?,
            certificate: read(&certificate)?,
            key: read(&key)?,
        };
        // The supplicant would find out at the port, and say so in its own log only.
        CertificateDer::from_pem_slice(&papers.certificate)
            .map_err(|_| unusable(&certificate, "no certificate (PEM) is in it"))?;
        PrivateKeyDer::from_pem_slice(&papers.key)
            .map_err(|_| unusable(&key, "no private key (PEM, without a passphrase) is in it"))?;
        Ok(papers)
    }
}

/// The certificate with this hash, out of a file of some. What was hashed is what is used.
fn pinned(path: &Path, pin: &[u8; 32]) -> Result<Vec<u8>, Dot1xError> {
    let bytes = read(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .filter_map(Result::ok)
        .find(|certificate| digest(&SHA256, certificate).as_ref() == pin)
        .map(|certificate| certificate.to_vec())
        .ok_or_else(|| {
            unusable(
                path,
                "no certificate in it has the hash that the policy pins (`ca_sha256`)",
            )
        })
}

fn read(path: &Path) -> Result<Vec<u8>, Dot1xError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(path, &error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable(path, &format!("longer than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

fn unusable(path: &Path, why: &str) -> Dot1xError {
    Dot1xError::Papers {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const TABLE: &str = "identity = 'mihon-0001@mihon-city.example'\nauthority = 'ca.pem'\n\
                         certificate = 'own.pem'\nkey = 'own.key'\n";

    fn certificate() -> (String, Vec<u8>, String) {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["a".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (made.pem(), made.der().to_vec(), key.serialize_pem())
    }

    #[test]
    fn only_the_pinned_authority_is_taken_out_of_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let (other, _, _) = certificate();
        let (ours, der, _) = certificate();
        let (own, _, key) = certificate();
        write("dot1x.toml", TABLE);
        write("ca.pem", &format!("# a bundle\n{other}{ours}"));
        write("own.pem", &own);
        write("own.key", &key);
        let pin = <[u8; 32]>::try_from(digest(&SHA256, &der).as_ref()).unwrap();
        let path = folder.path().join("dot1x.toml");
        let papers = Papers::read(&path, &pin).unwrap();
        assert_eq!(papers.authority, der);
        let refused = |complaint: &str| {
            let error = Papers::read(&path, &pin).err().unwrap().to_string();
            assert!(error.contains(complaint), "{error}");
        };
        write("own.key", &own);
        refused("no private key");
        write("own.key", &key);
        write("ca.pem", &other);
        refused("the policy pins");
        write("ca.pem", &"x".repeat(65 * 1024));
        refused("longer than");
        write("dot1x.toml", &TABLE.replace("mihon-0001", "mihon\\\"0001"));
        refused("without quotes");
        std::fs::remove_file(&path).unwrap();
        refused("dot1x.toml");
    }
}
