//! The board: what is soldered where, and how it is switched on.

pub mod aperture;
mod firmware;
pub mod layout;
pub mod memory;
pub mod pause;
mod ports;
pub mod power;
#[cfg(test)]
mod replay;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use thiserror::Error;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::acpi::{self, AcpiError, Hardware};
use crate::boot::{self, BootEntry, BootError, LinuxBoot};
use crate::bus::{Bus, BusError, BusTarget};
use crate::chipset::laptop::{Laptop, WINDOW};
use crate::chipset::lpc::LpcBridge;
use crate::chipset::pm::PowerManagement;
use crate::chipset::ps2::{Ps2Controller, Ps2Port, ResetLine};
use crate::chipset::reset::PortA;
use crate::chipset::rtc::RealTimeClock;
use crate::chipset::serial::{self, SerialPort};
use crate::cpu::{self, Counts, CpuError, Exits, Gate, Offer, Paravirt};
use crate::irq::{KvmLine, KvmPlatform, Line};
use crate::pci::{self, HostBridge, PciBus, PciDevice, Platform, Slot, Windows};

use layout::{
    CMOS_BASE, COM1_BASE, COM1_IRQ, ECAM, I8042_COMMAND, I8042_DATA, KEYBOARD_IRQ,
    KVM_IDENTITY_MAP, KVM_TSS, LAPTOP, LOW_RAM_LIMIT, MOUSE_IRQ, PCI_CONFIG, PCI_MMIO32, PM_BASE,
    PM_LEN, PORT_A, RTC_IRQ, SCI_IRQ, TPM, pci_mmio64,
};
use memory::{GuestRam, MemoryError};
use pause::{KvmGuest, Pauses, Times};
use ports::{ConfigPorts, PciMemory};
use power::{Crash, Power};

/// The LPC bridge's place, as on every ICH9.
const LPC_SLOT: Slot = Slot::new(0x1f, 0);
/// The first slot that [`Board::plug`] uses.
const FIRST_PLUG: u8 = 1;

