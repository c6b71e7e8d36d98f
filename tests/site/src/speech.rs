//! The words spoken in the call, as sound.

use std::{f32::consts::TAU, io, process::Stdio, sync::Arc, time::Duration};

use tokio::process::Command;

use crate::words;

/// Samples a second of all sound here: what speech engines want.
pub(crate) const SAMPLE_RATE: u32 = 16_000;

/// What is said in a call unless another text is given: about twelve seconds, sentences that
/// speech engines of every kind understand.
pub const DEFAULT_TEXT: &str = "The meeting will begin at ten o'clock in the large conference room \
    on the second floor. Please bring the report from last week and a cup of coffee. After lunch we \
    will look at the new plan for the summer.";

/// A spoken text: 16 kHz, mono, signed 16 bit. Cheap to clone.
#[derive(Clone)]
pub struct Speech {
    text: Arc<str>,
    samples: Arc<[i16]>,
}

/// Why there is no speech.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The speech synthesizer could not be run.
    #[error("flite cannot be run (on Debian: apt-get install flite)")]
    Run(#[source] io::Error),
    /// The speech synthesizer ran and failed.
    #[error("flite failed: {0}")]
    Synthesis(String),
    /// The speech synthesizer answered something else than 16 kHz mono WAV.
    #[error("flite's answer is no WAV of 16 kHz, mono, 16 bit: {0}")]
    Format(&'static str),
}

impl Speech {
    /// Speaks `text` with the voice `rms` of flite, a program in Debian's package of that name.
    pub async fn spoken(text: &str) -> Result<Self, SpeechError> {
        let output = Command::new("flite")
            .args(["-voice", "rms", "-t", text, "-o", "/dev/stdout"])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(SpeechError::Run)?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(SpeechError::Synthesis(complaint));
        }
        Ok(Self {
            text: text.into(),
            samples: samples_of(&output.stdout)?.into(),
        })
    }

    /// A beep without words in place of speech, for tests that need sound but nobody to hear it.
    pub fn tone(duration: Duration) -> Self {
        let count = (duration.as_secs_f32() * SAMPLE_RATE as f32) as u32;
        let sample =
            |n: u32| ((n as f32 / SAMPLE_RATE as f32 * 440.0 * TAU).sin() * 12_000.0) as i16;
        Self {
            text: "".into(),
            samples: (0..count).map(sample).collect(),
        }
    }

    /// What is said.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words said, as [`crate::words()`] counts them.
    pub fn words(&self) -> Vec<String> {
        words::words(&self.text)
    }

    /// The share of the words said that the cues of a WebVTT text hold, in order: 0 to 1.
    pub fn words_heard(&self, vtt: &str) -> f64 {
        words::words_heard(&self.words(), vtt)
    }

    /// How long the speaking takes.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(SAMPLE_RATE))
    }

    /// The sample at an offset from the first word; silence before and after.
    pub(crate) fn sample(&self, offset: i64) -> i16 {
        usize::try_from(offset)
            .ok()
            .and_then(|at| self.samples.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// The speech as a WAV file.
    pub(crate) fn wav(&self) -> Vec<u8> {
        let data_len = self.samples.len() as u32 * 2;
        let mut wav = Vec::with_capacity(44 + data_len as usize);
        wav.extend(b"RIFF");
        wav.extend((36 + data_len).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16u32.to_le_bytes());
        wav.extend(1u16.to_le_bytes()); // PCM
        wav.extend(1u16.to_le_bytes()); // mono
        wav.extend(SAMPLE_RATE.to_le_bytes());
        wav.extend((SAMPLE_RATE * 2).to_le_bytes());
        wav.extend(2u16.to_le_bytes());
        wav.extend(16u16.to_le_bytes());
        wav.extend(b"data");
        wav.extend(data_len.to_le_bytes());
        wav.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        wav
    }
}

/// The samples of a WAV file, which must be of the one format used here.
fn samples_of(wav: &[u8]) -> Result<Vec<i16>, SpeechError> {
    let Some(mut rest) = wav
        .strip_prefix(b"RIFF")
        .and_then(|rest| rest.get(4..)?.strip_prefix(b"WAVE"))
    else {
        return Err(SpeechError::Format("no RIFF header"));
    };
    let mut of_our_format = false;
    while let [a, b, c, d, l0, l1, l2, l3, body @ ..] = rest {
        let declared = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let body_len = declared.min(body.len());
        let (body, after) = body.split_at(body_len);
        match [*a, *b, *c, *d] {
            [b'f', b'm', b't', b' '] => {
                let expected = [
                    &1u16.to_le_bytes()[..],
                    &1u16.to_le_bytes(),
                    &SAMPLE_RATE.to_le_bytes(),
                ]
                .concat();
                of_our_format =
                    body.starts_with(&expected) && body.get(14..16) == Some(&16u16.to_le_bytes());
            }
            [b'd', b'a', b't', b'a'] if of_our_format => {
                return Ok(body
                    .chunks_exact(2)
                    .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
                    .collect());
            }
            [b'd', b'a', b't', b'a'] => return Err(SpeechError::Format("another format")),
            _ => {}
        }
        rest = after.get(declared % 2..).unwrap_or_default();
    }
    Err(SpeechError::Format("no data"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DEFAULT_TEXT, Speech, samples_of};

    #[tokio::test]
    async fn the_default_text_takes_most_of_a_short_call() {
        let speech = Speech::spoken(DEFAULT_TEXT).await.expect("flite is there");
        assert!(
            (10.0..14.0).contains(&speech.duration().as_secs_f64()),
            "{:?}",
            speech.duration()
        );
        assert!(
            speech
                .samples
                .iter()
                .any(|sample| sample.unsigned_abs() > 5_000),
            "it is heard"
        );
        assert_eq!(speech.words().len(), 40);
    }

    #[test]
    fn what_is_written_as_wav_reads_back() {
        let tone = Speech::tone(Duration::from_millis(250));
        let samples = samples_of(&tone.wav()).expect("our own WAV");
        assert_eq!(samples.len(), 4000);
        assert_eq!(samples[..], tone.samples[..]);
        assert!(samples.iter().any(|&sample| sample > 10_000));
    }

    #[test]
    fn other_formats_are_refused() {
        let mut wav = Speech::tone(Duration::from_millis(10)).wav();
        wav[22] = 2; // stereo
        assert!(samples_of(&wav).is_err());
        assert!(samples_of(b"ID3").is_err());
        assert!(samples_of(b"RIFF\0\0\0\0WAVE").is_err());
    }

    #[test]
    fn around_the_speech_is_silence() {
        let tone = Speech::tone(Duration::from_millis(10));
        assert_eq!(tone.sample(-1), 0);
        assert_ne!(tone.sample(3), 0);
        assert_eq!(tone.sample(160), 0);
    }
}
