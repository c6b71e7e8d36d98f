//! The rows of jobs, their attempts and the decisions about them.

use std::ops::ControlFlow;

use domain::{Decision, Job, JobId, Lifecycle, Timestamp};
use engine::{Accepted, JobQuery, NewJob};
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use crate::failure::Failure;
use crate::keys;
use crate::record::{Fields, StateColumns, clamp, inputs_column, reason_columns};

/// One row per attempt of each job, the job's columns repeated; as [`Fields`] reads them.
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT j.id, j.owner, j.client, j.kind, j.image_asked, j.site_url_asked, j.site_url, \
             j.max_duration_ms, j.inputs, j.submitted_at, j.start_by, j.resends, \
             j.state, j.until, j.since, j.deadline, j.kill_at, j.stop_cause, j.forget, \
             j.ended_at, j.end_reason, j.end_code, j.outcome, j.delivery, j.unsent_bytes, \
             a.number, a.image, a.image_id, a.started_at, a.running_at, a.ended_at, a.reason, a.exit_code \
             FROM jobs AS j JOIN attempts AS a ON a.job = j.seq ",
            $rest
        )
    };
}

/// Saves a new job if its keys are free and a slot is.
///
/// `past_reading` of the jobs that seem to hold a slot have records that make no sense: they hold
/// none, for nobody would ever free it.
pub(crate) fn accept(
    db: &Connection,
    new: &NewJob,
    past_reading: u32,
) -> Result<Accepted, Failure> {
    let job = &*new.job;
    for key in &new.keys {
        if let Some(known) = keys::find(db, key, job.submitted_at)? {
            return Ok(Accepted::Known(known));
        }
    }
    let free = match new.slots {
        slots if !slots.count_only() => slots.admit(job, &active(db)?),
        slots => match slots.total {
            Some(total) => slots_taken(db)? - i64::from(past_reading) < i64::from(total),
            None => true,
        },
    };
    if !free {
        return Ok(Accepted::Full);
    }
    insert(db, job)?;
    keys::add(db, &new.keys, &job.id, &new.body_sha256)?;
    save_attempts_and_decisions(db, db.last_insert_rowid(), job, &new.decisions)?;
    keys::follow(db, job)?;
    Ok(Accepted::New)
}

/// The jobs that hold a slot.
fn active(db: &Connection) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    each_in_states(db, |state| state.holds_slot(), 0, &mut |read| {
        jobs.extend(read.ok());
        ControlFlow::Continue(())
    })?;
    Ok(jobs)
}

fn slots_taken(db: &Connection) -> Result<i64, Failure> {
    let mut taken = 0;
    for state in Lifecycle::ALL
        .into_iter()
        .filter(|state| state.holds_slot())
    {
        taken += db
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = ?1")?
            .query_row([state.as_str()], |row| row.get::<_, i64>(0))?;
    }
    Ok(taken)
}

fn insert(db: &Connection, job: &Job) -> Result<(), Failure> {
    let (inputs, state) = (inputs_column(&job.inputs)?, StateColumns::of(&job.state));
    let site_url = job.site_url.as_ref().map(domain::SiteUrl::as_str);
    let max_duration_ms = i64::try_from(job.max_duration.as_millis()).unwrap_or(i64::MAX);
    let resends = job.resends.as_ref().map(JobId::as_str);
    let request: [&dyn ToSql; 12] = [
        &job.id.as_str(),
        &job.owner.0,
        &job.client.as_str(),
        &job.kind.as_str(),
        &job.image_asked,
        &job.site_url_asked,
        &site_url,
        &max_duration_ms,
        &inputs,
        &job.submitted_at.as_millis(),
        &job.start_by.as_millis(),
        &resends,
    ];
    let values: Vec<&dyn ToSql> = request.into_iter().chain(state.values()).collect();
    db.prepare_cached(
        "INSERT INTO jobs (id, owner, client, kind, image_asked, site_url_asked, site_url, max_duration_ms, inputs,
             submitted_at, start_by, resends, state, until, since, deadline, kill_at, stop_cause, forget,
             ended_at, end_reason, end_code, outcome, delivery, unsent_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20, ?21, ?22, ?23, ?24, ?25)",
    )?
    .execute(values.as_slice())?;
    Ok(())
}

