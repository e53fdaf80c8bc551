//! A gateway that demands a one-time password: the real openconnect in its sandbox against Debian's
//! ocserv with liboath, a token of OATH's own tool, and a person who types, or does not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    time::{Duration, Instant},
};

use sekisho_attacks::{
    Expects, Scene,
    asked::{answer_call, at_stage, no_page, say, wait_stage},
    must,
    search::{holds, in_memory, on_disk},
};
use sekisho_lab::{NetLaptop, Part, Setup, UP_LIMIT, Who};

/// From a wrong answer to the next asking: the machine's pause (2 s, then 4 s), and two connections.
const ASKED_AGAIN: Duration = Duration::from_secs(20);

fn laptop<'s>(scene: &'s Scene, within: &str) -> NetLaptop<'s> {
    let setup = Setup {
        tls: true,
        policy: Some(scene.lab.papers().policy_with_otp(within)),
        ..Setup::default()
    };
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    laptop
}

/// What the token shows after this many presses.
fn token(scene: &Scene, pressed: u32) -> String {
    must(scene.lab.papers().one_time_password(pressed))
}

/// How often the gateway says this in its log.
fn told(scene: &Scene, what: &str) -> usize {
    let log = scene.lab.server("gateway-ocserv").unwrap().log();
    fs::read_to_string(log).unwrap().matches(what).count()
}

/// How often the gateway judged a password and found it wrong.
fn judged_wrong(scene: &Scene) -> usize {
    told(scene, "OTP auth failed")
}

fn connections(scene: &Scene) -> usize {
    told(scene, "TLS handshake completed")
}

