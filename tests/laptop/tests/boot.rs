//! The laptop boots, runs commands, has working KVM, cables, ports and a power button.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use sekisho_laptop::exec::Start;
use sekisho_laptop::{Laptop, Options};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn it_runs_commands_with_their_output_and_status() {
    let laptop = Laptop::start(Options::default()).expect("laptop");
    println!("boot to the first answer: {:?}", laptop.boot_time());
    let output = laptop
        .run(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        .expect("run");
    assert_eq!(output.status.code, Some(3), "{}", output.said());
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");

    // Standard input, and more bytes than fit one message.
    let start = Start {
        argv: vec!["wc".into(), "-c".into()],
        stdin: true,
        ..Start::default()
    };
    let counting = laptop.spawn_with(start).expect("wc");
    counting.write(&vec![b'x'; 100_000]).expect("written");
    counting.input().end().expect("ended");
    assert_eq!(
        counting.output(SOON).expect("counted").text().trim(),
        "100000"
    );

    // What runs for ever is killed with all that it started.
    let error = laptop.run_within(
        &["sh", "-c", "sleep 1000 & sleep 1000"],
        Duration::from_millis(500),
    );
    assert!(
        error
            .expect_err("too slow")
            .to_string()
            .contains("still ran")
    );
    let gone = laptop
        .run(&["sh", "-c", "while pgrep -x sleep; do :; done"])
        .expect("run");
    assert!(gone.status.success());
    let error = laptop.run(&["/nonesuch"]).expect_err("no such program");
    assert!(error.to_string().contains("/nonesuch"), "{error}");

    // Two at once.
    let slow = laptop.spawn(&["cat", "/proc/self/status"]).expect("spawn");
    let quick = laptop.run(&["true"]).expect("run");
    assert!(quick.status.success() && slow.output(SOON).expect("output").status.success());

    laptop.power_off(SOON).expect("off");
}

#[test]
fn its_hardware_is_a_laptops() {
    let name = "jp.sekisho.try.0";
    let laptop = Laptop::start(Options {
        ports: vec![name.into()],
        ..Options::default()
    })
    .expect("laptop");

    // Not only the node: a virtual machine can be made.
    let program = "import fcntl,os; fd=os.open('/dev/kvm',os.O_RDWR); \
                   print(fcntl.ioctl(fd,0xAE00,0)); os.close(fcntl.ioctl(fd,0xAE01,0))";
    let kvm = laptop.run(&["python3", "-c", program]).expect("run");
    assert_eq!(
        kvm.text().trim(),
        "12",
        "{}\n{}",
        kvm.said(),
        laptop.console_tail()
    );

    // A port passes bytes both ways.
    let mut port = laptop.port(name).expect("port");
    port.set_read_timeout(Some(SOON)).expect("timeout");
    let device = format!("/dev/virtio-ports/{name}");
    let echo = laptop
        .spawn(&["sh", "-c", &format!("head -c 5 <> {device} >&0")])
        .expect("echo");
    port.write_all(b"hello").expect("written");
    let mut answer = [0; 5];
    port.read_exact(&mut answer).expect("answer");
    assert_eq!(&answer, b"hello");
    assert!(echo.output(SOON).expect("ended").status.success());

    // Cables: without a wire there is no carrier, and the kernel hears of each change.
    let up = laptop
        .run(&["ip", "link", "set", "eth1", "up"])
        .expect("run");
    assert!(up.status.success(), "{}", up.said());
    // RTMGRP_LINK; the first line is said once changes are heard.
    let watch = "import socket\n\
        s=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,0); s.bind((0,1))\n\
        while True: print('carrier',open('/sys/class/net/eth1/carrier').read(),flush=True); \
        s.recv(65536)";
    let mut watch = laptop.spawn(&["python3", "-c", watch]).expect("watch");
    watch
        .wait_for("carrier 0", SOON)
        .expect("no carrier without a wire");
    laptop.set_link(1, true).expect("plugged");
    watch.wait_for("carrier 1", SOON).expect("carrier");
    laptop.set_link(1, false).expect("pulled");
    watch.wait_for("carrier 0", SOON).expect("no carrier");

    // The power button is an input device; KEY_POWER is 116.
    let press = "import struct,glob\n\
        path=next(p for p in glob.glob('/sys/class/input/event*') \
        if open(p+'/device/name').read().strip()=='Power Button')\n\
        device=open('/dev/input/'+path.split('/')[-1],'rb',0)\n\
        print('listening',flush=True)\n\
        print('key',struct.unpack('qqHHi',device.read(24))[2:],flush=True)";
    let mut button = laptop.spawn(&["python3", "-c", press]).expect("listener");
    button.wait_for("listening", SOON).expect("listens");
    laptop.power_button().expect("pressed");
    button.wait_for("key (1, 116, 1)", SOON).expect("key");

    let started = Instant::now();
    drop(laptop);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "pulling the power took long"
    );
}

#[test]
fn the_workaround_for_firmware_guests_builds_and_loads() {
    let laptop = Laptop::start(Options {
        cr8_workaround: true,
        ..Options::default()
    })
    .expect("laptop");
    let modules = laptop.run(&["cat", "/proc/modules"]).expect("run").text();
    if modules.contains("kvm_intel") {
        sekisho_skip::skip("hardware virtualisation needs no work-around");
        return;
    }
    assert!(
        modules.contains("sekisho_cr8 "),
        "{}",
        laptop.console_tail()
    );
}
