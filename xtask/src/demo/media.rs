//! What arrived at the site, looked at: is it a recording of a moving picture with sound, and a
//! transcript of what was spoken?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use site::{CallReport, words_heard};

use super::report::Artifact;
use crate::process::{command, outputs};

/// What a transcript must hold of what was spoken.
const WORDS_HEARD_AT_LEAST: f64 = 0.8;
/// How much of a recording may show no movement: the moments before the page and after the call.
const FROZEN_AT_MOST: f64 = 0.25;
/// Speech is around -20 dB; an unplugged sound card is -91 dB.
const MEAN_VOLUME_AT_LEAST_DB: f64 = -45.0;
const MAX_VOLUME_AT_LEAST_DB: f64 = -20.0;

/// Checks what came of the call. `call_length` is the time that people talked.
pub(super) async fn examine(
    call: &CallReport,
    spoken: &[String],
    call_length: Duration,
) -> Result<Vec<Artifact>> {
    let recording = call
        .recording
        .as_ref()
        .context("no recording was attached to the call")?;
    let captions = call
        .captions
        .as_ref()
        .context("no captions were attached to the call")?;

    let seconds = check_recording(&recording.path, call_length)
        .await
        .with_context(|| format!("the recording {}", recording.path.display()))?;
    let vtt = std::fs::read_to_string(&captions.path)
        .with_context(|| format!("reading {}", captions.path.display()))?;
    let heard = words_heard(spoken, &vtt);
    ensure!(
        heard >= WORDS_HEARD_AT_LEAST,
        "the transcript has {:.0} % of the spoken words, expected {:.0} %: {vtt}",
        heard * 100.0,
        WORDS_HEARD_AT_LEAST * 100.0
    );
    println!(
        "\nrecording   {seconds:.1} s with moving picture and sound\ntranscript  {:.0} % of the {} spoken words",
        heard * 100.0,
        spoken.len()
    );
    let captions_end = end_of_cues(&vtt).context("the captions have no cues")?;
    Ok(vec![
        Artifact::of(recording, seconds, None),
        Artifact::of(captions, captions_end, Some(cue_text(&vtt))),
    ])
}

/// Checks streams, length, sound and movement; returns the length in seconds.
async fn check_recording(path: &Path, call_length: Duration) -> Result<f64> {
    let mut probe = command("ffprobe");
    probe
        .args([
            "-v",
            "error",
            "-show_streams",
            "-show_format",
            "-of",
            "json",
        ])
        .arg(path);
    let (probed, _) = outputs(&mut probe).await?;
    let probed: Value = serde_json::from_str(&probed).context("ffprobe's answer")?;
    for kind in ["video", "audio"] {
        let streams = probed["streams"].as_array().into_iter().flatten();
        ensure!(
            streams
                .filter(|stream| stream["codec_type"] == kind)
                .count()
                == 1,
            "not one {kind} stream: {probed}"
        );
    }
    let duration = probed["format"]["duration"]
        .as_str()
        .and_then(|text| text.parse().ok());
    let seconds: f64 = duration.context("ffprobe names no duration")?;
    ensure!(
        seconds >= call_length.as_secs_f64(),
        "it is {seconds:.1} s long, shorter than the call of {call_length:?}"
    );

    let mut analyse = command("ffmpeg");
    analyse
        .args(["-hide_banner", "-nostdin", "-nostats", "-i"])
        .arg(path)
        .args([
            "-vf",
            "freezedetect=noise=-60dB:duration=1",
            "-af",
            "volumedetect",
            "-f",
            "null",
            "-",
        ]);
    let (_, said) = outputs(&mut analyse).await?;
    let mean = decibels(&said, "mean_volume:").context("ffmpeg names no mean volume")?;
    let max = decibels(&said, "max_volume:").context("ffmpeg names no greatest volume")?;
    ensure!(
        mean >= MEAN_VOLUME_AT_LEAST_DB && max >= MAX_VOLUME_AT_LEAST_DB,
        "it is silent: {mean} dB on average, {max} dB at most"
    );
    let frozen = frozen_seconds(&said, seconds);
    ensure!(
        frozen <= FROZEN_AT_MOST * seconds,
        "the picture stands still for {frozen:.1} of {seconds:.1} s"
    );
    Ok(seconds)
}

/// The number after `name` in what ffmpeg said.
fn decibels(said: &str, name: &str) -> Option<f64> {
    said.lines().find_map(|line| numbers_after(line, name))
}

