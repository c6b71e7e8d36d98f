//! What a decision leaves in memory, and what the next one finds there.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hint;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Lies in compiled code and in no memory, so that one finds only what was left.
const SECRET: u64 = 0x5ec2_e7ba_5eba_11ed;
/// Of the secret, one after the other.
const COPIES: usize = 64 << 10;

/// How often this was called in the life of this instance, by two ways to remember it.
pub(crate) fn remember() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static KEPT: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    }
    let calls = CALLS.fetch_add(1, Relaxed) + 1;
    let kept = KEPT.with_borrow_mut(|kept| {
        kept.insert(calls);
        kept.len()
    });
    format!("calls={calls} kept={kept}")
}

/// Leaves the secret all over the memory that it can get without much asking.
pub(crate) fn leave_secret() {
    mem::forget(hint::black_box(vec![SECRET; COPIES]));
}

/// Copies of the secret in memory, that which nobody wrote to yet among it.
pub(crate) fn find_secret() -> usize {
    let room: Vec<u64> = Vec::with_capacity(COPIES);
    hint::black_box(&room);
    (1..words())
        .filter(|word| hint::black_box(read(*word)) == SECRET)
        .count()
}

/// How many numbers of eight bytes the memory has.
#[cfg(target_family = "wasm")]
fn words() -> usize {
    core::arch::wasm32::memory_size(0) * (64 << 10) / size_of::<u64>()
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code)]
fn read(word: usize) -> u64 {
    let address = std::ptr::without_provenance::<u64>(word * size_of::<u64>());
    // SAFETY: WebAssembly has every byte below `memory_size`. Whose it is does not matter: it is only
    // looked at, and as a volatile access, so that nothing follows from it for the compiler.
    unsafe { address.read_volatile() }
}

/// Elsewhere a program has no such memory.
#[cfg(not(target_family = "wasm"))]
fn words() -> usize {
    0
}

#[cfg(not(target_family = "wasm"))]
fn read(_: usize) -> u64 {
    0
}
