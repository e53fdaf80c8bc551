//! What the gate's rules mean to the person whose packet was refused. The one place for it: rules
//! of the policy have their ids, which IT looks up.

use super::Lang;

/// Rule, and what it means.
const RULES: &[(&str, &str, &str)] = &[
    (
        "forbidden",
        "市が禁じている宛先です",
        "a destination that the city forbids",
    ),
    (
        "default-deny",
        "許可されていない宛先です",
        "a destination that nothing allows",
    ),
    (
        "anti-spoof",
        "業務 OS が自分のものでないアドレスを名乗りました",
        "the work OS used an address that is not its own",
    ),
    (
        "impostor",
        "業務 OS がルーターや DHCP サーバーを名乗りました",
        "the work OS played a router or a DHCP server",
    ),
    ("ipv6", "IPv6 は通しません", "IPv6 is not carried"),
    (
        "ether-type",
        "扱わない種類のフレームです",
        "a kind of frame that is not carried",
    ),
    ("malformed", "壊れたパケットです", "a broken packet"),
    (
        "fragment",
        "分割されたパケットなど、通さない形です",
        "a fragment, or another form that is not carried",
    ),
    (
        "too-long",
        "長すぎるパケットです",
        "a packet that is too long",
    ),
    (
        "closed",
        "庁内につながっていない間に送られました",
        "sent while there was no connection",
    ),
    (
        "flow-table-full",
        "同時の接続が多すぎます",
        "too many connections at one time",
    ),
    (
        "no-flow",
        "頼んでいない通信が内側から来ました",
        "something came from inside that nobody had asked for",
    ),
    (
        "dns-outside",
        "庁内のものでない名前です",
        "a name that is not of the closed network",
    ),
    (
        "dns-refused",
        "名前の問い合わせが正しくないか、多すぎます",
        "a question for a name that is none, or too many of them",
    ),
    (
        "not-served",
        "この端末にないサービスです",
        "a service that this laptop does not offer",
    ),
];

/// What a rule means; a rule of the policy is known to IT by its id.
pub fn refusal(rule: &str, lang: Lang) -> &'static str {
    RULES.iter().find(|(known, ..)| *known == rule).map_or(
        lang.of("市のポリシーの規則です", "a rule of the city's policy"),
        |(_, ja, en)| lang.of(ja, en),
    )
}

/// Whether a rule has words of its own here.
pub fn knows(rule: &str) -> bool {
    RULES.iter().any(|(known, ..)| *known == rule)
}
