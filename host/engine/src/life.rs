//! The duties of a job's task, one function each, in the order of a life.

mod ended;
mod resending;
mod running;
mod starting;
mod warning;

pub(crate) use ended::alarm;
pub use warning::in_words;
