//! Killed VMMs and pulled power, at moments that chance chooses, while a work OS writes to each kind of
//! disk and the firmware's variables change: what was answered for is there afterwards, no image is
//! damaged, and the firmware finds its variables.
//!
//! The laptop's disk has a cache that loses any part of what was not flushed ([`VolatileDisk`]); on it lie
//! the images and the variables. A pulled power ends QEMU, so that all else of the laptop is lost too.
//!
//! Three cuts by default; `SEKISHO_CUTS` says how many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, Said, Start};
use sekisho_laptop::{Cache, GuestImage, Laptop, Options, Running, VolatileDisk, build, debian};

const CUTS: usize = 3;
/// Firmware takes its time under emulation.
const BOOT: Duration = Duration::from_mins(8);
const SOON: Duration = Duration::from_mins(3);
/// The longest time from the first flush to the cut.
const MOST: u64 = 6000;
const TEST_PORT: &str = "jp.sekisho.test.0";
/// Bytes of each of the guest's disks, which its program uses all over.
const SIZE: u64 = 32 << 20;
/// Bytes of the laptop's disk.
const LAPTOP_DISK: u64 = 256 << 20;
/// Under the name space of a kernel's crash logs: of others the kernel (6.1) makes what exists unchangeable.
const VARIABLE: &str = "/sys/firmware/efi/efivars/SekishoCut-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0";

/// An image on the laptop's disk.
struct Disk {
    file: &'static str,
    format: &'static str,
    options: &'static str,
    /// Its number among the disks of its kind, in the guest.
    guest: &'static str,
}

const DISKS: [Disk; 4] = [
    Disk {
        file: "raw-nvme.img",
        format: "raw",
        options: "path=/disk/raw-nvme.img,device=nvme",
        guest: "$(nvme 0)",
    },
    Disk {
        file: "raw-virtio.img",
        format: "raw",
        options: "path=/disk/raw-virtio.img",
        guest: "/dev/vda",
    },
    Disk {
        file: "alone.qcow2",
        format: "qcow2",
        options: "path=/disk/alone.qcow2,format=qcow2",
        guest: "/dev/vdb",
    },
    Disk {
        file: "overlay.qcow2",
        format: "qcow2",
        options: "path=/disk/base.img,overlay=/disk/overlay.qcow2,device=nvme",
        guest: "$(nvme 3)",
    },
];

/// The NVMe disk that is the machine's disk of this number, once its driver has found it.
const NVME: &str = "nvme() { while :; do for disk in /sys/block/nvme*; do \
                    set -- $1 $(cat $disk/device/serial 2> /dev/null); \
                    [ \"$2\" = sekisho-$1 ] && echo /dev/${disk##*/} && return; \
                    done; sleep 0.2; done; }; ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Kill,
    Pull,
}

/// Numbers that differ from run to run; the seed is printed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }
}

/// What outlives the laptop's power, and what its work OS was answered.
struct Bench {
    disk: VolatileDisk,
    image: GuestImage,
    writer: PathBuf,
    ovmf: PathBuf,
    /// Of each disk, RUN:COUNT.
    flushed: [Vec<String>; DISKS.len()],
    /// The last value of the variable that was kept, and the last one that was tried.
    variable: (u32, u32),
    leaked: usize,
}

