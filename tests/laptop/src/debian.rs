//! Packages of the distribution, unpacked into a cache instead of installed.
//!
//! The kernels of the laptop and of the work OS are stock Debian packages. Installing them on
//! the build machine would run its boot loader hooks and tie its kernel to ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What can go wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program of the distribution is missing or could not be started.
    #[error("cannot run {program}: {source}; `cargo xtask` installs what is missing")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It ran and failed.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The whole command.
        command: String,
        /// The end of what it said.
        said: String,
    },
    /// The package lists do not know the package.
    #[error("no package {0} in the package lists; run `apt-get update` and try again")]
    Unknown(String),
    /// A package does not hold what it always held.
    #[error("{0} is missing in the unpacked package; remove the cache folder and try again")]
    Incomplete(PathBuf),
    /// The cache cannot be used.
    #[error(
        "cannot use the cache at {path}: {source}; set SEKISHO_CACHE to a folder that can be written"
    )]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The folder that unpacked packages stay in between runs.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$SEKISHO_CACHE`, else `~/.cache/sekisho`, else `target/cache` of the workspace.
    pub fn open() -> Result<Self, FetchError> {
        let chosen = std::env::var_os("SEKISHO_CACHE").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/sekisho"));
        let root = match (chosen, home) {
            (Some(root), _) => root,
            (None, Some(home)) if fs::create_dir_all(&home).is_ok() => home,
            _ => crate::build::target_dir().join("cache"),
        };
        Self::at(root)
    }

    /// A cache at a folder of the caller's choice.
    pub fn at(root: PathBuf) -> Result<Self, FetchError> {
        fs::create_dir_all(&root).map_err(|source| FetchError::Cache {
            path: root.clone(),
            source,
        })?;
        Ok(Self { root })
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder `name`, made by `fill` if it is not there yet. Several processes may ask at
    /// once: one fills, the others wait. A fill that fails leaves nothing behind.
    pub fn folder(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        let folder = self.root.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let failed = |source| FetchError::Cache {
            path: folder.clone(),
            source,
        };
        let lock = File::create(self.root.join(format!("{name}.lock"))).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let filling = self.root.join(format!("{name}.part"));
        if filling.exists() {
            fs::remove_dir_all(&filling).map_err(failed)?;
        }
        fs::create_dir_all(&filling).map_err(failed)?;
        fill(&filling)?;
        fs::rename(&filling, &folder).map_err(failed)?;
        Ok(folder)
    }
}

/// Downloads a package with `apt-get` and unpacks it into `into`.
pub fn unpack(package: &str, into: &Path) -> Result<(), FetchError> {
    eprintln!("fetching {package} from the distribution");
    let failed = |source| FetchError::Cache {
        path: into.to_owned(),
        source,
    };
    let download = tempfile::Builder::new()
        .prefix(".deb")
        .tempdir_in(into)
        .map_err(failed)?;
    let fetch = || {
        run(
            "apt-get",
            &["-q", "download", package],
            Some(download.path()),
        )
    };
    if fetch().is_err() {
        // A machine that was just set up has no package lists, or old ones.
        update()?;
        fetch()?;
    }
    let deb = fs::read_dir(download.path())
        .map_err(failed)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .ok_or_else(|| FetchError::Unknown(package.to_owned()))?;
    run(
        "dpkg",
        &["-x", &deb.to_string_lossy(), &into.to_string_lossy()],
        None,
    )?;
    Ok(())
}

/// What a meta package such as `linux-image-amd64` stands for: its first dependency whose name
/// begins with `prefix`.
pub fn resolve(meta: &str, prefix: &str) -> Result<String, FetchError> {
    let ask = || -> Result<Option<String>, FetchError> {
        let depends = run("apt-cache", &["depends", "--important", meta], None);
        Ok(depends
            .ok()
            .and_then(|depends| first_dependency(&depends, prefix)))
    };
    if let Some(found) = ask()? {
        return Ok(found);
    }
    update()?;
    ask()?.ok_or_else(|| FetchError::Unknown(meta.to_owned()))
}

fn first_dependency(depends: &str, prefix: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// The release of the build machine's distribution, as its package sources call it.
pub(crate) fn suite() -> Result<String, FetchError> {
    let path = Path::new("/etc/os-release");
    let failed = |source| FetchError::Cache {
        path: path.to_owned(),
        source,
    };
    let release = fs::read_to_string(path).map_err(failed)?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.ok_or_else(|| FetchError::Incomplete(path.to_owned()))?;
    Ok(suite.trim_matches('"').to_owned())
}

/// The files that say where the build machine has its packages from.
pub(crate) fn sources() -> Vec<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d");
    let beside = folder.into_iter().flatten().filter_map(Result::ok);
    let known = |path: &PathBuf| {
        let end = path.extension();
        end.is_some_and(|end| end == "list" || end == "sources")
    };
    [PathBuf::from("/etc/apt/sources.list")]
        .into_iter()
        .filter(|path| path.is_file())
        .chain(beside.map(|entry| entry.path()).filter(known))
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn update() -> Result<(), FetchError> {
    eprintln!("updating the package lists");
    if rustix::process::geteuid().is_root() {
        run("apt-get", &["-q", "update"], None)?;
    } else {
        run("sudo", &["-n", "apt-get", "-q", "update"], None)?;
    }
    Ok(())
}

/// Runs a program to its end; gives its standard output as text.
pub(crate) fn run(
    program: &'static str,
    arguments: &[&str],
    folder: Option<&Path>,
) -> Result<String, FetchError> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments)
        .current_dir(folder.unwrap_or_else(|| Path::new("/")))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FetchError::Program { program, source })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let tail: Vec<&str> = said.lines().rev().take(8).collect();
    Err(FetchError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        said: tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_resolves_to_its_versioned_package() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n    linux-x\n";
        assert_eq!(
            first_dependency(depends, "linux-image-").as_deref(),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(
            first_dependency("linux-image-amd64\n", "linux-image-"),
            None
        );
    }

    #[test]
    fn a_failed_fill_leaves_nothing_and_the_next_one_works() {
        let place = tempfile::tempdir().expect("temporary folder");
        let cache = Cache::at(place.path().join("cache")).expect("cache");
        let failed = cache.folder("thing", |folder| {
            fs::write(folder.join("half"), "x").expect("written");
            Err(FetchError::Unknown("thing".into()))
        });
        assert!(failed.is_err());
        let folder = cache.folder("thing", |folder| {
            assert!(!folder.join("half").exists());
            fs::write(folder.join("whole"), "x").expect("written");
            Ok(())
        });
        assert!(folder.expect("filled").join("whole").exists());
    }
}
