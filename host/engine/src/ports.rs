//! What the engine needs of the world. Adapters implement these; the engine knows no adapter.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    Choice, ClientId, Decision, EndReason, Exit, ImageId, ImageRef, Job, JobFacts, JobId, JobKind,
    Leftovers, Lifecycle, Purpose, RegistrationId, RetentionVerdict, RetryVerdict, Ruling, Secret,
    Timestamp,
};
use futures_util::stream::BoxStream;
use gate::{ContainerName, ImagePermit, LaunchPermit};

use crate::Slots;

/// The time. Wall-clock milliseconds that do not jump while the process lives.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// Site policy: one question, one ruling. Never fails: a policy that fails is answered for by its
/// `on_failure`, and the ruling's decisions tell.
#[async_trait]
pub trait Policies: Send + Sync + 'static {
    /// Which image to use.
    async fn select_image(&self, facts: &JobFacts, purpose: Purpose) -> Ruling<Choice>;
    /// Under which URL the job reaches its site.
    async fn select_site_url(&self, facts: &JobFacts) -> Ruling<Choice>;
    /// Whether another attempt follows a failed one.
    async fn retry(&self, facts: &JobFacts) -> Ruling<RetryVerdict>;
    /// What happens to the data of an ended job.
    async fn retention(&self, facts: &JobFacts) -> Ruling<RetentionVerdict>;
}

/// Runs containers, or what stands in for them. Takes permits and names, nothing else.
///
/// Every call may be repeated; a call on something that is gone succeeds or says so.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Makes an image present and tells its id. A pull under way is shared by all who ask for it
    /// and goes on when they stop waiting.
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError>;

    /// The id of an image that is known to be present without asking anybody: a job of it need not
    /// be saved as one that waits for its image.
    fn present(&self, _: &ImagePermit) -> Option<ImageId> {
        None
    }

    /// Creates and starts the container of a permit, once: a container of that name with the
    /// permit's labels and image counts as it and is not started again when it ever ran. Asks
    /// `ticket` at the last moment before the start, and answers within 20 s after its leave. After
    /// an error nothing of it is left that runs or will, except after [`LaunchError::Engine`].
    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError>;

    /// How the container is now.
    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError>;

    /// Waits until the container may have changed: it ended, or went out of sight. Inspect tells.
    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError>;

    /// Asks the container to end, with SIGTERM.
    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError>;

    /// Kills the container, with SIGKILL.
    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError>;

    /// What an ended container left in its volume; `None` when the container or volume is gone.
    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError>;

    /// What an ended container left in its volume, as a tar archive with the folder `data` in it;
    /// `None` when nothing of it is left.
    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError>;

    /// What is still known of how the container of an ended attempt was run; `None` when the
    /// container or its volume is gone.
    async fn remains(&self, name: &ContainerName) -> Result<Option<Remains>, RunnerError>;

    /// Removes the container and all volumes of its own; one that it got of another container stays.
    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError>;

    /// What the container wrote to stdout and stderr; `None` when there is no such container.
    async fn logs(
        &self,
        name: &ContainerName,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError>;

    /// Containers that carry this installation's label, tracked or not.
    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError>;

    /// What a container's labels say of its job, for a job whose record is lost; `None` when there
    /// is no such container, or its labels do not tell.
    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError>;

    /// Bytes free where the container engine keeps images and volumes; `None` when nobody can tell.
    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError>;

    /// Whether the container engine answers.
    async fn ping(&self) -> Result<(), RunnerError>;
}

/// How much of a container's output to read. All of it from its start on that is kept, and then…
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogsUntil {
    /// …no more: the stream ends.
    Now,
    /// …what it writes further, until it has ended.
    End,
}

/// Log bytes as they come.
pub type LogStream = BoxStream<'static, Result<Bytes, RunnerError>>;

/// A tar archive as it comes, no faster than it is taken. An archive that breaks off ends with an
/// error.
pub type FileStream = BoxStream<'static, Result<Bytes, RunnerError>>;

/// What is known of how a container was run.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// Its environment by name, with what its image brought along.
    pub env: BTreeMap<String, Secret>,
    /// Whether its image says that it sends in again what is in the volume, and does nothing else,
    /// when it is started with the argument `resend`.
    pub offers_resend: bool,
}

/// Asked right before a container is started. Gives leave only while somebody still waits for the
/// start and there is time for it, and once: a start that nobody knows the outcome of may be carried
/// out yet, and a second one would run again what has ended by then. Cheap to clone; all clones are
/// one.
#[derive(Clone)]
pub struct StartTicket {
    may_start: Arc<dyn Fn() -> bool + Send + Sync>,
    given_to: Arc<OnceLock<String>>,
}

