//! argon2id in PHC string format, in memory that goes back to the system at once.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use domain::Secret;
use subtle::ConstantTimeEq as _;

/// Blocks, of 1 KiB each, that are reserved at least. The allocator keeps for later what is freed
/// of up to 32 MiB, once for every thread that worked on a hash; what is reserved beyond that goes
/// back to the system. Only what is used takes up memory: 19 MiB with the default parameters.
const RESERVED: usize = 33 * 1024;

/// The hash of a key under a new salt; `None` when the system gives no randomness for it.
pub(super) fn hash(key: &Secret) -> Option<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).ok()?;
    let params = Params::default();
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::default().into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(Salt::new(&salt).ok()?),
        hash: Some(Output::new(&compute(params, key, &salt)?).ok()?),
    };
    Some(hash.to_string())
}

/// Whether `key` is the one behind `hash`, which one of [`hash`] made, with whatever parameters.
pub(super) fn verify(key: &Secret, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return false;
    };
    let Ok(params) = Params::try_from(&hash) else {
        return false;
    };
    if hash.algorithm != ARGON2ID_IDENT {
        return false;
    }
    let computed = compute(params, key, salt.as_ref());
    computed.is_some_and(|computed| computed.ct_eq(expected.as_bytes()).into())
}

/// Takes as long as [`verify`] does.
pub(super) fn pretend(key: &Secret) {
    std::hint::black_box(compute(Params::default(), key, &[0; 16]));
}

fn compute(params: Params, key: &Secret, salt: &[u8]) -> Option<Vec<u8>> {
    let blocks = params.block_count();
    let mut memory = Vec::with_capacity(blocks.max(RESERVED));
    memory.resize(blocks, Block::default());
    let mut out = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    let argon = Argon2::new(Algorithm::Argon2id, Version::default(), params);
    let done = argon.hash_password_into_with_memory(
        key.reveal().as_bytes(),
        salt,
        &mut out,
        &mut memory[..],
    );
    done.is_ok().then_some(out)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    #[test]
    fn hashes_are_those_of_everybody_else() {
        let key = Secret::new("0123456789abcdef0123456789abcdef");
        let ours = hash(&key).unwrap();
        assert!(
            ours.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{ours}"
        );
        assert_ne!(hash(&key).unwrap(), ours);
        let parsed = PasswordHash::new(&ours).unwrap();
        assert!(
            Argon2::default()
                .verify_password(key.reveal().as_bytes(), &parsed)
                .is_ok()
        );
        let theirs = Argon2::default()
            .hash_password(key.reveal().as_bytes())
            .unwrap()
            .to_string();
        assert!(verify(&key, &theirs));
        assert!(!verify(
            &Secret::new("0123456789abcdef0123456789abcdeF"),
            &theirs
        ));
    }

    #[test]
    fn what_is_no_hash_verifies_nothing() {
        for text in [
            "",
            "no hash",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$scrypt$ln=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
        ] {
            assert!(!verify(&Secret::new(""), text), "{text}");
        }
    }
}
