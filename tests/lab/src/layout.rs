//! Lays a [`Topology`] out in namespaces: one `ip -batch` and at most one `nft -f` a node.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    LabError, Netns,
    process::Launcher,
    topology::{Hop, Node, Topology},
};

/// How long one configuration command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Makes a namespace for each node and lays wires, addresses, routes and rules.
pub(crate) fn lay_out(
    world: &Topology,
    launcher: &Launcher,
    dir: &Path,
) -> Result<BTreeMap<&'static str, Netns>, LabError> {
    let mut spaces = BTreeMap::new();
    for node in &world.nodes {
        let space = Netns::create().map_err(LabError::io("make a network namespace"))?;
        let forward = if node.forwards { "1" } else { "0" };
        space
            .sysctls(&[
                // No IPv6 of the lab's own: what is seen on a wire then is the laptop's.
                ("ipv6/conf/all/disable_ipv6", "1"),
                ("ipv6/conf/default/disable_ipv6", "1"),
                ("ipv4/ip_forward", forward),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                // The sink answers pings for the whole world.
                ("ipv4/icmp_ratelimit", "0"),
            ])
            .map_err(LabError::io("set up a network namespace"))?;
        // Where the kernel has br_netfilter, a switch would hand its frames to the node's rules.
        let _ = space.sysctls(&[("bridge/bridge-nf-call-iptables", "0")]);
        spaces.insert(node.name, space);
    }
    for wire in &world.wires {
        let (near, far) = (&spaces[wire.a.0], &spaces[wire.b.0]);
        let line = format!(
            "link add {} type veth peer name {} netns {}\n",
            wire.a.1,
            wire.b.1,
            far.path().display()
        );
        ip_batch(launcher, near, dir, wire.name, &line)?;
    }
    for node in &world.nodes {
        let space = &spaces[node.name];
        if let Some(rules) = node.rules {
            let file = dir.join(format!("{}.nft", node.name));
            std::fs::write(&file, rules).map_err(LabError::io("write nftables rules"))?;
            let mut nft = space.command("nft");
            nft.arg("-f").arg(&file);
            launcher.run(nft, COMMAND_LIMIT)?.ok()?;
        }
        ip_batch(launcher, space, dir, node.name, &node_commands(world, node))?;
    }
    Ok(spaces)
}

/// The `ip` commands of one node, after all cables are there.
fn node_commands(world: &Topology, node: &Node) -> String {
    let mut text = String::from("link set lo up\n");
    for switch in &node.switches {
        let _ = writeln!(
            text,
            "link add {switch} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
             link set {switch} up"
        );
    }
    for wire in &world.wires {
        if wire.a.0 == node.name {
            if let Some(switch) = wire.switch {
                let _ = writeln!(text, "link set {} master {switch}", wire.a.1);
            }
            let _ = writeln!(text, "link set {} up", wire.a.1);
        }
        if wire.b.0 == node.name {
            let _ = writeln!(text, "link set {} up", wire.b.1);
        }
    }
    for (interface, address) in &node.addresses {
        let _ = writeln!(text, "addr add {address} dev {interface}");
    }
    for (to, hop) in &node.routes {
        let _ = match hop {
            Hop::Via(router) => writeln!(text, "route add {to} via {router}"),
            // In the main table, so that the links' own prefixes stay more specific.
            Hop::Myself => writeln!(text, "route add local {to} dev lo table main"),
        };
    }
    text
}

/// Runs lines of `ip` commands in a namespace.
pub(crate) fn ip_batch(
    launcher: &Launcher,
    space: &Netns,
    dir: &Path,
    name: &str,
    lines: &str,
) -> Result<(), LabError> {
    let file = dir.join(format!("{name}.ip"));
    std::fs::write(&file, lines).map_err(LabError::io("write ip commands"))?;
    let mut ip = space.command("ip");
    ip.arg("-batch").arg(&file);
    launcher.run(ip, COMMAND_LIMIT)?.ok()?;
    Ok(())
}

/// Runs a filter: gives `input` to a program and takes its output (`wg pubkey`).
pub(crate) fn filter(program: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
    let start = |source| LabError::Start {
        program: program.to_owned(),
        command: format!("{program} {arguments:?}"),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(start)?;
    }
    let output = child.wait_with_output().map_err(start)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
