//! T29 (without KVM): the gate dies, and what stands in the VMM's place. The guest sees its link go
//! down, never a way round, and both come back by themselves.

use std::time::Duration;

use sekisho_attacks::{Download, Expects, Scene, must};
use sekisho_lab::{Event, Part, UP_LIMIT};

fn link(event: &Event, up: bool) -> bool {
    event.is("vmm", "link") && event.flag("up") == Some(up)
}

#[test]
fn t29_the_guest_sees_a_link_event_and_nothing_else() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let download = Download::start(&laptop, 2_000_000, 400_000);

    // The gate: link down, link up, tunnel up; the guest's connection lives.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Gate));
    must(laptop.wait_event(mark, "link down", UP_LIMIT, |event| link(event, false)));
    must(laptop.wait_event(mark, "link up", UP_LIMIT, |event| link(event, true)));
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    download.lives_on();

    // What joins the guest: its NIC is gone with it, so nothing is left to go round by. A fresh one
    // comes, and the guest boots on it.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Vmm));
    must(laptop.wait_event(mark, "link up", UP_LIMIT, |event| link(event, true)));
    must(laptop.plug_guest());
    must(laptop.wait_page(Duration::from_secs(20)));
    scene.holds(&laptop, Expects::Tunnelled);
}
