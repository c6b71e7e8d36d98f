//! Jobs in real containers, from their submission to the removal of what they left. The containers
//! run shell scripts in the place of a recorder or transcriber, with the real ones' habits.

mod administering;
mod ending;
mod hardening;
mod limits;
mod restart;
mod work;
