//! The steps, in the order of a working day.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use sekisho_control::{Place, Report, SituationReport};
use sekisho_lab::address as at;

use super::{Journey, Step, StepError, StepResult, millis};
use crate::probe::Outcome;

/// From power-on to the last capture; with the step that opens a way round, if one is wanted.
pub fn steps(leak: bool) -> impl Iterator<Item = &'static Step> {
    // The way round ends with the first VMM, so the positive control leaves its killing out.
    let left_out = if leak { "vmm-killed" } else { LEAK };
    STEPS.iter().filter(move |step| step.name != left_out)
}

/// The step of the positive control.
const LEAK: &str = "leak";

const STEPS: &[Step] = &[
    Step {
        name: "power-on",
        about: "the laptop is switched on in the cafe",
        run: Journey::power_on,
    },
    Step {
        name: "uplink",
        about: "the cafe lends an address",
        run: uplink,
    },
    Step {
        name: "tunnel",
        about: "the gate reaches the city's gateway",
        run: tunnel,
    },
    Step {
        name: "work-os",
        about: "the work OS has started",
        run: Journey::work_os,
    },
    Step {
        name: "address",
        about: "the work OS has its address",
        run: address,
    },
    Step {
        name: "dns",
        about: "names of the city resolve",
        run: dns,
    },
    Step {
        name: "page",
        about: "a page of groupware, without a click",
        run: page,
    },
    Step {
        name: LEAK,
        about: "a way round is opened on purpose",
        run: Journey::open_leak,
    },
    Step {
        name: "kernel-log",
        about: "the work OS's kernel complains about no device",
        run: kernel_log,
    },
    Step {
        name: "no-my-number",
        about: "My Number is refused",
        run: no_my_number,
    },
    Step {
        name: "no-public-dns",
        about: "a public resolver is refused: DNS, DoT, DoH",
        run: no_public_dns,
    },
    Step {
        name: "no-foreign-names",
        about: "names of others are refused",
        run: no_foreign_names,
    },
    Step {
        name: "no-public-ping",
        about: "a public address does not answer ICMP",
        run: no_public_ping,
    },
    Step {
        name: "no-public-web",
        about: "a public web server is refused",
        run: no_public_web,
    },
    Step {
        name: "no-cafe-lan",
        about: "the cafe's own LAN is refused",
        run: no_cafe_lan,
    },
    Step {
        name: "no-ipv6",
        about: "IPv6 is refused",
        run: no_ipv6,
    },
    Step {
        name: "no-other-nic",
        about: "there is one NIC and no other way",
        run: no_other_nic,
    },
    Step {
        name: "no-office-flow-yet",
        about: "the file server is for the office only",
        run: no_office_flow,
    },
    Step {
        name: "into-office",
        about: "the office's cable is plugged in during a download",
        run: into_office,
    },
    Step {
        name: "office-flow",
        about: "the file server opens",
        run: office_flow,
    },
    Step {
        name: "out-of-office",
        about: "the cable is pulled during a download",
        run: out_of_office,
    },
    Step {
        name: "office-flow-shut",
        about: "the file server is shut again",
        run: no_office_flow,
    },
    Step {
        name: "to-and-fro",
        about: "office and cafe, again and again",
        run: to_and_fro,
    },
    Step {
        name: "gate-killed",
        about: "the gate is killed under traffic and comes back",
        run: gate_killed,
    },
    Step {
        name: "isolation",
        about: "gate and VMM hold only what they may",
        run: Journey::isolation,
    },
    Step {
        name: "vmm-killed",
        about: "the VMM is killed five times and the work OS comes back",
        run: vmm_killed,
    },
    Step {
        name: "power-button",
        about: "the power button shuts all down",
        run: power_button,
    },
    Step {
        name: "captures",
        about: "nothing leaked, seen from outside",
        run: Journey::judge_captures,
    },
];

/// Number of the card that the office's cable goes to.
const OFFICE_CARD: usize = 1;

