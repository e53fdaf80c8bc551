//! T46: machines inside the work OS (a bridged virtual machine, WSL, containers). The gate knows one
//! MAC and one address; what comes from others goes nowhere, and what the work OS translates is its own.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, address as at,
    oracle::{Canaries, count_canaries},
};

/// As WSL's and Docker's own networks are.
const NESTED: &str = "172.28.0.2";
const NESTED_ROUTER: &str = "172.28.0.1";

/// A machine in the guest: a namespace inside the guest's, with one NIC `vm1` whose other end is `vm0`
/// in the guest.
struct Nested<'l> {
    laptop: &'l NetLaptop<'l>,
    machine: sekisho_lab::Process,
}

impl<'l> Nested<'l> {
    fn start(laptop: &'l NetLaptop<'l>) -> Self {
        let script = "echo ready; exec sleep 600";
        let words = ["unshare", "-n", "sh", "-c", script];
        let machine = must(laptop.guest_spawn("nested", &words));
        must(machine.wait_line("ready", Duration::from_secs(10)));
        let nested = Self { laptop, machine };
        nested.guest("ip link add vm0 type veth peer name vm1 && ip link set vm0 up");
        nested.guest(&format!("ip link set vm1 netns {}", nested.machine.id()));
        nested.inside("ip link set lo up && ip link set vm1 up");
        nested
    }

    /// Runs a script in the guest, which has to succeed.
    fn guest(&self, script: &str) -> String {
        must(must(self.laptop.guest(&["sh", "-c", script])).ok()).stdout
    }

    /// Whether a script succeeds in the nested machine.
    fn tries(&self, script: &str) -> bool {
        let pid = self.machine.id().to_string();
        let words = ["nsenter", "-t", &pid, "-n", "sh", "-c", script];
        must(self.laptop.guest(&words)).ok().is_ok()
    }

    fn inside(&self, script: &str) {
        assert!(self.tries(script), "{script}");
    }
}

/// Ping with a canary to groupware's address, three times.
fn ping(canary: &sekisho_lab::Canary) -> String {
    format!(
        "ping -c 3 -i 0.2 -W 1 -p {} {}",
        canary.hex(),
        at::GROUPWARE
    )
}

#[test]
fn t46_a_routed_nested_network_goes_nowhere_and_a_translated_one_is_the_guests() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let nested = Nested::start(&laptop);
    nested.guest(&format!(
        "ip addr add {NESTED_ROUTER}/24 dev vm0 && echo 1 > /proc/sys/net/ipv4/ip_forward"
    ));
    nested.inside(&format!(
        "ip addr add {NESTED}/24 dev vm1 && ip route add default via {NESTED_ROUTER}"
    ));
    let (routed, translated) = (scene.canary(), scene.canary());
    let mark = laptop.events().mark();
    assert!(
        !nested.tries(&ping(&routed)),
        "an address of its own passed"
    );
    must(laptop.wait_refused(mark, "anti-spoof", "icmp"));

    // The control: the same packets in the guest's own name, as WSL's translation sends them.
    nested.guest(
        "nft 'table ip nested { chain out { type nat hook postrouting priority srcnat; \
         ip saddr 172.28.0.0/24 masquerade; }; }'",
    );
    nested.inside(&ping(&translated));
    must(laptop.page(Duration::from_secs(10)));
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let inside = |canary| {
        let canaries = Canaries::new([canary]);
        must(count_canaries(must(recordings.get("tunnel")), &canaries))
    };
    assert_eq!(inside(&routed), 0);
    assert!(inside(&translated) > 0, "the search proves nothing");
}

#[test]
fn t46_a_bridged_nested_machine_gets_no_address_and_no_packet_out() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let nested = Nested::start(&laptop);
    let mac = at::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    // The NIC becomes a port of a bridge, which has the guest's MAC and address from then on.
    nested.guest(&format!(
        "ip link add br0 type bridge && ip link set br0 address {mac} && \
         address=$(ip -4 -o addr show dev net0 | tr -s ' ' | cut -d' ' -f4) && \
         ip route show > /tmp/routes.$$ && ip addr flush dev net0 && \
         ip link set net0 master br0 && ip link set vm0 master br0 && ip link set br0 up mtu 1420 && \
         ip addr add $address dev br0 && ip route replace default via {} ; rm -f /tmp/routes.$$",
        at::GUEST_ROUTER
    ));
    must(laptop.wait_page(Duration::from_secs(20)));
    let mark = laptop.events().mark();
    let lease = "busybox udhcpc -i vm1 -f -q -n -t 3 -T 1 -s /bin/true";
    assert!(!nested.tries(lease), "a lease for another MAC");
    must(laptop.wait_refused(mark, "anti-spoof", ""));
    // An address out of the guest's own subnet, taken without asking: even the guest's neighbours'.
    let canary = scene.canary();
    nested.inside(&format!(
        "ip addr add 10.250.7.99/24 dev vm1 && ip route add default via {}",
        at::GUEST_ROUTER
    ));
    assert!(!nested.tries(&ping(&canary)), "another MAC passed");
    // The control: the guest itself, through the same bridge.
    must(laptop.page(Duration::from_secs(10)));
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let canaries = Canaries::new([&canary]);
    let inside = must(count_canaries(must(recordings.get("tunnel")), &canaries));
    assert_eq!(inside, 0);
}
