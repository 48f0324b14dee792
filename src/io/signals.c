/* See signals.h. libuv's signal handles live on the control loop. */
#include "io/signals.h"

#include <signal.h>

#include "base/panic.h"
#include "io/loop_core.h"

#define WATCHED_MAX 16

static struct watched {
    uv_signal_t handle;
    void (*fn)(void *arg, int signo);
    void *arg;
} watched[WATCHED_MAX];
static int watched_count;

void signals_init(void) { signal(SIGPIPE, SIG_IGN); }

static void on_signal(uv_signal_t *handle, int signo) {
    struct watched *entry = handle->data;
    loop_entered(handle->loop->data);
    entry->fn(entry->arg, signo);
}

void signals_on(int signo, void (*fn)(void *arg, int signo), void *arg) {
    assert_always(watched_count < WATCHED_MAX && loop_here() == loop_control());
    struct watched *entry = &watched[watched_count++];
    entry->fn = fn;
    entry->arg = arg;
    entry->handle.data = entry;
    uv_signal_init(loop_uv(loop_control()), &entry->handle);
    uv_signal_start(&entry->handle, on_signal, signo);
}
