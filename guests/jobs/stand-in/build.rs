//! The workspace gives guests the small stack of a policy; a job may have an ordinary one.

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells build scripts what it builds for in no other way"
)]
fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("wasi") {
        println!("cargo:rustc-link-arg=-zstack-size=1048576");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
