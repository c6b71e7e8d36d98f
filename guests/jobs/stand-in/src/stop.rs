//! Whether the job was asked to end.

/// Its standard input, to which nothing is ever written, has ended.
#[cfg(target_os = "wasi")]
pub(crate) fn asked() -> bool {
    let stdin = wasip2::cli::stdin::get_stdin();
    let over = stdin.subscribe();
    over.ready()
}

/// Elsewhere nobody asks.
#[cfg(not(target_os = "wasi"))]
pub(crate) fn asked() -> bool {
    false
}
