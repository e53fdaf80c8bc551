//! The devices that the machine file names: opened here, plugged into the board, served by the I/O
//! thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use crate::board::aperture::Mapper;
use crate::board::{Board, BoardError};
use crate::boot::BootDisk;
use crate::chipset::tpm::{Courier, Patience, Swtpm, Tpm};
use crate::disk::image::requests::Service;
use crate::disk::image::{self, Changes, Image, ImageError, Plan};
use crate::disk::{self, DiskError, Store};
use crate::display::vram::Vram;
use crate::display::{Display, view, vram_size};
use crate::hda::sound::{Files, Nobody, Sound};
use crate::hda::{self, Hda};
use crate::input::InputDevices;
use crate::machine::{self, DiskChanges, DiskDevice, DiskFormat, Endpoint, Machine};
use crate::nvme::Nvme;
use crate::pci::{PciDevice, Slot};
use crate::virtio::block::Block;
use crate::virtio::console::{Backend, Console, PortSettings};
use crate::virtio::gpu::Gpu;
use crate::virtio::input::Tablet;
use crate::virtio::net::{self, Net, Settings};
use crate::virtio::rng::Rng;
use crate::virtio::{Device, VirtioPci};
use crate::worker::{Serve, Shared};

/// Memory for all pictures of a graphics card: two of the largest preferred mode and pointers.
const GPU_MEMORY: u64 = 80 << 20;

