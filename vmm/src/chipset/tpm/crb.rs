//! The command/response buffer by which a driver speaks to a TPM.
//!
//! Source: TCG PC Client Platform TPM Profile 1.05, 6.5.3 "CRB Interface". Locality 0 is the only one,
//! as the interface identifier tells: firmware and operating systems use no other. Registers take
//! accesses of any size, also single bytes, as Windows makes them.

use crate::board::layout::TPM;
use crate::bus::BusDevice;

use super::command::{Command, Refusal, Response};

/// Bytes of one locality.
const PAGE: u64 = 0x1000;
/// Where the buffer for commands and responses lies in the page, and how long it is.
const BUFFER: u64 = 0x80;
/// Length of the buffer: what is left of the page.
pub const BUFFER_LEN: usize = 0xf80;

const LOC_STATE: u64 = 0x00;
const LOC_CTRL: u64 = 0x08;
const LOC_STS: u64 = 0x0c;
const INTF_ID: u64 = 0x30;
const INTF_ID_HIGH: u64 = 0x34;
const CTRL_REQ: u64 = 0x40;
const CTRL_STS: u64 = 0x44;
const CTRL_CANCEL: u64 = 0x48;
const CTRL_START: u64 = 0x4c;
const CTRL_CMD_SIZE: u64 = 0x58;
const CTRL_CMD_LADDR: u64 = 0x5c;
const CTRL_RSP_SIZE: u64 = 0x64;
const CTRL_RSP_ADDR: u64 = 0x68;

/// Where the control area starts, for the ACPI table.
pub const CONTROL_AREA: u64 = TPM.start + CTRL_REQ;

/// `LOC_STATE`: no dynamic launch has happened; a locality is assigned (it is 0); what this register
/// reads is true.
const NOT_ESTABLISHED: u32 = 1;
const LOC_ASSIGNED: u32 = 1 << 1;
const REG_VALID: u32 = 1 << 7;
/// `LOC_CTRL`. A seizure wants a higher locality, resetting the establishment 3 or 4.
const REQUEST_ACCESS: u8 = 1;
const RELINQUISH: u8 = 1 << 1;
/// `LOC_STS`.
const GRANTED: u32 = 1;
/// `CTRL_REQ`.
const CMD_READY: u8 = 1;
const GO_IDLE: u8 = 1 << 1;
/// `CTRL_STS`: the TPM has failed; it is idle.
const FAILED: u32 = 1;
const IDLE: u32 = 1 << 1;
/// `CTRL_CANCEL` and `CTRL_START`.
const CANCEL: u8 = 1;
const START: u8 = 1;

/// Interface identifier: CRB of version 1 and nothing else, locality 0 alone, transfers of up to 64
/// bytes.
const INTERFACE: u32 = 1 | 1 << 4 | 3 << 11 | 1 << 14 | 1 << 17;
/// Vendor: libtpms, which plays the TPM in swtpm, says that IBM made it.
const VENDOR: u32 = 0x1014;

/// Who executes commands. Neither call waits for anything.
pub trait Executor: Send {
    /// Takes a command, whose outcome comes by [`Crb::complete`] or [`Crb::fail`]. There is never more
    /// than one.
    fn execute(&mut self, command: Command);

    /// Asks that the command be given up, which it may be or not; its outcome comes all the same.
    fn cancel(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Takes no command.
    Idle,
    /// Takes a command into the buffer.
    Ready,
    /// Executes it.
    Running,
    /// The response is in the buffer.
    Complete,
}

/// The device.
pub struct Crb {
    executor: Box<dyn Executor>,
    /// The bit of `LOC_STATE`.
    established: u32,
    granted: bool,
    state: State,
    cancel: bool,
    failed: bool,
    buffer: Vec<u8>,
}

impl Crb {
    /// A device after reset; `established` tells of a dynamic launch.
    pub fn new(executor: Box<dyn Executor>, established: bool) -> Self {
        Self {
            executor,
            established: if established { 0 } else { NOT_ESTABLISHED },
            granted: false,
            state: State::Idle,
            cancel: false,
            failed: false,
            buffer: vec![0; BUFFER_LEN],
        }
    }