/// What a [`StartTicket`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Start the container.
    Given,
    /// It was told to start before: find out what comes of it.
    GivenBefore,
    /// The container is not to start: remove it.
    Refused,
}

impl StartTicket {
    /// A ticket that asks `may_start`.
    pub fn new(may_start: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            may_start: Arc::new(may_start),
            given_to: Arc::default(),
        }
    }

    /// Whether leave was given, so that a container may have run.
    pub(crate) fn was_given(&self) -> bool {
        self.given_to.get().is_some()
    }

    /// Whether the container that the engine knows by this identifier may be started now.
    #[must_use]
    pub fn ask(&self, container: &str) -> Leave {
        if !(self.may_start)() {
            return Leave::Refused;
        }
        match self.given_to.set(container.to_owned()) {
            Ok(()) => Leave::Given,
            Err(_) if self.given_to.get().is_some_and(|id| id == container) => Leave::GivenBefore,
            // What was started is gone, and is not made anew.
            Err(_) => Leave::Refused,
        }
    }
}

/// A container that was started, or had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// When it ran.
    pub at: Timestamp,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// There is none of that name, or it is not ours.
    Absent,
    /// It was created and never ran.
    Created,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It ran and ended.
    Ended(Exit),
    /// It ran, does not any more, and the engine knows no exit.
    Lost,
}

/// A container as its labels and the container engine describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What its job does.
    pub kind: JobKind,
    /// The name of the client that it is for.
    pub client: ClientId,
    /// When the job was accepted.
    pub submitted_at: Timestamp,
    /// How long it may run.
    pub max_duration: Duration,
    /// The job whose volume it works on, where that is another one.
    pub resends: Option<JobId>,
    /// The image, as it was authorized.
    pub image: ImageRef,
    /// What the engine calls that image.
    pub image_id: ImageId,
    /// When the container ran, if it ever did.
    pub ran_at: Option<Timestamp>,
}

/// Why an image could not be made present.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrepareError {
    /// The pull failed; the reason is one of the `image-*` ones.
    #[error("image {image}: {detail}")]
    Pull {
        /// The image.
        image: String,
        /// Which class of failure.
        reason: EndReason,
        /// What the engine said, for people.
        detail: String,
    },
    /// The container engine does not answer.
    #[error(transparent)]
    Engine(#[from] RunnerError),
}

/// Why a container was not started. Nothing of it is left, except after [`LaunchError::Engine`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// The ticket said no.
    #[error("the start was withdrawn")]
    Withdrawn,
    /// What was created is not what was authorized.
    #[error("image {found} is not the authorized {authorized}")]
    ImageChanged {
        /// The image id of the created container.
        found: String,
        /// The permit's image id.
        authorized: String,
    },
    /// Something else has the container's name; it is left alone.
    #[error("the name {name} is taken by a container that is not this job's")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The engine refused to create or start it. It never ran.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// It went away while it was started: somebody removed it. It may have run.
    #[error("the container was removed while it was started")]
    Gone,
    /// The container engine does not answer. The container may exist, and may run now or soon:
    /// launch it again, which finds out, or remove it.
    #[error(transparent)]
    Engine(#[from] RunnerError),
}

/// Why what a container left cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FilesError {
    /// It still works on it.
    #[error("job is running")]
    Running,
    /// Another job works on it: that which sends it in again.
    #[error("job {0} is sending them in again")]
    BeingResent(JobId),
    /// The runner reads a volume through its container, and somebody removed that.
    #[error("its container is gone; its volume {volume} still has them: {by_hand}")]
    ContainerGone {
        /// The volume's name.
        volume: String,
        /// How to get at them without this service.
        by_hand: String,
    },
    /// The container engine failed.
    #[error(transparent)]
    Engine(#[from] RunnerError),
}

/// The container engine failed at an operation.
#[derive(Debug, Clone, thiserror::Error)]
#[error("container engine: {operation}: {detail}")]
pub struct RunnerError {
    /// What was tried.
    pub operation: &'static str,
    /// What was said, for people.
    pub detail: String,
    /// Whether the engine could not be reached at all.
    pub unreachable: bool,
}

