//! Numbers as people read them, the same in every language.

/// A count with its digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// Digits in groups of three.
pub(crate) fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
