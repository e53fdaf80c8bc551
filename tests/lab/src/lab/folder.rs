//! A lab's folder under `target/lab`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use rustix::process::Pid;

use crate::LabError;

/// Runs that ended and left folders (they failed, were killed, or were told to): those of the latest
/// stay for who wants to look into their captures, a quarter of a gigabyte after a whole journey.
const KEPT_RUNS: usize = 4;

/// A fresh folder, named after this process; old ones of ended processes are removed first.
pub(super) fn fresh() -> Result<PathBuf, LabError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::current_exe()
        .ok()
        .and_then(|exe| {
            exe.ancestors()
                .find(|folder| folder.ends_with("target"))
                .map(Path::to_path_buf)
        })
        .unwrap_or_else(std::env::temp_dir)
        .join("lab");
    remove_old(&base);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = base.join(format!("{}-{count}", std::process::id()));
    if dir.exists() {
        // Of a process of the same number, long ago.
        std::fs::remove_dir_all(&dir).map_err(LabError::io("remove an old lab's folder"))?;
    }
    std::fs::create_dir_all(&dir).map_err(LabError::io("make the lab's folder"))?;
    Ok(dir)
}

/// What cannot be removed stays: another process may be at it.
fn remove_old(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    let mut ended: BTreeMap<i32, (SystemTime, Vec<PathBuf>)> = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split_once('-')?.0.parse().ok())
            .and_then(Pid::from_raw)
            .filter(|pid| rustix::process::test_kill_process(*pid).is_err())
            .map(|pid| pid.as_raw_nonzero().get());
        let changed = entry.metadata().and_then(|data| data.modified());
        if let (Some(owner), Ok(changed)) = (owner, changed) {
            let run = ended.entry(owner).or_insert((changed, Vec::new()));
            run.0 = run.0.max(changed);
            run.1.push(entry.path());
        }
    }
    let mut runs: Vec<_> = ended.into_values().collect();
    runs.sort();
    for (_, folders) in runs.into_iter().rev().skip(KEPT_RUNS) {
        for folder in folders {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_runs_and_the_living_keep_their_folders() {
        let base = tempfile::tempdir().unwrap();
        // No process has such a number (proc(5): at most 2^22).
        let ended = |run: usize| 5_000_000 + run;
        let make = |name: String, age: u64| {
            let folder = base.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let changed = SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::open(folder)
                .unwrap()
                .set_modified(changed)
                .unwrap();
        };
        for run in 0..KEPT_RUNS + 2 {
            for lab in 0..2 {
                make(format!("{}-{lab}", ended(run)), 100 - run as u64);
            }
        }
        make(format!("{}-0", std::process::id()), 1_000);
        make("a-person's".to_owned(), 1_000);
        remove_old(base.path());
        for run in 0..KEPT_RUNS + 2 {
            for lab in 0..2 {
                let there = base.path().join(format!("{}-{lab}", ended(run))).exists();
                assert_eq!(there, run >= 2, "run {run}");
            }
        }
        assert!(
            base.path()
                .join(format!("{}-0", std::process::id()))
                .exists()
        );
        assert!(base.path().join("a-person's").exists());
    }
}
