//! A life of the service, from its start to its end; a history has one or more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{ClientId, InputValue, JobId, JobKind, RegistrationId, State, Timestamp};
use gate::{ContainerName, Gate, Grants};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until, timeout};

use super::instance;
use super::mutation::Mutation;
use super::setup::{Action, Down, Request, START_TIMEOUT, Setup};
use super::world::{Event, Sim, World, job_id};
use crate::{
    Clock, DeleteError, Engine, EngineConfig, Ports, Slots, StoreError, StrayRules, Submission,
};

/// How long a history may take to come to rest once all is well, in milliseconds.
const REST: u64 = 30 * 60 * 1000;
/// As the service's own: how long saving may take when it ends.
const LAST_COMMITS: Duration = Duration::from_secs(30);

/// A clock as the service's: it does not jump while the service lives.
struct SteadyClock {
    started: Timestamp,
    since: Instant,
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started.plus(self.since.elapsed())
    }
}

/// How far the end of a history has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It goes on as the setup says, until all is at rest.
    Going,
    /// What was kept for a time fell due while the service was down.
    KeptUntilDue,
    /// What is kept until somebody deletes it is deleted.
    Deleting,
}

/// Where a history is.
pub(super) struct Progress {
    stage: Stage,
    rest_by: Option<u64>,
    pause: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Going,
            rest_by: None,
            pause: 0,
        }
    }

    fn next(&mut self, stage: Stage) {
        (self.stage, self.rest_by, self.pause) = (stage, None, 0);
    }
}

/// Lets the service live until it is killed. False when the history is over.
pub(super) fn live(sim: &Sim, progress: &mut Progress) -> bool {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let down = runtime.block_on(async {
        let down = serve(sim, progress).await;
        sim.world().end_life(down.unwrap_or(Down {
            millis: 0,
            clock_jump: 0,
            again_at: None,
        }));
        down
    });
    // As by SIGKILL: tasks are dropped wherever they are, and nobody asks them to end.
    drop(runtime);
    let Some(down) = down else { return false };
    let mut world = sim.world();
    world.forsake_all();
    world.lose_writes();
    world.ask_again(down);
    world.pass_without_service(down);
    true
}

async fn start(sim: Sim, clock: Arc<SteadyClock>) -> Result<Engine, StoreError> {
    let (setup, mutation) = {
        let world = sim.world();
        (world.setup.clone(), world.mutation)
    };
    let config = EngineConfig {
        instance: instance(),
        slots: Slots::of(setup.slots),
        min_free_bytes: 0,
        start_timeout: START_TIMEOUT,
        failed_retention: setup.failed_retention,
        history_retention: Duration::from_secs(30 * 86_400),
        strays: StrayRules::default(),
    };
    let port = Arc::new(sim);
    let ports = Ports {
        runner: port.clone(),
        store: port.clone(),
        policies: port,
        clock,
    };
    Engine::start(config, gate(&setup, mutation), ports).await
}

fn gate(setup: &Setup, mutation: Option<Mutation>) -> Gate {
    let mut grants = Grants::standard("mattermost");
    for grants in [&mut grants.recording, &mut grants.transcribing] {
        grants.stop_grace = setup.grace;
        grants.retry.max_attempts = setup.max_attempts;
        grants.retry.after_run = setup.after_run || mutation == Some(Mutation::RetryAfterRun);
        grants.retention.failed_at_least = setup.floor;
        grants.retention.at_most = Duration::from_secs(86_400);
    }
    Gate::new(grants, instance()).expect("grants that are in order")
}

/// `None` when the history is over, else how the service was killed.
async fn serve(sim: &Sim, progress: &mut Progress) -> Option<Down> {
    let started = sim.world().begin_life();
    let since = Instant::now();
    let clock = Arc::new(SteadyClock { started, since });
    let mut starting = Box::pin(start(sim.clone(), clock));
    let mut engine: Option<Engine> = None;
    let epoch = sim.world().now();
    loop {
        let next = loop {
            let mut world = sim.world();
            if world.oracle.violation.is_some() {
                return None;
            }
            if let Some(down) = world.killed {
                return Some(down);
            }
            let now = world.now();
            match world.pop_due(now) {
                Some((_, event)) => {
                    drop(world);
                    if happen(sim, engine.as_ref(), progress, event) {
                        return None;
                    }
                }
                None => break world.next_event(),
            }
        };
        let next = next.map(|at| since + Duration::from_millis(at - epoch));
        tokio::select! {
            biased;
            () = sim.woken() => {}
            started = &mut starting, if engine.is_none() => match started {
                Ok(started) => engine = Some(started),
                Err(error) => {
                    let mut world = sim.world();
                    world.note(|_| format!("the service does not start: {error}"));
                    world.kill(Down { millis: 1000, clock_jump: 0, again_at: None });
                }
            },
            () = sleep_until(next.unwrap_or(since)), if next.is_some() => {}
        }
    }
}

