/* Timers put entries into a FIFO; probes are taken from it while less than the maximum are under
 * way. A probe holds the worker it asks: when the entry has another version by the time of the
 * answer, the answer is dropped. */
#include "fleet/health.h"

#include <errno.h>

#include "base/log.h"
#include "fleet/worker_spec.h"
#include "io/loop.h"

enum { BODY_MAX = 1 << 20 };

struct probe {
    struct roster_entry *entry; /* pinned */
    struct worker *worker;      /* referenced */
};

struct suspicion {
    struct message message;
    struct worker *worker; /* referenced */
};

static struct {
    const struct fleet_settings *settings;
    void (*changed)(struct roster_entry *entry, enum worker_status from, enum worker_status to);
    struct list due;
    struct fiber_group probes;
    size_t under_way;
    metric_ref results[ROLE_COUNT][2];
    bool running;
} checker;

static void pump(void);

/* --- what holds for a worker ----------------------------------------------------------------- */

static int64_t own_or(int64_t own, int64_t gateway) { return own == FIELD_UNSET ? gateway : own; }

int64_t health_timeout_ms(const struct worker_spec *spec) {
    return own_or(spec->health.timeout_secs, checker.settings->health.timeout_s) * 1000;
}

static struct health_limits limits_of(const struct worker *worker) {
    const struct worker_health_spec *own = &worker->spec->health;
    const struct fleet_settings *settings = checker.settings;
    struct health_limits limits = {
        .failure_threshold =
            (uint32_t)own_or(own->failure_threshold, settings->health.failure_threshold),
        .success_threshold =
            (uint32_t)own_or(own->success_threshold, settings->health.success_threshold),
        .interval_ms = own_or(own->check_interval_secs, settings->health.interval_s) * 1000,
        .timeout_ms = health_timeout_ms(worker->spec),
    };
    return limits;
}

/* --- one probe ------------------------------------------------------------------------------- */

FIBER_FN int health_probe(struct arena *arena, struct http_peer *peer, struct str base_path,
                          struct str auth_line, deadline_ms deadline, struct str *why) {
    struct str body;
    struct http_fetch fetch = {
        .method = STR("GET"),
        .target =
            arena_printf(arena, "%.*s%s", STR_ARG(base_path), checker.settings->health.endpoint),
        .head = auth_line,
        .max_body = BODY_MAX,
        .deadline = deadline,
    };
    int status = http_fetch(arena, peer, &fetch, &body, why);
    if (status < 0)
        return status;
    if (status >= 200 && status < 300)
        return 0;
    *why = arena_printf(arena, "HTTP %d", status);
    return -EPROTO;
}

/* A probe that was not answered in time is no sign of death while the worker is sending bytes (a
 * long prefill, a compilation). A refused connection or an error status is. */
static enum probe_result judge(const struct worker *worker, int err, int64_t interval_ms) {
    if (err == 0)
        return PROBE_GOOD;
    int64_t heard = atomic_load_explicit(&worker->run->last_byte_ms, memory_order_relaxed);
    if (err == -ETIMEDOUT && clock_ms() - heard < interval_ms)
        return PROBE_EXCUSED;
    return PROBE_BAD;
}

static void take_result(struct roster_entry *entry, enum probe_result result,
                        const struct health_limits *limits, struct str why) {
    struct health_machine *machine = &entry->health.machine;
    struct worker *worker = entry->worker;
    enum worker_status before = machine->state;
    metric_inc(checker.results[worker->role][result != PROBE_GOOD]);
    if (result == PROBE_GOOD)
        breaker_probe_ok(&worker->run->breaker, clock_ms());
    else
        log_debug("fleet", "health probe failed", F_STR("worker", worker->url),
                  F_STR("reason", why), F_BOOL("excused", result == PROBE_EXCUSED));
    enum worker_status after = health_step(machine, limits, result);
    if (after == before)
        return;
    log_at(after == WORKER_READY ? LOG_INFO : LOG_WARN, "fleet", "worker health changed",
           F_STR("worker", worker->url), F_CSTR("from", worker_status_name(before)),
           F_CSTR("to", worker_status_name(after)),
           F_STR("reason", why.len > 0 ? why : STR("probes succeeded")));
    checker.changed(entry, before, after);
}

static void set_next(struct roster_entry *entry, int64_t started_ms,
                     const struct health_limits *limits) {
    struct health_watch *watch = &entry->health;
    if (!watch->on || !checker.running)
        return;
    if (watch->again)
        timer_set(&watch->timer, clock_ms());
    else
        timer_set(&watch->timer, started_ms + health_pause_ms(&watch->machine, limits));
    watch->again = false;
}

