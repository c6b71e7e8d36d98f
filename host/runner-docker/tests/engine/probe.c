/* What the tests' containers run: does what its arguments say, one after the other.
 *
 *   hold=N     wait for SIGTERM, then exit with N
 *   ignore     wait for ever, deaf to SIGTERM
 *   exit=N     exit with N
 *   file=P:N   write N bytes to file P, making its folder
 *   remove=P   remove file P; exit with 92 if there is none
 *   print=N    write N lines to stdout and to stderr, taking turns
 *   status     print what the kernel says about this process, and the environment
 *   syscalls   try calls, and print name and error number of each
 *   eat        use memory until killed
 *   fork       start processes until refused, and print how many there were
 *
 * When its last argument is "resend", only what has "resend:" in front, else only what has not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static volatile sig_atomic_t terminated;

static void on_term(int signal) { (void)signal; terminated = 1; }

static void hold(int code) {
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    signal(SIGTERM, on_term);
    printf("ready\n");
    fflush(stdout);
    while (!terminated) sigsuspend(&before);
    exit(code);
}

static void file(const char *spec) {
    char path[4096], folder[4096];
    long bytes = 0;
    if (sscanf(spec, "%4095[^:]:%ld", path, &bytes) != 2) exit(90);
    strcpy(folder, path);
    *strrchr(folder, '/') = 0;
    mkdir(folder, 0755);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    char block[4096];
    memset(block, 'x', sizeof block);
    while (fd >= 0 && bytes > 0) {
        ssize_t written = write(fd, block, bytes < 4096 ? bytes : 4096);
        if (written <= 0) exit(91);
        bytes -= written;
    }
    if (fd < 0 || close(fd)) exit(92);
}

static void print(int lines) {
    for (int i = 0; i < lines; i++) {
        dprintf(1, "out %d\n", i);
        dprintf(2, "err %d\n", i);
    }
}

static void status(void) {
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) fputs(line, stdout);
    for (char **env = environ; *env; env++) printf("env %s\n", *env);
    fflush(stdout);
}

static void tell(const char *name, long result) {
    printf("%s %d\n", name, result < 0 ? errno : 0);
    fflush(stdout);
}

/* A child in new namespaces, which ends at once. */
static void try_clone(const char *name, unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    tell(name, pid);
    if (pid > 0) waitpid(pid, NULL, 0);
}

/* In a child, so that the next call finds the process as it was. */
static void try_unshare(const char *name, int flags, int then_chroot) {
    pid_t pid = fork();
    if (pid == 0) {
        long result = syscall(SYS_unshare, flags);
        if (result == 0 && then_chroot) result = chroot("/");
        tell(name, result);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* Arguments are chosen so that the kernel, where nothing is in the way, answers otherwise than
 * with EPERM as far as that is possible. */
static void syscalls(void) {
    uint64_t how[3] = {O_RDONLY, 0, 0};
    char buffer[512];
    tell("statx", syscall(SYS_statx, AT_FDCWD, "/", 0, 0x7ff, buffer));
    tell("openat2", syscall(SYS_openat2, AT_FDCWD, "/", how, sizeof how));
    try_clone("clone-user-pid-net", CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET);
    try_unshare("unshare-user", CLONE_NEWUSER, 0);
    try_unshare("unshare-user-chroot", CLONE_NEWUSER, 1);

    tell("clone3", syscall(SYS_clone3, NULL, 0));
    try_clone("clone-user-mount", CLONE_NEWUSER | CLONE_NEWNS);
    try_clone("clone-user-uts", CLONE_NEWUSER | CLONE_NEWUTS);
    try_clone("clone-user-ipc", CLONE_NEWUSER | CLONE_NEWIPC);
    try_clone("clone-user-cgroup", CLONE_NEWUSER | CLONE_NEWCGROUP);
    try_unshare("unshare-user-mount", CLONE_NEWUSER | CLONE_NEWNS, 0);
    try_unshare("unshare-user-net", CLONE_NEWUSER | CLONE_NEWNET, 0);
    tell("setns", syscall(SYS_setns, -1, 0));
    tell("mount", syscall(SYS_mount, NULL, NULL, NULL, 0, NULL));
    tell("umount2", syscall(SYS_umount2, NULL, 0x40000000));
    tell("open_tree", syscall(SYS_open_tree, -1, NULL, 0));
    tell("keyctl", syscall(SYS_keyctl, 9999, 0, 0, 0, 0));
    tell("add_key", syscall(SYS_add_key, NULL, NULL, NULL, 0, 0));
    tell("request_key", syscall(SYS_request_key, NULL, NULL, NULL, 0));
    tell("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0));
    tell("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 99, 0, 0));
    tell("pidfd_getfd", syscall(SYS_pidfd_getfd, -1, 0, 0));
    tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));

    tell("bpf", syscall(SYS_bpf, 9999, NULL, 0));
    tell("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    tell("pivot_root", syscall(SYS_pivot_root, NULL, NULL));
    tell("init_module", syscall(SYS_init_module, NULL, 0, NULL));
    tell("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    tell("swapon", syscall(SYS_swapon, NULL, 0));
}

static void eat(void) {
    for (;;) {
        char *block = malloc(1 << 20);
        if (block) memset(block, 1, 1 << 20);
    }
}

static void forks(void) {
    int count = 0;
    for (; count < 1000; count++) {
        pid_t pid = fork();
        if (pid == 0) {
            pause();
            _exit(0);
        }
        if (pid < 0) break;
    }
    printf("processes %d\n", count);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int resend = argc > 1 && !strcmp(argv[argc - 1], "resend");
    for (int i = 1; i < argc - resend; i++) {
        char *what = argv[i];
        int marked = !strncmp(what, "resend:", 7);
        if (marked != resend) continue;
        if (marked) what += 7;
        char *value = strchr(what, '=');
        if (value) *value++ = 0;
        if (!strcmp(what, "hold")) hold(atoi(value));
        else if (!strcmp(what, "exit")) return atoi(value);
        else if (!strcmp(what, "file")) file(value);
        else if (!strcmp(what, "remove")) { if (unlink(value)) return 92; }
        else if (!strcmp(what, "print")) print(atoi(value));
        else if (!strcmp(what, "status")) status();
        else if (!strcmp(what, "syscalls")) syscalls();
        else if (!strcmp(what, "eat")) eat();
        else if (!strcmp(what, "fork")) forks();
        else if (!strcmp(what, "ignore")) {
            signal(SIGTERM, SIG_IGN);
            for (;;) pause();
        } else return 99;
    }
    return 0;
}
