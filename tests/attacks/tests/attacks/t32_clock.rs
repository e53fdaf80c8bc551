//! T32: the clock's battery is empty (1970), the clock is far ahead (2100), it jumps while the gate
//! serves. The gate alone asks what time it is; Debian's libfaketime tells it.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, Part, Setup, UP_LIMIT, programs};

/// A folder of the programs under test, in which the gate and the uplink see the clock that the file
/// `clock` names each time they are started.
struct Clock {
    folder: PathBuf,
}

impl Clock {
    fn new(scene: &Scene) -> Self {
        let folder = scene.lab.dir().join("clock-programs");
        must(std::fs::create_dir_all(&folder));
        let real = must(programs());
        for program in ["sekisho-tapjoint", "sekisho-supervisor"] {
            must(std::os::unix::fs::symlink(
                real.join(program),
                folder.join(program),
            ));
        }
        let wrapper = folder.join("sekisho-netdomain");
        let text = format!(
            "#!/bin/sh\n. '{}/clock'\nexec '{}' \"$@\"\n",
            folder.display(),
            real.join("sekisho-netdomain").display()
        );
        must(std::fs::write(&wrapper, text));
        must(std::fs::set_permissions(
            &wrapper,
            std::fs::Permissions::from_mode(0o755),
        ));
        let clock = Self { folder };
        clock.is_right();
        // Where libfaketime keeps something; it goes with the lab.
        scene.run("laptop", &["mount", "-t", "tmpfs", "clock", "/dev/shm"]);
        clock
    }

    /// The machine's own.
    fn is_right(&self) {
        must(std::fs::write(self.folder.join("clock"), ""));
    }

    /// What faketime(1) calls it; `more` are further settings of the library's.
    fn is(&self, time: &str, more: &str) {
        let text = format!(
            "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1)\n\
             export FAKETIME='{time}' FAKETIME_DONT_FAKE_MONOTONIC=1\n{more}\n"
        );
        must(std::fs::write(self.folder.join("clock"), text));
    }

    /// A laptop that is on, at this clock.
    fn laptop<'s>(&self, scene: &'s Scene) -> NetLaptop<'s> {
        let setup = Setup {
            programs: Some(self.folder.clone()),
            ..Setup::default()
        };
        must(NetLaptop::start_up(&scene.lab, &setup))
    }
}

#[test]
fn t32_an_empty_battery_is_no_dead_end_and_a_clock_far_ahead_is_closed() {
    let Some(scene) = Scene::cafe() else { return };
    let clock = Clock::new(&scene);
    let laptop = clock.laptop(&scene);
    must(laptop.wait_page(UP_LIMIT));

    // 1970: the policy's own date and the last handshake's are the floor, so the gateway, which
    // knows a newer handshake, is not asked with an older one.
    clock.is("@1970-01-02 00:00:00", "");
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Gate));
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));

    // 2100: the policy has long expired.
    clock.is("@2100-01-01 00:00:00", "");
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    must(laptop.kill(Part::Gate));
    let message = must(
        laptop
            .log()
            .wait_after(line, "the reason", UP_LIMIT, |line| {
                line.contains("ERROR").then(|| line.to_owned())
            }),
    );
    assert!(message.contains("expired"), "{message}");
    eprintln!("{message}");
    let page = laptop.page(Duration::from_secs(2));
    assert!(page.is_err(), "{page:?}");
    let opened = laptop
        .events()
        .wait_after(mark, Duration::from_secs(2), |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
    assert!(opened.is_none(), "{opened:?}");

    // The battery is replaced; nothing that was remembered meanwhile is in the way.
    clock.is_right();
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t32_a_clock_that_jumps_closes_and_a_new_handshake_opens() {
    let Some(scene) = Scene::cafe() else { return };
    let clock = Clock::new(&scene);
    // Two hours ahead after twelve seconds, and back again after twenty-four.
    clock.is(
        "+2h",
        "export FAKETIME_START_AFTER_SECONDS=12 FAKETIME_STOP_AFTER_SECONDS=24",
    );
    let laptop = clock.laptop(&scene);
    let mut since = 0;
    for way in ["ahead", "back"] {
        let doubted = must(laptop.wait_event(0, way, Duration::from_secs(40), |event| {
            let reason = "the clock jumped or the laptop slept";
            event.at_ms > since && event.is("gate", "situation") && event.text("reason") == reason
        }));
        since = doubted.at_ms;
        let again = must(laptop.wait_event(0, "tunnelled again", UP_LIMIT, |event| {
            event.at_ms >= since
                && event.is("gate", "situation")
                && event.text("situation") == "tunnelled"
        }));
        eprintln!("{way}: open again after {} ms", again.at_ms - since);
        must(laptop.wait_page(UP_LIMIT));
    }
    scene.holds(&laptop, Expects::Tunnelled);
}
