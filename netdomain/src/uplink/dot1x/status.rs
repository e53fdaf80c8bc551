//! What the supplicant says when it is asked, and what that makes of the port.
//!
//! The answer to `STATUS` is lines of `key=value` (`ctrl_iface.c` of `wpa_supplicant`). Four of them
//! count, and each of these has a value out of a short list of the supplicant's own: nothing that a
//! network can word is looked at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a port that was authenticated may be about it anew: an authenticator asks again by the
/// hour, and its server answers within a moment. Longer than this, nobody vouches for the port.
pub(super) const RENEWS_WITHIN: Duration = Duration::from_secs(10);

/// An authenticator speaks as soon as there is a carrier, or answers the keeper's call or, where that was
/// lost, the supplicant's own, which comes two seconds later. Only what is told to people hangs on this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How a port stands with the authenticator at its other end (IEEE 802.1X-2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// It is not known yet.
    Asking,
    /// The authenticator took the laptop's certificate, and its server showed the right one.
    Authenticated,
    /// One of the two was not content with the other.
    Refused,
    /// Nobody at the other end speaks 802.1X.
    Unanswered,
    /// The laptop cannot speak it: no certificate of its own, or no supplicant.
    Unable,
}

impl Standing {
    /// As it is told to the supervisor.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Asking => "dot1x-asking",
            Self::Authenticated => "dot1x-authenticated",
            Self::Refused => "dot1x-refused",
            Self::Unanswered => "dot1x-unanswered",
            Self::Unable => "dot1x-unable",
        }
    }
}

/// One look at the supplicant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The port is authorised, by EAP-TLS that both sides ended with success.
    Agreed,
    /// The port still is authorised, and EAP runs once more.
    Renewing,
    /// EAP has failed, and the supplicant waits before it begins again; whether the two had agreed
    /// on EAP-TLS before.
    Failed {
        /// They had.
        agreed_on_method: bool,
    },
    /// The port counts as authorised because nobody answered (IEEE 802.1X-2004, 8.2.11.7). It is
    /// no proof of anything.
    ByDefault,
    /// The supplicant calls, and waits for an authenticator.
    Calling,
    /// An authenticator is there, and EAP runs.
    Heard,
    /// Anything else.
    Unclear,
}

impl Look {
    /// Reads an answer. What is missing, twice there or unknown proves nothing.
    pub(super) fn read(answer: &str) -> Self {
        let value = |key: &str| {
            let mut found = answer
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.next().filter(|_| found.next().is_none())
        };
        let machine = value("Supplicant PAE state").unwrap_or_default();
        let authorised = value("suppPortStatus") == Some("Authorized");
        let tls = value("selectedMethod") == Some("13 (EAP-TLS)");
        match (machine, authorised) {
            ("AUTHENTICATED", true) if value("EAP state") == Some("SUCCESS") => {
                if tls {
                    Self::Agreed
                } else {
                    Self::Unclear
                }
            }
            ("AUTHENTICATED", true) => Self::ByDefault,
            ("RESTART" | "CONNECTING" | "AUTHENTICATING", true) => Self::Renewing,
            ("HELD", _) => Self::Failed {
                agreed_on_method: tls,
            },
            ("CONNECTING", _) => Self::Calling,
            ("RESTART" | "AUTHENTICATING", _) => Self::Heard,
            _ => Self::Unclear,
        }
    }
}

/// What a port's standing is, from one look to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    standing: Standing,
    /// Since when it is authenticated and about it anew, or calls and hears nobody.
    since: Option<Duration>,
}

impl Verdict {
    /// Of a port whose carrier just came.
    pub(super) const fn new() -> Self {
        Self {
            standing: Standing::Asking,
            since: None,
        }
    }

    pub(super) const fn standing(self) -> Standing {
        self.standing
    }

    /// The supplicant is gone, or does not answer: nothing vouches for the port.
    pub(super) fn gone(&mut self) {
        *self = Self::new();
    }

