//! A small stand-in for recorder and transcriber, for machines without a container engine.
//!
//! It speaks to the site as they do and does honest, lesser work: a recording is the call's sound
//! without its picture, a transcription tells when there was sound without knowing the words. It
//! takes the variables of the real programs; asked to end, its standard input ends.
//!
//! Exit code 0: delivered. 1: failed; what it has is still on `/data`.
#![expect(
    clippy::disallowed_methods,
    reason = "what a guest can reach is what its sandbox gives it"
)]

mod site;
mod sound;
mod stop;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, error, fs, process, thread};

use serde_json::json;

use site::Site;
use sound::Sound;

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

/// Between two tries of something that the site does not have yet.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is tried.
const TRIES: u32 = 150;

fn main() {
    let done = Job::from_environment().and_then(|job| match job.kind {
        Kind::Recording => job.record(),
        Kind::Transcribing => job.transcribe(),
    });
    if let Err(error) = done {
        println!("failed: {error}");
        process::exit(1);
    }
    println!("delivered");
}

enum Kind {
    Recording,
    Transcribing,
}

struct Job {
    kind: Kind,
    id: String,
    call: String,
    site: Site,
    folder: PathBuf,
}

impl Job {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| env::var(name).map_err(|_| format!("{name} is missing"));
        let (kind, id) = match variable("RECORDING_ID") {
            Ok(id) => (Kind::Recording, id),
            Err(_) => (Kind::Transcribing, variable("TRANSCRIPTION_ID")?),
        };
        let folder = PathBuf::from("/data").join(&id);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            kind,
            id,
            call: variable("CALL_ID")?,
            site: Site::new(&variable("SITE_URL")?, &variable("AUTH_TOKEN")?),
            folder,
        })
    }

    fn record(&self) -> Result<()> {
        let sound = self.join()?;
        self.started("recording")?;
        let file = self.folder.join(format!("{}.wav", self.id));
        let kept = sound.keep(Some(&file))?;
        println!("kept {:.1} s of sound", kept.seconds());
        let name = format!("{}.wav", self.title()?);
        let id = self.site.upload(&self.call, &name, &fs::read(&file)?)?;
        let body = json!({ "job_id": self.id, "file_ids": [id] });
        self.site
            .post(&format!("bot/calls/{}/recordings", self.call), &body)?;
        Ok(fs::remove_file(&file)?)
    }

    fn transcribe(&self) -> Result<()> {
        let sound = self.join()?;
        let started = format!("bot/calls/{}/recording-started", self.call);
        self.patiently("the recording", || self.site.get(&started))?;
        self.started("transcribing")?;
        let heard = sound.keep(None)?;
        let title = self.title()?;
        let mut ids = Vec::new();
        for (ending, text) in [("vtt", heard.webvtt()), ("txt", heard.plain_text())] {
            let file = self.folder.join(format!("{}.{ending}", self.id));
            fs::write(&file, &text)?;
            let name = format!("{title}.{ending}");
            ids.push(self.site.upload(&self.call, &name, text.as_bytes())?);
        }
        let body = json!({
            "job_id": self.id,
            "transcriptions": [{ "title": title, "language": "en", "file_ids": ids }],
        });
        self.site
            .post(&format!("bot/calls/{}/transcriptions", self.call), &body)?;
        Ok(())
    }

    fn join(&self) -> Result<Sound> {
        let path = format!("bot/calls/{}/audio", self.call);
        let response = self.patiently("the call's sound", || self.site.open(&path))?;
        println!("joined the call");
        Ok(Sound::new(response))
    }

    fn started(&self, kind: &str) -> Result<()> {
        let path = format!("bot/calls/{}/jobs/{}/status", self.call, self.id);
        let body = json!({ "JobType": kind, "Status": "started", "Error": "" });
        self.site.post(&path, &body).map(drop)
    }

    fn title(&self) -> Result<String> {
        let answer = self
            .site
            .get(&format!("bot/calls/{}/filename", self.call))?;
        let name = answer["filename"].as_str().unwrap_or_default();
        Ok(name.replace('/', "_"))
    }

    fn patiently<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut last = None;
        for _ in 0..TRIES {
            if stop::asked() {
                return Err(format!("asked to end while waiting for {what}").into());
            }
            match attempt() {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
            thread::sleep(PAUSE);
        }
        Err(last.unwrap_or_else(|| format!("no {what}").into()))
    }
}
