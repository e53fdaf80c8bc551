//! Landlock: which files may still be opened, and that no TCP port may.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
    Scope,
};

use crate::SandboxError;

/// What a demanded Landlock must have: files with `rename` between directories (Linux 5.19). All
/// that is newer is taken where the kernel has it.
const DEMANDED: ABI = ABI::V2;

/// What is taken where the kernel has it: truncation, TCP, `ioctl` on devices, abstract Unix
/// sockets and signals to processes outside (Linux 6.12).
const WANTED: ABI = ABI::V6;

/// Whether a kernel without Landlock will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// No: entering fails.
    Required,
    /// Yes: the other walls stand alone, and [`Landlock::Absent`] says so.
    BestEffort,
}

/// What may be done beneath a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// Also write, create, rename and remove; not execute.
    ReadWrite,
    /// Read files, list directories and run programs.
    Execute,
}

/// Whether Landlock holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// The kernel has none, or it is not enabled.
    Absent,
    /// It holds for files, but the kernel knows less than we could use.
    Partial,
    /// All that we ask for.
    Full,
}

/// Opens the paths and makes the ruleset.
pub(crate) fn prepare(
    paths: &[(PathBuf, Access)],
    tcp: bool,
    demand: Demand,
) -> Result<RulesetCreated, SandboxError> {
    let demanded = match demand {
        Demand::Required => CompatLevel::HardRequirement,
        Demand::BestEffort => CompatLevel::BestEffort,
    };
    let absent = |error: landlock::RulesetError| SandboxError::NoLandlock(error.to_string());

    let mut ruleset = Ruleset::default()
        .set_compatibility(demanded)
        .handle_access(AccessFs::from_all(DEMANDED))
        .map_err(absent)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .map_err(absent)?
        .scope(Scope::from_all(WANTED))
        .map_err(absent)?;
    if !tcp {
        ruleset = ruleset
            .handle_access(AccessNet::from_all(WANTED))
            .map_err(absent)?;
    }
    let created = ruleset.create().map_err(absent)?;
    permit(created, paths.iter().cloned())
}

/// Adds what may be done beneath these paths, as they lead now.
pub(crate) fn permit(
    mut created: RulesetCreated,
    paths: impl Iterator<Item = (PathBuf, Access)>,
) -> Result<RulesetCreated, SandboxError> {
    for (path, access) in paths {
        let refused =
            |error: &dyn std::fmt::Display| SandboxError::Path(path.clone(), error.to_string());
        let file = PathFd::new(&path).map_err(|error| refused(&error))?;
        let is_directory = std::fs::metadata(&path)
            .map_err(|error| refused(&error))?
            .is_dir();
        created = created
            .add_rule(PathBeneath::new(file, rights(access, is_directory)))
            .map_err(|error| refused(&error))?;
    }
    Ok(created)
}

fn rights(access: Access, is_directory: bool) -> BitFlags<AccessFs> {
    let executable: BitFlags<AccessFs> = AccessFs::Execute.into();
    let all = match access {
        Access::Read => AccessFs::from_read(WANTED) & !executable,
        Access::Execute => AccessFs::from_read(WANTED),
        Access::ReadWrite => AccessFs::from_all(WANTED) & !executable,
    };
    if is_directory {
        all
    } else {
        all & AccessFs::from_file(WANTED)
    }
}

/// Closes the process in. `no_new_privs` must be set.
pub(crate) fn enforce(ruleset: RulesetCreated) -> Result<Landlock, SandboxError> {
    let status = ruleset
        .no_new_privs(false)
        .restrict_self()
        .map_err(|error| SandboxError::NoLandlock(error.to_string()))?;
    Ok(match (status.landlock, status.ruleset) {
        (LandlockStatus::NotEnabled | LandlockStatus::NotImplemented, _)
        | (_, RulesetStatus::NotEnforced) => Landlock::Absent,
        (_, RulesetStatus::PartiallyEnforced) => Landlock::Partial,
        (_, RulesetStatus::FullyEnforced) => Landlock::Full,
    })
}
