//! The interface description describes what is really sent: each answer is held against the types
//! of the `.varlink` file, field by field.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, time::Duration};

use sekisho_control::{
    Demand, DemandId, DemandStage, Factor, GatewayFound, ModemFound, Place, Refused, Report, Side,
    SituationReport, UplinkKind, WorkFound,
};
use sekisho_status::{Ledger, Step, diagnose, varlink::DESCRIPTION};
use serde_json::Value;

/// A type of Varlink's, as far as ours go (varlink.org, "Interface Definition").
#[derive(Debug, Clone, PartialEq)]
enum Type {
    Bool,
    Int,
    Text,
    Named(String),
    Maybe(Box<Type>),
    List(Box<Type>),
    Choice(Vec<String>),
    Fields(Vec<(String, Type)>),
}

/// Words and signs, without comments.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    let lines = text.lines().map(|line| line.split('#').next().unwrap());
    for c in lines.flat_map(|line| line.chars().chain(['\n'])) {
        if c.is_alphanumeric() || "_.".contains(c) {
            tokens.last_mut().unwrap().push(c);
        } else {
            tokens.push(String::new());
            if !c.is_whitespace() {
                tokens.push(c.to_string());
                tokens.push(String::new());
            }
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
}

impl Reader {
    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn expect(&mut self, sign: &str) {
        assert_eq!(self.next(), sign, "at token {}", self.at);
    }

    fn kind(&mut self) -> Type {
        match self.next().as_str() {
            "?" => Type::Maybe(Box::new(self.kind())),
            "[" => {
                self.expect("]");
                Type::List(Box::new(self.kind()))
            }
            "(" => self.fields(),
            "bool" => Type::Bool,
            "int" => Type::Int,
            "string" => Type::Text,
            name => Type::Named(name.to_owned()),
        }
    }

    /// After the opening parenthesis: fields, or the members of a choice.
    fn fields(&mut self) -> Type {
        let (mut fields, mut members) = (Vec::new(), Vec::new());
        while self.peek() != ")" {
            let name = self.next();
            if self.peek() == ":" {
                self.next();
                fields.push((name, self.kind()));
            } else {
                members.push(name);
            }
            if self.peek() == "," {
                self.next();
            }
        }
        self.next();
        assert!(fields.is_empty() || members.is_empty());
        if members.is_empty() {
            Type::Fields(fields)
        } else {
            Type::Choice(members)
        }
    }
}

/// Every named type, and what each method gives, under the method's name.
fn read(text: &str) -> BTreeMap<String, Type> {
    let mut reader = Reader {
        tokens: tokens(text),
        at: 0,
    };
    reader.expect("interface");
    reader.next();
    let mut types = BTreeMap::new();
    while !reader.peek().is_empty() {
        let what = reader.next();
        let name = reader.next();
        let mut kind = reader.kind();
        if what == "method" {
            reader.expect("-");
            reader.expect(">");
            kind = reader.kind();
        } else {
            assert!(matches!(what.as_str(), "type" | "error"), "{what}");
        }
        types.insert(name, kind);
    }
    types
}

/// Why the value is not of the type, if it is not.
fn conforms(types: &BTreeMap<String, Type>, kind: &Type, value: &Value) -> Result<(), String> {
    let wrong = || Err(format!("{value} is no {kind:?}"));
    match (kind, value) {
        (Type::Bool, Value::Bool(_))
        | (Type::Text, Value::String(_))
        | (Type::Maybe(_), Value::Null) => Ok(()),
        (Type::Int, Value::Number(number)) if number.is_u64() => Ok(()),
        (Type::Maybe(kind), value) => conforms(types, kind, value),
        (Type::Named(name), value) => conforms(types, &types[name], value),
        (Type::List(kind), Value::Array(values)) => values
            .iter()
            .try_for_each(|value| conforms(types, kind, value)),
        (Type::Choice(members), Value::String(text)) if members.contains(text) => Ok(()),
        (Type::Fields(fields), Value::Object(object)) => {
            if let Some(stray) = object
                .keys()
                .find(|key| fields.iter().all(|(name, _)| name != *key))
            {
                return Err(format!("{stray} is not described"));
            }
            fields.iter().try_for_each(|(name, kind)| {
                let value = object.get(name).unwrap_or(&Value::Null);
                conforms(types, kind, value).map_err(|why| format!("{name}: {why}"))
            })
        }
        _ => wrong(),
    }
}

/// A ledger in which everything occurs, in one of its two situations.
fn full(place: Option<Place>) -> Ledger {
    let now = Duration::from_secs(1);
    let mut ledger = Ledger::new("1.2.3", now);
    for process in ["vmm", "gate", "uplink", "guest"] {
        ledger.started(process, now);
    }
    ledger.ended("guest", "exit status: 1", now);
    ledger.moved("eth1", now);
    let port = "eth0".to_owned();
    let mut reports = vec![
        Report::Ready,
        Report::Policy {
            id: "jp.mihon-city".into(),
            version: 7,
        },
        Report::Uplink {
            port: port.clone(),
            kind: UplinkKind::Wired,
            event: "leased".into(),
        },
        Report::Demand {
            demand: Some(Demand {
                id: DemandId(7),
                gateway: "honcho-tls".into(),
                factor: Factor::Otp,
                stage: DemandStage::Stopped,
                ends_ms: Some(1_200_000),
                tries: 0,
            }),
        },
        Report::Link { up: true },
        Report::Work {
            found: WorkFound::NameSilent,
        },
        Report::Refused(Refused {
            rule: "forbidden".into(),
            packet: "tcp 10.99.0.1:443".into(),
            count: 3,
        }),
        Report::Modem {
            found: ModemFound::WrongNetwork,
            operator: "Mihon Mobile (44020)".into(),
            signal: Some(63),
        },
        Report::Ignored {
            what: "DHCP option 121".into(),
        },
        Report::Guest {
            event: "hello".into(),
            detail: String::new(),
        },
    ];
    for (side, found) in [
        (Side::Outside, GatewayFound::Answered),
        (Side::Lan, GatewayFound::Unproven),
    ] {
        reports.push(Report::Gateway {
            gateway: "honcho-1".into(),
            port: port.clone(),
            side,
            found,
        });
    }
    reports.push(Report::Situation(match place {
        None => SituationReport::Closed {
            reason: "started".into(),
        },
        Some(place) => SituationReport::Tunnelled {
            gateway: "honcho-1".into(),
            port,
            side: Side::Lan,
            place,
        },
    }));
    for report in &reports {
        ledger.reported("gate", report, now);
    }
    ledger
}

#[test]
fn what_is_sent_is_what_is_described() {
    let types = read(DESCRIPTION);
    let now = Duration::from_secs(9);
    let mut direct = full(None);
    let port = "eth0".to_owned();
    let report = Report::Situation(SituationReport::Direct {
        port,
        address: [10, 250, 7, 23].into(),
    });
    direct.reported("gate", &report, now);
    let ledgers = [
        Ledger::new("1.2.3", now),
        full(None),
        full(Some(Place::Remote)),
        full(Some(Place::Office)),
        direct,
    ];
    for ledger in ledgers {
        let status = ledger.status(now);
        let sent = serde_json::json!({ "status": status });
        conforms(&types, &types["GetStatus"], &sent).unwrap();
        let sent = serde_json::json!({ "checks": diagnose(&status) });
        conforms(&types, &types["Diagnose"], &sent).unwrap();
    }
}

#[test]
fn every_step_is_described_and_a_stray_field_is_noticed() {
    let types = read(DESCRIPTION);
    let Type::Fields(check) = &types["Check"] else {
        panic!();
    };
    let steps = serde_json::to_value(Step::ALL).unwrap();
    let steps: Vec<String> = serde_json::from_value(steps).unwrap();
    assert_eq!(check[0], ("step".to_owned(), Type::Choice(steps)));
    // The judge is awake.
    let good = serde_json::json!({"rule": "x", "count": 1, "last": "y", "age_ms": 0});
    let refusal = Type::Named("Refusal".into());
    assert_eq!(conforms(&types, &refusal, &good), Ok(()));
    for (field, value) in [
        ("stray", Value::Null),
        ("count", Value::Null),
        ("count", (-1).into()),
        ("last", 7.into()),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(conforms(&types, &refusal, &bad).is_err(), "{bad}");
    }
}
