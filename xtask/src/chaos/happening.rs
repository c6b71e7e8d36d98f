//! What can happen.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::random::Random;
use super::world::World;

/// How a job behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Works until it is asked to end, and has delivered then.
    WorksOn,
    /// Ends by itself very soon, well.
    Ends,
    /// The same with an error, and nothing delivered.
    Fails,
    /// Works until it is asked to end, and leaves its recording behind.
    Leaves,
    /// Takes no notice of being asked.
    Ignores,
    /// Its image has no program to run.
    CannotStart,
}

/// How a daemon or an engine goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    Stopped,
    Killed,
    /// Engines only: with the processes of all containers.
    PowerFailed,
}

/// Which of the containers that run, by a number that is taken modulo theirs.
pub(super) type Which = u64;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// A job is submitted, to run for so many seconds at most; its client hangs up after so many
    /// milliseconds, if it does.
    Submit {
        habit: Habit,
        seconds: u64,
        hangs_up: Option<u64>,
    },
    /// The same work as the last is submitted again.
    SubmitAgain,
    /// A container is asked to end.
    Ask(Which),
    /// A container is killed behind the daemon's back.
    KillContainer(Which),
    /// A container is removed behind the daemon's back.
    RemoveContainer(Which),
    /// The daemon goes and is back after so many milliseconds.
    Daemon { going: Going, away: u64 },
    /// The daemon is started so that it dies at a point, and comes back when it has.
    DaemonDiesAt { point: &'static str, pass: u64 },
    /// The engine goes and is back after so many milliseconds, with or without live-restore.
    Engine {
        going: Going,
        away: u64,
        live_restore: bool,
    },
    /// The engine answers nothing for so many milliseconds.
    EngineHangs { millis: u64 },
    /// Engine and daemon both go; the daemon is back first or last.
    Both { going: Going, daemon_first: bool },
    /// A job is deleted, whichever it is and whatever state it is in.
    Delete(Which),
    /// An administrator stops a job, whichever it is and whatever state it is in.
    Stop(Which),
    /// An administrator deletes a job by force.
    DeleteByForce(Which),
    /// Somebody asks for a job's logs and goes in the middle of it.
    ReadLogs(Which),
    /// Nothing, for so many milliseconds.
    Wait { millis: u64 },
}

impl Happening {
    pub(super) fn pick(random: &mut Random) -> Self {
        let habits = [
            Habit::WorksOn,
            Habit::WorksOn,
            Habit::Ends,
            Habit::Fails,
            Habit::Leaves,
            Habit::Ignores,
            Habit::CannotStart,
        ];
        let points = [
            "before-intent",
            "after-intent",
            "after-create",
            "after-start",
            "running-unsaved",
            "end-unsaved",
            "between-removals",
            "recovery",
        ];
        match random.below(100) {
            0..34 => Self::Submit {
                habit: random.one_of(&habits),
                seconds: random.one_of(&[2, 5, 600]),
                hangs_up: (random.below(5) == 0).then(|| random.below(1500)),
            },
            34..37 => Self::SubmitAgain,
            37..51 => Self::Ask(random.below(1000)),
            51..55 => Self::KillContainer(random.below(1000)),
            55..58 => Self::RemoveContainer(random.below(1000)),
            58..68 => Self::Daemon {
                going: random.one_of(&[Going::Stopped, Going::Killed, Going::Killed]),
                away: random.one_of(&[0, 0, 300, 2500]),
            },
            68..76 => Self::DaemonDiesAt {
                point: random.one_of(&points),
                pass: 1 + random.below(3),
            },
            76..81 => Self::Engine {
                going: random.one_of(&[Going::Stopped, Going::Killed, Going::PowerFailed]),
                away: random.one_of(&[0, 500, 3000]),
                live_restore: random.below(2) == 0,
            },
            81..83 => Self::EngineHangs {
                millis: random.one_of(&[300, 4000]),
            },
            83..85 => Self::Both {
                going: random.one_of(&[Going::Stopped, Going::Killed, Going::PowerFailed]),
                daemon_first: random.below(2) == 0,
            },
            85..89 => Self::Delete(random.below(1000)),
            89..92 => Self::Stop(random.below(1000)),
            92..94 => Self::DeleteByForce(random.below(1000)),
            94..96 => Self::ReadLogs(random.below(1000)),
            _ => Self::Wait {
                millis: random.below(2000),
            },
        }
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// When the test's own things fail. That the daemon does not answer is none.
    pub(super) async fn happen(self, world: &mut World) -> Result<()> {
        match self {
            Self::Submit {
                habit,
                seconds,
                hangs_up,
            } => {
                world.submit(habit, seconds, hangs_up.map(Duration::from_millis));
            }
            Self::SubmitAgain => world.submit_again(),
            Self::Ask(which) => world.signal(which, "TERM"),
            Self::KillContainer(which) => world.signal(which, "KILL"),
            Self::RemoveContainer(which) => world.remove_container(which),
            Self::Daemon { going, away } => {
                world.end_daemon(going);
                wait(away).await;
                world.start_daemon().await;
            }
            Self::DaemonDiesAt { point, pass } => {
                world.end_daemon(Going::Killed);
                world.start_daemon_dying_at(&format!("{point}:{pass}"));
            }
            Self::Engine {
                going,
                away,
                live_restore,
            } => {
                world.end_engine(going);
                wait(away).await;
                world.start_engine(live_restore).await?;
            }
            Self::EngineHangs { millis } => {
                world.freeze_engine();
                wait(millis).await;
                world.thaw_engine();
            }
            Self::Both {
                going,
                daemon_first,
            } => {
                world.end_daemon(going);
                world.end_engine(going);
                if daemon_first {
                    world.start_daemon().await;
                    world.start_engine(false).await?;
                } else {
                    world.start_engine(false).await?;
                    world.start_daemon().await;
                }
            }
            Self::Delete(which) => {
                world.ask_admin(
                    which,
                    |admin, id| async move { drop(admin.delete(&id).await) },
                );
            }
            Self::Stop(which) => {
                world.ask_admin(
                    which,
                    |admin, id| async move { drop(admin.stop(&id).await) },
                );
            }
            Self::DeleteByForce(which) => {
                world.ask_admin(which, |admin, id| async move {
                    drop(admin.delete_by_force(&id).await);
                });
            }
            Self::ReadLogs(which) => {
                let patience = Duration::from_millis(which % 100);
                world.ask_admin(which, move |admin, id| async move {
                    let _ = tokio::time::timeout(patience, admin.logs(&id)).await;
                });
            }
            Self::Wait { millis } => wait(millis).await,
        }
        Ok(())
    }
}

async fn wait(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
