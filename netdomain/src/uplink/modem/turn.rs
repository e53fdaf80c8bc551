//! The loop: waits for the bus, the supervisor, the uplink and time; feeds the session, does what it
//! says.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use sekisho_control::{
    Bearer, Channel, Command, ModemToUplink, Port, Received, Report, UplinkToModem,
};

use super::{
    ModemError,
    dbus::{Bus, Kind, Malformed, Message, Method, Value, Writer},
    objects::{self, OBJECTS, ObjectPath, PROPERTIES},
    session::{Action, Answer, Call, Event, Finding, Session},
};
use crate::uplink::turn::now;

/// Messages of one channel in one turn.
const MESSAGES: usize = 16;

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const SERVICE: &str = "org.freedesktop.ModemManager1";
const ROOT: &str = "/org/freedesktop/ModemManager1";
const PROPERTIES_OF: &str = "org.freedesktop.DBus.Properties";
const BEARER: &str = "org.freedesktop.ModemManager1.Bearer";
const SIMPLE: &str = "org.freedesktop.ModemManager1.Modem.Simple";
/// What the bus passes on to us unasked: all that ModemManager signals, and that it came or went. The
/// bus itself sees to who may speak as whom.
const MATCHES: [&str; 2] = [
    "type='signal',sender='org.freedesktop.ModemManager1'",
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.ModemManager1'",
];

type Control = Channel<Report, Command>;
type Uplink = Channel<ModemToUplink, UplinkToModem>;

/// Everything that the running process holds.
pub(super) struct Turn {
    bus: Bus,
    session: Session,
    control: Control,
    uplink: Option<Uplink>,
    /// The call whose answer the session waits for.
    waits_for: Option<(u32, Call)>,
    told: Option<Finding>,
    ended: bool,
}

/// What a message on the bus is to us.
enum Heard {
    Answer(Option<Answer>),
    Changed,
}

impl Turn {
    pub(super) const fn new(
        bus: Bus,
        session: Session,
        control: Control,
        uplink: Option<Uplink>,
    ) -> Self {
        Self {
            bus,
            session,
            control,
            uplink,
            waits_for: None,
            told: None,
            ended: false,
        }
    }

