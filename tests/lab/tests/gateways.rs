//! Two gateways and a second key: the laptop leaves one that falls silent for the next one, and returns
//! to the first when it has been well for as long as policy says.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use sekisho_lab::{
    Event, Lab, NetLaptop, Options, Prober, Process, Setup, UP_LIMIT, address as at, programs,
};
use sekisho_skip::skip_unless;

/// Where the second gateway listens.
const SECOND: &str = "203.0.113.10:51821";
/// How long the first one must have been well, in the policy of this test.
const WELL: Duration = Duration::from_secs(3);

fn must<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Says why a test cannot run here, if so.
fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if skip_unless(root, "network namespaces need root") {
        return true;
    }
    match programs() {
        Ok(_) => false,
        Err(error) => skip_unless(false, error),
    }
}

/// Makes a second gateway beside the first, with a key of its own; answers to the laptop go by it while
/// the first one is gone. Gives its public key, and its process where the kernel has no `WireGuard`.
fn second_gateway(lab: &Lab) -> (String, Option<Process>) {
    let kernel = ["ip", "link", "add", "wg1", "type", "wireguard"];
    let engine = (!must(lab.run("gateway", &kernel)).success()).then(|| {
        let command = ["env", "LOG_LEVEL=verbose", "wireguard-go", "-f", "wg1"];
        let engine = must(lab.spawn("gateway", "second-wireguard", &command));
        must(engine.wait_line("UAPI listener started", UP_LIMIT));
        engine
    });
    let papers = lab.papers();
    let script = format!(
        "umask 077; wg genkey > {key}\n\
         wg set wg1 listen-port 51821 private-key {key} \
         peer {live} allowed-ips 10.250.7.23/32 peer {probe}\n\
         ip link set wg1 mtu 1420 up\n\
         ip route add 10.250.7.0/24 dev wg1 metric 500\n\
         wg show wg1 public-key",
        key = lab.dir().join("second.key").display(),
        live = papers.laptop.public,
        probe = papers.probe.public,
    );
    let said = must(must(lab.run("gateway", &["sh", "-c", &script])).ok()).stdout;
    (said.trim().to_owned(), engine)
}

fn over(laptop: &NetLaptop<'_>, mark: usize, gateway: &str) -> Event {
    must(laptop.wait_event(mark, gateway, UP_LIMIT, |event| {
        event.is("gate", "situation") && event.text("gateway") == gateway
    }))
}

#[test]
fn a_silent_gateway_is_left_for_the_next_and_returned_to_in_time() {
    if skipped() {
        return;
    }
    let lab = must(Lab::start(Options::default()));
    must(lab.unplug(at::ETH1));
    let (key, _engine) = second_gateway(&lab);
    let gateway = format!(
        "[[vpn.gateway]]\nname = \"honcho-2\"\nkind = \"wireguard\"\naddress = \"{SECOND}\"\n\
         public_key = \"{key}\"\nuplinks = [\"wired\"]\n\n[onprem]"
    );
    let policy = lab
        .papers()
        .policy()
        .replacen("[onprem]", &gateway, 1)
        .replacen(
            "dead_after = \"3s\"",
            "dead_after = \"3s\"\nprefer_first_after = \"3s\"",
            1,
        );
    let setup = Setup {
        policy: Some(policy),
        standby: true,
        ..Setup::default()
    };
    let laptop = must(NetLaptop::start_up(&lab, &setup));
    over(&laptop, 0, "honcho-1");
    must(laptop.wait_page(UP_LIMIT));

    // Under the guest's traffic, as only what is sent shows that nothing comes back.
    let prober = must(Prober::open(&laptop));
    prober.during(|| {
        let (mark, start) = (laptop.events().mark(), Instant::now());
        must(must(lab.run("gateway", &["ip", "link", "del", "wg0"])).ok());
        over(&laptop, mark, "honcho-2");
        assert!(prober.wait(start + Duration::from_millis(100), UP_LIMIT));
        eprintln!("the next gateway after {:?}", start.elapsed());

        let (mark, back) = (laptop.events().mark(), Instant::now());
        must(lab.restart_gateway());
        over(&laptop, mark, "honcho-1");
        assert!(back.elapsed() >= WELL, "too soon: {:?}", back.elapsed());
        assert!(prober.wait(Instant::now(), UP_LIMIT));
        eprintln!("the first gateway again after {:?}", back.elapsed());
    });
    must(laptop.wait_page(UP_LIMIT));
}