    /// Takes a look at `now`.
    pub(super) fn see(&mut self, look: Look, now: Duration) {
        let since = self.since.take().unwrap_or(now);
        let waited = now.saturating_sub(since);
        // What the last attempt came to is told until the next one comes to something.
        let was = match self.standing {
            Standing::Authenticated | Standing::Unable => Standing::Asking,
            told => told,
        };
        self.standing = match look {
            Look::Agreed => Standing::Authenticated,
            Look::ByDefault => Standing::Unanswered,
            Look::Renewing if self.standing == Standing::Authenticated => {
                if waited < RENEWS_WITHIN {
                    self.since = Some(since);
                    Standing::Authenticated
                } else {
                    Standing::Asking
                }
            }
            // Nobody answered to the end; wpa_supplicant 2.10 calls that a failure.
            Look::Failed {
                agreed_on_method: false,
            } if was == Standing::Unanswered => was,
            Look::Failed { .. } => Standing::Refused,
            Look::Calling if was == Standing::Asking => {
                self.since = Some(since);
                if waited < ANSWERED_WITHIN {
                    was
                } else {
                    Standing::Unanswered
                }
            }
            Look::Heard if was == Standing::Unanswered => Standing::Asking,
            Look::Renewing | Look::Calling | Look::Heard | Look::Unclear => was,
        };
    }
}

