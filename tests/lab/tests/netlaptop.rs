//! The laptop without KVM: real supervisor, gate and uplink reach groupware from the cafe, and the
//! oracle tells it from a deliberate leak.

use std::time::Duration;

use sekisho_lab::{
    Lab, NetLaptop, Options, Setup, address as at,
    oracle::{Canaries, count_canaries},
    programs,
};
use sekisho_skip::skip_unless;

/// Says why a test cannot run here, if so.
fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if skip_unless(root, "network namespaces need root") {
        return true;
    }
    match programs() {
        Ok(_) => false,
        Err(error) => skip_unless(false, error),
    }
}

#[test]
fn a_page_from_groupware_and_no_leak_until_one_is_made() {
    if skipped() {
        return;
    }
    let lab = Lab::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let laptop = NetLaptop::start_up(&lab, &Setup::default()).unwrap_or_else(|e| panic!("{e}"));
    let page = laptop
        .page(Duration::from_secs(10))
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(page.contains("Mihon City groupware"), "{page}");
    eprintln!("page after {:?}", laptop.uptime());
    laptop.leak(at::ETH0).unwrap();
    let canary = laptop.canary().clone();
    let canaries = Canaries::new([lab.canary(), &canary]);
    let (recordings, verdict) = lab.judge(&canaries).unwrap();
    let beyond = count_canaries(recordings.get("gateway-lgwan").unwrap(), &canaries).unwrap();
    assert!(beyond > 0, "no canary beyond the gateway");
    // The one frame that was leaked on purpose is seen twice, as a canary and as the guest's MAC;
    // beyond the switch once more.
    assert!(!verdict.holds());
    assert!(
        verdict
            .listed
            .iter()
            .any(|leak| leak.what.contains("the guest's MAC")),
        "{verdict}"
    );
    assert!(
        verdict
            .listed
            .iter()
            .all(|leak| leak.what.contains("10.250.7.23:40000 > 198.51.100.53:53")),
        "{verdict}"
    );
}
