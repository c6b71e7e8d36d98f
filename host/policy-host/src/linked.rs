//! A component with what it may reach: linked once, instantiated and called for each decision.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use tokio::runtime::Handle;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentNamedList, Instance, InstancePre, Lift, Lower};

use crate::chain::Said;
use crate::failure::Failure;
use crate::guest::Guest;
use crate::hooks::{Exports, Function, Question};

/// A component that is ready to be instantiated.
///
/// Where nothing that it can call waits, it is called like any function, on the stack of whoever asks:
/// that takes microseconds, and looking at the time in its loops is enough to end it. A component that
/// can wait gets a stack of its own, so that it can be left where it waits when its time is up.
pub(crate) struct Linked {
    instances: InstancePre<Guest>,
    /// Where waits take place, if it has something to wait for.
    waits: Option<Handle>,
}

impl Linked {
    pub(crate) fn new(instances: InstancePre<Guest>, waits: Option<Handle>) -> Self {
        Self { instances, waits }
    }

    pub(crate) fn component(&self) -> &Component {
        self.instances.component()
    }

    /// Makes an instance.
    pub(crate) fn instance(&self, store: &mut Store<Guest>) -> Result<Instance, Failure> {
        let instance = match &self.waits {
            None => self.instances.instantiate(&mut *store),
            Some(runtime) => {
                let end = End::of(store.data());
                end.wait(runtime, self.instances.instantiate_async(&mut *store))?
            }
        };
        instance.map_err(|error| Failure::of_instantiation(&error))
    }

    /// Calls a function of an instance that was made here.
    pub(crate) fn call<P, R>(
        &self,
        function: &Function<P, R>,
        store: &mut Store<Guest>,
        instance: &Instance,
        params: P,
    ) -> Result<R, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let answer = function
            .of(store, instance)
            .and_then(|function| match &self.waits {
                None => function.call(store, params),
                Some(runtime) => {
                    let end = End::of(store.data());
                    end.wait(runtime, function.call_async(store, params))?
                }
            });
        answer.map_err(|error| Failure::of_call(&error))
    }

    /// Puts a question to an instance that was made here.
    pub(crate) fn put<Q: Question>(
        &self,
        question: Q,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<Q::Verdict>, Failure> {
        let function = Q::function(exports).expect("policies are asked what they export");
        Q::said(self.call(function, store, instance, question.params())?)
    }
}

/// When a decision ends, and what it failed at then.
struct End {
    at: Instant,
    failure: Failure,
}

impl End {
    fn of(guest: &Guest) -> Self {
        Self {
            at: guest.deadline(),
            failure: guest.timed_out(),
        }
    }

    /// Does work until it is done or its time is up, wherever it is then. What computes for too long
    /// ends itself at the next epoch; this is for what waits.
    ///
    /// The thread sleeps until then instead of asking the runtime for a timer, which counts in whole
    /// milliseconds.
    fn wait<T>(self, runtime: &Handle, work: impl Future<Output = T>) -> Result<T, Failure> {
        let _entered = runtime.enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut work = pin!(work);
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                return Ok(done);
            }
            let left = self.at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failure);
            }
            thread::park_timeout(left);
        }
    }
}

/// Wakes the thread of a decision.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