/// Reads `data` as answers of a supplicant, a zero byte behind each, a byte of seconds before it: see
/// [`crate::fuzzing`].
///
/// # Panics
/// When a port becomes authenticated by less than the four lines that say so.
pub(crate) fn fuzz(data: &[u8]) {
    const NEEDED: [&str; 4] = [
        "Supplicant PAE state=AUTHENTICATED",
        "suppPortStatus=Authorized",
        "EAP state=SUCCESS",
        "selectedMethod=13 (EAP-TLS)",
    ];
    let (mut verdict, mut now) = (Verdict::new(), Duration::ZERO);
    for answer in data.split(|byte| *byte == 0) {
        let Some((pause, text)) = answer.split_first() else {
            verdict.gone();
            continue;
        };
        now += Duration::from_secs(u64::from(*pause));
        // As it is read off the socket.
        let text = std::str::from_utf8(text).unwrap_or_default();
        let before = verdict.standing();
        verdict.see(Look::read(text), now);
        if verdict.standing() == Standing::Authenticated && before != Standing::Authenticated {
            for line in NEEDED {
                let said = text.lines().filter(|said| *said == line).count();
                assert_eq!(said, 1, "{line} in {text:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `wpa_supplicant` 2.10 answers on a port that hostapd authorised.
    const AGREED: &str = "\
bssid=01:80:c2:00:00:03
freq=0
ssid=
id=0
mode=station
pairwise_cipher=NONE
group_cipher=NONE
key_mgmt=IEEE 802.1X (no WPA)
wpa_state=COMPLETED
address=1e:6a:cf:54:d8:9c
Supplicant PAE state=AUTHENTICATED
suppPortStatus=Authorized
EAP state=SUCCESS
selectedMethod=13 (EAP-TLS)
eap_tls_version=TLSv1.2
EAP TLS cipher=ECDHE-ECDSA-AES256-GCM-SHA384
tls_session_reused=0
uuid=377036e4-729b-5c94-beeb-744d7ce8b2cf
";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_port_is_authenticated_by_eap_tls_to_its_end_and_by_nothing_less() {
        assert_eq!(Look::read(AGREED), Look::Agreed);
        let failed = |agreed_on_method| Look::Failed { agreed_on_method };
        for (line, instead, look) in [
            ("EAP state=SUCCESS", "EAP state=IDLE", Look::ByDefault),
            ("EAP state=SUCCESS", "EAP state=FAILURE", Look::ByDefault),
            ("=Authorized", "=Unauthorized", Look::Unclear),
            ("13 (EAP-TLS)", "4 (MD5)", Look::Unclear),
            ("selectedMethod=13 (EAP-TLS)", "", Look::Unclear),
            ("=AUTHENTICATED", "=AUTHENTICATING", Look::Renewing),
            ("=AUTHENTICATED", "=HELD", failed(true)),
            ("=AUTHENTICATED", "=S_FORCE_AUTH", Look::Unclear),
            (
                "EAP state=SUCCESS",
                "EAP state=SUCCESS\nEAP state=IDLE",
                Look::ByDefault,
            ),
            ("suppPortStatus", "xsuppPortStatus", Look::Unclear),
        ] {
            assert!(AGREED.contains(line));
            assert_eq!(
                Look::read(&AGREED.replace(line, instead)),
                look,
                "{instead}"
            );
        }
        // As it answered while nobody was there: at first, and after a minute.
        let alone =
            "Supplicant PAE state=CONNECTING\nsuppPortStatus=Unauthorized\nEAP state=IDLE\n";
        assert_eq!(Look::read(alone), Look::Calling);
        let held = "Supplicant PAE state=HELD\nsuppPortStatus=Unauthorized\nEAP state=FAILURE\n";
        assert_eq!(Look::read(held), failed(false));
        for text in [
            "",
            "FAIL\n",
            "UNKNOWN COMMAND\n",
            "=",
            "Supplicant PAE state",
        ] {
            assert_eq!(Look::read(text), Look::Unclear, "{text}");
        }
    }

    #[test]
    fn a_port_that_is_asked_again_stays_what_it_is_for_a_while() {
        let mut verdict = Verdict::new();
        verdict.see(Look::Agreed, at(0));
        for second in 1..=10 {
            verdict.see(Look::Renewing, at(second));
            assert_eq!(verdict.standing(), Standing::Authenticated, "{second}");
        }
        verdict.see(Look::Renewing, at(11));
        assert_eq!(verdict.standing(), Standing::Asking);
        verdict.see(Look::Renewing, at(12));
        assert_eq!(verdict.standing(), Standing::Asking, "no second while");
        verdict.see(Look::Agreed, at(13));
        assert_eq!(verdict.standing(), Standing::Authenticated);
        verdict.gone();
        assert_eq!(verdict.standing(), Standing::Asking);
    }

    #[test]
    fn where_nobody_answers_that_is_told_and_where_somebody_refuses_that() {
        let alone = Look::Failed {
            agreed_on_method: false,
        };
        let mut verdict = Verdict::new();
        let mut see = |look, second| {
            verdict.see(look, at(second));
            verdict.standing()
        };
        assert_eq!(see(Look::Calling, 0), Standing::Asking);
        assert_eq!(see(Look::Calling, 4), Standing::Asking);
        assert_eq!(see(Look::Calling, 5), Standing::Unanswered);
        assert_eq!(see(alone, 62), Standing::Unanswered);
        assert_eq!(see(Look::Calling, 82), Standing::Unanswered);
        // Somebody came.
        assert_eq!(see(Look::Heard, 90), Standing::Asking);
        assert_eq!(see(alone, 91), Standing::Refused);
        assert_eq!(
            see(Look::Heard, 111),
            Standing::Refused,
            "until it is otherwise"
        );
        assert_eq!(see(Look::Agreed, 112), Standing::Authenticated);
        assert_eq!(
            see(Look::Calling, 113),
            Standing::Asking,
            "not renewed, lost"
        );
    }

    fn look() -> impl Strategy<Value = Look> {
        prop::sample::select(vec![
            Look::Agreed,
            Look::Renewing,
            Look::Failed {
                agreed_on_method: true,
            },
            Look::Failed {
                agreed_on_method: false,
            },
            Look::ByDefault,
            Look::Calling,
            Look::Heard,
            Look::Unclear,
        ])
    }

    proptest! {
        /// Authenticated is what was agreed, with nothing but renewals since, for a bounded time.
        #[test]
        fn nothing_but_an_agreement_authenticates(looks in prop::collection::vec((look(), 0u64..8), 0..60)) {
            let mut verdict = Verdict::new();
            let mut now = 0;
            // When the last agreement was followed by the first renewal.
            let mut model: Option<Option<u64>> = None;
            for (look, pause) in looks {
                now += pause;
                verdict.see(look, at(now));
                model = match (look, model) {
                    (Look::Agreed, _) => Some(None),
                    (Look::Renewing, Some(since)) => {
                        let since = since.unwrap_or(now);
                        (now - since < RENEWS_WITHIN.as_secs()).then_some(Some(since))
                    }
                    _ => None,
                };
                prop_assert_eq!(verdict.standing() == Standing::Authenticated, model.is_some());
            }
        }

        #[test]
        fn any_answer_is_read(text in "\\PC{0,400}") {
            let _ = Look::read(&text);
        }
    }
}