    /// The response to the command that was started.
    pub fn complete(&mut self, response: &Response) {
        if self.state == State::Running {
            self.answer(response);
        }
    }

    /// There is no TPM any more: what was started and what will be has failed.
    pub fn fail(&mut self) {
        self.failed = true;
        self.complete(&Refusal::Failure.response());
    }

    fn answer(&mut self, response: &Response) {
        self.buffer.fill(0);
        for (place, byte) in self.buffer.iter_mut().zip(response.bytes()) {
            *place = *byte;
        }
        self.state = State::Complete;
    }

    fn register(&self, offset: u64) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let size = u32::try_from(BUFFER_LEN).unwrap_or(0);
        let address = u32::try_from(TPM.start + BUFFER).unwrap_or(0);
        match offset {
            LOC_STATE => self.established | bit(self.granted, LOC_ASSIGNED) | REG_VALID,
            LOC_STS => bit(self.granted, GRANTED),
            INTF_ID => INTERFACE,
            INTF_ID_HIGH => VENDOR,
            CTRL_STS => bit(self.failed, FAILED) | bit(self.state == State::Idle, IDLE),
            CTRL_CANCEL => bit(self.cancel, CANCEL.into()),
            CTRL_START => bit(self.state == State::Running, START.into()),
            CTRL_CMD_SIZE | CTRL_RSP_SIZE => size,
            CTRL_CMD_LADDR | CTRL_RSP_ADDR => address,
            // Commands and requests read as done; interrupts there are none.
            _ => 0,
        }
    }

    fn read_byte(&self, offset: u64) -> Option<u8> {
        match offset {
            0..BUFFER => {
                let bytes = self.register(offset & !3).to_le_bytes();
                bytes.get(usize::try_from(offset & 3).ok()?).copied()
            }
            BUFFER..PAGE => {
                let readable = self.granted && self.state != State::Running;
                let place = usize::try_from(offset - BUFFER).ok()?;
                self.buffer.get(place).copied().filter(|_| readable)
            }
            // Another locality's.
            _ => None,
        }
    }

    /// All bits that do something are in their register's first byte.
    fn write_byte(&mut self, offset: u64, value: u8) {
        match offset {
            LOC_CTRL if value & REQUEST_ACCESS != 0 => self.granted = true,
            LOC_CTRL if value & RELINQUISH != 0 => self.granted = false,
            _ if !self.granted => {}
            CTRL_REQ if value & CMD_READY != 0 => self.settle(State::Ready),
            CTRL_REQ if value & GO_IDLE != 0 => self.settle(State::Idle),
            CTRL_CANCEL => self.cancel(value & CANCEL != 0),
            CTRL_START if value & START != 0 => self.start(),
            BUFFER..PAGE if matches!(self.state, State::Ready | State::Complete) => {
                // Linux asks for "ready" once and then sends one command after the other.
                self.settle(State::Ready);
                let place = usize::try_from(offset - BUFFER).ok();
                if let Some(place) = place.and_then(|place| self.buffer.get_mut(place)) {
                    *place = value;
                }
            }
            _ => {}
        }
    }

    /// What was read is forgotten: it may have been unsealed.
    fn settle(&mut self, state: State) {
        if self.state != State::Running {
            if self.state == State::Complete || state == State::Idle {
                self.buffer.fill(0);
            }
            self.state = state;
        }
    }

    fn cancel(&mut self, on: bool) {
        let edge = on && !self.cancel;
        self.cancel = on;
        if edge && self.state == State::Running {
            self.executor.cancel();
        }
    }

    fn start(&mut self) {
        if self.state != State::Ready {
            return;
        }
        if self.failed {
            return self.answer(&Refusal::Failure.response());
        }
        match Command::parse(&self.buffer) {
            Ok(command) => {
                self.state = State::Running;
                self.executor.execute(command);
            }
            Err(refusal) => self.answer(&refusal.response()),
        }
    }
}

