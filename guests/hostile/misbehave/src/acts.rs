//! What the hostile policy can be told to do.
//!
//! The policy does each of these, and a test of the policy host expects something of each: both
//! match this list in full, so that one without the other does not compile.

/// Makes the list and the names of what is in it.
macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident $name:literal,)+) => {
        /// One thing to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Act {
            $($(#[$doc])* $act,)+
        }

        impl Act {
            /// Everything there is.
            #[allow(dead_code, reason = "the policy needs it by name only")]
            pub(crate) const ALL: &[Self] = &[$(Self::$act,)+];

            /// Its name, by which the policy is told.
            #[allow(dead_code, reason = "the policy needs the way back only")]
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$act => $name,)+
                }
            }

            /// The one of that name.
            #[allow(dead_code, reason = "the tests need the names only")]
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$act),)+
                    _ => None,
                }
            }
        }
    };
}

acts! {
    // Taking time
    /// Computes for ever.
    Loop "loop",
    /// Sleeps for an hour.
    Sleep "sleep",
    /// Sleeps again and again.
    SleepForEver "sleep-for-ever",
    /// Writes to stderr for ever.
    Flood "flood",

    // Taking room
    /// Wants a gigabyte.
    GrowAtOnce "grow-at-once",
    /// Wants a megabyte again and again.
    GrowInSteps "grow-in-steps",
    /// Calls itself.
    Recurse "recurse",

    // Calling the host
    /// Reads the same fact for ever.
    CallGetters "call-getters",
    /// Reads its settings for ever.
    CallSettings "call-settings",
    /// Takes handles to the attempts for ever and gives none back.
    HoardHandles "hoard-handles",
    /// Names an input with more bytes than a text may have.
    HugeName "huge-name",

    // Ending
    /// Panics.
    Panic "panic",
    /// Aborts.
    Abort "abort",
    /// Ends its program as if all were well.
    ExitWell "exit-well",
    /// Ends its program with a failure.
    ExitBadly "exit-badly",

    // Answering
    /// Gives a reason that is too long.
    HugeReason "huge-reason",
    /// Gives one of megabytes.
    HoardedReason "hoarded-reason",
    /// Gives one that is not UTF-8.
    NotText "not-text",
    /// Writes much, then answers.
    Chatter "chatter",

    // Looking around
    /// Reads a file by its absolute path.
    ReadAbsolute "read-absolute",
    /// Reads a file by a path upwards.
    ReadUpwards "read-upwards",
    /// Writes a file.
    WriteFile "write-file",
    /// Links a file to where it stands and reads it there.
    FollowLink "follow-link",
    /// Lists a directory.
    ListDirectory "list-directory",
    /// Reads the environment and the arguments.
    ReadEnvironment "read-environment",
    /// Reads stdin.
    ReadStdin "read-stdin",
    /// Asks the clocks, twice.
    ProbeClocks "probe-clocks",
    /// Asks for random numbers.
    ProbeEntropy "probe-entropy",
    /// Starts a thread.
    StartThread "start-thread",
    /// Reads every fact about its job.
    ReadFacts "read-facts",

    // In directories: `/shown` to read, `/kept` to write
    /// Reads a file.
    ReadShown "read-shown",
    /// Tries every way out of it that there is.
    LeaveShown "leave-shown",
    /// Tries every way to change what is in it.
    ChangeShown "change-shown",
    /// Changes what is in it where it may.
    ChangeKept "change-kept",
    /// Opens a pipe that nobody writes to.
    OpenPipe "open-pipe",
    /// Opens files for ever and closes none.
    HoardFiles "hoard-files",
    /// Reads the same file for ever.
    ReadForEver "read-for-ever",
    /// Lengthens a file for ever.
    WriteForEver "write-for-ever",

    // Leaving something behind
    /// Counts its calls in a static and on the heap.
    Remember "remember",
    /// Fills memory with a secret and answers.
    LeaveSecret "leave-secret",
    /// Fills memory with a secret and keeps its slot until its time is up.
    LeaveSecretSlowly "leave-secret-slowly",
    /// Looks for the secret in all of its memory, and says how much of it is there.
    FindSecret "find-secret",
    /// The same after it left the secret itself: so one sees that looking finds it.
    FindOwnSecret "find-own-secret",
    /// Like `find-secret`; panics when it is there, and else keeps its slot until its time is up.
    FindSecretSlowly "find-secret-slowly",
}
