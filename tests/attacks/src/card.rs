//! The laptop's key in a token (PKCS #11): `SoftHSM`, in the place of a smart card.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sekisho_lab::{LaptopFiles, Setup};
use sekisho_skip::skip_unless;

use crate::must;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// What opens the token: nothing that is found anywhere by chance.
pub const PIN: &str = "27182818-karuta";

fn run(command: &mut Command) {
    let output = must(command.output());
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The laptop's files beside its device file.
fn folder(files: &LaptopFiles) -> &Path {
    files.device.parent().unwrap_or(Path::new("/"))
}

/// Where the library looks for tokens: the reader.
fn reader(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// Takes the token out of its reader; `folder` is that of the laptop's files.
pub fn pull(folder: &Path) {
    let hand = folder.join("hand");
    must(fs::create_dir_all(&hand));
    carry(&reader(folder), &hand);
}

/// Puts it in again.
pub fn put_in(folder: &Path) {
    carry(&folder.join("hand"), &reader(folder));
}

/// Each token is a folder of its own.
fn carry(from: &Path, to: &Path) {
    let mut carried = 0;
    for entry in must(fs::read_dir(from)) {
        let entry = must(entry);
        must(fs::rename(entry.path(), to.join(entry.file_name())));
        carried += 1;
    }
    assert_eq!(carried, 1, "a token");
}

/// Moves the laptop's key into a token that opens with [`PIN`], which is in a file beside it.
pub fn into_token(files: &LaptopFiles) {
    into_card(files);
    let text = format!("{PIN}\n");
    must(fs::write(folder(files).join("pin"), text));
}

/// The same, and the PIN is in no file.
pub fn into_card(files: &LaptopFiles) {
    let beside = |name: &str| folder(files).join(name);
    let store = reader(folder(files));
    must(fs::create_dir(&store));
    // The library looks for it where the engine sees it.
    must(fs::write(
        beside("softhsm2.conf"),
        "directories.tokendir = /token\n",
    ));
    let outside = beside("softhsm2-outside.conf");
    let text = format!("directories.tokendir = {}\n", store.display());
    must(fs::write(&outside, text));
    let tool = || {
        let mut tool = Command::new("softhsm2-util");
        tool.env("SOFTHSM2_CONF", &outside);
        tool
    };
    run(tool()
        .args(["--init-token", "--free", "--label", "laptop"])
        .args(["--pin", PIN])
        .args(["--so-pin", "31415926"]));
    run(tool().arg("--import").arg(beside("tls.key")).args([
        "--token", "laptop", "--label", "laptop", "--id", "0a", "--pin", PIN,
    ]));
    must(fs::remove_file(beside("tls.key")));
    run(Command::new("chown").args(["-R", "64021"]).arg(&store));
}

/// The same, and the token is not in its reader.
pub fn into_pulled_card(files: &LaptopFiles) {
    into_card(files);
    pull(folder(files));
}

/// A laptop with a token; `pin` where its PIN is in a file.
pub fn setup(pin: bool, tamper: fn(&LaptopFiles)) -> Setup {
    let pin = if pin { "pin = 'pin'\n" } else { "" };
    let key = format!(
        "[ike.token]\nmodule = '{MODULE}'\nkey = '0a'\n{pin}\
         needs = {{ '/etc/softhsm/softhsm2.conf' = 'softhsm2.conf', '/token' = 'store' }}"
    );
    Setup {
        ike: true,
        ike_key: Some(key),
        tamper: Some(tamper),
        ..Setup::default()
    }
}

/// Says why there is no token here, if so.
pub fn no_token() -> bool {
    skip_unless(
        fs::exists(MODULE).unwrap_or(false),
        "the package softhsm2 is not there",
    )
}
