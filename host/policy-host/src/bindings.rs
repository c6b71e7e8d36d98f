//! Bindings made from the contract.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    world: "policy",
    imports: { default: trappable },
    with: {
        "offloader:policy/types.job": JobHandle,
        "offloader:policy/types.attempt": AttemptHandle,
    },
});

/// The job that a decision is about. There is one, so the handle says nothing.
pub struct JobHandle(());

/// One of the job's attempts; the handle is its index.
pub struct AttemptHandle(());
