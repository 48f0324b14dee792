/* Runs the body of a test on a fiber of the control loop, in a child process of its own: loops, limits
 * and threads belong to the whole process, and a failed check must not leave them behind for the next
 * test. In the child a failed check aborts; the parent sees that. Include it after cmocka.h. */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/listener.h"
#include "io/loop.h"
#include "io/sanitize.h"

#if HAVE_TSAN
#include <sanitizer/common_interface_defs.h>
#endif

/* Valgrind keeps descriptors for itself and does not let the limit be lowered. */
#ifdef RUNNING_ON_VALGRIND
#define UNDER_VALGRIND RUNNING_ON_VALGRIND
#else
#define UNDER_VALGRIND 0
#endif

#define CHILD_SECONDS 100
#define AWAIT_MS 30000

typedef void loop_body(void);

/* Forks; the child runs main(arg) and exits with 0 when it returns. The wait status of the child. */
static inline int child_status(void (*main)(void *arg), void *arg) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        alarm(CHILD_SECONDS);
        main(arg);
        exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static inline void in_child(void (*main)(void *arg), void *arg) {
    int status = child_status(main, arg);
    if (WIFSIGNALED(status))
        fail_msg("the child was ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The child must come to a bad end (abort, guard page, sanitizer's exit). Its message is not shown. */
static inline void quiet_death(void *arg) {
    struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, STDERR_FILENO);
#if HAVE_ASAN || HAVE_TSAN
    __sanitizer_set_report_path("stderr");
#endif
    (*(loop_body **)arg)();
}

static inline void must_die(loop_body *body) {
    int status = child_status(quiet_death, &body);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    assert_false(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
}

struct fixture {
    unsigned data_loops;
    loop_body *body;
};

static inline void fixture_fiber(void *arg) {
    struct fixture *fixture = arg;
    fixture->body();
    loops_stop();
}

static inline void fixture_main(void *arg) {
    struct fixture *fixture = arg;
    signal(SIGPIPE, SIG_IGN);
    int rc = loops_start(fixture->data_loops, NULL, NULL);
    assert_int_equal(rc, 0);
    fiber_spawn(fixture_fiber, fixture);
    loops_run();
}

/* The body runs on a fiber of the control loop, with so many data loops beside it. */
static inline void on_loops(unsigned data_loops, loop_body *body) {
    struct fixture fixture = {data_loops, body};
    in_child(fixture_main, &fixture);
}

/* Polls: for what another thread or loop does. On a fiber. */
#define await(condition)                                                                           \
    do {                                                                                           \
        int64_t give_up = clock_ms() + AWAIT_MS;                                                   \
        while (!(condition)) {                                                                     \
            if (clock_ms() > give_up)                                                              \
                fail_msg("waited in vain for " #condition);                                        \
            (void)fiber_sleep(1);                                                                  \
        }                                                                                          \
    } while (0)

/* Lets the loop turn so often. On a fiber. */
static inline void turns(int count) {
    while (count-- > 0)
        (void)fiber_yield();
}

/* --- a thread that talks to the loops through plain blocking sockets --- */

struct script {
    pthread_t thread;
    void (*main)(void *arg);
    void *arg;
    _Atomic bool done;
};

static inline void *script_thread(void *arg) {
    struct script *script = arg;
    script->main(script->arg);
    atomic_store(&script->done, true);
    return NULL;
}

static inline void script_start(struct script *script, void (*main)(void *arg), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    *script = (struct script){.main = main, .arg = arg};
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&script->thread, NULL, script_thread, script);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(rc, 0);
}

static inline void script_join(struct script *script) {
    await(atomic_load(&script->done));
    pthread_join(script->thread, NULL);
}

/* --- plain sockets --- */

/* A listening socket on 127.0.0.1 and its port. */
static inline int raw_listen(int backlog, uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline struct sockaddr_in local_address(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int raw_connect(uint16_t port) {
    struct sockaddr_in address = local_address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* What can be read within `ms`: count, 0 at the end, -1 for nothing yet, -2 for a reset. */
static inline ssize_t raw_read(int fd, char *into, size_t room, int ms) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, ms) == 0)
        return -1;
    ssize_t count = read(fd, into, room);
    return count < 0 ? -2 : count;
}