const UPLINK_LIMIT: Duration = Duration::from_mins(1);
const TUNNEL_LIMIT: Duration = Duration::from_mins(1);
const SWITCH_LIMIT: Duration = Duration::from_secs(20);
const ADDRESS_LIMIT: Duration = Duration::from_secs(30);
const RESTART_LIMIT: Duration = Duration::from_mins(1);
const POWER_OFF_LIMIT: Duration = Duration::from_mins(1);

/// The tunnel as the gate reports it.
fn tunnelled(report: &Report, port: &str, place: Place) -> bool {
    matches!(
        report,
        Report::Situation(SituationReport::Tunnelled { port: at, place: is, .. })
            if at == port && *is == place
    )
}

fn uplink(journey: &mut Journey) -> StepResult {
    let (at_ms, _) = journey.events()?.wait(0, "a lease on eth0", UPLINK_LIMIT, |report| {
        matches!(report, Report::Uplink { port, event, .. } if port == at::ETH0 && event == "leased")
    })?;
    Ok(format!(
        "eth0 has a lease, {at_ms} ms after the laptop's kernel started"
    ))
}

fn tunnel(journey: &mut Journey) -> StepResult {
    let (at_ms, _) = journey
        .events()?
        .wait(0, "the tunnel", TUNNEL_LIMIT, |report| {
            tunnelled(report, at::ETH0, Place::Remote)
        })?;
    Ok(format!("{at_ms} ms after the laptop's kernel started"))
}

fn address(journey: &mut Journey) -> StepResult {
    let wait = "i=0; until ip -4 addr show dev eth0 | grep -q inet; do \
                i=$((i+1)); [ $i -gt 150 ] && exit 1; usleep 100000; done; \
                ip -4 -o addr show dev eth0; cat /sys/class/net/eth0/mtu /etc/resolv.conf";
    let output = journey.guest()?.run(&["sh", "-c", wait], ADDRESS_LIMIT)?;
    let text = output.text();
    let expected = [
        at::GUEST.to_string(),
        at::INNER_MTU.to_string(),
        at::GUEST_ROUTER.to_string(),
    ];
    match expected.iter().find(|part| !text.contains(part.as_str())) {
        None => Ok(format!(
            "{}, MTU {}, resolver {}",
            at::GUEST,
            at::INNER_MTU,
            at::GUEST_ROUTER
        )),
        Some(part) => Err(StepError::Broken(format!(
            "{part} is missing in: {}",
            output.said()
        ))),
    }
}

/// What the kernel says of the board's devices at level `warning` or worse.
fn kernel_log(journey: &mut Journey) -> StepResult {
    let output = journey.guest()?.run(&["dmesg", "-r"], ADDRESS_LIMIT)?;
    let text = output.text();
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| {
            let level = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            // Facility and severity share the number (RFC 5424, section 6.2.1): 3 bits of severity.
            level.is_some_and(|(number, _)| {
                number
                    .parse::<u32>()
                    .is_ok_and(|number| number & 7 <= WARNING)
            })
        })
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            DEVICES.iter().any(|device| line.contains(device))
        })
        .collect();
    // A log that was cut short would prove nothing.
    if complaints.is_empty() && text.contains("Linux version") {
        let lines = text.lines().count();
        Ok(format!("{lines} lines, no warning about a device"))
    } else {
        Err(StepError::Broken(complaints.join("\n")))
    }
}

/// Severity `warning` (RFC 5424, section 6.2.1).
const WARNING: u32 = 4;

/// How the kernel speaks of what the board offers. Other warnings are about the emulated processor:
/// QEMU's TCG does not intercept `xsetbv`, so that CPUID and XCR0 disagree under any VMM there.
const DEVICES: &[&str] = &[
    "acpi",
    "pci",
    "virtio",
    "rtc",
    "i8042",
    "ttys",
    "8250",
    "pnp",
    "irq",
    "msi",
    "apic",
    "clocksource",
    "vda",
    "eth0",
    "hwrng",
    "hvc",
    "vport",
];

fn resolver() -> SocketAddr {
    SocketAddr::from((at::GUEST_ROUTER, 53))
}

