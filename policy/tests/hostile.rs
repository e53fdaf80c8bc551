//! Whatever bytes come in, each parser answers, quickly and without a panic. The fuzz targets of
//! `tests/fuzz` enter through the same functions.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sekisho_policy::{Draft, Lang, Probe, Signature, Trust};

const SAMPLE: &[u8] = include_bytes!("../../tests/lab/policy/policy.toml");
/// Text that means something to the parser, to be put anywhere.
const PIECES: [&str; 16] = [
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    "\"",
    "\"\"\"",
    "'''",
    ".",
    ",",
    "\n",
    "#",
    "[[flow]]\n",
    "-1",
    "\u{3042}",
];

proptest! {
    #[test]
    fn changed_policies_are_answered(
        cuts in vec((any::<Index>(), 0_usize..40, 0_usize..PIECES.len()), 1..8),
    ) {
        let mut bytes = SAMPLE.to_vec();
        for (at, length, piece) in cuts {
            let start = at.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, PIECES[piece].bytes());
        }
        match Draft::parse("policy.toml", &bytes) {
            Ok(draft) => drop(draft.run_tests()),
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                prop_assert!(!error.render(Lang::Ja).is_empty());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_answered(bytes in vec(any::<u8>(), 0..512)) {
        prop_assert!(Draft::parse("policy.toml", &bytes).is_err());
        prop_assert!(Signature::parse(&bytes).is_err());
        let text = String::from_utf8_lossy(&bytes);
        drop(Trust::parse(&text));
        drop(text.parse::<Probe>());
    }

    #[test]
    fn probes_are_written_as_they_are_read(
        words in "(from )?(tcp|udp) (0|[1-9]?[0-9]|1[0-9][0-9])(\\.([1-9]?[0-9])){3}:[1-9][0-9]{0,3}",
    ) {
        let probe: Probe = words.parse().unwrap();
        prop_assert_eq!(probe.to_string(), words);
    }
}

#[test]
fn probes_have_one_spelling() {
    for wrong in [
        "",
        "tcp",
        "tcp 10.12.10.5",
        "tcp 10.12.10.5:0",
        "tcp 10.12.10.5:+80",
        "tcp 10.12.10.5:65536",
        "icmp 10.12.0.1:1",
        "icmp 10.12.0",
        "from from tcp 10.12.0.1:1",
        "tcp 10.12.0.1:1 now",
        "tcp ::1:80",
        "TCP 10.12.0.1:1",
        "tcp 010.12.0.1:1",
    ] {
        assert!(wrong.parse::<Probe>().is_err(), "{wrong}");
    }
}
