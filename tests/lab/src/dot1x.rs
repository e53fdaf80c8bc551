//! 802.1X on the office's wall: papers, and stock `hostapd` as the switch's authenticator with its own
//! EAP server.
//!
//! The port is one of the office's bridge, locked (`bridge link set … locked on`): frames pass only
//! from addresses that hostapd has authenticated, and EAPOL goes to nobody but hostapd.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::{Lab, LabError, Process, Wall, papers::hex};

/// Name of the authentication server.
pub const SERVER: &str = "radius.mihon-city.example";
/// Whom the laptop says that it is.
pub const IDENTITY: &str = "mihon-0001@mihon-city.example";
const SOON: Duration = Duration::from_secs(10);

/// An authority, and what it issued to a server and to a laptop. All in PEM.
#[derive(Debug, Clone)]
pub struct Dot1xPapers {
    /// Certificate of the authority.
    pub authority: String,
    /// SHA-256 of it (DER), in hex: what the policy pins.
    pub authority_sha256: String,
    /// Certificate and key of the server.
    pub server: (String, String),
    /// And of the laptop.
    pub laptop: (String, String),
}

impl Dot1xPapers {
    /// Fresh ones, for a server of this name.
    pub fn generate(server: &str) -> Result<Self, LabError> {
        let failed = |error: rcgen::Error| LabError::Papers {
            what: error.to_string(),
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "Mihon City ports");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?)
            .map_err(failed)?;
        let issue = |name: &str, usage| {
            let key = KeyPair::generate().map_err(failed)?;
            let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &authority).map_err(failed)?;
            Ok((certificate.pem(), key.serialize_pem()))
        };
        Ok(Self {
            authority_sha256: hex(&Sha256::digest(authority.der())),
            server: issue(server, ExtendedKeyUsagePurpose::ServerAuth)?,
            laptop: issue("mihon-0001", ExtendedKeyUsagePurpose::ClientAuth)?,
            authority: authority.pem(),
        })
    }

    /// A policy that demands 802.1X with the server of these papers.
    pub fn demand(&self, policy: &str) -> String {
        let lines = format!(
            "[onprem]\ndot1x = \"eap-tls\"\nradius = {{ name = \"{SERVER}\", ca_sha256 = \"{}\" }}\n",
            self.authority_sha256
        );
        policy.replacen("[onprem]\n", &lines, 1)
    }

    /// Writes the laptop's files to `dir`: `dot1x.toml` and what it names.
    pub fn issue(&self, dir: &Path) -> Result<(), LabError> {
        let table = format!(
            "identity = \"{IDENTITY}\"\nauthority = \"dot1x-ca.pem\"\ncertificate = \"dot1x.pem\"\n\
             key = \"dot1x.key\"\n"
        );
        for (name, text) in [
            ("dot1x.toml", &table),
            ("dot1x-ca.pem", &self.authority),
            ("dot1x.pem", &self.laptop.0),
            ("dot1x.key", &self.laptop.1),
        ] {
            std::fs::write(dir.join(name), text)
                .map_err(LabError::io("write the papers for 802.1X"))?;
        }
        Ok(())
    }
}

/// The address that authenticators and supplicants speak to (IEEE 802.1X-2020, 11.1.1): a switch does
/// not pass it on.
const PAE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 3];

/// A frame of EAPOL (version 2) with an EAP packet in it, as an authenticator sends it.
pub fn eap_frame(from: [u8; 6], eap: &[u8]) -> Vec<u8> {
    let length = u16::try_from(eap.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&PAE_GROUP[..], &from, &[0x88, 0x8e, 2, 0], &length, eap].concat()
}

/// A port of the office's switch that is open to authenticated addresses only.
#[derive(Debug)]
pub struct Authenticator<'l> {
    lab: &'l Lab,
    port: String,
    hostapd: Process,
    _opener: Process,
}

impl<'l> Authenticator<'l> {
    /// Plugs the laptop's cable into a port of the office with these papers behind it.
    pub fn plug(
        lab: &'l Lab,
        interface: &'static str,
        papers: &Dot1xPapers,
    ) -> Result<Self, LabError> {
        lab.note(interface, Some(Wall::Office))?;
        Self::guard(lab, interface, papers)
    }

    /// Makes any interface of the walls such a port.
    pub fn guard(lab: &'l Lab, port: &str, papers: &Dot1xPapers) -> Result<Self, LabError> {
        for command in [
            format!("ip link set {port} master {}", Wall::Office.switch()),
            format!("bridge link set dev {port} learning off locked on"),
            format!("ip link set {port} up"),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            lab.run("walls", &words)?.ok()?;
        }
        let dir = lab.dir().join(format!("switch-{port}"));
        std::fs::create_dir_all(&dir).map_err(LabError::io("make the switch's folder"))?;
        let at = dir.display();
        let config = format!(
            "interface={port}\ndriver=wired\nlogger_stdout=-1\nlogger_stdout_level=1\n\
             ctrl_interface={at}/control\nieee8021x=1\neap_reauth_period=0\nuse_pae_group_addr=1\n\
             eap_server=1\neap_user_file={at}/users\nca_cert={at}/ca.pem\n\
             server_cert={at}/server.pem\nprivate_key={at}/server.key\n"
        );
        // The name that a laptop gives itself opens nothing: its certificate does.
        let opener = "#!/bin/sh\ncase \"$2\" in\n\
             AP-STA-CONNECTED) bridge fdb replace \"$3\" dev \"$1\" master static ;;\n\
             AP-STA-DISCONNECTED) bridge fdb del \"$3\" dev \"$1\" master static ;;\n\
             esac\necho \"$2\" \"$3\"\n";
        for (name, text) in [
            ("hostapd.conf", &*config),
            ("users", "*\tTLS\n"),
            ("ca.pem", &*papers.authority),
            ("server.pem", &*papers.server.0),
            ("server.key", &*papers.server.1),
            ("opener.sh", opener),
        ] {
            std::fs::write(dir.join(name), text)
                .map_err(LabError::io("write the switch's files"))?;
        }
        let script = dir.join("opener.sh");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(LabError::io("write the switch's files"))?;
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (config, control, script) = (path("hostapd.conf"), path("control"), path("opener.sh"));
        let hostapd = lab.spawn(
            "walls",
            &format!("hostapd-{port}"),
            &["hostapd", "-t", &config],
        )?;
        hostapd.wait_line("AP-ENABLED", SOON)?;
        let opener = lab.spawn(
            "walls",
            &format!("opener-{port}"),
            &["hostapd_cli", "-p", &control, "-i", port, "-a", &script],
        )?;
        Ok(Self {
            lab,
            port: port.to_owned(),
            hostapd,
            _opener: opener,
        })
    }

    /// What hostapd says.
    pub fn log(&self) -> &Process {
        &self.hostapd
    }

    /// Tells hostapd something (`hostapd_cli`).
    pub fn tell(&self, words: &[&str]) -> Result<String, LabError> {
        let control = self.lab.dir().join(format!("switch-{}/control", self.port));
        let control = control.to_string_lossy();
        let command = [&["hostapd_cli", "-p", &control, "-i", &self.port], words].concat();
        Ok(self.lab.run("walls", &command)?.ok()?.stdout)
    }

    /// The switch loses its power; its port stays as it was.
    pub fn off(mut self) -> Result<(), LabError> {
        self.hostapd
            .stop(Signal::KILL, SOON)
            .map_err(LabError::io("stop hostapd"))
    }
}
