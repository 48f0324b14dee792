/* Adding goes through stages; each is one function that says whether the next one may follow
 * now. A worker is registered as pending, published to all loops, and only then made ready:
 * whoever sees it counted as ready can have it chosen. */
#include "fleet/lifecycle.h"

#include <errno.h>

#include "base/log.h"
#include "fleet/discover.h"
#include "fleet/health.h"
#include "fleet/url_guard.h"
#include "fleet/worker_build.h"
#include "io/resolver.h"

enum { DISCOVERIES = 3, DISCOVERY_MS = 10000, DISCOVERY_PAUSE_MS = 1000 };
enum { GRACE_S = 30, UPDATE_S = 30, REMOVE_S = 600, DRAIN_LOOK_MS = 50, LISTED_RETRY_MS = 300000 };
/* A stage is over: the next may follow. */
#define STAGE_DONE 2

static const struct fleet_settings *settings;

void lifecycle_start(const struct fleet_settings *given) { settings = given; }

/* --- adding ---------------------------------------------------------------------------------- */

struct add_job {
    struct arena *arena;
    struct roster_entry *entry; /* pinned, counted as being added */
    struct worker_spec spec;
    enum add_mode mode;
    uint64_t revision;
    bool trusted, delayed;
    size_t stage;
    int64_t attempt, attempts; /* to detect it */
    deadline_ms detect_until;
    int discoveries;
    struct http_peer *peer;
    struct str base_path, auth_line, host;
    uint16_t port;
    struct discovery found;
};

/* Grace for a worker that is started together with the gateway. */
static FIBER_FN int stage_delay(struct job *job, struct add_job *add) {
    if (add->delayed || settings->startup_delay_s <= 0)
        return STAGE_DONE;
    add->delayed = true;
    job_note(job, "waiting %lld s before the first probe", (long long)settings->startup_delay_s);
    return job_again(job, settings->startup_delay_s * 1000);
}

static FIBER_FN int stage_conflict(struct job *job, struct add_job *add) {
    bool live = add->entry->worker != NULL;
    if (add->mode == ADD_CREATE && live)
        return job_fail(job, -EEXIST, "worker %.*s is registered already",
                        STR_ARG(add->entry->url));
    if (add->mode == ADD_REPLACE && (!live || add->entry->revision != add->revision))
        return job_fail(job, -ESTALE, "worker %.*s has been changed meanwhile",
                        STR_ARG(add->entry->url));
    return STAGE_DONE;
}

/* Who adds workers over the network must not reach what the rules forbid, whatever the name
 * resolves to. A name that does not resolve yet is met again by the probe. */
static FIBER_FN int stage_address(struct job *job, struct add_job *add) {
    struct sockaddr_storage address;
    char fault[URL_FAULT_MAX];
    if (add->trusted)
        return STAGE_DONE;
    int err =
        resolver_lookup(add->host, add->port, deadline_in(health_timeout_ms(&add->spec)), &address);
    if (err == -ECANCELED)
        return err;
    if (err == 0 && worker_address_check(settings, add->host, &address, fault))
        return job_fail(job, -EACCES, "%s", fault);
    return STAGE_DONE;
}

static int not_detected(struct job *job, struct add_job *add, int err, struct str why) {
    long long attempt = (long long)add->attempt, attempts = (long long)add->attempts;
    if (err == -EPROTONOSUPPORT)
        return job_fail(job, err, "https:// workers come with a later issue (the TLS issue)");
    if (add->attempt >= add->attempts || deadline_left(add->detect_until) == 0)
        return job_fail(job, -ETIMEDOUT, "detection: GET %s failed: %.*s (attempt %lld of %lld)",
                        settings->health.endpoint, STR_ARG(why), attempt, attempts);
    if (add->attempt == 1)
        log_info("fleet", "waiting for a worker", F_STR("worker", add->entry->url),
                 F_STR("reason", why), F_INT("attempts", attempts));
    job_note(job, "waiting for GET %s: %.*s (attempt %lld of %lld)", settings->health.endpoint,
             STR_ARG(why), attempt, attempts);
    add->stage = 0; /* the rules are looked at again: much may have changed in the pause */
    return job_again(job, settings->startup_check_interval_s * 1000);
}

static FIBER_FN int stage_detect(struct job *job, struct add_job *add) {
    if (worker_spec_unprobed(&add->spec, settings))
        return STAGE_DONE;
    if (add->attempt++ == 0)
        add->detect_until = deadline_in(settings->startup_timeout_s * 1000);
    struct arena *scratch = arena_new();
    struct str why = STR("");
    deadline_ms deadline =
        deadline_sooner(deadline_in(health_timeout_ms(&add->spec)), job_deadline(job));
    int err = health_probe(scratch, add->peer, add->base_path, add->auth_line, deadline, &why);
    int result = STAGE_DONE;
    if (err)
        result = err == -ECANCELED ? err : not_detected(job, add, err, why);
    arena_free(scratch);
    return result;
}

