//! Draws a topology: as text for a terminal, as SVG for a page.

use std::fmt::Write as _;

use crate::topology::{Answer, Cafe, Node, Service, Topology};

/// The world as text: each node with its addresses and services, then each wire.
pub fn draw() -> String {
    let world = Topology::new(&Cafe::default());
    let mut text = String::from("the world outside the laptop\n");
    for node in &world.nodes {
        let _ = writeln!(text, "\n[{}] {}", node.name, node.about);
        for line in details(node) {
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push_str("\nwires (each is captured at its first end)\n");
    for cable in &world.cables {
        let _ = writeln!(
            text,
            "    laptop {} ═══ {} (P1, each direction apart)",
            cable.interface,
            cable.wall.switch()
        );
    }
    for wire in &world.wires {
        let _ = writeln!(
            text,
            "    {} {} ─── {} {} ({}, {:?})",
            wire.a.0,
            wire.switch.unwrap_or(wire.a.1),
            wire.b.0,
            wire.b.1,
            wire.name,
            wire.point
        );
    }
    text
}

fn details(node: &Node) -> Vec<String> {
    let mut lines: Vec<String> = node
        .switches
        .iter()
        .map(|switch| format!("switch {switch}"))
        .collect();
    lines.extend(
        node.addresses
            .iter()
            .map(|(interface, address)| format!("{interface} {address}")),
    );
    for service in &node.services {
        match service {
            Service::Dnsmasq(options) => {
                let dhcp = options.iter().any(|line| line.starts_with("dhcp-range"));
                let what = if dhcp { "DHCP and DNS" } else { "DNS" };
                lines.push(format!("{what} (dnsmasq)"));
            }
            Service::Nginx(servers) => lines.extend(
                servers
                    .split("listen ")
                    .skip(1)
                    .filter_map(|rest| rest.split([' ', ';']).next())
                    .map(|address| format!("web {address} (nginx)")),
            ),
            Service::WireGuard { inner, port } => {
                lines.push(format!("WireGuard udp {port}"));
                lines.push(format!("inside the tunnel {inner}"));
            }
            Service::Answer(Answer::Sink) => lines.push("a sink for every other address".into()),
            Service::Answer(Answer::Ntp(at)) => lines.push(format!("time {at}")),
            Service::Answer(Answer::Greeting(at, _)) => lines.push(format!("tcp {at}")),
            Service::Answer(Answer::Discard(at)) => lines.push(format!("uploads {at}")),
        }
    }
    lines
}

const COLUMN: usize = 330;
const ROW: usize = 310;
const WIDTH: usize = 280;
const HEIGHT: usize = 265;
const MARGIN: usize = 20;

/// The world as an SVG picture.
pub fn draw_svg() -> String {
    let world = Topology::new(&Cafe::default());
    let corner = |node: &Node| {
        (
            MARGIN + usize::from(node.place.0) * COLUMN,
            MARGIN + usize::from(node.place.1) * ROW,
        )
    };
    let (columns, rows) = world.nodes.iter().fold((0, 0), |(columns, rows), node| {
        (
            columns.max(usize::from(node.place.0) + 1),
            rows.max(usize::from(node.place.1) + 1),
        )
    });
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>rect{{fill:#f6f4ee;stroke:#445}}line{{stroke:#445;stroke-width:2}}\
         .name{{font-weight:bold;font-size:15px}}.about{{fill:#667}}</style>\n",
        columns * COLUMN,
        rows * ROW
    );
    for wire in &world.wires {
        let (Some(a), Some(b)) = (world.node(wire.a.0), world.node(wire.b.0)) else {
            continue;
        };
        let ((ax, ay), (bx, by)) = (corner(a), corner(b));
        let _ = writeln!(
            svg,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"><title>{}</title></line>",
            ax + WIDTH / 2,
            ay + HEIGHT / 2,
            bx + WIDTH / 2,
            by + HEIGHT / 2,
            wire.name
        );
    }
    for node in &world.nodes {
        let (x, y) = corner(node);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>\n\
             <text class=\"about\" x=\"{}\" y=\"{}\">{}</text>",
            x + 12,
            y + 24,
            node.name,
            x + 12,
            y + 42,
            node.about
        );
        for (row, line) in details(node).iter().enumerate() {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\">{line}</text>",
                x + 12,
                y + 64 + row * 17
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_and_wire_is_drawn() {
        let (text, svg) = (draw(), draw_svg());
        let world = Topology::new(&Cafe::default());
        for node in &world.nodes {
            assert!(text.contains(&format!("[{}]", node.name)));
            assert!(svg.contains(&format!(">{}</text>", node.name)));
        }
        for wire in &world.wires {
            assert!(text.contains(wire.name) && svg.contains(wire.name));
        }
    }
}
