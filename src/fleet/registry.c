/* Each public call packs its arguments, hops to the control loop and runs one function there.
 * The caller's arena is used over there meanwhile: its fiber is parked and cannot be cancelled
 * out of a loop_call. Only the legacy calls wait for a job, and they do so on their own loop,
 * where they can be cancelled. */
#include "fleet/registry.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "fleet/health.h"
#include "fleet/lifecycle.h"
#include "fleet/policy.h"
#include "fleet/url_guard.h"
#include "fleet/worker_json.h"
#include "io/loop.h"
#include "io/resolver.h"

#define LIST_MAX ((size_t)256 << 20)
/* Registered and being added, together. */
#define WORKERS_MAX 65536

static const struct fleet_settings *settings;

/* Waiting for a job from another loop. The job tells it on the control loop; a message carries
 * it home. */
struct waiting {
    struct job_watch watch;
    struct message message;
    struct loop *home;
    struct fiber *fiber;
    int result;
    char text[JOB_NOTE_MAX];
    bool over, parked;
};

/* One call on its way. */
struct ask {
    struct arena *arena;
    struct str name,
        body; /* name: of the path, or the URL of a legacy call; body: or the API key, model */
    struct waiting *waiting;
    struct registry_answer *out;
};

static const struct {
    int status;
    const char *code;
} verdicts[] = {
    [REGISTRY_DONE] = {200, ""},
    [REGISTRY_BAD_JSON] = {400, "json_parse_error"},
    [REGISTRY_BAD_FIELD] = {422, "invalid_field"},
    [REGISTRY_BAD_REQUEST] = {400, "BAD_REQUEST"},
    [REGISTRY_EXISTS] = {409, "WORKER_ALREADY_EXISTS"},
    [REGISTRY_NOT_FOUND] = {404, "WORKER_NOT_FOUND"},
    [REGISTRY_QUEUE_FULL] = {500, "INTERNAL_SERVER_ERROR"},
    [REGISTRY_JOB_FAILED] = {400, "BAD_REQUEST"},
    [REGISTRY_TIMED_OUT] = {400, "BAD_REQUEST"},
    [REGISTRY_CANCELLED] = {499, "client_gone"},
    [REGISTRY_STOPPED] = {503, "INTERNAL_SERVER_ERROR"},
};

int registry_status(enum registry_verdict verdict) { return verdicts[verdict].status; }
const char *registry_code(enum registry_verdict verdict) { return verdicts[verdict].code; }

/* --- answers --------------------------------------------------------------------------------- */

static void answer(struct ask *ask, enum registry_verdict verdict, struct str message) {
    ask->out->verdict = verdict;
    ask->out->message = message;
}

static void answer_fault(struct ask *ask, const struct spec_fault *fault) {
    static const enum registry_verdict kinds[] = {[SPEC_BAD_JSON] = REGISTRY_BAD_JSON,
                                                  [SPEC_BAD_FIELD] = REGISTRY_BAD_FIELD,
                                                  [SPEC_BAD_URL] = REGISTRY_BAD_REQUEST};
    answer(ask, kinds[fault->kind], fault->message);
}

/* What became of queueing a job. */
static void answer_queued(struct ask *ask, int err, struct str done) {
    if (err == 0)
        answer(ask, REGISTRY_DONE, done);
    else if (err == -EAGAIN)
        answer(ask, REGISTRY_QUEUE_FULL, STR("the job queue is full (1000 jobs wait)"));
    else
        answer(ask, REGISTRY_STOPPED, STR("the gateway is stopping"));
}

static void answer_identity(struct ask *ask, const struct roster_entry *entry) {
    memcpy(ask->out->id, entry->id, sizeof ask->out->id);
    ask->out->url = arena_dup(ask->arena, entry->url);
}

/* False when the registry is not running (any more). */
static bool open_ask(struct ask *ask) {
    *ask->out = (struct registry_answer){.verdict = REGISTRY_DONE};
    if (roster_running())
        return true;
    answer(ask, REGISTRY_STOPPED, STR("the gateway is stopping"));
    return false;
}

/* --- finding --------------------------------------------------------------------------------- */

static bool is_scheme_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '-' || c == '.';
}

/* Length of "X" when the text is "X:/...", else 0. */
static size_t scheme_len(struct str text) {
    size_t len = 0;
    while (len < text.len && is_scheme_char(text.ptr[len]))
        len++;
    bool is_url = len > 0 && len + 1 < text.len && text.ptr[len] == ':' && text.ptr[len + 1] == '/';
    return is_url ? len : 0;
}

