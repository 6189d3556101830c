//! The grammar of names.

use crate::limits::NAME_BYTES_MAX;

/// A name outside the grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no name: allowed are 1 to 255 bytes of letters, digits, '.', '_', '-' and '/' \
     (never ':' or '@', which separate offset and token)"
)]
pub struct BadName {
    /// What was given, with bytes outside UTF-8 replaced.
    pub name: String,
}

/// Checks the name of a queue or group.
///
/// # Errors
/// [`BadName`] outside the grammar: 1-255 bytes of ASCII letters, digits, `.`, `_`, `-`, `/`.
pub fn check(name: &str) -> Result<(), BadName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(BadName { name: name.chars().take(300).collect() })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_grammar_holds_at_its_borders() {
        for good in ["a", "A.b_c-d/9", &"x".repeat(255)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a:1", "a@b", "a b", "\u{e4}", "a\n", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
