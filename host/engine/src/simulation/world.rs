//! The world of a simulated service: containers and volumes, events to come, and the time. It goes
//! on by itself while the service is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{
    ClockMark, ClockReading, Exit, ImageId, ImageRef, JobId, JobKind, Leftovers, Secret, Timestamp,
    Uptime,
};
use fastrand::Rng;
use gate::ContainerName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::memory::Memory;
use super::mutation::Mutation;
use super::oracle::Oracle;
use super::setup::{Action, Down, Setup, chance};
use crate::Sighting;

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
    Late(super::runner::Request),
    /// The store comes to its next write.
    Write,
    EngineUp,
    StoreUp,
    /// Everything is well from now on.
    Heal,
    /// It is looked whether all is at rest.
    Check,
}

/// What a program does once it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    /// It ends by itself after so many milliseconds.
    pub(crate) ends: Option<u64>,
    /// It ends so many milliseconds after SIGTERM; `None` ignores it.
    pub(crate) heeds: Option<u64>,
    /// Whether it delivers, by itself and when asked to end.
    pub(crate) delivers: bool,
    pub(crate) code: i32,
    pub(crate) code_when_asked: i32,
    pub(crate) out_of_memory: bool,
}

pub(crate) struct Container {
    pub(crate) uid: u64,
    /// Whether it is this installation's, by its labels.
    pub(crate) ours: bool,
    pub(crate) plan: String,
    pub(crate) kind: JobKind,
    pub(crate) image: ImageRef,
    pub(crate) image_id: ImageId,
    /// The container on whose volume it works: itself, unless it sends in what that one left.
    pub(crate) volume_of: ContainerName,
    pub(crate) env: BTreeMap<String, Secret>,
    pub(crate) sighting: Sighting,
    pub(crate) behaviour: Behaviour,
    /// Its removal is under way.
    pub(crate) dying: bool,
    pub(crate) changed: Arc<Notify>,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        matches!(self.sighting, Sighting::Running { .. })
    }
}

/// What a container left, or works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) left: Leftovers,
    /// Whether it holds the only copy of somebody's work.
    pub(crate) unsent: bool,
    /// When its container ended, in milliseconds of the history.
    pub(crate) ended: Option<u64>,
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
    pub(crate) forsaken: Vec<(u64, u64, super::runner::Request)>,
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
        use super::runner::Request;
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

    // Containers

    pub(crate) fn container(&mut self, uid: u64) -> Option<(ContainerName, &mut Container)> {
        self.containers
            .iter_mut()
            .find(|(_, container)| container.uid == uid)
            .map(|(name, container)| (name.clone(), container))
    }

    pub(crate) fn new_uid(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn draw_behaviour(&mut self, kind: JobKind) -> Behaviour {
        let rng = &mut self.rng;
        let ends = match rng.u32(0..10) {
            0..=1 => Some(rng.u64(0..10)),
            2..=5 => Some(rng.u64(1000..60_000)),
            _ => None,
        };
        let heeds = match rng.u32(0..10) {
            0..=1 => None,
            2 => Some(rng.u64(20_000..120_000)),
            _ => Some(rng.u64(0..20_000)),
        };
        let delivers = rng.u32(0..10) < 6;
        let out_of_memory = rng.u32(0..20) == 0;
        // The recorder's exit code lies in both directions, the transcriber's is true.
        let (code, code_when_asked) = match kind {
            JobKind::Recording => (i32::from(rng.u32(0..4) == 0), 1),
            JobKind::Transcribing => (i32::from(!delivers), i32::from(!delivers)),
        };
        Behaviour {
            ends,
            heeds,
            delivers: delivers && !out_of_memory,
            code: if out_of_memory { 137 } else { code },
            code_when_asked,
            out_of_memory,
        }
    }

    fn exit(&mut self, uid: u64, asked: bool) {
        let Some((_, container)) = self.container(uid) else {
            return;
        };
        let behaviour = container.behaviour;
        let code = if asked {
            behaviour.code_when_asked
        } else {
            behaviour.code
        };
        self.end(uid, Some(code), behaviour.delivers);
    }

    /// A container ends; without a code nobody knows how.
    pub(crate) fn end(&mut self, uid: u64, code: Option<i32>, delivers: bool) {
        let (now, wall) = (self.now(), self.wall());
        let Some((name, container)) = self.container(uid) else {
            return;
        };
        let Sighting::Running { since } = container.sighting else {
            return;
        };
        let (kind, ours) = (container.kind, container.ours);
        let volume_of = container.volume_of.clone();
        container.sighting = match code {
            Some(code) => Sighting::Ended(Exit {
                code,
                out_of_memory: container.behaviour.out_of_memory && code == 137,
                started_at: since,
                ended_at: wall,
            }),
            None => Sighting::Lost,
        };
        container.changed.notify_waiters();
        let delivered = match kind {
            JobKind::Recording => delivers,
            JobKind::Transcribing => code == Some(0),
        };
        let volume = self.volumes.get_mut(&volume_of).filter(|_| ours);
        if volume_of != name {
            // It leaves all as it was, or nothing to send.
            if let Some(volume) = volume.filter(|_| delivered) {
                volume.left.media_bytes = 0;
                volume.unsent = false;
            }
        } else if let Some(volume) = volume {
            let media_bytes = if delivers { 0 } else { 7 };
            volume.left = Leftovers {
                media_bytes,
                total_bytes: media_bytes + 3,
            };
            volume.unsent = !delivered;
            volume.ended = Some(now);
        }
        self.note(|_| format!("{name} ends: {code:?}, delivered: {delivers}"));
    }

    fn engine_goes_down(&mut self, millis: u64, live_restore: bool, hangs: bool) {
        self.note(|_| {
            format!("the container engine is away, {millis} ms, live-restore: {live_restore}, hangs: {hangs}")
        });
        (self.engine_down, self.engine_hangs) = (true, hangs);
        self.trouble(millis);
        let back = self.now() + millis;
        self.schedule(back, Event::EngineUp);
        for changed in self.containers.values().map(|c| Arc::clone(&c.changed)) {
            changed.notify_waiters();
        }
        if !live_restore {
            let running: Vec<u64> = self
                .containers
                .values()
                .filter(|c| c.runs())
                .map(|c| c.uid)
                .collect();
            for uid in running {
                let code = [None, None, Some(137), Some(255)][self.rng.usize(0..4)];
                self.end(uid, code, false);
            }
        }
    }

    fn remove_by_hand(&mut self, pick: u32) {
        let names: Vec<_> = self
            .containers
            .iter()
            .filter(|(_, c)| c.ours)
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = pick_of(&names, pick) else {
            return;
        };
        self.note(|_| format!("somebody removes {name}"));
        if let Some(container) = self.containers.remove(name) {
            container.changed.notify_waiters();
        }
        let now = self.now();
        // `docker rm -v`, or without: the named volume stays in both cases, unless removed too.
        if self.rng.bool() && !self.is_used(name) {
            self.volumes.remove(name);
        } else if let Some(volume) = self.volumes.get_mut(name) {
            volume.ended = Some(volume.ended.unwrap_or(now));
        }
        self.oracle.removed_by_hand.insert(name.clone());
    }

    /// Whether a container works on the volume of that name.
    pub(crate) fn is_used(&self, volume_of: &ContainerName) -> bool {
        let uses = |container: &Container| container.ours && container.volume_of == *volume_of;
        self.containers.values().any(uses)
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

fn pick_of<T>(of: &[T], pick: u32) -> Option<&T> {
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
