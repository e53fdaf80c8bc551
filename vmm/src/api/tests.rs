use sekisho_varlink::{Dropped, PeerId, Server};
use serde_json::Value;

use super::*;

const OWN: u32 = 65_534;

#[derive(Default)]
struct Stage {
    paused: bool,
    stuck: bool,
    pressed: usize,
    resets: usize,
}

impl Machine for Stage {
    fn state(&self) -> State {
        State {
            held_by: self.paused.then_some(Holder::Person).into_iter().collect(),
            age: Duration::from_millis(1500),
            cpus: 2,
            memory_mib: 512,
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            exits: vec![Count {
                kind: "io_out",
                exits: 7,
            }],
            disks: vec![disk::Counters {
                writes: 3,
                bytes_written: 4096,
                ..disk::Counters::default()
            }],
            nics: vec![net::Counters {
                sent: 9,
                ..net::Counters::default()
            }],
        }
    }

    fn pause(&mut self) -> Result<(), Refusal> {
        if self.stuck {
            return Err(Refusal::DoesNotStop);
        }
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) {
        self.paused = false;
    }

    fn press_power_button(&mut self) {
        self.pressed += 1;
    }

    fn press_sleep_button(&mut self) -> Result<(), Refusal> {
        Err(Refusal::NoButton)
    }

    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn say(machine: &mut Stage, user: u32, text: &str) -> Result<Value, Dropped> {
    let mut server = Server::new(Duration::ZERO);
    let id: PeerId = server.accept(user, Duration::ZERO).unwrap();
    let mut desk = Desk { machine, user: OWN };
    let message = [text.as_bytes(), &[0]].concat();
    server.received(id, &message, &mut desk, Duration::ZERO)?;
    let output = server.output(id);
    Ok(serde_json::from_slice(&output[..output.len() - 1]).unwrap())
}

fn call(machine: &mut Stage, user: u32, method: &str) -> Value {
    let text = format!("{{\"method\":\"{INTERFACE}.{method}\"}}");
    say(machine, user, &text).unwrap()
}

#[test]
fn a_machine_is_paused_and_goes_on() {
    let mut machine = Stage::default();
    assert_eq!(call(&mut machine, 0, "Pause")["parameters"], json!({}));
    let told = call(&mut machine, OWN, "GetState");
    assert_eq!(
        told["parameters"]["state"],
        json!({
            "state": "paused",
            "held_by": ["person"],
            "age_ms": 1500,
            "cpus": 2,
            "memory_mib": 512,
        })
    );
    call(&mut machine, 0, "Resume");
    let told = call(&mut machine, 0, "GetState");
    assert_eq!(told["parameters"]["state"]["state"], "running");
    machine.stuck = true;
    let refused = call(&mut machine, 0, "Pause");
    assert_eq!(refused["error"], "jp.sekisho.Machine.DoesNotStop");
}

#[test]
fn buttons_are_pressed_for_those_who_may() {
    let mut machine = Stage::default();
    for method in ["PowerButton", "Reset", "Pause", "GetState", "GetMetrics"] {
        let refused = call(&mut machine, 1000, method);
        assert_eq!(refused["error"], "jp.sekisho.Machine.NotAllowed");
    }
    assert_eq!(
        (machine.pressed, machine.resets, machine.paused),
        (0, 0, false)
    );
    call(&mut machine, 0, "PowerButton");
    call(&mut machine, OWN, "Reset");
    assert_eq!((machine.pressed, machine.resets), (1, 1));
    let missing = call(&mut machine, 0, "SleepButton");
    assert_eq!(missing["error"], "jp.sekisho.Machine.NoButton");
    let more = format!("{{\"method\":\"{INTERFACE}.Reset\",\"parameters\":{{\"hard\":true}}}}");
    let refused = say(&mut machine, 0, &more).unwrap();
    assert_eq!(refused["parameters"]["parameter"], "hard");
    let unknown = call(&mut machine, 0, "Explode");
    assert_eq!(unknown["error"], "org.varlink.service.MethodNotFound");
    assert_eq!(machine.resets, 1);
}

/// Each method of the description is there, and each that is there is described.
#[test]
fn the_description_has_what_there_is() {
    let described: Vec<_> = ABOUT
        .description
        .lines()
        .filter_map(|line| line.strip_prefix("method "))
        .filter_map(|line| line.split('(').next())
        .collect();
    assert_eq!(described.len(), 8);
    for method in described {
        let reply = call(&mut Stage::default(), 0, method);
        assert_ne!(
            reply["error"], "org.varlink.service.MethodNotFound",
            "{method}"
        );
    }
    for error in ["NotAllowed", "DoesNotStop", "NoButton"] {
        let line = format!("error {error} ()");
        assert!(ABOUT.description.lines().any(|found| found == line));
    }
}

#[test]
fn statistics_are_told_in_fields_and_as_text() {
    let told = call(&mut Stage::default(), 0, "GetStatistics");
    let told = &told["parameters"];
    assert_eq!(told["exits"]["io_out"], 7);
    assert_eq!(told["disks"][0]["bytes_written"], 4096);
    assert_eq!(told["nics"][0]["sent"], 9);
    let text = call(&mut Stage::default(), 0, "GetMetrics");
    let text = text["parameters"]["text"].as_str().unwrap();
    for line in [
        "# TYPE sekisho_vmm_exits counter",
        "sekisho_vmm_exits_total{kind=\"io_out\"} 7",
        "sekisho_vmm_disk_bytes_total{disk=\"0\",kind=\"write\"} 4096",
        "sekisho_vmm_nic_frames_total{nic=\"0\",kind=\"sent\"} 9",
        "sekisho_vmm_age_seconds 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.ends_with("# EOF\n"));
    // A family is one run of lines, and is declared once (OpenMetrics 1.0, "MetricFamily").
    let declared: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let mut once = declared.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(declared.len(), once.len());
}
