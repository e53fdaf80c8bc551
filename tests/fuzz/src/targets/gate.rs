//! What the guest, and who answers it through the tunnel, send to the gate.

use std::sync::LazyLock;

use sekisho_netdomain::fuzzing;
use sekisho_policy::Draft;

/// The sample policy, whose domains the guest asks for.
static POLICY: LazyLock<Option<Draft>> =
    LazyLock::new(|| Draft::parse("sample", include_bytes!("../../corpus/policy/sample")).ok());

/// The same with a network of IPv6.
static POLICY_V6: LazyLock<Option<Draft>> = LazyLock::new(|| {
    let text = include_str!("../../corpus/policy/sample").replacen(
        "\"10.250.0.0/16\"]",
        "\"10.250.0.0/16\", \"2001:db8:12::/48\"]",
        1,
    );
    Draft::parse("sample", text.as_bytes()).ok()
});

fn policy_v6() -> &'static sekisho_policy::Policy {
    let policy = POLICY_V6.as_ref().expect("the sample policy is good");
    policy.policy()
}

fn policy() -> &'static sekisho_policy::Policy {
    POLICY.as_ref().expect("the sample policy is good").policy()
}

/// A frame of the guest, its `virtio_net_hdr` first.
pub fn guest_frame(data: &[u8]) {
    fuzzing::guest_frame(policy(), data);
}

/// A question of the guest (16 bits of length before it) and its answer.
pub fn inner_packet(data: &[u8]) {
    fuzzing::inner_packet(policy(), data);
}

/// Segments of connections to the resolver.
pub fn resolver_segments(data: &[u8]) {
    fuzzing::resolver_segments(policy(), data);
}

/// A frame of a guest that has IPv6.
pub fn guest_frame_v6(data: &[u8]) {
    fuzzing::guest_frame_v6(policy_v6(), data);
}

/// A packet of IPv6 out of the tunnel, and a question and its answer.
pub fn inner_packet_v6(data: &[u8]) {
    fuzzing::inner_packet_v6(policy_v6(), data);
}
