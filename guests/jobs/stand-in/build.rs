//! The workspace gives guests the small stack of a policy; a job may have an ordinary one.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("wasi") {
        println!("cargo:rustc-link-arg=-zstack-size=1048576");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
