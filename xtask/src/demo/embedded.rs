//! The demo where no container engine can be had: the same call, the same policies and the same
//! daemon, which runs stand-ins for recorder and transcriber inside itself.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use site::{Call, CallOptions, CallReport, JobType, Site, SiteOptions, Speech};
use tokio::time::timeout;

use super::config::{self, Place};
use super::daemon::Daemon;
use super::report::{Artifact, Report};
use super::sweep::Leftovers;
use super::watch::{self, Job, Progress, Watcher};
use super::{CALL_LENGTH, CALL_OVER_WITHIN, FAILED_WITHIN, TIDY_WITHIN};
use crate::guests;
use crate::images::{RECORDER, TRANSCRIBER};
use crate::layout::{Layout, make_dir};
use crate::registry::free_port;
use crate::stage::Built;

/// What the example calls the registry; here it is a name that components are listed under.
const REGISTRY: &str = "localhost:5000";
/// Seconds of sound that have to arrive at least of a call of [`CALL_LENGTH`].
const SOUND_AT_LEAST_SECONDS: f64 = 8.0;

/// Builds what it needs and holds the call.
pub(crate) async fn run(layout: &Layout) -> Result<()> {
    let began = Instant::now();
    println!(
        "The jobs run inside the daemon: stand-ins that keep the call's sound without its picture, and \
         tell when there was sound without knowing the words."
    );
    let built = Built::build(layout).await?;
    hold(layout, &built).await?;
    println!(
        "\nThe demo took {:.0} s, without a container engine.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The call, its checks, its report.
pub(crate) async fn hold(layout: &Layout, built: &Built) -> Result<()> {
    let stand_in = guests::build_stand_in(layout).await?;
    let progress = Progress::begin();
    let dir = super::fresh_dir(layout)?;
    let components = Components::make(&dir, &stand_in)?;
    let site = Site::start(
        SiteOptions::new(
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            dir.join("results"),
        ),
        Speech::tone(CALL_LENGTH),
    )
    .await?;
    progress.say("demo", format_args!("the site listens on {}", site.url()));
    let place = Place {
        policies: &built.policies,
        registry: REGISTRY,
        site_url: &site.url(),
    };
    let config = config::render(layout, &dir, &place)?;
    components.add_to(&config)?;
    let port = free_port(4545..4555)?;
    // Not asked for by this configuration, so that it need not be there.
    let no_engine = "unix:///nowhere.sock";
    let daemon = Daemon::start(&built.daemon, &config, &dir, port, no_engine).await?;
    progress.say(
        "demo",
        format_args!("the daemon listens on {}", daemon.url()),
    );

    let played = play(&components, &site, daemon.url(), progress, &dir).await;
    let log = daemon.log().to_owned();
    let ended = daemon.stop();
    site.stop().await;
    let (call, jobs, leftovers) = played
        .and_then(|played| ended.map(|()| played))
        .with_context(|| format!("the demo failed; its log is {}", log.display()))?;
    let report = Report::new(jobs, &artifacts(&call)?, leftovers);
    println!("\n{report}");
    println!("report: {}", report.write(&dir)?.display());
    report.check()
}

async fn play(
    components: &Components,
    site: &Site,
    daemon: &str,
    progress: Progress,
    dir: &Path,
) -> Result<(CallReport, Vec<Job>, Leftovers)> {
    let _events = progress.follow_site(site);
    let plugin = super::activate(site, daemon).await?;
    components.take_away(TRANSCRIBER.name)?;
    progress.say("demo", "took the transcriber's component away");

    let watcher = Watcher::new(plugin.service(), progress);
    let options = CallOptions {
        transcribe: true,
        length: CALL_LENGTH,
        ..CallOptions::default()
    };
    let bring_back = async {
        let failed = |jobs: &[Job]| watch::attempt_failed(jobs, JobType::Transcribing);
        let what = "the failure of an attempt without its component";
        let seen = watcher.until(what, FAILED_WITHIN, failed).await;
        components.bring_back(TRANSCRIBER.name)?;
        progress.say("demo", "brought it back");
        seen.map(drop)
    };
    let (call, failed): (Call, Result<()>) = tokio::join!(plugin.record(options), bring_back);
    super::check_answers(&call)?;
    failed?;
    let over = async {
        let report = timeout(CALL_OVER_WITHIN, call.finished()).await;
        report.with_context(|| format!("the call was not over in {CALL_OVER_WITHIN:?}"))
    };
    let report = tokio::select! {
        report = over => report?,
        never = watcher.follow() => match never? {},
    };
    ensure!(
        report.errors.is_empty(),
        "the call went wrong: {}",
        report.errors.join("; ")
    );
    watcher
        .until("the end of both jobs", TIDY_WITHIN, watch::all_ended)
        .await?;
    let leftovers = tidied(dir).await?;
    let jobs = watcher.look().await?;
    Ok((report, jobs, leftovers))
}

/// Waits until nothing of a job is on disk, but not for ever.
async fn tidied(dir: &Path) -> Result<Leftovers> {
    let jobs = dir.join("state/offloader-jobs");
    let until = Instant::now() + TIDY_WITHIN;
    loop {
        let volumes = fs::read_dir(&jobs)
            .with_context(|| format!("reading {}", jobs.display()))?
            .count();
        if volumes == 0 || Instant::now() > until {
            return Ok(Leftovers {
                containers: 0,
                volumes,
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// What arrived at the site: sound of about the call's length, and when there was some.
fn artifacts(call: &CallReport) -> Result<Vec<Artifact>> {
    const HEADER: u64 = 44;
    const BYTES_A_SECOND: f64 = 32_000.0;
    let recorded = |artifact: &&site::Artifact| artifact.job == JobType::Recording;
    let recording = call
        .artifacts
        .iter()
        .rfind(recorded)
        .context("no recording was attached to the call")?;
    let seconds = recording.bytes.saturating_sub(HEADER) as f64 / BYTES_A_SECOND;
    ensure!(
        seconds >= SOUND_AT_LEAST_SECONDS,
        "{seconds:.1} s of sound arrived, expected {SOUND_AT_LEAST_SECONDS} s"
    );
    let captions = call
        .captions
        .as_ref()
        .context("no captions were attached to the call")?;
    let text = fs::read_to_string(&captions.path)
        .with_context(|| format!("reading {}", captions.path.display()))?;
    ensure!(text.contains("[sound]"), "no sound was heard: {text}");
    println!("\nrecording   {seconds:.1} s of sound");
    Ok(vec![
        Artifact::of(recording, seconds, None),
        Artifact::of(captions, seconds, Some(text)),
    ])
}

/// The components that stand for the images, as files.
struct Components {
    dir: PathBuf,
}

impl Components {
    fn make(dir: &Path, stand_in: &Path) -> Result<Self> {
        let dir = make_dir(dir.join("components"))?;
        for image in [RECORDER.name, TRANSCRIBER.name] {
            fs::copy(stand_in, dir.join(file(image)))
                .with_context(|| format!("copying {}", stand_in.display()))?;
        }
        Ok(Self { dir })
    }

    /// Has the daemon run them in place of containers.
    fn add_to(&self, config: &Path) -> Result<()> {
        let mut text = fs::read_to_string(config)?;
        text = text.replace("api_type = \"docker\"", "api_type = \"wasi\"");
        text += &format!(
            "\n[jobs.wasi]\ncomponents = {:?}\n\n[jobs.wasi.images]\n",
            self.dir
        );
        for image in [RECORDER.name, TRANSCRIBER.name] {
            text += &format!("\"{REGISTRY}/{image}\" = \"{}\"\n", file(image));
        }
        fs::write(config, text).with_context(|| format!("writing {}", config.display()))
    }

    fn take_away(&self, image: &str) -> Result<()> {
        let path = self.dir.join(file(image));
        fs::rename(&path, path.with_extension("away")).context("taking a component away")
    }

    fn bring_back(&self, image: &str) -> Result<()> {
        let path = self.dir.join(file(image));
        fs::rename(path.with_extension("away"), &path).context("bringing a component back")
    }
}

/// The file of an image's component: its name without registry and version.
fn file(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    format!("{}.wasm", name.split(':').next().unwrap_or(name))
}
