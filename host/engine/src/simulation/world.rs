//! The world of a simulated service: containers and volumes, events to come, and the time. It goes
//! on by itself while the service is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{ClockMark, ClockReading, JobId, Timestamp, Uptime};
use fastrand::Rng;
use gate::ContainerName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::containers::{Container, Request, Volume};
use super::memory::Memory;
use super::mutation::Mutation;
use super::oracle::Oracle;
use super::setup::{Action, Down, Setup, chance};

/// The wall clock at the beginning of a history.
const BEGINNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// More effects than any history has that comes to an end.
const MOST_EFFECTS: u64 = 20_000;

/// The world, as all ports and the driver share it.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Shared>);

struct Shared {
    world: Mutex<World>,
    wake: Notify,
}

impl Sim {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, recording: bool) -> Self {
        let world = World::new(seed, mutation, recording);
        let (world, wake) = (Mutex::new(world), Notify::new());
        Self(Arc::new(Shared { world, wake }))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the driver look at the world.
    pub(crate) fn wake(&self) {
        self.0.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Takes that long; nothing else comes of it. Never returns in a service that was killed.
    pub(crate) async fn pause(&self, millis: u64) {
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        self.alive().await;
    }

    /// Does not return when the service was killed: its tasks do nothing any more.
    pub(crate) async fn alive(&self) {
        if self.world().killed.is_some() {
            std::future::pending::<()>().await;
        }
    }

    /// An effect, at which the service may be killed, before or after it. `None`: it was before.
    pub(crate) fn effect<R>(&self, effect: impl FnOnce(&mut World) -> R) -> Option<R> {
        let mut world = self.world();
        if world.killed.is_some() {
            return None;
        }
        let (before, after) = world.count_effect();
        if before {
            self.wake();
            return None;
        }
        let done = effect(&mut world);
        if after {
            world.kill_armed();
        }
        if world.killed.is_some() || world.oracle.violation.is_some() || world.take_news() {
            self.wake();
        }
        Some(done)
    }
}

/// What comes about at its time, whatever the service does.
#[derive(Debug)]
pub(crate) enum Event {
    Act(Action),
    /// A container's program ends.
    Exit {
        uid: u64,
        /// Whether SIGTERM brought it about.
        asked: bool,
    },
    /// A request lands that nobody waits for any more.
    Late(Request),
    /// The store comes to its next write.
    Write,
    EngineUp,
    StoreUp,
    /// Everything is well from now on.
    Heal,
    /// It is looked whether all is at rest.
    Check,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) setup: Setup,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) oracle: Oracle,
    pub(crate) memory: Memory,
    pub(crate) containers: BTreeMap<ContainerName, Container>,
    pub(crate) volumes: BTreeMap<ContainerName, Volume>,
    /// The requests that were on their way when the service was killed, with their numbers and when
    /// they come about.
    pub(crate) forsaken: Vec<(u64, u64, Request)>,
    pub(crate) engine_down: bool,
    pub(crate) engine_hangs: bool,
    /// When the pull of each image ends, and whether it fails. Absent: not asked for.
    pub(crate) images: BTreeMap<String, (u64, bool)>,
    /// How the service was killed, until it is started again.
    pub(crate) killed: Option<Down>,
    /// The last time anything failed that excuses the service's being late.
    pub(crate) trouble_at: u64,
    pub(crate) healed: bool,
    /// What is carried out now was asked for some time ago.
    pub(crate) late: bool,
    /// Submissions that are not answered, by their number.
    pub(crate) asking: BTreeMap<u8, super::setup::Request>,
    pub(crate) submissions: u8,
    /// Jobs that an administrator wants to resend another and that are not answered for.
    pub(crate) resending: BTreeSet<JobId>,
    pub(crate) effects: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_number: u64,
    news: bool,
    armed: Option<Armed>,
    base: u64,
    epoch: Option<Instant>,
    /// The end of the history so far, condensed; equal histories have equal ones.
    pub(crate) digest: u64,
    history: Option<Vec<String>>,
    wall_jump: i64,
    mark: ClockMark,
    mark_at: u64,
}

struct Armed {
    effect: u64,
    after_it: bool,
    down: Down,
}

