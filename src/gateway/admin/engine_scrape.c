/* See engine_scrape.h. The route is public, so its cost is bounded whoever asks: one scrape at a
 * time, its result kept for a second, a budget for all pages together. Parsing and merging go
 * through the offload pool. */
#include "gateway/admin/engine_scrape.h"

#include <errno.h>

#include "base/log.h"
#include "gateway/admin/control_call.h"
#include "gateway/admin/engine_metrics.h"
#include "gateway/admin/fanout.h"
#include "io/offload.h"
#include "io/sync.h"
#include "observe/metrics.h"

#define PARALLEL 64
#define TIMEOUT_MS 5000
#define KEPT_MS 1000
/* Bytes held for all pages together. */
#define PAGES_BUDGET ((size_t)256 << 20)
#define PARSE_HERE_MAX 65536
#define BUSY_RETRY_MS 5
#define WARNINGS_MAX 8

/* --- the result --- */

struct result {
    _Atomic uint32_t refs;
    struct str refusal; /* static text; empty: there is a page */
    struct buf page;
};

static struct result *result_new(struct str refusal) {
    struct result *result = mem_alloc(sizeof *result);
    *result = (struct result){.refs = 1, .refusal = refusal, .page = buf_make(ENGINE_OUT_MAX)};
    return result;
}

static struct result *result_ref(struct result *result) {
    atomic_fetch_add_explicit(&result->refs, 1, memory_order_relaxed);
    return result;
}

static void result_unref(void *arg) {
    struct result *result = arg;
    if (atomic_fetch_sub_explicit(&result->refs, 1, memory_order_acq_rel) != 1)
        return;
    buf_free(&result->page);
    mem_free(result);
}

/* --- one scrape --- */

struct scrape {
    struct fanout_list list;
    struct engine_page **pages; /* NULL: none */
    size_t budget;              /* bytes left */
    int warnings;
};

static void warn_page(struct scrape *scrape, struct str addr, const char *why) {
    if (scrape->warnings++ < WARNINGS_MAX)
        log_warn("engine_metrics", "metrics page of a worker skipped", F_STR("worker", addr),
                 F_CSTR("reason", why));
}

static bool pay(struct scrape *scrape, size_t bytes) {
    if (scrape->budget < bytes)
        return false;
    scrape->budget -= bytes;
    return true;
}

/* The body of a 2xx answer. 0, or a negative errno; -EMSGSIZE when it is too large. */
static FIBER_FN int read_body(struct scrape *scrape, struct http_call *call, struct buf *text) {
    struct str piece;
    int rc;
    if (http_call_response(call)->status / 100 != 2)
        return -EBADMSG;
    while ((rc = http_call_read(call, &piece, 0)) == 1) {
        if (!pay(scrape, piece.len))
            return -EMSGSIZE;
        rc = buf_add(text, piece);
        if (rc < 0) {
            scrape->budget += piece.len;
            return rc;
        }
    }
    return rc;
}

static FIBER_FN int fetch_page(struct scrape *scrape, struct worker *worker, struct arena *scratch,
                               struct buf *text) {
    struct http_call_request request = {
        .method = STR("GET"),
        .target = fanout_route(scratch, worker, STR("/metrics")),
        .head = arena_printf(scratch, "%.*saccept: text/plain;version=0.0.4\r\n",
                             STR_ARG(worker->auth_line)),
        .deadline = deadline_in(TIMEOUT_MS),
    };
    struct http_call *call;
    int rc = http_call_start(scratch, worker->peer, &request, &call);
    if (rc == 0)
        rc = read_body(scrape, call, text);
    http_call_finish(call);
    return rc;
}

struct parse_job {
    struct str addr;
    struct buf *text;
    struct engine_page *page;
    const char *why;
};

static int parse_job(void *arg) {
    struct parse_job *job = arg;
    job->page = engine_page_parse(job->addr, job->text, &job->why);
    return 0;
}

/* The pool's queue may be full: then a little later. */
static FIBER_FN int offload_patiently(int (*fn)(void *arg), void *arg) {
    int rc;
    while ((rc = offload(fn, arg)) == -EBUSY) {
        if (fiber_sleep(BUSY_RETRY_MS) < 0)
            return -ECANCELED;
    }
    return rc;
}

static FIBER_FN struct engine_page *parse_page(struct scrape *scrape, struct str addr,
                                               struct buf *text) {
    struct parse_job job = {.addr = addr, .text = text};
    bool small = text->len <= PARSE_HERE_MAX;
    int rc = small ? parse_job(&job) : offload_patiently(parse_job, &job);
    if (rc == 0 && job.page == NULL)
        warn_page(scrape, addr, job.why);
    return job.page;
}

