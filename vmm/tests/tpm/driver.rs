//! A driver that speaks to the registers over the bus, one byte at a time.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sekisho_vmm::board::layout::TPM;
use sekisho_vmm::bus::Bus;
use sekisho_vmm::chipset::tpm::{Courier, Farewell, Patience, Swtpm, Tpm, TpmError};

const LOC_CTRL: u64 = 0x08;
const LOC_STS: u64 = 0x0c;
const REQ: u64 = 0x40;
const STS: u64 = 0x44;
const CANCEL: u64 = 0x48;
const START: u64 = 0x4c;
const BUFFER: u64 = 0x80;

/// `TPM_RC_RETRY`.
const RETRY: u32 = 0x922;

/// For a command of the slow kind on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// What no access may take, however busy the TPM is.
const PROMPT: Duration = Duration::from_secs(1);

/// The registers on a bus, and the thread behind them.
pub(crate) struct Machine {
    bus: Bus,
    tpm: Tpm,
    thread: JoinHandle<()>,
}

impl Machine {
    pub(crate) fn start(control: OwnedFd) -> Self {
        Self::open(control, Patience::default()).unwrap()
    }

    pub(crate) fn open(control: OwnedFd, patience: Patience) -> Result<Self, TpmError> {
        let swtpm = Swtpm::open(control, patience)?;
        let (tpm, courier) = Courier::new(swtpm).unwrap();
        let mut bus = Bus::new();
        bus.add(TPM.start, TPM.end - TPM.start, tpm.device())
            .unwrap();
        let machine = Self {
            bus,
            tpm,
            thread: std::thread::spawn(move || courier.run()),
        };
        machine.put(LOC_CTRL, 1);
        assert_eq!(machine.get(LOC_STS), 1);
        Ok(machine)
    }

    fn get(&self, offset: u64) -> u8 {
        let began = Instant::now();
        let mut byte = [0xee];
        self.bus.read(TPM.start + offset, &mut byte);
        assert!(began.elapsed() < PROMPT, "an access took its time");
        byte[0]
    }

    fn put(&self, offset: u64, value: u8) {
        let began = Instant::now();
        self.bus.write(TPM.start + offset, &[value]);
        assert!(began.elapsed() < PROMPT, "an access took its time");
    }

    /// Starts a command and goes on.
    pub(crate) fn send(&self, command: &[u8]) {
        self.put(REQ, 1);
        assert_eq!(self.get(STS) & 2, 0, "it is idle");
        for (at, byte) in (BUFFER..).zip(command) {
            self.put(at, *byte);
        }
        self.put(START, 1);
    }

    pub(crate) fn busy(&self) -> bool {
        self.get(START) & 1 != 0
    }

    pub(crate) fn failed(&self) -> bool {
        self.get(STS) & 1 != 0
    }

    pub(crate) fn cancel(&self) {
        self.put(CANCEL, 1);
        self.put(CANCEL, 0);
    }

    /// The response to what was started.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let end = Instant::now() + LIMIT;
        while self.busy() {
            assert!(Instant::now() < end, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        let read = |range: std::ops::Range<u64>| -> Vec<u8> {
            range.map(|at| self.get(BUFFER + at)).collect()
        };
        let header = read(0..10);
        let size = u32::from_be_bytes(header[2..6].try_into().unwrap());
        let response = read(0..u64::from(size));
        self.put(REQ, 2);
        response
    }

    /// Runs a command, and once more where the TPM asks for that: at the first use of a password, which
    /// it has to note first.
    pub(crate) fn run(&self, command: &[u8]) -> Vec<u8> {
        self.send(command);
        let response = self.receive();
        if code(&response) != RETRY {
            return response;
        }
        self.send(command);
        self.receive()
    }

    /// Runs a command that must succeed; what follows the header.
    pub(crate) fn ask(&self, command: &[u8]) -> Vec<u8> {
        let response = self.run(command);
        assert_eq!(code(&response), 0, "{command:02x?}");
        response[10..].to_vec()
    }

    /// Switches off, in order.
    pub(crate) fn off(self, farewell: Farewell) {
        self.tpm.farewell(farewell);
        self.thread.join().unwrap();
    }
}

/// The response code.
pub(crate) fn code(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[6..10].try_into().unwrap())
}
