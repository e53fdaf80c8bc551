//! T28: gate and uplink are killed with SIGKILL at random points, a hundred times each, under traffic;
//! in all as often as `SEKISHO_KILLS` says.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, chatter, must, streams, times};
use sekisho_lab::Part;

/// A hundred of each.
const KILLS: usize = 200;

/// What the catalogue grants.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn t28_a_hundred_kills_leak_nothing_and_the_tunnel_is_back_each_time() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let mut ping = chatter(&laptop, 5);
    let mut streams = streams(&laptop, 2);

    let kills = times("SEKISHO_KILLS", KILLS);
    let mut outages = Vec::new();
    for kill in 0..kills {
        let mut random = [0; 3];
        must(getrandom::fill(&mut random));
        let part = if kill % 2 == 0 {
            Part::Gate
        } else {
            Part::Uplink
        };
        // The random point: anywhere in start, handshake, traffic.
        std::thread::sleep(Duration::from_millis(u64::from(random[1]) / 2));
        let mark = laptop.events().mark();
        let start = Instant::now();
        let mut killed = (part, must(laptop.kill(part)));
        if random[0] < 64 {
            // And one of them again while they start and shake hands.
            std::thread::sleep(Duration::from_millis(u64::from(random[2]) / 6));
            let again = if random[0] & 1 == 0 {
                Part::Gate
            } else {
                Part::Uplink
            };
            if let Ok(pid) = laptop.kill(again) {
                killed = (again, pid);
            }
        }
        let back = laptop.wait_tunnel_after_kill(mark, killed, BACK_WITHIN);
        assert!(
            back.is_ok(),
            "kill {kill} of {part:?}: {}",
            back.map_or_else(|e| e.to_string(), |_| String::new())
        );
        outages.push(start.elapsed());
        if kill % 20 == 19 {
            must(laptop.wait_page(BACK_WITHIN));
        }
    }
    outages.sort_unstable();
    eprintln!(
        "{kills} kills: back after {:?} (median), {:?} (p99), {:?} (longest)",
        outages[kills / 2],
        outages[(kills * 99 / 100).min(kills - 1)],
        outages[kills - 1]
    );
    must(laptop.wait_page(BACK_WITHIN));
    for traffic in [&mut ping, &mut streams] {
        let ended = must(traffic.wait(Duration::ZERO));
        assert!(ended.is_none(), "not all kills were under traffic");
    }
    scene.holds(&laptop, Expects::Tunnelled);
}
