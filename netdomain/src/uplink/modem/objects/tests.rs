use super::*;
use crate::uplink::modem::dbus::{Message, examples};

/// The body of an answer, put together by hand: what is longer than the library's own tests need.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn pad(mut self, to: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    fn u32(self, value: u32) -> Self {
        let mut padded = self.pad(4);
        padded.0.extend(value.to_le_bytes());
        padded
    }

    fn text(self, text: &str) -> Self {
        let mut body = self.u32(u32::try_from(text.len()).unwrap());
        body.0.extend(text.bytes());
        body.0.push(0);
        body
    }

    fn signature(mut self, text: &str) -> Self {
        self.0.push(u8::try_from(text.len()).unwrap());
        self.0.extend(text.bytes());
        self.0.push(0);
        self
    }

    /// An array whose elements are aligned to 8.
    fn array(self, fill: impl FnOnce(Self) -> Self) -> Self {
        let body = self.u32(0);
        let length_at = body.0.len() - 4;
        let body = body.pad(8);
        let start = body.0.len();
        let mut body = fill(body);
        let length = u32::try_from(body.0.len() - start).unwrap();
        body.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        body
    }

    fn entry(self, key: &str) -> Self {
        self.pad(8).text(key)
    }
}

fn answer(signature: &str, body: &Body) -> Vec<u8> {
    examples::answer(4, signature, &body.0)
}

fn read_modems(bytes: &[u8]) -> Result<Vec<Modem>, Malformed> {
    modems(Message::parse(bytes)?.body(OBJECTS)?)
}

fn with_modems(count: usize) -> Vec<u8> {
    let body = Body::default().array(|body| {
        (0..count).rev().fold(body, |body, number| {
            body.entry(&format!("/org/freedesktop/ModemManager1/Modem/{number}"))
                .array(|body| {
                    body.entry(MODEM)
                        .array(|body| {
                            let body = body.entry("State").signature("i").u32(8);
                            let body = body.entry("SignalQuality").signature("(ub)");
                            let body = body.pad(8).u32(63).u32(1);
                            body.entry("Of a later version")
                                .signature("d")
                                .pad(8)
                                .u32(0)
                                .u32(0)
                        })
                        .entry(MODEM_3GPP)
                        .array(|body| {
                            let body = body.entry("OperatorCode").signature("s").text("44010");
                            let body = body.entry("OperatorName").signature("s");
                            let body = body.text("Mihon\u{1b}[2J Mobile");
                            body.entry("RegistrationState").signature("u").u32(5)
                        })
                })
        })
    });
    answer(OBJECTS, &body)
}

#[test]
fn a_modem_is_read() {
    let modems = read_modems(&with_modems(1)).unwrap();
    assert_eq!(
        modems,
        [Modem {
            path: ObjectPath::new("/org/freedesktop/ModemManager1/Modem/0").unwrap(),
            state: ModemState::Registered,
            registration: Registration::Roaming,
            operator: Some("44010".into()),
            name: "Mihon[2J Mobile".into(),
            signal: Some(63),
            bearers: Vec::new(),
        }]
    );
}

#[test]
fn modems_have_an_order_and_a_bound() {
    let four = read_modems(&with_modems(MAX_MODEMS)).unwrap();
    assert!(four.is_sorted_by_key(|modem| modem.path.clone()));
    assert!(read_modems(&with_modems(MAX_MODEMS + 1)).is_err());
}

/// Every cut of a good answer, and every byte of it changed, is read or refused, and never more.
#[test]
fn no_cut_and_no_change_is_more_than_refused() {
    let good = with_modems(2);
    for end in 0..good.len() {
        assert!(Message::parse(&good[..end]).is_err(), "{end}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let _ = read_modems(&bad);
        }
    }
}

#[test]
fn a_path_is_one_or_none() {
    for good in ["/a", "/org/freedesktop/ModemManager1/Bearer/12", "/a_b/C9"] {
        assert!(ObjectPath::new(good).is_ok(), "{good}");
    }
    let long = format!("/{}", "a".repeat(MAX_PATH));
    for bad in ["", "/", "a", "/a/", "//a", "/a-b", "/あ", &long] {
        assert!(ObjectPath::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_bearer_without_an_address_has_none() {
    let body = Body::default().array(|body| {
        let body = body.entry("Connected").signature("b").u32(1);
        let body = body.entry("Interface").signature("s").text("wwan0");
        body.entry("Ip4Config").signature("a{sv}").array(|body| {
            let body = body.entry("method").signature("u").u32(2);
            let body = body.entry("address").signature("s").text("100.64.7.2/24");
            let body = body.entry("prefix").signature("u").u32(4000);
            body.entry("mtu").signature("u").u32(70_000)
        })
    });
    let bytes = answer(PROPERTIES, &body);
    let message = Message::parse(&bytes).unwrap();
    let bearer = bearer(message.body(PROPERTIES).unwrap()).unwrap();
    assert!(bearer.connected);
    assert_eq!(bearer.interface, "wwan0");
    assert_eq!(
        bearer.config,
        Config {
            method: Method::Static,
            address: None,
            prefix: 32,
            gateway: None,
            mtu: None,
        }
    );
}
