/* See loads.h. */
#include "gateway/admin/loads.h"

#include "gateway/admin/control_call.h"
#include "gateway/admin/fanout.h"
#include "gateway/admin/load_report.h"

#define PARALLEL 32
#define TIMEOUT_MS 5000
#define ANSWER_MAX ((size_t)4 << 20) /* read on the control loop; the metrics page is the longest */
#define DETAILS_MAX ((size_t)256 << 10)
#define REPLY_MAX ((size_t)256 << 20)

struct loads {
    struct request *request;
    struct fanout_list list;
    struct entry {
        int64_t load;
        struct str details; /* empty: not known */
    } * entries;
    struct str json;
};

/* Asks one source; 0 with *report. A worker that cannot be reached is not asked for the next. */
static FIBER_FN int ask(struct arena *scratch, const struct worker *worker, enum load_source source,
                        struct load_report *report, bool *reachable) {
    struct fanout_fetch fetch = {.method = STR("GET"),
                                 .route = load_report_routes[source],
                                 .max_body = ANSWER_MAX,
                                 .timeout_ms = TIMEOUT_MS};
    struct str body;
    int status = fanout_call(scratch, worker, &fetch, &body, NULL);
    *reachable = status > 0;
    return status / 100 == 2 ? load_report_read(scratch, source, body, report) : -1;
}

static FIBER_FN void load_one(void *ctx, size_t index, const struct fanout_target *target,
                              struct arena *scratch) {
    struct loads *loads = ctx;
    struct load_report report;
    bool reachable = true;
    int rc = -1;
    for (enum load_source source = 0; rc < 0 && reachable && source < LOAD_SOURCES; source++)
        rc = ask(scratch, target->worker, source, &report, &reachable);
    loads->entries[index] = (struct entry){.load = -1};
    if (rc < 0)
        return;
    struct json_writer writer;
    json_writer_init(&writer, DETAILS_MAX);
    load_report_write(&writer, &report);
    loads->entries[index].load = report.load;
    loads->entries[index].details = json_writer_end(&writer, loads->request->arena);
}

static void write_entry(struct json_writer *writer, const struct fanout_target *target,
                        const struct entry *entry) {
    json_object(writer);
    json_kv_str(writer, "worker", target->base);
    json_kv_int(writer, "load", entry->load);
    if (entry->details.len > 0) {
        json_key(writer, "details");
        json_raw(writer, entry->details);
    }
    json_object_end(writer);
}

static void write_all(struct loads *loads) {
    struct json_writer writer;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_key(&writer, "workers");
    json_array(&writer);
    for (size_t i = 0; i < loads->list.count; i++)
        write_entry(&writer, &loads->list.items[i], &loads->entries[i]);
    json_array_end(&writer);
    json_object_end(&writer);
    loads->json = json_writer_end(&writer, loads->request->arena);
}

static FIBER_FN int collect(void *arg) {
    struct loads *loads = arg;
    struct fanout fanout = {.parallel = PARALLEL, .one = load_one, .ctx = loads};
    struct arena *arena = loads->request->arena;
    loads->list = fanout_list_make(arena, STR_NONE);
    loads->entries = arena_zalloc(arena, (loads->list.count + 1) * sizeof *loads->entries);
    int rc = fanout_run(&fanout, &loads->list);
    if (rc == 0)
        write_all(loads);
    return rc;
}

FIBER_FN void loads_get(struct request *request) {
    struct loads loads = {.request = request};
    if (control_call(collect, &loads) < 0)
        return; /* only when the client has gone, or the process stops */
    if (loads.json.ptr == NULL)
        request_fail(request, PROBLEM_INTERNAL);
    else
        request_json(request, 200, loads.json);
}
