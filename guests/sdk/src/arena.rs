//! The allocator that `small_runtime!` gives a policy.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ptr;

/// Bytes of a page of memory.
const PAGE: usize = 64 << 10;
/// Bytes that are there from the beginning. With the stack and the data of a small policy they fit
/// into the first page: every further one costs the host system calls in each decision.
const RESERVE: usize = 16 << 10;

/// Hands memory out in order. A decision is over before it would pay to look for what was freed; only
/// the block that was handed out last is grown in place or taken back.
pub struct Arena {
    /// Blocks are handed out from `next` to `end`; both are 0 before the first.
    next: Cell<usize>,
    end: Cell<usize>,
    reserve: UnsafeCell<[u8; RESERVE]>,
}

// SAFETY: an instance has one thread.
unsafe impl Sync for Arena {}

impl Arena {
    /// With nothing handed out.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in a static")]
    pub const fn new() -> Self {
        Self {
            next: Cell::new(0),
            end: Cell::new(0),
            reserve: UnsafeCell::new([0; RESERVE]),
        }
    }

    /// Gets hold of `size` bytes more, or at first of the reserve. Says whether there are any.
    fn grow(&self, size: usize) -> bool {
        if self.end.get() == 0 {
            let reserve = self.reserve.get().expose_provenance();
            self.next.set(reserve);
            self.end.set(reserve + RESERVE);
            return true;
        }
        let pages = size.div_ceil(PAGE);
        let Some(start) = more_pages(pages) else {
            return false;
        };
        if start != self.end.get() {
            self.next.set(start);
        }
        // The very last page of all ends where the addresses do.
        self.end.set(start.saturating_add(pages * PAGE));
        true
    }

    fn is_last(&self, block: *mut u8, layout: Layout) -> bool {
        block.addr() + layout.size() == self.next.get()
    }
}

// SAFETY: a block lies between `next` and `end`, in memory that nobody else has, and `next` moves
// behind it. `next` moves back only over the last block, when that is freed or shrinks.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        loop {
            if let Some(start) = self.next.get().checked_next_multiple_of(align)
                && let Some(next) = start.checked_add(size)
                && next <= self.end.get()
            {
                self.next.set(next);
                return ptr::with_exposed_provenance_mut(start);
            }
            if !self.grow(size.saturating_add(align)) {
                return ptr::null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_last(block, layout) {
            self.next.set(block.addr());
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.is_last(block, layout)
            && let Some(next) = block.addr().checked_add(new_size)
            && next <= self.end.get()
        {
            self.next.set(next);
            return block;
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises a size that fits with the alignment, and a block of `layout`.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size());
            }
            new
        }
    }
}

/// Where new pages begin, if the host gives any.
#[cfg(target_family = "wasm")]
fn more_pages(pages: usize) -> Option<usize> {
    match core::arch::wasm32::memory_grow::<0>(pages) {
        usize::MAX => None,
        before => Some(before * PAGE),
    }
}

#[cfg(test)]
use tests::more_pages;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a host has to give.
    const PAGES: usize = 1_000;

    thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(PAGES) };
    }

    pub(super) fn more_pages(pages: usize) -> Option<usize> {
        let left = LEFT.get().checked_sub(pages)?;
        LEFT.set(left);
        let memory = vec![0_u8; pages * PAGE].leak();
        Some(memory.as_mut_ptr().expose_provenance())
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// A block full of one byte.
    struct Block {
        at: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Block {
        fn assert_kept(&self) {
            // SAFETY: as `Arena` promises, this is what the test is about.
            let bytes = unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == self.byte));
            assert_eq!(self.at.addr() % self.layout.align(), 0);
        }

        fn fill(&self) {
            // SAFETY: as above.
            unsafe { self.at.write_bytes(self.byte, self.layout.size()) };
        }
    }

    #[test]
    fn no_block_touches_another() {
        let arena = Arena::new();
        let mut blocks: Vec<Block> = Vec::new();
        // Any sequence of numbers will do that mixes sizes, alignments and what is done.
        let mut random = 1_u64;
        let mut number = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        for round in 0..5_000_u32 {
            let size = [8, 100, 3_000, 70_000][number(40).saturating_sub(36)] - number(8);
            // SAFETY: blocks are freed and grown with the layout that they were made with.
            unsafe {
                match number(4) {
                    0 if !blocks.is_empty() => {
                        let block = blocks.swap_remove(number(blocks.len()));
                        block.assert_kept();
                        arena.dealloc(block.at, block.layout);
                    }
                    1 if !blocks.is_empty() => {
                        let index = number(blocks.len());
                        let block = &mut blocks[index];
                        let kept = size.min(block.layout.size());
                        block.at = arena.realloc(block.at, block.layout, size);
                        assert!(!block.at.is_null());
                        block.layout = layout(kept, block.layout.align());
                        block.assert_kept();
                        block.layout = layout(size, block.layout.align());
                        block.fill();
                    }
                    _ => {
                        let layout = layout(size, 1 << number(5));
                        let at = arena.alloc(layout);
                        assert!(!at.is_null());
                        let block = Block {
                            at,
                            layout,
                            byte: round as u8,
                        };
                        block.fill();
                        blocks.push(block);
                    }
                }
            }
        }
        blocks.iter().for_each(Block::assert_kept);
    }

    #[test]
    fn the_last_block_grows_in_place_and_is_taken_back() {
        let arena = Arena::new();
        // SAFETY: blocks are freed and grown with the layout that they were made with.
        unsafe {
            let first = arena.alloc(layout(10, 1));
            let grown = arena.realloc(first, layout(10, 1), RESERVE);
            assert_eq!(grown, first);
            arena.dealloc(grown, layout(RESERVE, 1));
            assert_eq!(arena.alloc(layout(1, 1)), first);
        }
        assert_eq!(LEFT.get(), PAGES, "the reserve was enough");
    }

    #[test]
    fn what_cannot_be_had_is_null() {
        let arena = Arena::new();
        // SAFETY: nothing is done with the blocks.
        unsafe {
            assert!(arena.alloc(layout(PAGES * PAGE + 1, 1)).is_null());
            assert!(!arena.alloc(layout((PAGES - 1) * PAGE, 8)).is_null());
        }
    }
}
