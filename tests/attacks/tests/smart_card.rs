//! A gateway to which the laptop proves itself by a key in a token, whose PIN the person types, or does
//! not: the real charon in its sandbox with `SoftHSM`, against Debian's `strongSwan`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sekisho_attacks::{
    Expects, Scene,
    asked::{answer_call, at_stage, no_page, say, wait_stage},
    card::{self, PIN},
    must,
    search::{in_memory, on_disk},
};
use sekisho_lab::{
    LaptopFiles, NetLaptop, Part, Recordings, Setup, UP_LIMIT, Who, address as at,
    oracle::count_frames,
};

/// From a wrong PIN, or the end of a tunnel, to the next asking: the machine's pause (2 s, then 4 s),
/// the policy's (1 s), and the start of charon.
const ASKED_AGAIN: Duration = Duration::from_secs(20);
/// From a card that is put in to what follows: the pause between two looks (5 s), and the start of
/// charon.
const NOTICED: Duration = Duration::from_secs(10);

fn scene() -> Option<Scene> {
    if card::no_token() {
        return None;
    }
    Scene::with_ipsec(at::GUEST)
}

fn laptop<'s>(scene: &'s Scene, within: &str, tamper: fn(&LaptopFiles)) -> NetLaptop<'s> {
    let setup = Setup {
        policy: Some(scene.lab.papers().policy_with_pin(within)),
        ..card::setup(false, tamper)
    };
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    laptop
}

/// The folder of the laptop's files.
fn files(scene: &Scene) -> PathBuf {
    scene.lab.dir().join("device")
}

/// How often the laptop's log says this.
fn told(laptop: &NetLaptop<'_>, what: &str) -> usize {
    let log = fs::read_to_string(laptop.log().log()).unwrap();
    log.matches(what).count()
}

/// How often the token was tried with a wrong PIN.
fn tried_wrong(laptop: &NetLaptop<'_>) -> usize {
    told(laptop, "failed: PIN_INCORRECT")
}

/// Frames from the laptop to the gateway's port of `IPsec`.
fn sealed(recordings: &Recordings) -> u64 {
    must(count_frames(must(recordings.get("eth0.from")), |frame| {
        frame.len() > 42
            && frame[23] == 17
            && frame[30..34] == at::GATEWAY_IKE.ip().octets()
            && frame[36..38] == 4500u16.to_be_bytes()
    }))
}

/// Tells the supervisor what the host's sleep hook would, and waits until it has heard it.
fn tell(laptop: &NetLaptop<'_>, signal: Signal, heard: &str) {
    let mark = laptop.log().mark();
    must(laptop.log().signal(signal));
    let found = |line: &str| line.contains(heard).then_some(());
    must(
        laptop
            .log()
            .wait_after(mark, heard, Duration::from_secs(5), found),
    );
}

fn answer(laptop: &NetLaptop<'_>, pin: &str) {
    let said = must(laptop.answer(Who::Person, pin));
    assert!(
        said.success() && said.stdout.contains("connected"),
        "{said}"
    );
}

/// The person types something that the card does not take, and is told.
fn answer_wrong(laptop: &NetLaptop<'_>, pin: &str) {
    let said = must(laptop.answer(Who::Person, pin));
    assert!(
        !said.success() && said.stderr.contains("it was not taken"),
        "{said}"
    );
}

