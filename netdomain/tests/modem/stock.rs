//! The real `ModemManager`, with a modem that speaks AT over a socket: what our own mock could have
//! wrong, it has not. Such a modem has no other way for packets than PPP, which is not used, so how
//! far it gets is told and the connection taken down.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sekisho_control::ModemFound;

use super::{
    cannot_run,
    laptop::{Laptop, Sim},
    wire::until,
};

/// The modem's port, as `ModemManager` and the kernel name it.
const PORT: &str = "abstract:mihon-at0";
const ROOT: &str = "/org/freedesktop/ModemManager1";

/// A modem that is served by the network of this code, and all that it was told.
struct Modem {
    told: Arc<Mutex<Vec<String>>>,
}

impl Modem {
    /// It serves one connection after the other, in the namespace of whoever calls.
    fn start(operator: &'static str) -> Self {
        let address = SocketAddr::from_abstract_name(PORT).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), operator, &kept);
            }
        });
        Self { told }
    }

    fn was_told(&self, wanted: &str) -> bool {
        let told = self.told.lock().unwrap();
        told.iter().any(|line| line.contains(wanted))
    }
}

fn serve(stream: &UnixStream, operator: &str, told: &Mutex<Vec<String>>) {
    let mut contexts = vec!["1,\"IP\",\"internet\"".to_owned()];
    let mut by_number = false;
    for line in BufReader::new(stream).split(b'\r').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if line.is_empty() {
            continue;
        }
        if let Some(context) = line.strip_prefix("AT+CGDCONT=").filter(|rest| *rest != "?") {
            contexts.push(context.to_owned());
        }
        match line.as_str() {
            "AT+COPS=3,2" => by_number = true,
            "AT+COPS=3,0" => by_number = false,
            _ => {}
        }
        let answer = answer(&line, operator, by_number, &contexts);
        told.lock().unwrap().push(line);
        if write!(&*stream, "\r\n{answer}\r\n").is_err() {
            return;
        }
    }
}

/// 3GPP TS 27.007, as far as `ModemManager` asks a modem that it knows nothing of.
fn answer(line: &str, operator: &str, by_number: bool, contexts: &[String]) -> String {
    let value = match line {
        "AT+CPIN?" => "+CPIN: READY",
        "AT+CGMI" => "Mihon",
        "AT+CGMM" => "LTE-SIM",
        "AT+CGMR" => "1.0",
        "AT+CGSN" => "123456789012345",
        "AT+GCAP" => "+GCAP: +CGSM",
        "AT+CIMI" => "440100000000001",
        "AT+CGDCONT=?" => "+CGDCONT: (1-16),\"IP\",,,(0-2),(0-4)",
        "AT+CREG?" => "+CREG: 2,1,\"1234\",\"12345678\",7",
        "AT+CGREG?" => "+CGREG: 2,1,\"1234\",\"12345678\",7",
        "AT+CSQ" => "+CSQ: 20,99",
        "AT+CFUN?" => "+CFUN: 1",
        "AT+CLCK=?" => "+CLCK: (\"SC\")",
        "AT+CLCK=\"SC\",2" => "+CLCK: 0",
        "AT+CIND=?" => "+CIND: (\"signal\",(0-5)),(\"service\",(0-1))",
        "AT+CIND?" => "+CIND: 4,1",
        "AT+CRSM=176,12258,0,0,10" => "+CRSM: 144,0,\"98100000000000000010\"",
        "AT+COPS?" if by_number => return format!("+COPS: 0,2,\"{operator}\",7\r\n\r\nOK"),
        "AT+COPS?" => "+COPS: 0,0,\"Mihon Mobile\",7",
        "AT+CGDCONT?" => {
            let lines = contexts
                .iter()
                .map(|context| format!("+CGDCONT: {context},\"\",0,0"));
            return format!("{}\r\n\r\nOK", lines.collect::<Vec<_>>().join("\r\n"));
        }
        dialled if dialled.starts_with("ATD*99") => return "CONNECT".into(),
        "AT+CGACT?" | "AT+WS46=?" | "AT+CESQ=?" | "AT+CNMI=?" | "AT+CUSD=?" => {
            return "ERROR".into();
        }
        refused if refused.starts_with("AT+CSIM") => return "ERROR".into(),
        refused if refused.starts_with("AT+CRSM") => return "ERROR".into(),
        _ => return "OK".into(),
    };
    format!("{value}\r\n\r\nOK")
}

/// `ModemManager` on the laptop's bus, in the namespace in which the modem is.
struct Stock(Child);

impl Stock {
    fn start(laptop: &Laptop) -> Self {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", laptop.wire.lan()])
            .args(["ModemManager", "--test-session", "--test-enable"])
            .env("DBUS_SESSION_BUS_ADDRESS", laptop.service.address())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let stock = Self(command.spawn().unwrap());
        let profile = "org.freedesktop.ModemManager1.Test.SetProfile";
        let ports = format!("['{PORT}']");
        until("the modem is plugged in", || {
            laptop
                .service
                .gdbus(ROOT, profile, &["mihon", "generic", &ports])
        });
        stock
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_missing() -> bool {
    let there = Command::new("ModemManager")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    sekisho_skip::skip_unless(there.is_ok(), "it needs ModemManager (modemmanager)")
}

#[test]
fn the_real_modem_manager_dials_by_the_policys_access_point_and_ppp_is_not_used() {
    if cannot_run("the_real_modem_manager_dials_by_the_policys_access_point_and_ppp_is_not_used")
        || is_missing()
    {
        return;
    }
    let mut laptop = Laptop::prepare(Sim::default());
    laptop.service.kill_mock();
    let modem = laptop.wire.in_lan(|| Modem::start("44010"));
    let _stock = Stock::start(&laptop);
    let ear = laptop.ear();
    laptop.run();
    let (operator, _) = laptop.finds(ModemFound::Connecting);
    assert!(operator.contains("44010"), "{operator}");
    laptop.finds(ModemFound::Unusable);
    assert!(modem.was_told(",\"IP\",\"mihon.closed.example\""));
    assert!(modem.was_told("ATD*99***"));
    for code in ["AT+CPIN=", "AT+CLCK=\"SC\",0", "AT+CLCK=\"SC\",1"] {
        assert!(!modem.was_told(code), "no code is sent to the SIM");
    }
    assert_eq!(ear.heard(Duration::from_millis(300)), 0);
}

#[test]
fn the_real_modem_manager_does_not_dial_in_another_network() {
    if cannot_run("the_real_modem_manager_does_not_dial_in_another_network") || is_missing() {
        return;
    }
    let mut laptop = Laptop::prepare(Sim::default());
    laptop.service.kill_mock();
    let modem = laptop.wire.in_lan(|| Modem::start("44020"));
    let _stock = Stock::start(&laptop);
    laptop.run();
    let (operator, _) = laptop.finds(ModemFound::WrongNetwork);
    assert!(operator.contains("44020"), "{operator}");
    thread::sleep(Duration::from_secs(1));
    assert!(!modem.was_told("ATD*99"));
    assert!(!modem.was_told("mihon.closed.example"));
}
