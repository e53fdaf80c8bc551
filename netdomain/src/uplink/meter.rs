//! The quota's shell: looks at the SIM's counters now and then, and keeps what was used.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use sekisho_policy::Quota;

use super::quota::{Account, Allowance, Mark, News, RecordError, UsageFile};

/// Pause between two looks. What passes meanwhile passes beyond the quota at most: at the 150
/// Mbit/s of a fast cell, some 40 MB.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So much more use is kept at once, and any at the latest after [`KEEP_EVERY`]. A power cut loses
/// what was not kept; a crash of this process loses nothing, because the interface counts on.
const KEEP_STEP: u64 = 1 << 20;
const KEEP_EVERY: Duration = Duration::from_mins(1);
/// Names the running boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Counts what the SIM moves.
#[derive(Debug)]
pub(crate) struct Meter {
    account: Account,
    /// Absent where nothing can be kept: then nothing may pass.
    file: Option<UsageFile>,
    boot: [u8; 16],
    due: Duration,
    kept: (u64, Duration),
}

impl Meter {
    /// Opens the record in `folder`, before the sandbox closes. Where that fails the SIM stays shut
    /// and everything else works.
    pub(crate) fn open(quota: &Quota, folder: Option<&Path>, now: Duration) -> Self {
        let opened = folder.map(UsageFile::open);
        let (file, kept) = match opened {
            Some(Ok((file, kept))) => (Some(file), kept),
            Some(Err(error)) => {
                tracing::error!(%error);
                (None, None)
            }
            None => {
                tracing::error!("the policy has a quota and --usage names no folder; no SIM");
                (None, None)
            }
        };
        let boot = std::fs::read_to_string(BOOT_ID).map_or([0; 16], |text| boot_id(&text));
        let account = Account::new(quota.clone(), kept, boot, Timestamp::now());
        Self {
            kept: (account.usage(boot).used, now),
            account,
            file,
            boot,
            due: now,
        }
    }

    /// When [`Meter::look`] is due.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Takes the counters of all SIM interfaces.
    pub(crate) fn look(
        &mut self,
        marks: impl Iterator<Item = Mark>,
        now: Duration,
        last: bool,
    ) -> (Allowance, Option<News>) {
        let wall = Timestamp::now();
        for mark in marks {
            self.account.count(mark, wall);
        }
        self.due = now + LOOK_EVERY;
        let used = self.account.usage(self.boot).used;
        let (before, at) = self.kept;
        let anew = used < before;
        let late = used != before && (last || now.saturating_sub(at) >= KEEP_EVERY);
        if (anew || late || used - before >= KEEP_STEP)
            && let Err(error) = self.keep(now)
        {
            tracing::error!(%error);
            self.file = None;
        }
        (self.allowance(), self.account.news())
    }

    /// What may pass.
    pub(crate) fn allowance(&self) -> Allowance {
        match self.file {
            Some(_) => self.account.allowance(),
            None => Allowance::Nothing,
        }
    }

    /// The quota in bytes.
    pub(crate) fn monthly(&self) -> u64 {
        self.account.monthly()
    }

    fn keep(&mut self, now: Duration) -> Result<(), RecordError> {
        let usage = self.account.usage(self.boot);
        if let Some(file) = &mut self.file {
            file.keep(&usage)?;
        }
        self.kept = (usage.used, now);
        Ok(())
    }
}

/// The 16 bytes of a UUID.
fn boot_id(text: &str) -> [u8; 16] {
    let mut digits = text.chars().filter_map(|digit| digit.to_digit(16));
    std::array::from_fn(|_| {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        u8::try_from(high * 16 + low).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_16_bytes() {
        let id = boot_id("01020304-0506-0708-090a-0b0c0d0e0fff\n");
        assert_eq!(id, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255]);
    }
}
