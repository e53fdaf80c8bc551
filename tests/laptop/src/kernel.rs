//! A stock Debian kernel with its modules, from the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian::{self, Cache, FetchError};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `linux-image-amd64`: what a laptop runs.
    Generic,
    /// `linux-image-cloud-amd64`: fewer drivers, what a virtual machine runs.
    Cloud,
}

impl Flavour {
    fn meta_package(self) -> &'static str {
        match self {
            Self::Generic => "linux-image-amd64",
            Self::Cloud => "linux-image-cloud-amd64",
        }
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// Takes it from the cache, or fetches it from the distribution first.
    pub fn fetch(cache: &Cache, flavour: Flavour) -> Result<Self, FetchError> {
        let meta = flavour.meta_package();
        let root = cache.folder(meta, |folder| {
            let package = debian::resolve(meta, "linux-image-")?;
            debian::unpack(&package, folder)?;
            let kernel = Self::at(folder.to_owned())?;
            // The package leaves this to its installation.
            let base = folder.to_string_lossy();
            debian::run("depmod", &["-b", &base, &kernel.release], None)?;
            kernel.unpack_vmlinux()
        })?;
        Self::at(root)
    }

    fn at(root: PathBuf) -> Result<Self, FetchError> {
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)
            .ok()
            .and_then(|mut entries| entries.next()?.ok()?.file_name().into_string().ok())
            .ok_or(FetchError::Incomplete(modules))?;
        Ok(Self { root, release })
    }

    /// Its release, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The kernel as a boot loader takes it (bzImage).
    pub fn vmlinuz(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// The same kernel, already decompressed, for the PVH entry: under emulation the
    /// decompression alone takes seven seconds.
    pub fn vmlinux(&self) -> PathBuf {
        self.root.join("boot/vmlinux")
    }

    /// The folder that belongs at `/lib/modules/RELEASE`.
    pub fn modules_dir(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The files of the named modules and of all that they need, in an order in which they can be
    /// loaded. Built-in ones are left out; unknown ones are an error.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>, FetchError> {
        let folder = self.modules_dir();
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|_| FetchError::Incomplete(path))
        };
        let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        let index = ModuleIndex::parse(&dep, &builtin);
        let order = index
            .order(wanted)
            .map_err(|name| FetchError::Incomplete(folder.join(format!("{name}.ko"))))?;
        Ok(order.into_iter().map(|path| folder.join(path)).collect())
    }

    /// Takes the ELF file out of the bzImage (Linux `Documentation/arch/x86/boot.rst`,
    /// `payload_offset` and `payload_length`).
    fn unpack_vmlinux(&self) -> Result<(), FetchError> {
        let path = self.vmlinuz();
        let incomplete = || FetchError::Incomplete(self.vmlinuz());
        let image = fs::read(&path).map_err(|_| incomplete())?;
        let payload = payload(&image).ok_or_else(incomplete)?;
        let decompressor = match payload {
            [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
            [0x1f, 0x8b, ..] => "gzip",
            _ => "lz4",
        };
        let target = self.vmlinux();
        let failed = |source| FetchError::Program {
            program: decompressor,
            source,
        };
        let out = fs::File::create(&target).map_err(failed)?;
        let mut child = Command::new(decompressor)
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let fed = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(payload));
        // Its exit status is of no use: the kernel's build appends the size to what it
        // compressed, which decompressors call trailing garbage. The result is checked instead.
        child.wait().map_err(failed)?;
        fed.map_err(failed)?;
        let is_elf = fs::read(&target).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
        if is_elf {
            Ok(())
        } else {
            Err(FetchError::Incomplete(target))
        }
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let setup_sectors = usize::from(*image.get(0x1f1)?);
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    let length = word(0x24c)?;
    // The last four bytes are the size of the decompressed kernel.
    image.get(start..)?.get(..length.checked_sub(4)?)
}

/// `modules.dep` and `modules.builtin` as depmod(8) writes them.
struct ModuleIndex<'a> {
    /// Name to path and the paths that it needs.
    needs: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    builtin: BTreeSet<String>,
}

impl<'a> ModuleIndex<'a> {
    fn parse(dep: &'a str, builtin: &'a str) -> Self {
        let needs = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect())))
            .collect();
        Self {
            needs,
            builtin: builtin.lines().map(name).collect(),
        }
    }

    /// Paths in loading order, each once; the error is the name that nobody knows.
    fn order(&self, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        for wanted in wanted {
            let wanted = wanted.replace('-', "_");
            if self.builtin.contains(&wanted) {
                continue;
            }
            let (path, needs) = self.needs.get(&wanted).ok_or(wanted)?;
            // depmod lists the whole chain, the deepest need last.
            for path in needs.iter().rev().chain([path]) {
                if !order.contains(path) {
                    order.push(*path);
                }
            }
        }
        Ok(order)
    }
}

/// The module's name as the kernel has it: no folder, no suffix, underscores.
fn name(path: &str) -> String {
    let file = Path::new(path)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    file.split(".ko")
        .next()
        .unwrap_or_default()
        .replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_before_what_needs_them_and_only_once() {
        let dep = "k/kvm-amd.ko: k/kvm.ko k/irqbypass.ko k/ccp.ko\nk/kvm.ko: k/irqbypass.ko\n\
                   k/irqbypass.ko:\nk/ccp.ko:\n";
        let index = ModuleIndex::parse(dep, "k/unix.ko\n");
        assert_eq!(
            index.order(&["kvm", "unix", "kvm-amd"]).expect("known"),
            ["k/irqbypass.ko", "k/kvm.ko", "k/ccp.ko", "k/kvm-amd.ko"]
        );
        assert_eq!(index.order(&["nonesuch"]), Err("nonesuch".to_owned()));
    }

    #[test]
    fn a_short_or_empty_image_has_no_payload() {
        assert_eq!(payload(&[]), None);
        assert_eq!(payload(&[0xff; 0x250]), None);
    }
}