/// Saves what changes in a job's life: state, attempts, new decisions, and with them its keys.
/// What it was submitted with never changes, but for the site URL, which is settled on later.
pub(crate) fn update(db: &Connection, job: &Job, decisions: &[Decision]) -> Result<(), Failure> {
    let state = StateColumns::of(&job.state);
    let site_url = job.site_url.as_ref().map(domain::SiteUrl::as_str);
    let id = job.id.as_str();
    let mut values: Vec<&dyn ToSql> = state.values().into();
    values.extend([&site_url as &dyn ToSql, &id]);
    let seq: i64 = db
        .prepare_cached(
            "UPDATE jobs SET state = ?1, until = ?2, since = ?3, deadline = ?4, kill_at = ?5, stop_cause = ?6,
                 forget = ?7, ended_at = ?8, end_reason = ?9, end_code = ?10, outcome = ?11, delivery = ?12,
                 unsent_bytes = ?13, site_url = ?14
             WHERE id = ?15 RETURNING seq",
        )?
        .query_row(values.as_slice(), |row| row.get(0))
        .optional()?
        .ok_or(Failure::NoSuchJob)?;
    save_attempts_and_decisions(db, seq, job, decisions)?;
    keys::follow(db, job)
}

fn save_attempts_and_decisions(
    db: &Connection,
    seq: i64,
    job: &Job,
    decisions: &[Decision],
) -> Result<(), Failure> {
    for attempt in &job.attempts {
        let (reason, exit_code) = reason_columns(attempt.reason);
        db.prepare_cached(
            "INSERT INTO attempts
                 (job, number, image, image_id, started_at, running_at, ended_at, reason, exit_code)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (job, number) DO UPDATE SET
                 (image, image_id, started_at, running_at, ended_at, reason, exit_code) =
                 (excluded.image, excluded.image_id, excluded.started_at, excluded.running_at,
                     excluded.ended_at, excluded.reason, excluded.exit_code)
             WHERE (image, image_id, started_at, running_at, ended_at, reason, exit_code) IS NOT
                 (excluded.image, excluded.image_id, excluded.started_at, excluded.running_at,
                     excluded.ended_at, excluded.reason, excluded.exit_code)",
        )?
        .execute(params![
            seq,
            attempt.number,
            attempt.image.to_string(),
            attempt.image_id.as_ref().map(domain::Digest::as_str),
            attempt.started_at.as_millis(),
            attempt.running_at.map(Timestamp::as_millis),
            attempt.ended_at.map(Timestamp::as_millis),
            reason,
            exit_code,
        ])?;
    }
    for decision in decisions {
        let read = serde_json::to_string(&decision.read)
            .map_err(|error| Failure::malformed("read", error.to_string()))?;
        db.prepare_cached(
            "INSERT INTO decisions (job, at, hook, attempt, policy, component_sha256, settings_sha256, read,
                 outcome, enforced, verdict, value, reason, micros)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            seq,
            decision.at.as_millis(),
            decision.hook.as_str(),
            decision.attempt,
            decision.policy,
            decision.component_sha256,
            decision.settings_sha256,
            read,
            decision.outcome.as_str(),
            decision.enforced,
            decision.verdict,
            decision.value,
            decision.reason,
            clamp(decision.micros),
        ])?;
    }
    Ok(())
}

/// Removes a job's record; its keys stand until `key_until`.
pub(crate) fn forget(db: &Connection, id: &JobId, key_until: Timestamp) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM jobs WHERE id = ?1")?
        .execute([id.as_str()])?;
    keys::keep_until(db, id, key_until)
}

/// What one step of pruning did.
pub(crate) struct Pruned {
    /// How many records it removed.
    pub(crate) records: u64,
    /// Whether another step has something to do.
    pub(crate) more: bool,
}

/// How many rows of each table a step of pruning takes: some milliseconds of work, so that whoever
/// saves something meanwhile hardly waits.
const PRUNED_AT_ONCE: usize = 200;

/// Removes some of the records of jobs that were removed before `before`, and of the keys that ran
/// out. A job counts as removed from the first time that this sees it so: a record may stay longer,
/// never shorter.
pub(crate) fn prune(db: &Connection, before: Timestamp, now: Timestamp) -> Result<Pruned, Failure> {
    let limit = PRUNED_AT_ONCE as i64;
    let seen = db
        .prepare_cached(
            "UPDATE jobs SET removed_at = ?1 WHERE seq IN
                 (SELECT seq FROM jobs WHERE state = 'removed' AND removed_at IS NULL LIMIT ?2)",
        )?
        .execute([now.as_millis(), limit])?;
    let pruned = db
        .prepare_cached(
            "DELETE FROM jobs WHERE seq IN
                 (SELECT seq FROM jobs WHERE state = 'removed' AND removed_at < ?1 LIMIT ?2)",
        )?
        .execute([before.as_millis(), limit])?;
    let keys = keys::prune(db, now, limit)?;
    Ok(Pruned {
        records: pruned as u64,
        more: [seen, pruned, keys].contains(&PRUNED_AT_ONCE),
    })
}

