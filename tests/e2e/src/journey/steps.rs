//! The steps, in the order of a working day.

use super::arrival::{address, dns, kernel_log, page, tunnel, uplink};
use super::crashes::{gate_killed, vmm_killed};
use super::office::{into_office, no_office_flow, office_flow, out_of_office, to_and_fro};
use super::refusals::{
    no_cafe_lan, no_foreign_names, no_ipv6, no_my_number, no_other_nic, no_public_dns,
    no_public_ping, no_public_web,
};
use super::{Journey, Step};

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
        run: Journey::power_button,
    },
    Step {
        name: "captures",
        about: "nothing leaked, seen from outside",
        run: Journey::judge_captures,
    },
];
