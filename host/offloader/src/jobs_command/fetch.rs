//! `offloader jobs fetch`: what an ended job left, as a file that is whole or says that it is not.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::{Client, Failure, Output};
use super::{Id, print, show};
use crate::ambient;

/// Which job, and where to.
#[derive(Debug, Args)]
pub(super) struct Fetch {
    #[command(flatten)]
    job: Id,
    /// The file to write; - is standard output [default: JOB.tar].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

impl Fetch {
    pub(super) async fn run(&self, client: &Client, json: bool) -> Result<(), Failure> {
        let id = &self.job.id;
        let path = format!("/jobs/{id}/files");
        let file = match &self.output {
            Some(file) if file.as_os_str() == "-" => return to_stdout(client, &path).await,
            Some(file) => file.clone(),
            None => PathBuf::from(format!("{id}.tar")),
        };
        let name = file.display().to_string();
        // What broke off before may be all that can be had.
        for taken in [&file, &partial_of(&file)] {
            if ambient::is_there(taken) && !self.force {
                let why = format!("{} is there already; --force replaces it", taken.display());
                return Err(Failure::Unusable(why));
            }
        }
        let mut files = client.download(&path).await?;
        let bytes = save(&mut files, &file, self.force).await?;
        print(&if json {
            show::json(&json!({ "file": name, "bytes": bytes }))
        } else {
            show::fetched(&name, bytes)
        })
    }
}

async fn to_stdout(client: &Client, path: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        let why = "a terminal makes nothing of a tar archive: name a file, or another program";
        return Err(Failure::Unusable(why.to_owned()));
    }
    let mut files = client.download(path).await?;
    let bytes = copy(&mut files, &mut io::stdout().lock(), "standard output").await?;
    crate::say([show::fetched("standard output", bytes)
        .trim_end()
        .to_owned()]);
    Ok(())
}

/// What a file is called until all of it is there.
fn partial_of(file: &Path) -> PathBuf {
    let mut partial = OsString::from(file);
    partial.push(".partial");
    partial.into()
}

/// Writes under another name until all is there. What came of an archive that breaks off stays
/// under that name: it may be all that can be had.
async fn save(files: &mut Output, file: &Path, replace: bool) -> Result<u64, Failure> {
    let partial = partial_of(file);
    let name = partial.display().to_string();
    let created = ambient::create_private(&partial, replace);
    let mut out = created.map_err(|error| unwritten(&name, error))?;
    let bytes = match copy(files, &mut out, &name).await {
        Err(Failure::Unreached(why)) => {
            let why = format!("{why}; what came is in {name}, and is not all");
            return Err(Failure::Unreached(why));
        }
        copied => copied?,
    };
    // Whoever reads that all is there may delete the job next.
    out.sync_all().map_err(|error| unwritten(&name, error))?;
    let renamed = ambient::rename(&partial, file);
    renamed.map_err(|error| unwritten(&file.display().to_string(), error))?;
    Ok(bytes)
}

async fn copy(files: &mut Output, out: &mut impl Write, name: &str) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(part) = files.next().await? {
        let written = out.write_all(&part);
        written.map_err(|error| unwritten(name, error))?;
        bytes += part.len() as u64;
    }
    out.flush().map_err(|error| unwritten(name, error))?;
    Ok(bytes)
}

fn unwritten(name: &str, error: io::Error) -> Failure {
    Failure::Unwritten {
        file: name.to_owned(),
        error,
    }
}