/* The URL as it was registered: "://" restored where a proxy has collapsed slashes, one trailing
 * '/' dropped. */
static struct str restore_url(struct arena *arena, struct str text) {
    size_t scheme = scheme_len(text);
    struct str rest = str_skip(text, scheme + 2);
    if (rest.len > 0 && rest.ptr[0] == '/')
        rest = str_skip(rest, 1);
    if (rest.len > 0 && rest.ptr[rest.len - 1] == '/')
        rest.len--;
    return arena_printf(arena, "%.*s://%.*s", (int)scheme, text.ptr, STR_ARG(rest));
}

/* Registered, on its way in, or failed a short while ago; a removal that is about to end is none. */
static bool is_known(const struct roster_entry *entry) {
    struct job_status status;
    if (entry == NULL)
        return false;
    if (entry->worker != NULL || entry->listed || jobs_busy(entry->url, JOB_ADD_WORKER))
        return true;
    return jobs_status(entry->url, &status) && status.kind != JOB_REMOVE_WORKER;
}

static struct roster_entry *find_without_scheme(struct ask *ask, struct str text) {
    struct str url = arena_printf(ask->arena, "http://%.*s", STR_ARG(worker_url_canonical(text)));
    struct roster_entry *entry = roster_by_url(url);
    return entry != NULL && entry->worker != NULL ? entry : NULL;
}

static struct roster_entry *not_found(struct ask *ask, struct str name) {
    struct str shown = str_head(name, 200);
    answer(ask, REGISTRY_NOT_FOUND,
           arena_printf(ask->arena, "Worker %.*s not found", STR_ARG(shown)));
    return NULL;
}

/* By decoded name: UUID or URL. NULL with the answer set. */
static struct roster_entry *find(struct ask *ask, struct str name) {
    struct roster_entry *entry;
    if (uuid_valid(name))
        entry = roster_by_id(name);
    else if (scheme_len(name) > 0)
        entry = roster_by_url(restore_url(ask->arena, name));
    else
        entry = find_without_scheme(ask, name);
    if (is_known(entry)) {
        answer_identity(ask, entry);
        return entry;
    }
    if (uuid_valid(name) || scheme_len(name) > 0)
        return not_found(ask, name);
    answer(ask, REGISTRY_BAD_REQUEST, STR("expected a worker's UUID or URL in the path"));
    return NULL;
}

static struct roster_entry *find_by_path(struct ask *ask) {
    char *decoded = arena_alloc(ask->arena, ask->name.len + 1);
    ptrdiff_t len = str_percent_decode(ask->name, decoded);
    if (len < 0 || len > WORKER_URL_MAX + 8) {
        answer(ask, REGISTRY_BAD_REQUEST, STR("the worker's name in the path is malformed"));
        return NULL;
    }
    return find(ask, str_make(decoded, (size_t)len));
}

/* --- adding ---------------------------------------------------------------------------------- */

/* Addresses that are given as such are refused at once; names are looked at when the job
 * resolves them. */
static bool address_ok(struct ask *ask, const struct worker_spec *spec) {
    struct sockaddr_storage address;
    struct url url;
    char fault[URL_FAULT_MAX];
    if (url_parse(spec->url, &url) || resolver_literal(url.host, url.port, &address))
        return true;
    if (worker_address_check(settings, url.host, &address, fault) == 0)
        return true;
    answer(ask, REGISTRY_BAD_REQUEST, arena_dup(ask->arena, str_from(fault)));
    return false;
}

/* Registered, and not on its way out. */
static bool is_taken(const struct roster_entry *entry) {
    return entry->worker != NULL && worker_status(entry->worker) != WORKER_DRAINING &&
           !jobs_busy(entry->url, JOB_REMOVE_WORKER);
}

static FIBER_FN void add_new(struct ask *ask, const struct worker_spec *spec) {
    if (!address_ok(ask, spec))
        return;
    struct roster_entry *entry = roster_reserve(spec->url);
    answer_identity(ask, entry);
    if (is_taken(entry)) {
        answer(ask, REGISTRY_EXISTS,
               arena_printf(ask->arena, "Worker %.*s already exists", STR_ARG(entry->url)));
        return;
    }
    if (roster_expected() >= WORKERS_MAX) {
        answer(ask, REGISTRY_QUEUE_FULL, STR("there are 65536 workers already"));
        return;
    }
    if (settings->api_key != NULL && spec->api_key.len == 0)
        log_warn("fleet",
                 "a worker is added without api_key although the gateway has one: it is "
                 "called without",
                 F_STR("worker", entry->url));
    struct add_order order = {.entry = entry,
                              .spec = spec,
                              .mode = ADD_CREATE,
                              .watch = ask->waiting ? &ask->waiting->watch : NULL};
    answer_queued(ask, lifecycle_add(&order),
                  STR("Worker addition queued for background processing"));
}

