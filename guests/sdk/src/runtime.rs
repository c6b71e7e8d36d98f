//! What `small_runtime!` is made of.
#![allow(unsafe_code)]

use alloc::alloc::{alloc, handle_alloc_error, realloc};
use core::alloc::Layout;
use core::arch::wasm32::unreachable;
use core::ptr;

// Compiled code compares and copies memory through the C library, which otherwise the standard
// library links.
#[link(name = "c")]
unsafe extern "C" {}

/// Memory that the host passes texts and lists in: new, or grown.
///
/// # Safety
/// `old` is null with a size of 0, or came from here with these sizes. `align` is a power of two.
pub unsafe fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return ptr::without_provenance_mut(align);
    }
    let size = if old_size == 0 { new_size } else { old_size };
    let Ok(layout) = Layout::from_size_align(size, align) else {
        unreachable()
    };
    // SAFETY: sizes are not 0 here, and `old` was allocated with `layout` as the caller promises.
    let new = unsafe {
        if old_size == 0 {
            alloc(layout)
        } else {
            realloc(old, layout, new_size)
        }
    };
    if new.is_null() {
        handle_alloc_error(layout);
    }
    new
}