static FIBER_FN void probe_main(void *arg) {
    struct probe *probe = arg;
    struct roster_entry *entry = probe->entry;
    struct worker *worker = probe->worker;
    struct health_limits limits = limits_of(worker);
    struct arena *arena = arena_new();
    struct str why = STR("");
    int64_t started_ms = clock_ms();
    int err = health_probe(arena, worker->peer, worker->base_path, worker->auth_line,
                           deadline_in(limits.timeout_ms), &why);
    bool current = entry->worker == worker && entry->health.on && checker.running;
    entry->health.probing = false;
    if (current && err != -ECANCELED)
        take_result(entry, judge(worker, err, limits.interval_ms), &limits, why);
    set_next(entry, started_ms, &limits);
    arena_free(arena);
    worker_unref(worker);
    roster_unpin(entry);
    mem_free(probe);
    checker.under_way--;
    pump();
}

/* --- the schedule ---------------------------------------------------------------------------- */

static void launch(struct roster_entry *entry) {
    struct probe *probe = mem_alloc(sizeof *probe);
    *probe = (struct probe){entry, worker_ref(entry->worker)};
    roster_pin(entry);
    entry->health.probing = true;
    entry->health.again = false;
    checker.under_way++;
    fiber_group_spawn(&checker.probes, probe_main, probe);
}

static void pump(void) {
    while (checker.running && checker.under_way < HEALTH_PROBES_MAX) {
        struct list *item = list_pop_front(&checker.due);
        if (item == NULL)
            return;
        launch(container_of(item, struct roster_entry, health.due));
    }
}

static void probe_soon(struct roster_entry *entry) {
    struct health_watch *watch = &entry->health;
    timer_clear(&watch->timer);
    if (watch->probing)
        watch->again = true;
    else if (!list_linked(&watch->due))
        list_push_back(&checker.due, &watch->due);
    pump();
}

static void timer_fired(struct timer *timer) {
    probe_soon(container_of(timer, struct roster_entry, health.timer));
}

void health_begin(struct roster_entry *entry) {
    struct health_watch *watch = &entry->health;
    enum worker_status status = worker_status(entry->worker);
    if (worker_spec_unprobed(entry->worker->spec, checker.settings)) {
        health_end(entry);
        roster_set_status(entry, WORKER_READY);
        return;
    }
    if (!watch->on || watch->machine.state != status)
        watch->machine = (struct health_machine){.state = status};
    watch->on = true;
    watch->timer.fire = timer_fired;
    probe_soon(entry);
}

void health_end(struct roster_entry *entry) {
    entry->health.on = false;
    entry->health.again = false;
    timer_clear(&entry->health.timer);
    list_remove(&entry->health.due);
}

/* --- passive detection ----------------------------------------------------------------------- */

static void suspected(struct message *message) {
    struct suspicion *suspicion = container_of(message, struct suspicion, message);
    struct roster_entry *entry =
        checker.running ? roster_by_id(str_from(suspicion->worker->id)) : NULL;
    if (entry != NULL && entry->worker != NULL && entry->health.on)
        probe_soon(entry);
    worker_unref(suspicion->worker);
    mem_free(suspicion);
}

void fleet_suspect(struct worker *worker) {
    int64_t now = clock_ms();
    int64_t last = atomic_load_explicit(&worker->run->suspected_ms, memory_order_relaxed);
    if (now - last < HEALTH_SUSPECT_MS ||
        !atomic_compare_exchange_strong(&worker->run->suspected_ms, &last, now))
        return;
    struct suspicion *suspicion = mem_zalloc(sizeof *suspicion);
    suspicion->worker = worker_ref(worker);
    suspicion->message.run = suspected;
    loop_post(loop_control(), &suspicion->message);
}

/* --- start and stop -------------------------------------------------------------------------- */

void health_start(const struct fleet_settings *settings,
                  void (*changed)(struct roster_entry *entry, enum worker_status from,
                                  enum worker_status to)) {
    checker.settings = settings;
    checker.changed = changed;
    list_init(&checker.due);
    fiber_group_init(&checker.probes);
    for (int role = 0; role < ROLE_COUNT; role++) {
        const char *name = worker_role_name((enum worker_role)role);
        checker.results[role][0] =
            metric_ref_of(METRIC_SMG_WORKER_HEALTH_CHECKS_TOTAL, name, "success");
        checker.results[role][1] =
            metric_ref_of(METRIC_SMG_WORKER_HEALTH_CHECKS_TOTAL, name, "failure");
    }
    checker.running = true;
}

FIBER_FN void health_stop(void) {
    if (!checker.running)
        return;
    checker.running = false;
    list_for (item, roster_live())
        health_end(container_of(item, struct roster_entry, link));
    fiber_group_cancel(&checker.probes);
    while (fiber_group_join(&checker.probes) == -ECANCELED && checker.under_way > 0)
        continue;
}