static FIBER_FN int stage_discover(struct job *job, struct add_job *add) {
    job_note(job, "asking the worker for its capabilities");
    int err =
        discover_worker(add->arena, add->peer, add->base_path, add->auth_line, add->entry->url,
                        deadline_in(DISCOVERY_MS), &add->entry->faults, &add->found);
    if (err == -ECANCELED)
        return err;
    if (err && ++add->discoveries < DISCOVERIES)
        return job_again(job, DISCOVERY_PAUSE_MS);
    return STAGE_DONE;
}

/* Puts a new version in, shows it to every loop, and makes it ready. */
static FIBER_FN int put_in(struct roster_entry *entry, const struct worker_spec *spec,
                           const struct discovery *found, bool make_ready) {
    struct worker *old = entry->worker;
    struct worker_plan plan = {
        .id = entry->id,
        .revision = entry->revision + 1,
        .index = old ? old->index : roster_take_index(),
        .spec = spec,
        .found = found,
        .old = old,
        .settings = settings,
        .trusted = entry->listed,
    };
    roster_enter(entry, worker_build(&plan));
    int err = roster_settle();
    if (err)
        return err;
    if (make_ready)
        roster_set_status(entry, WORKER_READY);
    health_begin(entry);
    return 0;
}

static FIBER_FN int stage_register(struct job *job, struct add_job *add) {
    struct roster_entry *entry = add->entry;
    bool is_new = entry->worker == NULL;
    job_note(job, "registering the worker");
    int err = put_in(entry, &add->spec, &add->found, true);
    if (err)
        return err;
    log_info("fleet", is_new ? "worker registered" : "worker replaced", F_STR("worker", entry->url),
             F_CSTR("id", entry->id), F_STR("model", entry->worker->model_id),
             F_STR("runtime", entry->worker->runtime),
             F_INT("workers", (int64_t)roster_live_count()));
    return 0;
}

static FIBER_FN int (*const stages[])(struct job *job, struct add_job *add) = {
    stage_delay,    stage_conflict, stage_address, stage_detect,
    stage_discover, stage_conflict, stage_register};

static FIBER_FN int add_step(struct job *job, void *state) {
    struct add_job *add = state;
    int result;
    do {
        size_t stage = add->stage;
        result = stages[stage](job, add);
        if (result == STAGE_DONE)
            add->stage = stage + 1;
    } while (result == STAGE_DONE);
    return result;
}

static void retry_listed(struct timer *timer) {
    struct roster_entry *entry = container_of(timer, struct roster_entry, retry);
    if (entry->listed && entry->worker == NULL && roster_running())
        lifecycle_add_listed(entry->url);
}

/* A listed worker that did not come in time is not given up: the gateway heals when it comes. */
static void add_ended(void *state, int result) {
    struct add_job *add = state;
    struct roster_entry *entry = add->entry;
    if (result < 0 && result != -ECANCELED && entry->listed && entry->worker == NULL) {
        entry->retry.fire = retry_listed;
        timer_set(&entry->retry, deadline_in(LISTED_RETRY_MS));
    }
    roster_adding(entry, -1);
    roster_unpin(entry);
    http_peer_unref(add->peer);
    arena_free(add->arena); /* the job's state lies in it */
}

/* How often a worker is probed before it is given up: as often as was asked for, else as fits
 * the time. */
static int64_t detect_attempts(const struct worker_spec *spec) {
    if (spec->max_connection_attempts != FIELD_UNSET)
        return spec->max_connection_attempts;
    int64_t interval =
        settings->startup_check_interval_s > 0 ? settings->startup_check_interval_s : 1;
    int64_t fit = (settings->startup_timeout_s * 9 + interval * 10 - 1) / (interval * 10);
    return fit > 3 ? fit : 3;
}

