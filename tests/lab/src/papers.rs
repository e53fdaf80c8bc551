//! What the municipality would issue to a laptop: keys, a signed policy, the device file, and the
//! beacon's certificate.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, date_time_ymd,
};
use sekisho_policy::{PrivateKey, Signature};
use sha2::{Digest as _, Sha256};

use crate::{LabError, address as at, layout::filter};

/// A `WireGuard` key pair in base64.
#[derive(Debug, Clone)]
pub struct WireGuardKey {
    /// Private half.
    pub private: String,
    /// Public half.
    pub public: String,
}

impl WireGuardKey {
    /// A fresh pair, made by wireguard-tools.
    pub fn generate() -> Result<Self, LabError> {
        let private = filter("wg", &["genkey"], "")?;
        let public = filter("wg", &["pubkey"], &private)?;
        Ok(Self { private, public })
    }
}

/// A self-signed certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// Certificate.
    pub certificate: String,
    /// Private key.
    pub key: String,
    /// SHA-256 of the public key's `SubjectPublicKeyInfo`, in lower-case hex.
    pub spki_sha256: String,
}

impl ServerIdentity {
    /// A fresh ECDSA P-256 identity.
    pub fn generate(name: &str) -> Result<Self, LabError> {
        let failed = |error: rcgen::Error| LabError::Papers {
            what: error.to_string(),
        };
        let key = KeyPair::generate().map_err(failed)?;
        let params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let digest = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            spki_sha256: hex(&digest),
        })
    }

    pub(crate) fn write(&self, dir: &Path, name: &str) -> Result<(), LabError> {
        for (suffix, text) in [("pem", &self.certificate), ("key", &self.key)] {
            std::fs::write(dir.join(format!("{name}.{suffix}")), text)
                .map_err(LabError::io("write a certificate"))?;
        }
        Ok(())
    }
}

/// What a TLS tunnel needs: the gateway's identity, the city's authority for laptops, and what it
/// issued to this one. All in PEM.
#[derive(Debug, Clone)]
pub struct TlsPapers {
    /// The gateway's.
    pub server: ServerIdentity,
    /// Certificate of the authority.
    pub authority: String,
    /// The laptop's certificate.
    pub certificate: String,
    /// And its key.
    pub key: String,
}

impl TlsPapers {
    /// Fresh ones. The laptop's certificate names its device.
    fn generate() -> Result<Self, LabError> {
        let failed = |error: rcgen::Error| LabError::Papers {
            what: error.to_string(),
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "Mihon City devices");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?)
            .map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, DEVICE);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).map_err(failed)?;
        Ok(Self {
            server: ServerIdentity::generate("honcho-tls")?,
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What an `IPsec` tunnel needs beside [`TlsPapers`]: the authority of the city's gateways, and what it
/// issued to one. All in PEM.
#[derive(Debug, Clone)]
pub struct IkePapers {
    /// Certificate of the authority.
    pub authority: String,
    /// SHA-256 of it (DER), in lower-case hex.
    pub authority_sha256: String,
    /// The gateway's certificate.
    pub certificate: String,
    /// And its key.
    pub key: String,
    /// What the authority has revoked: nothing of the lab's.
    pub revoked_none: String,
    /// The same, but out of date.
    pub revoked_stale: String,
    /// The gateway's certificate.
    pub revoked_gateway: String,
}

/// Serial number of the gateway's certificate.
const SERIAL: u64 = 7;

impl IkePapers {
    /// Fresh ones, for a gateway of this name.
    pub fn generate(name: &str) -> Result<Self, LabError> {
        let failed = |error: rcgen::Error| LabError::Papers {
            what: error.to_string(),
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "Mihon City gateways");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?)
            .map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(SERIAL.into());
        // By which its list is found (RFC 5280, section 4.2.1.1: every issued certificate has one).
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority).map_err(failed)?;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let day = |days: i64| {
            let date = today.saturating_add(days.days());
            let number = |part: i8| u8::try_from(part).unwrap_or(1);
            date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
        };
        let list = |serial: u64, days: i64| {
            let revoked = RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: day(-3),
                reason_code: None,
                invalidity_date: None,
            };
            let list = CertificateRevocationListParams {
                this_update: day(-3),
                next_update: day(days),
                crl_number: 1u64.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let signed = list.signed_by(&authority);
            signed.and_then(|list| list.pem()).map_err(failed)
        };
        Ok(Self {
            authority: authority.pem(),
            authority_sha256: hex(&Sha256::digest(authority.der())),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            revoked_none: list(SERIAL + 1, 30)?,
            revoked_stale: list(SERIAL + 1, -1)?,
            revoked_gateway: list(SERIAL, 30)?,
        })
    }
}