/// A laptop that is on, and the way to its work OS.
struct On {
    laptop: Laptop,
    guest: ExecClient,
    booted: bool,
}

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let writer = build::static_program("sekisho-e2e", "guest-writer", &[]).expect("writer");
        let image = GuestImage::build_with(&build::target_dir().join("cuts-os"), &[&writer]);
        let cache = Cache::open().expect("cache");
        let ovmf = cache.folder("ovmf", |folder| debian::unpack("ovmf", folder));
        let ovmf = ovmf.expect("ovmf").join("usr/share/OVMF");
        let tree = folder.join("tree");
        fs::create_dir(&tree).expect("tree");
        for raw in ["raw-nvme.img", "raw-virtio.img", "base.img"] {
            let file = fs::File::create(tree.join(raw)).expect(raw);
            file.set_len(SIZE).expect(raw);
        }
        let alone = tree.join("alone.qcow2");
        // Small clusters: many tables.
        let options = "cluster_size=4096";
        let (alone, size) = (alone.to_string_lossy(), SIZE.to_string());
        tool(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", options, &alone, &size],
        );
        fs::copy(ovmf.join("OVMF_VARS_4M.fd"), tree.join("vars.fd")).expect("variables");
        let content = folder.join("disk.img");
        let file = fs::File::create(&content).expect("disk");
        file.set_len(LAPTOP_DISK).expect("disk");
        let (tree, content) = (tree.to_string_lossy(), content.to_string_lossy());
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", &tree, &content]);
        let content = fs::read(&*content).expect("disk");
        Self {
            disk: VolatileDisk::new(content, &folder.join("socket")).expect("disk"),
            image: image.expect("image"),
            writer,
            ovmf,
            flushed: Default::default(),
            variable: (0, 0),
            leaked: 0,
        }
    }

    fn power_on(&self) -> On {
        let laptop = Laptop::start(Options {
            cr8_workaround: true,
            ports: vec![TEST_PORT.to_owned()],
            disk: Some(self.disk.clone()),
            ..Options::default()
        })
        .expect("laptop");
        let port = laptop.port(TEST_PORT).expect("port");
        let guest = ExecClient::new(port).expect("client");
        let on = On {
            laptop,
            guest,
            booted: false,
        };
        on.does("modprobe virtio_blk && mkdir /disk && mount -t ext4 /dev/vda /disk");
        // The kernel writes early and unasked, so that the disk's cache has something to lose.
        on.does("cd /proc/sys/vm && echo 10 > dirty_writeback_centisecs && echo 10 > dirty_expire_centisecs");
        on
    }

    /// Starts the work OS, by firmware or directly.
    fn start(&self, on: &mut On, firmware: bool) -> Running {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let vmm = build::target_dir().join("debug/sekisho-vmm");
        let console = format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}");
        let code = self.ovmf.join("OVMF_CODE_4M.fd");
        let code = format!("code={},vars=/disk/vars.fd", code.display());
        let mut line = vec![path(&vmm), "run".to_owned()];
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("--console", console);
        option("--serial", "stdio".to_owned());
        option("--cmdline", self.image.cmdline.clone());
        option("--initrd", path(&self.image.initrd));
        if firmware {
            option("--firmware", code);
            option("--kernel", path(&self.image.kernel));
        } else {
            option("--kernel", path(&self.image.vmlinux));
        }
        for disk in &DISKS {
            option("--disk", disk.options.to_owned());
        }
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let vmm = on.laptop.spawn(&line).expect("VMM");
        if std::mem::replace(&mut on.booted, true) {
            on.guest.sync(BOOT).expect("the work OS answers again");
        } else {
            on.guest.hello(BOOT).expect("the work OS answers");
        }
        vmm
    }

    /// The firmware's variable is the last one that was kept, or the one after it, which the cut met.
    fn look_at_variable(&self, on: &On) {
        let script = format!(
            "mount -t efivarfs efivarfs /sys/firmware/efi/efivars && \
             if [ -e {VARIABLE} ]; then tail -c 8 {VARIABLE}; else echo 0; fi"
        );
        let found = on.inside(&script);
        let found: u32 = found.trim().parse().expect("a number");
        let (kept, tried) = self.variable;
        println!("the variable holds {found}; {kept} was kept, {tried} tried");
        assert!(
            (kept..=tried).contains(&found),
            "{found}, not {kept} to {tried}"
        );
    }

    /// Lets the work OS write until the cut, and takes note of what it is answered.
    fn write(&mut self, on: &On, run: usize, variables: bool, time: Duration) {
        let places = DISKS.map(|disk| disk.guest).join(" ");
        let script = format!("{NVME} exec guest-writer write {run} {places}");
        let mut writer = on.spawn(&script);
        let mut setter = variables.then(|| {
            let first = self.variable.1 + 1;
            on.spawn(&format!(
                "n={first}; while :; do echo {run} try $n; \
                 printf '\\007\\000\\000\\000%08d' $n > {VARIABLE} && echo {run} kept $n; sleep 0.5; n=$((n+1)); done"
            ))
        });
        let mut counts = [0; DISKS.len()];
        let began = Instant::now();
        let mut until = None;
        let (mut lines, mut variable_lines) = (String::new(), String::new());
        while until.is_none_or(|until| Instant::now() < until) {
            take(&mut writer, &mut lines);
            if let Some(setter) = &mut setter {
                take(setter, &mut variable_lines);
            }
            let whole = lines.rfind('\n').map_or(0, |end| end + 1);
            for line in lines.drain(..whole).collect::<String>().lines() {
                let words = line.split_once(' ');
                let parsed =
                    words.and_then(|(disk, count)| Some((disk.parse().ok()?, count.parse().ok()?)));
                let (disk, count): (usize, u64) = parsed.unwrap_or_else(|| panic!("{line}"));
                counts[disk] = count;
            }
            let whole = variable_lines.rfind('\n').map_or(0, |end| end + 1);
            for line in variable_lines.drain(..whole).collect::<String>().lines() {
                let number = line
                    .split(' ')
                    .next_back()
                    .and_then(|word| word.parse().ok());
                let number = number.unwrap_or_else(|| panic!("{line}"));
                if line.contains("kept") {
                    self.variable.0 = number;
                }
                self.variable.1 = number;
            }
            let all = counts.iter().all(|count| *count > 0);
            if all && until.is_none() {
                until = Some(Instant::now() + time);
            }
            assert!(began.elapsed() < SOON, "{counts:?}");
        }
        // What it has tried since is not known yet.
        self.variable.1 += 1000 * u32::from(variables);
        println!("flushed {counts:?}, variable {:?}", self.variable.0);
        for (flushed, count) in self.flushed.iter_mut().zip(counts) {
            flushed.push(format!("{run}:{count}"));
        }
    }

    /// What was flushed is in each image, and `qemu-img` finds no image damaged.
    fn verify(&mut self, on: &On) {
        let writer = self.writer.display().to_string();
        for (disk, flushed) in DISKS.iter().zip(&self.flushed) {
            let mut file = format!("/disk/{}", disk.file);
            if disk.format == "qcow2" {
                let check = ["qemu-img", "check", "-f", "qcow2", &file];
                let checked = on.laptop.run_within(&check, SOON).expect("qemu-img");
                match checked.status.code {
                    Some(0) => {}
                    Some(3) => self.leaked += 1,
                    _ => panic!("{file}: {}", checked.said()),
                }
                on.does(&format!("qemu-img convert -O raw {file} /tmp/raw"));
                "/tmp/raw".clone_into(&mut file);
            }
            let runs = flushed.join(" ");
            println!(
                "{}: {}",
                disk.file,
                on.does(&format!("{writer} verify {file} {runs}")).trim()
            );
            // The control: a flush that was answered and did nothing would be found.
            let control = format!("! {writer} verify {file} {runs} 4000000:1 2> /dev/null");
            on.does(&control);
        }
    }
}