    /// Serves until the supervisor says that it is enough, or the bus is gone.
    pub(super) fn serve(&mut self) -> Result<(), ModemError> {
        self.ask_bus("Hello", &Writer::default())?;
        for rule in MATCHES {
            self.ask_bus("AddMatch", &Writer::default().text(rule))?;
        }
        self.control.send(&Report::Ready, &[])?;
        while !self.ended {
            self.feed(Event::Time)?;
            let (bus, control, uplink) = self.wait()?;
            if bus {
                self.read_bus()?;
            }
            if control {
                self.read_control()?;
            }
            if uplink {
                self.read_uplink();
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<(bool, bool, bool), ModemError> {
        let mut interest = PollFlags::IN;
        interest.set(PollFlags::OUT, self.bus.unsent());
        let mut fds = vec![
            PollFd::new(&self.bus, interest),
            PollFd::new(&self.control, PollFlags::IN),
        ];
        fds.extend(
            self.uplink
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        let wait = self.session.due().saturating_sub(now());
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ModemError::Wait(errno)),
        }
        let ready = |at: usize| {
            fds.get(at)
                .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
        };
        Ok((ready(0), ready(1), ready(2)))
    }

    fn read_bus(&mut self) -> Result<(), ModemError> {
        self.bus.flush()?;
        let mut heard = Vec::new();
        let waits_for = &mut self.waits_for;
        let received = self.bus.receive(|message| {
            heard.extend(hear(message, waits_for));
        });
        for heard in heard {
            self.feed(match heard {
                Heard::Answer(answer) => Event::Answer(answer),
                Heard::Changed => Event::Changed,
            })?;
        }
        Ok(received?)
    }

    fn read_control(&mut self) -> Result<(), ModemError> {
        for _ in 0..MESSAGES {
            match self.control.recv() {
                Ok(Some(Received { message, fds })) => match message {
                    Command::Attach { port: Port::Uplink } => {
                        let socket = fds.into_iter().next().map(Channel::from_fd);
                        self.uplink = socket.and_then(Result::ok);
                        let bearer = self.told.as_ref().and_then(|told| told.bearer.clone());
                        self.tell_uplink(bearer)?;
                    }
                    Command::Shutdown => self.ended = true,
                    // The uplink shuts its ports; what becomes of the modem, ModemManager decides.
                    Command::Suspend | Command::Resume => {}
                    Command::Attach { .. }
                    | Command::PowerButton
                    | Command::Answer { .. }
                    | Command::AskAgain
                    | Command::Notice { .. } => {
                        tracing::warn!("a command that is not for the modem");
                    }
                },
                Ok(None) => break,
                Err(error) => {
                    tracing::info!("the supervisor is gone: {error}");
                    self.ended = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// The uplink has nothing to say; what comes is its end.
    fn read_uplink(&mut self) {
        if let Some(uplink) = &self.uplink
            && let Err(error) = uplink.recv()
        {
            tracing::info!("the uplink is gone: {error}");
            self.uplink = None;
        }
    }

    fn feed(&mut self, event: Event) -> Result<(), ModemError> {
        for action in self.session.on(now(), event) {
            match action {
                Action::Tell(finding) => self.tell(finding)?,
                Action::Call(call) => {
                    let serial = self.make(&call)?;
                    self.waits_for = Some((serial, call));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, finding: Finding) -> Result<(), ModemError> {
        let before = self.told.replace(finding.clone());
        if before.map(|before| before.bearer).unwrap_or_default() != finding.bearer {
            self.tell_uplink(finding.bearer)?;
        }
        tracing::info!(
            found = ?finding.found,
            operator = finding.operator,
            signal = finding.signal,
            "the modem"
        );
        let report = Report::Modem {
            found: finding.found,
            operator: finding.operator,
            signal: finding.signal,
        };
        match self.control.send(&report, &[]) {
            // News may be lost.
            Err(error) if error.ends() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// An uplink that does not take what it must hear would go on with a bearer that is gone: this
    /// process ends then, which the uplink sees, and both meet again on a fresh channel.
    fn tell_uplink(&self, bearer: Option<Bearer>) -> Result<(), ModemError> {
        let Some(uplink) = &self.uplink else {
            return Ok(());
        };
        let message = bearer.map_or(ModemToUplink::NoBearer, ModemToUplink::Bearer);
        match uplink.send(&message, &[]) {
            // Its end is read in its turn.
            Err(sekisho_control::ChannelError::Closed) => Ok(()),
            other => Ok(other?),
        }
    }

    fn ask_bus(&mut self, member: &str, arguments: &Writer) -> Result<(), ModemError> {
        let method = Method {
            destination: BUS,
            path: BUS_PATH,
            interface: BUS,
            member,
        };
        self.bus.call(&method, arguments)?;
        Ok(())
    }

    /// Makes a call of ModemManager; gives its serial number.
    fn make(&mut self, call: &Call) -> Result<u32, ModemError> {
        let method = |path, interface, member| Method {
            destination: SERVICE,
            path,
            interface,
            member,
        };
        let arguments = Writer::default();
        let (method, arguments) = match call {
            Call::Modems => {
                let interface = "org.freedesktop.DBus.ObjectManager";
                (method(ROOT, interface, "GetManagedObjects"), arguments)
            }
            Call::Bearer(path) => (
                method(path.as_str(), PROPERTIES_OF, "GetAll"),
                arguments.text(BEARER),
            ),
            Call::Enable(path) => (
                method(path.as_str(), objects::MODEM, "Enable"),
                arguments.bool(true),
            ),
            Call::Connect(path) => {
                let wish = self.session.wish();
                // No `pin`: a wrong code, tried three times, locks the SIM for good.
                let mut properties = vec![("allow-roaming", Value::Bool(wish.roaming))];
                properties.extend(wish.apn.as_deref().map(|apn| ("apn", Value::Text(apn))));
                (
                    method(path.as_str(), SIMPLE, "Connect"),
                    arguments.dictionary(&properties),
                )
            }
            Call::Disconnect(path) => (
                method(path.as_str(), SIMPLE, "Disconnect"),
                // All of them.
                arguments.path("/"),
            ),
        };
        Ok(self.bus.call(&method, &arguments)?)
    }
}

/// What a message says to us, if anything.
fn hear(message: &Message<'_>, waits_for: &mut Option<(u32, Call)>) -> Option<Heard> {
    let mut ours = |serial| waits_for.take_if(|(waits_for, _)| *waits_for == serial);
    match message.kind {
        Kind::Return(serial) => {
            let (_, call) = ours(serial)?;
            let answer = read(&call, message);
            if let Err(error) = &answer {
                tracing::warn!(?call, %error, "an answer of ModemManager's is not used");
            }
            Some(Heard::Answer(answer.ok()))
        }
        Kind::Error(serial, error) => {
            let (_, call) = ours(serial)?;
            tracing::info!(?call, error = %error.escape_debug(), "ModemManager refused");
            Some(Heard::Answer(None))
        }
        Kind::Signal => Some(Heard::Changed),
        Kind::Other => None,
    }
}

/// Reads the answer to a call.
pub(super) fn read(call: &Call, message: &Message<'_>) -> Result<Answer, Malformed> {
    Ok(match call {
        Call::Modems => Answer::Modems(objects::modems(message.body(OBJECTS)?)?),
        Call::Bearer(_) => Answer::Bearer(objects::bearer(message.body(PROPERTIES)?)?),
        // The bearer's path: the next look finds it.
        Call::Connect(_) => {
            ObjectPath::new(message.body("o")?.text()?)?;
            Answer::Done
        }
        Call::Enable(_) | Call::Disconnect(_) => Answer::Done,
    })
}
