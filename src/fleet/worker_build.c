/* See worker_build.h. Every text of a worker lives in the worker's own arena, so old and new
 * versions never share memory, only the counted run-time block and the counted peer. */
#include "fleet/worker_build.h"

#include "base/clock.h"
#include "base/panic.h"
#include "fleet/policy.h"
#include "fleet/url_guard.h"
#include "proto/url.h"

/* Of addresses; the same for the life of the process. */
static const struct fleet_settings *_Atomic rules;

static bool permits(struct str host, const struct sockaddr_storage *address) {
    char fault[URL_FAULT_MAX];
    return worker_address_check(atomic_load(&rules), host, address, fault) == 0;
}

struct http_peer *worker_peer(const struct worker_spec *spec, const struct fleet_settings *settings,
                              bool trusted) {
    const struct worker_pool_spec *own = &spec->pool;
    struct url url;
    int err = url_parse(spec->url, &url);
    assert_always(err == 0); /* worker_url_check has seen it */
    struct http_peer_options options = {
        .host = url.host,
        .port = url.port,
        .tls = str_eq(url.scheme, STR("https")),
        .max_idle = settings->upstream_idle_per_worker,
        .idle_ms = settings->upstream_idle_ms,
        .connect_ms = settings->connect_timeout_s * 1000,
        .permits = trusted ? NULL : permits,
    };
    atomic_store(&rules, settings);
    if (own->pool_max_idle_per_host != FIELD_UNSET)
        options.max_idle = (size_t)own->pool_max_idle_per_host;
    if (own->pool_idle_timeout_secs != FIELD_UNSET)
        options.idle_ms = own->pool_idle_timeout_secs * 1000;
    if (own->connect_timeout_secs != FIELD_UNSET)
        options.connect_ms = own->connect_timeout_secs * 1000;
    return http_peer_new(&options);
}

struct str worker_auth_line(struct arena *arena, struct str api_key) {
    if (api_key.len == 0)
        return STR("");
    return arena_printf(arena, "Authorization: Bearer %.*s\r\n", STR_ARG(api_key));
}

static bool same_pool(const struct worker_spec *a, const struct worker_spec *b) {
    return a->pool.pool_max_idle_per_host == b->pool.pool_max_idle_per_host &&
           a->pool.pool_idle_timeout_secs == b->pool.pool_idle_timeout_secs &&
           a->pool.connect_timeout_secs == b->pool.connect_timeout_secs;
}

static void set_peer(struct worker *worker, const struct worker_plan *plan) {
    if (plan->old != NULL && same_pool(plan->old->spec, plan->spec))
        worker->peer = http_peer_ref(plan->old->peer);
    else
        worker->peer = worker_peer(plan->spec, plan->settings, plan->trusted);
}

static void set_run(struct worker *worker, const struct worker_plan *plan) {
    struct breaker_options options = worker_spec_breaker(plan->spec, plan->settings);
    if (plan->old == NULL) {
        worker->run = worker_run_new(worker->url, &options);
        return;
    }
    worker->run = worker_run_ref(plan->old->run);
    breaker_configure(&worker->run->breaker, &options, clock_ms());
}

static void put_label(struct worker *worker, struct worker_label label) {
    for (size_t i = 0; i < worker->label_count; i++) {
        if (str_eq(worker->labels[i].key, label.key)) {
            worker->labels[i].value = label.value;
            return;
        }
    }
    worker->labels[worker->label_count++] = label;
}

static void set_labels(struct worker *worker) {
    const struct worker_spec *spec = worker->spec;
    const struct discovery *found = worker->found;
    worker->labels = arena_alloc(worker->arena, (spec->label_count + found->label_count + 1) *
                                                    sizeof *worker->labels);
    for (size_t i = 0; i < found->label_count; i++)
        put_label(worker, found->labels[i]);
    for (size_t i = 0; i < spec->label_count; i++)
        put_label(worker, spec->labels[i]);
}

