/* See fanout.h. As many lanes as may call at once, not one fiber per worker: a fleet of thousands
 * costs no more stacks than one of sixty. */
#include "gateway/admin/fanout.h"

#include <errno.h>

#include "base/map.h"
#include "base/panic.h"
#include "fleet/url_guard.h"
#include "io/loop.h"

/* --- the list --- */

struct str fanout_base_url(const struct worker *worker) {
    size_t len = worker->url.len;
    while (len > 0 && worker->url.ptr[len - 1] >= '0' && worker->url.ptr[len - 1] <= '9')
        len--;
    bool ranked = len > 0 && len < worker->url.len && worker->url.ptr[len - 1] == '@';
    return ranked ? str_head(worker->url, len - 1) : worker->url;
}

static void list_release(void *arg) {
    struct fanout_list *list = arg;
    for (size_t i = 0; i < list->count; i++)
        worker_unref(list->items[i].worker);
}

static bool wanted(const struct worker *worker, struct str base, struct str only) {
    if (worker->mode != MODE_HTTP)
        return false;
    return only.ptr == NULL || str_eq(worker->url, only) || str_eq(base, only);
}

struct fanout_list fanout_list_make(struct arena *arena, struct str only) {
    const struct fleet *fleet = fleet_now();
    struct fanout_list *list = arena_zalloc(arena, sizeof *list);
    struct map seen;
    map_init(&seen);
    list->items = arena_alloc(arena, (fleet->all.count + 1) * sizeof *list->items);
    if (only.ptr != NULL)
        only = worker_url_canonical(only);
    for (size_t i = 0; i < fleet->all.count; i++) {
        struct worker *worker = fleet->all.workers[i];
        struct str base = fanout_base_url(worker);
        if (wanted(worker, base, only) && map_put(&seen, base, worker) == NULL)
            list->items[list->count++] = (struct fanout_target){worker_ref(worker), base};
    }
    map_free(&seen);
    arena_defer(arena, list_release, list);
    return *list;
}

/* --- the lanes --- */

struct run {
    const struct fanout *fanout;
    const struct fanout_list *list;
    struct fiber *owner;
    size_t next;
};

static bool run_over(const struct run *run) {
    bool enough = run->fanout->enough != NULL && *run->fanout->enough;
    return enough || run->next == run->list->count || fiber_cancelled(fiber_self());
}

static void lane(void *arg) {
    struct run *run = arg;
    while (!run_over(run)) {
        size_t index = run->next++;
        struct arena *scratch = arena_new();
        run->fanout->one(run->fanout->ctx, index, &run->list->items[index], scratch);
        arena_free(scratch);
    }
    if (run->fanout->enough != NULL)
        fiber_wake(run->owner);
}

/* Waits for the first that is enough, and then a little for those on their way. */
static FIBER_FN void await_enough(const struct fanout *fanout, struct fiber_group *group) {
    int rc = 0;
    while (rc == 0 && group->running > 0 && !*fanout->enough)
        rc = fiber_park(DEADLINE_NEVER);
    deadline_ms until = deadline_in(fanout->linger_ms);
    while (rc == 0 && group->running > 0)
        rc = fiber_park(until);
    if (group->running > 0)
        fiber_group_cancel(group);
}

FIBER_FN int fanout_run(const struct fanout *fanout, const struct fanout_list *list) {
    assert_always(loop_here() == loop_control());
    struct run run = {.fanout = fanout, .list = list, .owner = fiber_self()};
    struct fiber_group group;
    fiber_group_init(&group);
    for (size_t i = 0; i < fanout->parallel && i < list->count; i++)
        fiber_group_spawn(&group, lane, &run);
    if (fanout->enough != NULL)
        await_enough(fanout, &group);
    return fiber_group_join(&group);
}

/* --- one call --- */

struct str fanout_route(struct arena *arena, const struct worker *worker, struct str route) {
    if (worker->base_path.len == 0)
        return route;
    return arena_printf(arena, "%.*s%.*s", STR_ARG(worker->base_path), STR_ARG(route));
}

FIBER_FN int fanout_call(struct arena *arena, const struct worker *worker,
                         const struct fanout_fetch *fetch, struct str *body, struct str *why) {
    struct http_fetch call = {
        .method = fetch->method,
        .target = fanout_route(arena, worker, fetch->route),
        .head = arena_printf(arena, "%.*s%.*s", STR_ARG(worker->auth_line), STR_ARG(fetch->head)),
        .body = fetch->body,
        .has_body = fetch->has_body,
        .max_body = fetch->max_body,
        .deadline = deadline_in(fetch->timeout_ms),
    };
    return http_fetch(arena, worker->peer, &call, body, why);
}
