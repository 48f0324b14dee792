#include "lab/mock_control.h"

enum { ANSWER_MAX = 256 << 20 };

/* The workers that a control concerns: this one, or all of the process. */
static void concerned(struct mock_call *call, struct mock_site **first, unsigned *count) {
    bool all = str_eq(mock_call_query(call, STR("all"), STR("0")), STR("1"));
    *first = all ? call->lab->sites : call->site;
    *count = all ? call->lab->count : 1;
}

static FIBER_FN void send_faults(struct mock_call *call) {
    mock_site_lock(call->site);
    struct mock_faults faults = call->site->faults;
    mock_site_unlock(call->site);
    struct json_writer out;
    json_writer_init(&out, ANSWER_MAX);
    mock_faults_write(&faults, &out);
    mock_call_json(call, 200, &out);
}

FIBER_FN void mock_control_faults(struct mock_call *call) {
    struct mock_site *first;
    unsigned count;
    struct str error = STR_NONE;
    int err = 0;
    concerned(call, &first, &count);
    for (unsigned i = 0; call->root && i < count && err == 0; i++) {
        mock_site_lock(&first[i]);
        err = mock_faults_set(&first[i].faults, call->root, call->arena, &error);
        mock_site_unlock(&first[i]);
    }
    if (err)
        mock_call_error(call, 400, error);
    else
        send_faults(call);
}

static void write_totals(struct json_writer *out, const struct mock_totals *totals) {
    json_kv_int(out, "total", (int64_t)totals->requests);
    json_kv_int(out, "finished", (int64_t)totals->finished);
    json_kv_int(out, "cancelled", (int64_t)totals->cancelled);
    json_kv_int(out, "failed", (int64_t)totals->failed);
    json_kv_int(out, "prompt_tokens", (int64_t)totals->prompt_tokens);
    json_kv_int(out, "cached_tokens", (int64_t)totals->cached_tokens);
    json_kv_int(out, "output_tokens", (int64_t)totals->output_tokens);
}

static void write_site(struct mock_site *site, struct json_writer *out, size_t last) {
    mock_site_lock(site);
    struct mock_load load = mock_model_load(&site->model, clock_us());
    json_object(out);
    json_kv_int(out, "port", site->port);
    write_totals(out, &site->totals);
    json_kv_int(out, "running", (int64_t)load.running);
    json_kv_int(out, "waiting", (int64_t)load.waiting);
    mock_record_write(&site->record, last, out);
    json_object_end(out);
    mock_site_unlock(site);
}

FIBER_FN void mock_control_requests(struct mock_call *call) {
    uint64_t last;
    if (str_to_u64(mock_call_query(call, STR("last"), STR("100000")), &last)) {
        mock_call_error(call, 400, STR("last must be a number"));
        return;
    }
    struct json_writer out;
    json_writer_init(&out, ANSWER_MAX);
    write_site(call->site, &out, (size_t)last);
    mock_call_json(call, 200, &out);
}

FIBER_FN void mock_control_reset(struct mock_call *call) {
    struct mock_site *first;
    unsigned count;
    concerned(call, &first, &count);
    for (unsigned i = 0; i < count; i++)
        mock_site_reset(&first[i]);
    send_faults(call);
}
