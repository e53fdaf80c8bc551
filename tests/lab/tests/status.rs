//! `sekisho status` and `sekisho doctor` beside the real supervisor, gate and uplink: what they say
//! while the world around the laptop is broken piece by piece.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sekisho_lab::{
    Lab, NetLaptop, Options, Output, PUBLIC_ONLY, Setup, UP_LIMIT, Wall, address as at, programs,
};
use sekisho_skip::skip_unless;
use sekisho_status::{
    Answers, Cause, Check, Outcome, ProcessState, Situation, Status, Step, UplinkState,
};

/// Longer than the doctor waits for an address, and than a handshake takes to be given up.
const SOON: Duration = Duration::from_secs(30);

fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Says why a test cannot run here, if so.
fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if skip_unless(root, "network namespaces need root") {
        return true;
    }
    match programs() {
        Ok(folder) if folder.join("sekisho").exists() => false,
        Ok(_) => skip_unless(false, "`sekisho` is not built"),
        Err(error) => skip_unless(false, error),
    }
}

fn json<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}

fn status(laptop: &NetLaptop<'_>) -> Status {
    json(&must(must(laptop.sekisho(&["status", "--json"])).ok()))
}

/// The doctor's list; its exit status says whether something failed.
fn doctor(laptop: &NetLaptop<'_>) -> Vec<Check> {
    let output = must(laptop.sekisho(&["doctor", "--json"]));
    let checks: Vec<Check> = json(&output);
    let failed = checks
        .iter()
        .any(|check| matches!(check.outcome, Outcome::Failed { .. }));
    assert_eq!(output.success(), !failed, "{output}");
    checks
}

fn outcome(checks: &[Check], step: Step) -> Outcome {
    let check = checks.iter().find(|check| check.step == step);
    check.unwrap().outcome
}

