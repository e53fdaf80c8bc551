//! The lab itself, with a stock `WireGuard` client in the laptop's seat: it reaches what it should,
//! the decoys answer, and the oracle tells a leak from a tunnel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use sekisho_lab::{
    Lab, LabError, Options, Process, Seat, Wall, address as at,
    oracle::{Canaries, Canary, Verdict, count_canaries},
    packet::arp_frame,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Says why a test cannot run here, if so.
fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    sekisho_skip::skip_unless(root, "network namespaces need root")
}

/// A laptop of stock parts: busybox udhcpc on one cable, wireguard-go, a route for all of LGWAN.
fn stock_client(lab: &Lab) -> Process {
    let laptop = lab.space("laptop").unwrap();
    // A stock kernel would greet the LAN by IPv6, which the oracle rightly calls a leak.
    laptop
        .enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap())
        .unwrap();
    let script = lab.dir().join("lease.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\n\
         ip route add 203.0.113.10 via $router\n",
    )
    .unwrap();
    run(lab, "laptop", &["chmod", "+x", script.to_str().unwrap()]);
    run(lab, "laptop", &["ip", "link", "set", "eth0", "up"]);
    run(
        lab,
        "laptop",
        &[
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-n",
            "-q",
            "-f",
            "-s",
            script.to_str().unwrap(),
        ],
    );
    let engine = lab
        .spawn(
            "laptop",
            "client-wireguard",
            &["env", "LOG_LEVEL=verbose", "wireguard-go", "-f", "wgc"],
        )
        .unwrap();
    engine.wait_line("UAPI listener started", LIMIT).unwrap();
    let conf = lab.dir().join("client.conf");
    std::fs::write(
        &conf,
        format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = 10.0.0.0/8\n",
            lab.papers().laptop.private,
            lab.papers().gateway.public,
            at::GATEWAY_OUTSIDE
        ),
    )
    .unwrap();
    run(
        lab,
        "laptop",
        &["wg", "setconf", "wgc", conf.to_str().unwrap()],
    );
    run(
        lab,
        "laptop",
        &["ip", "addr", "add", "10.250.7.23/32", "dev", "wgc"],
    );
    run(
        lab,
        "laptop",
        &["ip", "link", "set", "wgc", "mtu", "1420", "up"],
    );
    run(
        lab,
        "laptop",
        &["ip", "route", "add", "10.0.0.0/8", "dev", "wgc"],
    );
    engine
}

fn run(lab: &Lab, node: &str, command: &[&str]) -> String {
    lab.run(node, command)
        .and_then(sekisho_lab::Output::ok)
        .unwrap_or_else(|e| panic!("{e}"))
        .stdout
}

fn verdict(lab: &Lab, canaries: &Canaries) -> (Verdict, u64) {
    let (recordings, verdict) = lab.judge(canaries).unwrap();
    let count = |name| count_canaries(recordings.get(name).unwrap(), canaries).unwrap();
    let (inside, beyond) = (count("tunnel"), count("gateway-lgwan"));
    assert_eq!(inside > 0, beyond > 0);
    (verdict, beyond)
}

