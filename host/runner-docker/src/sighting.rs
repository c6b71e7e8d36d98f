//! What the engine knows about a container.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState};
use domain::{Exit, Timestamp};
use engine::Sighting;
use gate::ContainerName;

use crate::client::{Client, Trouble};
use crate::labels;

/// What an engine writes down for a container that it finds dead when it starts, its process and
/// its supervisor gone, with the time at which it found out as the end. Newer and older engines do
/// so alike, and nothing else in their records tells such an end from a program's own exit with
/// 255. Taking both for lost errs harmlessly: either way the job has failed, what it left decides
/// about delivery, and only the reason that is told differs. The other way round, an end that
/// nobody saw would pass for one that was.
const UNKNOWN_EXIT: i32 = 255;

/// A container as the engine describes it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The engine's id of it: it stays the same when names change hands.
    pub(crate) id: String,
    /// The image it was asked for, by name.
    pub(crate) image: String,
    /// The id of the image it was made from.
    pub(crate) image_id: String,
    /// Its labels.
    pub(crate) labels: HashMap<String, String>,
    /// When it ran, if it ever did.
    pub(crate) ran_at: Option<Timestamp>,
    /// How it is.
    pub(crate) sighting: Sighting,
}

/// The container of that name or id, whoever's it is; `None` when there is none. Takes no longer
/// than `limit`.
pub(crate) async fn look(
    client: &Client,
    name_or_id: &str,
    limit: Duration,
) -> Result<Option<Seen>, Trouble> {
    let inspected = client
        .call(limit, async |docker| {
            docker.inspect_container(name_or_id, None).await
        })
        .await;
    match inspected {
        Ok(container) => Ok(Some(read(container))),
        Err(trouble) if trouble.status() == Some(404) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// The same, if its labels say that it is the one of that attempt.
pub(crate) async fn look_for_ours(
    client: &Client,
    name: &ContainerName,
    limit: Duration,
) -> Result<Option<Seen>, Trouble> {
    let seen = look(client, &name.to_string(), limit).await?;
    Ok(seen.filter(|seen| labels::belong_to(&seen.labels, name)))
}

/// Whether the volume of that attempt is there, by name and labels. Takes no longer than `limit`.
pub(crate) async fn has_volume(
    client: &Client,
    name: &ContainerName,
    limit: Duration,
) -> Result<bool, Trouble> {
    let volume = name.volume();
    let inspected = client
        .call(limit, async |docker| docker.inspect_volume(&volume).await)
        .await;
    match inspected {
        Ok(volume) => Ok(labels::belong_to(&volume.labels, name)),
        Err(trouble) if trouble.status() == Some(404) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

fn read(container: ContainerInspectResponse) -> Seen {
    let config = container.config.unwrap_or_default();
    Seen {
        id: container.id.unwrap_or_default(),
        image: config.image.unwrap_or_default(),
        image_id: container.image.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        ran_at: container.state.as_ref().and_then(started),
        sighting: container.state.as_ref().map_or(Sighting::Created, sighting),
    }
}

fn started(state: &ContainerState) -> Option<Timestamp> {
    state.started_at.as_deref().and_then(time)
}

fn sighting(state: &ContainerState) -> Sighting {
    let Some(since) = started(state) else {
        // Also after a start that failed.
        return Sighting::Created;
    };
    let is = |flag: Option<bool>| flag == Some(true);
    if is(state.running) || is(state.paused) || is(state.restarting) {
        return Sighting::Running { since };
    }
    let code = state
        .exit_code
        .and_then(|code| i32::try_from(code).ok())
        .unwrap_or(UNKNOWN_EXIT);
    match state.finished_at.as_deref().and_then(time) {
        Some(finished) if code != UNKNOWN_EXIT => Sighting::Ended(Exit {
            code,
            out_of_memory: is(state.oom_killed),
            started_at: since,
            // Whatever the machine's clock did meanwhile.
            ended_at: finished.max(since),
        }),
        _ => Sighting::Lost,
    }
}

/// A time of the engine. It writes the year 1 for never.
fn time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let millis = time.as_millisecond();
    (millis > 0).then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const START: &str = "2026-08-01T10:00:00.123456789Z";
    const END: &str = "2026-08-01T10:00:02.5Z";

    fn at(text: &str) -> Timestamp {
        time(text).unwrap()
    }

    #[test]
    fn times_are_read_to_the_millisecond_and_never_is_none() {
        assert_eq!(at("1970-01-01T00:00:01.123999999Z").as_millis(), 1123);
        assert_eq!(at("1970-01-01T01:00:02+01:00").as_millis(), 2000);
        assert_eq!((time(NEVER), time(""), time("soon")), (None, None, None));
    }

    #[test]
    fn states_are_told_by_what_is_known_of_start_and_end() {
        let exit = |code, out_of_memory, ended_at| {
            Sighting::Ended(Exit {
                code,
                out_of_memory,
                started_at: at(START),
                ended_at,
            })
        };
        for (running, oom, code, started, finished, expected) in [
            (false, false, 0, NEVER, NEVER, Sighting::Created),
            (false, false, 127, NEVER, NEVER, Sighting::Created),
            (
                true,
                false,
                0,
                START,
                NEVER,
                Sighting::Running { since: at(START) },
            ),
            (false, false, 3, START, END, exit(3, false, at(END))),
            (false, true, 137, START, END, exit(137, true, at(END))),
            (
                false,
                false,
                0,
                START,
                "2026-08-01T09:00:00Z",
                exit(0, false, at(START)),
            ),
            (false, false, 0, START, NEVER, Sighting::Lost),
            (false, false, 255, START, END, Sighting::Lost),
        ] {
            let state = ContainerState {
                running: Some(running),
                oom_killed: Some(oom),
                exit_code: Some(code),
                started_at: Some(started.to_owned()),
                finished_at: Some(finished.to_owned()),
                ..Default::default()
            };
            assert_eq!(sighting(&state), expected, "{state:?}");
        }
    }

    #[test]
    fn a_paused_container_still_runs() {
        let state = ContainerState {
            running: Some(false),
            paused: Some(true),
            started_at: Some(START.to_owned()),
            ..Default::default()
        };
        assert_eq!(sighting(&state), Sighting::Running { since: at(START) });
    }
}
