//! The call's sound: 16 kHz, mono, signed 16 bit, as it comes.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::{Result, stop};

const RATE: u32 = 16_000;
/// Bytes of a tenth of a second.
const SLICE: usize = RATE as usize / 10 * 2;
/// Loudness from which there is something to hear, of 32,768.
const AUDIBLE: u32 = 300;

/// Sound that has not been heard yet.
pub(crate) struct Sound {
    response: minreq::ResponseLazy,
}

/// What there was to hear.
#[derive(Default)]
pub(crate) struct Heard {
    /// Whether there was sound, by tenths of a second.
    slices: Vec<bool>,
}

impl Sound {
    pub(crate) fn new(response: minreq::ResponseLazy) -> Self {
        Self { response }
    }

    /// Listens until the call ends or the job is asked to, and writes a WAV file of it.
    pub(crate) fn keep(mut self, file: Option<&Path>) -> Result<Heard> {
        let mut file = file.map(File::create).transpose()?;
        if let Some(file) = &mut file {
            file.write_all(&header(0))?;
        }
        let mut heard = Heard::default();
        let mut bytes = 0_u32;
        let mut slice = vec![0; SLICE];
        while !stop::asked() {
            let length = fill(&mut self.response, &mut slice)?;
            let slice = &slice[..length];
            if slice.is_empty() {
                break;
            }
            if let Some(file) = &mut file {
                file.write_all(slice)?;
            }
            bytes = bytes.saturating_add(u32::try_from(length)?);
            heard.slices.push(loudness(slice) > AUDIBLE);
        }
        if let Some(mut file) = file {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header(bytes))?;
        }
        Ok(heard)
    }
}

/// Reads until the slice is full or nothing comes any more.
fn fill(from: &mut impl Read, slice: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < slice.len() {
        match from.read(&mut slice[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// The mean of the samples without their signs.
fn loudness(slice: &[u8]) -> u32 {
    let samples = slice.chunks_exact(2);
    let count = samples.len().max(1) as u32;
    let sum: u32 = samples
        .map(|sample| u32::from(i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs()))
        .sum();
    sum / count
}

/// The header of a WAV file with so many bytes of sound.
fn header(bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&bytes.saturating_add(36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    // PCM, one channel.
    header.extend_from_slice(&[1, 0, 1, 0]);
    header.extend_from_slice(&RATE.to_le_bytes());
    header.extend_from_slice(&(RATE * 2).to_le_bytes());
    // Bytes of a sample, and its bits.
    header.extend_from_slice(&[2, 0, 16, 0]);
    header.extend_from_slice(b"data");
    header.extend_from_slice(&bytes.to_le_bytes());
    header
}

impl Heard {
    pub(crate) fn seconds(&self) -> f64 {
        self.slices.len() as f64 / 10.0
    }

    /// From when to when there was sound, in tenths of a second; gaps of under a second are none.
    fn stretches(&self) -> Vec<(usize, usize)> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (at, _) in self.slices.iter().enumerate().filter(|(_, sound)| **sound) {
            match stretches.last_mut() {
                Some((_, end)) if at < *end + 10 => *end = at + 1,
                _ => stretches.push((at, at + 1)),
            }
        }
        stretches
    }

    pub(crate) fn webvtt(&self) -> String {
        let mut text = "WEBVTT\n".to_owned();
        for (from, to) in self.stretches() {
            text += &format!("\n{} --> {}\n[sound]\n", time(from), time(to));
        }
        text
    }

    pub(crate) fn plain_text(&self) -> String {
        let mut text = String::new();
        for (from, to) in self.stretches() {
            text += &format!("{} to {}: sound\n", time(from), time(to));
        }
        text
    }
}

fn time(tenths: usize) -> String {
    let seconds = tenths / 10;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{}00",
        seconds % 60,
        tenths % 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_of_sound_become_cues() {
        let mut slices = vec![false; 100];
        slices[10..30].fill(true);
        slices[35..40].fill(true);
        slices[90] = true;
        let heard = Heard { slices };
        assert_eq!(heard.stretches(), [(10, 40), (90, 91)]);
        assert!(
            heard
                .webvtt()
                .starts_with("WEBVTT\n\n00:00:01.000 --> 00:00:04.000\n[sound]\n\n00:00:09.000")
        );
    }

    #[test]
    fn silence_is_not_audible_and_a_tone_is() {
        assert!(loudness(&[0; SLICE]) < AUDIBLE);
        assert!(loudness(&[0, 16].repeat(SLICE / 2)) > AUDIBLE);
        assert!(loudness(&[]) < AUDIBLE);
    }

    #[test]
    fn the_header_of_a_file_has_its_length_twice() {
        let header = header(3200);
        assert_eq!(header.len(), 44);
        assert_eq!(header[4..8], 3236_u32.to_le_bytes());
        assert_eq!(header[40..], 3200_u32.to_le_bytes());
    }
}
