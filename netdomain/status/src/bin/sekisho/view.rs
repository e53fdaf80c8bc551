//! Status and list as plain text.

use std::{fmt::Write as _, time::Duration};

use sekisho_control::UplinkKind;
use sekisho_status::{
    Agent, Check, Outcome, Sim, Situation, Status,
    words::{self, Lang, span},
};

/// Columns that a word takes in a terminal: Japanese characters take two. Good for our own words,
/// which have no combining characters.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| if u32::from(c) >= 0x1100 { 2 } else { 1 })
        .sum()
}

fn padded(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// Width of the names on the left.
const NAMES: usize = 16;

struct Page {
    text: String,
    lang: Lang,
}

impl Page {
    fn row(&mut self, ja: &str, en: &str, value: &str) {
        let name = self.lang.of(ja, en);
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}{value}", padded(name, NAMES));
    }

    fn more(&mut self, value: &str) {
        let _ = writeln!(self.text, "  {value}");
    }
}

/// The status, a line a fact.
pub(crate) fn status(status: &Status, lang: Lang) -> String {
    let mut page = Page {
        text: String::new(),
        lang,
    };
    situation(&mut page, status);
    if let Some(demand) = &status.demand {
        let text = format!("{} ({})", words::demand(demand, lang), demand.gateway);
        page.row("本人確認", "your part", &text);
    }
    for uplink in &status.uplinks {
        let kind = uplink.kind.map_or("", |kind| words::kind(kind, lang));
        let state = match uplink.kind {
            Some(UplinkKind::Sim) => words::sim_uplink(uplink.state, lang),
            _ => words::uplink(uplink.state, lang),
        };
        // Once the tunnel is up nobody was in its way.
        let wants = uplink.portal || (uplink.stranger && !status.situation.situation.is_open());
        let state = if wants {
            format!("{state}, {}", words::portal(uplink.portal, lang))
        } else {
            state.to_owned()
        };
        let state = match uplink.dot1x {
            Some(dot1x) => format!("{state}, {}", words::dot1x(dot1x, lang)),
            None => state,
        };
        let name = format!("{} {kind}", uplink.port);
        page.row(
            "回線",
            "uplink",
            &format!(
                "{} {state} ({})",
                padded(&name, 16),
                ago(uplink.age_ms, lang)
            ),
        );
    }
    if let Some(sim) = &status.sim {
        page.row("SIM", "SIM", &served(sim, lang));
    }
    if let Some(quota) = status.quota {
        let mib = |bytes: u64| bytes >> 20;
        page.row(
            "SIM 通信量",
            "SIM quota",
            &format!(
                "{} / {} MiB {}",
                mib(quota.used),
                mib(quota.monthly),
                words::quota(quota.state, lang)
            ),
        );
    }
    for gateway in &status.gateways {
        let name = format!(
            "{} {} {}",
            gateway.gateway,
            words::side(gateway.side, lang),
            gateway.port
        );
        let found = words::found(gateway.found, lang);
        page.row(
            "ゲートウェイ",
            "gateway",
            &format!("{name} {found} ({})", ago(gateway.age_ms, lang)),
        );
    }
    if let Some(agent) = status.work.agent {
        page.row("業務 OS", "work OS", &heard(agent, lang));
    }
    for process in &status.processes {
        let name = padded(words::process_name(&process.name, lang), 14);
        let state = words::process(process.state, lang);
        let mut text = format!("{name} {state} ({})", ago(process.age_ms, lang));
        if process.restarts > 0 {
            let _ = match lang {
                Lang::Ja => write!(text, " 再起動 {} 回", process.restarts),
                Lang::En => write!(text, " restarted {} times", process.restarts),
            };
        }
        page.row("部品", "part", &text);
    }
    if let Some(policy) = &status.policy {
        let text = match lang {
            Lang::Ja => format!("{} 第 {} 版", policy.id, policy.version),
            Lang::En => format!("{} version {}", policy.id, policy.version),
        };
        page.row("ポリシー", "policy", &text);
    }
    page.row("Sekisho", "Sekisho", &status.product);
    if let (1.., Some(last)) = (status.ignored.count, &status.ignored.last) {
        let text = match lang {
            Lang::Ja => format!("{} 件、最後は {last}", status.ignored.count),
            Lang::En => format!("{}, the last: {last}", status.ignored.count),
        };
        page.row("無視した申し出", "ignored", &text);
    }
    refusals(&mut page, status);
    page.text
}

