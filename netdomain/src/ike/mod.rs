//! The engine of an `IPsec` tunnel: charon and its keeper, for gateways that cities already have.
//!
//! One process that the supervisor starts, and charon as its child, both in one sandbox with a network
//! of its own. The keeper starts a charon for each tunnel, tells it over VICI what to do and looks at
//! what came of it, passes its datagrams on to a socket of the uplink's, and the device for inner
//! packets to the gate. Between gate and keeper there is a channel
//! ([`sekisho_control::GateToEngine`]); inner packets do not pass through the keeper.
//!
//! | module | what |
//! |---|---|
//! | `place` | network namespace, packet filter, root, filter of system calls |
//! | `tun` | the two devices |
//! | `outer` | the one towards the gateway, and its addresses |
//! | `charon` | its configuration and its life |
//! | `vici` | charon's own protocol |
//! | `fuzz` | charon as a fuzzer plays it |
//! | `dialogue` | what it is told, and what its answers mean |
//! | `token` | the token that holds the key: what is tried with it, and how often |
//! | `encapsulation` | datagrams between charon and the uplink's socket |
//! | `tunnel` | one tunnel: what is done when |

mod charon;
mod dialogue;
mod encapsulation;
mod fuzz;
mod outer;
mod place;
mod token;
mod tun;
mod tunnel;
mod vici;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sekisho_policy::{GatewayProtocol, SecondFactor};
use thiserror::Error;
use zeroize::Zeroizing;

pub(crate) use self::fuzz::vici as fuzz_vici;

use self::dialogue::{Gateway, Identity, Key};
use self::place::Place;
use self::token::{Known, Pin};
use self::tunnel::{Charon, Settings};
use crate::engine::{self, EngineError, Keeper};
use crate::moment::Moment;

/// The longest file of papers, in bytes: some twenty certificates.
const MAX_FILE: u64 = 48 << 10;

/// Where packets are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Esp {
    /// In the kernel.
    Kernel,
    /// In charon itself: slow, for kernels that have no ESP.
    User,
}

/// Command line of `sekisho-netdomain ike`.
#[derive(Debug, clap::Args)]
#[group(id = "ike")]
pub struct Args {
    #[command(flatten)]
    engine: engine::Args,
    /// Certificates of the gateways' authorities, in PEM.
    #[arg(long)]
    authorities: PathBuf,
    /// Lists of revoked certificates, in PEM, each signed by its authority.
    #[arg(long)]
    revoked: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
    /// The inner address of this laptop.
    #[arg(long)]
    address: Ipv4Addr,
    /// Where packets are sealed.
    #[arg(long, value_enum, default_value_t = Esp::Kernel)]
    esp: Esp,
}

/// Where the private key of this laptop is: in a file, or in a token.
#[derive(Debug, clap::Args)]
#[group(id = "private-key")]
struct KeyArgs {
    /// The private key of this laptop, in PEM.
    #[arg(long, required_unless_present = "token", conflicts_with = "token")]
    key: Option<PathBuf>,
    /// The library of the token that holds the private key (PKCS #11).
    #[arg(long, requires = "token_key")]
    token: Option<PathBuf>,
    /// The key's `CKA_ID`, in hex.
    #[arg(long)]
    token_key: Option<String>,
    /// The file that holds the token's PIN, where policy does not ask the person for it.
    #[arg(long)]
    token_pin: Option<PathBuf>,
    /// A file, folder or socket that the token's library needs, and where it looks for it.
    #[arg(long, value_name = "WHAT:WHERE", value_parser = shown)]
    token_needs: Vec<(PathBuf, PathBuf)>,
}

/// `WHAT:WHERE`, two absolute paths.
fn shown(word: &str) -> Result<(PathBuf, PathBuf), String> {
    let pair = word
        .split_once(':')
        .filter(|(what, place)| what.starts_with('/') && place.starts_with('/'));
    let (what, place) = pair.ok_or("two absolute paths, `WHAT:WHERE`, are needed")?;
    Ok((what.into(), place.into()))
}

