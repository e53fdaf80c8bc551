//! The SIM's monthly quota: what is spent stays spent, whoever is killed; then the SIM is slow, or
//! shut, as the policy says.

use std::time::{Duration, Instant};

use sekisho_attacks::{Download, Scene, must};
use sekisho_lab::{Event, NetLaptop, Part, Setup, UP_LIMIT, Wall, address as at};

/// One uplink: the cable `eth1` plays a modem that shows itself as an Ethernet card.
fn policy(scene: &Scene, over: &str) -> String {
    let sim = format!(
        "kind = \"sim\"\nrank = 1\ninterfaces = [\"{}\"]\nmonthly_quota = \"1MiB\"\n\
         warn_percent = [80]\nover_quota = {over}\n",
        at::ETH1
    );
    let policy = scene.lab.papers().policy();
    let wired = "kind = \"wired\"\nrank = 1\n";
    assert_eq!(policy.matches(wired).count(), 1);
    policy
        .replacen(wired, &sim, 1)
        .replacen("uplinks = [\"wired\"]", "uplinks = [\"sim\"]", 1)
        .replace("uplink = \"wired\" }", "uplink = \"sim\" }")
}

/// The laptop's cable is pulled, its modem has a cell.
fn start(scene: &Scene, over: &str) -> Setup {
    must(scene.lab.unplug(at::ETH0));
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    Setup {
        policy: Some(policy(scene, over)),
        ..Setup::default()
    }
}

fn quota(state: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.is("uplink", "quota") && event.text("state") == state
}

fn wait(laptop: &NetLaptop<'_>, mark: usize, state: &'static str) {
    must(laptop.wait_event(mark, state, Duration::from_secs(15), quota(state)));
}

/// Loads so many bytes and gives the time it took.
fn load(laptop: &NetLaptop<'_>, bytes: u32) -> Duration {
    let started = Instant::now();
    Download::start(laptop, bytes, 100_000_000).lives_on();
    started.elapsed()
}

const SAMPLE: u32 = 192 * 1024;
/// At 256 kbit/s the sample takes 6 s; the brake lets 96 KiB pass at once.
const SLOW: Duration = Duration::from_secs(2);

#[test]
fn a_spent_quota_slows_the_sim_also_after_a_kill() {
    let Some(scene) = Scene::cafe() else { return };
    let setup = start(&scene, "{ action = \"throttle\", rate = \"256kbit/s\" }");
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup));
    // The control: before the quota is spent the same sample is there at once.
    let quick = load(&laptop, SAMPLE);
    assert!(quick < SLOW, "{quick:?} with a fresh quota");
    let mark = laptop.events().mark();
    load(&laptop, 1 << 20);
    wait(&laptop, mark, "throttled");
    let slow = load(&laptop, SAMPLE);
    assert!(slow > SLOW, "{slow:?} with a spent quota");

    let mark = laptop.events().mark();
    must(laptop.kill(Part::Uplink));
    wait(&laptop, mark, "throttled");
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    let slow = load(&laptop, SAMPLE);
    assert!(slow > SLOW, "{slow:?} after a kill");
}

#[test]
fn a_spent_quota_shuts_the_sim_where_the_policy_says_so() {
    let Some(scene) = Scene::cafe() else { return };
    let setup = start(&scene, "{ action = \"refuse\" }");
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup));
    must(laptop.page(Duration::from_secs(10)));
    let mark = laptop.events().mark();
    let spent = must(laptop.guest_spawn(
        "spending",
        &[
            "curl",
            "-s",
            "-m",
            "20",
            "-o",
            "/dev/null",
            &format!("http://{}/download?rate=2000000", at::GROUPWARE),
        ],
    ));
    wait(&laptop, mark, "refused");
    must(laptop.wait_closed(mark, Duration::from_secs(10)));
    assert!(laptop.page(Duration::from_secs(2)).is_err());
    drop(spent);

    let mark = laptop.events().mark();
    must(laptop.kill(Part::Uplink));
    wait(&laptop, mark, "refused");
    let used = laptop.wait_event(mark, "a lease", Duration::from_secs(8), |event| {
        event.is("uplink", "uplink") && event.text("event") == "leased"
    });
    assert!(used.is_err(), "used after a kill: {used:?}");
}
