//! A download that outlives attacks.

use std::time::Duration;

use sekisho_lab::{NetLaptop, Process, address as at};

use crate::must;

/// A download in the guest that has to live through what a test does.
#[derive(Debug)]
pub struct Download {
    curl: Process,
    bytes: u32,
}

impl Download {
    /// Starts it: so many bytes of groupware's, at so many a second.
    pub fn start(laptop: &NetLaptop<'_>, bytes: u32, rate: u32) -> Self {
        let url = format!(
            "http://{}/download?rate={rate}&canary={}",
            at::GROUPWARE,
            laptop.canary().hex()
        );
        let range = format!("0-{}", bytes - 1);
        let command = [
            "curl",
            "-s",
            "-m",
            "60",
            "-r",
            &range,
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}\n",
            &url,
        ];
        let curl = must(laptop.guest_spawn("download", &command));
        Self { curl, bytes }
    }

    /// Waits for its end: it had every byte, over one connection.
    pub fn lives_on(mut self) {
        let ended = must(self.curl.wait(Duration::from_mins(1)));
        let said = self.curl.lines();
        assert!(ended.is_some_and(|status| status.success()), "{said:?}");
        assert_eq!(said, [self.bytes.to_string()]);
    }
}
