//! Firmware on the board: two images in the flash below 4 GiB, and `fw_cfg`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, VmFd};
use vm_memory::GuestMemoryBackend as _;

use super::layout::{ECAM, FLASH_END, FLASH_MAX, FW_CFG, LOW_RAM_LIMIT, PCI_MMIO32};
use super::memory::allocate_rom;
use super::{Board, BoardError, Loaded, kvm};
use crate::acpi::{Files, Hardware};
use crate::boot::{self, BootError, FirmwareBoot, Image};
use crate::bus::Bus;
use crate::chipset::flash::{Flash, Store};
use crate::chipset::fw_cfg::{self, FwCfg};
use crate::pci::PciBus;

impl Board {
    /// Puts firmware into the flash and makes the processors, which start in it; nothing runs yet.
    pub fn load_firmware(mut self, boot: FirmwareBoot<'_>) -> Result<Loaded, BoardError> {
        if !self.vm.check_extension(Cap::ReadonlyMem) {
            return Err(BoardError::Lacks("read-only memory"));
        }
        let (code, name) = boot.code;
        let code = Image::read(code, name)?.0;
        let (file, variables_name) = boot.variables;
        // The duplicate keeps the lock on the file as long as the board is there.
        let mut file = file.try_clone().map_err(|source| BoardError::Host {
            what: "descriptor",
            source,
        })?;
        let variables = Image::read(&mut file, variables_name)?.0;
        let both = (code.len() + variables.len()) as u64;
        if both > FLASH_MAX {
            let path = variables_name.to_owned();
            return Err(BootError::Firmware { path, bytes: both }.into());
        }
        let code_start = FLASH_END - code.len() as u64;
        let variables_start = code_start - variables.len() as u64;
        let slot = u32::try_from(self.ram.num_regions()).unwrap_or(u32::MAX);
        map_rom(&self.vm, slot, code_start, allocate_rom(&code)?)?;
        let cells = allocate_rom(&variables)?;
        map_rom(&self.vm, slot + 1, variables_start, cells)?;
        let flash = Flash::new(cells, Box::new(Variables(file)));
        let mut mmio = Bus::new();
        mmio.add(
            variables_start,
            variables.len() as u64,
            Arc::new(Mutex::new(flash)),
        )?;

        let items = boot::items(self.memory, self.hardware.cpus, boot.disks, boot.program)?;
        let tables = lazy_tables(Arc::clone(&self.pci), self.hardware.clone());
        let device = FwCfg::new(self.ram.clone(), items, tables);
        let device = Arc::new(Mutex::new(device));
        self.ports.add(FW_CFG.into(), fw_cfg::PORTS, device)?;
        self.finish(mmio, None)
    }
}

/// The ACPI tables, made when they are asked for and again once the firmware has moved ECAM.
pub(super) fn lazy_tables(pci: Arc<PciBus>, hardware: Hardware) -> fw_cfg::Refresh {
    let mut made = None;
    Box::new(move || {
        // The guest puts it anywhere, or nowhere: then nothing can be told of it that helps, and the
        // tables say what they say on a board that nobody has touched.
        let between = |ecam: &Range<u64>| ecam.start > LOW_RAM_LIMIT && ecam.end < PCI_MMIO32.end;
        let ecam = pci.ecam().filter(between).unwrap_or(ECAM);
        if made.as_ref() == Some(&ecam) {
            return None;
        }
        made = Some(ecam.clone());
        let hardware = Hardware {
            ecam,
            ..hardware.clone()
        };
        Some(boot::table_files(Files::new(&hardware)))
    })
}

/// Maps memory that the guest reads and executes, and whose writes exit.
fn map_rom(vm: &VmFd, slot: u32, start: u64, cells: &'static [AtomicU8]) -> Result<(), BoardError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: KVM_MEM_READONLY,
        guest_phys_addr: start,
        memory_size: cells.len() as u64,
        userspace_addr: cells.as_ptr() as u64,
    };
    // SAFETY: the cells are mapped as long as the process lives, and the board's layout gives these
    // addresses to nothing else.
    unsafe { vm.set_user_memory_region(region) }.map_err(kvm("take the firmware"))
}

/// The file with the variables, opened with `O_DSYNC`.
struct Variables(File);

impl Store for Variables {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::layout::pci_mmio64;
    use crate::pci::{HostBridge, Windows};

    #[test]
    fn wherever_the_guest_puts_ecam_there_are_tables() {
        let mmio64 = pci_mmio64(40);
        let windows = Windows {
            mmio32: PCI_MMIO32,
            mmio64: mmio64.clone(),
        };
        let pci = Arc::new(PciBus::new(HostBridge::new(None), windows));
        let hardware = Hardware {
            cpus: 1,
            ps2: false,
            serial: false,
            tpm: false,
            laptop: false,
            ecam: ECAM,
            mmio64,
        };
        let mut tables = lazy_tables(Arc::clone(&pci), hardware.clone());
        let untouched = boot::table_files(Files::new(&hardware));
        assert_eq!(tables().as_ref(), Some(&untouched));
        for base in [0, 0x1000_0000, 0x8000_0000, 0xf000_0000, 0x70_0000_0000] {
            pci.open_ecam(base);
            assert_eq!(pci.ecam().unwrap().start, base);
            assert_eq!(tables(), None, "{base:#x}");
        }
        pci.open_ecam(0xe000_0000);
        let moved = tables().unwrap();
        assert_ne!(moved, untouched);
        assert_eq!(tables(), None);
    }
}