static struct job_options add_options(const struct add_order *order) {
    struct arena *arena = arena_new();
    struct add_job *add = arena_zalloc(arena, sizeof *add);
    struct url url;
    add->arena = arena;
    add->entry = order->entry;
    worker_spec_copy(arena, order->spec, &add->spec);
    add->mode = order->mode;
    add->revision = order->revision;
    add->trusted = order->trusted;
    add->attempts = detect_attempts(&add->spec);
    add->peer = worker_peer(&add->spec, settings, add->trusted);
    add->auth_line = worker_auth_line(arena, add->spec.api_key);
    if (url_parse(add->spec.url, &url) == 0) {
        add->base_path = url.base;
        add->host = url.host;
        add->port = url.port;
    }
    discovery_init(&add->found);
    roster_pin(order->entry);
    roster_adding(order->entry, 1);
    timer_clear(&order->entry->retry);
    return (struct job_options){
        .kind = JOB_ADD_WORKER,
        .key = order->entry->url,
        .timeout_ms = (settings->startup_timeout_s + GRACE_S) * 1000,
        .step = add_step,
        .ended = add_ended,
        .state = add,
        .watch = order->watch,
    };
}

/* A job that could not be queued: its state is freed here. */
static int or_drop(const struct job_options *options, int err) {
    if (err)
        options->ended(options->state, -ECANCELED);
    return err;
}

FIBER_FN int lifecycle_add(const struct add_order *order) {
    struct job_options options = add_options(order);
    return or_drop(&options, jobs_submit(&options));
}

void lifecycle_add_listed(struct str url) {
    struct worker_spec spec;
    worker_spec_init(&spec, url);
    if (settings->api_key != NULL)
        spec.api_key = str_from(settings->api_key);
    struct add_order order = {
        .entry = roster_reserve(url), .spec = &spec, .mode = ADD_UPSERT, .trusted = true};
    order.entry->listed = true;
    struct job_options options = add_options(&order);
    int err = or_drop(&options, jobs_submit_now(&options));
    if (err)
        log_warn("fleet", "a listed worker is not added: the gateway is stopping",
                 F_STR("worker", url));
}

/* --- updating -------------------------------------------------------------------------------- */

struct update_job {
    struct arena *arena;
    struct roster_entry *entry; /* pinned */
    struct str body;            /* of a PATCH; ptr NULL: rediscovery */
    int discoveries;
};

static FIBER_FN int patch_step(struct job *job, void *state) {
    struct update_job *update = state;
    struct worker_spec spec;
    struct spec_fault fault;
    struct worker *worker = update->entry->worker;
    if (worker == NULL)
        return job_fail(job, -ENOENT, "worker %.*s is not registered", STR_ARG(update->entry->url));
    if (worker_spec_patch(update->arena, worker->spec, update->body, &spec, &fault))
        return job_fail(job, -EINVAL, "%.*s", STR_ARG(fault.message));
    int err = put_in(update->entry, &spec, worker->found, false);
    if (!err)
        log_info("fleet", "worker updated", F_STR("worker", update->entry->url),
                 F_INT("revision", (int64_t)update->entry->revision));
    return err;
}

/* Asks a worker that has come back what it is now, then lets requests go to it. */
static FIBER_FN int rediscover_step(struct job *job, void *state) {
    struct update_job *update = state;
    struct roster_entry *entry = update->entry;
    struct discovery found;
    if (entry->worker == NULL)
        return 0;
    struct worker *worker = worker_ref(entry->worker);
    int err = discover_worker(update->arena, worker->peer, worker->base_path, worker->auth_line,
                              entry->url, deadline_in(DISCOVERY_MS), &entry->faults, &found);
    bool current = entry->worker == worker && entry->health.machine.state == WORKER_READY;
    if (err && err != -ECANCELED && ++update->discoveries < DISCOVERIES) {
        err = job_again(job, DISCOVERY_PAUSE_MS);
    } else if (err == 0 && current && !discovery_same(&found, worker->found)) {
        err = put_in(entry, worker->spec, &found, true);
        log_info("fleet", "worker discovered again", F_STR("worker", entry->url),
                 F_STR("model", entry->worker->model_id));
    }
    worker_unref(worker);
    return err == -EHOSTUNREACH ? 0 : err;
}

/* Whatever came out of asking a worker that is back: its probes are good, so requests may go to
 * it. */
static void update_ended(void *state, int result) {
    struct update_job *update = state;
    struct roster_entry *entry = update->entry;
    bool back = update->body.ptr == NULL && entry->worker != NULL &&
                entry->health.machine.state == WORKER_READY;
    if (back && result != -ECANCELED && worker_status(entry->worker) == WORKER_FAILED)
        roster_set_status(entry, WORKER_READY);
    roster_unpin(entry);
    arena_free(update->arena);
}

