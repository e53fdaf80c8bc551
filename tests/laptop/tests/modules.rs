//! Drivers that a laptop with our `modprobe.d` does not load, with Debian's kernel and Debian's modprobe.

use sekisho_laptop::{Laptop, Options};

/// As it is shipped.
const REFUSED: &str = include_str!("../../../netdomain/supervisor/systemd/sekisho.modprobe");

/// What a laptop's shell says, and whether it was content.
fn says(laptop: &Laptop, script: &str) -> (bool, String) {
    let output = laptop.run(&["sh", "-c", script]).expect("run");
    (output.status.success(), output.said())
}

fn has_bluetooth(laptop: &Laptop) -> bool {
    says(laptop, "grep -q '^bluetooth ' /proc/modules").0
}

/// T46: a Bluetooth controller or a Thunderbolt cable is plugged in, and the kernel asks for its driver.
#[test]
fn t46_bluetooth_and_thunderbolt_bring_no_network_card() {
    let laptop = Laptop::start(Options::default()).expect("laptop");
    let install = format!(
        "mkdir -p /etc/modprobe.d && cat > /etc/modprobe.d/sekisho.conf <<'END'\n{REFUSED}END\n"
    );
    assert!(says(&laptop, &install).0);
    // By name; by a controller's driver; as the kernel asks when a socket of the family is opened.
    let asked = [
        "bnep",
        "hci_vhci",
        "btusb",
        "net-pf-31",
        "bluetooth_6lowpan",
        "thunderbolt_net",
        "firewire_net",
    ];
    for module in asked {
        let (loaded, said) = says(&laptop, &format!("modprobe {module}"));
        assert!(!loaded, "{module}: {said}");
        assert!(!has_bluetooth(&laptop), "{module}: {said}");
    }
    let drivers = "grep -E '^(bnep|hci_vhci|btusb|thunderbolt_net|firewire_net) ' /proc/modules";
    let (any, loaded) = says(&laptop, drivers);
    assert!(!any, "{loaded}");

    // The control: without the file the same requests bring the same drivers.
    for module in ["bnep", "hci_vhci", "thunderbolt_net"] {
        let ask = format!("rm -f /etc/modprobe.d/sekisho.conf; modprobe {module}");
        let (loaded, said) = says(&laptop, &ask);
        assert!(loaded, "{module}: {said}");
        let (there, said) = says(&laptop, &format!("grep '^{module} ' /proc/modules"));
        assert!(there, "{module}: {said}");
    }
    assert!(has_bluetooth(&laptop));
}