static struct str named_by_labels(const struct worker *worker) {
    static const char *const keys[] = {"served_model_name", "model_id", "model_path"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct str value = worker_label(worker, keys[i]);
        if (value.len > 0)
            return value;
    }
    return STR("");
}

/* Cards that were asked for stand as they are; else one is made of what was found and the flat
 * fields. */
static void set_models(struct worker *worker) {
    const struct worker_spec *spec = worker->spec;
    worker->models = spec->models;
    worker->model_count = spec->model_count;
    if (spec->model_count > 0) {
        worker->model_id = spec->models[0].id;
        return;
    }
    struct model_card *card = arena_alloc(worker->arena, sizeof *card);
    *card = worker->found->card;
    card->id = named_by_labels(worker);
    model_card_overlay(card, &spec->flat);
    worker->models = card;
    worker->model_count = card->id.len > 0 ? 1 : 0;
    worker->model_id = card->id.len > 0 ? card->id : STR("unknown");
}

static void set_retry(struct worker *worker) {
    const struct worker_resilience_spec *own = &worker->spec->resilience;
    worker->retry.max_retries = own->max_retries == FIELD_UNSET ? -1 : (int32_t)own->max_retries;
    if (own->disable_retry > 0)
        worker->retry.max_retries = 1;
    worker->retry.failure_statuses = own->retryable_status_codes;
    worker->retry.failure_status_count = own->retryable_status_code_count;
}

static void set_address(struct worker *worker) {
    struct url url;
    int err = url_parse(worker->url, &url);
    assert_always(err == 0);
    worker->host = url.host;
    worker->base_path = url.base;
}

static void set_metrics(struct worker *worker) {
    const char *role = worker_role_name(worker->role), *mode = worker_mode_name(worker->mode);
    const char *model = worker->model_id.ptr; /* of an arena or a literal: ends in NUL */
    worker->metrics.pool_size = metric_ref_of(METRIC_SMG_WORKER_POOL_SIZE, role, mode, model);
    for (int slot = 0; slot < POLICY_SLOTS; slot++) {
        if (!policy_in_use(slot))
            continue;
        const char *name = policy_name_at((size_t)slot);
        worker->metrics.decisions[slot] =
            metric_ref_of(METRIC_SGL_POLICY_DECISIONS_TOTAL, name, worker->run->url);
        worker->metrics.selection[slot] =
            metric_ref_of(METRIC_SMG_WORKER_SELECTION_TOTAL, role, mode, model, name);
    }
}

struct worker *worker_build(const struct worker_plan *plan) {
    struct arena *arena = arena_new();
    struct worker *worker = arena_zalloc(arena, sizeof *worker);
    struct worker_spec *spec = arena_alloc(arena, sizeof *spec);
    struct discovery *found = arena_alloc(arena, sizeof *found);
    worker_spec_copy(arena, plan->spec, spec);
    discovery_init(found);
    if (plan->found != NULL)
        discovery_copy(arena, plan->found, found);
    atomic_store(&worker->refs, 1);
    worker->arena = arena;
    worker->spec = spec;
    worker->found = found;
    memcpy(worker->id, plan->id, sizeof worker->id);
    worker->revision = plan->revision;
    worker->index = plan->index;
    worker->url = spec->url;
    worker->role = spec->role;
    worker->mode = MODE_HTTP;
    worker->api_key = spec->api_key;
    worker->auth_line = worker_auth_line(arena, spec->api_key);
    worker->runtime = spec->runtime.len > 0 ? spec->runtime : found->runtime;
    worker->bootstrap_port =
        spec->bootstrap_port == FIELD_UNSET ? 0 : (int32_t)spec->bootstrap_port;
    worker->request_timeout_ms =
        spec->pool.timeout_secs == FIELD_UNSET ? -1 : spec->pool.timeout_secs * 1000;
    set_address(worker);
    set_labels(worker);
    set_models(worker);
    set_retry(worker);
    set_peer(worker, plan);
    set_run(worker, plan);
    set_metrics(worker);
    return worker;
}
