//! A stock kernel's own drivers judge the screen, in the QEMU laptop: Debian's `bochs-drm` and `virtio_gpu`
//! find it, take the mode that its EDID prefers, and what a program writes into the frame buffer is on the
//! screen.

mod picture;

use std::time::Duration;

use sekisho_laptop::exec::ExecClient;
use sekisho_laptop::{GuestImage, Laptop, Options, build};

const BOOT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_mins(1);
const TEST_PORT: &str = "jp.sekisho.test.0";
const VIEW: &str = "/run/view";
/// A frame, of 32 bits a pixel.
const BYTES: usize = 1280 * 720 * 4;

fn said(guest: &ExecClient, script: &str) -> String {
    let output = guest.run(&["sh", "-c", script], SOON).expect("run");
    assert!(output.status.success(), "{script}: {}", output.said());
    output.text()
}

#[test]
fn a_stock_kernel_drives_the_screen() {
    drives("bochs", "", "Found bochs VGA, ID 0xb0c5");
}

#[test]
fn a_stock_kernel_drives_the_graphics_card() {
    drives("virtio_gpu", ",gpu=on", "number of scanouts: 1");
}

/// The driver's module in a work OS whose screen has these options, and what it says.
fn drives(driver: &str, options: &str, says: &str) {
    let folder = build::target_dir().join("work-os");
    let image = GuestImage::build_with_screen(&folder, driver).expect("image");
    let laptop = Laptop::start(Options {
        ports: vec![TEST_PORT.to_owned()],
        ..Options::default()
    })
    .expect("laptop");
    let vmm = build::target_dir().join("debug/sekisho-vmm");
    let file = laptop.folder().join("linux.png");
    let [kernel, initrd, vmm, file_name] =
        [&image.vmlinux, &image.initrd, &vmm, &file].map(|path| path.to_string_lossy());
    let console = format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}");
    let display = format!("mode=1280x720,view={VIEW}{options}");
    let mut machine = laptop
        .spawn(&[
            &*vmm,
            "run",
            "--kernel",
            &*kernel,
            "--initrd",
            &*initrd,
            "--cmdline",
            &image.cmdline,
            "--memory",
            "512M",
            "--serial",
            "stdio",
            "--console",
            &console,
            "--display",
            &display,
        ])
        .expect("VMM");
    let port = laptop.port(TEST_PORT).expect("port");
    let guest = ExecClient::new(port).expect("client");
    if let Err(error) = guest.hello(BOOT) {
        let serial = machine.wait_for("nothing that it says", Duration::from_secs(1));
        panic!("the work OS does not answer: {error}; it said {serial:?}");
    }
    // The driver comes a moment after user space.
    let found = said(
        &guest,
        "n=0; until [ -e /dev/fb0 ] || [ $n = 50 ]; do n=$((n+1)); sleep 1; done; \
         dmesg | grep -e drm -e fb0; cat /sys/class/drm/card0-*/modes | head -n 1; \
         od -An -tx1 -v /sys/class/drm/card0-*/edid | tr -d ' \\n' | head -c 16",
    );
    println!("{found}");
    for line in [says, "\n1280x720\n", "00ffffffffffff00"] {
        assert!(found.contains(line), "no {line}: {found}");
    }
    // Blue and a dot of orange; the driver brings it to the screen in a moment. Blue in one piece: of one that
    // ends with its line the kernel (6.1) brings nothing.
    said(
        &guest,
        &format!(
            "printf '\\377\\100\\040\\000' > /tmp/blue && \
             while [ $(stat -c %s /tmp/blue) -lt {BYTES} ]; do \
             cat /tmp/blue /tmp/blue > /tmp/more; mv /tmp/more /tmp/blue; done && \
             dd if=/tmp/blue of=/dev/fb0 bs={BYTES} count=1 && \
             printf '\\000\\200\\377\\000' | dd of=/dev/fb0 bs=4 seek=1000 conv=notrunc && sleep 2"
        ),
    );
    let line = [&*vmm, "screenshot", "--socket", VIEW, &*file_name];
    let output = laptop.run(&line).expect("a screenshot");
    assert!(output.status.success(), "{}", output.said());
    let (sides, pixels) = picture::decode(&file);
    println!("{}: {sides:?}", file.display());
    assert_eq!(sides, (1280, 720));
    assert_eq!(pixels[3000..3003], [0xff, 0x80, 0x00]);
    let mut pixels = pixels.chunks_exact(3);
    let blue = pixels.by_ref().filter(|pixel| *pixel == [0x20, 0x40, 0xff]);
    let blue = blue.count();
    // The kernel's cursor may blink somewhere.
    assert!(blue > 1280 * 720 - 400, "{blue}");
}
