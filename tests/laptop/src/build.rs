//! Static builds of our own programs for machines that have no shared libraries.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one target that is built for: a laptop.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program of the workspace could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be started.
    #[error("cannot run cargo: {0}")]
    Cargo(#[from] std::io::Error),
    /// The build failed; the compiler's words are on standard error.
    #[error("building {0} failed:\n{1}")]
    Failed(String, String),
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where builds and runs leave their files: `$CARGO_TARGET_DIR` or `target`.
pub fn target_dir() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    match chosen {
        Some(folder) if folder.is_absolute() => folder,
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// Builds one program of the workspace without shared libraries; gives its path. Fast when
/// nothing changed.
pub fn static_program(
    package: &str,
    program: &str,
    features: &[&str],
) -> Result<PathBuf, BuildError> {
    // A folder of its own: no waiting for the lock of the build that this may run in.
    let folder = target_dir().join("static");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", package, "--bin", program])
        .args(["--no-default-features", "--features", &features.join(",")])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .args([
            "--config",
            &format!("target.{TARGET}.rustflags=['-Ctarget-feature=+crt-static']"),
        ])
        .args(["--config", "profile.dev.strip=true"])
        // These would replace the flags above, or are meant for the outer build only.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok(folder.join(TARGET).join("debug").join(program))
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(BuildError::Failed(program.to_owned(), said))
    }
}
