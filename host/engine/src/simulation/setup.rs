//! What a history is made of: its configuration, how often what fails, and what is done when. All
//! of it is drawn from the seed, before the history begins.

use std::time::Duration;

use domain::JobKind;
use fastrand::Rng;

/// How long a submission may take until its container runs, as in production.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(100);

/// Everything is one of these out of a thousand.
pub(crate) type PerMille = u32;

/// What one history is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) slots: u32,
    pub(crate) max_attempts: u32,
    /// Whether the operator allows an attempt after one that ran.
    pub(crate) after_run: bool,
    pub(crate) grace: Duration,
    pub(crate) floor: Duration,
    pub(crate) failed_retention: Option<Duration>,
    /// Whether images say that they send in again what a job left.
    pub(crate) offers_resend: bool,
    pub(crate) faults: Faults,
    /// In the order of their time, in milliseconds from the beginning.
    pub(crate) actions: Vec<(u64, Action)>,
}

/// How often what goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// A call of the container engine takes some milliseconds.
    pub(crate) delayed: PerMille,
    /// It takes seconds, perhaps longer than it is waited for.
    pub(crate) slow: PerMille,
    /// It is carried out and its answer is lost.
    pub(crate) lost: PerMille,
    /// It never reaches the engine.
    pub(crate) dropped: PerMille,
    /// The engine refuses to create or start.
    pub(crate) refused: PerMille,
    /// A pull fails.
    pub(crate) pull_fails: PerMille,
    /// A pull takes long.
    pub(crate) pull_slow: PerMille,
    /// The image is another one by the time that it is used.
    pub(crate) image_changed: PerMille,
    /// The wait for a container's end ends for no reason.
    pub(crate) spurious: PerMille,
    /// A write fails, or a read.
    pub(crate) store_error: PerMille,
    /// A write takes milliseconds, or seconds.
    pub(crate) store_slow: PerMille,
    /// Policies choose, deny, retry, keep and delete, and do not only pass.
    pub(crate) policies: PerMille,
    /// A task lets others go first.
    pub(crate) yields: PerMille,
}

/// What is done to the service and its world.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Submit(Request),
    /// An administrator stops a job; the number picks which.
    Stop(u32),
    /// Its owner deletes it.
    Delete(u32),
    /// Its owner looks at it.
    Read(u32),
    /// An administrator lets be sent in again what a job keeps, and may not wait for it.
    Resend {
        pick: u32,
        hangs_up: Option<u64>,
    },
    /// Somebody removes a container by hand.
    RemoveByHand(u32),
    /// Something else takes the name that a job's container will have.
    Foreign(u32),
    /// The container engine is away for that long.
    EngineDown {
        millis: u64,
        live_restore: bool,
        hangs: bool,
    },
    /// The store cannot write for that long.
    StoreDown {
        millis: u64,
    },
    /// The service gets SIGKILL.
    Crash(Down),
    /// The same, at this effect from now on.
    CrashAt {
        effect: u32,
        after_it: bool,
        down: Down,
    },
    /// The service gets SIGTERM.
    Shutdown(Down),
}

/// How the service is away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Down {
    pub(crate) millis: u64,
    /// By how much the wall clock was set meanwhile, in milliseconds.
    pub(crate) clock_jump: i64,
    /// Crash again at this effect of the recovery.
    pub(crate) again_at: Option<u32>,
}

/// A submission by a client.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: JobKind,
    /// Which call's work; the same twice is the same work.
    pub(crate) work: u32,
    /// Which request for it.
    pub(crate) body: u32,
    /// Which `Idempotency-Key`.
    pub(crate) header: Option<u32>,
    pub(crate) max_duration: Duration,
    /// The client hangs up after so many milliseconds.
    pub(crate) hangs_up: Option<u64>,
    /// The client sends the same again when it gets no answer.
    pub(crate) insists: bool,
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// True in so many of a thousand cases.
pub(crate) fn chance(rng: &mut Rng, per_mille: PerMille) -> bool {
    per_mille > 0 && rng.u32(0..1000) < per_mille
}

fn seconds(rng: &mut Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_secs(rng.u64(range))
}