static FIBER_FN int post_here(void *arg) {
    struct ask *ask = arg;
    struct worker_spec spec;
    struct spec_fault fault;
    if (!open_ask(ask))
        return 0;
    if (worker_spec_read(ask->arena, ask->body, &spec, &fault))
        answer_fault(ask, &fault);
    else
        add_new(ask, &spec);
    return 0;
}

static FIBER_FN int legacy_add_here(void *arg) {
    struct ask *ask = arg;
    struct worker_spec spec;
    char fault[URL_FAULT_MAX];
    if (!open_ask(ask))
        return 0;
    if (worker_url_check(ask->name, NULL, fault)) {
        answer(ask, REGISTRY_BAD_REQUEST, arena_dup(ask->arena, str_from(fault)));
        return 0;
    }
    worker_spec_init(&spec, worker_url_canonical(ask->name));
    if (ask->body.len > 0)
        spec.api_key = ask->body;
    if (!worker_key_ok(spec.api_key))
        answer(ask, REGISTRY_BAD_FIELD, STR("api_key: expected visible ASCII without blanks"));
    else
        add_new(ask, &spec);
    return 0;
}

/* --- changing and removing ------------------------------------------------------------------- */

static FIBER_FN void patch(struct ask *ask, struct roster_entry *entry) {
    struct worker_spec now, patched;
    struct spec_fault fault;
    worker_spec_init(&now, entry->url);
    if (worker_spec_patch(ask->arena, entry->worker ? entry->worker->spec : &now, ask->body,
                          &patched, &fault)) {
        answer_fault(ask, &fault);
        return;
    }
    answer_queued(ask, lifecycle_update(entry, ask->body),
                  STR("Worker update queued for background processing"));
}

static FIBER_FN void replace(struct ask *ask, struct roster_entry *entry) {
    struct worker_spec spec;
    struct spec_fault fault;
    if (worker_spec_read(ask->arena, ask->body, &spec, &fault)) {
        answer_fault(ask, &fault);
        return;
    }
    if (!str_eq(spec.url, entry->url)) {
        answer(ask, REGISTRY_BAD_REQUEST,
               arena_printf(ask->arena, "url: expected the worker's own URL %.*s",
                            STR_ARG(entry->url)));
        return;
    }
    struct add_order order = {.entry = entry,
                              .spec = &spec,
                              .mode = entry->worker ? ADD_REPLACE : ADD_UPSERT,
                              .revision = entry->revision};
    if (address_ok(ask, &spec))
        answer_queued(ask, lifecycle_add(&order),
                      STR("Worker update queued for background processing"));
}

static FIBER_FN int change_here(struct ask *ask, bool may_replace) {
    struct roster_entry *entry = open_ask(ask) ? find_by_path(ask) : NULL;
    if (entry == NULL)
        return 0;
    if (entry->worker == NULL && !jobs_busy(entry->url, JOB_ADD_WORKER))
        not_found(ask, entry->url);
    else if (may_replace && worker_spec_has_url(ask->arena, ask->body))
        replace(ask, entry);
    else
        patch(ask, entry);
    return 0;
}

static FIBER_FN int put_here(void *arg) { return change_here(arg, true); }
static FIBER_FN int patch_here(void *arg) { return change_here(arg, false); }

static FIBER_FN void remove_entry(struct ask *ask, struct roster_entry *entry) {
    int err = lifecycle_remove(entry, 0, ask->waiting ? &ask->waiting->watch : NULL);
    answer_queued(ask, err, STR("Worker removal queued for background processing"));
}

static FIBER_FN int delete_here(void *arg) {
    struct ask *ask = arg;
    struct roster_entry *entry = open_ask(ask) ? find_by_path(ask) : NULL;
    if (entry != NULL)
        remove_entry(ask, entry);
    return 0;
}

static FIBER_FN int legacy_remove_here(void *arg) {
    struct ask *ask = arg;
    struct roster_entry *entry = open_ask(ask) ? find(ask, ask->name) : NULL;
    if (entry != NULL)
        remove_entry(ask, entry);
    return 0;
}

