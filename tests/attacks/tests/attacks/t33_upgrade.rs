//! T33: new programs are put in place while a guest talks, an upgrade breaks off in the middle, and
//! somebody puts back what is older.
//!
//! The programs that the supervisor starts are copies in a folder of their own, so that they can be
//! replaced as a package would: the new file beside the old one, and a rename.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sekisho_attacks::{Download, Expects, Scene, must};
use sekisho_lab::{NetLaptop, Part, Setup, programs};

const NETDOMAIN: &str = "sekisho-netdomain";
/// The supervisor's longest pause between two starts, and a handshake.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// As long as several starts in a row take.
const PATIENCE: Duration = Duration::from_secs(4);

/// The folder of installed programs.
struct Installed {
    folder: PathBuf,
    policy: String,
}

impl Installed {
    fn new(scene: &Scene) -> Self {
        let folder = scene.lab.dir().join("installed");
        must(fs::create_dir_all(&folder));
        let real = must(programs());
        for program in [NETDOMAIN, "sekisho-tapjoint", "sekisho-supervisor"] {
            must(fs::copy(real.join(program), folder.join(program)));
        }
        // Once: another one of the same version would be refused, and it says when it was issued.
        let policy = scene.lab.papers().policy();
        Self { folder, policy }
    }

    fn program(&self) -> PathBuf {
        self.folder.join(NETDOMAIN)
    }

    /// What a file of the next version is like: other bytes (an ELF file may end in anything).
    fn next_version() -> Vec<u8> {
        let mut bytes = must(fs::read(must(programs()).join(NETDOMAIN)));
        bytes.extend_from_slice(b"the next version");
        bytes
    }

    /// Replaces the program in one step.
    fn put(&self, bytes: &[u8], mode: u32) {
        let fresh = self.folder.join("fresh");
        must(fs::write(&fresh, bytes));
        must(fs::set_permissions(
            &fresh,
            fs::Permissions::from_mode(mode),
        ));
        must(fs::rename(&fresh, self.program()));
    }

    fn laptop<'s>(&self, scene: &'s Scene) -> NetLaptop<'s> {
        let setup = Setup {
            programs: Some(self.folder.clone()),
            policy: Some(self.policy.clone()),
            ..Setup::default()
        };
        must(NetLaptop::start_up(&scene.lab, &setup))
    }

    /// Whether a process runs the file that is in place now.
    fn runs(&self, laptop: &NetLaptop<'_>, part: Part) -> bool {
        let pid = must(laptop.pid(part));
        let running = must(fs::read_link(format!("/proc/{pid}/exe")));
        running == self.program()
    }
}

/// Ends a part as a restart of its unit does, and waits for the tunnel after it.
fn restart(laptop: &NetLaptop<'_>, part: Part, limit: Duration) {
    let mark = laptop.events().mark();
    must(laptop.kill(part));
    must(laptop.wait_tunnel(mark, limit));
}

#[test]
fn t33_new_programs_in_place_leak_nothing_and_connections_live() {
    let Some(scene) = Scene::cafe() else { return };
    let installed = Installed::new(&scene);
    let laptop = installed.laptop(&scene);
    let download = Download::start(&laptop, 8_000_000, 800_000);
    for part in [Part::Gate, Part::Uplink] {
        assert!(installed.runs(&laptop, part), "{part:?}");
    }
    installed.put(&Installed::next_version(), 0o755);
    for part in [Part::Uplink, Part::Gate] {
        assert!(
            !installed.runs(&laptop, part),
            "{part:?} is of the old file"
        );
        restart(&laptop, part, BACK_WITHIN);
        assert!(installed.runs(&laptop, part), "{part:?} is of the new file");
        must(laptop.wait_page(BACK_WITHIN));
    }
    download.lives_on();

    scene.holds(&laptop, Expects::Tunnelled);
}

/// What an upgrade that broke off leaves in the program's place.
type Breaks<'b> = &'b dyn Fn(&Path);