/// Why a device is not there.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A descriptor on the command line is not usable.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// A socket cannot be reached.
    #[error("{what} {path} cannot be connected: {source}")]
    Connect {
        /// Which device.
        what: &'static str,
        /// The socket's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("{what} {path} cannot be opened: {source}")]
    Open {
        /// Which device.
        what: &'static str,
        /// The file's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A disk image cannot be used.
    #[error("disk {0}")]
    Image(#[from] ImageError),
    /// The device model refuses what was opened.
    #[error("{what} cannot be used: {reason}")]
    Refused {
        /// Which device.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The TPM.
    #[error("--tpm: {0}")]
    Tpm(#[from] crate::chipset::tpm::TpmError),
    /// The board has no room.
    #[error(transparent)]
    Board(#[from] BoardError),
}

/// A NIC, and the end of its link to watch for the report of its loss.
pub struct Nic {
    device: Arc<Mutex<VirtioPci<Net>>>,
}

impl Nic {
    /// Plugs a fresh link in; gives a duplicate that tells of its end.
    pub fn attach(&self, socket: OwnedFd) -> Result<OwnedFd, DeviceError> {
        const WHAT: &str = "the frame link";
        let watch = socket.try_clone().map_err(|error| refused(WHAT, &error))?;
        lock(&self.device)
            .update(|net| net.attach(socket))
            .map_err(|error| refused(WHAT, &error))?;
        Ok(watch)
    }
}

/// A device as board, worker and control share it.
type Plugged<D> = Arc<Mutex<VirtioPci<D>>>;

/// All devices of a machine.
#[derive(Default)]
pub struct Devices {
    /// What the I/O thread serves.
    pub served: Vec<Shared>,
    /// The NICs, in the machine file's order.
    pub nics: Vec<Nic>,
    /// Links that are up, by NIC.
    pub links: Vec<(usize, OwnedFd)>,
    /// Where the disks are, in the machine file's order.
    pub disks: Vec<BootDisk>,
    /// The work of the thread that moves the screen's memory, until it has one.
    pub mapper: Option<Mapper>,
    /// The TPM, and what its thread is to run.
    pub tpm: Option<(Tpm, Courier)>,
    /// Images that want a thread each.
    pub images: Vec<Service>,
    /// What tells each disk's counters, in the machine file's order.
    counters: Vec<Box<dyn Fn() -> disk::Counters>>,
    console: Option<Arc<Mutex<VirtioPci<Console>>>>,
    display: Option<Arc<Mutex<Display>>>,
    viewers: Option<OwnedFd>,
}

impl Devices {
    /// Opens what `machine` names and plugs it into `board`.
    pub fn open(machine: &Machine, board: &mut Board) -> Result<Self, DeviceError> {
        let mut devices = Self::default();
        for net in &machine.net {
            let (_, device) = devices.plug(board, Net::new(Settings::new(net.mac.0, net.mtu)))?;
            let nic = Nic { device };
            if let Some(link) = &net.link {
                let socket = endpoint("the frame link", link, SocketType::SEQPACKET)?;
                let watch = nic.attach(socket)?;
                devices.links.push((devices.nics.len(), watch));
            }
            devices.nics.push(nic);
        }
        for disk in &machine.disk {
            devices.add_disk(board, disk)?;
        }
        if !machine.console.is_empty() {
            let ports = (0..).zip(&machine.console).map(port);
            let console = Console::new(ports.collect::<Result<_, _>>()?);
            let console = console.map_err(|error| refused("a console port", &error))?;
            devices.console = Some(devices.plug(board, console)?.1);
        }
        if let Some(screen) = &machine.display {
            devices.add_display(board, screen)?;
        }
        if let Some(sound) = &machine.sound {
            devices.add_sound(board, sound)?;
        }
        devices.plug(board, Rng::new())?;
        if let Some(tpm) = &machine.tpm {
            let socket = endpoint("swtpm's control socket", &tpm.socket, SocketType::STREAM)?;
            let swtpm = Swtpm::open(socket, Patience::default())?;
            let (tpm, courier) = Courier::new(swtpm).map_err(|error| refused("the TPM", &error))?;
            board.fit_tpm(tpm.device());
            devices.tpm = Some((tpm, courier));
        }
        Ok(devices)
    }

    /// What the disks have done, in the machine file's order.
    pub fn disk_counters(&self) -> Vec<disk::Counters> {
        self.counters.iter().map(|counters| counters()).collect()
    }

    /// What the network cards have done, in the machine file's order.
    pub fn nic_counters(&self) -> Vec<net::Counters> {
        let counters = |nic: &Nic| lock(&nic.device).device().counters();
        self.nics.iter().map(counters).collect()
    }

    /// Gives the first console port a fresh host end.
    pub fn attach_guest_channel(&self, socket: OwnedFd) -> Result<(), DeviceError> {
        let missing = io::Error::other("the guest has no console port");
        let console = self.console.as_ref();
        let console = console.ok_or_else(|| refused("the guest channel", &missing))?;
        lock(console)
            .update(|console| console.attach(0, Backend::Socket(socket)))
            .map_err(|error| refused("the guest channel", &error))
    }

    /// Gives the screen a fresh seat.
    pub fn attach_seat(&self, socket: OwnedFd) -> Result<(), DeviceError> {
        const WHAT: &str = "the seat's link";
        let missing = io::Error::other("the guest has no screen");
        let display = self.display.as_ref();
        let display = display.ok_or_else(|| refused(WHAT, &missing))?;
        lock(display)
            .attach(socket)
            .map_err(|error| refused(WHAT, &error))
    }

    /// Where those come who look at the screen once.
    pub fn viewers(&self) -> Option<BorrowedFd<'_>> {
        self.viewers.as_ref().map(AsFd::as_fd)
    }

    /// Shows the screen to one of them.
    pub fn answer_viewer(&self) {
        let (Some(viewers), Some(display)) = (&self.viewers, &self.display) else {
            return;
        };
        if let Err(error) = view::answer(viewers, &lock(display)) {
            tracing::warn!("a viewer of the screen was not answered: {error}");
        }
    }

    fn add_display(
        &mut self,
        board: &mut Board,
        screen: &machine::Screen,
    ) -> Result<(), DeviceError> {
        const WHAT: &str = "the screen";
        let failed = |error: io::Error| refused(WHAT, &error);
        let mode = screen.mode.0;
        let vram = Vram::new(vram_size(mode)).map_err(failed)?;
        let (aperture, mapper) = board.aperture(vram.cells());
        let mut display = Display::new(mode, vram, aperture).map_err(failed)?;
        if let Some(seat) = &screen.seat {
            let socket = endpoint("the seat's link", seat, SocketType::SEQPACKET)?;
            display.attach(socket).map_err(failed)?;
        }
        self.viewers = match &screen.view {
            None => None,
            Some(Endpoint::Inherited(word)) => Some(sekisho_control::inherited(word)?),
            Some(Endpoint::Path(path)) => {
                let socket = view::listen(path).map_err(|source| DeviceError::Open {
                    what: "the screen's view",
                    path: path.display().to_string(),
                    source,
                });
                Some(socket?)
            }
        };
        let surface = if screen.gpu {
            Some(display.add_surface(GPU_MEMORY).map_err(failed)?)
        } else {
            None
        };
        let (_, display) = self.insert(board, display)?;
        let (_, tablet) = self.plug(board, Tablet::new())?;
        let input = InputDevices::new(board.panel.ps2.clone(), tablet);
        lock(&display).set_sink(Box::new(input));
        self.display = Some(display);
        if let Some(surface) = surface {
            self.plug(board, Gpu::new(mode, surface))?;
        }
        self.mapper = Some(mapper);
        Ok(())
    }

    fn add_sound(&mut self, board: &mut Board, sound: &machine::Sound) -> Result<(), DeviceError> {
        let sound: Box<dyn Sound> = match sound {
            machine::Sound::Null => Box::new(Nobody),
            machine::Sound::File { output, input } => {
                let files = Files::open(output, input.as_deref());
                Box::new(files.map_err(|source| DeviceError::Open {
                    what: "the sound card's file, or what it records from, with",
                    path: output.display().to_string(),
                    source,
                })?)
            }
        };
        let (ram, platform) = (board.ram().clone(), board.platform());
        let card = Hda::new(sound, hda::clock(), ram, platform);
        self.insert(
            board,
            card.map_err(|error| refused("the sound card", &error))?,
        )?;
        Ok(())
    }

    /// Opens a disk image. Its serial number in the guest is its place in the machine file.
    fn add_disk(&mut self, board: &mut Board, disk: &machine::Disk) -> Result<(), DeviceError> {
        let store = self.open_disk(disk)?;
        let refused = |error: DiskError| DeviceError::Refused {
            what: "a disk",
            reason: format!("{}: {error}", disk.path.display()),
        };
        let index = u8::try_from(self.disks.len()).unwrap_or(u8::MAX);
        let id = format!("sekisho-{index}");
        let place = match disk.device {
            DiskDevice::VirtioBlk => {
                let block = Block::new(store, disk.readonly, &id).map_err(refused)?;
                let (slot, block) = self.plug(board, block)?;
                let counters = move || lock(&block).device().counters();
                self.counters.push(Box::new(counters));
                BootDisk::Virtio(slot)
            }
            DiskDevice::Nvme => {
                let names = (id.as_str(), index);
                let (ram, platform) = (board.ram().clone(), board.platform());
                let nvme = Nvme::new(store, disk.readonly, names, ram, platform);
                let (slot, nvme) = self.insert(board, nvme.map_err(refused)?)?;
                self.counters.push(Box::new(move || lock(&nvme).counters()));
                BootDisk::Nvme(slot)
            }
        };
        self.disks.push(place);
        Ok(())
    }

    /// A raw image is the kernel's work, any other one that of a thread.
    fn open_disk(&mut self, disk: &machine::Disk) -> Result<Store, DeviceError> {
        let changes = match (&disk.overlay, disk.changes) {
            (Some(overlay), _) => Changes::Overlay(overlay),
            (None, DiskChanges::Temporary) => Changes::Temporary,
            (None, DiskChanges::Kept) if disk.format == DiskFormat::Raw => {
                let file = open("disk", &disk.path, !disk.readonly)?;
                image::lock(&file, &disk.path, !disk.readonly)?;
                return Ok(file.into());
            }
            (None, DiskChanges::Kept) => Changes::Kept,
        };
        let image = Image::open(&Plan {
            path: &disk.path,
            format: disk.format,
            read_only: disk.readonly,
            changes,
        })?;
        let parts = image.split();
        let (requests, service) = parts.map_err(|error| refused("a disk image", &error))?;
        self.images.push(service);
        Ok(requests.into())
    }

    fn plug<D: Device + 'static>(
        &mut self,
        board: &mut Board,
        device: D,
    ) -> Result<(Slot, Plugged<D>), DeviceError> {
        let device = VirtioPci::new(device, board.ram().clone(), board.platform());
        self.insert(
            board,
            device.map_err(|error| refused("a virtio device", &error))?,
        )
    }

    /// Gives a function its slot and has it served.
    fn insert<F: PciDevice + Serve + 'static>(
        &mut self,
        board: &mut Board,
        function: F,
    ) -> Result<(Slot, Arc<Mutex<F>>), DeviceError> {
        let device = Arc::new(Mutex::new(function));
        let slot = board.plug(device.clone())?;
        self.served.push(device.clone());
        Ok((slot, device))
    }
}

fn refused(what: &'static str, error: &dyn std::error::Error) -> DeviceError {
    DeviceError::Refused {
        what,
        reason: error.to_string(),
    }
}

fn port((id, console): (u32, &machine::Console)) -> Result<PortSettings, DeviceError> {
    let backend = match (&console.socket, &console.device) {
        (Some(socket), _) => Some(Backend::Socket(endpoint(
            "the console socket",
            socket,
            SocketType::STREAM,
        )?)),
        (None, Some(device)) => Some(Backend::Device(
            open("the console device", device, true)?.into(),
        )),
        (None, None) => None,
    };
    Ok(PortSettings {
        id,
        name: console.name.clone(),
        backend,
    })
}

fn open(what: &'static str, path: &Path, write: bool) -> Result<File, DeviceError> {
    let file = File::options().read(true).write(write).open(path);
    file.map_err(|source| DeviceError::Open {
        what,
        path: path.display().to_string(),
        source,
    })
}

fn endpoint(
    what: &'static str,
    endpoint: &Endpoint,
    kind: SocketType,
) -> Result<OwnedFd, DeviceError> {
    match endpoint {
        Endpoint::Inherited(word) => Ok(sekisho_control::inherited(word)?),
        Endpoint::Path(path) => connect(path, kind).map_err(|source| DeviceError::Connect {
            what,
            path: path.display().to_string(),
            source,
        }),
    }
}

fn connect(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(socket.as_fd(), &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
