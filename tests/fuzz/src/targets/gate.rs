//! What the guest, and who answers it through the tunnel, send to the gate.

use std::sync::LazyLock;

use sekisho_netdomain::fuzzing;
use sekisho_policy::Draft;

/// The sample policy, whose domains the guest asks for.
static POLICY: LazyLock<Option<Draft>> =
    LazyLock::new(|| Draft::parse("sample", include_bytes!("../../corpus/policy/sample")).ok());

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
