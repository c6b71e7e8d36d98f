//! Identifiers as Mattermost makes them.

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A fresh random identifier: 26 characters of `[a-z0-9]`.
pub(crate) fn new_id() -> String {
    // The largest multiple of 36 that a byte can stay below: no letter is likelier than another.
    const FAIR: u8 = 252;
    let mut id = String::with_capacity(26);
    while id.len() < 26 {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the operating system hands out random bytes");
        let letters = bytes.iter().filter(|&&byte| byte < FAIR);
        id.extend(
            letters
                .map(|&byte| char::from(ALPHABET[usize::from(byte % 36)]))
                .take(26 - id.len()),
        );
    }
    id
}

#[cfg(test)]
mod tests {
    use super::new_id;

    #[test]
    fn ids_have_the_form_that_the_gate_demands() {
        let (one, other) = (new_id(), new_id());
        for id in [&one, &other] {
            assert_eq!(id.len(), 26);
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{id}"
            );
        }
        assert_ne!(one, other);
    }
}