fn dns(journey: &mut Journey) -> StepResult {
    match journey.lookup(resolver(), at::GROUPWARE_NAME)? {
        Outcome::Answered { detail } if detail == "NOERROR, 1 answers" => {
            Ok(format!("{} resolves", at::GROUPWARE_NAME))
        }
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

fn page(journey: &mut Journey) -> StepResult {
    let resolver = resolver().to_string();
    match journey.probe(&["--patience", "5000", "page", &resolver, at::GROUPWARE_NAME])? {
        Outcome::Answered { detail } if detail.contains(&journey.lab.canary().hex()) => {
            let since = millis(journey.power_on.elapsed());
            let title = detail.lines().next().unwrap_or_default();
            Ok(format!("{title} ({since} ms after power-on)"))
        }
        other => Err(StepError::Broken(format!("no page: {other:?}"))),
    }
}

/// Tries something that must not work, and finds the rule that refused it.
fn refused(
    journey: &Journey,
    rules: &[&str],
    packet: &str,
    attempt: impl Fn(&Journey) -> Result<Outcome, StepError>,
) -> StepResult {
    let mark = journey.events()?.mark();
    let started = Instant::now();
    let outcome = attempt(journey)?;
    if outcome.reached() {
        return Err(StepError::Broken(format!(
            "{packet} was reached: {outcome:?}"
        )));
    }
    let told = millis(started.elapsed());
    let what = format!("a refusal of {packet} by {}", rules.join(" or "));
    let (_, report) = journey
        .events()?
        .wait(mark, &what, SWITCH_LIMIT, |report| {
            matches!(report, Report::Refused(refusal)
            if rules.contains(&refusal.rule.as_str()) && refusal.packet.contains(packet))
        })?;
    let rule = match report {
        Report::Refused(refusal) => refusal.rule,
        _ => String::new(),
    };
    Ok(format!("{packet} by {rule} in {told} ms"))
}

fn no_my_number(journey: &mut Journey) -> StepResult {
    let target = SocketAddr::from((at::MY_NUMBER, 443));
    refused(journey, &["forbidden"], &target.to_string(), |journey| {
        journey.connect(target)
    })
}

const DEFAULT: &[&str] = &["default-deny"];

fn no_public_dns(journey: &mut Journey) -> StepResult {
    let ask = SocketAddr::from((at::DECOY_DNS, 53));
    let mut found = vec![refused(journey, DEFAULT, &ask.to_string(), |journey| {
        journey.lookup(ask, &format!("{}.example", journey.canary.hex()))
    })?];
    for port in [53, 853, 443] {
        let target = SocketAddr::from((at::DECOY_DNS, port));
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    Ok(found.join("; "))
}

fn no_foreign_names(journey: &mut Journey) -> StepResult {
    let name = format!("{}.public.example", journey.canary.hex());
    match journey.lookup(resolver(), &name)? {
        Outcome::Answered { detail } if detail.starts_with("REFUSED") => {
            Ok("the gate's resolver says REFUSED".to_owned())
        }
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

fn no_public_ping(journey: &mut Journey) -> StepResult {
    let target = at::DECOY_DNS;
    refused(journey, DEFAULT, &target.to_string(), |journey| {
        journey.ping(target.into())
    })
}

fn no_public_web(journey: &mut Journey) -> StepResult {
    let mut found = Vec::new();
    for target in [
        (at::DECOY_WEB, 80),
        (at::DECOY_WEB, 443),
        (Ipv4Addr::new(192, 0, 2, 77), 443),
    ] {
        let target = SocketAddr::from(target);
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    let quic = SocketAddr::from((at::DECOY_WEB, 443));
    found.push(refused(journey, DEFAULT, &quic.to_string(), |journey| {
        journey.datagram(quic)
    })?);
    Ok(found.join("; "))
}

fn no_cafe_lan(journey: &mut Journey) -> StepResult {
    let mut found = Vec::new();
    for target in [
        (at::CAFE_ROUTER, 53),
        (at::CAFE_ROUTER, 80),
        (at::ATTACKER, 445),
    ] {
        let target = SocketAddr::from(target);
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    Ok(found.join("; "))
}

fn no_ipv6(journey: &mut Journey) -> StepResult {
    // An address and a route of its own making: the work OS may believe what it likes.
    let setup =
        "ip -6 addr add 2001:db8:7::23/64 dev eth0 nodad; ip -6 route add default dev eth0; true";
    journey.guest()?.run(&["sh", "-c", setup], ADDRESS_LIMIT)?;
    let target = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);
    let outcome = journey.ping(IpAddr::V6(target))?;
    let outcome_tcp = journey.connect(SocketAddr::from((target, 443)))?;
    if outcome.reached() || outcome_tcp.reached() {
        return Err(StepError::Broken(format!("{outcome:?} {outcome_tcp:?}")));
    }
    let events = journey.events()?;
    let (_, report) = events.wait(
        0,
        "a refusal by the rule ipv6",
        SWITCH_LIMIT,
        |report| matches!(report, Report::Refused(refusal) if refusal.rule == "ipv6"),
    )?;
    match report {
        Report::Refused(refusal) => Ok(format!("{} by {}", refusal.packet, refusal.rule)),
        _ => Ok(String::new()),
    }
}

fn no_other_nic(journey: &mut Journey) -> StepResult {
    let output = journey
        .guest()?
        .run(&["ls", "/sys/class/net"], ADDRESS_LIMIT)?;
    let text = output.text();
    let mut names: Vec<&str> = text.split_whitespace().collect();
    names.sort_unstable();
    if names == ["eth0", "lo"] {
        Ok("lo and eth0 are all there is".to_owned())
    } else {
        Err(StepError::Broken(format!("the work OS sees {names:?}")))
    }
}

fn files() -> SocketAddr {
    SocketAddr::from((at::FILES, 445))
}

fn no_office_flow(journey: &mut Journey) -> StepResult {
    refused(
        journey,
        &["files", "default-deny"],
        &files().to_string(),
        |journey| journey.connect(files()),
    )
}

fn office_flow(journey: &mut Journey) -> StepResult {
    match journey.connect(files())? {
        Outcome::Answered { detail } if detail.contains("office only") => Ok(detail),
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

/// Length of a download that something happens in: some seconds.
const LONG: u64 = 8 << 20;

/// Length of a download that one of many switches happens in.
const SHORT: u64 = 4 << 20;

/// Switches each way, beside the first.
const ROUNDS: usize = 5;

fn into_office(journey: &mut Journey) -> StepResult {
    switch(journey, LONG, Way::IntoOffice).map(|switched| switched.to_string())
}

fn out_of_office(journey: &mut Journey) -> StepResult {
    switch(journey, LONG, Way::OutOfOffice).map(|switched| switched.to_string())
}

/// The same again several times, for a median.
fn to_and_fro(journey: &mut Journey) -> StepResult {
    let mut silences = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (way, silences) in [Way::IntoOffice, Way::OutOfOffice]
            .into_iter()
            .zip(&mut silences)
        {
            silences.push(switch(journey, SHORT, way)?.silence_ms);
        }
    }
    let [into, out] = silences.map(|mut silences| {
        silences.sort_unstable();
        silences[ROUNDS / 2]
    });
    Ok(format!(
        "{ROUNDS} times each way, every download lives; median of the longest silence: {into} ms \
         into the office, {out} ms out of it"
    ))
}

/// A move of the office's cable.
#[derive(Clone, Copy)]
enum Way {
    IntoOffice,
    OutOfOffice,
}

/// A switch that a download lived through.
struct Switched {
    port: &'static str,
    /// From the move of the cable to the gate's report, in milliseconds.
    took_ms: u64,
    /// The longest time in which the work OS got nothing, in milliseconds.
    silence_ms: u64,
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port,
            took_ms,
            silence_ms,
        } = self;
        write!(
            f,
            "over {port} in {took_ms} ms; the download lives, its longest silence {silence_ms} ms"
        )
    }
}

fn switch(journey: &mut Journey, bytes: u64, way: Way) -> Result<Switched, StepError> {
    let (plugged, port, place) = match way {
        Way::IntoOffice => (true, at::ETH1, Place::Office),
        Way::OutOfOffice => (false, at::ETH0, Place::Remote),
    };
    journey.start_download(bytes)?;
    let mark = journey.events()?.mark();
    let moved = Instant::now();
    journey.laptop()?.set_link(OFFICE_CARD, plugged)?;
    let what = format!("the tunnel over {port}");
    journey
        .events()?
        .wait(mark, &what, SWITCH_LIMIT, |report| {
            tunnelled(report, port, place)
        })?;
    let took_ms = millis(moved.elapsed());
    let silence_ms = journey.finish_download()?.longest_gap_ms;
    Ok(Switched {
        port,
        took_ms,
        silence_ms,
    })
}

fn gate_killed(journey: &mut Journey) -> StepResult {
    journey.start_download(LONG)?;
    let mark = journey.events()?.mark();
    let killed = Instant::now();
    journey.kill("gate")?;
    journey
        .events()?
        .wait(mark, "the tunnel of a new gate", SWITCH_LIMIT, |report| {
            tunnelled(report, at::ETH0, Place::Remote)
        })?;
    let took = millis(killed.elapsed());
    let download = journey.finish_download()?;
    page(journey)?;
    Ok(format!(
        "a new gate has its tunnel after {took} ms; the download lives, its longest silence {} ms",
        download.longest_gap_ms
    ))
}

/// How often the VMM is killed.
const VMM_KILLS: u32 = 5;

fn vmm_killed(journey: &mut Journey) -> StepResult {
    let mut slowest = 0;
    let mut hung = 0;
    let mut kills = 0;
    while kills < VMM_KILLS {
        // Traffic that is cut off in the middle: its end is of no interest.
        journey.start_download(LONG)?;
        journey.ping(at::GUEST_ROUTER.into())?;
        let killed = Instant::now();
        journey.kill("vmm")?;
        let back = journey.guest()?.sync(RESTART_LIMIT);
        journey.download = None;
        if let Err(error) = back {
            // An emulated processor of the laptop that lost an interrupt stops the laptop's own
            // kernel. That is the test bed's fault, not the product's: power off, and on again.
            hung += 1;
            if hung > MOST_HANGS || !journey.laptop()?.console_tail().contains("soft lockup") {
                return Err(error.into());
            }
            power_cycle(journey)?;
            continue;
        }
        address(journey)?;
        page(journey)?;
        slowest = slowest.max(millis(killed.elapsed()));
        kills += 1;
    }
    let mut told = format!("{VMM_KILLS} times; from the kill to a page at most {slowest} ms");
    if hung > 0 {
        let _ = write!(
            told,
            "; the emulated laptop hung {hung} times and was switched on anew"
        );
    }
    Ok(told)
}

/// How often the emulator may fail before the step does.
const MOST_HANGS: u32 = 2;

fn power_cycle(journey: &mut Journey) -> Result<(), StepError> {
    journey.guest = None;
    journey.supervisor = None;
    journey.laptop = None;
    let first = journey.power_on;
    journey.power_on()?;
    journey.power_on = first;
    uplink(journey)?;
    tunnel(journey)?;
    journey.work_os()?;
    address(journey)?;
    Ok(())
}

fn power_button(journey: &mut Journey) -> StepResult {
    let events = journey.events()?;
    let mark = events.mark();
    journey.laptop()?.power_button()?;
    events.wait(
        mark,
        "the work OS's own end",
        POWER_OFF_LIMIT,
        |report| matches!(report, Report::WorkEnded { cause } if cause == "shutdown"),
    )?;
    let ended = events.wait_end(POWER_OFF_LIMIT);
    let Some(ended) = ended else {
        return Err(StepError::Broken(format!(
            "the supervisor lives on\n{}",
            events.tail()
        )));
    };
    journey.guest = None;
    if let Some(laptop) = journey.laptop.take() {
        laptop.power_off(POWER_OFF_LIMIT)?;
    }
    Ok(format!(
        "the work OS shut itself down, then everything else ({ended})"
    ))
}