/// Why there is no board.
#[derive(Debug, Error)]
pub enum BoardError {
    /// `/dev/kvm` is missing or not for us.
    #[error(
        "/dev/kvm cannot be used ({0}): load the module kvm_intel or kvm_amd, switch \
         virtualisation on in the firmware set-up, and start as a user of the group kvm"
    )]
    Device(kvm_ioctls::Error),
    /// KVM lacks something.
    #[error("this kernel's KVM has no {0}: use Linux 5.15 or later")]
    Lacks(&'static str),
    /// KVM refused.
    #[error("KVM refuses to {what}: {source}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: kvm_ioctls::Error,
    },
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No processors.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Two devices want one address: a mistake in the layout.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// PCI slots or windows are used up.
    #[error(transparent)]
    Pci(#[from] pci::BusError),
    /// All slots of the PCI bus are taken.
    #[error("the board has room for 30 PCI devices: use fewer --disk, --net and --console")]
    Slots,
    /// No tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// No kernel.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The host is out of threads or descriptors.
    #[error("the host gives no {what}: {source}")]
    Host {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> BoardError {
    move |source| BoardError::Kvm { what, source }
}

/// What is on the board beside the devices that are plugged in.
pub struct Equipment {
    /// Guest memory in bytes.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u8,
    /// Which hypervisor the guest finds.
    pub paravirt: Paravirt,
    /// PS/2 keyboard and mouse.
    pub ps2: bool,
    /// Battery, mains adapter, lid and sleep button.
    pub laptop: bool,
    /// Where COM1's output goes, if there is a COM1.
    pub serial: Option<Box<dyn Write + Send>>,
}

/// A board that is being built, until [`Board::switch_on`].
pub struct Board {
    host: Kvm,
    vm: Arc<VmFd>,
    ram: GuestRam,
    hardware: Hardware,
    memory: u64,
    offer: Offer,
    pci: Arc<PciBus>,
    platform: Arc<KvmPlatform>,
    next_slot: u8,
    ports: Bus,
    tpm: Option<Arc<dyn BusTarget>>,
    gate: Arc<Gate>,
    /// What the main thread keeps in hand.
    pub panel: Panel,
}

/// The board's buttons and lamps.
#[derive(Clone)]
pub struct Panel {
    /// Tells the end of the guest.
    pub power: Arc<Power>,
    /// Holds the power button.
    pub pm: Arc<Mutex<PowerManagement>>,
    /// Wants to be ticked while an alarm is set.
    pub clock: Arc<Mutex<RealTimeClock>>,
    /// Takes what is typed.
    pub serial: Option<Arc<Mutex<SerialPort>>>,
    /// Takes keys and the movements of a mouse.
    pub ps2: Option<Arc<Mutex<Ps2Controller>>>,
    /// Shows battery, mains and lid, and holds the sleep button.
    pub laptop: Option<Arc<Mutex<Laptop>>>,
    /// What the processors leave the guest for.
    pub counts: Arc<Counts>,
}

impl Board {
    /// Lays out an empty board.
    pub fn new(equipment: Equipment) -> Result<Self, BoardError> {
        let host = Kvm::new().map_err(BoardError::Device)?;
        for (cap, name) in [
            (Cap::UserMemory, "user memory"),
            (Cap::Irqchip, "interrupt controllers"),
            (Cap::Irqfd, "irqfd"),
            (Cap::Ioeventfd, "ioeventfd"),
            (Cap::ImmediateExit, "immediate exit"),
        ] {
            if !host.check_extension(cap) {
                return Err(BoardError::Lacks(name));
            }
        }
        let vm = Arc::new(host.create_vm().map_err(kvm("make a virtual machine"))?);
        let ram = memory::allocate(equipment.memory)?;
        equip(&vm, &ram)?;
        let offer = Offer::of(&host, equipment.paravirt)?;
        let mmio64 = pci_mmio64(offer.physical_bits());
        let hardware = Hardware {
            cpus: equipment.cpus,
            ps2: equipment.ps2,
            serial: equipment.serial.is_some(),
            tpm: false,
            laptop: equipment.laptop,
            ecam: ECAM,
            mmio64: mmio64.clone(),
        };
        let windows = Windows {
            mmio32: PCI_MMIO32,
            mmio64,
        };
        let pci = Arc::new(PciBus::new(HostBridge::new(None), windows));
        pci.attach(LPC_SLOT, Arc::new(Mutex::new(LpcBridge::new())))?;
        let power = Power::new().map_err(|source| BoardError::Host {
            what: "event descriptor",
            source,
        })?;
        let mut ports = Bus::new();
        let lines = |gsi| -> Box<dyn Line> { Box::new(KvmLine::new(Arc::clone(&vm), gsi)) };
        let panel = solder(&mut ports, &lines, &pci, Arc::new(power), equipment)?;
        Ok(Self {
            host,
            platform: Arc::new(KvmPlatform::new(Arc::clone(&vm))),
            memory: ram.iter().map(GuestMemoryRegion::len).sum(),
            vm,
            ram,
            hardware,
            offer,
            pci,
            next_slot: FIRST_PLUG,
            ports,
            tpm: None,
            gate: Arc::default(),
            panel,
        })
    }

    /// Guest memory.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Interrupt vectors and doorbells for devices.
    pub fn platform(&self) -> Arc<dyn Platform> {
        self.platform.clone()
    }

    /// What pauses the guest and sets its clock.
    pub fn pauses(&self) -> Pauses<KvmGuest> {
        let guest = KvmGuest::new(Arc::clone(&self.vm), Arc::clone(&self.gate));
        Pauses::new(guest, Times::now())
    }

    /// Puts a device into the next free PCI slot.
    pub fn plug(&mut self, device: Arc<Mutex<dyn PciDevice>>) -> Result<Slot, BoardError> {
        if self.next_slot >= LPC_SLOT.device {
            return Err(BoardError::Slots);
        }
        let slot = Slot::new(self.next_slot, 0);
        self.pci.attach(slot, device)?;
        self.next_slot += 1;
        Ok(slot)
    }

    /// Puts a TPM on the board.
    pub fn fit_tpm(&mut self, registers: Arc<dyn BusTarget>) {
        self.hardware.tpm = true;
        self.tpm = Some(registers);
    }

    /// Puts kernel and tables into memory and makes the processors; nothing runs yet.
    pub fn load(self, linux: LinuxBoot<'_>) -> Result<Loaded, BoardError> {
        self.pci.open_ecam(ECAM.start);
        self.pci.place_bars()?;
        let entry = boot::load(&self.ram, linux, self.memory)?;
        acpi::write(&self.ram, &self.hardware)?;
        self.finish(Bus::new(), Some(&entry))
    }

    /// Makes the processors, the first with the registers of `entry` or with those of a reset, and
    /// puts the PCI windows beside what is on the memory bus.
    fn finish(self, mut mmio: Bus, entry: Option<&BootEntry>) -> Result<Loaded, BoardError> {
        let cpus = self.hardware.cpus;
        let vcpus = (0..cpus)
            .map(|index| cpu::create(&self.host, &self.vm, &self.offer, index, cpus, entry))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(tpm) = self.tpm {
            mmio.add(TPM.start, TPM.end - TPM.start, tpm)?;
        }
        let pci_memory = Arc::new(PciMemory::new(Arc::clone(&self.pci), LOW_RAM_LIMIT));
        mmio.add(LOW_RAM_LIMIT, PCI_MMIO32.end - LOW_RAM_LIMIT, pci_memory)?;
        let window = self.hardware.mmio64.clone();
        let pci_memory = Arc::new(PciMemory::new(Arc::clone(&self.pci), window.start));
        mmio.add(window.start, window.end - window.start, pci_memory)?;
        Ok(Loaded {
            vcpus,
            exits: Exits {
                ports: Arc::new(self.ports),
                mmio: Arc::new(mmio),
                power: Arc::clone(&self.panel.power),
                gate: self.gate,
                counts: Arc::clone(&self.panel.counts),
            },
            ram: self.ram,
        })
    }
}

/// A board that is ready to run.
pub struct Loaded {
    vcpus: Vec<VcpuFd>,
    exits: Exits,
    /// Guest memory outlives the processors.
    ram: GuestRam,
}

impl Loaded {
    /// Starts one thread for each processor; `prepare` runs first in each and closes the thread's
    /// sandbox. Where it fails the guest ends before its first instruction.
    pub fn switch_on<F, E>(self, prepare: F) -> Result<(), BoardError>
    where
        F: Fn() -> Result<(), E> + Send + Sync + 'static,
        E: std::fmt::Display,
    {
        let prepare = Arc::new(prepare);
        // KVM holds the host's addresses of guest memory, whatever happens to this value.
        drop(self.ram);
        for (index, vcpu) in self.vcpus.into_iter().enumerate() {
            let (exits, prepare) = (self.exits.clone(), Arc::clone(&prepare));
            thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || match prepare() {
                    Ok(()) => cpu::run(vcpu, &exits),
                    Err(error) => {
                        tracing::error!("{error}");
                        exits.power.crash(Crash::Unexpected);
                    }
                })
                .map_err(|source| BoardError::Host {
                    what: "thread for a processor",
                    source,
                })?;
        }
        Ok(())
    }
}

/// What KVM itself plays: memory, interrupt controllers and the timer of a PC.
fn equip(vm: &VmFd, ram: &GuestRam) -> Result<(), BoardError> {
    vm.set_identity_map_address(KVM_IDENTITY_MAP)
        .map_err(kvm("place its identity map"))?;
    let tss = usize::try_from(KVM_TSS).map_err(|_| BoardError::Lacks("64-bit host"))?;
    vm.set_tss_address(tss).map_err(kvm("place its TSS"))?;
    vm.create_irq_chip()
        .map_err(kvm("make interrupt controllers"))?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    vm.create_pit2(pit).map_err(kvm("make a timer"))?;
    for (slot, region) in (0..).zip(ram.iter()) {
        let map = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped as long as the process lives (`memory::allocate`), and
        // regions do not overlap.
        unsafe { vm.set_user_memory_region(map) }.map_err(kvm("take guest memory"))?;
    }
    Ok(())
}

/// Puts the chipset on the port bus; `line` makes the interrupt line of a GSI.
fn solder(
    ports: &mut Bus,
    line: &dyn Fn(u32) -> Box<dyn Line>,
    pci: &Arc<PciBus>,
    power: Arc<Power>,
    equipment: Equipment,
) -> Result<Panel, BoardError> {
    let pm = PowerManagement::new(line(SCI_IRQ), Arc::clone(&power));
    let pm = Arc::new(Mutex::new(pm));
    let clock = Arc::new(Mutex::new(RealTimeClock::new(
        Box::new(SystemTime::now),
        line(RTC_IRQ),
        Box::new(Arc::clone(&pm)),
    )));
    ports.add(PM_BASE.into(), PM_LEN.into(), pm.clone())?;
    ports.add(CMOS_BASE.into(), 2, clock.clone())?;
    let mut laptop = None;
    if equipment.laptop {
        let window = Arc::new(Mutex::new(Laptop::new(Box::new(Arc::clone(&pm)))));
        ports.add(LAPTOP.into(), WINDOW.into(), window.clone())?;
        laptop = Some(window);
    }
    let config = ConfigPorts::new(Arc::clone(pci), Arc::clone(&power));
    ports.add(PCI_CONFIG.into(), 8, Arc::new(config))?;
    let port_a = PortA::new(Arc::clone(&power));
    ports.add(PORT_A.into(), 1, Arc::new(Mutex::new(port_a)))?;
    let controller = Ps2Controller::new(line(KEYBOARD_IRQ), line(MOUSE_IRQ), Arc::clone(&power));
    let controller = Arc::new(Mutex::new(controller));
    let (data, command) = Ps2Port::pair(&controller);
    let ps2 = equipment.ps2.then_some(controller);
    if ps2.is_some() {
        ports.add(I8042_DATA.into(), 1, Arc::new(Mutex::new(data)))?;
        ports.add(I8042_COMMAND.into(), 1, Arc::new(Mutex::new(command)))?;
    } else {
        let reset = Arc::new(Mutex::new(ResetLine(command)));
        ports.add(I8042_COMMAND.into(), 1, reset)?;
    }
    let mut com1 = None;
    if let Some(out) = equipment.serial {
        let port = Arc::new(Mutex::new(SerialPort::new(line(COM1_IRQ), out)));
        ports.add(COM1_BASE.into(), serial::PORTS, port.clone())?;
        com1 = Some(port);
    }
    Ok(Panel {
        power,
        pm,
        clock,
        serial: com1,
        ps2,
        laptop,
        counts: Arc::default(),
    })
}
