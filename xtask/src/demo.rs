//! `cargo xtask demo`: one call, recorded and transcribed by real containers, decided by the four
//! stock policies, with a registry that is away when the transcriber's image is wanted.

mod config;
mod daemon;
pub(crate) mod embedded;
mod media;
mod report;
mod sandbox;
mod sweep;
mod watch;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use site::{
    Call, CallOptions, CallReport, DEFAULT_TEXT, JobType, Plugin, PluginOptions, Site, SiteOptions,
    Speech,
};
use tokio::time::timeout;

use self::daemon::Daemon;
use self::report::Report;
use self::sweep::{Leftovers, Sweep};
use self::watch::{Job, Progress, Watcher};
use crate::engine::Engine;
use crate::host;
use crate::images::{RECORDER, TRANSCRIBER};
use crate::layout::{Layout, make_dir};
use crate::process::{output, tail};
use crate::registry::{Registry, free_port};
use crate::stage::{Built, Stage};

/// What the site believes to be called. Policies map it to where it really is.
const SITE_URL: &str = "https://mattermost.example.com";
const CALL_LENGTH: Duration = Duration::from_secs(15);
/// From asking for the transcription to the failure of its first attempt.
const FAILED_WITHIN: Duration = Duration::from_secs(60);
/// From the answers to the last file: the call, recognizing its speech, the uploads.
const CALL_OVER_WITHIN: Duration = Duration::from_secs(240);
/// From the last file to the end of the containers and the removal of what they left.
const TIDY_WITHIN: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Use no container engine: the daemon runs stand-ins for recorder and transcriber inside itself.
    /// This is what happens by itself where no engine can be had
    #[arg(long)]
    embedded: bool,
}