fn served(sim: &Sim, lang: Lang) -> String {
    let signal = sim.signal.map(|percent| words::signal(percent, lang));
    [Some(words::sim(sim.state, lang).to_owned())]
        .into_iter()
        .chain([
            Some(sim.operator.clone()).filter(|name| !name.is_empty()),
            signal,
        ])
        .flatten()
        .chain([format!("({})", ago(sim.age_ms, lang))])
        .collect::<Vec<_>>()
        .join(" ")
}

fn situation(page: &mut Page, status: &Status) {
    let lang = page.lang;
    let since = span(status.situation.age_ms, lang);
    let text = match &status.situation.situation {
        Situation::Unknown => lang
            .of(
                "つながっていません（関所の起動待ち）",
                "not connected: waiting for the gate",
            )
            .to_owned(),
        Situation::Closed { reason } => {
            let reason = words::reason(reason, lang);
            match lang {
                Lang::Ja => format!("つながっていません（{reason}）"),
                Lang::En => format!("not connected: {reason}"),
            }
        }
        Situation::Tunnelled { place, .. } => {
            let place = words::place(*place, lang);
            match lang {
                Lang::Ja => format!("庁内ネットワークにつながっています（{place}）"),
                Lang::En => format!("connected to the closed network, {place}"),
            }
        }
        Situation::Direct { .. } => lang
            .of(
                "庁内 LAN に直接つながっています（庁内）",
                "on the office LAN itself, in the office",
            )
            .to_owned(),
    };
    page.row("状態", "situation", &text);
    page.row("継続時間", "for", &since);
    if let Situation::Tunnelled {
        gateway,
        port,
        side,
        ..
    } = &status.situation.situation
    {
        let side = words::side(*side, lang);
        let text = match lang {
            Lang::Ja => format!("{port} から {gateway} の{side}へ"),
            Lang::En => format!("over {port} to {gateway}, {side}"),
        };
        page.row("経路", "way", &text);
    }
    if let Situation::Direct { port, address } = &status.situation.situation {
        let text = match lang {
            Lang::Ja => format!("{port} から {address} として、トンネルなし"),
            Lang::En => format!("over {port} as {address}, without a tunnel"),
        };
        page.row("経路", "way", &text);
    }
}

fn heard(agent: Agent, lang: Lang) -> String {
    let ago = ago(agent.age_ms, lang);
    match (agent.silent, lang) {
        (false, Lang::Ja) => format!("応答あり ({ago})"),
        (false, Lang::En) => format!("answers ({ago})"),
        (true, Lang::Ja) => format!("応答が途絶えています (最後は {ago})"),
        (true, Lang::En) => format!("silent (last heard {ago})"),
    }
}

fn refusals(page: &mut Page, status: &Status) {
    let lang = page.lang;
    let listed: u64 = status.refusals.iter().map(|row| row.count).sum();
    let all = listed.saturating_add(status.refused_by_others);
    let total = match lang {
        Lang::Ja => format!("{all} 件"),
        Lang::En => format!("{all}"),
    };
    page.row("拒否した通信", "refused", &total);
    for row in &status.refusals {
        let meaning = words::refusal(&row.rule, lang);
        let (count, last, ago) = (row.count, &row.last, ago(row.age_ms, lang));
        page.more(&match lang {
            Lang::Ja => format!(
                "{} {count} 件、最後は {last} ({ago})。{meaning}",
                padded(&row.rule, 14)
            ),
            Lang::En => format!(
                "{} {count}, the last {last} ({ago}): {meaning}",
                padded(&row.rule, 14)
            ),
        });
    }
}

fn ago(age_ms: u64, lang: Lang) -> String {
    let span = span(age_ms, lang);
    match lang {
        Lang::Ja => format!("{span}前"),
        Lang::En => format!("{span} ago"),
    }
}

/// The checked list, a line a step, and under a step that failed what to do.
pub(crate) fn doctor(checks: &[Check], lang: Lang) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.outcome {
            Outcome::Passed => "o",
            Outcome::Waiting => "~",
            Outcome::Failed { .. } => "x",
            Outcome::Unknown => "-",
        };
        let step = padded(words::step(check.step, lang), 28);
        let outcome = words::outcome(check.outcome, lang);
        let _ = writeln!(text, "{mark} {step}{outcome}");
        if let Outcome::Failed { cause } = check.outcome {
            let _ = writeln!(text, "  → {}", words::remedy(cause, lang));
        }
    }
    text
}

