//! Clocks that stand at the decision's time, with waits that are over at once.

use domain::Timestamp;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

/// Both clocks.
pub(super) struct Still<'a> {
    pub(super) now: Timestamp,
    pub(super) table: &'a mut ResourceTable,
}

pub(super) struct HasStill;

impl HasData for HasStill {
    type Data<'a> = Still<'a>;
}

impl wall_clock::Host for Still<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let millis = crate::guest::timestamp(self.now);
        let nanoseconds = (millis % 1000) as u32 * 1_000_000;
        Ok(wall_clock::Datetime {
            seconds: millis / 1000,
            nanoseconds,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

impl monotonic_clock::Host for Still<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }
}

impl Still<'_> {
    fn over(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let over = self.table.push(Over)?;
        subscribe(self.table, over)
    }
}

/// A wait that is over.
struct Over;

#[async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}
