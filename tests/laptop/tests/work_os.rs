//! The work OS boots on a board that is not ours (QEMU's, emulated), serves commands, takes an
//! address by DHCP, runs the agent, and switches itself off when the power button is pressed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sekisho_laptop::GuestImage;
use sekisho_laptop::exec::ExecClient;

/// Under emulation beside builds.
const BOOT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);

struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A socket that QEMU will connect to.
struct Socket(UnixListener);

impl Socket {
    fn new(folder: &Path, name: &str) -> Self {
        Self(UnixListener::bind(folder.join(name)).expect("socket"))
    }

    fn accept(self) -> UnixStream {
        let (accepted, accepting) = mpsc::channel();
        std::thread::spawn(move || accepted.send(self.0.accept().map(|(stream, _)| stream)));
        accepting
            .recv_timeout(SOON)
            .expect("QEMU started")
            .expect("accepted")
    }
}

fn start(image: &GuestImage, folder: &Path) -> Qemu {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "EPYC",
        "-machine",
        "q35",
        "-m",
        "512",
    ]);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-smp",
        "2",
    ]);
    qemu.arg("-kernel")
        .arg(&image.vmlinux)
        .arg("-initrd")
        .arg(&image.initrd);
    qemu.args(["-append", &image.cmdline]);
    let console = folder.join("console.log");
    qemu.args(["-serial", &format!("file:{}", console.display())]);
    qemu.args([
        "-device",
        "virtio-serial-pci",
        "-mon",
        "chardev=qmp,mode=control",
    ]);
    for name in ["test", "agent", "qmp"] {
        let path = folder.join(name);
        qemu.args([
            "-chardev",
            &format!("socket,id={name},path={}", path.display()),
        ]);
        if name != "qmp" {
            let port = format!("virtserialport,chardev={name},name=jp.sekisho.{name}.0");
            qemu.args(["-device", &port]);
        }
    }
    // QEMU's own DHCP server; with `restrict` nothing else is reachable.
    qemu.args(["-netdev", "user,id=net,restrict=on"]);
    qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    qemu.stdin(Stdio::null()).stderr(Stdio::null());
    Qemu(qemu.spawn().expect("QEMU"))
}

#[test]
fn it_boots_serves_and_switches_off() {
    let folder = tempfile::tempdir().expect("folder");
    let image = GuestImage::build(folder.path()).expect("image");
    let [test, agent, qmp] = ["test", "agent", "qmp"].map(|name| Socket::new(folder.path(), name));

    let started = Instant::now();
    let mut qemu = start(&image, folder.path());
    let [test, mut agent, qmp] = [test, agent, qmp].map(Socket::accept);
    let work = ExecClient::new(test).expect("client");
    let console = || std::fs::read_to_string(folder.path().join("console.log")).unwrap_or_default();
    let uptime = work
        .hello(BOOT)
        .unwrap_or_else(|error| panic!("{error}\n{}", console()));
    println!(
        "the work OS answers after {:?}, {uptime:?} of its own",
        started.elapsed()
    );

    let has_lease = "until [ -s /run/lease ]; do sleep 0.1; done; cat /run/lease";
    let lease = work.run(&["sh", "-c", has_lease], SOON).expect("run");
    println!("address after {:?}", started.elapsed());
    assert_eq!(lease.text().trim(), "bound 10.0.2.15", "{}", lease.said());

    // That server offers neither MTU nor router nor resolver here; a renewal with all of them.
    let renewal = "interface=eth0 ip=10.0.2.15 mask=24 mtu=1420 router=10.0.2.2 \
        dns='10.0.2.3 10.0.2.4' domain=lgwan.example /etc/udhcpc.script renew; \
        ip -4 address show eth0; ip route; cat /etc/resolv.conf";
    let after = work.run(&["sh", "-c", renewal], SOON).expect("run").text();
    for expected in [
        "mtu 1420",
        "inet 10.0.2.15/24",
        "default via 10.0.2.2",
        "nameserver 10.0.2.4",
        "search lgwan",
    ] {
        assert!(
            after.contains(expected),
            "{expected} is missing in: {after}"
        );
    }

    // Modules for a disk and the button came beside the start.
    let modules = work.run(&["lsmod"], SOON).expect("run").text();
    assert!(
        modules.contains("virtio_blk") && modules.contains("button"),
        "{modules}"
    );

    // The agent says hello on its own port.
    agent.set_read_timeout(Some(SOON)).expect("timeout");
    let mut hello = vec![0; 4096];
    let length = agent.read(&mut hello).expect("hello");
    assert!(String::from_utf8_lossy(&hello[..length]).contains(r#""say":"hello""#));

    let mut answers = BufReader::new(qmp.try_clone().expect("clone")).lines();
    for line in [
        r#"{"execute":"qmp_capabilities"}"#,
        r#"{"execute":"system_powerdown"}"#,
    ] {
        answers.next().expect("QEMU answers").expect("line");
        writeln!(&qmp, "{line}").expect("written");
    }
    // The port closes with the machine.
    while matches!(agent.read(&mut hello), Ok(1..)) {}
    let status = qemu.0.wait().expect("ended");
    assert!(status.success());
    assert!(
        console().contains("the power button was pressed"),
        "{}",
        console()
    );
}
