//! The laptop's KVM is real: a stock kernel runs under a VMM that is not ours.

use std::time::{Duration, Instant};

use sekisho_laptop::{GuestImage, Laptop, Options, build};

#[test]
fn a_stock_kernel_boots_under_another_vmm() {
    let image = GuestImage::build(&build::target_dir().join("work-os")).expect("image");
    let laptop = Laptop::start(Options::default()).expect("laptop");
    let (kernel, initrd) = (
        image.vmlinux.to_string_lossy(),
        image.initrd.to_string_lossy(),
    );
    let started = Instant::now();
    let mut vmm = laptop
        .spawn(&[
            "qemu-system-x86_64",
            "-M",
            "microvm,acpi=off,rtc=on",
            "-accel",
            "kvm",
            "-cpu",
            "host,-arch-capabilities",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-kernel",
            &kernel,
            "-initrd",
            &initrd,
            "-append",
            &image.cmdline,
        ])
        .expect("VMM");
    let said = vmm
        .wait_for("sekisho-init: ready", Duration::from_mins(1))
        .expect("ready");
    println!("nested work OS after {:?}:\n{said}", started.elapsed());
}
