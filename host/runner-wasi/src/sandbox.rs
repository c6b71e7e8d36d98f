//! The WebAssembly engine that jobs run in, and what a job can reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use domain::ImageId;
use tokio::io::DuplexStream;
use wasmtime::component::{Component, HasData, Linker, Resource, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter, Store};
use wasmtime_wasi::cli::AsyncStdinStream;
use wasmtime_wasi::filesystem::{Descriptor, Dir, FsPerms, OpenMode};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p2::bindings::{Command, CommandPre};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};

use crate::disk::Home;
use crate::network::Site;
use crate::output::Output;
use crate::pool;

/// How often a job that computes makes room for others, and can be killed.
const TICK: Duration = Duration::from_millis(5);

/// Handles to files, streams and sockets that a job can hold.
const HANDLES_MAX: usize = 256;

/// Elements of tables that a job can have, all tables together.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

/// What all jobs share.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    linker: Linker<Guest>,
    ended: Arc<AtomicBool>,
}

impl Sandbox {
    pub(crate) fn new(jobs_max: u32) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = pool::engine(config, jobs_max, TABLE_ELEMENTS_MAX)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        linker.allow_shadowing(true);
        // The one directory there is was opened by the runner, not by its path.
        preopens::add_to_linker::<_, Own>(&mut linker, |guest| guest)?;
        ip_name_lookup::add_to_linker::<_, Own>(&mut linker, |guest| guest)?;
        let ended = Arc::new(AtomicBool::new(false));
        thread::Builder::new()
            .name("job-ticker".to_owned())
            .spawn({
                let (engine, ended) = (engine.weak(), Arc::clone(&ended));
                move || {
                    while !ended.load(SeqCst) {
                        thread::sleep(TICK);
                        match engine.upgrade() {
                            Some(engine) => engine.increment_epoch(),
                            None => return,
                        }
                    }
                }
            })?;
        Ok(Self {
            engine,
            linker,
            ended,
        })
    }

    /// A component that is ready to be run any number of times.
    pub(crate) fn program(&self, id: ImageId, component: &Component) -> wasmtime::Result<Program> {
        let command = CommandPre::new(self.linker.instantiate_pre(component)?)?;
        Ok(Program { id, command })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
    }
}

/// A compiled command.
pub(crate) struct Program {
    pub(crate) id: ImageId,
    command: CommandPre<Guest>,
}

/// What one run is given.
pub(crate) struct Given {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) home: Home,
    pub(crate) memory_max: u64,
    /// The one place that it can reach.
    pub(crate) site: Option<Arc<Site>>,
    /// Its standard input: nothing comes, until it ends.
    pub(crate) stdin: DuplexStream,
    pub(crate) output: Output,
}

/// How a run ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out_of_memory: bool,
}

/// Exit code of a program that trapped: what a shell tells of one that aborted.
const ABORTED: i32 = 134;
/// Exit code of a program that wanted more memory than there is: what a container engine tells.
pub(crate) const KILLED: i32 = 137;

impl Program {
    /// Runs the command to its end. Dropping the future kills it.
    pub(crate) async fn run(&self, sandbox: &Sandbox, given: Given) -> Ended {
        let output = given.output.clone();
        let mut store = Store::new(&sandbox.engine, Guest::new(given));
        store.limiter(|guest| guest);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let ran = match self.command.instantiate_async(&mut store).await {
            Ok(instance) => call(&instance, &mut store).await,
            Err(error) => Err(error),
        };
        let code = match ran {
            Ok(Ok(())) => 0,
            Ok(Err(())) => 1,
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(exit) => exit.0,
                None => {
                    output.say(&format!("{:#}\n", error.root_cause()));
                    ABORTED
                }
            },
        };
        let out_of_memory = store.data().out_of_memory && code != 0;
        Ended {
            code: if out_of_memory { KILLED } else { code },
            out_of_memory,
        }
    }
}

async fn call(instance: &Command, store: &mut Store<Guest>) -> wasmtime::Result<Result<(), ()>> {
    instance.wasi_cli_run().call_run(store).await
}

/// The state of one run.
pub(crate) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    home: Home,
    site: Option<Arc<Site>>,
    memory: u64,
    memory_max: u64,
    table_elements: usize,
    out_of_memory: bool,
}

impl Guest {
    fn new(given: Given) -> Self {
        let Given {
            env,
            home,
            memory_max,
            site,
            stdin,
            output,
        } = given;
        let mut wasi = WasiCtx::builder();
        wasi.envs(&env)
            .arg("job")
            .stdin(AsyncStdinStream::new(stdin))
            .stdout(output.clone())
            .stderr(output)
            .allow_tcp(site.is_some())
            .allow_ip_name_lookup(site.is_some())
            .socket_addr_check({
                let site = site.clone();
                move |address, wanted| {
                    let site = site.clone();
                    Box::pin(async move {
                        match site {
                            Some(site) => site.permits(address, wanted).await,
                            None => false,
                        }
                    })
                }
            });
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            wasi: wasi.build(),
            table,
            home,
            site,
            memory: 0,
            memory_max,
            table_elements: 0,
            out_of_memory: false,
        }
    }

    pub(crate) fn site(&self) -> Option<&Site> {
        self.site.as_deref()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

struct Own;

impl HasData for Own {
    type Data<'a> = &'a mut Guest;
}

impl preopens::Host for &mut Guest {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let dir = Dir::new(
            self.home.data()?.into_std_file(),
            FsPerms::ReadWrite,
            OpenMode::READ | OpenMode::WRITE,
            false,
        );
        let descriptor = self.table.push(Descriptor::Dir(dir))?;
        Ok(vec![(descriptor, "/data".to_owned())])
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory - current as u64 + desired as u64;
        if self.memory_max > 0 && total > self.memory_max {
            self.out_of_memory = true;
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements - current + desired;
        if total > TABLE_ELEMENTS_MAX {
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }
}
