//! Whether a policy's file is the one that is meant: read once, so that what is verified is what is
//! compiled.

use std::io::{self, ErrorKind, Read};

use cap_std::fs::Dir;
use sha2::{Digest, Sha256};

use super::interfaces::not_a_component;
use crate::config::PolicyConfig;
use crate::load_error::LoadProblem;
use crate::trust::{SignatureProblem, Trust};

/// Bytes of a signature's file at most. Its two comments have thousands in the worst case.
const SIGNATURE_MAX: u64 = 16 << 10;

/// A file that is the one that is meant.
pub(super) struct Verified {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: [u8; 32],
    pub(super) signed_by: Option<String>,
}

/// Reads a policy's file, and holds it against its size, its pin and its signature.
pub(super) fn verify(
    dir: &Dir,
    config: &PolicyConfig,
    trust: &Trust,
) -> Result<Verified, LoadProblem> {
    let file = &config.component;
    let limit = config.limits.component_size;
    let bytes = read(dir, file, limit)
        .map_err(|error| LoadProblem::Read {
            file: file.clone(),
            error,
        })?
        .ok_or_else(|| LoadProblem::TooLarge {
            file: file.clone(),
            limit,
        })?;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    if let Some(pinned) = &config.sha256 {
        check_pin(pinned, hex::encode(sha256))?;
    }
    let signature = match &config.signature {
        Some(named) => named.clone(),
        None => format!("{file}.minisig"),
    };
    let signed_by = signer(dir, config, &signature, &bytes, trust).map_err(|problem| {
        LoadProblem::Signature {
            file: signature,
            problem,
        }
    })?;
    if let Some(what) = not_a_component(&bytes) {
        return Err(LoadProblem::NotComponent {
            file: file.clone(),
            what,
        });
    }
    Ok(Verified {
        bytes,
        sha256,
        signed_by,
    })
}

fn check_pin(pinned: &str, found: String) -> Result<(), LoadProblem> {
    if pinned.len() != 64 || !pinned.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(LoadProblem::PinForm);
    }
    if pinned.eq_ignore_ascii_case(&found) {
        return Ok(());
    }
    Err(LoadProblem::Pin {
        found,
        pinned: pinned.to_owned(),
    })
}

/// Who signed the file. A signature that is there has to be right, whether it is demanded or not.
fn signer(
    dir: &Dir,
    config: &PolicyConfig,
    signature: &str,
    bytes: &[u8],
    trust: &Trust,
) -> Result<Option<String>, SignatureProblem> {
    match read(dir, signature, SIGNATURE_MAX) {
        Ok(Some(text)) => trust.signer(bytes, &text),
        Ok(None) => Err(SignatureProblem::Form),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SignatureProblem::Read(error)),
        Err(_) if trust.requires_signatures() => Err(SignatureProblem::Missing(
            "policies.require_signature demands it",
        )),
        Err(_) if config.signature.is_some() => {
            Err(SignatureProblem::Missing("the policy names it"))
        }
        Err(_) => Ok(None),
    }
}

/// The bytes of a file; `None` when it has more than `limit`.
fn read(dir: &Dir, file: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // Opening a pipe would wait until somebody comes to its other end.
    if !dir.metadata(file)?.is_file() {
        let what = "is not a regular file";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    let opened = dir.open(file)?;
    let mut bytes = Vec::new();
    opened
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
