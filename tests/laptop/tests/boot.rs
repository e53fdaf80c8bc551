//! The laptop boots, runs commands, has working KVM, cables and a power button.

use std::time::Duration;

use sekisho_laptop::{Laptop, Options};

#[test]
fn it_boots_and_runs_commands_with_their_status() {
    let laptop = Laptop::start(Options::default()).expect("laptop");
    println!("boot to the first answer: {:?}", laptop.boot_time());
    let output = laptop
        .run(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        .expect("run");
    assert_eq!(output.status.code, Some(3), "{}", output.said());
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");

    let kvm = laptop
        .run(&["sh", "-c", "test -c /dev/kvm && uname -r"])
        .expect("run");
    assert!(
        kvm.status.success(),
        "no /dev/kvm\n{}",
        laptop.console_tail()
    );
    laptop.power_off(Duration::from_secs(20)).expect("off");
}
