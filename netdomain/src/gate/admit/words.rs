//! Refusals in words that a person understands: what happened, and what to do.

use sekisho_policy::{Lang, RuleId};

use super::refusal::Rule;

/// A refusal, told to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// In English.
    pub en: &'static str,
    /// In Japanese.
    pub ja: &'static str,
}

impl Words {
    /// In this language.
    pub const fn text(self, lang: Lang) -> &'static str {
        match lang {
            Lang::En => self.en,
            Lang::Ja => self.ja,
        }
    }
}

/// What the rule of this name, as it is counted and reported, means. A flow of policy allows and
/// never refuses, so an unknown name is as good as none.
///
/// ```
/// use sekisho_netdomain::gate::admit::words;
/// assert!(words("dns-outside").en.starts_with("The name"));
/// ```
pub fn words(rule: &str) -> Words {
    match rule {
        "forbidden" => Rule::Policy(RuleId::FORBIDDEN).words(),
        "bandwidth.total" => Rule::Bandwidth(None).words(),
        class if class.starts_with("bandwidth.") => CLASS,
        name => Rule::NAMED
            .iter()
            .find(|built_in| built_in.name() == Some(name))
            .map_or_else(
                || Rule::Policy(RuleId::DEFAULT_DENY).words(),
                |rule| rule.words(),
            ),
    }
}

const CLASS: Words = Words {
    en: "This kind of traffic has used up its share of the line for the moment. It goes on by itself, more slowly.",
    ja: "この種類の通信は、割り当てられた帯域を使い切っています。速度を落として自動的に続きます。",
};

