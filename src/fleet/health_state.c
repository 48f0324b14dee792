/* A failed worker is not lost: it is probed on, ever more rarely, and its first good probe
 * brings the normal interval back, so that success_threshold good ones in a row make it ready
 * again. */
#include "fleet/health_state.h"

enum { FAILED_FACTOR = 3, PENDING_FACTOR = 10, MAX_DOUBLINGS = 20 };
#define LONGEST_PAUSE_MS ((int64_t)300000)

struct health_machine health_machine_ready(void) {
    return (struct health_machine){.state = WORKER_READY};
}

static void enter(struct health_machine *machine, enum worker_status state) {
    *machine = (struct health_machine){.state = state};
}

/* Where so many failures in a row lead from each state; 0: nowhere. Pending counts probes
 * instead. */
static uint64_t patience(enum worker_status state, const struct health_limits *limits) {
    switch (state) {
    case WORKER_READY: return limits->failure_threshold;
    case WORKER_NOT_READY: return (uint64_t)FAILED_FACTOR * limits->failure_threshold;
    default: return 0;
    }
}

static void step_good(struct health_machine *machine, const struct health_limits *limits) {
    machine->successes++;
    machine->failures = 0;
    if (machine->state == WORKER_READY)
        return;
    if (machine->successes >= limits->success_threshold)
        enter(machine, WORKER_READY);
}

static void step_bad(struct health_machine *machine, const struct health_limits *limits) {
    machine->successes = 0;
    if (machine->failures < UINT32_MAX)
        machine->failures++;
    uint64_t most = patience(machine->state, limits);
    if (most == 0 || machine->failures < most)
        return;
    enter(machine, machine->state == WORKER_READY ? WORKER_NOT_READY : WORKER_FAILED);
}

enum worker_status health_step(struct health_machine *machine, const struct health_limits *limits,
                               enum probe_result result) {
    if (machine->state == WORKER_DRAINING)
        return machine->state;
    machine->probes++;
    if (result == PROBE_GOOD)
        step_good(machine, limits);
    else if (result == PROBE_BAD)
        step_bad(machine, limits);
    else
        machine->failures = 0;
    if (machine->state == WORKER_PENDING &&
        machine->probes >= (uint64_t)PENDING_FACTOR * limits->failure_threshold)
        enter(machine, WORKER_FAILED);
    return machine->state;
}

int64_t health_pause_ms(const struct health_machine *machine, const struct health_limits *limits) {
    if (machine->state != WORKER_FAILED)
        return limits->interval_ms;
    int64_t most = limits->interval_ms > LONGEST_PAUSE_MS ? limits->interval_ms : LONGEST_PAUSE_MS;
    int64_t pause = limits->interval_ms;
    for (uint32_t i = 0; i < machine->failures && i < MAX_DOUBLINGS && pause < most; i++)
        pause *= 2;
    return pause < most ? pause : most;
}