/// Keeps jobs. Each call is one transaction, durable when it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Saves a new job if a slot is free and its key is not taken, in one transaction.
    async fn accept(&self, new: NewJob) -> Result<Accepted, StoreError>;
    /// Saves a job's new state with the decisions made since.
    async fn commit(&self, job: Arc<Job>, decisions: Vec<Decision>) -> Result<(), StoreError>;
    /// Removes a job's record; what its key stood for stays remembered until `key_until`.
    async fn forget(&self, id: &JobId, key_until: Timestamp) -> Result<(), StoreError>;
    /// The job of that id.
    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError>;
    /// The decisions about a job, oldest first.
    async fn decisions(&self, id: &JobId) -> Result<Vec<Decision>, StoreError>;
    /// The job that a key stands for.
    async fn by_key(&self, key: &JobKey, now: Timestamp) -> Result<Option<KeyedJob>, StoreError>;
    /// A page of jobs, newest first, each with the decisions about it.
    async fn page(&self, query: &JobQuery) -> Result<Vec<(Job, Vec<Decision>)>, StoreError>;
    /// Jobs that still have a duty, which are all but the removed, in the order of acceptance: the
    /// next few after one of them, or the first few. None when no more follow.
    async fn unfinished(&self, after: Option<&JobId>) -> Result<Vec<Job>, StoreError>;
    /// Removes records of jobs that were removed before `before`, and keys that ran out.
    async fn prune(&self, before: Timestamp, now: Timestamp) -> Result<u64, StoreError>;
    /// Why nothing can be saved at the moment, for people, if that is so.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// What somebody should look at, for people, though it is in nobody's way. Names no job.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The store failed at an operation. Nothing of it took effect.
#[derive(Debug, Clone, thiserror::Error)]
#[error("store: {operation}: {detail}")]
pub struct StoreError {
    /// What was tried.
    pub operation: &'static str,
    /// What went wrong, for people.
    pub detail: String,
}

/// What a submission is known by, so that sending it again does not run it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// Whose it is.
    pub owner: RegistrationId,
    /// sha256 of the job's kind and work id, or of its `Idempotency-Key`, hexadecimal.
    pub digest: String,
}

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job, preparing or starting its first attempt.
    pub job: Arc<Job>,
    /// The decisions made about it so far.
    pub decisions: Vec<Decision>,
    /// What it is known by, if anything: its work id, its `Idempotency-Key`, or both.
    pub keys: Vec<JobKey>,
    /// sha256 of the request's body, to tell the same submission from another under its key.
    pub body_sha256: String,
    /// How many jobs may be active beside it.
    pub slots: Slots,
}

/// What became of a job to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is saved and holds a slot.
    New,
    /// All slots are taken. Nothing was saved.
    Full,
    /// One of its keys stands for a job that is active or ran in the last 24 hours. Nothing was
    /// saved.
    Known(KeyedJob),
}

/// The job that a key stands for. A job that never ran gives its keys up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedJob {
    /// Its id; the record may be gone.
    pub id: JobId,
    /// sha256 of the body that it was submitted with.
    pub body_sha256: String,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only those of this registration.
    pub owner: Option<RegistrationId>,
    /// Only those in one of these states; empty is any.
    pub states: Vec<Lifecycle>,
    /// Only those that come after this one in the order newest first.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: u32,
}

/// Keeps who may use the service.
#[async_trait]
pub trait Registrations: Send + Sync + 'static {
    /// Registers a client.
    async fn register(
        &self,
        client: &ClientId,
        key_hash: &str,
        now: Timestamp,
    ) -> Result<Registered, StoreError>;
    /// The current registration of a client, with the hash of its key.
    async fn registration(&self, client: &ClientId) -> Result<Option<Registration>, StoreError>;
    /// Ends a registration; false when there is none. Its jobs stay, owned by nobody who can ask.
    async fn unregister(&self, client: &ClientId) -> Result<bool, StoreError>;
    /// How many clients are registered.
    async fn registered(&self) -> Result<u64, StoreError>;
    /// Registered clients, newest first: at most `limit` of those that were registered before
    /// `before`.
    async fn registrations(
        &self,
        before: Option<RegistrationId>,
        limit: u32,
    ) -> Result<Vec<RegisteredClient>, StoreError>;
}

/// A registered client as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// Which registration.
    pub id: RegistrationId,
    /// Its name.
    pub client: ClientId,
    /// When it was registered.
    pub registered_at: Timestamp,
}

/// Whether a client was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It is now.
    New(RegistrationId),
    /// It was already.
    AlreadyKnown,
}

/// A registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Which registration.
    pub id: RegistrationId,
    /// The hash of its key in PHC string format (argon2id), or bcrypt's.
    pub key_hash: String,
}