/// The papers of one lab.
#[derive(Debug, Clone)]
pub struct Papers {
    /// The gateway's key.
    pub gateway: WireGuardKey,
    /// The laptop's key.
    pub laptop: WireGuardKey,
    /// The laptop's second key, by which it asks paths that are not in use.
    pub probe: WireGuardKey,
    /// The beacon's identity.
    pub beacon: ServerIdentity,
    /// For the gateway's TLS.
    pub tls: TlsPapers,
    /// For the gateway's IKE.
    pub ike: IkePapers,
    /// The secret of the person's token for one-time passwords, in hex.
    pub token: String,
    signer: [u8; 32],
}

/// Files of a laptop, as [`Papers::issue`] wrote them.
#[derive(Debug, Clone)]
pub struct LaptopFiles {
    /// `policy.toml`.
    pub policy: PathBuf,
    /// `policy.toml.sig`.
    pub signature: PathBuf,
    /// Public keys that may sign policies.
    pub trust: PathBuf,
    /// `device.toml`; the private key is in `wg.key` beside it, the second one, which it does not name,
    /// in `probe.key`, and for TLS and IKE `tls.pem`, `tls.key`, `ike-authority.pem`.
    pub device: PathBuf,
    /// The gate's own folder.
    pub state: PathBuf,
}

impl Papers {
    /// Fresh keys and certificates; those of the lab's servers are written to `dir`.
    pub fn generate(dir: &Path) -> Result<Self, LabError> {
        let mut signer = [0; 32];
        getrandom::fill(&mut signer).map_err(|error| LabError::Papers {
            what: error.to_string(),
        })?;
        // HMAC-SHA-1's length (RFC 4226, section 4).
        let mut token = [0; 20];
        getrandom::fill(&mut token).map_err(|error| LabError::Papers {
            what: error.to_string(),
        })?;
        let papers = Self {
            token: hex(&token),
            gateway: WireGuardKey::generate()?,
            laptop: WireGuardKey::generate()?,
            probe: WireGuardKey::generate()?,
            beacon: ServerIdentity::generate("beacon")?,
            tls: TlsPapers::generate()?,
            ike: IkePapers::generate(at::GATEWAY_NAME)?,
            signer,
        };
        papers.beacon.write(dir, "beacon")?;
        ServerIdentity::generate("public.example")?.write(dir, "decoy")?;
        Ok(papers)
    }
    /// The policy of the lab's municipality: groupware, time, ping and name service from anywhere, files
    /// from the office only, My Number never.
    pub fn policy(&self) -> String {
        let now = Timestamp::now();
        let (hour, season) = (
            SignedDuration::from_hours(1),
            SignedDuration::from_hours(24 * 90),
        );
        POLICY
            .replace("@ISSUED@", &(now - hour).to_string())
            .replace("@EXPIRES@", &(now + season).to_string())
            .replace("@GATEWAY@", &at::GATEWAY_OUTSIDE.to_string())
            .replace("@GATEWAY_LAN@", &at::GATEWAY_LAN.to_string())
            .replace("@GATEWAY_KEY@", &self.gateway.public)
            .replace("@BEACON@", &at::BEACON.to_string())
            .replace("@BEACON_KEY@", &self.beacon.spki_sha256)
    }

    /// The same with one more gateway, of kind `tls`, as the last resort.
    pub fn policy_with_tls(&self) -> String {
        let gateway = format!(
            "[[vpn.gateway]]\nname = \"honcho-tls\"\nkind = \"tls\"\naddress = \"{}\"\n\
             spki_sha256 = \"{}\"\nuplinks = [\"wired\"]\n\n[onprem]",
            at::GATEWAY_TLS,
            self.tls.server.spki_sha256
        );
        self.policy().replacen("[onprem]", &gateway, 1)
    }

    /// The same, where that gateway's tunnel demands a one-time password, and it is waited for so long.
    pub fn policy_with_otp(&self, within: &str) -> String {
        let name = "name = \"honcho-tls\"\n";
        self.policy_with_tls()
            .replacen(name, &format!("{name}second_factor = \"otp\"\n"), 1)
            .replacen(
                "[vpn]\n",
                &format!("[vpn]\nanswer_within = \"{within}\"\n"),
                1,
            )
    }