impl World {
    fn new(seed: u64, mutation: Option<Mutation>, recording: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut setup = Setup::draw(&mut rng);
        // Every other history has them.
        if !seed.is_multiple_of(2) {
            setup.draw_resends(&mut Rng::with_seed(!seed));
        }
        let mut world = Self {
            oracle: Oracle::default(),
            memory: Memory::default(),
            mutation,
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            forsaken: Vec::new(),
            engine_down: false,
            engine_hangs: false,
            images: BTreeMap::new(),
            killed: None,
            trouble_at: 0,
            healed: false,
            late: false,
            asking: BTreeMap::new(),
            submissions: 0,
            resending: BTreeSet::new(),
            effects: 0,
            events: BTreeMap::new(),
            next_number: 0,
            news: false,
            armed: None,
            base: 0,
            epoch: None,
            digest: 0,
            history: recording.then(Vec::new),
            wall_jump: 0,
            mark: ClockMark::first(read_clocks(0, 0)),
            mark_at: 0,
            rng,
            setup,
        };
        let actions = std::mem::take(&mut world.setup.actions);
        let end = actions.last().map_or(0, |(at, _)| *at);
        world.note(|world| format!("seed {seed}, {:?}", world.setup));
        for (at, action) in actions {
            world.schedule(at, Event::Act(action));
        }
        world.schedule(end + 1, Event::Heal);
        world
    }

    // Time

    /// Milliseconds since the history began.
    pub(crate) fn now(&self) -> u64 {
        let since = |epoch: &Instant| u64::try_from(epoch.elapsed().as_millis()).unwrap_or(0);
        self.base + self.epoch.as_ref().map_or(0, since)
    }

    /// The wall clock, as the container engine reads it.
    pub(crate) fn wall(&self) -> Timestamp {
        read_clocks(self.now(), self.wall_jump).wall
    }

    /// The service's time.
    pub(crate) fn service_now(&self) -> Timestamp {
        let passed = Duration::from_millis(self.now() - self.mark_at);
        self.mark.time.plus(passed)
    }

    /// The service's time at its start, which the clock of its life goes on from.
    pub(crate) fn begin_life(&mut self) -> Timestamp {
        self.epoch = Some(Instant::now());
        let read = read_clocks(self.now(), self.wall_jump);
        self.mark = if self.mutation == Some(Mutation::TrustTheWallClock) {
            ClockMark::first(read)
        } else {
            self.mark.resume(read)
        };
        self.mark_at = self.now();
        self.saw_restart();
        self.mark.time
    }

    /// The service's tasks are dropped next; nothing they do from here on counts.
    pub(crate) fn end_life(&mut self, down: Down) {
        self.killed = Some(down);
        self.base = self.now();
        self.epoch = None;
        self.armed = None;
    }

    /// Time passes without the service.
    pub(crate) fn pass_without_service(&mut self, down: Down) {
        let until = self.now() + down.millis;
        while let Some((at, event)) = self.pop_due(until) {
            self.base = self.base.max(at);
            self.happen(event);
        }
        self.base = until;
        self.wall_jump += down.clock_jump;
        if let Some(effect) = down.again_at.filter(|_| !self.healed) {
            let millis = 500;
            let again = Down {
                millis,
                clock_jump: 0,
                again_at: None,
            };
            self.arm(effect, effect % 2 == 0, again);
        }
        self.killed = None;
        self.trouble(0);
        self.note(|_| format!("-- the service starts (down {down:?})"));
    }

