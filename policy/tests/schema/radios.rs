//! Wi-Fi and the SIM.

use sekisho_policy::{Draft, OverQuota};

use super::{SAMPLE, refused};

#[test]
fn unsafe_wifi_has_no_name() {
    for kind in ["wep", "open", "wpa-tkip", "wpa-personal"] {
        let text =
            format!("{SAMPLE}\n[[uplink]]\nkind = \"wifi\"\nrank = 2\nsecurity = [\"{kind}\"]\n");
        refused(&text, &format!("\"{kind}\"]"), "expected one of `wpa3-sae`");
    }
}

const RADIOS: &str = r#"
[[uplink]]
kind = "wifi"
rank = 2
security = ["wpa3-sae", "wpa2-personal"]
captive_portal = "refuse"
deny_ssids = ["*-Free-*", "*_Free_*"]

[[uplink]]
kind = "sim"
rank = 3
apn = "mihon.closed.example"
plmn = ["44010"]
monthly_quota = "5GiB"
quota_resets = 1
warn_percent = [80, 95]
over_quota = { action = "throttle", rate = "256kbit/s" }
"#;

#[test]
fn radios_are_read_as_they_are_written() {
    let text = format!("{SAMPLE}{RADIOS}");
    let draft = Draft::parse("policy.toml", text.as_bytes()).unwrap();
    let [_, wifi, sim] = &draft.policy().uplink[..] else {
        panic!("three uplinks");
    };
    assert!(wifi.deny_ssids[0].matches(b"Shop-Free-Wifi") && wifi.quota().is_none());
    assert_eq!(sim.apn.as_ref().unwrap().as_str(), "mihon.closed.example");
    assert_eq!(sim.plmn[0].as_str(), "44010");
    assert!(!sim.roaming, "not unless it is written");
    let quota = sim.quota().unwrap();
    assert_eq!((quota.monthly, quota.resets), (5 << 30, 1));
    assert_eq!(quota.warn_percent, [80, 95]);
    let OverQuota::Throttle { rate } = quota.over else {
        panic!("{:?}", quota.over);
    };
    assert_eq!(rate.bits_per_second().get(), 256_000);
}

#[test]
fn radios_that_cannot_be_meant_are_refused() {
    let cases = [
        (
            "\"refuse\"",
            "\"accept\"",
            "unknown variant `accept`, expected `refuse`",
        ),
        ("\"44010\"", "\"4401x\"", "not a mobile network"),
        (
            "\"mihon.closed.example\"",
            "\"mihon closed\"",
            "not an access point name",
        ),
        ("\"5GiB\"", "\"5 GiB\"", "not an amount"),
        ("\"256kbit/s\"", "\"256k\"", "not a rate"),
        (
            "\"throttle\", rate = \"256kbit/s\"",
            "\"throttle\"",
            "\"throttle\" needs a `rate`",
        ),
        (
            "\"throttle\", rate",
            "\"refuse\", rate",
            "\"refuse\" has no `rate`",
        ),
        (
            "quota_resets = 1",
            "quota_resets = 32",
            "a day of the month",
        ),
        ("[80, 95]", "[95, 80]", "`warn_percent` rises"),
        ("[80, 95]", "[80, 100]", "`warn_percent` rises"),
        ("monthly_quota = \"5GiB\"\n", "", "needs `monthly_quota`"),
        (
            "over_quota = { action = \"throttle\", rate = \"256kbit/s\" }\n",
            "",
            "beyond the quota",
        ),
        (
            "kind = \"sim\"",
            "kind = \"wired\"",
            "belongs to SIM uplinks",
        ),
        (
            "rank = 2\n",
            "rank = 2\nroaming = true\n",
            "`roaming` belongs to SIM uplinks",
        ),
        (
            "[\"*-Free-*\", \"*_Free_*\"]",
            "[\"\"]",
            "a pattern for SSIDs",
        ),
    ];
    for (old, new, complaint) in cases {
        assert!(RADIOS.contains(old), "{old}");
        let text = format!("{SAMPLE}{}", RADIOS.replacen(old, new, 1));
        let error = Draft::parse("policy.toml", text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
    let two = format!("{SAMPLE}{RADIOS}{}", RADIOS.replace("rank = ", "rank = 1"));
    let error = Draft::parse("policy.toml", two.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("one for the SIM"), "{error}");
}