/* --- showing --------------------------------------------------------------------------------- */

static void write_entry(struct json_writer *writer, const struct roster_entry *entry) {
    struct job_status status;
    const struct job_status *job = jobs_status(entry->url, &status) ? &status : NULL;
    if (entry->worker != NULL)
        worker_info_write(writer, entry->worker, job);
    else
        worker_stub_write(writer, entry->id, entry->url, job);
}

static void end_json(struct ask *ask, struct json_writer *writer) {
    ask->out->json = json_writer_end(writer, ask->arena);
    if (ask->out->json.ptr == NULL)
        answer(ask, REGISTRY_QUEUE_FULL, STR("the list of workers is too large"));
}

static int get_here(void *arg) {
    struct ask *ask = arg;
    struct json_writer writer;
    struct roster_entry *entry = open_ask(ask) ? find_by_path(ask) : NULL;
    if (entry == NULL)
        return 0;
    json_writer_init(&writer, LIST_MAX);
    write_entry(&writer, entry);
    end_json(ask, &writer);
    return 0;
}

static void write_stats(struct json_writer *writer, const size_t counts[ROLE_COUNT]) {
    json_key(writer, "stats");
    json_object(writer);
    json_kv_int(writer, "prefill_count", (int64_t)counts[ROLE_PREFILL]);
    json_kv_int(writer, "decode_count", (int64_t)counts[ROLE_DECODE]);
    json_kv_int(writer, "regular_count", (int64_t)counts[ROLE_REGULAR]);
    json_object_end(writer);
}

static int list_here(void *arg) {
    struct ask *ask = arg;
    struct json_writer writer;
    size_t total = 0, counts[ROLE_COUNT] = {0};
    if (!open_ask(ask))
        return 0;
    json_writer_init(&writer, LIST_MAX);
    json_object(&writer);
    json_key(&writer, "workers");
    json_array(&writer);
    list_for (item, roster_live()) {
        struct roster_entry *entry = container_of(item, struct roster_entry, link);
        if (ask->body.ptr != NULL && !worker_serves(entry->worker, ask->body))
            continue;
        write_entry(&writer, entry);
        counts[entry->worker->role]++;
        total++;
    }
    json_array_end(&writer);
    json_kv_int(&writer, "total", (int64_t)total);
    write_stats(&writer, counts);
    json_object_end(&writer);
    end_json(ask, &writer);
    return 0;
}

static int urls_here(void *arg) {
    struct ask *ask = arg;
    struct json_writer writer;
    if (!open_ask(ask))
        return 0;
    json_writer_init(&writer, LIST_MAX);
    json_object(&writer);
    json_key(&writer, "urls");
    json_array(&writer);
    list_for (item, roster_live())
        json_string(&writer, container_of(item, struct roster_entry, link)->url);
    json_array_end(&writer);
    json_object_end(&writer);
    end_json(ask, &writer);
    return 0;
}

/* --- waiting for a job ----------------------------------------------------------------------- */

static void came_home(struct message *message) {
    struct waiting *waiting = container_of(message, struct waiting, message);
    waiting->over = true;
    if (waiting->parked)
        fiber_wake(waiting->fiber);
}

static void job_over(struct job_watch *watch, int result, struct str message) {
    struct waiting *waiting = container_of(watch, struct waiting, watch);
    waiting->result = result;
    snprintf(waiting->text, sizeof waiting->text, "%.*s", STR_ARG(message));
    waiting->message.run = came_home;
    loop_post(waiting->home, &waiting->message);
}

static int stop_waiting_here(void *arg) { return jobs_unwatch(&((struct waiting *)arg)->watch); }

/* The message may be on its way while we give up: its memory is ours until it has come. A wake
 * that came when the park had ended already is taken back, else the fiber's next park would end
 * at once. */
static FIBER_FN int wait_for_job(struct waiting *waiting, deadline_ms deadline) {
    int err = 0;
    waiting->parked = true;
    while (!waiting->over && !err)
        err = fiber_park(deadline);
    waiting->parked = false;
    if (waiting->over) {
        if (err)
            fiber_park_hard();
        return 0;
    }
    if (loop_call(loop_control(), stop_waiting_here, waiting))
        return err;
    waiting->parked = true;
    while (!waiting->over)
        fiber_park_hard();
    return 0;
}

