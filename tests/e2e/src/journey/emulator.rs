//! What emulated processors do wrong. That is the test bed's fault and told apart from the product's;
//! the way on is to switch the laptop off and on again.

use std::time::Duration;

use sekisho_laptop::exec::ExecError;
use sekisho_laptop::hardware_virtualisation;

use super::arrival::{tunnel, uplink};
use super::{Journey, StepError};

/// How often the emulator may fail before a step does.
pub(super) const MOST_FAULTS: u32 = 2;

/// A work OS that has its processor answers sooner, also on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whether the laptop's own kernel stands still: its processor lost an interrupt.
pub(super) fn laptop_hangs(journey: &Journey) -> Result<bool, StepError> {
    Ok(!hardware_virtualisation() && journey.laptop()?.console_tail().contains("soft lockup"))
}

/// Whether the work OS waits for ever for its processor's timer, while its devices go on. The timer is
/// that of the local APIC, which KVM gives: no process of ours has a part in it.
pub(super) fn work_os_lost_its_timer(journey: &Journey) -> Result<bool, StepError> {
    if hardware_virtualisation() {
        return Ok(false);
    }
    let guest = journey.guest()?;
    let runs = guest.run(&["true"], ANSWER_LIMIT).is_ok();
    let sleeps = || guest.run(&["sleep", "0.1"], ANSWER_LIMIT);
    Ok(runs && matches!(sleeps(), Err(ExecError::TooSlow { .. })))
}

/// Off, and on again until the work OS answers.
pub(super) fn power_cycle(journey: &mut Journey) -> Result<(), StepError> {
    journey.cut_power();
    let first = journey.power_on;
    journey.power_on()?;
    journey.power_on = first;
    uplink(journey)?;
    tunnel(journey)?;
    journey.work_os()?;
    Ok(())
}