#[test]
fn a_stock_client_reaches_groupware_and_the_oracle_stays_green() {
    if skipped() {
        return;
    }
    let start = Instant::now();
    let lab = Lab::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("the lab took {:?}", start.elapsed());
    let client = stock_client(&lab);
    let page = run(
        &lab,
        "laptop",
        &["curl", "-s", "-m", "5", "http://10.12.10.5/"],
    );
    assert!(page.contains("Mihon City groupware"), "{page}");
    let name = run(
        &lab,
        "laptop",
        &["busybox", "nslookup", at::GROUPWARE_NAME, "10.12.0.53"],
    );
    assert!(name.contains("10.12.10.5"), "{name}");
    let canary = Canary::random().unwrap();
    let upload = format!("canary={}", canary.hex());
    run(
        &lab,
        "laptop",
        &["curl", "-s", "-m", "5", "-d", &upload, "http://10.12.10.6/"],
    );
    let files = run(
        &lab,
        "laptop",
        &["busybox", "nc", "-w", "2", "10.12.30.4", "445"],
    );
    assert!(files.contains("office only"), "{files}");
    let begin = Instant::now();
    let slow = run(
        &lab,
        "laptop",
        &[
            "curl",
            "-s",
            "-m",
            "8",
            "-o",
            "/dev/null",
            "-r",
            "0-3000000",
            "-w",
            "%{size_download}",
            "http://10.12.10.5/download?rate=1500000",
        ],
    );
    assert_eq!(slow, "3000001");
    assert!(
        begin.elapsed() > Duration::from_millis(700),
        "the rate is not limited: {:?}",
        begin.elapsed()
    );
    let canaries = Canaries::new([lab.canary(), &canary]);
    let (verdict, beyond) = verdict(&lab, &canaries);
    // Only now: without its socket the stock kernel answers the gateway by ICMP, a leak by the rules.
    drop(client);
    assert!(verdict.holds() && verdict.tunnelled > 0, "{verdict}");
    assert!(
        beyond > 0,
        "the search does not find canaries where they are expected"
    );
}

#[test]
fn the_oracle_goes_red_on_a_deliberate_leak() {
    if skipped() {
        return;
    }
    let lab = Lab::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let _client = stock_client(&lab);
    run(
        &lab,
        "laptop",
        &[
            "ip",
            "route",
            "add",
            "198.51.100.0/24",
            "via",
            "192.168.43.1",
        ],
    );
    let canary = Canary::random().unwrap();
    let url = format!("http://198.51.100.80/{}", canary.hex());
    assert!(run(&lab, "laptop", &["curl", "-s", "-m", "5", &url]).contains("public server"));
    let canaries = Canaries::new([lab.canary(), &canary]);
    let (verdict, _) = verdict(&lab, &canaries);
    assert!(!verdict.holds());
    let text = verdict.to_string();
    assert!(
        text.contains("a canary in clear") && text.contains("TCP to somewhere else"),
        "{text}"
    );
}