/// The job of that id.
pub(crate) fn find(db: &Connection, id: &JobId) -> Result<Option<Job>, Failure> {
    load(
        db,
        select_jobs!("WHERE j.id = ?1 ORDER BY a.number"),
        &id.as_str(),
    )
}

fn load(db: &Connection, sql: &str, key: &dyn ToSql) -> Result<Option<Job>, Failure> {
    const JOB_COLUMNS: usize = 25;
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([key])?;
    let mut found: Option<Job> = None;
    while let Some(row) = rows.next()? {
        match &mut found {
            None => {
                let mut fields = Fields::of(row);
                let mut job = fields.job()?;
                job.attempts.push(fields.attempt()?);
                found = Some(job);
            }
            Some(job) => job
                .attempts
                .push(Fields::after(row, JOB_COLUMNS).attempt()?),
        }
    }
    Ok(found)
}

fn load_by_seq(db: &Connection, seq: i64) -> Result<Option<Job>, Failure> {
    load(db, select_jobs!("WHERE j.seq = ?1 ORDER BY a.number"), &seq)
}

/// One row per decision; as [`Fields`] reads them.
macro_rules! select_decisions {
    ($rest:literal) => {
        concat!(
            "SELECT d.at, d.hook, d.attempt, d.policy, d.component_sha256, d.settings_sha256, \
             d.read, d.outcome, d.enforced, d.verdict, d.value, d.reason, d.micros \
             FROM decisions AS d ",
            $rest
        )
    };
}

/// The decisions about a job, oldest first.
pub(crate) fn decisions(db: &Connection, id: &JobId) -> Result<Vec<Decision>, Failure> {
    let sql = select_decisions!("JOIN jobs AS j ON d.job = j.seq WHERE j.id = ?1 ORDER BY d.seq");
    load_decisions(db, sql, &id.as_str())
}

fn load_decisions(db: &Connection, sql: &str, key: &dyn ToSql) -> Result<Vec<Decision>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([key])?;
    let mut decisions = Vec::new();
    while let Some(row) = rows.next()? {
        match Fields::of(row).decision() {
            Ok(decision) => decisions.push(decision),
            // A job can do without it.
            Err(Failure::Malformed(detail)) => tracing::error!(
                detail,
                "the record of a policy's decision cannot be read; it is left out"
            ),
            Err(failure) => return Err(failure),
        }
    }
    Ok(decisions)
}

/// A page of jobs, newest first, each with its decisions. Nothing comes after a job that is not
/// there any more, nor after one of another owner: whoever asks cannot tell the two apart.
pub(crate) fn page(
    db: &Connection,
    query: &JobQuery,
) -> Result<Vec<(Job, Vec<Decision>)>, Failure> {
    let owner = query.owner.map(|owner| owner.0);
    let mut before = match &query.before {
        None => i64::MAX,
        Some(id) => {
            let seq = db
                .prepare_cached("SELECT seq FROM jobs WHERE id = ?1 AND owner = ifnull(?2, owner)")?
                .query_row((id.as_str(), owner), |row| row.get(0))
                .optional()?;
            let Some(seq) = seq else {
                return Ok(Vec::new());
            };
            seq
        }
    };
    let wanted = query.limit as usize;
    let mut page = Vec::with_capacity(wanted.min(MOST_AT_ONCE));
    loop {
        let left = wanted - page.len();
        let seqs = page_of(db, query, before, left)?;
        let is_last = seqs.len() < left;
        for seq in seqs {
            before = seq;
            match with_decisions(db, seq) {
                Ok(found) => page.extend(found),
                // A record that is past reading hides no other.
                Err(Failure::Malformed(detail)) => tracing::error!(
                    seq,
                    detail,
                    "the record of a job cannot be read; it is left out"
                ),
                Err(failure) => return Err(failure),
            }
        }
        if is_last || page.len() >= wanted {
            return Ok(page);
        }
    }
}

/// Room is made for so many jobs at once, and no more are read at a start.
const MOST_AT_ONCE: usize = 128;