#[test]
fn no_page_before_the_pin_and_the_page_after_it() {
    let Some(scene) = scene() else { return };
    let laptop = laptop(&scene, "3m", card::into_card);
    let id = wait_stage(&laptop, 0, "asked", UP_LIMIT);
    // Longer than an engine may take without a person, and nothing has failed.
    std::thread::sleep(Duration::from_secs(22));
    no_page(&laptop);
    let status = must(must(laptop.sekisho(&["status", "--lang", "en"])).ok()).stdout;
    assert!(
        status.contains("give your smart card PIN: sekisho answer"),
        "{status}"
    );
    let japanese = must(must(laptop.sekisho(&["status", "--lang", "ja"])).ok()).stdout;
    assert!(
        japanese.contains("IC カードの暗証番号を入力してください: sekisho answer"),
        "{japanese}"
    );
    let start = Instant::now();
    answer(&laptop, PIN);
    eprintln!("connected {:?} after the PIN", start.elapsed());
    scene.page(&laptop);
    let replayed = say(&laptop, &answer_call(id, PIN));
    assert!(
        replayed.contains("jp.sekisho.Laptop.NotAsked"),
        "{replayed}"
    );

    // It is in the memory of those two who need it, by which the search is known to find it, and
    // nowhere else.
    let (keeper, charon) = (must(laptop.pid(Part::Ike)), must(laptop.charon()));
    assert!(
        in_memory(charon, PIN),
        "charon has the PIN that it logs in with"
    );
    assert!(
        in_memory(keeper, PIN),
        "the engine keeps the PIN that opened"
    );
    for (name, pid) in [
        ("supervisor", laptop.log().id()),
        ("gate", must(laptop.pid(Part::Gate))),
        ("uplink", must(laptop.pid(Part::Uplink))),
    ] {
        assert!(
            !in_memory(pid, PIN),
            "the PIN is in the memory of the {name}"
        );
    }
    for pid in [keeper, charon] {
        for what in ["cmdline", "environ"] {
            let said = fs::read(format!("/proc/{pid}/{what}")).unwrap();
            assert!(!String::from_utf8_lossy(&said).contains(PIN), "{what}");
        }
    }
    assert!(!on_disk(scene.lab.dir(), PIN), "the PIN is in a file");
    fs::write(scene.lab.dir().join("planted"), PIN).unwrap();
    assert!(on_disk(scene.lab.dir(), PIN), "the search finds nothing");
    fs::remove_file(scene.lab.dir().join("planted")).unwrap();

    // A tunnel that ends comes back without a click.
    let mark = laptop.events().mark();
    must(laptop.kill_charon());
    must(laptop.wait_closed(mark, Duration::from_secs(2)));
    must(laptop.wait_tunnel(mark, ASKED_AGAIN));
    scene.page(&laptop);
    let asked = |mark: usize| {
        let events = laptop.events().all();
        events[mark..].iter().any(|event| at_stage(event, "asked"))
    };
    assert!(!asked(mark), "asked for what is known");
    // The engine that kept it does not.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Ike));
    wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    no_page(&laptop);
    answer(&laptop, PIN);
    scene.page(&laptop);
    // Nor is it kept for another gate.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Gate));
    wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    let keeper = must(laptop.pid(Part::Ike));
    assert!(!in_memory(keeper, PIN), "kept for another gate");
    answer(&laptop, PIN);
    must(laptop.wait_page(Duration::from_secs(10)));

    let recordings = scene.holds(&laptop, Expects::Beyond);
    assert!(sealed(&recordings) > 0, "nothing was sealed");
}

#[test]
fn nobody_types_the_pin_and_nothing_goes_out() {
    let Some(scene) = scene() else { return };
    let laptop = laptop(&scene, "5s", card::into_card);
    let id = wait_stage(&laptop, 0, "asked", UP_LIMIT);
    let mark = laptop.events().mark();
    wait_stage(&laptop, mark, "lapsed", NOTICED);
    // Who comes too late answers nothing.
    let late = say(&laptop, &answer_call(id, PIN));
    assert!(late.contains("jp.sekisho.Laptop.NotAsked"), "{late}");
    std::thread::sleep(Duration::from_secs(8));
    assert!(laptop.charon().is_err(), "it waits on");
    no_page(&laptop);
    // `no_page_before_the_pin_and_the_page_after_it` counts what goes out with it.
    let recordings = scene.holds(&laptop, Expects::Closed);
    assert_eq!(sealed(&recordings), 0, "the gateway was spoken to");
}

