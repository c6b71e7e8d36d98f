//! The macros that make a component of a policy.

/// Exports the hooks that a type implements: `export!(MyPolicy: retry, settings_check)`.
///
/// Hooks are named `image_selection`, `site_url`, `retry`, `retention` and `settings_check`; a policy
/// names at least one of the first four.
#[macro_export]
macro_rules! export {
    ($policy:ident: $($hook:ident),+ $(,)?) => {
        $( $crate::__export_hook!($hook $policy); )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (image_selection $policy:ident) => {
        $crate::bindings::image_selection::export!($policy with_types_in $crate::bindings::image_selection);
    };
    (site_url $policy:ident) => {
        $crate::bindings::site_url::export!($policy with_types_in $crate::bindings::site_url);
    };
    (retry $policy:ident) => {
        $crate::bindings::retry::export!($policy with_types_in $crate::bindings::retry);
    };
    (retention $policy:ident) => {
        $crate::bindings::retention::export!($policy with_types_in $crate::bindings::retention);
    };
    (settings_check $policy:ident) => {
        $crate::bindings::settings_check::export!($policy with_types_in $crate::bindings::settings_check);
    };
    ($other:ident $policy:ident) => {
        ::core::compile_error!(::core::concat!(
            "no hook is called ", ::core::stringify!($other),
            "; there are image_selection, site_url, retry, retention and settings_check"
        ));
    };
}

/// What a policy without the standard library needs in its place: an allocator, and a panic handler
/// that ends the decision as a trap. To be used once, in a crate that begins with
/// `#![cfg_attr(target_family = "wasm", no_std)]`; does nothing on other targets.
#[macro_export]
macro_rules! small_runtime {
    () => {
        #[cfg(target_family = "wasm")]
        mod __small_runtime {
            #[global_allocator]
            static ALLOCATOR: $crate::arena::Arena = $crate::arena::Arena::new();

            #[panic_handler]
            fn panic(_: &::core::panic::PanicInfo<'_>) -> ! {
                ::core::arch::wasm32::unreachable()
            }

            // The host asks here for memory to pass texts and lists in. It must come from the
            // allocator above; the C library has an export of the same name for its own.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn cabi_realloc(
                pointer: *mut u8,
                old_size: usize,
                align: usize,
                new_size: usize,
            ) -> *mut u8 {
                // SAFETY: the canonical ABI passes pointers and sizes that it got from here.
                unsafe { $crate::runtime::cabi_realloc(pointer, old_size, align, new_size) }
            }
        }
    };
}