impl KeyArgs {
    /// The key, or how it is reached. `asked` where policy asks the person for the token's PIN.
    fn open(&self, asked: bool) -> Result<Key, IkeError> {
        let id = match (&self.key, &self.token_key) {
            (Some(_), _) if asked => return Err(IkeError::NoToken),
            (Some(file), _) => return read(file).map(|pem| Key::Here(pem.into())),
            (None, Some(id)) => id.clone(),
            (None, None) => return Err(IkeError::NoKey),
        };
        let pin = match (&self.token_pin, asked) {
            (Some(_), true) => return Err(IkeError::PinInFile),
            (Some(file), false) => {
                let text = Zeroizing::new(read(file)?);
                Pin::File(text.trim_ascii().to_vec().into())
            }
            (None, true) => Pin::Asked,
            (None, false) => return Err(IkeError::NoPin),
        };
        Ok(Key::Token { id, pin })
    }
}

/// Why the engine ended.
#[derive(Debug, Error)]
pub enum IkeError {
    /// As any engine may.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of papers cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of papers holds no certificate.
    #[error("{0} holds no certificate in PEM")]
    NoCertificate(PathBuf),
    /// A file holds no list of revoked certificates.
    #[error("{0} holds no list of revoked certificates in PEM (`X509 CRL`)")]
    NoList(PathBuf),
    /// A file of certificates or lists is longer than charon could be told.
    #[error("{0} is longer than {MAX_FILE} bytes: leave out what no gateway needs, text above all")]
    TooLong(PathBuf),
    /// No private key was named.
    #[error("neither a private key nor a token was named")]
    NoKey,
    /// Policy asks for the PIN of a token that there is not.
    #[error(
        "policy asks the person for the PIN of a token (`second_factor = \"pin\"`), and the key is in a \
         file: name the token in `[ike.token]`, in place of `key`"
    )]
    NoToken,
    /// Policy asks for a PIN that is in a file already.
    #[error(
        "policy asks the person for the token's PIN (`second_factor = \"pin\"`): take `pin` out of \
         `[ike.token]`, and remove the file"
    )]
    PinInFile,
    /// Nobody knows the PIN.
    #[error(
        "the token's PIN is in no file, and policy does not ask the person for it: write `pin` into \
         `[ike.token]`, or `second_factor = \"pin\"` into the policy's gateways of kind `ikev2`"
    )]
    NoPin,
    /// The authority that policy names is not there.
    #[error(
        "{path} holds no certificate with the `ca_sha256` that policy gives for gateway `{gateway}`"
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// The gateway.
        gateway: String,
    },
}

/// Runs the engine until it is told to end.
///
/// # Errors
/// [`IkeError`]; the tunnel is down then, and the gate knows by the end of its channel.
pub fn run(args: &Args) -> Result<(), IkeError> {
    let policy = args.engine.policy()?;
    let silence = policy.vpn.dead_after;
    let authorities = certificates(&args.authorities)?;
    let mut gateways = Vec::new();
    let mut asked = false;
    for gateway in &policy.vpn.gateway {
        let GatewayProtocol::Ikev2 {
            remote_id,
            ca_sha256,
            auth,
            revocation,
        } = &gateway.protocol
        else {
            continue;
        };
        let authority = authorities
            .iter()
            .find(|certificate| digest(&SHA256, certificate).as_ref() == ca_sha256.0)
            .ok_or_else(|| IkeError::NoAuthority {
                path: args.authorities.clone(),
                gateway: gateway.name.clone(),
            })?;
        // Policy has it for all of them or for none.
        asked |= gateway.second_factor == Some(SecondFactor::Pin);
        gateways.push(Gateway {
            name: gateway.name.clone(),
            address: gateway.address,
            lan: gateway.lan_address,
            remote_id: remote_id.as_str().to_owned(),
            authority: authority.clone(),
            auth: *auth,
            revocation: *revocation,
        });
    }
    drop(policy);
    if gateways.is_empty() {
        let (kind, table) = ("ikev2", "ike");
        return Err(EngineError::NoGateway { kind, table }.into());
    }
    let identity = Identity {
        certificate: certificates(&args.engine.certificate)?.swap_remove(0),
        key: args.key.open(asked)?,
        revoked: match &args.revoked {
            None => Vec::new(),
            Some(file) => lists(file)?,
        },
        address: args.address,
    };
    let channels = args.engine.channels()?;
    let addresses: BTreeSet<_> = gateways.iter().map(|known| *known.address.ip()).collect();
    let Place {
        namespace,
        outer,
        inner,
        xfrm,
    } = place::network(args.address, addresses, args.esp)?;
    // The first look at the clock finds the vDSO by calls that the sandbox does not allow.
    let _ = Moment::now();
    place::close_in(namespace, args.esp, args.engine.user, &args.key.token_needs)?;
    let settings = Settings {
        gateways,
        identity,
        silence,
        esp: args.esp,
        token: args.key.token.clone(),
        known: RefCell::new(Known::default()),
        outer,
        inner,
        xfrm,
    };
    Ok(Keeper::new(Charon::new(Rc::new(settings)), channels).serve()?)
}

