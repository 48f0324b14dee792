/* See control_call.h. Three messages, all in the caller's frame: start, stop (sent at most once; it
 * comes back as an acknowledgement, for the control loop may still hold it when the work is over)
 * and done. */
#include "gateway/admin/control_call.h"

#include <errno.h>

struct control_call {
    struct message start, stop, done;
    int (*fn)(void *arg);
    void *arg;
    struct loop *home;
    struct fiber *caller;
    /* the control loop's */
    struct fiber *worker; /* NULL: not begun, or over */
    int result;
    /* the caller's */
    bool over, stop_sent, stop_back;
};

static void on_done(struct message *message) {
    struct control_call *call = container_of(message, struct control_call, done);
    call->over = true;
    fiber_wake(call->caller);
}

static void on_stop_back(struct message *message) {
    struct control_call *call = container_of(message, struct control_call, stop);
    call->stop_back = true;
    fiber_wake(call->caller);
}

static void on_stop(struct message *message) {
    struct control_call *call = container_of(message, struct control_call, stop);
    if (call->worker != NULL)
        fiber_cancel(call->worker);
    call->stop.run = on_stop_back;
    loop_post(call->home, &call->stop);
}

static void work(void *arg) {
    struct control_call *call = arg;
    call->worker = fiber_self();
    call->result = call->fn(call->arg);
    call->worker = NULL;
    loop_post(call->home, &call->done);
}

static void on_start(struct message *message) {
    fiber_spawn(work, container_of(message, struct control_call, start));
}

FIBER_FN int control_call(int (*fn)(void *arg), void *arg) {
    if (loop_here() == loop_control())
        return fn(arg);
    struct control_call call = {.start.run = on_start,
                                .stop.run = on_stop,
                                .done.run = on_done,
                                .fn = fn,
                                .arg = arg,
                                .home = loop_here(),
                                .caller = fiber_self()};
    loop_post(loop_control(), &call.start);
    while (!call.over && !call.stop_sent) {
        if (fiber_park(DEADLINE_NEVER) == -ECANCELED) {
            call.stop_sent = true;
            loop_post(loop_control(), &call.stop);
        }
    }
    while (!call.over || (call.stop_sent && !call.stop_back))
        fiber_park_hard();
    return call.result;
}
