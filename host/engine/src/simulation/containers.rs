//! The simulated container engine: its containers and volumes, what is asked of it and how it
//! carries that out.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{Exit, ImageId, ImageRef, JobKind, Leftovers, Secret};
use gate::ContainerName;
use tokio::sync::Notify;

use super::mutation::Mutation;
use super::world::{Event, World, pick_of};
use crate::Sighting;

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

/// What changes something.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Create(Box<Creation>),
    Start(u64),
    Terminate(ContainerName),
    Kill(ContainerName),
    RemoveContainer(u64),
    RemoveVolume(ContainerName),
}

#[derive(Debug, Clone)]
pub(crate) struct Creation {
    pub(super) name: ContainerName,
    pub(super) plan: String,
    pub(super) kind: JobKind,
    pub(super) image: ImageRef,
    pub(super) image_id: ImageId,
    pub(super) volume_of: ContainerName,
    pub(super) env: BTreeMap<String, Secret>,
    pub(super) refused: bool,
    pub(super) other_image: bool,
}

#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Created(Seen),
    Conflict,
    Refused,
}

/// A container as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(super) uid: u64,
    pub(super) ours: bool,
    pub(super) plan: String,
    pub(super) image_id: ImageId,
    pub(super) sighting: Sighting,
}

impl World {
    /// Carries a request out.
    pub(crate) fn perform(&mut self, request: &Request) -> Reply {
        match request {
            Request::Create(creation) => self.create(creation),
            Request::Start(uid) => self.start(*uid),
            Request::Terminate(name) => {
                let now = self.now();
                if let Some((uid, behaviour)) = self.signalled(name, false)
                    && let Some(after) = behaviour.heeds
                {
                    self.schedule(now + after, Event::Exit { uid, asked: true });
                }
                Reply::Done
            }
            Request::Kill(name) => {
                if let Some((uid, _)) = self.signalled(name, true) {
                    self.end(uid, Some(137), false);
                }
                Reply::Done
            }
            Request::RemoveContainer(uid) => {
                if let Some(name) = self.container(*uid).map(|(name, _)| name) {
                    self.saw_removal(&name, false);
                    if let Some(container) = self.containers.remove(&name) {
                        self.note(|_| format!("removed {name}"));
                        container.changed.notify_waiters();
                    }
                    // What it left is kept from now on, if it still ran.
                    let now = self.now();
                    if let Some(volume) = self.volumes.get_mut(&name) {
                        volume.ended = Some(volume.ended.unwrap_or(now));
                    }
                }
                Reply::Done
            }
            Request::RemoveVolume(name) => {
                // The engine refuses while a container uses it.
                if !self.is_used(name) {
                    if self.volumes.contains_key(name) {
                        self.saw_removal(name, true);
                        self.volumes.remove(name);
                    }
                    Reply::Done
                } else {
                    Reply::Refused
                }
            }
        }
    }

    /// The running container that a signal reaches.
    fn signalled(&mut self, name: &ContainerName, kill: bool) -> Option<(u64, Behaviour)> {
        let anybodys = self.mutation == Some(Mutation::AdoptAnything);
        let reached = |c: &&Container| (c.ours || anybodys) && c.runs();
        let container = self.containers.get(name).filter(reached)?;
        let reached = (container.uid, container.behaviour);
        self.saw_signal(name, kill);
        Some(reached)
    }

    fn create(&mut self, creation: &Creation) -> Reply {
        let name = &creation.name;
        if self.containers.contains_key(name) {
            return Reply::Conflict;
        }
        if creation.volume_of == *name {
            // The engine makes the volume first.
            self.make_volume(name);
        } else if !self.volumes.contains_key(&creation.volume_of) {
            return Reply::Refused;
        }
        if creation.refused {
            return Reply::Refused;
        }
        let uid = self.new_uid();
        let image_id = if creation.other_image {
            image_id('f')
        } else {
            creation.image_id.clone()
        };
        let container = Container {
            uid,
            ours: true,
            plan: creation.plan.clone(),
            kind: creation.kind,
            image: creation.image.clone(),
            image_id,
            volume_of: creation.volume_of.clone(),
            env: creation.env.clone(),
            sighting: Sighting::Created,
            behaviour: self.draw_behaviour(creation.kind),
            dying: false,
            changed: Arc::new(Notify::new()),
        };
        self.note(|_| format!("created {name} #{uid} {:?}", container.behaviour));
        let seen = see(&container);
        self.containers.insert(name.clone(), container);
        Reply::Created(seen)
    }

    fn make_volume(&mut self, name: &ContainerName) {
        let empty = Volume {
            left: Leftovers {
                media_bytes: 0,
                total_bytes: 0,
            },
            unsent: false,
            ended: None,
        };
        self.volumes.entry(name.clone()).or_insert(empty);
    }

    fn start(&mut self, uid: u64) -> Reply {
        let (now, since) = (self.now(), self.wall());
        // The engine keeps the order of what it is asked about one container.
        self.drop_late_start(uid);
        let Some((name, container)) = self.container(uid) else {
            return Reply::Refused;
        };
        if container.runs() {
            return Reply::Done;
        }
        if container.dying {
            return Reply::Refused;
        }
        container.sighting = Sighting::Running { since };
        let ends = container.behaviour.ends;
        let (kind, own) = (container.kind, container.volume_of == name);
        if let Some(volume) = self.volumes.get_mut(&name).filter(|_| own) {
            // It works from now on, and until it has delivered this is the only copy.
            volume.left = Leftovers {
                media_bytes: 7,
                total_bytes: 10,
            };
            volume.unsent = kind == JobKind::Recording;
        }
        self.note(|_| format!("started {name} #{uid}"));
        self.saw_start(&name);
        if let Some(after) = ends {
            self.schedule(now + after, Event::Exit { uid, asked: false });
        }
        Reply::Done
    }

    /// Something that is not ours takes a name.
    pub(crate) fn take_name(&mut self, name: ContainerName, kind: JobKind) {
        if self.containers.contains_key(&name) {
            return;
        }
        self.note(|_| format!("a foreign container takes the name {name}"));
        let uid = self.new_uid();
        let since = self.wall();
        let container = Container {
            uid,
            ours: false,
            plan: String::new(),
            kind,
            image: "library/foreign:v1".parse().expect("an image"),
            image_id: image_id('a'),
            volume_of: name.clone(),
            env: BTreeMap::new(),
            sighting: Sighting::Running { since },
            behaviour: self.draw_behaviour(kind),
            dying: false,
            changed: Arc::new(Notify::new()),
        };
        self.containers.insert(name, container);
    }

    pub(crate) fn container(&mut self, uid: u64) -> Option<(ContainerName, &mut Container)> {
        self.containers
            .iter_mut()
            .find(|(_, container)| container.uid == uid)
            .map(|(name, container)| (name.clone(), container))
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

    pub(super) fn exit(&mut self, uid: u64, asked: bool) {
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

    pub(super) fn engine_goes_down(&mut self, millis: u64, live_restore: bool, hangs: bool) {
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

    pub(super) fn remove_by_hand(&mut self, pick: u32) {
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
}

pub(super) fn see(container: &Container) -> Seen {
    Seen {
        uid: container.uid,
        ours: container.ours,
        plan: container.plan.clone(),
        image_id: container.image_id.clone(),
        sighting: container.sighting,
    }
}

pub(super) fn image_id(digit: char) -> ImageId {
    format!("sha256:{}", digit.to_string().repeat(64))
        .parse()
        .expect("an image id")
}
