//! Runs the test site by hand: one recorded call against a job service, or a call to play with.
#![allow(
    clippy::disallowed_methods,
    reason = "a test program outside the daemon: it reads the transcript it was sent"
)]

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use offloader_test_site::{
    Call, CallOptions, DEFAULT_TEXT, JobType, Plugin, PluginOptions, Site, SiteOptions, Speech,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// A stand-in for a Mattermost server with the Calls plugin.
///
/// Activates against a job service, holds one call that is recorded and transcribed, tells what
/// happens, and prints a report as JSON. Needs flite for the spoken words.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit status: 0 when recording and captions arrived and 80 % of the spoken \
    words are in the captions; 1 when not; 2 when the command line is wrong."
)]
struct Options {
    /// Where the site listens; the job containers must be able to reach it
    #[arg(long, default_value = "127.0.0.1:8065")]
    listen: SocketAddr,
    /// The job service
    #[arg(long, default_value = "http://127.0.0.1:4545", value_name = "URL")]
    job_service: String,
    /// The site's URL as the jobs are told it [default: http:// and the address listened on]
    #[arg(long, value_name = "URL")]
    site_url: Option<String>,
    /// The registry of the images asked for
    #[arg(long, default_value = "mattermost")]
    registry: String,
    /// The recorder's image: name and tag
    #[arg(long, default_value = "calls-recorder:v0.8.13", value_name = "IMAGE")]
    recorder: String,
    /// The transcriber's image: name and tag
    #[arg(long, default_value = "calls-transcriber:v0.7.2", value_name = "IMAGE")]
    transcriber: String,
    /// Record only
    #[arg(long)]
    no_transcription: bool,
    /// How long people stay, from the first spoken word
    #[arg(long, default_value_t = 15, value_name = "N")]
    call_seconds: u64,
    /// How long a bot may take to join, from the answer to POST /jobs
    #[arg(long, default_value_t = 60, value_name = "N")]
    join_seconds: u64,
    /// How long results are awaited after the call
    #[arg(long, default_value_t = 600, value_name = "N")]
    result_seconds: u64,
    /// What is said
    #[arg(long, default_value = DEFAULT_TEXT, hide_default_value = true)]
    text: String,
    /// Refuse the first N requests to upload with 503
    #[arg(long, default_value_t = 0, value_name = "N")]
    refuse_uploads: usize,
    /// Client id at the job service [default: a random one]
    #[arg(long, env = "OFFLOADER_CLIENT_ID", requires = "auth_key")]
    client_id: Option<String>,
    /// Key at the job service, 32 characters or more [default: a random one]
    #[arg(
        long,
        env = "OFFLOADER_AUTH_KEY",
        hide_env_values = true,
        requires = "client_id"
    )]
    auth_key: Option<String>,
    /// Folder for what the bots deliver
    #[arg(long, default_value = "site-results", value_name = "DIR")]
    out: PathBuf,
    /// Ask nothing of a job service: open a call, print both job requests (with the call's token)
    /// for use by hand, and serve until interrupted
    #[arg(long)]
    serve: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let speech = Speech::spoken(&options.text).await?;
    let mut site_options = SiteOptions::new(options.listen, &options.out);
    site_options.join_timeout = Duration::from_secs(options.join_seconds);
    site_options.result_timeout = Duration::from_secs(options.result_seconds);
    let site = Site::start(site_options, speech).await?;
    site.refuse_next_uploads(options.refuse_uploads);
    eprintln!(
        "serving on {}, {:.1} s of speech",
        site.url(),
        site.speech().duration().as_secs_f64()
    );
    tokio::spawn(tell(site.subscribe()));

    let plugin = Plugin::new(&site, plugin_options(&options, &site));
    let call_options = CallOptions {
        transcribe: !options.no_transcription,
        length: Duration::from_secs(options.call_seconds),
        ..CallOptions::default()
    };
    let good = if options.serve {
        print_requests(&plugin, &plugin.open_call(call_options))?;
        tokio::signal::ctrl_c().await?;
        true
    } else {
        plugin.activate().await?;
        let call = plugin.record(call_options).await;
        judge(&site, &call).await?
    };
    site.stop().await;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn plugin_options(options: &Options, site: &Site) -> PluginOptions {
    let mut plugin = PluginOptions::new(&options.job_service);
    plugin.site_url = options.site_url.clone().unwrap_or_else(|| site.url());
    plugin.registry.clone_from(&options.registry);
    plugin.recorder.clone_from(&options.recorder);
    plugin.transcriber.clone_from(&options.transcriber);
    plugin.transcriptions = !options.no_transcription;
    if let (Some(client_id), Some(auth_key)) = (&options.client_id, &options.auth_key) {
        plugin.client_id.clone_from(client_id);
        plugin.auth_key.clone_from(auth_key);
    }
    plugin
}

/// Tells what happens, a line each, until the site is gone.
async fn tell(mut events: Receiver<offloader_test_site::Event>) {
    loop {
        match events.recv().await {
            Ok(event) => eprintln!("{event}"),
            Err(RecvError::Lagged(count)) => eprintln!("({count} events not shown)"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn print_requests(plugin: &Plugin, call: &Call) -> anyhow::Result<()> {
    for job in [JobType::Recording, JobType::Transcribing] {
        if call.bot_id(job).is_some() {
            println!("{}", serde_json::to_string(&plugin.job_request(call, job))?);
        }
    }
    Ok(())
}

/// Waits for the call's results and says whether they are what they should be.
async fn judge(site: &Site, call: &Call) -> anyhow::Result<bool> {
    let report = call.finished().await;
    println!("{}", serde_json::to_string_pretty(&report)?);
    let mut good = report.errors.is_empty() && report.recording.is_some();
    if let Some(captions) = &report.captions {
        let vtt = fs::read_to_string(&captions.path)
            .with_context(|| format!("cannot read {}", captions.path.display()))?;
        let heard = site.speech().words_heard(&vtt);
        eprintln!(
            "{:.0} % of the spoken words are in the captions",
            heard * 100.0
        );
        good &= heard >= 0.8;
    } else if call.options().transcribe {
        good = false;
    }
    Ok(good)
}