static struct job_options update_options(struct roster_entry *entry, struct str body) {
    struct arena *arena = arena_new();
    struct update_job *update = arena_zalloc(arena, sizeof *update);
    update->arena = arena;
    update->entry = entry;
    update->body = body.ptr ? arena_dup(arena, body) : STR_NONE;
    roster_pin(entry);
    return (struct job_options){
        .kind = JOB_UPDATE_WORKER,
        .key = entry->url,
        .timeout_ms = UPDATE_S * 1000,
        .step = body.ptr ? patch_step : rediscover_step,
        .ended = update_ended,
        .state = update,
    };
}

FIBER_FN int lifecycle_update(struct roster_entry *entry, struct str body) {
    struct job_options options = update_options(entry, body);
    return or_drop(&options, jobs_submit(&options));
}

/* --- removing -------------------------------------------------------------------------------- */

struct remove_job {
    struct roster_entry *entry; /* pinned */
    uint64_t revision;          /* 0: any */
    deadline_ms drain_until;    /* 0: not yet */
};

static bool drained(struct job *job, struct remove_job *remove) {
    struct worker *worker = remove->entry->worker;
    if (remove->drain_until == 0) {
        bool was_ready = worker_status(worker) == WORKER_READY;
        remove->drain_until =
            was_ready ? deadline_in(worker_spec_drain_ms(worker->spec, settings)) : clock_ms();
        roster_set_status(remove->entry, WORKER_DRAINING);
        health_end(remove->entry);
    }
    int64_t load = worker_load(worker);
    job_note(job, "draining: %lld requests in flight", (long long)load);
    return load == 0 || deadline_left(remove->drain_until) == 0;
}

static FIBER_FN int remove_step(struct job *job, void *state) {
    struct remove_job *remove = state;
    struct roster_entry *entry = remove->entry;
    if (entry->worker == NULL)
        return 0;
    if (remove->revision != 0 && remove->revision != entry->revision) {
        log_info("fleet", "worker is kept: it has been changed since", F_STR("worker", entry->url));
        return 0;
    }
    if (!drained(job, remove))
        return job_again(job, DRAIN_LOOK_MS);
    int64_t load = worker_load(entry->worker);
    entry->listed = false; /* it shall not come back by itself */
    roster_leave(entry);
    log_info("fleet", "worker removed", F_STR("worker", entry->url), F_CSTR("id", entry->id),
             F_INT("in_flight", load), F_INT("workers", (int64_t)roster_live_count()));
    return roster_settle();
}

static void remove_ended(void *state, int result) {
    struct remove_job *remove = state;
    (void)result;
    roster_unpin(remove->entry);
    mem_free(remove);
}

static struct job_options remove_options(struct roster_entry *entry, uint64_t revision,
                                         struct job_watch *watch) {
    struct remove_job *remove = mem_zalloc(sizeof *remove);
    int64_t settle = settings->drain_settle_s > REMOVE_S ? settings->drain_settle_s : REMOVE_S;
    *remove = (struct remove_job){.entry = entry, .revision = revision};
    roster_pin(entry);
    return (struct job_options){
        .kind = JOB_REMOVE_WORKER,
        .key = entry->url,
        .timeout_ms = (GRACE_S + settle) * 1000,
        .step = remove_step,
        .ended = remove_ended,
        .state = remove,
        .watch = watch,
    };
}

FIBER_FN int lifecycle_remove(struct roster_entry *entry, uint64_t revision,
                              struct job_watch *watch) {
    struct job_options options = remove_options(entry, revision, watch);
    entry->listed = false;
    timer_clear(&entry->retry);
    jobs_cancel(entry->url, JOB_ADD_WORKER);
    jobs_cancel(entry->url, JOB_UPDATE_WORKER);
    return or_drop(&options, jobs_submit(&options));
}

/* --- health ---------------------------------------------------------------------------------- */

static void came_back(struct roster_entry *entry, enum worker_status from) {
    struct job_options options = update_options(entry, STR_NONE);
    /* A worker that was away for long may be another by now: it is asked first. */
    if (from != WORKER_FAILED)
        roster_set_status(entry, WORKER_READY);
    if (or_drop(&options, jobs_submit_now(&options)))
        roster_set_status(entry, WORKER_READY);
}

void lifecycle_health_changed(struct roster_entry *entry, enum worker_status from,
                              enum worker_status to) {
    if (worker_status(entry->worker) == WORKER_DRAINING)
        return;
    if (to == WORKER_READY) {
        came_back(entry, from);
        return;
    }
    roster_set_status(entry, to);
    if (to != WORKER_FAILED || !settings->health.remove_unhealthy)
        return;
    struct job_options options = remove_options(entry, entry->revision, NULL);
    if (or_drop(&options, jobs_submit_now(&options)))
        log_warn("fleet", "a failed worker stays: the gateway is stopping",
                 F_STR("worker", entry->url));
}