/// Waits until the doctor names this cause at this step.
fn wait_cause(laptop: &NetLaptop<'_>, step: Step, cause: Cause) -> Vec<Check> {
    let start = Instant::now();
    loop {
        let checks = doctor(laptop);
        if outcome(&checks, step) == (Outcome::Failed { cause }) {
            eprintln!("{cause:?} after {:?}", start.elapsed());
            return checks;
        }
        assert!(
            start.elapsed() < SOON,
            "the doctor does not name {cause:?}: {checks:#?}\n{:#?}",
            status(laptop)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every step before this one holds, as far as it is known.
fn holds_before(checks: &[Check], step: Step) {
    for check in checks.iter().take_while(|check| check.step != step) {
        let holds = matches!(check.outcome, Outcome::Passed | Outcome::Unknown);
        assert!(holds, "{checks:#?}");
    }
}

#[test]
fn what_is_broken_is_named_and_what_is_whole_is_not() {
    if skipped() {
        return;
    }
    let lab = must(Lab::start(Options::default()));
    must(lab.unplug(at::ETH1));
    let laptop = must(NetLaptop::start_up(&lab, &Setup::default()));
    must(laptop.page(Duration::from_secs(10)));

    all_is_well(&laptop);
    other_people_s_client(&laptop.status_socket());

    // A refusal is counted, with its last packet.
    for _ in 0..5 {
        must(laptop.guest(&["busybox", "nc", "-w", "1", "10.99.0.1", "443"]));
    }
    let start = Instant::now();
    let refused = loop {
        let rows = status(&laptop).refusals;
        if let Some(row) = rows
            .iter()
            .find(|row| row.rule == "forbidden" && row.count >= 5)
        {
            break row.clone();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{rows:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(refused.last, "tcp 10.99.0.1:443");

    // The cable, and whoever watches sees it go.
    let watch = must(laptop.sekisho_spawn("watch", &["status", "--watch", "--json"]));
    must(watch.wait_line("\"state\":\"tunnelled\"", Duration::from_secs(5)));
    // In a terminal the picture is drawn over the last one, and begins at the top.
    let command = format!(
        "{} --socket {} status --watch --lang en",
        must(programs()).join("sekisho").display(),
        laptop.status_socket().display()
    );
    let live = must(lab.spawn(
        "laptop",
        "live",
        &["script", "-qfec", &command, "/dev/null"],
    ));
    let top = "\u{1b}[H\u{1b}[Jsituation";
    let first = must(live.wait_line(top, Duration::from_secs(5)));
    assert!(first.contains("connected to the closed network"), "{first}");
    let mark = laptop.events().mark();
    let drawn = live.mark();
    must(lab.unplug(at::ETH0));
    must(laptop.wait_closed(mark, Duration::from_secs(10)));
    must(watch.wait_line("\"state\":\"closed\"", Duration::from_secs(5)));
    must(live.wait_line("not connected: there is no network", Duration::from_secs(5)));
    assert!(live.mark() > drawn, "nothing is drawn anew");
    let checks = wait_cause(&laptop, Step::Carrier, Cause::NoCarrier);
    holds_before(&checks, Step::Carrier);
    let Situation::Closed { reason } = status(&laptop).situation.situation else {
        panic!("not closed");
    };
    assert_eq!(reason, "no uplink leads to a gateway");
    let text = must(laptop.sekisho(&["doctor", "--lang", "en"]));
    assert!(text.stdout.contains("Plug the cable in again"), "{text}");

    // The DHCP server.
    let dhcp = lab.server("cafe-dnsmasq").unwrap();
    dhcp.signal(Signal::STOP).unwrap();
    must(lab.plug(at::ETH0, Wall::Cafe));
    let checks = wait_cause(&laptop, Step::Address, Cause::NoAddress);
    holds_before(&checks, Step::Address);

    // The gateway, in a network that leads nowhere else.
    must(must(lab.run("cafe", &["nft", PUBLIC_ONLY])).ok());
    let gateway = lab.server("gateway-wireguard").unwrap();
    gateway.signal(Signal::STOP).unwrap();
    dhcp.signal(Signal::CONT).unwrap();
    let checks = wait_cause(&laptop, Step::Gateway, Cause::GatewaySilent);
    holds_before(&checks, Step::Gateway);
    assert_eq!(outcome(&checks, Step::Router), Outcome::Passed);

    // Mended.
    let mark = laptop.events().mark();
    gateway.signal(Signal::CONT).unwrap();
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    for check in doctor(&laptop) {
        assert_eq!(check.outcome, Outcome::Passed, "{check:?}");
    }

    // A part that died is counted.
    let mark = laptop.events().mark();
    must(laptop.kill(sekisho_lab::Part::Gate));
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    let gate = status(&laptop)
        .processes
        .into_iter()
        .find(|process| process.name == "gate")
        .unwrap();
    assert_eq!((gate.restarts, gate.state), (1, ProcessState::Serving));
    assert!(gate.last_end.is_some_and(|how| how.contains("SIGKILL")));
}

/// A laptop that is connected and has been used says so.
fn all_is_well(laptop: &NetLaptop<'_>) {
    let whole = status(laptop);
    let Situation::Tunnelled { gateway, port, .. } = &whole.situation.situation else {
        panic!("{whole:#?}");
    };
    assert_eq!((gateway.as_str(), port.as_str()), ("honcho-1", at::ETH0));
    assert!(
        whole
            .policy
            .as_ref()
            .is_some_and(|policy| policy.version > 0)
    );
    assert!(whole.work.address && whole.work.link == Some(true));
    assert_eq!(whole.work.names, Answers::Answered);
    assert_eq!(whole.work.servers, Answers::Answered);
    let card = |status: &Status, name: &str| {
        let found = status.uplinks.iter().find(|uplink| uplink.port == name);
        found.unwrap().state
    };
    assert_eq!(card(&whole, at::ETH0), UplinkState::Reached);
    assert_eq!(card(&whole, at::ETH1), UplinkState::NoCarrier);
    for check in doctor(laptop) {
        assert_eq!(check.outcome, Outcome::Passed, "{check:?}");
    }
    let text = must(must(laptop.sekisho(&["status", "--lang", "ja"])).ok()).stdout;
    assert!(
        text.contains("庁内ネットワークにつながっています"),
        "{text}"
    );
    eprintln!("{text}");
}

/// The interface as somebody else's program sees it: the Python client of varlink.org parses the
/// description and calls by it. It is a package of `PyPI`, not of Debian 12.
fn other_people_s_client(socket: &Path) {
    const SCRIPT: &str = "
import json, sys, varlink
with varlink.Client.new_with_address('unix:' + sys.argv[1]) as client:
    with client.open('org.varlink.service') as service:
        info = service.GetInfo()
    with client.open('jp.sekisho.Laptop') as laptop:
        one = laptop.GetStatus()
        many = next(laptop.GetStatus(_more=True))
    with client.open('jp.sekisho.Laptop') as laptop:
        checks = laptop.Diagnose()
    print(json.dumps([info['interfaces'], one['status']['situation']['state'],
        many['status']['situation']['state'], [c['step'] for c in checks['checks']]]))
";
    let python = std::env::var_os("SEKISHO_VARLINK_PYTHON").unwrap_or_else(|| "python3".into());
    let there = Command::new(&python)
        .args(["-c", "import varlink"])
        .output()
        .is_ok_and(|output| output.status.success());
    if skip_unless(there, "the Python package `varlink` is not installed") {
        return;
    }
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(socket)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let steps: Vec<String> = Step::ALL
        .iter()
        .map(|step| {
            serde_json::to_value(step)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        serde_json::json!([
            ["org.varlink.service", "jp.sekisho.Laptop"],
            "tunnelled",
            "tunnelled",
            steps
        ])
    );
}
