//! Waiting where nothing takes time: everything that an inert policy can wait for is there already.

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io;
use wasmtime_wasi::p2::bindings::sync::io::poll::{Host, HostPollable};

pub(super) struct Ready<'a>(pub(super) &'a mut ResourceTable);

pub(super) struct HasReady;

impl HasData for HasReady {
    type Data<'a> = Ready<'a>;
}

impl Host for Ready<'_> {
    fn poll(&mut self, waits: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        waits
            .iter()
            .try_for_each(|wait| self.0.get(wait).map(drop))?;
        Ok((0..).take(waits.len()).collect())
    }
}

impl HostPollable for Ready<'_> {
    fn ready(&mut self, wait: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.0.get(&wait)?;
        Ok(true)
    }

    fn block(&mut self, wait: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.0.get(&wait)?;
        Ok(())
    }

    fn drop(&mut self, wait: Resource<DynPollable>) -> wasmtime::Result<()> {
        io::poll::HostPollable::drop(self.0, wait)
    }
}
