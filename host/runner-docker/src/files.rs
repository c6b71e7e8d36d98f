//! Handing out what an ended container left in its volume.

use engine::{FileStream, FilesError, file_stream};
use gate::ContainerName;

use crate::archive;
use crate::client::Client;

/// The volume of an attempt as an archive; `None` when its container and its volume are gone.
pub(crate) async fn fetch(
    client: &Client,
    name: &ContainerName,
) -> Result<Option<FileStream>, FilesError> {
    // However long it takes: that is for whoever reads to say.
    let archive = archive::open(client, name, "fetch the files", None).await?;
    Ok(archive.map(|archive| file_stream(move |out| archive::pass(archive, out).map(drop))))
}