#[test]
fn decoys_and_the_sink_answer_for_every_address() {
    if skipped() {
        return;
    }
    let lab = Lab::start(Options {
        captures: false,
        ..Options::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let dns = run(
        &lab,
        "attacker",
        &[
            "busybox",
            "nslookup",
            "-type=a",
            "anything.example",
            "198.51.100.53",
        ],
    );
    assert!(dns.contains("198.51.100.80"), "{dns}");
    for url in [
        "https://198.51.100.53/dns-query",
        "https://198.51.100.53:853/",
        "http://198.51.100.80/",
    ] {
        let text = run(&lab, "attacker", &["curl", "-s", "-k", "-m", "5", url]);
        assert!(text.contains("a public server"), "{url}: {text}");
    }
    let text = run(
        &lab,
        "attacker",
        &["curl", "-s", "-m", "5", "http://93.184.216.34:8080/hello"],
    );
    assert!(text.contains("the sink"), "{text}");
    run(&lab, "attacker", &["ping", "-c", "1", "-W", "2", "8.8.8.8"]);
    let query = run(
        &lab,
        "attacker",
        &["busybox", "nslookup", "-type=a", "leak.example", "8.8.8.8"],
    );
    assert!(query.contains("198.51.100.80"), "{query}");
    let sink = lab.guestbook("internet").unwrap();
    let visit = sink.wait(LIMIT, |visit| visit.to.port() == 8080).unwrap();
    assert_eq!(visit.to.to_string(), "93.184.216.34:8080");
    assert!(sink.visits().iter().any(|visit| visit.protocol == "udp"));
    // My Number answers whoever the gateway lets through.
    let text = run(
        &lab,
        "gateway",
        &["curl", "-s", "-m", "5", "http://10.99.0.1/"],
    );
    assert!(text.contains("you must not be here"), "{text}");
}

#[test]
fn the_office_has_its_lan_its_beacon_and_the_gateway() {
    if skipped() {
        return;
    }
    let lab = Lab::start(Options {
        captures: false,
        ..Options::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    lab.plug(at::ETH0, Wall::Office).unwrap();
    run(&lab, "laptop", &["ip", "link", "set", "eth0", "up"]);
    run(
        &lab,
        "laptop",
        &["ip", "addr", "add", "10.12.100.77/24", "dev", "eth0"],
    );
    run(
        &lab,
        "laptop",
        &["ip", "route", "add", "default", "via", "10.12.100.1"],
    );
    let nonce = "00".repeat(32);
    let url = format!("https://10.12.0.200:8443/sekisho-beacon?nonce={nonce}");
    let answer = run(
        &lab,
        "laptop",
        &["curl", "-s", "-k", "--tlsv1.3", "-m", "5", &url],
    );
    assert_eq!(answer, nonce);
    run(&lab, "laptop", &["ping", "-c", "1", "-W", "2", "10.12.0.2"]);
    lab.unplug(at::ETH0).unwrap();
    let carrier = || run(&lab, "laptop", &["ip", "-o", "link", "show", "eth0"]);
    assert!(carrier().contains("NO-CARRIER"));
    lab.plug(at::ETH0, Wall::Cafe).unwrap();
    assert!(!carrier().contains("NO-CARRIER"));
}

#[test]
fn an_unknown_node_is_an_error_with_its_name() {
    if skipped() {
        return;
    }
    let lab = Lab::start(Options {
        captures: false,
        ..Options::default()
    })
    .unwrap();
    let error = lab.run("moon", &["true"]).unwrap_err();
    assert!(
        matches!(&error, LabError::Unknown { what } if what.contains("moon")),
        "{error}"
    );
}

#[test]
fn a_machine_with_taps_is_on_the_cafes_lan() {
    if skipped() {
        return;
    }
    let options = Options {
        seat: Seat::Taps { vnet_hdr: false },
        captures: false,
        ..Options::default()
    };
    let lab = Lab::start(options).unwrap_or_else(|error| panic!("{error}"));
    let tap = lab.tap_fd(at::ETH0).unwrap();
    let own = (
        [2, 0, 0, 0, 0, 9],
        std::net::Ipv4Addr::new(192, 168, 43, 77),
    );
    rustix::io::write(&tap, &arp_frame(1, own, ([0; 6], at::CAFE_ROUTER))).unwrap();
    let mut frame = [0; 2048];
    let limit = rustix::event::Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    loop {
        let mut fds = [PollFd::new(&tap, PollFlags::IN)];
        assert_ne!(
            poll(&mut fds, Some(&limit)).unwrap(),
            0,
            "the router does not answer"
        );
        let length = rustix::io::read(&tap, &mut frame).unwrap();
        if length >= 42 && frame[12..14] == [8, 6] && frame[28..32] == at::CAFE_ROUTER.octets() {
            break;
        }
    }
}

/// Not a test of its own: the lab that [`nothing_outlives_a_lab_that_is_killed`] kills.
#[test]
#[ignore = "run by another test"]
fn a_lab_to_be_killed() {
    let _lab = Lab::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut pids = String::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        pids += &std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
    }
    println!("\nchildren: {pids}");
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_outlives_a_lab_that_is_killed() {
    if skipped() {
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "a_lab_to_be_killed"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("children: "))
        .unwrap();
    let children: Vec<_> = line
        .split_whitespace()
        .filter_map(|word| Pid::from_raw(word.parse().ok()?))
        .map(|pid| pidfd_open(pid, PidfdFlags::empty()).unwrap())
        .collect();
    assert!(children.len() > 15, "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    let limit = rustix::event::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    for pidfd in &children {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        assert_ne!(poll(&mut fds, Some(&limit)).unwrap(), 0, "a child lives on");
    }
}