#[test]
fn t33_an_upgrade_that_broke_off_is_closed_or_old_and_is_mended_by_the_next() {
    let Some(scene) = Scene::cafe() else { return };
    let installed = Installed::new(&scene);
    let laptop = installed.laptop(&scene);
    let whole = Installed::next_version();
    // Debugging information may fill the rear of the file, without which it is whole.
    let half = whole[..whole.len() / 10].to_vec();

    // Killed before the rename: half a file beside the old program changes nothing.
    must(fs::write(installed.folder.join("fresh"), &half));
    restart(&laptop, Part::Gate, BACK_WITHIN);
    must(laptop.wait_page(BACK_WITHIN));

    // A program cut short, none of its bytes, one that may not be run, and none, in its place.
    let broken: [(&str, Breaks<'_>); 4] = [
        ("cut short", &|_| installed.put(&half, 0o755)),
        ("empty", &|_| installed.put(b"", 0o755)),
        ("not to be run", &|_| installed.put(&whole, 0o644)),
        ("missing", &|program| must(fs::remove_file(program))),
    ];
    for (what, breaks) in broken {
        breaks(&installed.program());
        let mark = laptop.events().mark();
        must(laptop.kill(Part::Gate));
        let open = laptop.events().wait_after(mark, PATIENCE, |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
        assert!(open.is_none(), "{what}: {open:?}");
        assert!(
            laptop.page(Duration::from_secs(1)).is_err(),
            "{what}: a page"
        );
        // The next upgrade mends it, and nobody has to press anything.
        let mark = laptop.events().mark();
        installed.put(&whole, 0o755);
        must(laptop.wait_tunnel(mark, BACK_WITHIN));
        must(laptop.wait_page(BACK_WITHIN));
        eprintln!("{what}: closed, and back once it was whole");
    }
    scene.holds(&laptop, Expects::Tunnelled);
}

/// An upgrade that is killed at any moment leaves the old program or the new one.
#[test]
fn t33_an_upgrade_killed_at_random_moments_leaves_one_whole_program() {
    const ROUNDS: u32 = 8;
    let Some(scene) = Scene::cafe() else { return };
    let installed = Installed::new(&scene);
    let laptop = installed.laptop(&scene);
    let (old, new) = (installed.folder.join("old"), installed.folder.join("new"));
    must(fs::copy(installed.program(), &old));
    must(fs::write(&new, Installed::next_version()));
    must(fs::set_permissions(&new, fs::Permissions::from_mode(0o755)));
    let script =
        "while :; do for v in old new; do cp $v fresh && mv fresh sekisho-netdomain; done; done";
    let folder = installed.folder.display().to_string();
    for round in 0..ROUNDS {
        let upgrade = ["sh", "-c", &format!("cd '{folder}' && {script}")];
        let mut upgrading = must(scene.lab.spawn("laptop", "upgrade", &upgrade));
        let mut random = [0; 1];
        must(getrandom::fill(&mut random));
        std::thread::sleep(Duration::from_millis(100 + u64::from(random[0])));
        must(upgrading.signal(rustix::process::Signal::KILL));
        must(upgrading.wait(Duration::from_secs(5)));
        let there = must(fs::metadata(installed.program())).len();
        let [one, other] = [&old, &new].map(|file| must(fs::metadata(file)).len());
        assert!(
            there == one || there == other,
            "round {round}: {there} bytes"
        );
        restart(
            &laptop,
            [Part::Gate, Part::Uplink][round as usize % 2],
            BACK_WITHIN,
        );
    }
    must(laptop.wait_page(BACK_WITHIN));
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t33_an_older_policy_is_refused_after_a_newer_one_was_in_force() {
    let Some(scene) = Scene::cafe() else { return };
    let papers = scene.lab.papers();
    let older = papers.policy();
    let newer = older.replacen("version = 42", "version = 43", 1);
    assert_ne!(older, newer);
    let setup = Setup {
        policy: Some(newer.clone()),
        ..Setup::default()
    };
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup));
    must(laptop.page(BACK_WITHIN));
    let folder = scene.lab.dir().join("device");

    // The file of last week, rightly signed, is put back, and everything starts anew.
    must(papers.issue_policy(&folder, &older));
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    for part in [Part::Uplink, Part::Gate] {
        must(laptop.kill(part));
    }
    let said = laptop
        .log()
        .wait_after(line, "a refusal", BACK_WITHIN, |line| {
            line.contains("ERROR").then(|| line.to_owned())
        });
    let said = must(said);
    assert!(said.contains("42") && said.contains("43"), "{said}");
    eprintln!("{said}");
    let open = laptop.events().wait_after(mark, PATIENCE, |event| {
        event.is("gate", "situation") && event.text("situation") == "tunnelled"
    });
    assert!(open.is_none(), "{open:?}");
    assert!(laptop.page(Duration::from_secs(1)).is_err());

    // The control: the newer one opens again, and nobody has to press anything.
    let mark = laptop.events().mark();
    must(papers.issue_policy(&folder, &newer));
    must(laptop.wait_tunnel(mark, BACK_WITHIN));
    must(laptop.wait_page(BACK_WITHIN));
    scene.holds(&laptop, Expects::Tunnelled);
}
