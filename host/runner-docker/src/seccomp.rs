//! The seccomp profile of every container: Docker's default list of allowed calls, and what
//! Chromium's own sandbox needs beside it.
//!
//! Everything that is not listed answers EPERM. The engine's default depends on its age; this one
//! is the same everywhere. It does not loosen with capabilities: an operator who grants one does
//! not thereby allow the calls that Docker ties to it.

use serde::Serialize;
use serde_json::{Value, json};

/// Namespaces that no process may make: mount, cgroup, UTS and IPC. Docker's own mask also holds
/// user, PID and network, which Chromium gives its renderers.
const FORBIDDEN_NAMESPACES: u64 = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC;
const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Sockets into the hypervisor.
const AF_VSOCK: u64 = 40;

/// Execution domains that change nothing about security: Linux, Linux 32 bit, both with the
/// UNAME26 flag, and the one that only asks.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const ENOSYS: u32 = 38;

/// Calls that any program may make, by subject. An engine skips names that it does not know.
/// io_uring is not among them: current engines leave it out of their default as well.
const ALLOWED: &[&str] = &[
    // Files by path
    "access chdir chmod chown chown32 creat faccessat faccessat2 fanotify_mark fchmodat \
     fchmodat2 fchownat fstatat64 futimesat getcwd getxattr lchown lchown32 lgetxattr link \
     linkat listxattr llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod \
     mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat removexattr \
     rename renameat renameat2 rmdir setxattr stat stat64 statfs statfs64 statx symlink \
     symlinkat truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 \
     utimes",
    // Files by descriptor
    "_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 \
     fallocate fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
     fremovexattr fsetxattr fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
     getdents getdents64 ioctl lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev \
     pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range \
     sync_file_range2 arm_fadvise64_64 arm_sync_file_range syncfs tee vmsplice write writev",
    // Waiting for events
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
     epoll_wait epoll_wait_old eventfd eventfd2 inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
     io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd \
     signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64",
    // Network
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
     recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown \
     socketcall socketpair",
    // Memory
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
     mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
     pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Processes and threads
    "alarm arch_prctl breakpoint cacheflush capget capset execve execveat exit exit_group fork \
     futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list \
     get_thread_area getcpu getitimer getpgid getpgrp getpid getppid getpriority getrlimit \
     getrusage getsid gettid ioprio_get ioprio_set kill modify_ldt nanosleep pause pidfd_open \
     pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace \
     restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
     sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
     sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     set_robust_list set_thread_area set_tid_address set_tls setitimer setpgid setpriority \
     setrlimit setsid sigaltstack sigprocmask sigreturn tgkill tkill ugetrlimit vfork wait4 \
     waitid waitpid",
    // Users and groups
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid \
     getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 \
     setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid \
     setresuid32 setreuid setreuid32 setuid setuid32",
    // System V and POSIX queues, semaphores, shared memory
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
    // Clocks and timers; setting the clock needs a capability that nobody has
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday time timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
     times",
    // The rest, among them what a program restricts itself with
    "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp sysinfo \
     uname",
];

#[derive(Serialize)]
struct Rule {
    names: Vec<&'static str>,
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Value>,
    #[serde(rename = "errnoRet", skip_serializing_if = "Option::is_none")]
    errno: Option<u32>,
}

fn allow(names: &'static str, args: Vec<Value>) -> Rule {
    Rule {
        names: names.split_whitespace().collect(),
        action: "SCMP_ACT_ALLOW",
        args,
        errno: None,
    }
}

fn argument(index: u32, op: &str, value: u64) -> Value {
    json!({"index": index, "op": op, "value": value, "valueTwo": 0})
}

/// The profile as the engine takes it: JSON text.
pub(crate) fn profile() -> String {
    let mut rules: Vec<Rule> = ALLOWED
        .iter()
        .map(|names| allow(names, Vec::new()))
        .collect();
    rules.push(allow("socket", vec![argument(0, "SCMP_CMP_NE", AF_VSOCK)]));
    for domain in PERSONALITIES {
        rules.push(allow(
            "personality",
            vec![argument(0, "SCMP_CMP_EQ", domain)],
        ));
    }
    // Chromium's sandbox: processes in user, PID and network namespaces of their own…
    rules.push(allow(
        "clone",
        vec![argument(0, "SCMP_CMP_MASKED_EQ", FORBIDDEN_NAMESPACES)],
    ));
    // …its check that it may have them…
    rules.push(allow(
        "unshare",
        vec![argument(0, "SCMP_CMP_EQ", CLONE_NEWUSER)],
    ));
    // …and an empty root folder for them.
    rules.push(allow("chroot", Vec::new()));
    // Its flags are in memory, where a filter cannot see them; libraries then fall back to clone.
    rules.push(Rule {
        names: vec!["clone3"],
        action: "SCMP_ACT_ERRNO",
        args: Vec::new(),
        errno: Some(ENOSYS),
    });
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": rules,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_masks_are_the_measured_ones() {
        assert_eq!(FORBIDDEN_NAMESPACES, 235_012_096);
        assert_eq!(CLONE_NEWUSER, 268_435_456);
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for name in ALLOWED.iter().flat_map(|names| names.split_whitespace()) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn what_reaches_beyond_the_container_is_not_listed_at_all() {
        let profile: Value = serde_json::from_str(&profile()).unwrap();
        let named: BTreeSet<&str> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        let forbidden = "acct add_key bpf clock_settime delete_module fanotify_init \
                         finit_module fsconfig fsmount fsopen init_module io_uring_setup \
                         ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie \
                         mount mount_setattr move_mount open_by_handle_at open_tree \
                         perf_event_open pidfd_getfd pivot_root quotactl reboot request_key \
                         setdomainname sethostname setns settimeofday swapoff swapon syslog \
                         umount umount2 userfaultfd vhangup";
        for forbidden in forbidden.split_whitespace() {
            assert!(!named.contains(forbidden), "{forbidden}");
        }
        let rules_for = |name: &str| {
            profile["syscalls"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|rule| rule["names"] == json!([name]))
                .count()
        };
        assert_eq!(
            (
                rules_for("clone"),
                rules_for("unshare"),
                rules_for("chroot")
            ),
            (1, 1, 1)
        );
    }
}
