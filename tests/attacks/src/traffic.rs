//! Traffic of the guest's under which the attacks happen, each piece of it with the canary.

use std::time::Duration;

use sekisho_lab::{NetLaptop, Process, address as at};

use crate::must;

/// Bytes of groupware's file.
const FILE: u32 = 16 << 20;

/// A packet each so many milliseconds, whether anybody answers or not.
pub fn chatter(laptop: &NetLaptop<'_>, millis: u64) -> Process {
    let (canary, to) = (laptop.canary().hex(), at::GROUPWARE.to_string());
    let pause = Duration::from_millis(millis).as_secs_f64().to_string();
    let ping = ["ping", "-q", "-i", &pause, "-s", "256", "-p", &canary, &to];
    must(laptop.guest_spawn("chatter", &ping))
}

/// How often a test does it over and over: as often as the environment's `name` says.
pub fn times(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| {
        let times = text.parse();
        times.unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Downloads and uploads in turn for ever, each over a connection that is given up after `patience`
/// seconds.
pub fn streams(laptop: &NetLaptop<'_>, patience: u8) -> Process {
    let canary = laptop.canary().hex();
    let script = format!(
        "while :; do \
         curl -s -m {patience} -o /dev/null 'http://{}/download?rate=1500000&canary={canary}'; \
         yes {canary} | head -c 300000 | curl -s -m {patience} -o /dev/null -T - http://{}/; done",
        at::GROUPWARE,
        at::COLLECTOR
    );
    must(laptop.guest_spawn("streams", &["sh", "-c", &script]))
}

/// Downloads groupware's file as fast as it goes: all of it comes.
pub fn download_whole(laptop: &NetLaptop<'_>) {
    let canary = laptop.canary().hex();
    let url = format!("http://{}/download?canary={canary}", at::GROUPWARE);
    let curl = [
        "curl",
        "-sS",
        "-m",
        "30",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &url,
    ];
    let got = must(must(laptop.guest_for(&curl, Duration::from_secs(40))).ok()).stdout;
    assert_eq!(got, FILE.to_string());
}
