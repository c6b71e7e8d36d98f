//! Random numbers: such that follow from the decision, and the system's.

use std::marker::PhantomData;

use domain::JobFacts;
use sha2::{Digest, Sha256};
use wasmtime::component::HasData;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::failure::Failure;

/// Random bytes that one call can ask for. Nothing ends a decision while they are made.
const BYTES_MAX: u64 = 64 << 10;

const BLOCK: usize = 32;

/// Where random bytes come from.
pub(super) trait Source: Send + 'static {
    fn block(&mut self) -> wasmtime::Result<[u8; BLOCK]>;
}

/// Bytes that look random and are the same for the same question: SHA-256 of a seed and a counter.
pub(super) struct FromDecision {
    seed: [u8; 32],
    counter: u64,
}

impl FromDecision {
    pub(super) fn new(facts: &JobFacts) -> Self {
        let mut hash = Sha256::new();
        hash.update(facts.id.as_bytes());
        hash.update(facts.now.as_millis().to_le_bytes());
        hash.update(facts.attempts.len().to_le_bytes());
        Self {
            seed: hash.finalize().into(),
            counter: 0,
        }
    }
}

impl Source for FromDecision {
    fn block(&mut self) -> wasmtime::Result<[u8; BLOCK]> {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_le_bytes());
        self.counter += 1;
        Ok(hash.finalize().into())
    }
}

/// The system's own.
pub(super) struct FromSystem;

impl Source for FromSystem {
    fn block(&mut self) -> wasmtime::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        getrandom::fill(&mut block)?;
        Ok(block)
    }
}

/// Random numbers from a source.
pub(super) struct Random<S>(pub(super) S);

pub(super) struct HasRandom<S>(PhantomData<S>);

impl<S: Source> HasData for HasRandom<S> {
    type Data<'a> = &'a mut Random<S>;
}

impl<S: Source> Random<S> {
    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > BYTES_MAX {
            let message = format!("asked for {len} random bytes at once");
            return Err(Failure::Trap(message).into());
        }
        let mut bytes = Vec::with_capacity(len as usize + BLOCK);
        while bytes.len() < len as usize {
            bytes.extend_from_slice(&self.0.block()?);
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        let [a, b, c, d, e, f, g, h, ..] = self.0.block()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl<S: Source> random::Host for Random<S> {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.number()
    }
}

impl<S: Source> insecure::Host for Random<S> {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.number()
    }
}

impl<S: Source> insecure_seed::Host for Random<S> {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.number()?, self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up_to_a_number(source: impl Source) {
        let mut random = Random(source);
        let bytes = random.bytes(BYTES_MAX).unwrap();
        assert_eq!(bytes.len() as u64, BYTES_MAX);
        assert_ne!(bytes[..32], bytes[32..64]);
        let error = random.bytes(BYTES_MAX + 1).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Failure::Trap(_))));
    }

    #[test]
    fn random_bytes_are_given_up_to_a_number() {
        given_up_to_a_number(FromSystem);
        given_up_to_a_number(FromDecision {
            seed: [7; 32],
            counter: 0,
        });
    }
}