#[test]
fn a_wrong_pin_is_told_and_a_card_is_not_locked() {
    let Some(scene) = scene() else { return };
    let laptop = laptop(&scene, "3m", card::into_card);
    let (mut mark, mut id) = (0, 0);
    for wrong in ["31415926-hanafuda", "16180339-hanafuda"] {
        let asked = wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
        assert_ne!(id, asked, "the same asking");
        // The answer to an earlier asking is none to this one.
        let stale = say(&laptop, &answer_call(id, PIN));
        assert!(stale.contains("jp.sekisho.Laptop.NotAsked"), "{stale}");
        (mark, id) = (laptop.events().mark(), asked);
        answer_wrong(&laptop, wrong);
        for pid in [
            laptop.log().id(),
            must(laptop.pid(Part::Gate)),
            must(laptop.pid(Part::Ike)),
        ] {
            assert!(!in_memory(pid, wrong), "a wrong PIN is kept");
        }
    }
    assert_eq!(tried_wrong(&laptop), 2);
    wait_stage(&laptop, mark, "stopped", NOTICED);
    no_page(&laptop);
    let doctor = must(laptop.sekisho(&["doctor", "--lang", "en"]));
    assert!(
        doctor
            .stdout
            .contains("stopped before the card locks itself"),
        "{doctor}"
    );
    // Neither the person nor another network nor another gate brings a third try.
    let said = must(laptop.answer(Who::Person, PIN));
    assert!(!said.success() && said.stderr.contains("tell IT"), "{said}");
    let again = say(&laptop, r#"{"method":"jp.sekisho.Laptop.AskAgain"}"#);
    assert!(!again.contains("error"), "{again}");
    must(scene.lab.unplug(at::ETH0));
    must(scene.lab.plug(at::ETH0, sekisho_lab::Wall::Cafe));
    std::thread::sleep(Duration::from_secs(5));
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Gate));
    wait_stage(&laptop, mark, "stopped", ASKED_AGAIN);
    std::thread::sleep(Duration::from_secs(5));
    assert!(laptop.charon().is_err(), "the token is at work");
    let events = laptop.events().all();
    assert!(!events[mark..].iter().any(|event| at_stage(event, "asked")));
    assert_eq!(tried_wrong(&laptop), 2);
    no_page(&laptop);
    // As a restart of the laptop does.
    must(laptop.kill(Part::Ike));
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Gate));
    wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    answer(&laptop, PIN);
    must(laptop.wait_page(Duration::from_secs(10)));
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_wrong_pin_and_then_the_right_one() {
    let Some(scene) = scene() else { return };
    let laptop = laptop(&scene, "3m", card::into_card);
    // Each time the card counts anew.
    for _ in 0..3 {
        wait_stage(&laptop, 0, "asked", UP_LIMIT);
        let mark = laptop.events().mark();
        answer_wrong(&laptop, "31415926-hanafuda");
        wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
        answer(&laptop, PIN);
        must(laptop.wait_page(Duration::from_secs(10)));
        // After a sleep the person is asked again.
        let mark = laptop.events().mark();
        tell(&laptop, Signal::USR1, "the laptop is about to sleep");
        must(laptop.wait_closed(mark, Duration::from_secs(2)));
        std::thread::sleep(Duration::from_millis(500));
        let keeper = must(laptop.pid(Part::Ike));
        assert!(!in_memory(keeper, PIN), "kept while the laptop sleeps");
        assert!(laptop.charon().is_err(), "charon outlives the sleep");
        let mark = laptop.events().mark();
        tell(&laptop, Signal::USR2, "the laptop woke up");
        wait_stage(&laptop, mark, "asked", UP_LIMIT);
        no_page(&laptop);
    }
    assert_eq!(tried_wrong(&laptop), 3);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_card_that_is_not_in_its_reader_is_waited_for() {
    let Some(scene) = scene() else { return };
    let laptop = laptop(&scene, "3m", card::into_pulled_card);
    wait_stage(&laptop, 0, "absent", UP_LIMIT);
    let status = must(must(laptop.sekisho(&["status", "--lang", "en"])).ok()).stdout;
    assert!(
        status.contains("is not in its reader; put it in"),
        "{status}"
    );
    let doctor = must(laptop.sekisho(&["doctor", "--lang", "en"]));
    assert!(
        doctor
            .stdout
            .contains("Put the card that belongs to this laptop into its reader"),
        "{doctor}"
    );
    // Nobody is asked for its PIN, and nobody can give it.
    let said = must(laptop.answer(Who::Person, PIN));
    assert!(
        !said.success() && said.stderr.contains("not in its reader"),
        "{said}"
    );
    std::thread::sleep(Duration::from_secs(15));
    let asked = |mark: usize| {
        let events = laptop.events().all();
        events[mark..].iter().any(|event| at_stage(event, "asked"))
    };
    assert!(!asked(0));
    no_page(&laptop);
    // With a brake: one look each five seconds, and one for a path that came meanwhile, from either cable.
    let looks = told(&laptop, "is not there");
    let most = laptop.uptime().as_secs() / 5 + 3;
    assert!(
        (3..=usize::try_from(most).unwrap()).contains(&looks),
        "{looks} looks"
    );

    let mark = laptop.events().mark();
    let start = Instant::now();
    card::put_in(&files(&scene));
    wait_stage(&laptop, mark, "asked", NOTICED);
    eprintln!("asked {:?} after the card was put in", start.elapsed());
    answer(&laptop, PIN);
    scene.page(&laptop);

    // A tunnel that is up needs no card. The next one does, and the PIN was for the card that was in.
    card::pull(&files(&scene));
    scene.page(&laptop);
    let mark = laptop.events().mark();
    must(laptop.kill_charon());
    wait_stage(&laptop, mark, "absent", ASKED_AGAIN);
    let keeper = must(laptop.pid(Part::Ike));
    assert!(!in_memory(keeper, PIN), "kept for a card that is not there");
    no_page(&laptop);
    card::put_in(&files(&scene));
    wait_stage(&laptop, mark, "asked", NOTICED);
    // Pulled while the person types: the PIN was not tried, and that costs no try.
    for _ in 0..3 {
        card::pull(&files(&scene));
        let mark = laptop.events().mark();
        let said = must(laptop.answer(Who::Person, PIN));
        assert!(
            !said.success() && said.stderr.contains("not in its reader"),
            "{said}"
        );
        card::put_in(&files(&scene));
        wait_stage(&laptop, mark, "asked", NOTICED);
    }
    assert_eq!(tried_wrong(&laptop), 0);
    answer(&laptop, PIN);
    must(laptop.wait_page(Duration::from_secs(10)));
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_token_with_its_pin_in_a_file_is_taken_when_it_is_put_in() {
    let Some(scene) = scene() else { return };
    let setup = card::setup(true, |files| {
        card::into_token(files);
        card::pull(files.device.parent().unwrap());
    });
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    let absent = "the token with the laptop's key is not there";
    must(laptop.log().wait_line(absent, UP_LIMIT));
    std::thread::sleep(Duration::from_secs(5));
    no_page(&laptop);
    assert!(told(&laptop, absent) > 1, "it was tried once");
    card::put_in(&files(&scene));
    must(laptop.wait_tunnel(0, UP_LIMIT));
    scene.page(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_laptop_whose_pin_policy_asks_for_has_it_in_no_file() {
    let Some(scene) = scene() else { return };
    let setup = Setup {
        policy: Some(scene.lab.papers().policy_with_pin("3m")),
        ..card::setup(true, card::into_token)
    };
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    must(laptop.log().wait_line("take `pin` out of", UP_LIMIT));
    assert!(laptop.wait_tunnel(0, Duration::from_secs(3)).is_err());
    no_page(&laptop);
    scene.holds(&laptop, Expects::Closed);
}
