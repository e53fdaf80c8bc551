//! A work OS that a person installed: to its login, on the screen.

use std::time::{Duration, Instant};

use sekisho_laptop::{Cache, InstalledDebian, build};

use crate::bench::*;

#[test]
fn an_installed_debian_starts_to_its_login() {
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.ms.fd");
    let disk = bench.laptop.folder().join("debian.img");
    let cache = Cache::open().expect("cache");
    let began = Instant::now();
    let debian = InstalledDebian::fetch(&cache).expect("installed");
    println!("installed: {:?}", began.elapsed());
    debian.copy(&disk).expect("copy");
    println!("copied: {:?}", began.elapsed());
    let disk = format!("path={},device=nvme", disk.display());
    let began = Instant::now();
    let view = "/tmp/view";
    let screen = format!("mode=1024x768,view={view}");
    let mut vmm = bench.start_machine(
        &variables,
        &["--disk", &disk, "--memory", "1G", "--display", &screen],
    );
    let program = build::target_dir().join("debug/sekisho-vmm");
    for turn in 0..14 {
        let said = vmm.wait_for("never said", Duration::from_secs(15));
        println!("{turn}: {said:?}");
        let shot = bench.laptop.folder().join(format!("shot-{turn}.png"));
        let taken = bench.laptop.run(&[
            &program.to_string_lossy(),
            "screenshot",
            "--socket",
            view,
            &shot.to_string_lossy(),
        ]);
        println!("{:?}", taken.map(|taken| taken.said()));
    }
    let guest = bench.guest();
    println!("to the first command: {:?}", began.elapsed());
    println!(
        "{}",
        said(
            &guest,
            "mokutil --sb-state; systemctl --failed; systemd-analyze; systemd-analyze blame | head -30; free -m; dmesg | tail -50"
        )
    );
    println!(
        "{}",
        said(
            &guest,
            "loginctl; cat /var/log/lightdm/*; cat /var/log/Xorg.0.log"
        )
    );
}