    /// What the person's token shows when its button was pressed so often; of OATH's own tool.
    pub fn one_time_password(&self, pressed: u32) -> Result<String, LabError> {
        let counter = pressed.to_string();
        filter(
            "oathtool",
            &["--digits=8", "--counter", &counter, &self.token],
            "",
        )
    }

    /// The policy of a city without an inner gateway: in the office the guest's packets go onto the
    /// LAN itself.
    pub fn policy_with_direct(&self) -> String {
        let gateway = format!("lan_address = \"{}\"\n", at::GATEWAY_LAN);
        self.policy()
            .replacen(&gateway, "", 1)
            .replacen("round_trip = \"1s\" }", "round_trip = \"5ms\" }", 1)
            .replacen(
                "recheck = \"5s\"",
                "recheck = \"5s\"\ndirect = \"routed\"",
                1,
            )
    }

    /// The policy of a city in whose offices the guest is a member of the LAN, and may be woken there.
    pub fn policy_with_bridged(&self) -> String {
        let peer = format!(
            "segment = \"lgwan\", hosts = [\"{}/32\"]",
            at::OFFICE_PRINTER
        );
        let flows = format!(
            "[[flow]]\nid = \"printer\"\nto = {{ {peer} }}\ntcp = [9100]\n\n\
             [[flow]]\nid = \"remote-support\"\nfrom = {{ {peer} }}\ntcp = [5900]\n\n[[uplink]]"
        );
        self.policy_with_direct()
            .replacen("[[uplink]]", &flows, 1)
            .replacen(
                "direct = \"routed\"",
                "direct = \"bridged\"\nwake_on_lan = true",
                1,
            )
    }

    /// The usual policy with one more gateway, of kind `ikev2`, behind the first.
    pub fn policy_with_ike(&self) -> String {
        let gateway = format!(
            "[[vpn.gateway]]\nname = \"honcho-ikev2\"\nkind = \"ikev2\"\naddress = \"{}\"\n\
             remote_id = \"{}\"\nca_sha256 = \"{}\"\nuplinks = [\"wired\"]\n\n[onprem]",
            at::GATEWAY_IKE.ip(),
            at::GATEWAY_NAME,
            self.ike.authority_sha256
        );
        self.policy().replacen("[onprem]", &gateway, 1)
    }

    /// The same, where that gateway's tunnel demands the PIN of the laptop's token, and it is waited for
    /// so long.
    pub fn policy_with_pin(&self, within: &str) -> String {
        let name = "name = \"honcho-ikev2\"\n";
        self.policy_with_ike()
            .replacen(name, &format!("{name}second_factor = \"pin\"\n"), 1)
            .replacen(
                "[vpn]\n",
                &format!("[vpn]\nanswer_within = \"{within}\"\n"),
                1,
            )
    }

    /// The policy of a city that has IPv6 on the LGWAN side, behind the tunnel alone.
    pub fn policy_with_ipv6(&self) -> String {
        self.policy()
            .replacen(
                "\"10.250.0.0/16\"]",
                "\"10.250.0.0/16\", \"2001:db8:12::/48\"]",
                1,
            )
            .replacen(
                "hosts = [\"10.12.10.0/24\"]",
                "hosts = [\"10.12.10.0/24\", \"2001:db8:12:10::/64\"]",
                1,
            )
    }

    /// Signs a policy as the municipality would.
    pub fn sign(&self, policy: &[u8]) -> Signature {
        PrivateKey::from_seed(&self.signer).sign(policy)
    }

    /// Writes the files of a laptop to `dir`.
    pub fn issue(&self, dir: &Path) -> Result<LaptopFiles, LabError> {
        self.issue_policy(dir, &self.policy())
    }

