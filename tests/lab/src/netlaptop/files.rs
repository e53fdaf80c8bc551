//! The files that a laptop begins with, and its programs.

use std::{
    fmt::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{NIC, PERSON, STAFF, Setup};
use crate::{LabError, Netns, address as at};

/// The user of the `IPsec` tunnel's engine.
const IKE_USER: u32 = 64_021;

const PROGRAMS: &[&str] = &[
    "sekisho-netdomain",
    "sekisho-supervisor",
    "sekisho-tapjoint",
];

/// The folder of the programs under test: beside the running test, where Cargo put them.
pub fn programs() -> Result<PathBuf, LabError> {
    let exe = std::env::current_exe().map_err(LabError::io("find the running program"))?;
    let folder = exe
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .unwrap_or(Path::new("."))
        .to_path_buf();
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|program| !folder.join(program).exists())
        .map(|&program| program.to_owned())
        .collect();
    if missing.is_empty() {
        Ok(folder)
    } else {
        Err(LabError::NotBuilt {
            programs: missing,
            folder,
        })
    }
}

/// The sections of the engines, and of who asks for the SIM.
pub(super) fn engines(setup: &Setup) -> Result<String, LabError> {
    let mut text = String::new();
    if setup.tls {
        text.push_str("[tls]\ncertificate = 'tls.pem'\nkey = 'tls.key'\n");
        let _ = writeln!(text, "user = '{}'\n", crate::papers::DEVICE);
    }
    if let Some(bus) = &setup.modem {
        let _ = write!(text, "[modem]\nbus = '{}'\n\n", bus.display());
    }
    if setup.ike {
        let _ = writeln!(
            text,
            "[users]\nike = {IKE_USER}\n\n[ike]\nauthorities = 'ike-authority.pem'\n\
             revoked = 'ike-revoked.pem'\ncertificate = 'tls.pem'\nesp = '{}'\n{}\n",
            crate::service::esp()?.word(),
            setup.ike_key.as_deref().unwrap_or("key = 'tls.key'")
        );
    }
    Ok(text)
}

pub(super) fn supervisor_config(
    programs: &Path,
    guest: &Netns,
    dot1x: bool,
    engines: &str,
) -> String {
    let dot1x = if dot1x { "dot1x = 'dot1x.toml'\n" } else { "" };
    let (programs, guest) = (programs.display(), guest.path());
    let guest = guest.display();
    format!(
        "programs = '{programs}'\npolicy = 'policy.toml'\nsignature = 'policy.toml.sig'\n\
         trust = 'trust.pem'\ndevice = 'device.toml'\nstate = 'state'\n\
         ports = ['{}', '{}']\n{dot1x}\n{engines}\
         [work]\nguest_channel = false\n\
         command = ['{programs}/sekisho-tapjoint', '--tap', '{NIC}', '--netns', '{guest}', \
         '--link', '{{link}}', '--control', '{{control}}']\n\n\
         # Tests kill in quick succession what a laptop loses once in years.\n\
         [restart]\nhealthy_after_ms = 1\n\n\
         [status]\nsocket = 'status'\ngroup = {STAFF}\nanswerers = [{PERSON}]\n",
        at::ETH0,
        at::ETH1
    )
}

/// What the guest's DHCP client runs, and its resolver's file.
pub(super) fn write_guest_files(dir: &Path) -> Result<(), LabError> {
    let failed = || LabError::io("write the guest's files");
    let resolver = dir.join("resolv.conf");
    std::fs::write(&resolver, "").map_err(failed())?;
    let script = dir.join("lease.sh");
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in bound|renew)\n\
         ip link set \"$interface\" mtu \"${{mtu:-1500}}\"\n\
         for other in $(ip -4 -o addr show dev \"$interface\" | awk '{{print $4}}'); do\n\
         [ \"$other\" = \"$ip/$mask\" ] || ip addr del \"$other\" dev \"$interface\"; done\n\
         ip addr replace \"$ip/$mask\" dev \"$interface\"\n\
         ip route replace default via \"${{router%% *}}\" dev \"$interface\"\n\
         for server in $dns; do echo \"nameserver $server\"; done > {}\n;; esac\n",
        resolver.display()
    );
    std::fs::write(&script, text).map_err(failed())?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).map_err(failed())
}
