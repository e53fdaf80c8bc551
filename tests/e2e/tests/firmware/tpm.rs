//! The work OS's TPM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, Start};
use sekisho_laptop::{Laptop, Running};

use crate::bench::*;

/// Other people's tools for a TPM, in a folder of their own in the work OS.
const TPM2: &str = "cd /tools && TPM2TOOLS_TCTI=device:/dev/tpmrm0 \
    ./ld-linux-x86-64.so.2 --library-path /tools ./tpm2";

/// Packs tpm2-tools with what they load into an archive that is a disk.
fn pack_tpm2(archive: &Path) {
    let program = Path::new("/usr/bin/tpm2");
    let loaded = Command::new("ldd").arg(program).output().expect("ldd");
    let loaded = String::from_utf8_lossy(&loaded.stdout).into_owned();
    let mut files: Vec<PathBuf> = loaded
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    let esys = files
        .iter()
        .find(|path| path.ends_with("libtss2-esys.so.0"));
    let esys = esys.expect("tpm2 is installed (Debian package tpm2-tools)");
    // What is loaded by its name alone.
    files.push(esys.with_file_name("libtss2-tcti-device.so.0"));
    files.push(program.to_owned());
    files.sort();
    files.dedup();
    let mut tar = Command::new("tar");
    tar.args([
        "--dereference",
        "--hard-dereference",
        "--absolute-names",
        "--create",
        "--file",
    ])
    .arg(archive);
    tar.args(["--transform", "s,.*/,,"]).args(files);
    assert!(tar.status().expect("tar").success());
}

/// Where swtpm keeps its state in the laptop.
const TPM: &str = "/tmp/tpm";

/// Starts swtpm in the laptop, and waits until it can be connected to.
fn start_swtpm(laptop: &Laptop) -> Running {
    let line = format!(
        "mkdir {TPM} && exec swtpm socket --tpm2 --seccomp action=kill --tpmstate dir={TPM} \
         --ctrl type=unixio,path={TPM}/control"
    );
    let swtpm = laptop.spawn(&["sh", "-c", &line]).expect("swtpm");
    let there = format!("until [ -S {TPM}/control ]; do sleep 0.1; done");
    laptop.run(&["sh", "-c", &there]).expect("swtpm");
    swtpm
}

/// What is sealed to the state in which the firmware starts the kernel is unsealed after a reboot, and
/// not in another state (the control). The TPM is swtpm's; the driver is Linux' own.
#[test]
fn linux_seals_to_the_tpm_and_unseals_after_a_reboot() {
    /// The firmware hashes what it starts, four times over.
    const MEASURED: Duration = Duration::from_mins(8);
    let bench = Bench::new();
    let tools = bench.laptop.folder().join("tools.tar");
    pack_tpm2(&tools);
    let _swtpm = start_swtpm(&bench.laptop);
    let variables = bench.variables("OVMF_VARS_4M.fd");
    let [kernel, initrd] =
        [&bench.image.kernel, &bench.image.initrd].map(|path| path.to_string_lossy().into_owned());
    let (disk, tpm, cmdline) = (
        format!("path={},readonly=on", tools.display()),
        format!("socket={TPM}/control"),
        bench.cmdline(),
    );
    let arguments = [
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        &cmdline,
        "--disk",
        &disk,
        "--tpm",
        &tpm,
    ];
    let unpack = "mkdir -p /tools && tar -x -f /dev/vda -C /tools";

    let began = Instant::now();
    let mut vmm = bench.start_machine(&variables, &arguments);
    vmm.wait_for(STARTED_BY_FIRMWARE, MEASURED)
        .expect("a kernel");
    let guest = bench.guest();
    println!("from the VMM's start to user space: {:?}", began.elapsed());
    let log = said(&guest, "dmesg");
    let about: Vec<&str> = log
        .lines()
        .filter(|line| line.to_lowercase().contains("tpm"))
        .collect();
    println!("{}", about.join("\n"));
    for complaint in [
        "ACPI Error",
        "ACPI BIOS Error",
        "[Firmware Bug]",
        "tpm tpm0: ",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }
    said(&guest, unpack);
    has_tools_and_a_log(&guest);

    let sealed = said(
        &guest,
        &format!(
            "{{ ({TPM2} createprimary -Q -C o -G ecc -c p) && \
             ({TPM2} createpolicy -Q --policy-pcr -l sha256:0,4,7 -L policy) && \
             (cd /tools && echo -n of-this-laptop > secret) && \
             ({TPM2} create -Q -C p -i secret -L policy -u pub -r priv); }} >&2 && \
             cd /tools && tar -c pub priv | base64"
        ),
    );
    let reset = ["sh", "-c", "reboot -f"].map(str::to_owned).to_vec();
    let _resetting = guest
        .spawn(Start {
            argv: reset,
            ..Start::default()
        })
        .expect("reset");
    assert_eq!(ended(&mut vmm), Some(RESET_STATUS));

    let _vmm = bench.start_machine(&variables, &arguments);
    guest.sync(MEASURED).expect("the work OS answers again");
    let unseal = format!("{TPM2} unseal -c s -p pcr:sha256:0,4,7");
    let unsealed = said(
        &guest,
        &format!(
            "({unpack} && cd /tools && base64 -d | tar -x) <<'END' && \
             {{ ({TPM2} createprimary -Q -C o -G ecc -c p) && \
             ({TPM2} load -Q -C p -u pub -r priv -c s); }} >&2 && {unseal}\n{sealed}\nEND\n"
        ),
    );
    assert_eq!(unsealed, "of-this-laptop");
    let digest = "11".repeat(32);
    let extend = format!("{TPM2} pcrextend 7:sha256={digest}");
    said(&guest, &extend);
    let refused = guest.run(&["sh", "-c", &unseal], SOON).expect("run");
    println!("{}", refused.said());
    assert!(!refused.status.success(), "in another state");
}

/// Other people's tools find a TPM 2.0, and what the firmware measured came to the kernel.
fn has_tools_and_a_log(guest: &ExecClient) {
    let properties = said(guest, &format!("{TPM2} getcap properties-fixed"));
    assert!(
        properties.contains("\"2.0\"") && properties.contains("\"IBM\""),
        "{properties}"
    );
    // The firmware has measured, and its log came to the kernel.
    let log = said(
        guest,
        "mount -t securityfs securityfs /sys/kernel/security && \
         wc -c < /sys/kernel/security/tpm0/binary_bios_measurements",
    );
    assert!(log.trim().parse::<u32>().expect("a length") > 1000, "{log}");
}
