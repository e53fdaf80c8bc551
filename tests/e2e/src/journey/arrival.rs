//! From power-on to the first page.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use sekisho_control::{Place, Report, SituationReport};
use sekisho_lab::address as at;

use super::{Journey, StepError, StepResult, emulator, millis};
use crate::probe::Outcome;

const UPLINK_LIMIT: Duration = Duration::from_mins(1);
const TUNNEL_LIMIT: Duration = Duration::from_mins(1);
const ADDRESS_LIMIT: Duration = Duration::from_secs(30);

/// The tunnel as the gate reports it.
pub(super) fn tunnelled(report: &Report, port: &str, place: Place) -> bool {
    matches!(
        report,
        Report::Situation(SituationReport::Tunnelled { port: at, place: is, .. })
            if at == port && *is == place
    )
}

pub(super) fn uplink(journey: &mut Journey) -> StepResult {
    let (at_ms, _) = journey.events()?.wait(0, "a lease on eth0", UPLINK_LIMIT, |report| {
        matches!(report, Report::Uplink { port, event, .. } if port == at::ETH0 && event == "leased")
    })?;
    Ok(format!(
        "eth0 has a lease, {at_ms} ms after the laptop's kernel started"
    ))
}

pub(super) fn tunnel(journey: &mut Journey) -> StepResult {
    let wanted = journey.tunnel.gateway();
    let (at_ms, _) = journey
        .events()?
        .wait(0, "the tunnel", TUNNEL_LIMIT, |report| {
            tunnelled(report, at::ETH0, Place::Remote)
                && matches!(
                    report,
                    Report::Situation(SituationReport::Tunnelled { gateway, .. })
                        if gateway == wanted
                )
        })?;
    Ok(format!(
        "to {wanted}, {at_ms} ms after the laptop's kernel started"
    ))
}

pub(super) fn address(journey: &mut Journey) -> StepResult {
    // The lease gives the address first and the resolver right after it.
    let wait = "i=0; until ip -4 addr show dev eth0 | grep -q inet && [ -s /etc/resolv.conf ]; do \
                i=$((i+1)); [ $i -gt 150 ] && exit 1; usleep 100000; done; \
                ip -4 -o addr show dev eth0; cat /sys/class/net/eth0/mtu /etc/resolv.conf";
    let mut lost = 0;
    let output = loop {
        match journey.guest()?.run(&["sh", "-c", wait], ADDRESS_LIMIT) {
            Ok(output) => break output,
            Err(error) => {
                lost += 1;
                if lost > emulator::MOST_FAULTS || !emulator::work_os_lost_its_timer(journey)? {
                    return Err(error.into());
                }
                emulator::power_cycle(journey)?;
            }
        }
    };
    let text = output.text();
    let expected = [
        at::GUEST.to_string(),
        at::INNER_MTU.to_string(),
        at::GUEST_ROUTER.to_string(),
    ];
    match expected.iter().find(|part| !text.contains(part.as_str())) {
        None => {
            let mut told = format!(
                "{}, MTU {}, resolver {}",
                at::GUEST,
                at::INNER_MTU,
                at::GUEST_ROUTER
            );
            if lost > 0 {
                let _ = write!(
                    told,
                    "; the emulated work OS lost its timer {lost} times and was switched on anew"
                );
            }
            Ok(told)
        }
        Some(part) => Err(StepError::Broken(format!(
            "{part} is missing in: {}",
            output.said()
        ))),
    }
}

/// What the kernel says of the board's devices at level `warning` or worse.
pub(super) fn kernel_log(journey: &mut Journey) -> StepResult {
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

pub(super) fn resolver() -> SocketAddr {
    SocketAddr::from((at::GUEST_ROUTER, 53))
}

pub(super) fn dns(journey: &mut Journey) -> StepResult {
    match journey.lookup(resolver(), at::GROUPWARE_NAME)? {
        Outcome::Answered { detail } if detail == "NOERROR, 1 answers" => {
            Ok(format!("{} resolves", at::GROUPWARE_NAME))
        }
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

pub(super) fn page(journey: &mut Journey) -> StepResult {
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
