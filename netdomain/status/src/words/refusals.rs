//! Refusals in words that a person understands: what happened, and what to do. Keyed by the name
//! under which the gate reports a rule; the gate's own tests hold that each of its rules is here.

use super::Lang;

/// The limit of one class of bandwidth; its name is the policy's.
const CLASS: &str = "bandwidth.";

/// Rule, Japanese, English.
const RULES: &[(&str, &str, &str)] = &[
    (
        "forbidden",
        "このネットワークには、この端末からは誰も接続できません。業務で必要なときは専用の端末を使ってください。",
        "This network may not be reached from this PC, by anybody. If your work needs it, use the terminal that is meant for it.",
    ),
    (
        "default-deny",
        "この接続は、現在の場所・回線ではポリシーで許可されていません。業務で必要なときは情報担当へ申請してください。",
        "The city's policy does not allow this connection here. If your work needs it, ask IT to add it.",
    ),
    (
        "anti-spoof",
        "端末が自分のものではないアドレスで送信しました。アドレスは自動取得に戻してください。続くときは情報担当へ連絡してください。",
        "The PC sent with an address that is not its own. Let it take its address automatically; if this goes on, tell IT.",
    ),
    (
        "impostor",
        "端末内のプログラムが、ルーターやアドレス配布サーバーのように振る舞いました。接続の共有を使っていなければ情報担当へ連絡してください。",
        "A program on the PC posed as a router or address server. If you share no connection on purpose, tell IT.",
    ),
    (
        "ipv6",
        "IPv6 は中継しません。プログラムは自動的に IPv4 を使うので、操作は不要です。",
        "IPv6 is not carried. Programs go over to IPv4 by themselves; there is nothing to do.",
    ),
    (
        "ether-type",
        "IP 以外の通信は中継しません。操作は不要です。",
        "A kind of network other than IP is not carried. There is nothing to do.",
    ),
    (
        "malformed",
        "端末が正しくない形式のデータを送信しました。続くときは情報担当へ連絡してください。",
        "The PC sent something that is no proper packet. If this goes on, tell IT.",
    ),
    (
        "fragment",
        "分割された、または特殊な指定のあるパケットは中継しません。動かないプログラムがあれば、その名前を情報担当へ伝えてください。",
        "A packet came in pieces or with special options; such are not carried. If a program does not work, tell IT its name.",
    ),
    (
        "too-long",
        "回線で送れる長さを超えたパケットがありました。端末には通知済みで、自動的に短くなります。操作は不要です。",
        "A packet was longer than the line carries. The PC has been told and sends shorter ones; there is nothing to do.",
    ),
    (
        "closed",
        "現在、庁内ネットワークにつながっていません。ケーブルや Wi-Fi を確認してください。接続は自動で行われます。",
        "There is no connection to the city's network at present. Check the cable or Wi-Fi; it is joined by itself.",
    ),
    (
        "flow-table-full",
        "同時に開いている接続が多すぎます。プログラムを終了するか、端末を再起動してください。続くときは情報担当へ連絡してください。",
        "The PC has too many connections open at once. Close programs, or restart the PC; if this goes on, tell IT.",
    ),
    (
        "no-flow",
        "端末が求めていない通信が外から届いたため、遮断しました。操作は不要です。",
        "Something from outside was sent to the PC that it had not asked for. It was kept away; there is nothing to do.",
    ),
    (
        "dns-outside",
        "庁内のものではない名前のため、検索しません。インターネットのページはこの環境では開けません。",
        "The name does not belong to the city's networks, so it is not looked up. Pages of the internet cannot be opened here.",
    ),
    (
        "dns-refused",
        "名前の問い合わせが一度に多すぎるか、特殊な形式でした。少し待ってからもう一度試してください。",
        "Too many names were asked for at once, or in an unusual form. Wait a moment and try again.",
    ),
    (
        "dns-rebinding",
        "庁内の名前が、庁外または接続禁止のアドレスを指していました。接続は止めました。名前を情報担当へ伝えてください。",
        "A name of the city led to an address outside its networks. It was not opened; tell IT the name.",
    ),
    (
        "dns-tunnel",
        "データの持ち出しに使われる形の名前の問い合わせがあり、制限しました。すぐに情報担当へ連絡してください。",
        "A program asks for names in a way in which data is smuggled out. It was slowed down; tell IT at once.",
    ),
    (
        "dns-answer",
        "名前の問い合わせに対する応答が正しくありませんでした。もう一度試し、続くときは情報担当へ連絡してください。",
        "The name server's answer did not fit the question. Try again; if this goes on, tell IT.",
    ),
    (
        "low-mtu",
        "途中の機器から極端に短いパケットの要求があり、無視しました。表示が遅いときは情報担当へ連絡してください。",
        "A device on the way demanded absurdly short packets and was ignored. If pages load slowly, tell IT.",
    ),
    (
        "not-served",
        "このネットワークにないサービスへの通信でした。操作は不要です。",
        "A service was asked for that this network does not offer. There is nothing to do.",
    ),
    (
        "bandwidth.total",
        "回線を上限まで使っています。速度を落として自動的に続きます。",
        "The line is used up to its limit for the moment. Everything goes on by itself, more slowly.",
    ),
    (
        CLASS,
        "この種類の通信は、割り当てられた帯域を使い切っています。速度を落として自動的に続きます。",
        "This kind of traffic has used up its share of the line for the moment. It goes on by itself, more slowly.",
    ),
];

/// What the rule of this name means. A flow of the policy allows and never refuses, so an unknown
/// name is told as a connection that nothing allows.
///
/// ```
/// use sekisho_status::words::{Lang, refusal};
/// assert!(refusal("dns-outside", Lang::En).starts_with("The name"));
/// ```
pub fn refusal(rule: &str, lang: Lang) -> &'static str {
    row(rule)
        .or_else(|| row("default-deny"))
        .map_or("", |(_, ja, en)| lang.of(ja, en))
}

/// Whether a rule has words of its own here.
pub fn knows(rule: &str) -> bool {
    row(rule).is_some()
}

fn row(rule: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let exact = RULES.iter().find(|(known, ..)| *known == rule);
    exact.or_else(|| {
        let class = rule.starts_with(CLASS);
        RULES.iter().find(|(known, ..)| class && *known == CLASS)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_is_told_in_both_languages_and_in_no_word_of_ours() {
        let mut seen = HashSet::new();
        for (name, ja, en) in RULES {
            assert!(en.is_ascii() && en.ends_with('.'), "{name}");
            assert!(ja.ends_with('。') && !ja.contains(name), "{name}");
            assert!(seen.insert(en) && seen.insert(ja), "{name}");
        }
    }

    #[test]
    fn a_class_is_told_as_a_class_and_a_strange_name_as_not_allowed() {
        let told = |rule| refusal(rule, Lang::En);
        assert_eq!(told("bandwidth.bulk"), told("bandwidth.updates"));
        assert_ne!(told("bandwidth.bulk"), told("bandwidth.total"));
        assert_eq!(told("groupware-web"), told("default-deny"));
        assert!(!knows("groupware-web") && !knows(""));
    }
}