impl Rule {
    /// What it means to a person.
    pub const fn words(self) -> Words {
        match self {
            Self::Policy(RuleId::FORBIDDEN) => Words {
                en: "This network may not be reached from this PC, by anybody. If your work needs it, use the terminal that is meant for it.",
                ja: "このネットワークには、この端末からは誰も接続できません。業務で必要なときは専用の端末を使ってください。",
            },
            Self::Policy(_) => Words {
                en: "The city's policy does not allow this connection here. If your work needs it, ask IT to add it.",
                ja: "この接続は、現在の場所・回線ではポリシーで許可されていません。業務で必要なときは情報担当へ申請してください。",
            },
            Self::AntiSpoof => Words {
                en: "The PC sent with an address that is not its own. Let it take its address automatically; if this goes on, tell IT.",
                ja: "端末が自分のものではないアドレスで送信しました。アドレスは自動取得に戻してください。続くときは情報担当へ連絡してください。",
            },
            Self::Impostor => Words {
                en: "A program on the PC posed as a router or address server. If you share no connection on purpose, tell IT.",
                ja: "端末内のプログラムが、ルーターやアドレス配布サーバーのように振る舞いました。接続の共有を使っていなければ情報担当へ連絡してください。",
            },
            Self::Ipv6 => Words {
                en: "IPv6 is not carried. Programs go over to IPv4 by themselves; there is nothing to do.",
                ja: "IPv6 は中継しません。プログラムは自動的に IPv4 を使うので、操作は不要です。",
            },
            Self::EtherType => Words {
                en: "A kind of network other than IP is not carried. There is nothing to do.",
                ja: "IP 以外の通信は中継しません。操作は不要です。",
            },
            Self::Malformed => Words {
                en: "The PC sent something that is no proper packet. If this goes on, tell IT.",
                ja: "端末が正しくない形式のデータを送信しました。続くときは情報担当へ連絡してください。",
            },
            Self::Unusual => Words {
                en: "A packet came in pieces or with special options; such are not carried. If a program does not work, tell IT its name.",
                ja: "分割された、または特殊な指定のあるパケットは中継しません。動かないプログラムがあれば、その名前を情報担当へ伝えてください。",
            },
            Self::TooLong => Words {
                en: "A packet was longer than the line carries. The PC has been told and sends shorter ones; there is nothing to do.",
                ja: "回線で送れる長さを超えたパケットがありました。端末には通知済みで、自動的に短くなります。操作は不要です。",
            },
            Self::Closed => Words {
                en: "There is no connection to the city's network at present. Check the cable or Wi-Fi; it is joined by itself.",
                ja: "現在、庁内ネットワークにつながっていません。ケーブルや Wi-Fi を確認してください。接続は自動で行われます。",
            },
            Self::FlowTableFull => Words {
                en: "The PC has too many connections open at once. Close programs, or restart the PC; if this goes on, tell IT.",
                ja: "同時に開いている接続が多すぎます。プログラムを終了するか、端末を再起動してください。続くときは情報担当へ連絡してください。",
            },
            Self::NoFlow => Words {
                en: "Something from outside was sent to the PC that it had not asked for. It was kept away; there is nothing to do.",
                ja: "端末が求めていない通信が外から届いたため、遮断しました。操作は不要です。",
            },
            Self::DnsOutside => Words {
                en: "The name does not belong to the city's networks, so it is not looked up. Pages of the internet cannot be opened here.",
                ja: "庁内のものではない名前のため、検索しません。インターネットのページはこの環境では開けません。",
            },
            Self::DnsRefused => Words {
                en: "Too many names were asked for at once, or in an unusual form. Wait a moment and try again.",
                ja: "名前の問い合わせが一度に多すぎるか、特殊な形式でした。少し待ってからもう一度試してください。",
            },
            Self::DnsRebinding => Words {
                en: "A name of the city led to an address outside its networks. It was not opened; tell IT the name.",
                ja: "庁内の名前が、庁外または接続禁止のアドレスを指していました。接続は止めました。名前を情報担当へ伝えてください。",
            },
            Self::DnsTunnel => Words {
                en: "A program asks for names in a way in which data is smuggled out. It was slowed down; tell IT at once.",
                ja: "データの持ち出しに使われる形の名前の問い合わせがあり、制限しました。すぐに情報担当へ連絡してください。",
            },
            Self::DnsAnswer => Words {
                en: "The name server's answer did not fit the question. Try again; if this goes on, tell IT.",
                ja: "名前の問い合わせに対する応答が正しくありませんでした。もう一度試し、続くときは情報担当へ連絡してください。",
            },
            Self::LowMtu => Words {
                en: "A device on the way demanded absurdly short packets and was ignored. If pages load slowly, tell IT.",
                ja: "途中の機器から極端に短いパケットの要求があり、無視しました。表示が遅いときは情報担当へ連絡してください。",
            },
            Self::NotServed => Words {
                en: "A service was asked for that this network does not offer. There is nothing to do.",
                ja: "このネットワークにないサービスへの通信でした。操作は不要です。",
            },
            Self::Bandwidth(None) => Words {
                en: "The line is used up to its limit for the moment. Everything goes on by itself, more slowly.",
                ja: "回線を上限まで使っています。速度を落として自動的に続きます。",
            },
            Self::Bandwidth(Some(_)) => CLASS,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sekisho_policy::ClassId;

    use super::*;

    /// Every rule that can refuse, with the name under which it is reported.
    fn all() -> Vec<(String, Rule)> {
        let named = Rule::NAMED.iter().map(|rule| {
            let name = rule.name().expect("a rule of the gate's own has a name");
            (name.to_owned(), *rule)
        });
        named
            .chain([
                ("default-deny".into(), Rule::Policy(RuleId::DEFAULT_DENY)),
                ("forbidden".into(), Rule::Policy(RuleId::FORBIDDEN)),
                ("bandwidth.total".into(), Rule::Bandwidth(None)),
                ("bandwidth.bulk".into(), Rule::Bandwidth(Some(ClassId(0)))),
            ])
            .collect()
    }

    #[test]
    fn every_rule_is_told_by_its_name_in_both_languages() {
        let mut seen = HashSet::new();
        for (name, rule) in all() {
            let told = words(&name);
            assert_eq!(told, rule.words(), "{name}");
            assert!(told.en.is_ascii() && told.en.ends_with('.'), "{name}");
            assert!(told.ja.ends_with('。'), "{name}");
            assert!(!told.ja.contains(&name), "{name}: a word of ours");
            assert!(seen.insert(told.en) && seen.insert(told.ja), "{name}");
            assert_eq!(told.text(Lang::Ja), told.ja);
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_not_allowed() {
        assert_eq!(words("groupware-web"), words("default-deny"));
        assert_eq!(words(""), words("default-deny"));
    }

    #[test]
    fn every_rule_has_a_place_of_its_own_among_the_counters() {
        let places: HashSet<_> = all().iter().map(|(_, rule)| rule.index()).collect();
        assert_eq!(places.len(), all().len());
        for (place, rule) in Rule::NAMED.iter().enumerate() {
            assert_eq!(rule.index(), place);
        }
    }
}