fn numbers_after(line: &str, name: &str) -> Option<f64> {
    line.split_once(name)?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// How long the picture stood still, by freezedetect's report. A freeze up to the end of the file has
/// no end in it.
fn frozen_seconds(said: &str, length: f64) -> f64 {
    let mut frozen = 0.0;
    let mut since = None;
    for line in said.lines() {
        if let Some(start) = numbers_after(line, "freeze_start:") {
            since = Some(start);
        } else if let (Some(end), Some(start)) = (numbers_after(line, "freeze_end:"), since) {
            frozen += end - start;
            since = None;
        }
    }
    frozen + since.map_or(0.0, |start| length - start)
}

/// When the last cue of a WebVTT text ends, in seconds.
fn end_of_cues(vtt: &str) -> Option<f64> {
    let last = vtt
        .lines()
        .filter_map(|line| line.split_once("-->"))
        .next_back()?;
    // HH:MM:SS.mmm or MM:SS.mmm, perhaps with cue settings after it.
    let time = last.1.split_whitespace().next()?;
    time.split(':').try_fold(0.0, |sum, part| {
        Some(sum * 60.0 + part.parse::<f64>().ok()?)
    })
}

/// What the cues of a WebVTT text say, in one line.
fn cue_text(vtt: &str) -> String {
    let mut words = Vec::new();
    for block in vtt.split("\n\n") {
        words.extend(
            block
                .lines()
                .skip_while(|line| !line.contains("-->"))
                .skip(1),
        );
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VTT: &str = "WEBVTT\n\n1\n00:00:01.000 --> 00:00:03.500\nthe meeting\nwill begin\n\n\
                       2\n00:01:02.250 --> 00:01:04.750 align:start\nat ten\n";

    #[test]
    fn a_transcript_is_read_to_its_end() {
        assert_eq!(end_of_cues(VTT), Some(64.75));
        assert_eq!(cue_text(VTT), "the meeting will begin at ten");
        assert_eq!(end_of_cues("WEBVTT\n"), None);
    }

    #[test]
    fn a_freeze_counts_to_its_end_or_to_the_end_of_the_file() {
        let said = "[x] lavfi.freezedetect.freeze_start: 1.5\n[x] lavfi.freezedetect.freeze_duration: 2\n\
                    [x] lavfi.freezedetect.freeze_end: 3.5\n[x] lavfi.freezedetect.freeze_start: 8\n";
        assert_eq!(frozen_seconds(said, 10.0), 4.0);
        assert_eq!(frozen_seconds("", 10.0), 0.0);
    }

    #[test]
    fn volumes_are_read() {
        let said = "[v] mean_volume: -23.4 dB\n[v] max_volume: -5.0 dB\n";
        assert_eq!(decibels(said, "mean_volume:"), Some(-23.4));
        assert_eq!(decibels(said, "max_volume:"), Some(-5.0));
    }

    async fn made(dir: &Path, video: &str, audio: &str) -> std::path::PathBuf {
        let path = dir.join("made.mp4");
        let mut ffmpeg = command("ffmpeg");
        ffmpeg.args([
            "-v", "error", "-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio,
        ]);
        outputs(ffmpeg.args(["-t", "3"]).arg(&path)).await.unwrap();
        path
    }

    const MOVING: &str = "testsrc2=size=320x180:rate=10";
    const SOUND: &str = "sine=frequency=440,volume=10dB";

    #[tokio::test]
    async fn moving_and_sounding_passes_and_nothing_less() {
        if crate::host::find("ffmpeg").is_none() {
            assert!(std::env::var_os("CI").is_none(), "ffmpeg is missing");
            eprintln!("SKIPPED (no ffmpeg): moving_and_sounding_passes_and_nothing_less");
            return;
        }
        let cases = [
            (MOVING, SOUND, Ok(())),
            (
                "color=black:size=320x180:rate=10",
                SOUND,
                Err("stands still"),
            ),
            (MOVING, "anullsrc", Err("silent")),
        ];
        for (video, audio, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = made(dir.path(), video, audio).await;
            let checked = check_recording(&path, Duration::from_secs(3)).await;
            match (expected, checked) {
                (Ok(()), Ok(seconds)) => assert!((2.9..3.2).contains(&seconds), "{seconds}"),
                (Err(why), Err(error)) => assert!(error.to_string().contains(why), "{error}"),
                (expected, checked) => panic!("{video} with {audio}: {expected:?}, {checked:?}"),
            }
        }
    }
}
