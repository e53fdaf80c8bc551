//! Text from elsewhere, made fit for a terminal and a table.

/// Longest text of one field, in characters: the longest rule, packet or reason of our own is well
/// below.
pub(crate) const MAX_TEXT: usize = 96;

/// At most [`MAX_TEXT`] characters, none of which moves a cursor or turns a line around.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .map(|c| if c.is_control() || turns(c) { '?' } else { c })
        .collect()
}

/// Characters that change the direction of others, or have no width (Unicode, UAX #9, section 2).
const fn turns(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(clean("tcp 10.0.0.1:80"), "tcp 10.0.0.1:80");
        assert_eq!(clean("\u{1b}[2Jx\u{202e}y\n"), "?[2Jx?y?");
        assert_eq!(clean(&"関".repeat(500)).chars().count(), MAX_TEXT);
    }
}
