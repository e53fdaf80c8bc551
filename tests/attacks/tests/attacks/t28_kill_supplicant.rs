//! T28: the wired supplicant is killed with SIGKILL at random points, under traffic at a desk whose
//! switch demands 802.1X; as often as `SEKISHO_KILLS` says.
//!
//! Each kill ends the proof of the office at once, and the tunnel goes round by the gateway's outside;
//! the next supplicant authenticates the port, and the office is proven anew.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, chatter, must, times};
use sekisho_lab::{
    NetLaptop, Setup, address as at,
    dot1x::{Authenticator, Dot1xPapers, SERVER},
};

/// A kill takes some 800 ms.
const KILLS: usize = 20;
/// What the catalogue grants.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn t28_a_killed_supplicant_leaks_nothing_and_the_office_is_back_each_time() {
    let Some(scene) = Scene::cafe() else { return };
    let papers = must(Dot1xPapers::generate(SERVER));
    must(scene.lab.unplug(at::ETH0));
    let _wall = must(Authenticator::plug(&scene.lab, at::ETH1, &papers));
    let setup = Setup {
        dot1x: Some(papers),
        ..Setup::default()
    };
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup));
    scene.placed(&laptop, 0, "onprem");
    let mut ping = chatter(&laptop, 20);

    let kills = times("SEKISHO_KILLS", KILLS);
    let (mut ways, mut offices) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        let mut random = [0; 2];
        must(getrandom::fill(&mut random));
        // The random point: in the exchange, in its first looks, long after.
        std::thread::sleep(Duration::from_millis(u64::from(random[0]) / 2));
        let mark = laptop.events().mark();
        let start = Instant::now();
        must(laptop.kill_supplicant());
        // First the way round by the gateway's outside, then the office.
        if let Err(error) = laptop.wait_tunnel(mark, BACK_WITHIN) {
            panic!("kill {kill}: {error}");
        }
        ways.push(start.elapsed());
        let back = laptop.wait_event(mark, "the office again", BACK_WITHIN, |event| {
            event.is("gate", "situation") && event.text("place") == "onprem"
        });
        if let Err(error) = back {
            panic!("kill {kill}: {error}");
        }
        offices.push(start.elapsed());
        if kill % 20 == 19 {
            must(laptop.wait_page(BACK_WITHIN));
        }
    }
    for (what, mut times) in [("a way out", ways), ("the office", offices)] {
        times.sort_unstable();
        let at = |part: usize| times[(kills * part / 100).min(kills - 1)];
        eprintln!(
            "{kills} kills of wpa_supplicant: {what} again after {:?} (median), {:?} (p99), {:?} (longest)",
            at(50),
            at(99),
            at(100)
        );
    }
    must(laptop.wait_page(BACK_WITHIN));
    assert!(
        must(ping.wait(Duration::ZERO)).is_none(),
        "not all kills were under traffic"
    );
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}
