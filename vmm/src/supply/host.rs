//! The host's supplies, each an open `uevent`, and its lid. sysfs and procfs answer a read at offset 0 with
//! what is so now; nothing is opened later, since nothing can be.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Power;
use super::uevent::{MAX_LEN, Supply, parse, parse_lid};

/// More supplies than any laptop has: two batteries, an adapter and four ports.
const MAX_SUPPLIES: usize = 16;
/// How soon a person who pulls the plug or closes the lid is to see it. One read each, of what the kernel
/// knows already.
pub const SOON: Duration = Duration::from_secs(2);
/// How often batteries are asked in between: each is a talk with the laptop's embedded controller, and a
/// percent takes minutes.
pub const NOW_AND_THEN: Duration = Duration::from_secs(20);

/// One supply and what it last said.
struct Source {
    file: File,
    last: Supply,
}

/// The host's side of a laptop.
pub struct Host {
    supplies: Vec<Source>,
    lid: Option<File>,
    /// When the mains and the lid, and when the batteries are to be looked at again.
    due: [Instant; 2],
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Battery and mains.
    pub power: Power,
    /// Whether the lid is open, where there is one that can be asked.
    pub lid_open: Option<bool>,
}

impl Host {
    /// Opens all supplies in `folder` (`/sys/class/power_supply`) and the lid's state
    /// (`/proc/acpi/button/lid/…/state`). Both are due at once.
    ///
    /// # Errors
    /// The folder or the lid's file cannot be read.
    pub fn open(folder: &Path, lid: Option<&Path>, now: Instant) -> io::Result<Self> {
        let mut names: Vec<_> = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        names.sort();
        // What has no such attribute is no supply.
        let files = names
            .iter()
            .filter_map(|name| File::open(name.join("uevent")).ok());
        let supplies = files.take(MAX_SUPPLIES).map(|file| Source {
            file,
            last: Supply::Other,
        });
        Ok(Self {
            supplies: supplies.collect(),
            lid: lid.map(File::open).transpose()?,
            due: [now; 2],
        })
    }

    /// How long from `now` on nothing needs to be looked at.
    pub fn next(&self, now: Instant) -> Duration {
        let due = self.due[0].min(self.due[1]);
        due.saturating_duration_since(now)
    }

    /// Everything is due now: the host has slept.
    pub fn hurry(&mut self, now: Instant) {
        self.due = [now; 2];
    }

    /// Looks at what is due; `None` where nothing is. Where the mains changed, batteries are due too.
    pub fn look(&mut self, now: Instant) -> Option<Seen> {
        let [soon, then] = self.due.map(|due| now >= due);
        if !soon && !then {
            return None;
        }
        self.due[0] = now + SOON;
        let plugged = self.refresh(|supply| !matches!(supply, Supply::Battery(_)));
        if then || plugged {
            self.due[1] = now + NOW_AND_THEN;
            self.refresh(|supply| matches!(supply, Supply::Battery(_)));
        }
        let supplies: Vec<Supply> = self.supplies.iter().map(|source| source.last).collect();
        Some(Seen {
            power: Power::of(&supplies),
            lid_open: self.lid.as_ref().and_then(|lid| parse_lid(&read(lid)?)),
        })
    }

    /// Asks those anew whose last answer is so; whether any answers otherwise now.
    fn refresh(&mut self, which: impl Fn(&Supply) -> bool) -> bool {
        let mut changed = false;
        for source in &mut self.supplies {
            if !which(&source.last) {
                continue;
            }
            let said = match read(&source.file) {
                // Half a text, while somebody writes it anew: what was said before holds.
                Some(text) => parse(&text).unwrap_or(source.last),
                // Pulled out.
                None => Supply::Other,
            };
            changed |= said != source.last;
            source.last = said;
        }
        changed
    }
}

fn read(file: &File) -> Option<Vec<u8>> {
    let mut text = vec![0; MAX_LEN];
    let length = file.read_at(&mut text, 0).ok()?;
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::uevent::Flow;

    fn battery(now: u32, status: &str) -> String {
        format!(
            "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS={status}\n\
             POWER_SUPPLY_ENERGY_FULL=50000000\nPOWER_SUPPLY_ENERGY_NOW={now}000\n"
        )
    }

    fn mains(online: u8) -> String {
        format!("POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE={online}\n")
    }

    #[test]
    fn a_plug_is_seen_soon_and_a_battery_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let put = |name: &str, text: &str| {
            fs::create_dir_all(at(name)).unwrap();
            fs::write(at(name).join("uevent"), text).unwrap();
        };
        fs::create_dir(at("empty")).unwrap();
        put("AC", &mains(1));
        put("BAT0", &battery(40_000, "Charging"));
        fs::write(at("lid"), "state:      open\n").unwrap();
        let start = Instant::now();
        let mut host = Host::open(folder.path(), Some(&at("lid")), start).unwrap();
        assert_eq!(host.next(start), Duration::ZERO);
        let seen = host.look(start).unwrap();
        assert_eq!((seen.power.online, seen.lid_open), (true, Some(true)));
        assert_eq!(seen.power.battery.unwrap().now, 40_000);
        assert_eq!((host.look(start), host.next(start)), (None, SOON));

        put("BAT0", &battery(39_000, "Charging"));
        let seen = host.look(start + SOON).unwrap();
        assert_eq!(seen.power.battery.unwrap().now, 40_000, "not asked yet");
        put("AC", &mains(0));
        put("BAT0", &battery(38_000, "Discharging"));
        fs::write(at("lid"), "state:      closed\n").unwrap();
        let seen = host.look(start + 2 * SOON).unwrap();
        let found = seen.power.battery.unwrap();
        assert_eq!((found.now, found.flow), (38_000, Flow::Out));
        assert_eq!((seen.power.online, seen.lid_open), (false, Some(false)));

        // Torn while it is written: nothing changes.
        put("BAT0", "");
        let before = seen.power;
        assert_eq!(host.look(start + 10 * NOW_AND_THEN).unwrap().power, before);
        put("BAT0", &battery(37_000, "Discharging"));
        host.hurry(start + 10 * NOW_AND_THEN);
        let seen = host.look(start + 10 * NOW_AND_THEN).unwrap();
        assert_eq!(seen.power.battery.unwrap().now, 37_000);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let nowhere = Path::new("/nowhere");
        assert!(Host::open(nowhere, None, Instant::now()).is_err());
        let folder = tempfile::tempdir().unwrap();
        assert!(Host::open(folder.path(), Some(nowhere), Instant::now()).is_err());
    }
}