#[test]
fn no_page_before_the_one_time_password_and_the_page_after_it() {
    let Some(scene) = Scene::with_otp() else {
        return;
    };
    let laptop = laptop(&scene, "3m");
    let id = wait_stage(&laptop, 0, "asked", UP_LIMIT);
    no_page(&laptop);
    // Longer than an engine may take without a person, and nothing has failed.
    std::thread::sleep(Duration::from_secs(22));
    assert!(laptop.openconnect().is_ok(), "the attempt was given up");
    no_page(&laptop);
    let status = must(must(laptop.sekisho(&["status", "--lang", "en"])).ok()).stdout;
    assert!(
        status.contains("not connected: waiting for your one-time password or PIN"),
        "{status}"
    );
    assert!(
        status.contains("give your one-time password: sekisho answer"),
        "{status}"
    );
    let japanese = must(must(laptop.sekisho(&["status", "--lang", "ja"])).ok()).stdout;
    assert!(
        japanese.contains("ワンタイムパスワードを入力してください: sekisho answer"),
        "{japanese}"
    );
    let doctor = must(laptop.sekisho(&["doctor", "--lang", "en"]));
    assert!(
        !doctor.success() && doctor.stdout.contains("Type `sekisho answer`"),
        "{doctor}"
    );

    let code = token(&scene, 0);
    let start = Instant::now();
    let said = must(laptop.answer(Who::Person, &code));
    assert!(
        said.success() && said.stdout.contains("connected"),
        "{said}"
    );
    eprintln!("connected {:?} after the answer", start.elapsed());
    scene.page(&laptop);

    // It is on no disk and in no memory of the laptop's, and the same searches find what is there.
    let own = format!("{}-{}", laptop.canary().hex(), std::process::id());
    fs::write(scene.lab.dir().join("planted"), &own).unwrap();
    let tokens = scene.lab.dir().join("ocserv-tokens");
    // liboath notes in its own file what it took last, on the gateway.
    let noted = fs::read(&tokens).unwrap();
    assert!(holds(&noted, &code), "liboath did not judge it");
    fs::remove_file(&tokens).unwrap();
    assert!(
        on_disk(scene.lab.dir(), &own),
        "the search of files finds nothing"
    );
    assert!(!on_disk(scene.lab.dir(), &code), "the answer is in a file");
    assert!(
        in_memory(std::process::id(), &code),
        "the search of memory finds nothing"
    );
    let openconnect = must(laptop.openconnect());
    for (name, pid) in [
        ("supervisor", laptop.log().id()),
        ("gate", must(laptop.pid(Part::Gate))),
        ("uplink", must(laptop.pid(Part::Uplink))),
        ("keeper", must(laptop.pid(Part::Tls))),
        ("openconnect", openconnect),
    ] {
        assert!(
            !in_memory(pid, &code),
            "the answer is in the memory of the {name}"
        );
    }
    // Nothing is asked any more, and the old answer is no answer.
    assert!(say(&laptop, &answer_call(id, &code)).contains("jp.sekisho.Laptop.NotAsked"));
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_wrong_one_is_refused_a_used_one_is_refused_and_a_fresh_one_is_taken() {
    let Some(scene) = Scene::with_otp() else {
        return;
    };
    let laptop = laptop(&scene, "3m");
    let first = wait_stage(&laptop, 0, "asked", UP_LIMIT);
    let wrong = "Wr0ng-needle-4711";
    let mark = laptop.events().mark();
    let said = must(laptop.answer(Who::Person, wrong));
    assert!(
        !said.success() && said.stderr.contains("it was not taken"),
        "{said}"
    );
    wait_stage(&laptop, mark, "refused", UP_LIMIT);
    no_page(&laptop);
    let second = wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    assert_ne!(first, second, "the same asking");
    // The answer to the first asking is none to the second.
    let late = say(&laptop, &answer_call(first, &token(&scene, 0)));
    assert!(late.contains("jp.sekisho.Laptop.NotAsked"), "{late}");
    assert_eq!(
        judged_wrong(&scene),
        1,
        "an answer was given to the gateway twice"
    );
    for pid in [
        laptop.log().id(),
        must(laptop.pid(Part::Gate)),
        must(laptop.pid(Part::Tls)),
    ] {
        assert!(!in_memory(pid, wrong), "a wrong answer is kept in memory");
    }
    assert!(
        !on_disk(scene.lab.dir(), wrong),
        "a wrong answer is in a file"
    );

    let code = token(&scene, 0);
    let said = must(laptop.answer(Who::Person, &code));
    assert!(said.success(), "{said}");
    scene.page(&laptop);

    // Whoever looked over the shoulder has nothing: the connection is new, and so is the password.
    let mark = laptop.events().mark();
    must(laptop.kill_openconnect());
    must(laptop.wait_closed(mark, Duration::from_secs(2)));
    wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    no_page(&laptop);
    let mark = laptop.events().mark();
    let said = must(laptop.answer(Who::Person, &code));
    assert!(
        !said.success() && said.stderr.contains("it was not taken"),
        "{said}"
    );
    no_page(&laptop);
    assert_eq!(judged_wrong(&scene), 2);
    wait_stage(&laptop, mark, "asked", ASKED_AGAIN);
    let said = must(laptop.answer(Who::Person, &token(&scene, 1)));
    assert!(said.success(), "{said}");
    scene.page(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn after_a_few_wrong_ones_the_gateway_is_left_alone() {
    let Some(scene) = Scene::with_otp() else {
        return;
    };
    let laptop = laptop(&scene, "3m");
    let mut mark = 0;
    for wrong in 1..=3 {
        wait_stage(&laptop, mark, "asked", UP_LIMIT);
        mark = laptop.events().mark();
        let said = must(laptop.answer(Who::Person, &format!("wrong-{wrong}")));
        assert!(!said.success(), "{said}");
    }
    wait_stage(&laptop, mark, "stopped", UP_LIMIT);
    assert_eq!(judged_wrong(&scene), 3);
    let before = connections(&scene);
    assert!(before >= 3, "the gateway tells of no connection at all");
    // Whoever asks for it all the same is told, and so is the doctor.
    let said = must(laptop.answer(Who::Person, &token(&scene, 0)));
    assert!(!said.success() && said.stderr.contains("tell IT"), "{said}");
    let again = say(&laptop, r#"{"method":"jp.sekisho.Laptop.AskAgain"}"#);
    assert!(!again.contains("error"), "{again}");
    let doctor = must(laptop.sekisho(&["doctor", "--lang", "en"]));
    assert!(
        doctor
            .stdout
            .contains("not taken, so it is not asked for a while"),
        "{doctor}"
    );
    std::thread::sleep(Duration::from_secs(10));
    assert!(laptop.openconnect().is_err(), "it goes on");
    no_page(&laptop);
    assert_eq!(judged_wrong(&scene), 3);
    assert_eq!(connections(&scene), before, "a connection to the gateway");
    scene.holds(&laptop, Expects::Closed);
}

#[test]
fn nobody_answers_and_nobody_is_asked_again_until_the_person_is_there() {
    let Some(scene) = Scene::with_otp() else {
        return;
    };
    let laptop = laptop(&scene, "5s");
    wait_stage(&laptop, 0, "asked", UP_LIMIT);
    let asked = Instant::now();
    let mark = laptop.events().mark();
    wait_stage(&laptop, mark, "lapsed", Duration::from_secs(10));
    eprintln!("given up after {:?}", asked.elapsed());
    // The policy's longest pause between tries is 5 s.
    std::thread::sleep(Duration::from_secs(8));
    assert!(laptop.openconnect().is_err(), "it waits on");
    let again = laptop.events().all()[mark..]
        .iter()
        .any(|event| at_stage(event, "asked"));
    assert!(!again, "asked again, and nobody is there");
    no_page(&laptop);
    let status = must(must(laptop.sekisho(&["status", "--lang", "en"])).ok()).stdout;
    assert!(
        status.contains("no one-time password was given; to connect: sekisho answer"),
        "{status}"
    );
    // They come back with a coffee.
    let said = must(laptop.answer(Who::Person, &token(&scene, 0)));
    assert!(said.success(), "{said}");
    scene.page(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn another_user_may_look_and_not_answer() {
    let Some(scene) = Scene::with_otp() else {
        return;
    };
    let laptop = laptop(&scene, "3m");
    let id = wait_stage(&laptop, 0, "asked", UP_LIMIT);
    let mark = laptop.events().mark();
    let code = token(&scene, 0);
    let said = must(laptop.answer(Who::Colleague, &code));
    assert!(
        !said.success() && said.stderr.contains("not among those who may answer"),
        "{said}"
    );
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        !laptop.events().all()[mark..]
            .iter()
            .any(|event| event.is("gate", "demand")),
        "it had an effect"
    );
    no_page(&laptop);
    // What cannot be an answer is none, whoever says so, and costs no try.
    for call in [
        answer_call(id, "75 52"),
        answer_call(id, ""),
        answer_call(id, &"7".repeat(65)),
        answer_call(id, "755\\n224"),
        answer_call(id + (1 << 32), "755224"),
    ] {
        let said = say(&laptop, &call);
        assert!(said.contains("InvalidParameter"), "{call}: {said}");
    }
    assert_eq!(judged_wrong(&scene), 0);
    let said = must(laptop.answer(Who::Person, &code));
    assert!(said.success(), "the very same, by the person: {said}");
    scene.page(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_gateway_that_does_not_ask_where_policy_demands_it_is_not_believed() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let laptop = laptop(&scene, "3m");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        no_page(&laptop);
    }
    let log = fs::read_to_string(laptop.log().log()).unwrap();
    assert!(
        log.contains("a tunnel without the second factor"),
        "the gateway was not reached: the test shows nothing"
    );
    assert!(laptop.wait_tunnel(0, Duration::from_millis(1)).is_err());
    scene.holds(&laptop, Expects::Closed);
}
