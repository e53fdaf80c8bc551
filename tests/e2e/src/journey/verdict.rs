//! The last step: what the wires outside the laptop recorded.

use sekisho_lab::address as at;
use sekisho_lab::oracle::{self, Canaries, Rules, Verdict};
use sekisho_lab::topology::Point;

use super::{Journey, StepError, StepResult, Tunnel};

impl Journey {
    /// Stops the captures and asks the oracle about each.
    pub(super) fn judge_captures(&mut self) -> StepResult {
        // Without power nothing can leak any more; until then everything counts.
        self.guest = None;
        self.supervisor = None;
        self.laptop = None;
        let recordings = self.lab.stop_captures()?;
        let canaries = Canaries::new([&self.canary, self.lab.canary()]);
        let mut cafe = Rules::cafe(self.lab.cafe());
        let mut office = Rules::office();
        if self.tunnel == Tunnel::Tls {
            (cafe, office) = (cafe.with_tls(), office.with_tls());
        }
        if self.tunnel == Tunnel::Ikev2 {
            (cafe, office) = (cafe.with_ike(), office.with_ike());
        }
        let mut verdict = Verdict::default();
        let mut inside = 0;
        for recording in &recordings.list {
            if recording.point == Point::P1 {
                let rules = if recording.name.starts_with(at::ETH1) {
                    &office
                } else {
                    &cafe
                };
                verdict.add(oracle::judge(recording, &canaries, |_| Some(rules))?);
            } else {
                inside += oracle::count_canaries(recording, &canaries)?;
            }
        }
        if inside == 0 {
            let why = "no canary was seen even behind the gateway: the search proves nothing";
            return Err(StepError::Broken(why.to_owned()));
        }
        if !verdict.holds() {
            return Err(StepError::Broken(verdict.to_string()));
        }
        // From the cafe the beacon's address leads nowhere: asking there is how the laptop learns it.
        let mut visits = self.lab.guestbook("internet")?.visits();
        visits.retain(|visit| visit.to != at::BEACON);
        if !visits.is_empty() {
            return Err(StepError::Broken(format!(
                "somebody came to the sink: {visits:?}"
            )));
        }
        Ok(format!(
            "{verdict}; {inside} frames with a canary behind the gateway"
        ))
    }
}
