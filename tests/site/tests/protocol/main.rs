//! The site against a fake job service and fake bots: the whole protocol without containers.
#![allow(
    clippy::disallowed_methods,
    reason = "tests look at the files and clocks they need"
)]

mod activation;
mod calls;
mod support;
mod uploads;
