//! Fuzz targets for everything that parses.
//!
//! A target is one function of bytes (in a file of `targets`, or in the crate whose private parts
//! it needs), one line in [`TARGETS`], a folder of seeds `corpus/NAME`, and a file `libfuzzer/fuzz_targets/NAME.rs` with its `[[bin]]`
//! beside it. It returns when the input was handled, and panics when a promise was broken.
//!
//! `cargo test -p sekisho-fuzz` runs all seeds, and inputs at random, on the stable compiler.
//! `cargo xtask fuzz` fuzzes in earnest: libFuzzer, with coverage and address sanitizer.
//!
//! Whatever it finds becomes a seed, together with the repair.
#![forbid(unsafe_code)]

mod input;
mod targets;

pub use sekisho_guest_tools::fuzz::channel as guest_channel;
pub use sekisho_netdomain::fuzzing::{
    arp_duplicate, beacon_answer, dhcp_reply, dot1x_status, handover, modem_answer, netlink,
    sim_usage, vici, wifi_networks,
};
pub use sekisho_status::fuzz::status_socket;
pub use sekisho_vmm::api::fuzzing::machine_socket;
pub use sekisho_vmm::chipset::fuzzing::{flash, fw_cfg, power_management, ps2, tpm};
pub use sekisho_vmm::display::fuzzing::display;
pub use sekisho_vmm::hda::fuzzing::hda;
pub use sekisho_vmm::nvme::fuzzing::nvme;
pub use sekisho_vmm::supply::uevent::fuzz as power_supply;
pub use sekisho_vmm::virtio::block::fuzzing::block;
pub use sekisho_vmm::virtio::fuzzing::{device, registers, tablet, virtqueue};
pub use targets::{
    control::control,
    frame_link::frame_link,
    gate::{guest_frame, guest_frame_v6, inner_packet, inner_packet_v6, resolver_segments},
    net_hdr::net_hdr,
    policy::policy,
    policy_words::policy_words,
    ring::ring,
    seat::{seat_messages, viewer_messages},
};

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the function, the corpus folder and the libFuzzer program.
    pub name: &'static str,
    /// Handles one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "arp_duplicate",
        run: arp_duplicate,
    },
    Target {
        name: "beacon_answer",
        run: beacon_answer,
    },
    Target {
        name: "block",
        run: block,
    },
    Target {
        name: "control",
        run: control,
    },
    Target {
        name: "device",
        run: device,
    },
    Target {
        name: "dhcp_reply",
        run: dhcp_reply,
    },
    Target {
        name: "display",
        run: display,
    },
    Target {
        name: "dot1x_status",
        run: dot1x_status,
    },
    Target {
        name: "flash",
        run: flash,
    },
    Target {
        name: "frame_link",
        run: frame_link,
    },
    Target {
        name: "fw_cfg",
        run: fw_cfg,
    },
    Target {
        name: "guest_channel",
        run: guest_channel,
    },
    Target {
        name: "guest_frame",
        run: guest_frame,
    },
    Target {
        name: "guest_frame_v6",
        run: guest_frame_v6,
    },
    Target {
        name: "handover",
        run: handover,
    },
    Target {
        name: "hda",
        run: hda,
    },
    Target {
        name: "inner_packet",
        run: inner_packet,
    },
    Target {
        name: "inner_packet_v6",
        run: inner_packet_v6,
    },
    Target {
        name: "machine_socket",
        run: machine_socket,
    },
    Target {
        name: "modem_answer",
        run: modem_answer,
    },
    Target {
        name: "net_hdr",
        run: net_hdr,
    },
    Target {
        name: "netlink",
        run: netlink,
    },
    Target {
        name: "nvme",
        run: nvme,
    },
    Target {
        name: "policy",
        run: policy,
    },
    Target {
        name: "policy_words",
        run: policy_words,
    },
    Target {
        name: "power_management",
        run: power_management,
    },
    Target {
        name: "power_supply",
        run: power_supply,
    },
    Target {
        name: "ps2",
        run: ps2,
    },
    Target {
        name: "registers",
        run: registers,
    },
    Target {
        name: "resolver_segments",
        run: resolver_segments,
    },
    Target {
        name: "ring",
        run: ring,
    },
    Target {
        name: "seat_messages",
        run: seat_messages,
    },
    Target {
        name: "sim_usage",
        run: sim_usage,
    },
    Target {
        name: "status_socket",
        run: status_socket,
    },
    Target {
        name: "tablet",
        run: tablet,
    },
    Target {
        name: "tpm",
        run: tpm,
    },
    Target {
        name: "vici",
        run: vici,
    },
    Target {
        name: "viewer_messages",
        run: viewer_messages,
    },
    Target {
        name: "virtqueue",
        run: virtqueue,
    },
    Target {
        name: "wifi_networks",
        run: wifi_networks,
    },
];
