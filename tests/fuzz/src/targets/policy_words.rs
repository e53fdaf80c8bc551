//! The small texts around a policy: signature file, trust file, connection.

use sekisho_policy::{Probe, Signature, Trust};

/// Reads the input as each of them; what is accepted is written as it was read.
///
/// # Panics
/// Where a value that was read is not the one that was written.
pub fn policy_words(input: &[u8]) {
    if let Ok(signature) = Signature::parse(input) {
        // Strings with escapes are written without: only plain ones come back.
        if signature
            .keyid
            .chars()
            .chain(signature.sig.chars())
            .all(|c| c.is_ascii_alphanumeric())
        {
            assert_eq!(
                Signature::parse(signature.to_file().as_bytes()),
                Ok(signature)
            );
        }
    }
    let text = String::from_utf8_lossy(input);
    if let Ok(trust) = Trust::parse(&text) {
        assert!(trust.key_ids().count() > 0);
    }
    if let Ok(probe) = text.parse::<Probe>() {
        assert_eq!(probe.to_string().parse(), Ok(probe));
    }
}