/// True when the history is over.
fn happen(sim: &Sim, engine: Option<&Engine>, progress: &mut Progress, event: Event) -> bool {
    let Some(engine) = engine else {
        sim.world().happen(event);
        return false;
    };
    match event {
        Event::Act(action) => act(sim, engine, action),
        Event::Check => return check(sim, engine, progress),
        event => sim.world().happen(event),
    }
    false
}

fn act(sim: &Sim, engine: &Engine, action: Action) {
    let (sim, engine) = (sim.clone(), engine.clone());
    match action {
        Action::Submit(request) => {
            let number = {
                let mut world = sim.world();
                let number = world.submissions;
                world.submissions += 1;
                world.note(|_| format!("submission {number} {}: {request:?}", job_id(number)));
                world.asking.insert(number, request.clone());
                number
            };
            tokio::spawn(submit(sim, engine, number, request));
        }
        Action::Stop(pick) => {
            let Some(id) = sim.world().pick_job(pick) else {
                return;
            };
            sim.world().oracle.asked_to_stop.insert(id.clone());
            tokio::spawn(async move {
                let result = engine.stop(&id).await;
                sim.alive().await;
                sim.world().note(|_| format!("stop {id}: {result:?}"));
            });
        }
        Action::Delete(pick) => {
            let id = sim.world().pick_job(pick);
            if let Some(id) = id {
                tokio::spawn(delete(sim, engine, id, false));
            }
        }
        Action::Resend { pick, hangs_up } => {
            let mut world = sim.world();
            let Some(of) = world.pick_unsent(pick) else {
                return;
            };
            let number = world.submissions;
            world.submissions += 1;
            let id = job_id(number);
            world.note(|_| format!("resend {id} of {of}"));
            world.resending.insert(id.clone());
            drop(world);
            tokio::spawn(resend(sim, engine, id, of, hangs_up));
        }
        Action::Read(pick) => {
            let Some(id) = sim.world().pick_job(pick) else {
                return;
            };
            tokio::spawn(async move {
                if let Ok(Some(view)) = engine.job(&id).await {
                    sim.alive().await;
                    sim.world().saw_view(&view);
                }
            });
        }
        Action::Foreign(pick) => {
            let id = job_id((pick % 8) as u8);
            let name = ContainerName::new(instance(), id, 1);
            sim.world().take_name(name, JobKind::Recording);
        }
        Action::Crash(down) => sim.world().kill(down),
        Action::CrashAt {
            effect,
            after_it,
            down,
        } => sim.world().arm(effect, after_it, down),
        Action::Shutdown(down) => {
            sim.world().note(|_| "SIGTERM".into());
            tokio::spawn(async move {
                let in_time = timeout(LAST_COMMITS, engine.shutdown()).await.is_ok();
                // Those who were told so still get their answer.
                tokio::task::yield_now().await;
                sim.alive().await;
                let mut world = sim.world();
                world.note(|_| format!("ended, in time: {in_time}"));
                world.kill(down);
                drop(world);
                sim.wake();
            });
        }
        action => sim.world().happen(Event::Act(action)),
    }
}

/// Whoever insists tries again once what stands in the way is gone.
async fn delete(sim: Sim, engine: Engine, id: JobId, insists: bool) {
    loop {
        sim.world().oracle.asks_to_delete(&id);
        let result = engine.delete(&id).await;
        sim.alive().await;
        {
            let mut world = sim.world();
            world.note(|_| format!("delete {id}: {result:?}"));
            match &result {
                // What was refused has no effect later.
                Err(DeleteError::Running | DeleteError::BeingResent(_)) => {
                    world.oracle.asked_in_vain(&id);
                }
                Ok(()) if world.memory.job(&id).is_some() => {
                    world.violate(|_| format!("job {id} was deleted and is there"));
                }
                _ => {}
            }
        }
        let again = matches!(
            result,
            Err(DeleteError::BeingResent(_) | DeleteError::Engine(_))
        );
        if !insists || !again {
            return;
        }
        sim.pause(1000).await;
    }
}