/// Prepares everything and holds the call.
pub(crate) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    if options.embedded {
        return embedded::run(layout).await;
    }
    let began = Instant::now();
    let engine = match Engine::find_or_start(layout).await {
        Ok(engine) => engine,
        // An engine that was named and does not answer is a mistake to be told.
        Err(error) if std::env::var_os("DOCKER_HOST").is_none() => {
            println!("No container engine can be had: {error:#}\n");
            return embedded::run(layout).await;
        }
        Err(error) => return Err(error),
    };
    host::ensure(layout, host::CALL).await?;
    let built = Built::build(layout).await?;
    let mut stage = Stage::prepare(layout, engine).await?;
    hold(layout, &built, &mut stage).await?;
    let engine = stage.engine.to_string();
    drop(stage);
    println!(
        "\nThe demo took {:.0} s, with {engine}.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The demo on a stage that is prepared already: its call, its checks, its report.
pub(crate) async fn hold(layout: &Layout, built: &Built, stage: &mut Stage) -> Result<()> {
    let progress = Progress::begin();
    let dir = fresh_dir(layout)?;
    // Dropped after the daemon: removes what that could not, because something failed.
    let sweep = Sweep::begin(&stage.engine).await?;

    let listen = SocketAddr::new(stage.engine.gateway().await?, 0);
    let speech = Speech::spoken(DEFAULT_TEXT).await?;
    let site = Site::start(SiteOptions::new(listen, dir.join("results")), speech).await?;
    progress.say("demo", format_args!("the site listens on {}", site.url()));

    let place = config::Place {
        policies: &built.policies,
        registry: &stage.registry.address(),
        site_url: &site.url(),
    };
    let config = config::render(layout, &dir, &place)?;
    let port = free_port(4545..4555)?;
    let daemon = Daemon::start(&built.daemon, &config, &dir, port, stage.engine.host()).await?;
    progress.say(
        "demo",
        format_args!("the daemon listens on {}", daemon.url()),
    );

    let log = daemon.log().to_owned();
    let played = play(stage, &site, daemon.url(), progress, &sweep).await;
    let ended = daemon.stop();
    site.stop().await;
    let played = played.and_then(|played| ended.map(|()| played));
    let Played {
        call,
        jobs,
        leftovers,
    } = played.with_context(|| {
        format!(
            "the demo failed; the end of {}:\n{}",
            log.display(),
            tail(&log, 25)
        )
    })?;

    let artifacts = media::examine(&call, &site.speech().words(), CALL_LENGTH).await?;
    let report = Report::new(jobs, &artifacts, leftovers);
    println!("\n{report}");
    println!("report: {}", report.write(&dir)?.display());
    report.check()
}

/// What came of the call.
struct Played {
    call: CallReport,
    jobs: Vec<Job>,
    leftovers: Leftovers,
}

/// The call itself, from the plugin's activation until the daemon has nothing left to do for it.
async fn play(
    stage: &mut Stage,
    site: &Site,
    daemon: &str,
    progress: Progress,
    sweep: &Sweep,
) -> Result<Played> {
    let _events = progress.follow_site(site);
    let plugin = activate(site, daemon).await?;

    let recorder = stage.registry.reference(RECORDER.name);
    forget(&stage.engine, &stage.registry.reference(TRANSCRIBER.name)).await?;
    stage.registry.stop();
    progress.say(
        "demo",
        "removed the transcriber's image from the engine and stopped the registry",
    );

    let watcher = Watcher::new(plugin.service(), progress);
    let options = CallOptions {
        transcribe: true,
        length: CALL_LENGTH,
        ..CallOptions::default()
    };
    let (call, failed) = tokio::join!(
        plugin.record(options),
        resume_after_failure(&watcher, &mut stage.registry, progress)
    );
    check_answers(&call)?;
    failed?;

    let over = async {
        let done = timeout(CALL_OVER_WITHIN, call.finished());
        let (report, sandboxed) =
            tokio::join!(done, sandbox::inspect(&stage.engine, &recorder, &progress));
        let report =
            report.with_context(|| format!("the call was not over in {CALL_OVER_WITHIN:?}"))?;
        ensure!(
            report.errors.is_empty(),
            "the call went wrong: {}",
            report.errors.join("; ")
        );
        sandboxed?;
        Ok(report)
    };
    let report = tokio::select! {
        report = over => report?,
        never = watcher.follow() => match never? {},
    };

    watcher
        .until("the end of both jobs", TIDY_WITHIN, watch::all_ended)
        .await?;
    let leftovers = tidied(&stage.engine, sweep).await?;
    // Asked again: what retention decided came with the tidying.
    let jobs = watcher.look().await?;
    Ok(Played {
        call: report,
        jobs,
        leftovers,
    })
}

/// The plugin of the site, which has found the daemon and had it fetch the images.
async fn activate(site: &Site, daemon: &str) -> Result<Plugin> {
    let options = PluginOptions {
        site_url: SITE_URL.to_owned(),
        ..PluginOptions::new(daemon)
    };
    let plugin = Plugin::new(site, options);
    plugin
        .activate()
        .await
        .context("the plugin could not use the job service")?;
    Ok(plugin)
}

/// Brings the registry back when the transcriber's first attempt has failed for want of it.
async fn resume_after_failure(
    watcher: &Watcher<'_>,
    registry: &mut Registry,
    progress: Progress,
) -> Result<()> {
    let failed = |jobs: &[Job]| watch::attempt_failed(jobs, JobType::Transcribing);
    let seen = watcher
        .until(
            "the failure of an attempt without registry",
            FAILED_WITHIN,
            failed,
        )
        .await;
    registry.resume().await?;
    progress.say("demo", "started the registry again");
    seen.map(drop)
}

/// Removes an image from the engine under all its names, so that it can only come from a registry.
async fn forget(engine: &Engine, reference: &str) -> Result<()> {
    let id = output(&mut engine.docker(["image", "inspect", "--format", "{{.Id}}", reference]))
        .await
        .context("init did not bring the transcriber's image into the engine")?;
    output(&mut engine.docker(["image", "rm", "--force", &id])).await?;
    let gone = output(&mut engine.docker(["image", "inspect", reference]))
        .await
        .is_err();
    ensure!(gone, "{reference} is still in the engine");
    Ok(())
}

fn check_answers(call: &Call) -> Result<()> {
    for job in [JobType::Recording, JobType::Transcribing] {
        let answer = call
            .answer(job)
            .with_context(|| format!("the {job} job was never asked for"))?;
        ensure!(
            answer.status == 200,
            "the {job} job was answered {}: {}",
            answer.status,
            answer.body
        );
    }
    Ok(())
}

/// Waits until nothing labelled is left, but not for ever: what is left then is for the report.
async fn tidied(engine: &Engine, sweep: &Sweep) -> Result<Leftovers> {
    let until = Instant::now() + TIDY_WITHIN;
    loop {
        let leftovers = sweep.leftovers(engine).await?;
        if leftovers == Leftovers::default() || Instant::now() > until {
            return Ok(leftovers);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// target/demo without what an earlier demo left in it.
fn fresh_dir(layout: &Layout) -> Result<PathBuf> {
    let dir = layout.target("demo");
    Daemon::end_leftover(&dir);
    if let Err(error) = fs::remove_dir_all(&dir)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", dir.display()));
    }
    make_dir(dir)
}