    /// Like [`Papers::issue`], with another policy.
    pub fn issue_policy(&self, dir: &Path, policy: &str) -> Result<LaptopFiles, LabError> {
        let files = LaptopFiles {
            policy: dir.join("policy.toml"),
            signature: dir.join("policy.toml.sig"),
            trust: dir.join("trust.pem"),
            device: dir.join("device.toml"),
            state: dir.join("state"),
        };
        let write = |file: &Path, text: &str| {
            std::fs::write(file, text).map_err(LabError::io("write the laptop's files"))
        };
        std::fs::create_dir_all(&files.state).map_err(LabError::io("make the laptop's folder"))?;
        write(&files.policy, policy)?;
        write(&files.signature, &self.sign(policy.as_bytes()).to_file())?;
        write(
            &files.trust,
            &PrivateKey::from_seed(&self.signer).public_pem(),
        )?;
        write(&dir.join("wg.key"), &self.laptop.private)?;
        write(&dir.join("probe.key"), &self.probe.private)?;
        write(&dir.join("tls.pem"), &self.tls.certificate)?;
        write(&dir.join("tls.key"), &self.tls.key)?;
        write(&dir.join("ike-authority.pem"), &self.ike.authority)?;
        write(&dir.join("ike-revoked.pem"), &self.ike.revoked_none)?;
        write(&files.device, &device())?;
        Ok(files)
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the lab's only laptop is called.
pub(crate) const DEVICE: &str = "mihon-0001";

/// The device file of the lab's only laptop.
fn device() -> String {
    let mac: Vec<String> = at::GUEST_MAC
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "device = \"{DEVICE}\"\nprivate_key = \"wg.key\"\naddress = \"{}/24\"\nrouter = \"{}\"\n\
         address6 = \"{}\"\nmac = \"{}\"\nmtu = {}\n",
        at::GUEST,
        at::GUEST_ROUTER,
        at::GUEST_V6,
        mac.join(":"),
        at::INNER_MTU
    )
}

const POLICY: &str = r#"# 見本市 持ち出し端末ポリシー（試験用）
schema = 1

[policy]
id = "jp.mihon-city"
version = 42
issued = "@ISSUED@"
expires = "@EXPIRES@"
change = "試験"

[segments.lgwan]
prefixes = ["10.12.0.0/16", "10.250.0.0/16"]
dns = ["10.12.0.53"]
domains = ["mihon-city.example", "lgwan.example"]
ntp = ["10.12.0.123"]

[forbidden]
prefixes = ["10.99.0.0/16"]
reason = "個人番号利用事務系には接続できません"

[[flow]]
id = "groupware-web"
to = { segment = "lgwan", hosts = ["10.12.10.0/24"] }
tcp = [80, 443]
icmp = true

[[flow]]
id = "time"
to = { segment = "lgwan", hosts = ["10.12.0.123/32"] }
udp = [123]

[[flow]]
id = "files"
to = { segment = "lgwan", hosts = ["10.12.30.0/24"] }
tcp = [445]
places = ["onprem"]

[[uplink]]
kind = "wired"
rank = 1

[vpn]
kill_switch = "always"
up_within = "20s"
dead_after = "3s"
retry = { first = "1s", max = "5s" }

[[vpn.gateway]]
name = "honcho-1"
kind = "wireguard"
address = "@GATEWAY@"
lan_address = "@GATEWAY_LAN@"
public_key = "@GATEWAY_KEY@"
uplinks = ["wired"]

[onprem]
uplinks = ["wired"]
# Generous: the test machines are slow and busy.
beacon = { address = "@BEACON@", spki_sha256 = "@BEACON_KEY@", round_trip = "1s" }
recheck = "5s"

[logging]
record = ["connection", "denied-flow", "policy"]

[[test]]
name = "庁外からグループウェアが見える"
from = { place = "remote", uplink = "wired" }
accept = ["tcp 10.12.10.5:80"]
deny = ["tcp 10.12.30.4:445", "tcp 198.51.100.80:443", "udp 198.51.100.53:53"]

[[test]]
name = "庁内では共有フォルダが使える"
from = { place = "onprem", uplink = "wired" }
accept = ["tcp 10.12.30.4:445"]
deny = ["tcp 10.99.0.1:443"]
"#;

#[cfg(test)]
mod tests {
    use sekisho_policy::{Clock, Floor, Trust, verify};

    use super::*;

    #[test]
    fn the_issued_policy_verifies_and_passes_its_own_tests() {
        let dir = tempfile::tempdir().unwrap();
        let papers = Papers::generate(dir.path()).unwrap();
        let files = papers.issue(dir.path()).unwrap();
        let trust = Trust::parse(&std::fs::read_to_string(&files.trust).unwrap()).unwrap();
        let policy = std::fs::read(&files.policy).unwrap();
        let signature = std::fs::read(&files.signature).unwrap();
        verify(
            &policy,
            &signature,
            &trust,
            &Clock::system(Floor::default()),
        )
        .unwrap();
    }
}
