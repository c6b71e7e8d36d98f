//! Calls of the container engine: slow, lost on the way there or back, or carried out when nobody
//! waits for them any more.

use super::containers::{Reply, Request};
use super::setup::chance;
use super::world::{Event, Sim, World};
use crate::RunnerError;

/// Time for what the engine answers at once, in milliseconds.
pub(super) const QUICK: u64 = 8000;

/// How one call of the engine goes.
#[derive(Debug, Clone, Copy, Default)]
struct Call {
    before: u64,
    after: u64,
    dropped: bool,
    lost: bool,
}

impl World {
    fn draw_call(&mut self, limit: u64) -> Call {
        let (faults, rng) = (self.setup.faults, &mut self.rng);
        if self.engine_down {
            self.trouble(0);
            let before = if self.engine_hangs { limit + 1 } else { 0 };
            return Call {
                before,
                ..Call::default()
            };
        }
        let mut call = Call::default();
        if chance(rng, faults.delayed) {
            call.before = rng.u64(0..30);
            call.after = rng.u64(0..30);
        }
        if chance(rng, faults.slow) {
            call.before = rng.u64(1000..2 * limit.max(1000));
        }
        call.dropped = chance(rng, faults.dropped);
        call.lost = chance(rng, faults.lost);
        if call.dropped || call.lost || call.before > 1000 {
            self.trouble(call.before);
        }
        call
    }
}

/// A request on its way. Dropped before it was carried out it may be carried out all the same.
struct OnItsWay<'a> {
    sim: &'a Sim,
    request: Option<Request>,
    at: u64,
    number: u64,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            let mut world = self.sim.world();
            if world.killed.is_some() {
                world.forsaken.push((self.number, self.at, request));
            } else {
                world.forsake(self.at, request);
            }
        }
    }
}

impl World {
    /// What became of the requests that were on their way when the service was killed. Its tasks are
    /// dropped in no certain order, and a history has one.
    pub(crate) fn forsake_all(&mut self) {
        let mut forsaken = std::mem::take(&mut self.forsaken);
        forsaken.sort_by_key(|(number, ..)| *number);
        for (_, at, request) in forsaken {
            self.forsake(at, request);
        }
    }

    fn forsake(&mut self, at: u64, request: Request) {
        if !self.rng.bool() {
            return;
        }
        if let Request::RemoveContainer(uid) = &request
            && let Some((_, container)) = self.container(*uid)
        {
            // The engine begins with this: nothing starts it any more.
            container.dying = true;
            self.end(*uid, Some(137), false);
        }
        let at = at.max(self.now());
        self.schedule(at, Event::Late(request));
    }
}

impl Sim {
    /// Sends a request and waits for the answer, so many milliseconds at most.
    pub(super) async fn request(
        &self,
        operation: &'static str,
        limit: u64,
        request: Request,
    ) -> Result<Reply, RunnerError> {
        self.alive().await;
        let (call, now, yields, number) = {
            let mut world = self.world();
            let number = world.new_uid();
            let call = world.draw_call(limit);
            (call, world.now(), world.yields(), number)
        };
        if yields {
            tokio::task::yield_now().await;
        }
        let at = now + call.before;
        let mut on_its_way = OnItsWay {
            sim: self,
            request: (!call.dropped).then_some(request),
            at,
            number,
        };
        self.pause(call.before.min(limit)).await;
        if call.before > limit || call.dropped || self.world().engine_down {
            if self.world().engine_down {
                on_its_way.request = None;
            }
            return Err(unreachable(operation));
        }
        let Some(request) = on_its_way.request.take() else {
            return Err(unreachable(operation));
        };
        let Some(reply) = self.effect(|world| world.perform(&request)) else {
            // Killed before it: the request may have been under way already.
            on_its_way.request = Some(request);
            return std::future::pending().await;
        };
        self.pause(call.after).await;
        if call.lost {
            return Err(unreachable(operation));
        }
        Ok(reply)
    }

    pub(super) async fn look<R>(
        &self,
        operation: &'static str,
        limit: u64,
        look: impl FnOnce(&mut World) -> R,
    ) -> Result<R, RunnerError> {
        self.alive().await;
        let call = self.world().draw_call(limit);
        self.pause(call.before.min(limit)).await;
        if call.before > limit || call.dropped {
            return Err(unreachable(operation));
        }
        let seen = {
            let mut world = self.world();
            if world.engine_down {
                return Err(unreachable(operation));
            }
            look(&mut world)
        };
        self.pause(call.after).await;
        if call.lost {
            return Err(unreachable(operation));
        }
        Ok(seen)
    }
}

pub(super) fn unreachable(operation: &'static str) -> RunnerError {
    RunnerError {
        operation,
        detail: "no answer".into(),
        unreachable: true,
    }
}