/// The same status, so much later.
pub(crate) fn aged(status: &Status, later: Duration) -> Status {
    let later = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
    let mut older = status.clone();
    let ages = [&mut older.situation.age_ms]
        .into_iter()
        .chain(older.uplinks.iter_mut().map(|row| &mut row.age_ms))
        .chain(older.sim.iter_mut().map(|row| &mut row.age_ms))
        .chain(older.gateways.iter_mut().map(|row| &mut row.age_ms))
        .chain(older.refusals.iter_mut().map(|row| &mut row.age_ms))
        .chain(older.processes.iter_mut().map(|row| &mut row.age_ms))
        .chain(older.work.agent.iter_mut().map(|agent| &mut agent.age_ms));
    for age in ages {
        *age = age.saturating_add(later);
    }
    if let Some(demand) = &mut older.demand {
        demand.left_ms = demand.left_ms.map(|left| left.saturating_sub(later));
    }
    older
}

#[cfg(test)]
mod tests {
    use sekisho_status::{Cause, Ledger, Step};

    use super::*;

    #[test]
    fn a_person_can_read_it() {
        let mut ledger = Ledger::new("0.1.0", Duration::ZERO);
        ledger.started("gate", Duration::ZERO);
        ledger.reported(
            "gate",
            &serde_json::from_str(
                r#"{"report":"refused","rule":"forbidden","packet":"tcp 10.99.0.1:443","count":3}"#,
            )
            .unwrap(),
            Duration::from_secs(1),
        );
        let now = ledger.status(Duration::from_secs(61));
        let english = status(&now, Lang::En);
        assert!(
            english.contains("forbidden      3, the last tcp 10.99.0.1:443 (1 min 0 s ago): This network may not be reached from this PC"),
            "{english}"
        );
        let japanese = status(&aged(&now, Duration::from_mins(1)), Lang::Ja);
        assert!(
            japanese.contains("最後は tcp 10.99.0.1:443 (2 分 0 秒前)。このネットワークには、この端末からは誰も接続できません"),
            "{japanese}"
        );
        assert!(japanese.contains("つながっていません"), "{japanese}");
    }

    #[test]
    fn the_sim_is_told_with_its_network_and_its_signal() {
        let mut ledger = Ledger::new("0.1.0", Duration::ZERO);
        let report = r#"{"report":"modem","found":"wrong_network","operator":"Elsewhere (44020)","signal":63}"#;
        ledger.reported(
            "modem",
            &serde_json::from_str(report).unwrap(),
            Duration::ZERO,
        );
        let now = ledger.status(Duration::from_secs(5));
        let english = status(&now, Lang::En);
        assert!(
            english.contains(
                "refused: policy does not name this mobile network Elsewhere (44020) signal 63% (5 s ago)"
            ),
            "{english}"
        );
        let japanese = status(&now, Lang::Ja);
        assert!(
            japanese.contains("拒否（許可されていない事業者） Elsewhere (44020) 電波 63% (5 秒前)"),
            "{japanese}"
        );
        ledger.ended("modem", "signal: 9", Duration::from_secs(6));
        let gone = status(&ledger.status(Duration::from_secs(6)), Lang::En);
        assert!(
            gone.contains("ModemManager does not answer (0 s ago)"),
            "{gone}"
        );
    }

    #[test]
    fn columns_stand_below_each_other_in_both_languages() {
        assert_eq!(width(&padded("状態", NAMES)), NAMES);
        assert_eq!(width(&padded("situation", NAMES)), NAMES);
    }

    #[test]
    fn a_remedy_stands_under_its_step() {
        let checks = [
            Check {
                step: Step::Parts,
                outcome: Outcome::Passed,
            },
            Check {
                step: Step::Carrier,
                outcome: Outcome::Failed {
                    cause: Cause::NoCarrier,
                },
            },
        ];
        let text = doctor(&checks, Lang::En);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("o the laptop's own parts"), "{text}");
        assert!(lines[1].starts_with("x cable"), "{text}");
        assert!(
            lines[2].starts_with("  → Plug the cable in again"),
            "{text}"
        );
    }
}
