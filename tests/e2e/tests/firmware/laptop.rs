//! What of the laptop the work OS sees: battery, mains adapter, lid, no sleep of its own, and nothing of the
//! laptop's but that time has passed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sekisho_laptop::exec::ExecClient;
use sekisho_laptop::{GuestImage, Running, build};

use crate::bench::*;

const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;

/// A host that a person uses: what its kernel would say.
struct Host<'a>(&'a Path);

impl Host<'_> {
    fn put(&self, supply: &str, text: &str) {
        let folder = self.0.join(supply);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("uevent"), text).expect("uevent");
    }

    fn mains(&self, online: u8) {
        let text = format!("POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE={online}\n");
        self.put("AC", &text);
    }

    fn battery(&self, status: &str, milliwatt_hours: u32) {
        let text = format!(
            "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS={status}\nPOWER_SUPPLY_PRESENT=1\n\
             POWER_SUPPLY_CYCLE_COUNT=42\nPOWER_SUPPLY_VOLTAGE_MIN_DESIGN=11520000\n\
             POWER_SUPPLY_VOLTAGE_NOW=11934000\nPOWER_SUPPLY_POWER_NOW=6921000\n\
             POWER_SUPPLY_ENERGY_FULL_DESIGN=50450000\nPOWER_SUPPLY_ENERGY_FULL=47310000\n\
             POWER_SUPPLY_ENERGY_NOW={milliwatt_hours}000\n"
        );
        self.put("BAT0", &text);
    }

    fn lid(&self, word: &str) {
        fs::write(self.0.join("lid"), format!("state:      {word}\n")).expect("lid");
    }
}

fn property(guest: &ExecClient, path: &str) -> String {
    let path = format!("cat /sys/class/power_supply/{path}");
    said(guest, &path).trim().to_owned()
}

/// While the host says that it sleeps, a guest that writes down the time again and again writes nothing;
/// afterwards its clock is as right as it was.
fn stands_still_and_knows_the_time(bench: &Bench, vmm: &mut Running, guest: &ExecClient) {
    const ASLEEP: Duration = Duration::from_secs(6);
    // How far the guest's clock is behind the laptop's, with the time that asking takes.
    let behind = || {
        let laptop = || {
            let now = bench.laptop.run(&["date", "+%s.%N"]).expect("date");
            now.text().trim().parse::<f64>().expect("seconds")
        };
        let (before, theirs, after) = (laptop(), said(guest, "date +%s"), laptop());
        let theirs: f64 = theirs.trim().parse().expect("seconds");
        println!("{before} {theirs} {after}");
        f64::midpoint(before, after) - theirs
    };
    let first = behind();
    said(
        guest,
        "(while [ ! -e /tmp/enough ]; do cut -d' ' -f1 /proc/uptime; sleep 0.2; done > /tmp/ticks) \
         > /dev/null 2>&1 &",
    );
    said(guest, "until [ -s /tmp/ticks ]; do sleep 0.1; done");
    vmm.signal(SIGUSR1).expect("suspend");
    vmm.wait_for("stands still", SOON).expect("it stands still");
    let quiet = guest.run(&["true"], ASLEEP);
    assert!(quiet.is_err(), "it answers");
    vmm.signal(SIGUSR2).expect("resume");
    vmm.wait_for("goes on", SOON).expect("it goes on");
    guest.sync(SOON).expect("it answers again");
    said(guest, "sleep 1; touch /tmp/enough");
    let ticks = said(guest, "cat /tmp/ticks");
    let ticks: Vec<f64> = ticks.lines().filter_map(|line| line.parse().ok()).collect();
    let gaps = ticks.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.fold(0.0, f64::max);
    let last = behind();
    println!("longest gap {longest} s; behind by {first} s, then by {last} s");
    assert!(longest >= ASLEEP.as_secs_f64(), "it ran, or lost the time");
    assert!((first - last).abs() < 2.5, "the wall clock is wrong");
}