static void answer_job(struct ask *ask, const struct waiting *waiting, struct str done) {
    if (waiting->result == 0)
        answer(ask, REGISTRY_DONE, done);
    else if (waiting->result == -ECANCELED)
        answer(ask, REGISTRY_JOB_FAILED, STR("the job was dropped: the worker has been removed"));
    else
        answer(ask, waiting->result == -EEXIST ? REGISTRY_EXISTS : REGISTRY_JOB_FAILED,
               arena_dup(ask->arena, str_from(waiting->text)));
}

static FIBER_FN void call_and_wait(struct ask *ask, int (*fn)(void *arg), const char *done) {
    struct waiting waiting = {.watch.over = job_over, .home = loop_here(), .fiber = fiber_self()};
    ask->waiting = &waiting;
    loop_call(loop_control(), fn, ask);
    if (ask->out->verdict != REGISTRY_DONE)
        return;
    int err = wait_for_job(&waiting, deadline_in(settings->startup_timeout_s * 1000));
    if (err == -ETIMEDOUT)
        answer(ask, REGISTRY_TIMED_OUT,
               arena_printf(ask->arena, "not done within %lld s; it goes on in the background",
                            (long long)settings->startup_timeout_s));
    else if (err)
        answer(ask, REGISTRY_CANCELLED, STR("cancelled"));
    else
        answer_job(ask, &waiting,
                   arena_printf(ask->arena, "%s: %.*s", done, STR_ARG(ask->out->url)));
}

/* --- the interface --------------------------------------------------------------------------- */

FIBER_FN void registry_post(struct arena *arena, struct str body, struct registry_answer *out) {
    struct ask ask = {.arena = arena, .body = body, .out = out};
    loop_call(loop_control(), post_here, &ask);
}

FIBER_FN void registry_put(struct arena *arena, struct str name, struct str body,
                           struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = name, .body = body, .out = out};
    loop_call(loop_control(), put_here, &ask);
}

FIBER_FN void registry_patch(struct arena *arena, struct str name, struct str body,
                             struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = name, .body = body, .out = out};
    loop_call(loop_control(), patch_here, &ask);
}

FIBER_FN void registry_delete(struct arena *arena, struct str name, struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = name, .out = out};
    loop_call(loop_control(), delete_here, &ask);
}

FIBER_FN void registry_get(struct arena *arena, struct str name, struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = name, .out = out};
    loop_call(loop_control(), get_here, &ask);
}

FIBER_FN void registry_list(struct arena *arena, struct str model, struct registry_answer *out) {
    struct ask ask = {.arena = arena, .body = model, .out = out};
    loop_call(loop_control(), list_here, &ask);
}

FIBER_FN void registry_urls(struct arena *arena, struct registry_answer *out) {
    struct ask ask = {.arena = arena, .out = out};
    loop_call(loop_control(), urls_here, &ask);
}

FIBER_FN void registry_legacy_add(struct arena *arena, struct str url, struct str api_key,
                                  struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = url, .body = api_key, .out = out};
    call_and_wait(&ask, legacy_add_here, "Successfully added worker");
}

FIBER_FN void registry_legacy_remove(struct arena *arena, struct str url,
                                     struct registry_answer *out) {
    struct ask ask = {.arena = arena, .name = url, .out = out};
    call_and_wait(&ask, legacy_remove_here, "Successfully removed worker");
}

/* --- start and stop -------------------------------------------------------------------------- */

static void add_listed(const char *text) {
    char fault[URL_FAULT_MAX];
    struct str url = worker_url_canonical(str_from(text));
    if (worker_url_check(str_from(text), NULL, fault)) {
        log_error("fleet", "a listed worker is left out", F_CSTR("reason", fault));
        return;
    }
    struct roster_entry *entry = roster_by_url(url);
    if (entry != NULL && entry->listed)
        log_warn("fleet", "a worker is listed twice", F_STR("worker", url));
    else
        lifecycle_add_listed(url);
}

void fleet_start(const struct fleet_settings *given) {
    settings = given;
    worker_fail_open(given->cb_fail_open);
    policy_use(policy_find(str_from(given->policy)));
    fleet_metrics_start();
    roster_start();
    jobs_start();
    lifecycle_start(given);
    health_start(given, lifecycle_health_changed);
    for (size_t i = 0; i < given->worker_url_count && given->worker_urls[i] != NULL; i++)
        add_listed(given->worker_urls[i]);
}

FIBER_FN void fleet_stop(void) {
    jobs_stop();
    health_stop();
    roster_stop();
}

size_t fleet_expected_count(void) { return roster_expected(); }
