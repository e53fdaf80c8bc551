//! Text from the other side, before a person sees it.

/// At most `limit` characters of `text`, without those that could deceive whoever reads it in a
/// log or on a screen: control characters (terminal escapes, line breaks) and the marks that turn
/// the direction of writing round.
pub fn clean(text: &str, limit: usize) -> String {
    let deceives = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(|c| !deceives(c)).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_turned_writing_are_taken_out_and_japanese_stays() {
        assert_eq!(
            clean("接続\u{1b}[2Jしました\n\u{202e}gpj.exe", 100),
            "接続[2Jしましたgpj.exe"
        );
        assert_eq!(clean("日本語", 2), "日本");
    }
}
