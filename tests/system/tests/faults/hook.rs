//! The points at which these tests let the daemon die are not in the one that sites get.

use std::fs;
use std::path::PathBuf;

use offloader_system_tests::{binary, binary_with_fault_points};

/// The variable that names a point.
const VARIABLE: &[u8] = b"OFFLOADER_FAULT";

fn knows_of_faults(binary: PathBuf) -> bool {
    let bytes = fs::read(&binary).expect("the binary can be read");
    bytes
        .windows(VARIABLE.len())
        .any(|window| window == VARIABLE)
}

#[test]
fn the_daemon_that_sites_get_has_no_fault_points() {
    assert!(
        knows_of_faults(binary_with_fault_points()),
        "a test of nothing"
    );
    assert!(!knows_of_faults(binary()), "{}", binary().display());
}