/// The rows of a page, newest first: those before `before`, at most `limit`.
fn page_of(
    db: &Connection,
    query: &JobQuery,
    before: i64,
    limit: usize,
) -> Result<Vec<i64>, Failure> {
    let owner = query.owner.map(|owner| owner.0);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut seqs = Vec::new();
    let mut collect = |sql: &str, values: &[&dyn ToSql]| -> Result<(), Failure> {
        let mut statement = db.prepare_cached(sql)?;
        for seq in statement.query_map(values, |row| row.get::<_, i64>(0))? {
            seqs.push(seq?);
        }
        Ok(())
    };
    // Each statement reads one stretch of one index, however many jobs there are.
    if query.states.is_empty() {
        match owner {
            None => collect(
                "SELECT seq FROM jobs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
                &[&before, &most],
            )?,
            Some(owner) => collect(
                "SELECT seq FROM jobs WHERE seq < ?1 AND owner = ?3 ORDER BY seq DESC LIMIT ?2",
                &[&before, &most, &owner],
            )?,
        }
    }
    for state in &query.states {
        let state = state.as_str();
        match owner {
            None => collect(
                "SELECT seq FROM jobs WHERE seq < ?1 AND state = ?3 ORDER BY seq DESC LIMIT ?2",
                &[&before, &most, &state],
            )?,
            Some(owner) => collect(
                "SELECT seq FROM jobs WHERE seq < ?1 AND state = ?3 AND owner = ?4 ORDER BY seq DESC LIMIT ?2",
                &[&before, &most, &state, &owner],
            )?,
        }
    }
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    seqs.dedup();
    seqs.truncate(limit);
    Ok(seqs)
}

fn with_decisions(db: &Connection, seq: i64) -> Result<Option<(Job, Vec<Decision>)>, Failure> {
    let Some(job) = load_by_seq(db, seq)? else {
        return Ok(None);
    };
    let sql = select_decisions!("WHERE d.job = ?1 ORDER BY d.seq");
    Ok(Some((job, load_decisions(db, sql, &seq)?)))
}

/// Jobs that are not removed, in the order of acceptance: the next few after one of them, or the
/// first few. None when no more follow.
pub(crate) fn unfinished(db: &Connection, after: Option<&JobId>) -> Result<Vec<Job>, Failure> {
    let last = match after {
        None => 0,
        Some(id) => db
            .prepare_cached("SELECT seq FROM jobs WHERE id = ?1")?
            .query_row([id.as_str()], |row| row.get(0))
            .optional()?
            .ok_or(Failure::NoSuchJob)?,
    };
    let mut jobs = Vec::with_capacity(MOST_AT_ONCE);
    each_in_states(db, is_unfinished, last, &mut |read| {
        jobs.extend(read.ok());
        match jobs.len() < MOST_AT_ONCE {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(jobs)
}

fn is_unfinished(state: Lifecycle) -> bool {
    state != Lifecycle::Removed
}

/// A job's record that makes no sense, though the database is whole.
#[derive(Debug)]
pub(crate) struct PastReading {
    pub(crate) id: String,
    pub(crate) state: Lifecycle,
    /// What is wrong with it, for people.
    pub(crate) detail: String,
}

/// Every job but the removed whose record makes no sense.
pub(crate) fn past_reading(db: &Connection) -> Result<Vec<PastReading>, Failure> {
    let mut past_reading = Vec::new();
    each_in_states(db, is_unfinished, 0, &mut |read| {
        past_reading.extend(read.err());
        ControlFlow::Continue(())
    })?;
    Ok(past_reading)
}

/// Hands over jobs in wanted states after row `last`, in the order of acceptance, a few in memory at
/// a time, until there is none left or no more is wanted.
fn each_in_states(
    db: &Connection,
    wanted: fn(Lifecycle) -> bool,
    mut last: i64,
    each: &mut dyn FnMut(Result<Job, PastReading>) -> ControlFlow<()>,
) -> Result<(), Failure> {
    loop {
        let some = some_in_states(db, wanted, last)?;
        let more = some.len() == MOST_AT_ONCE;
        for (seq, id, state) in some {
            last = seq;
            if each(read(db, seq, id, state)?).is_break() {
                return Ok(());
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// The next few jobs in wanted states after row `last`, in the order of acceptance.
fn some_in_states(
    db: &Connection,
    wanted: fn(Lifecycle) -> bool,
    last: i64,
) -> Result<Vec<(i64, String, Lifecycle)>, Failure> {
    let mut found = Vec::new();
    for state in Lifecycle::ALL.into_iter().filter(|state| wanted(*state)) {
        let mut statement = db.prepare_cached(
            "SELECT seq, id FROM jobs WHERE state = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((state.as_str(), last, MOST_AT_ONCE as i64))?;
        while let Some(row) = rows.next()? {
            found.push((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, state));
        }
    }
    found.sort_unstable_by_key(|(seq, ..)| *seq);
    found.truncate(MOST_AT_ONCE);
    Ok(found)
}

fn read(
    db: &Connection,
    seq: i64,
    id: String,
    state: Lifecycle,
) -> Result<Result<Job, PastReading>, Failure> {
    let detail = match load_by_seq(db, seq) {
        Ok(Some(job)) => return Ok(Ok(job)),
        Ok(None) => "it has no attempt".to_owned(),
        Err(Failure::Malformed(detail)) => detail,
        Err(failure) => return Err(failure),
    };
    Ok(Err(PastReading { id, state, detail }))
}
