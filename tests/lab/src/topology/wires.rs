//! The cables between the nodes, with the points where captures stand.

use super::{Point, Wire};

pub(super) fn all() -> Vec<Wire> {
    let wire = |name, a, b, switch, point| Wire {
        name,
        a,
        b,
        switch,
        point,
    };
    vec![
        wire(
            "cafe-router",
            ("walls", "cafe"),
            ("cafe", "lan"),
            Some("cafe-lan"),
            Point::P1,
        ),
        wire(
            "cafe-attacker",
            ("walls", "seat"),
            ("attacker", "lan"),
            Some("cafe-lan"),
            Point::P1,
        ),
        wire(
            "office-router",
            ("walls", "office"),
            ("office", "lan"),
            Some("office-lan"),
            Point::P1,
        ),
        wire(
            "internet-cafe",
            ("internet", "cafe"),
            ("cafe", "wan"),
            Some("exchange"),
            Point::P1,
        ),
        wire(
            "internet-gateway",
            ("internet", "gateway"),
            ("gateway", "wan"),
            Some("exchange"),
            Point::P1,
        ),
        wire(
            "gateway-lgwan",
            ("gateway", "lgwan"),
            ("lgwan", "core"),
            None,
            Point::P3,
        ),
        wire(
            "gateway-my-number",
            ("gateway", "mynumber"),
            ("mynumber", "core"),
            None,
            Point::P3,
        ),
        wire(
            "gateway-office",
            ("gateway", "office"),
            ("office", "core"),
            None,
            Point::P1,
        ),
    ]
}