static FIBER_FN void scrape_one(void *ctx, size_t index, const struct fanout_target *target,
                                struct arena *scratch) {
    struct scrape *scrape = ctx;
    struct buf text = buf_make(ENGINE_PAGE_MAX);
    struct engine_page *page = NULL;
    int rc = fetch_page(scrape, target->worker, scratch, &text);
    size_t paid = text.len;
    if (rc == 0)
        page = parse_page(scrape, target->base, &text);
    if (rc == -EMSGSIZE)
        warn_page(scrape, target->base, "too large");
    buf_free(&text);
    scrape->budget += paid;
    if (page != NULL && !pay(scrape, engine_page_cost(page))) {
        warn_page(scrape, target->base, "no memory left for all pages together");
        engine_page_free(page);
        page = NULL;
    }
    scrape->pages[index] = page;
}

static void warn_family(void *arg, struct str addr, struct str family, const char *why) {
    struct scrape *scrape = arg;
    if (scrape->warnings++ < WARNINGS_MAX)
        log_warn("engine_metrics", "metric family of a worker left out", F_STR("worker", addr),
                 F_STR("family", family), F_CSTR("reason", why));
}

struct merge_job {
    struct engine_merge options;
    struct engine_page **pages;
    size_t count;
    struct buf *out;
};

static int merge_job(void *arg) {
    struct merge_job *job = arg;
    engine_merge(&job->options, job->pages, job->count, job->out);
    return 0;
}

/* Moves the pages that there are together; how many. */
static size_t pack(struct scrape *scrape) {
    size_t count = 0;
    for (size_t i = 0; i < scrape->list.count; i++) {
        if (scrape->pages[i] != NULL)
            scrape->pages[count++] = scrape->pages[i];
    }
    return count;
}

static FIBER_FN struct result *merge_pages(struct scrape *scrape, size_t count) {
    struct result *result = result_new(STR(""));
    struct merge_job job = {.options = {.dropped = warn_family, .arg = scrape},
                            .pages = scrape->pages,
                            .count = count,
                            .out = &result->page};
    if (offload_patiently(merge_job, &job) == 0)
        return result;
    result_unref(result);
    return NULL;
}

/* NULL when it was cancelled. */
static FIBER_FN struct result *scrape_run(struct arena *arena) {
    struct scrape scrape = {.list = fanout_list_make(arena, STR_NONE), .budget = PAGES_BUDGET};
    struct fanout fanout = {.parallel = PARALLEL, .one = scrape_one, .ctx = &scrape};
    struct result *result = NULL;
    if (scrape.list.count == 0)
        return result_new(STR("No available workers"));
    scrape.pages = arena_zalloc(arena, scrape.list.count * sizeof *scrape.pages);
    int rc = fanout_run(&fanout, &scrape.list);
    size_t count = pack(&scrape);
    if (rc == 0 && count == 0)
        result = result_new(STR("All backend requests failed"));
    else if (rc == 0)
        result = merge_pages(&scrape, count);
    for (size_t i = 0; i < count; i++)
        engine_page_free(scrape.pages[i]);
    return result;
}

/* --- sharing it; the control loop's --- */

static struct {
    bool made;
    struct semaphore turn;
    struct result *last; /* NULL: none is kept */
    struct timer expiry;
} shared;

static void on_expiry(struct timer *timer) {
    (void)timer;
    result_unref(shared.last);
    shared.last = NULL;
}

static void keep(struct result *result) {
    shared.last = result_ref(result);
    timer_set(&shared.expiry, deadline_in(KEPT_MS));
}

static FIBER_FN struct result *scrape_or_last(void) {
    if (shared.last != NULL)
        return result_ref(shared.last);
    struct arena *arena = arena_new();
    struct result *result = scrape_run(arena);
    arena_free(arena);
    if (result != NULL)
        keep(result);
    return result;
}

static FIBER_FN int ask(void *arg) {
    struct result **result = arg;
    if (!shared.made) {
        shared.made = true;
        shared.expiry.fire = on_expiry;
        semaphore_init(&shared.turn, 1);
    }
    int rc = semaphore_take(&shared.turn, DEADLINE_NEVER);
    if (rc < 0)
        return rc;
    *result = scrape_or_last();
    semaphore_give(&shared.turn);
    return 0;
}

FIBER_FN void engine_scrape_metrics(struct request *request) {
    struct result *result = NULL;
    (void)control_call(ask, &result);
    if (result == NULL)
        return; /* only when the client has gone, or the process stops */
    arena_defer(request->arena, result_unref, result);
    if (result->refusal.len > 0)
        request_text(request, 500, result->refusal);
    else
        request_respond(request, 200, STR(METRICS_CONTENT_TYPE), buf_str(&result->page));
}
