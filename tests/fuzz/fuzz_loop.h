/* A loop to drive by hand: harnesses feed bytes into one end of a socket pair and turn the loop until it is
 * quiet. There is no other way to wait, so what does not end is found. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/panic.h"
#include "io/loop.h"

#define QUIET_TURNS 4
#define PATIENCE_TURNS 20000

static inline void fuzz_loop_start(void) {
    signal(SIGPIPE, SIG_IGN);
    int rc = loops_start(1, NULL, NULL);
    assert_always(rc == 0);
}

static inline void turn(int times) {
    while (times-- > 0)
        uv_run(loop_uv(loop_control()), UV_RUN_NOWAIT);
}

/* Turns until it holds; never to hold is a finding. */
#define turn_until(condition)                                                                      \
    do {                                                                                           \
        int patience = PATIENCE_TURNS;                                                             \
        while (!(condition)) {                                                                     \
            assert_always(patience-- > 0);                                                         \
            turn(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline void pair_open(int pair[2]) {
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
    assert_always(rc == 0);
}

/* A run of numbers that the input chooses: where its bytes are cut. */
struct cuts {
    uint64_t state;
};

static inline size_t cut_next(struct cuts *cuts) {
    cuts->state = cuts->state * 6364136223846793005u + 1442695040888963407u;
    unsigned pick = (unsigned)(cuts->state >> 33);
    static const size_t lengths[] = {1, 1, 2, 3, 7, 20, 64, 1000, 5000, 70000};
    size_t length = lengths[pick % (sizeof lengths / sizeof *lengths)];
    return length < 4 ? length : 1 + (pick >> 8) % length;
}
