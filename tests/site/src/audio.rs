//! The call's live sound: in place of WebRTC, one endless answer of raw samples in real time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;

use crate::{
    call::Call,
    events::{EventLog, Happening},
    report::JobType,
    rules::CallState,
    server::{Denied, Shared},
    speech::{SAMPLE_RATE, Speech},
};

/// Sound travels in slices of so many samples, a tenth of a second.
const SLICE: u32 = SAMPLE_RATE / 10;

/// Answers with the call's sound from now on: 16 kHz, mono, signed 16 bit, little-endian. It ends
/// when the call does, or when the transcriber is asked to stop.
pub(crate) async fn listen(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    call.update(|state, _| state.audio_joined())?;
    let sound = LiveSound {
        call,
        speech: shared.speech.clone(),
        log: shared.log.clone(),
        since: Instant::now(),
        slices: 0,
        complete: false,
    };
    let body = Body::from_stream(stream::unfold(sound, async |mut sound| {
        let slice = sound.next().await?;
        Some((Ok::<_, std::convert::Infallible>(slice), sound))
    }));
    Ok(([(CONTENT_TYPE, "audio/L16; rate=16000; channels=1")], body).into_response())
}

/// One listener's place in the sound.
struct LiveSound {
    call: Call,
    speech: Speech,
    log: Arc<EventLog>,
    since: Instant,
    slices: u32,
    complete: bool,
}

impl LiveSound {
    fn sent(&self) -> Duration {
        Duration::from_millis(u64::from(self.slices) * 100)
    }

    /// The next slice, as soon as its last sample has sounded; `None` when there is no more.
    ///
    /// What a slice holds depends on the time it stands for, not on when it is asked for: a
    /// listener that was slow gets the rest late but whole.
    async fn next(&mut self) -> Option<Bytes> {
        let from = self.since + self.sent();
        let to = from + Duration::from_millis(100);
        tokio::select! {
            biased;
            () = self.call.wait(|state| state.job_ended(JobType::Transcribing)) => {
                self.complete = true;
                return None;
            }
            () = tokio::time::sleep_until(to) => {}
        }
        let first = self
            .call
            .look(CallState::speech_at)
            .map_or(i64::MIN, |speech_at| {
                samples(from.saturating_duration_since(speech_at))
                    - samples(speech_at.saturating_duration_since(from))
            });
        let slice = (0..i64::from(SLICE))
            .flat_map(|n| self.speech.sample(first.saturating_add(n)).to_le_bytes());
        self.slices += 1;
        Some(slice.collect())
    }
}

impl Drop for LiveSound {
    fn drop(&mut self) {
        let what = Happening::AudioLeft {
            sent: self.sent(),
            complete: self.complete,
        };
        self.log.record(Some(self.call.id()), what);
    }
}

fn samples(duration: Duration) -> i64 {
    let samples = duration.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000;
    i64::try_from(samples).unwrap_or(i64::MAX)
}