impl Setup {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let floor = seconds(rng, 60..=200);
        let mut setup = Self {
            slots: rng.u32(1..=3),
            max_attempts: rng.u32(1..=3),
            after_run: chance(rng, 100),
            grace: seconds(rng, 10..=90),
            floor,
            failed_retention: match rng.u32(0..4) {
                0 => None,
                1 => Some(floor / 2),
                _ => Some(floor * 2),
            },
            offers_resend: false,
            faults: Faults::draw(rng),
            actions: Vec::new(),
        };
        let end = rng.u64(20 * SECOND..=180 * SECOND);
        for _ in 0..rng.u32(1..=4) {
            setup.draw_submissions(rng, end);
        }
        for _ in 0..rng.u32(0..=6) {
            let action = draw_action(rng);
            setup.actions.push((rng.u64(0..end), action));
        }
        setup.actions.sort_by_key(|(at, _)| *at);
        setup
    }

    /// Has what is kept sent in again, and lets something happen meanwhile. Drawn apart: what else a
    /// history is made of does not depend on it.
    pub(crate) fn draw_resends(&mut self, rng: &mut Rng) {
        self.offers_resend = chance(rng, 900);
        let end = self.actions.last().map_or(0, |(at, _)| *at);
        for _ in 0..rng.u32(1..=4) {
            let at = rng.u64(end / 4..end + 3 * MINUTE);
            let resend = Action::Resend {
                pick: rng.u32(..),
                hangs_up: (rng.u32(0..5) == 0).then(|| rng.u64(0..20 * SECOND)),
            };
            self.actions.push((at, resend));
            if rng.bool() {
                let action = draw_action(rng);
                self.actions.push((at + rng.u64(0..MINUTE), action));
            }
        }
        self.actions.sort_by_key(|(at, _)| *at);
    }

    fn draw_submissions(&mut self, rng: &mut Rng, end: u64) {
        let at = rng.u64(0..end);
        let request = Request {
            kind: if rng.bool() {
                JobKind::Recording
            } else {
                JobKind::Transcribing
            },
            work: rng.u32(0..4),
            body: rng.u32(0..8) / 7,
            header: (rng.u32(0..6) == 0).then(|| rng.u32(0..2)),
            max_duration: seconds(rng, 5..=90),
            hangs_up: None,
            insists: rng.bool(),
        };
        // One press of the button makes a job or two; an impatient client sends a job twice.
        for n in 0..[1, 1, 1, 2, 2, 4][rng.usize(0..6)] {
            let mut request = request.clone();
            if rng.u32(0..4) == 0 {
                request.hangs_up = Some(rng.u64(0..120 * SECOND));
            }
            if n > 0 && rng.bool() {
                request.work = rng.u32(0..4);
                request.kind = JobKind::Transcribing;
            }
            let at = at
                + if rng.bool() {
                    0
                } else {
                    rng.u64(0..5 * SECOND)
                };
            self.actions.push((at, Action::Submit(request)));
        }
    }
}

impl Faults {
    /// Each sort of fault is there or is not, so that every combination has its histories.
    fn draw(rng: &mut Rng) -> Self {
        let mut rate = |most: u32| {
            if rng.bool() { 0 } else { rng.u32(1..=most) }
        };
        Self {
            delayed: rate(600),
            slow: rate(250),
            lost: rate(150),
            dropped: rate(150),
            refused: rate(200),
            pull_fails: rate(500),
            pull_slow: rate(600),
            image_changed: rate(100),
            spurious: rate(100),
            store_error: rate(100),
            store_slow: rate(300),
            policies: rate(1000),
            yields: rate(300),
        }
    }
}

fn draw_action(rng: &mut Rng) -> Action {
    let pick = rng.u32(..);
    match rng.u32(0..20) {
        0..=2 => Action::Stop(pick),
        3..=4 => Action::Delete(pick),
        5 => Action::Read(pick),
        6 => Action::RemoveByHand(pick),
        7 => Action::Foreign(pick),
        8..=10 => Action::EngineDown {
            millis: span(rng),
            live_restore: rng.bool(),
            hangs: rng.bool(),
        },
        11 => Action::StoreDown { millis: span(rng) },
        12..=13 => Action::Crash(Down::draw(rng)),
        14..=18 => Action::CrashAt {
            effect: rng.u32(1..=12),
            after_it: rng.bool(),
            down: Down::draw(rng),
        },
        _ => Action::Shutdown(Down::draw(rng)),
    }
}

/// Mostly short, sometimes longer than anything waits.
fn span(rng: &mut Rng) -> u64 {
    match rng.u32(0..10) {
        0..=4 => rng.u64(100..10 * SECOND),
        5..=7 => rng.u64(10 * SECOND..MINUTE),
        _ => rng.u64(MINUTE..4 * MINUTE),
    }
}

impl Down {
    fn draw(rng: &mut Rng) -> Self {
        const HOUR: i64 = 3_600_000;
        Self {
            millis: if rng.bool() { 100 } else { span(rng) },
            clock_jump: match rng.u32(0..4) {
                0 => HOUR,
                1 => -HOUR,
                _ => 0,
            },
            again_at: (rng.u32(0..3) == 0).then(|| rng.u32(1..=6)),
        }
    }
}
