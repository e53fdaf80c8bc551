//! The laptop's first minute with another tunnel than `WireGuard`, in the real machine: its kernel has
//! what network namespaces on the build machine need not have (Landlock, users of their own).

use sekisho_e2e::journey::{Journey, Tunnel, steps};

/// From power-on to the page, and what the wires recorded.
const STEPS: &[&str] = &[
    "power-on",
    "uplink",
    "tunnel",
    "work-os",
    "address",
    "dns",
    "page",
    "no-my-number",
    "no-public-web",
    "power-button",
    "captures",
];

fn page_by(tunnel: Tunnel) {
    let mut journey = Journey::prepare(false, tunnel).expect("the world around the laptop");
    let wanted = steps(false).filter(|step| STEPS.contains(&step.name));
    for step in wanted {
        let report = journey.take(step);
        eprintln!(
            "{}: {} ms, took {} ms: {}",
            report.name, report.at_ms, report.took_ms, report.detail
        );
        assert!(report.holds, "{}: {}", report.name, report.detail);
    }
}

#[test]
fn the_page_comes_by_tls() {
    page_by(Tunnel::Tls);
}

#[test]
fn the_page_comes_by_ipsec_that_the_kernel_seals() {
    page_by(Tunnel::Ikev2);
}
