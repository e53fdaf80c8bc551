//! Builds the module that keeps emulation from aborting under firmware guests (see `cr8/`).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::debian::{self, Cache, FetchError};
use crate::kernel::Kernel;

const SOURCE: &str = include_str!("../cr8/sekisho_cr8.c");
const MAKEFILE: &str = include_str!("../cr8/Makefile");

/// The module's file, built for this kernel; from the cache if it was built before.
pub(crate) fn module(cache: &Cache, kernel: &Kernel) -> Result<PathBuf, FetchError> {
    let release = kernel.release();
    let mut hasher = DefaultHasher::new();
    (SOURCE, MAKEFILE).hash(&mut hasher);
    let name = format!("cr8-{release}-{:08x}", hasher.finish());
    let folder = cache.folder(&name, |folder| {
        let headers = headers(cache, release)?;
        let failed = |source| FetchError::Cache {
            path: folder.to_owned(),
            source,
        };
        fs::write(folder.join("sekisho_cr8.c"), SOURCE).map_err(failed)?;
        fs::write(folder.join("Makefile"), MAKEFILE).map_err(failed)?;
        let headers = headers.to_string_lossy().into_owned();
        let here = format!("M={}", folder.display());
        debian::run("make", &["--quiet", "-C", &headers, &here, "modules"], None)?;
        Ok(())
    })?;
    let module = folder.join("sekisho_cr8.ko");
    if module.is_file() {
        Ok(module)
    } else {
        Err(FetchError::Incomplete(module))
    }
}

/// Debian's headers for this kernel, unpacked and made to find themselves there.
fn headers(cache: &Cache, release: &str) -> Result<PathBuf, FetchError> {
    let package = format!("linux-headers-{release}");
    let folder = cache.folder(&package, |folder| {
        let common = debian::resolve(&package, "linux-headers-")?;
        let scripts = debian::resolve(&package, "linux-kbuild-")?;
        for package in [&package, &common, &scripts] {
            debian::unpack(package, folder)?;
        }
        relocate(&folder.join("usr/src").join(&package).join("Makefile"))
    })?;
    Ok(folder.join("usr/src").join(package))
}

/// The package's Makefile includes another one by its installed path, which lies beside it.
fn relocate(makefile: &Path) -> Result<(), FetchError> {
    let incomplete = |_| FetchError::Incomplete(makefile.to_owned());
    let text = fs::read_to_string(makefile).map_err(incomplete)?;
    let beside = "$(dir $(lastword $(MAKEFILE_LIST)))../";
    fs::write(makefile, text.replace("/usr/src/", beside)).map_err(incomplete)
}