impl On {
    /// Runs a script in the laptop, which has to succeed.
    fn does(&self, script: &str) -> String {
        let output = self
            .laptop
            .run_within(&["sh", "-c", script], SOON)
            .expect("run");
        assert!(output.status.success(), "{script}: {}", output.said());
        output.text()
    }

    /// Runs a script in the work OS, which has to succeed.
    fn inside(&self, script: &str) -> String {
        let output = self.guest.run(&["sh", "-c", script], SOON).expect("run");
        assert!(output.status.success(), "{script}: {}", output.said());
        output.text()
    }

    fn spawn(&self, script: &str) -> Running {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let start = Start {
            argv,
            ..Start::default()
        };
        self.guest.spawn(start).expect("started")
    }
}

/// Takes what a program has said, for a moment.
fn take(running: &mut Running, lines: &mut String) {
    match running
        .next(Duration::from_millis(20))
        .expect("the work OS")
    {
        Some(Said::Stdout(bytes)) => lines.push_str(&String::from_utf8_lossy(&bytes)),
        Some(Said::Stderr(bytes)) => {
            let more = running.next(Duration::from_secs(1));
            panic!("{} {more:?}", String::from_utf8_lossy(&bytes))
        }
        Some(Said::Ended(status)) => panic!("it ended: {status}"),
        None => {}
    }
}

#[test]
fn killed_vmms_and_pulled_power_lose_nothing_that_was_flushed() {
    let asked = std::env::var("SEKISHO_CUTS").ok();
    let cuts = asked.map_or(CUTS, |cuts| cuts.parse().expect("SEKISHO_CUTS"));
    let seed = getrandom::u64().expect("chance") | 1;
    println!("{cuts} cuts, seed {seed:#x}");
    let mut chance = Chance(seed);
    let folder = build::target_dir().join(format!("cuts-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    let mut bench = Bench::new(&folder);
    let began = Instant::now();
    let mut on = bench.power_on();
    for run in 0..cuts {
        // In turn, so that few cuts have each of them.
        let firmware = matches!(run % 4, 1 | 2);
        let cut = if run % 2 == 0 { Cut::Pull } else { Cut::Kill };
        let vmm = bench.start(&mut on, firmware);
        println!(
            "run {run}: {cut:?}, firmware {firmware}; {:?}",
            began.elapsed()
        );
        if firmware {
            bench.look_at_variable(&on);
        }
        let time = Duration::from_millis(chance.below(MOST));
        bench.write(&on, run, firmware, time);
        match cut {
            Cut::Kill => {
                vmm.signal(9).expect("killed");
                on.does("while pidof sekisho-vmm > /dev/null; do sleep 0.1; done");
            }
            Cut::Pull => {
                // The laptop first: its end is the VMM's.
                drop(on);
                drop(vmm);
                // Of what was not flushed none stays, or all, or anything between.
                let share = chance.below(5);
                let (loose, stayed) = bench.disk.cut(|| chance.below(4) < share);
                println!("{stayed} of {loose} sectors that were not flushed stay");
                on = bench.power_on();
            }
        }
        bench.verify(&on);
    }
    println!(
        "{} checks of images found clusters that leaked",
        bench.leaked
    );
    drop(on);
    let _ = fs::remove_dir_all(folder);
}
