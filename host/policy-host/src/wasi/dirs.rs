//! Directories that were granted.

use std::io;
use std::sync::Arc;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemCtxView, WasiFilesystemView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, Host, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode, WasiView};

use crate::config::DirGrant;
use crate::guest::Guest;

/// The interfaces as the library links them.
const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";
const TYPES: &str = "wasi:filesystem/types@0.2.12";

/// Directories, open, each with its path as the policy sees it.
#[derive(Clone, Default)]
pub(super) struct Dirs(Arc<[(Dir, String)]>);

impl Dirs {
    /// Takes the directories of a policy, once for all of its decisions.
    pub(super) fn open(grants: &[DirGrant]) -> io::Result<Self> {
        let open = |grant: &DirGrant| {
            let (perms, mode) = match grant.write {
                true => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
                false => (FsPerms::ReadOnly, OpenMode::READ),
            };
            let dir = grant.dir.try_clone()?.into_std_file();
            Ok((Dir::new(dir, perms, mode, false), grant.guest_path.clone()))
        };
        grants.iter().map(open).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands them out, and has a look at everything that is opened in them.
    pub(super) fn add_to_linker(&self, linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
        let dirs = self.clone();
        linker
            .instance(PREOPENS)?
            .func_wrap("get-directories", move |mut store, (): ()| {
                let guest: &mut Guest = store.data_mut();
                Ok((dirs.hand_out(guest)?,))
            })?;
        linker.allow_shadowing(true);
        linker.instance(TYPES)?.func_wrap_async(
            "[method]descriptor.open-at",
            |mut store, params: OpenAt| {
                Box::new(async move {
                    let guest: &mut Guest = store.data_mut();
                    let mut files = guest.filesystem();
                    let opened = match open_at(&mut files, params).await {
                        Ok(opened) => Ok(opened),
                        Err(error) => Err(files.convert_error_code(error)?),
                    };
                    Ok((opened,))
                })
            },
        )?;
        linker.allow_shadowing(false);
        Ok(())
    }

    fn hand_out(&self, guest: &mut Guest) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        guest.reads_dirs();
        let table = guest.ctx().table;
        let dirs = self.0.iter();
        dirs.map(|(dir, path)| Ok((table.push(Descriptor::Dir(dir.clone()))?, path.clone())))
            .collect()
    }
}

impl FromIterator<(Dir, String)> for Dirs {
    fn from_iter<I: IntoIterator<Item = (Dir, String)>>(dirs: I) -> Self {
        Self(dirs.into_iter().collect())
    }
}

type OpenAt = (
    Resource<Descriptor>,
    PathFlags,
    String,
    OpenFlags,
    DescriptorFlags,
);

/// Opens files and directories, and nothing else. Opening a pipe waits until somebody comes to its
/// other end; the policy would be left there when its time is up, but the thread that waits for it
/// would not. Devices are no business of a policy.
async fn open_at(
    files: &mut WasiFilesystemCtxView<'_>,
    (dir, follow, path, how, access): OpenAt,
) -> FsResult<Resource<Descriptor>> {
    let same_dir = Resource::new_borrow(dir.rep());
    // What is not there may be about to be made, and what cannot be looked at cannot be opened.
    if let Ok(stat) = files.stat_at(same_dir, follow, path.clone()).await {
        use DescriptorType::{Directory, RegularFile, SymbolicLink};
        if !matches!(stat.type_, Directory | RegularFile | SymbolicLink) {
            return Err(ErrorCode::NotPermitted.into());
        }
    }
    files.open_at(dir, follow, path, how, access).await
}
