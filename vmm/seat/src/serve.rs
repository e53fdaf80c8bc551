//! The seat's one loop: the VMM, viewers, the clock, signals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sekisho_seatlink::Link;
use thiserror::Error;

use crate::rfb::Event;
use crate::seat::Seat;
use crate::viewers::{Viewers, accept};
use crate::watermark::{Minute, WatermarkError};

/// From one frame to the next: sixty a second.
const FRAME: Duration = Duration::from_micros(16_667);
/// Words of the VMM that are heard within one frame: a pointer that moves a thousand times a second
/// makes seventeen. Whoever says more waits.
const WORDS: u32 = 64;

/// Why the seat ends.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Without its watermark no picture is shown.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// The host.
    #[error("the host fails: {0}")]
    Host(#[from] io::Error),
}

impl From<Errno> for ServeError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno.into())
    }
}

/// The minute it is there.
pub fn minute(zone: &TimeZone) -> Minute {
    let now = Timestamp::now().to_zoned(zone.clone());
    Minute {
        date: now.strftime("%Y-%m-%d").to_string(),
        time: now.strftime("%H:%M").to_string(),
    }
}

/// What the loop works with.
pub struct Desk {
    /// The state.
    pub seat: Seat,
    /// Where the VMM comes to.
    pub listening: OwnedFd,
    /// Who looks on.
    pub viewers: Viewers,
    /// Becomes readable when the seat is to end.
    pub signals: OwnedFd,
    /// Whose clock is written on the screen.
    pub zone: TimeZone,
}

/// What may have happened while the loop waited, in the order of the list that was waited with.
struct Wake {
    signal: bool,
    vmm: bool,
    viewers: Vec<PollFlags>,
}

impl Desk {
    /// Serves until a signal comes.
    pub fn serve(mut self) -> Result<(), ServeError> {
        let mut link: Option<Link> = None;
        let mut next_frame = Instant::now();
        let mut words = WORDS;
        loop {
            let now = Instant::now();
            if now >= next_frame {
                words = WORDS;
                self.seat.minute(minute(&self.zone))?;
                if self.seat.is_due() {
                    self.present(&mut link)?;
                }
                next_frame = now + FRAME;
            }
            let flushed = link.as_ref().map(|link| self.seat.outbox.flush(link));
            if let Some(Err(error)) = flushed {
                self.part(&mut link, &error);
            }
            if !self.viewers.send(self.seat.frame()) {
                self.seat.outbox.all_up();
                continue;
            }
            let waits = self.seat.is_due() || words == 0;
            let limit = if waits {
                next_frame.saturating_duration_since(Instant::now())
            } else {
                rest_of_minute()
            };
            let wake = self.wait(link.as_ref(), words > 0, limit)?;
            if wake.signal {
                return Ok(());
            }
            if wake.vmm {
                self.vmm(&mut link, &mut words)?;
            }
            self.people(&wake.viewers)?;
        }
    }

    /// Composes what has changed and hands it out.
    fn present(&mut self, link: &mut Option<Link>) -> Result<(), ServeError> {
        let part = match self.seat.compose() {
            Ok(part) => part,
            Err(error) => {
                self.part(link, &error);
                // A notice needs no file.
                self.seat.compose().map_err(io::Error::other)?
            }
        };
        if let Some(part) = part {
            self.viewers.change(part);
        }
        self.seat.presented();
        Ok(())
    }

    fn wait(
        &self,
        link: Option<&Link>,
        listens: bool,
        limit: Duration,
    ) -> Result<Wake, ServeError> {
        let vmm = match link {
            Some(link) => {
                let full = self.seat.outbox.next().is_some();
                let out = if full {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                let heard = if listens {
                    PollFlags::IN
                } else {
                    PollFlags::empty()
                };
                PollFd::from_borrowed_fd(link.as_fd(), heard | out)
            }
            None => PollFd::new(&self.listening, PollFlags::IN),
        };
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), vmm];
        let viewers = self.viewers.interests();
        fds.extend(viewers.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let limit = Timespec::try_from(limit).ok();
        let ready: Vec<PollFlags> = match poll(&mut fds, limit.as_ref()) {
            Ok(_) => fds.iter().map(PollFd::revents).collect(),
            Err(Errno::INTR) => vec![PollFlags::empty(); fds.len()],
            Err(errno) => return Err(errno.into()),
        };
        // In the order of the list above.
        let happened = |at: usize| ready.get(at).is_some_and(|flags| !flags.is_empty());
        Ok(Wake {
            signal: happened(0),
            vmm: happened(1),
            viewers: ready.get(2..).unwrap_or_default().to_vec(),
        })
    }

    /// The VMM comes, or says something.
    fn vmm(&mut self, link: &mut Option<Link>, words: &mut u32) -> Result<(), ServeError> {
        let Some(open) = link else {
            if let Some(socket) = accept(&self.listening)? {
                match Link::new(socket) {
                    Ok(new) => {
                        tracing::info!("the VMM has come");
                        *link = Some(new);
                        self.seat.linked();
                    }
                    Err(errno) => tracing::warn!("what has come is no VMM: {errno}"),
                }
            }
            return Ok(());
        };
        while *words > 0 {
            let picture = match open.picture() {
                Ok(None) => break,
                Ok(Some(picture)) => picture,
                Err(error) => {
                    self.part(link, &error);
                    break;
                }
            };
            *words -= 1;
            if let Err(error) = self.seat.heard(picture.0, picture.1) {
                self.part(link, &error);
                break;
            }
        }
        Ok(())
    }

    /// The link is of no use any more.
    fn part(&mut self, link: &mut Option<Link>, why: &dyn std::fmt::Display) {
        tracing::warn!("the link to the VMM ends: {why}");
        *link = None;
        self.seat.lost();
    }

    /// Viewers come, do something, or go.
    fn people(&mut self, ready: &[PollFlags]) -> Result<(), ServeError> {
        let Some((door, viewers)) = ready.split_first() else {
            return Ok(());
        };
        let mut events = Vec::new();
        let all_here = self.viewers.hear(viewers, &mut events);
        for event in events {
            match event {
                Event::Key { code, down } => self.seat.outbox.key(code, down),
                Event::Wheel(clicks) => self.seat.outbox.wheel(clicks),
                Event::At { x, y } => {
                    let axes = self.seat.axes(x, y);
                    self.seat.outbox.at(axes);
                }
            }
        }
        if !all_here {
            self.seat.outbox.all_up();
        }
        if !door.is_empty() {
            self.viewers.come(self.seat.frame())?;
        }
        Ok(())
    }
}

/// Until the clock on the screen changes.
fn rest_of_minute() -> Duration {
    let second = Timestamp::now().as_second().rem_euclid(60);
    Duration::from_secs(u64::try_from(60 - second).unwrap_or(60))
}