/// Stock drivers of a stock kernel show the host's values, and hear of the plug and of the lid by the events
/// that the board raises; none finds fault with the tables.
#[test]
fn linux_shows_the_hosts_battery_and_hears_of_plug_and_lid() {
    let mut bench = Bench::new();
    let image = GuestImage::build_with_drivers(
        &build::target_dir().join("work-os"),
        &["battery", "ac"],
        &[],
    )
    .expect("image");
    bench.image = GuestImage {
        kernel: image.vmlinux.clone(),
        ..image
    };
    let folder = bench.laptop.folder().join("host");
    fs::create_dir_all(&folder).expect("folder");
    let host = Host(&folder);
    host.mains(1);
    host.battery("Charging", 31_060);
    host.lid("open");
    let laptop = format!(
        "supplies={},lid={}",
        folder.display(),
        folder.join("lid").display()
    );
    let began = Instant::now();
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("stage/sleep_hook.py");
    let hook = ["python3", &*hook.to_string_lossy()];
    let mut vmm = bench.start_directly_under(&hook, &["--laptop", &laptop]);
    let guest = bench.guest();
    println!("to user space: {:?}", began.elapsed());

    for (name, value) in [
        ("ADP1/online", "1"),
        ("BAT0/status", "Charging"),
        ("BAT0/energy_now", "31060000"),
        ("BAT0/energy_full", "47310000"),
        ("BAT0/energy_full_design", "50450000"),
        ("BAT0/voltage_now", "11934000"),
        ("BAT0/voltage_min_design", "11520000"),
        ("BAT0/power_now", "6921000"),
        ("BAT0/cycle_count", "42"),
        ("BAT0/technology", "Li-ion"),
        // Not whose they are.
        ("BAT0/serial_number", ""),
        ("BAT0/model_name", "Sekisho"),
    ] {
        assert_eq!(property(&guest, name), value, "{name}");
    }
    // Whoever listens to the lid is told: a switch of an input device, which is 24 bytes.
    said(
        &guest,
        "for at in /sys/class/input/event*; do \
         [ \"$(cat $at/device/name)\" = 'Lid Switch' ] && lid=/dev/input/${at##*/}; done; \
         (dd if=$lid bs=24 count=1 of=/tmp/lid 2>/dev/null; mv /tmp/lid /tmp/lid-moved) \
         > /dev/null 2>&1 &",
    );
    let state = "cat /proc/acpi/button/lid/LID0/state";
    assert!(said(&guest, state).contains("open"));

    host.mains(0);
    host.battery("Discharging", 30_000);
    host.lid("closed");
    let told = "until [ $(cat /sys/firmware/acpi/interrupts/gpe01 | awk '{print $1}') -gt 0 ] && \
                [ -e /tmp/lid-moved ]; do sleep 0.2; done";
    let heard = guest
        .run(&["sh", "-c", told], Duration::from_secs(30))
        .expect("run");
    assert!(heard.status.success(), "{}", heard.said());
    assert_eq!(property(&guest, "ADP1/online"), "0");
    assert_eq!(property(&guest, "BAT0/status"), "Discharging");
    assert_eq!(property(&guest, "BAT0/energy_now"), "30000000");
    assert!(said(&guest, state).contains("closed"));
    // EV_SW, SW_LID, closed.
    let event = said(&guest, "od -An -tu2 -j16 -N8 /tmp/lid-moved");
    let event: Vec<&str> = event.split_whitespace().collect();
    assert_eq!(event, ["5", "0", "1", "0"]);

    stands_still_and_knows_the_time(&bench, &mut vmm, &guest);
    let log = said(&guest, "dmesg");
    let acpi: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["ACPI", "input:", "stall", "unstable"]
                .iter()
                .any(|it| line.contains(it))
        })
        .collect();
    println!("{}", acpi.join("\n"));
    assert!(log.contains("ACPI: PM: (supports S0 S5)"), "{log}");
    for complaint in [
        "ACPI Error",
        "ACPI BIOS Error",
        "ACPI Warning",
        "ACPI BIOS Warning",
        "ACPI Exception",
        "[Firmware Bug]",
        "[Firmware Warn]",
        "soft lockup",
    ] {
        let found = log.lines().find(|line| line.contains(complaint));
        assert_eq!(found, None, "{complaint}");
    }
}