impl BusDevice for Crb {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..u64::MAX).zip(data) {
            if let Some(value) = self.read_byte(at) {
                *byte = value;
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..u64::MAX).zip(data) {
            self.write_byte(at, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::command::Incoming;
    use super::*;

    #[derive(Default)]
    struct Seen {
        commands: Vec<Vec<u8>>,
        cancels: usize,
    }

    #[derive(Clone, Default)]
    struct Bench(Arc<Mutex<Seen>>);

    impl Executor for Bench {
        fn execute(&mut self, command: Command) {
            self.0
                .lock()
                .unwrap()
                .commands
                .push(command.bytes().to_vec());
        }

        fn cancel(&mut self) {
            self.0.lock().unwrap().cancels += 1;
        }
    }

    const RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 4];
    const ANSWER: [u8; 16] = [0x80, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 4, 9, 8, 7, 6];

    fn device() -> (Crb, Bench) {
        let bench = Bench::default();
        (Crb::new(Box::new(bench.clone()), false), bench)
    }

    fn response(bytes: &[u8]) -> Response {
        Incoming::default().take(bytes).unwrap().unwrap()
    }

    fn get(device: &mut Crb, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn put(device: &mut Crb, offset: u64, value: u32) {
        device.write(offset, &value.to_le_bytes());
    }

    fn ready(device: &mut Crb) {
        put(device, LOC_CTRL, REQUEST_ACCESS.into());
        put(device, CTRL_REQ, CMD_READY.into());
    }

    /// Up to the start of a command.
    fn started() -> (Crb, Bench) {
        let (mut device, bench) = device();
        ready(&mut device);
        device.write(BUFFER, &RANDOM);
        put(&mut device, CTRL_START, START.into());
        (device, bench)
    }

    #[test]
    fn it_says_what_it_is() {
        let (mut device, _) = device();
        let id = get(&mut device, INTF_ID);
        assert_eq!(
            (id & 0xf, id >> 4 & 0xf),
            (1, 1),
            "CRB of version 1 is active"
        );
        assert_eq!((id >> 13 & 3, id >> 17 & 3), (2, 1), "and there is no FIFO");
        assert_eq!(id >> 8 & 1, 0, "locality 0 alone");
        let buffer = 0xfed4_0080;
        assert_eq!(get(&mut device, CTRL_CMD_SIZE), 0xf80);
        assert_eq!(get(&mut device, CTRL_CMD_LADDR), buffer);
        assert_eq!(get(&mut device, CTRL_RSP_SIZE), 0xf80);
        assert_eq!(get(&mut device, CTRL_RSP_ADDR), buffer);
        assert_eq!(get(&mut device, CTRL_STS), IDLE);
        assert_eq!(get(&mut device, LOC_STATE), NOT_ESTABLISHED | REG_VALID);
        assert_eq!(CONTROL_AREA, 0xfed4_0040);
    }

    #[test]
    fn a_command_goes_through_all_states() {
        let (mut device, bench) = started();
        assert_eq!(bench.0.lock().unwrap().commands, [RANDOM]);
        assert_eq!(get(&mut device, CTRL_START), 1);
        device.complete(&response(&ANSWER));
        assert_eq!(get(&mut device, CTRL_START), 0);
        let mut read = [0; 16];
        device.read(BUFFER, &mut read);
        assert_eq!(read, ANSWER);
        put(&mut device, CTRL_REQ, GO_IDLE.into());
        assert_eq!(get(&mut device, CTRL_REQ), 0);
        assert_eq!(get(&mut device, CTRL_STS), IDLE);
        assert_eq!(get(&mut device, BUFFER), 0, "what was read is forgotten");
        put(&mut device, LOC_CTRL, RELINQUISH.into());
        assert_eq!(get(&mut device, LOC_STATE), NOT_ESTABLISHED | REG_VALID);
        assert_eq!(get(&mut device, LOC_STS), 0);
    }

    /// As Windows does.
    #[test]
    fn single_bytes_do_as_well() {
        let (mut device, bench) = device();
        device.write(LOC_CTRL, &[REQUEST_ACCESS]);
        let mut byte = [0xff];
        device.read(LOC_STATE, &mut byte);
        assert_eq!(byte, [0x83]);
        device.write(CTRL_REQ, &[CMD_READY]);
        for (at, byte) in (BUFFER..).zip(RANDOM) {
            device.write(at, &[byte]);
        }
        device.write(CTRL_START, &[START]);
        assert_eq!(bench.0.lock().unwrap().commands, [RANDOM]);
        device.complete(&response(&ANSWER));
        for (at, expected) in (BUFFER..).zip(ANSWER) {
            device.read(at, &mut byte);
            assert_eq!(byte, [expected]);
        }
        // The second byte of the size of the buffer, and both halves of an access across two registers.
        device.read(CTRL_CMD_SIZE + 1, &mut byte);
        assert_eq!(byte, [0x0f]);
        let mut two = [0xff; 8];
        device.read(INTF_ID, &mut two);
        assert_eq!(two[4..], VENDOR.to_le_bytes());
    }

    /// Not the byte that holds the bit.
    #[test]
    fn other_bytes_of_a_register_do_nothing() {
        let (mut device, bench) = device();
        device.write(LOC_CTRL + 1, &[0xff, 0xff, 0xff]);
        assert_eq!(get(&mut device, LOC_STS), 0);
        ready(&mut device);
        device.write(BUFFER, &RANDOM);
        device.write(CTRL_START + 1, &[0xff, 0xff, 0xff]);
        assert!(bench.0.lock().unwrap().commands.is_empty());
    }

    #[test]
    fn without_the_locality_nothing_happens() {
        let (mut device, bench) = device();
        put(&mut device, CTRL_REQ, CMD_READY.into());
        assert_eq!(get(&mut device, CTRL_STS), IDLE);
        ready(&mut device);
        device.write(BUFFER, &RANDOM);
        put(&mut device, LOC_CTRL, RELINQUISH.into());
        put(&mut device, CTRL_START, START.into());
        assert_eq!(get(&mut device, BUFFER), u32::MAX);
        assert!(bench.0.lock().unwrap().commands.is_empty());
    }

    #[test]
    fn an_idle_tpm_takes_no_command() {
        let (mut device, bench) = device();
        put(&mut device, LOC_CTRL, REQUEST_ACCESS.into());
        device.write(BUFFER, &RANDOM);
        put(&mut device, CTRL_START, START.into());
        assert_eq!(get(&mut device, CTRL_START), 0);
        assert!(bench.0.lock().unwrap().commands.is_empty());
    }

    /// As Linux does.
    #[test]
    fn the_next_command_may_follow_the_response_at_once() {
        let (mut device, bench) = started();
        device.complete(&response(&ANSWER));
        // The response itself is no command.
        put(&mut device, CTRL_START, START.into());
        assert_eq!(get(&mut device, CTRL_START), 0);
        assert_eq!(get(&mut device, BUFFER + 12), 0x0607_0809);
        device.write(BUFFER, &RANDOM);
        assert_eq!(
            get(&mut device, BUFFER + 12),
            0,
            "what was read is forgotten"
        );
        put(&mut device, CTRL_START, START.into());
        assert_eq!(bench.0.lock().unwrap().commands, [RANDOM; 2]);
        assert_eq!(get(&mut device, CTRL_START), 1);
    }

    #[test]
    fn nothing_but_a_cancel_reaches_a_running_command() {
        let (mut device, bench) = started();
        put(&mut device, CTRL_START, START.into());
        put(&mut device, CTRL_REQ, GO_IDLE.into());
        put(&mut device, CTRL_REQ, CMD_READY.into());
        device.write(BUFFER, &[0xee; 16]);
        assert_eq!(get(&mut device, BUFFER), u32::MAX);
        assert_eq!(get(&mut device, CTRL_START), 1);
        assert_eq!(get(&mut device, CTRL_STS), 0);
        for value in [1, 1, 0, 1] {
            put(&mut device, CTRL_CANCEL, value);
            assert_eq!(get(&mut device, CTRL_CANCEL), value);
        }
        let seen = bench.0.lock().unwrap();
        assert_eq!((seen.commands.len(), seen.cancels), (1, 2));
        drop(seen);
        assert_eq!(get(&mut device, CTRL_START), 1, "until the answer is there");
        device.complete(&response(&ANSWER));
        put(&mut device, CTRL_CANCEL, 0);
        put(&mut device, CTRL_CANCEL, 1);
        assert_eq!(
            bench.0.lock().unwrap().cancels,
            2,
            "there is nothing to cancel"
        );
    }

    /// The locality goes and comes back while the command runs, and the answer is there.
    #[test]
    fn a_running_command_outlives_the_locality() {
        let (mut device, _) = started();
        put(&mut device, LOC_CTRL, RELINQUISH.into());
        device.complete(&response(&ANSWER));
        assert_eq!(get(&mut device, BUFFER), u32::MAX);
        put(&mut device, LOC_CTRL, REQUEST_ACCESS.into());
        assert_eq!(get(&mut device, BUFFER + 12), 0x0607_0809);
    }

    #[test]
    fn what_is_no_command_is_answered_here() {
        for (bytes, code) in [
            ([0x80, 1, 0, 0, 0x0f, 0x81, 0, 0, 1, 0x7b], 0x142),
            ([0x80, 1, 0, 0, 0, 9, 0, 0, 1, 0x7b], 0x142),
            ([0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0x7b], 0x142),
            ([0, 0, 0, 8, 4, 0, 0, 0, 12, 0x80], 0x01e),
        ] {
            let (mut device, bench) = device();
            ready(&mut device);
            device.write(BUFFER, &bytes);
            put(&mut device, CTRL_START, START.into());
            assert_eq!(get(&mut device, CTRL_START), 0);
            assert_eq!(get(&mut device, BUFFER + 6).swap_bytes(), code);
            assert_eq!(get(&mut device, CTRL_STS), 0, "no failure of the TPM");
            assert!(bench.0.lock().unwrap().commands.is_empty());
        }
    }

    #[test]
    fn a_command_may_fill_the_buffer() {
        let (mut device, bench) = device();
        ready(&mut device);
        device.write(BUFFER, &[0x80, 1, 0, 0, 0x0f, 0x80, 0, 0, 1, 0x7b]);
        device.write(0xfff, &[0x5a, 0x5b]);
        put(&mut device, CTRL_START, START.into());
        let seen = bench.0.lock().unwrap();
        assert_eq!(seen.commands[0].len(), BUFFER_LEN);
        assert_eq!(seen.commands[0].last(), Some(&0x5a));
    }

    #[test]
    fn a_tpm_that_is_gone_fails_what_runs_and_what_follows() {
        let (mut device, bench) = started();
        device.fail();
        for _ in 0..2 {
            assert_eq!(get(&mut device, CTRL_START), 0);
            assert_eq!(get(&mut device, CTRL_STS) & FAILED, FAILED);
            assert_eq!(get(&mut device, BUFFER + 6).swap_bytes(), 0x101);
            put(&mut device, CTRL_REQ, CMD_READY.into());
            device.write(BUFFER, &RANDOM);
            put(&mut device, CTRL_START, START.into());
        }
        assert_eq!(bench.0.lock().unwrap().commands.len(), 1);
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_none() {
        let (mut device, _) = device();
        ready(&mut device);
        device.write(BUFFER, &RANDOM);
        device.complete(&response(&ANSWER));
        assert_eq!(
            get(&mut device, BUFFER),
            u32::from_le_bytes([0x80, 1, 0, 0])
        );
        assert_eq!(get(&mut device, BUFFER + 8) & 0xffff, 0x7b01);
    }

    #[test]
    fn other_localities_are_not_there() {
        let (mut device, _) = device();
        for page in 1..5 {
            put(&mut device, page * PAGE + LOC_CTRL, REQUEST_ACCESS.into());
            assert_eq!(get(&mut device, page * PAGE), u32::MAX);
        }
        assert_eq!(get(&mut device, LOC_STS), 0);
        // The end of the page and the start of the next one.
        ready(&mut device);
        let mut data = [0xff; 4];
        device.read(0xffe, &mut data);
        assert_eq!(data, [0, 0, 0xff, 0xff]);
        device.read(u64::MAX, &mut data[..1]);
    }
}
