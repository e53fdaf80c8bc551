//! T23: two cables are pulled and plugged in again and again under load, always the one that carries
//! the tunnel. The catalogue says a thousand times; here it is as often as `SEKISHO_FLAPS` says.

use std::{
    thread,
    time::{Duration, Instant},
};

use sekisho_attacks::{Expects, Scene, must, streams, times};
use sekisho_lab::{NetLaptop, Prober, Wall, address as at};

/// Some three minutes.
const FLAPS: usize = 100;

/// What the catalogue grants to the median, here to each.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// The interface that carries the tunnel, as the gate last said.
fn port_in_use(laptop: &NetLaptop<'_>) -> String {
    let all = laptop.events().all();
    let last = all
        .iter()
        .rfind(|event| event.is("gate", "situation") && event.text("situation") == "tunnelled");
    last.map_or_else(
        || at::ETH0.to_owned(),
        |event| event.text("port").to_owned(),
    )
}

fn figures(what: &str, outages: &mut [Duration]) {
    outages.sort_unstable();
    let at = |percent: usize| outages.get(outages.len() * percent / 100);
    if let (Some(median), Some(slow), Some(longest)) = (at(50), at(99), outages.last()) {
        eprintln!(
            "{} flaps {what}: without an answer for {median:?} (median), {slow:?} (99th of a \
             hundred), {longest:?} (longest)",
            outages.len()
        );
    }
}

#[test]
fn t23_flapping_carriers_leak_nothing_and_the_tunnel_is_back_each_time() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    must(lab.plug(at::ETH1, Wall::Cafe));
    let laptop = scene.laptop();
    let flaps = times("SEKISHO_FLAPS", FLAPS);
    let mut streams = streams(&laptop, 5);
    let prober = must(Prober::open(&laptop));
    let marks = prober.during(|| flap(&scene, &laptop, &prober, flaps));
    let end = Instant::now();
    let (mut moved, mut alone) = (Vec::new(), Vec::new());
    for (at, (pulled, other)) in marks.iter().enumerate() {
        let until = marks.get(at + 1).map_or(end, |next| next.0);
        let outages = if *other { &mut moved } else { &mut alone };
        outages.push(prober.outage(*pulled, until));
    }
    figures("with another cable ready", &mut moved);
    figures("without", &mut alone);
    let ended = must(streams.wait(Duration::ZERO));
    assert!(ended.is_none(), "not all flaps were under load");
    must(laptop.wait_page(BACK_WITHIN));
    scene.holds(&laptop, Expects::Tunnelled);
}

/// Does it; when each cable was pulled, and whether the other one was ready.
fn flap(
    scene: &Scene,
    laptop: &NetLaptop<'_>,
    prober: &Prober,
    flaps: usize,
) -> Vec<(Instant, bool)> {
    let lab = &scene.lab;
    let mut marks = Vec::new();
    let mut ready = true;
    for flap in 0..flaps {
        let mut random = [0; 3];
        must(getrandom::fill(&mut random));
        let port = port_in_use(laptop);
        let mark = laptop.events().mark();
        marks.push((Instant::now(), ready));
        must(lab.unplug(&port));
        thread::sleep(Duration::from_millis(u64::from(random[0]) / 4));
        let plugged = Instant::now();
        must(lab.plug(&port, Wall::Cafe));
        assert!(
            prober.wait(plugged, BACK_WITHIN),
            "flap {flap} of {port}: {}",
            laptop.events().tail()
        );
        // One in four times the next cable is pulled before this one has its lease again.
        ready = random[1] >= 64;
        if ready {
            let leased = laptop.events().wait_after(mark, BACK_WITHIN, |event| {
                event.is("uplink", "uplink")
                    && event.text("port") == port
                    && event.text("event") == "leased"
            });
            assert!(
                leased.is_some(),
                "flap {flap}: no lease on {port}: {}",
                laptop.events().tail()
            );
        }
        thread::sleep(Duration::from_millis(u64::from(random[2])));
    }
    marks
}