    // What is to come

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        let first = self.next_event().is_none_or(|first| at < first);
        self.next_number += 1;
        self.events.insert((at, self.next_number), event);
        self.news |= first;
    }

    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn next_event(&self) -> Option<u64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(u64, Event)> {
        let entry = self.events.first_entry()?;
        let at = entry.key().0;
        (at <= now).then(|| (at, entry.remove()))
    }

    /// Whether anything is still to be done to the service or its world.
    pub(crate) fn has_plans(&self) -> bool {
        self.events.values().any(|e| matches!(e, Event::Act(_)))
    }

    pub(crate) fn drop_late_start(&mut self, uid: u64) {
        self.events.retain(
            |_, event| !matches!(event, Event::Late(Request::Start(other)) if *other == uid),
        );
    }

    /// What needs no service to come about. Actions on a service that is down come to nothing.
    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Exit { uid, asked } => self.exit(uid, asked),
            Event::Late(request) => {
                self.note(|_| format!("late: {request:?}"));
                if !self.engine_down {
                    self.late = true;
                    self.perform(&request);
                    self.late = false;
                }
            }
            Event::EngineUp => {
                self.note(|_| "the container engine is back".into());
                self.engine_down = false;
            }
            Event::StoreUp => self.memory.down = false,
            Event::Write => self.write_next(),
            Event::Heal => self.heal(),
            Event::Act(action) => self.act(action),
            Event::Check => {
                let at = self.now() + 1000;
                self.schedule(at, Event::Check);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::RemoveByHand(pick) => self.remove_by_hand(pick),
            Action::EngineDown {
                millis,
                live_restore,
                hangs,
            } => self.engine_goes_down(millis, live_restore, hangs),
            Action::StoreDown { millis } => {
                self.note(|_| format!("the store cannot write for {millis} ms"));
                self.memory.down = true;
                self.trouble(millis);
                let at = self.now() + millis;
                self.schedule(at, Event::StoreUp);
            }
            // The client that gets no answer at all.
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.note(|_| "-- all is well from here on".into());
        self.healed = true;
        self.setup.faults = Default::default();
        (self.engine_down, self.memory.down) = (false, false);
        self.armed = None;
        let at = self.now() + 500;
        self.schedule(at, Event::Check);
    }

    /// Something fails, for so many milliseconds from now on.
    pub(crate) fn trouble(&mut self, millis: u64) {
        self.trouble_at = self.trouble_at.max(self.now() + millis);
    }

    // Crashes

    pub(crate) fn arm(&mut self, effect: u32, after_it: bool, down: Down) {
        let effect = self.effects + u64::from(effect);
        self.armed = Some(Armed {
            effect,
            after_it,
            down,
        });
    }

    /// Whether the service is killed before or after the effect that comes now.
    fn count_effect(&mut self) -> (bool, bool) {
        self.effects += 1;
        if self.effects > MOST_EFFECTS {
            self.violate(|_| "it never rests".into());
            self.kill(Down {
                millis: 0,
                clock_jump: 0,
                again_at: None,
            });
            return (true, false);
        }
        match &self.armed {
            Some(armed) if armed.effect <= self.effects => {
                if armed.after_it {
                    return (false, true);
                }
                self.kill_armed();
                (true, false)
            }
            _ => (false, false),
        }
    }

    fn kill_armed(&mut self) {
        if let Some(armed) = self.armed.take() {
            self.kill(armed.down);
        }
    }

    pub(crate) fn kill(&mut self, down: Down) {
        self.note(|_| "SIGKILL".into());
        self.killed = Some(down);
    }

    pub(crate) fn new_uid(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A job that keeps something unsent, if there is one.
    pub(crate) fn pick_unsent(&self, pick: u32) -> Option<JobId> {
        let unsent = self.memory.jobs.iter().filter(|job| job.keeps_unsent());
        let unsent: Vec<_> = unsent.map(|job| job.id.clone()).collect();
        pick_of(&unsent, pick)
            .cloned()
            .or_else(|| self.pick_job(pick))
    }

    /// The job that a number picks of those that were submitted.
    pub(crate) fn pick_job(&self, pick: u32) -> Option<JobId> {
        let jobs: Vec<_> = (0..self.submissions).map(job_id).collect();
        pick_of(&jobs, pick).cloned()
    }

    pub(crate) fn yields(&mut self) -> bool {
        let rate = self.setup.faults.yields;
        chance(&mut self.rng, rate)
    }

    // What is told of it

    /// Adds a line to the history, if there is to be one.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        let now = self.now();
        let condensed = now ^ self.effects << 32 ^ self.next_number << 48;
        self.digest = (self.digest ^ condensed)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(17);
        if self.history.is_some() {
            let line = line(self);
            if let Some(history) = &mut self.history {
                history.push(format!(
                    "{:>9.3}  {line}",
                    std::time::Duration::from_millis(now).as_secs_f64()
                ));
            }
        }
    }

    /// Something is not as promised.
    pub(crate) fn violate(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.oracle.violation.is_none() {
            let what = what(self);
            self.note(|_| format!("VIOLATION: {what}"));
            self.oracle.violation = Some(what);
        }
    }

    pub(crate) fn take_history(&mut self) -> Vec<String> {
        self.history.take().unwrap_or_default()
    }
}

pub(super) fn pick_of<T>(of: &[T], pick: u32) -> Option<&T> {
    (!of.is_empty()).then(|| &of[pick as usize % of.len()])
}

/// The identifier of the job of the n-th submission.
pub(crate) fn job_id(submission: u8) -> JobId {
    let mut bytes = [submission; JobId::LEN];
    bytes[0] = submission / 36;
    JobId::from_random(bytes)
}

fn read_clocks(now: u64, jump: i64) -> ClockReading {
    let elapsed = Duration::from_millis(now);
    let wall = BEGINNING.plus(elapsed).as_millis() + jump;
    ClockReading {
        wall: Timestamp::from_millis(wall),
        uptime: Some(Uptime {
            boot: String::new(),
            elapsed,
        }),
    }
}