fn read(path: &Path) -> Result<Vec<u8>, IkeError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| IkeError::Read {
            path: path.to_owned(),
            source,
        })?;
    // Of a file that is cut the last certificates or lists would be missing, and nobody would know.
    if bytes.len() as u64 > MAX_FILE {
        return Err(IkeError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

/// All certificates of a file, DER; there is one at least.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, IkeError> {
    all_of::<CertificateDer<'_>>(&read(path)?)
        .ok_or_else(|| IkeError::NoCertificate(path.to_owned()))
}

/// All lists of revoked certificates of a file, DER; there is one at least.
fn lists(path: &Path) -> Result<Vec<Vec<u8>>, IkeError> {
    all_of::<CertificateRevocationListDer<'_>>(&read(path)?)
        .ok_or_else(|| IkeError::NoList(path.to_owned()))
}

/// What a PEM text holds of one kind; none if that is nothing, or something is malformed.
fn all_of<T: PemObject + AsRef<[u8]>>(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let all: Result<Vec<_>, _> = T::pem_slice_iter(text)
        .map(|object| object.map(|object| object.as_ref().to_vec()))
        .collect();
    all.ok().filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_the_persons_or_a_files_and_never_both() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "1234\n").unwrap();
            path
        };
        let token = |token_pin| KeyArgs {
            key: None,
            token: Some("/usr/lib/token.so".into()),
            token_key: Some("0a".into()),
            token_pin,
            token_needs: Vec::new(),
        };
        let pin = |key: Result<Key, IkeError>| match key {
            Ok(Key::Token { pin, .. }) => pin,
            Ok(Key::Here(_)) => panic!("a key in a file"),
            Err(error) => panic!("{error}"),
        };
        let of_file = pin(token(Some(file("pin"))).open(false));
        assert!(matches!(of_file, Pin::File(pin) if *pin == *b"1234"));
        assert!(matches!(pin(token(None).open(true)), Pin::Asked));
        let both = token(Some(file("pin"))).open(true);
        assert!(matches!(both, Err(IkeError::PinInFile)));
        assert!(matches!(token(None).open(false), Err(IkeError::NoPin)));
        let in_file = KeyArgs {
            key: Some(file("key")),
            token: None,
            token_key: None,
            ..token(None)
        };
        assert!(matches!(in_file.open(false), Ok(Key::Here(_))));
        assert!(matches!(in_file.open(true), Err(IkeError::NoToken)));
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lists.pem");
        let most = usize::try_from(MAX_FILE).unwrap();
        std::fs::write(&path, vec![b'#'; most]).unwrap();
        assert_eq!(read(&path).unwrap().len(), most);
        std::fs::write(&path, vec![b'#'; most + 1]).unwrap();
        assert!(matches!(read(&path), Err(IkeError::TooLong(_))));
    }
}