async fn resend(sim: Sim, engine: Engine, id: JobId, of: JobId, hangs_up: Option<u64>) {
    let sent = sim.world().now();
    let answer = {
        let patience = Duration::from_millis(hangs_up.unwrap_or(u64::MAX / 2));
        tokio::select! {
            biased;
            answer = engine.resend_as(id.clone(), &of) => Some(answer),
            () = tokio::time::sleep(patience) => None,
        }
    };
    sim.alive().await;
    let mut world = sim.world();
    world.resending.remove(&id);
    match answer {
        Some(answer) => {
            world.note(|_| match &answer {
                Ok(_) => format!("answer to {id}: 200"),
                Err(error) => format!("answer to {id}: {error}"),
            });
            world.saw_answer(&id, sent, &answer);
        }
        None => world.note(|_| format!("the administrator does not wait for {id}")),
    }
}

async fn submit(sim: Sim, engine: Engine, number: u8, request: Request) {
    let (id, sent) = (job_id(number), sim.world().now());
    let answer = {
        let submitting = engine.submit_as(id.clone(), submission(&request));
        let patience = Duration::from_millis(request.hangs_up.unwrap_or(u64::MAX / 2));
        tokio::select! {
            biased;
            answer = submitting => Some(answer),
            () = tokio::time::sleep(patience) => None,
        }
    };
    sim.alive().await;
    let mut world = sim.world();
    world.asking.remove(&number);
    match answer {
        Some(answer) => {
            world.note(|_| match &answer {
                Ok(view) => format!("answer to {number}: 200, job {}", view.job.id),
                Err(error) => format!("answer to {number}: {error}"),
            });
            world.saw_answer(&id, sent, &answer);
        }
        None => world.note(|_| format!("client {number} hangs up")),
    }
}

fn submission(request: &Request) -> Submission {
    let text = |text: &str| InputValue::Text(text.to_owned());
    let work = char::from(b'a' + request.work as u8).to_string().repeat(26);
    let inputs = BTreeMap::from([
        (
            "site_url".to_owned(),
            text("https://mattermost.example.com"),
        ),
        (request.kind.work_id_input().to_owned(), text(&work)),
        ("auth_token".to_owned(), text("tttttttttttttttttttttttttt")),
    ]);
    let program = match request.kind {
        JobKind::Recording => "recorder",
        JobKind::Transcribing => "transcriber",
    };
    Submission {
        owner: RegistrationId(1),
        client: ClientId::new("site").expect("a name"),
        kind: request.kind,
        runner: format!("mattermost/calls-{program}:v0.8.1"),
        max_duration: request.max_duration,
        inputs,
        idempotency_key: request.header.map(|key| key.to_string()),
        body_sha256: format!("{:?} {} {}", request.kind, request.work, request.body),
    }
}

impl World {
    /// Clients that got no answer; some send the same again.
    fn ask_again(&mut self, down: Down) {
        let at = self.now() + down.millis + 2000;
        self.resending.clear();
        for (number, request) in std::mem::take(&mut self.asking) {
            self.note(|_| format!("client {number} gets no answer"));
            if request.insists && self.submissions < 30 {
                self.schedule(at, Event::Act(Action::Submit(request)));
            }
        }
    }
}

/// True when the history is over: all is at rest, and what fell due has come about.
fn check(sim: &Sim, engine: &Engine, progress: &mut Progress) -> bool {
    let mut world = sim.world();
    let now = world.now();
    let rest_by = *progress.rest_by.get_or_insert(now + REST);
    let mut unrest = world.unrest(engine);
    let kept: Vec<_> = world
        .memory
        .jobs
        .iter()
        .filter(|job| matches!(job.state, State::Retained { .. }))
        .map(|job| job.id.clone())
        .collect();
    if progress.stage == Stage::Deleting && !kept.is_empty() {
        unrest.push(format!("{kept:?} are deleted and kept"));
    }
    if !unrest.is_empty() {
        if now > rest_by {
            world.violate(|_| format!("nothing comes to rest: {}", unrest.join("; ")));
            return true;
        }
        progress.pause = (progress.pause * 2).clamp(1000, 30_000);
        world.schedule(now + progress.pause, Event::Check);
        return false;
    }
    world.note(|_| format!("all is at rest, {:?}", progress.stage));
    match (progress.stage, world.kept_until()) {
        (Stage::Going, Some(until)) => {
            progress.next(Stage::KeptUntilDue);
            let millis = until.after(world.service_now()).as_millis() as u64 + 10_000;
            world.schedule(now, Event::Check);
            world.kill(Down {
                millis,
                clock_jump: 0,
                again_at: None,
            });
            false
        }
        (Stage::Deleting, _) => true,
        _ if kept.is_empty() => true,
        _ => {
            progress.next(Stage::Deleting);
            world.schedule(now + 1000, Event::Check);
            drop(world);
            for id in kept {
                tokio::spawn(delete(sim.clone(), engine.clone(), id, true));
            }
            false
        }
    }
}
