//! WASI, as far as policies have it. Compiled programs import a base set of it whether they use it or
//! not: all of it is always linked, and inert but for what was granted.
//!
//! Inert means: no environment, no arguments, stdin at its end, no directories. Clocks stand at the
//! decision's time, and every wait is over at once. Random bytes come from the decision: the same
//! question gets the same ones. What is written to stdout and stderr becomes log lines. Exit ends the
//! decision. Nothing of it blocks.
//!
//! A grant puts the real thing in its place: named variables, named directories, clocks that go,
//! random bytes of the system. There is no network, and nothing grants one.

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, filesystem, io, sync};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::config::PolicyGrants;
use crate::guest::Guest;

mod clocks;
mod dirs;
mod output;
mod polls;
mod randomness;

use clocks::{HasStill, Still};
use dirs::Dirs;
use output::Captured;
pub(crate) use output::Written;
use polls::{HasReady, Ready};
use randomness::{FromDecision, FromSystem, HasRandom, Random};

/// The interfaces of the base set, without their version.
pub(crate) const INTERFACES: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
];

/// Streams and waits that one decision can hold, and attempts: each takes memory of the host.
pub(crate) const HANDLES_MAX: usize = 1024;

/// The same for a policy with directories, where a handle can be an open file: those of all decisions
/// at once have to fit into what a service may open.
const HANDLES_MAX_WITH_FILES: usize = 32;

/// How far a policy reaches beyond the inert base set.
#[derive(Default)]
pub(crate) struct Reach {
    env: bool,
    dirs: Dirs,
    real_clock: bool,
    real_entropy: bool,
}

impl Reach {
    /// What grants give.
    ///
    /// # Errors
    /// When there are too many open files to hold a directory open.
    pub(crate) fn of(grants: &PolicyGrants) -> std::io::Result<Self> {
        Ok(Self {
            env: !grants.env.is_empty(),
            dirs: Dirs::open(&grants.dirs)?,
            real_clock: grants.real_clock,
            real_entropy: grants.real_entropy,
        })
    }

    pub(crate) fn is_inert(&self) -> bool {
        !(self.env || self.real_entropy || self.can_wait())
    }

    /// Whether there is anything in it that does not answer at once.
    pub(crate) fn can_wait(&self) -> bool {
        self.real_clock || !self.dirs.is_empty()
    }
}

/// Links the base set, and in it what is reached.
pub(crate) fn add_to_linker(l: &mut Linker<Guest>, reach: &Reach) -> wasmtime::Result<()> {
    cli::exit::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    sync::io::error::add_to_linker::<_, HasTable>(l, Guest::table)?;
    if reach.can_wait() {
        io::poll::add_to_linker::<_, HasTable>(l, Guest::table)?;
        io::streams::add_to_linker::<_, HasTable>(l, Guest::table)?;
        filesystem::types::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    } else {
        sync::io::poll::add_to_linker::<_, HasReady>(l, |guest| Ready(guest.table()))?;
        sync::io::streams::add_to_linker::<_, HasTable>(l, Guest::table)?;
        sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    }
    if reach.env {
        cli::environment::add_to_linker::<_, WasiCli>(l, |guest| guest.reading("env").cli())?;
    } else {
        cli::environment::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    }
    if reach.dirs.is_empty() {
        filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    } else {
        reach.dirs.add_to_linker(l)?;
    }
    if reach.real_clock {
        wall_clock::add_to_linker::<_, WasiClocks>(l, |guest| guest.reading("clock").clocks())?;
        monotonic_clock::add_to_linker::<_, WasiClocks>(l, |g| g.reading("clock").clocks())?;
    } else {
        wall_clock::add_to_linker::<_, HasStill>(l, Guest::still)?;
        monotonic_clock::add_to_linker::<_, HasStill>(l, Guest::still)?;
    }
    if reach.real_entropy {
        random::add_to_linker::<_, HasRandom<FromSystem>>(l, Guest::entropy)?;
        insecure::add_to_linker::<_, HasRandom<FromSystem>>(l, Guest::entropy)?;
        insecure_seed::add_to_linker::<_, HasRandom<FromSystem>>(l, Guest::entropy)
    } else {
        random::add_to_linker::<_, HasRandom<FromDecision>>(l, Guest::random)?;
        insecure::add_to_linker::<_, HasRandom<FromDecision>>(l, Guest::random)?;
        insecure_seed::add_to_linker::<_, HasRandom<FromDecision>>(l, Guest::random)
    }
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// The state of WASI in one decision. Made when it is first used: most policies never do.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    random: Random<FromDecision>,
    entropy: Random<FromSystem>,
    stdout: Captured,
    stderr: Captured,
}

impl Wasi {
    fn new(guest: &Guest) -> Self {
        let cap = guest.limits().log as usize;
        let (stdout, stderr) = (Captured::new(cap), Captured::new(cap));
        let mut ctx = WasiCtx::builder();
        ctx.stdout(stdout.clone()).stderr(stderr.clone());
        for (name, value) in &guest.grants().env {
            ctx.env(name, value);
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(match guest.grants().dirs.is_empty() {
            true => HANDLES_MAX,
            false => HANDLES_MAX_WITH_FILES,
        });
        Self {
            ctx: ctx.build(),
            table,
            random: Random(FromDecision::new(guest.facts())),
            entropy: Random(FromSystem),
            stdout,
            stderr,
        }
    }

    /// What was written, by stream.
    pub(crate) fn output(&self) -> [(&'static str, Written); 2] {
        [
            ("stdout", self.stdout.written()),
            ("stderr", self.stderr.written()),
        ]
    }
}

impl Guest {
    fn wasi(&mut self) -> &mut Wasi {
        if self.wasi.is_none() {
            self.wasi = Some(Box::new(Wasi::new(self)));
        }
        self.wasi.as_mut().expect("made just now")
    }

    fn table(&mut self) -> &mut ResourceTable {
        &mut self.wasi().table
    }

    fn still(&mut self) -> Still<'_> {
        Still {
            now: self.now(),
            table: self.table(),
        }
    }

    fn random(&mut self) -> &mut Random<FromDecision> {
        &mut self.wasi().random
    }

    fn entropy(&mut self) -> &mut Random<FromSystem> {
        &mut self.reading("entropy").wasi().entropy
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}
