/* Shapes as SGLang has them; every figure comes from the model or the counters. */
#include "lab/mock_info.h"

#include <stdio.h>

enum { CONTEXT_LENGTH = 32768, ANSWER_MAX = 1 << 20 };

static struct str model_name(const struct mock_call *call) {
    return str_from(call->site->options->model);
}

static struct mock_load load_now(struct mock_call *call) {
    mock_site_lock(call->site);
    struct mock_load load = mock_model_load(&call->site->model, clock_us());
    mock_site_unlock(call->site);
    return load;
}

static void open_object(struct json_writer *out) {
    json_writer_init(out, ANSWER_MAX);
    json_object(out);
}

static FIBER_FN void send_object(struct mock_call *call, struct json_writer *out) {
    json_object_end(out);
    mock_call_json(call, 200, out);
}

/* --- models ---------------------------------------------------------------------------------- */

static void write_model(const struct mock_call *call, struct json_writer *out) {
    json_kv_str(out, "id", model_name(call));
    json_kv_str(out, "object", STR("model"));
    json_kv_int(out, "created", call->site->created);
    json_kv_str(out, "owned_by", STR("sglang"));
    json_kv_str(out, "root", model_name(call));
    json_key(out, "parent");
    json_null(out);
    json_kv_int(out, "max_model_len", CONTEXT_LENGTH);
}

static FIBER_FN void send_one_model(struct mock_call *call, struct str name) {
    if (!str_eq(name, model_name(call))) {
        mock_call_error(call, 404, STR("the model does not exist"));
        return;
    }
    struct json_writer out;
    open_object(&out);
    write_model(call, &out);
    send_object(call, &out);
}

FIBER_FN void mock_models(struct mock_call *call) {
    struct str prefix = STR("/v1/models/");
    if (str_starts(call->request->path, prefix)) {
        send_one_model(call, str_skip(call->request->path, prefix.len));
        return;
    }
    struct json_writer out;
    open_object(&out);
    json_kv_str(&out, "object", STR("list"));
    json_key(&out, "data");
    json_array(&out);
    json_object(&out);
    write_model(call, &out);
    json_object_end(&out);
    json_array_end(&out);
    send_object(call, &out);
}

FIBER_FN void mock_model_info(struct mock_call *call) {
    struct json_writer out;
    open_object(&out);
    json_kv_str(&out, "model_path", model_name(call));
    json_kv_str(&out, "tokenizer_path", model_name(call));
    json_kv_bool(&out, "is_generation", true);
    json_key(&out, "preferred_sampling_params");
    json_null(&out);
    json_kv_str(&out, "weight_version", STR("default"));
    json_kv_bool(&out, "has_image_understanding", false);
    json_kv_bool(&out, "has_audio_understanding", false);
    json_kv_str(&out, "model_type", STR("llama"));
    json_key(&out, "architectures");
    json_raw(&out, STR("[\"LlamaForCausalLM\"]"));
    send_object(call, &out);
}

static void write_state(struct json_writer *out, const struct mock_load *load) {
    json_key(out, "internal_states");
    json_array(out);
    json_object(out);
    json_kv_double(out, "last_gen_throughput", load->throughput);
    json_kv_int(out, "effective_max_running_requests_per_dp", (int64_t)load->max_running);
    json_kv_double(out, "token_usage", load->token_usage);
    json_object_end(out);
    json_array_end(out);
}

FIBER_FN void mock_server_info(struct mock_call *call) {
    const struct mock_options *options = call->site->options;
    struct mock_load load = load_now(call);
    struct json_writer out;
    open_object(&out);
    json_kv_str(&out, "model_path", model_name(call));
    json_kv_str(&out, "tokenizer_path", model_name(call));
    json_kv_str(&out, "served_model_name", model_name(call));
    json_kv_str(&out, "host", str_from(options->host));
    json_kv_int(&out, "port", call->site->port);
    json_kv_int(&out, "tp_size", 1);
    json_kv_int(&out, "dp_size", 1);
    json_kv_int(&out, "pp_size", 1);
    json_kv_str(&out, "load_balance_method", STR("round_robin"));
    json_kv_str(&out, "disaggregation_mode", STR("null"));
    json_kv_bool(&out, "is_embedding", false);
    json_kv_int(&out, "context_length", CONTEXT_LENGTH);
    json_kv_int(&out, "max_total_tokens", (int64_t)load.max_tokens);
    json_kv_int(&out, "max_total_num_tokens", (int64_t)load.max_tokens);
    json_kv_int(&out, "max_running_requests", (int64_t)load.max_running);
    json_kv_int(&out, "page_size", (int64_t)options->engine.block_size);
    json_kv_str(&out, "weight_version", STR("default"));
    json_kv_str(&out, "status", STR("ready"));
    json_kv_str(&out, "version", STR("0.5.4+mock"));
    write_state(&out, &load);
    send_object(call, &out);
}

/* --- loads ----------------------------------------------------------------------------------- */

FIBER_FN void mock_get_load(struct mock_call *call) {
    struct mock_load load = load_now(call);
    struct json_writer out;
    json_writer_init(&out, ANSWER_MAX);
    json_array(&out);
    json_object(&out);
    json_kv_int(&out, "dp_rank", 0);
    json_kv_int(&out, "num_reqs", (int64_t)(load.running + load.waiting));
    json_kv_int(&out, "num_waiting_reqs", (int64_t)load.waiting);
    json_kv_int(&out, "num_tokens", (int64_t)(load.used_tokens + load.waiting_uncached));
    json_object_end(&out);
    json_array_end(&out);
    mock_call_json(call, 200, &out);
}

static void write_rank(struct json_writer *out, const struct mock_load *load) {
    json_object(out);
    json_kv_int(out, "dp_rank", 0);
    json_kv_int(out, "num_running_reqs", (int64_t)load->running);
    json_kv_int(out, "num_waiting_reqs", (int64_t)load->waiting);
    json_kv_int(out, "num_waiting_uncached_tokens", (int64_t)load->waiting_uncached);
    json_kv_int(out, "num_total_reqs", (int64_t)(load->running + load->waiting));
    json_kv_int(out, "num_used_tokens", (int64_t)load->used_tokens);
    json_kv_int(out, "max_total_num_tokens", (int64_t)load->max_tokens);
    json_kv_double(out, "token_usage", load->token_usage);
    json_kv_double(out, "gen_throughput", load->throughput);
    json_kv_double(out, "cache_hit_rate", load->hit_rate);
    json_kv_double(out, "utilization", load->utilization);
    json_kv_int(out, "max_running_requests", (int64_t)load->max_running);
    json_object_end(out);
}

FIBER_FN void mock_loads(struct mock_call *call) {
    struct mock_load load = load_now(call);
    char now[32];
    clock_rfc3339(clock_wall_ms(), now, sizeof now);
    struct json_writer out;
    open_object(&out);
    json_kv_str(&out, "timestamp", str_from(now));
    json_kv_int(&out, "dp_rank_count", 1);
    json_key(&out, "loads");
    json_array(&out);
    write_rank(&out, &load);
    json_array_end(&out);
    send_object(call, &out);
}

/* --- metrics --------------------------------------------------------------------------------- */

static void put_metric(struct buf *out, const char *name, const char *type, const char *help,
                       struct str model, double value) {
    int err = buf_printf(out, "# HELP sglang:%s %s\n# TYPE sglang:%s %s\n", name, help, name, type);
    if (err == 0)
        err =
            buf_printf(out, "sglang:%s{model_name=\"%.*s\"} %.17g\n", name, STR_ARG(model), value);
    (void)err; /* the buffer is far larger than the page */
}

static void put_bucket(struct buf *out, struct str model, const char *bound, uint64_t count) {
    int err = buf_printf(out,
                         "sglang:time_to_first_token_seconds_bucket{model_name=\"%.*s\",le=\"%s\"} "
                         "%llu\n",
                         STR_ARG(model), bound, (unsigned long long)count);
    (void)err;
}

static void put_ttft(struct buf *out, struct str model, const struct mock_totals *totals) {
    const char *name = "sglang:time_to_first_token_seconds";
    uint64_t count = 0;
    int err = buf_printf(out, "# HELP %s Time to first token.\n# TYPE %s histogram\n", name, name);
    for (size_t i = 0; i < MOCK_TTFT_BUCKETS; i++) {
        char bound[32];
        snprintf(bound, sizeof bound, "%g", mock_ttft_bounds[i]);
        count += totals->ttft_counts[i];
        put_bucket(out, model, bound, count);
    }
    count += totals->ttft_counts[MOCK_TTFT_BUCKETS];
    put_bucket(out, model, "+Inf", count);
    if (err == 0)
        err = buf_printf(
            out, "%s_sum{model_name=\"%.*s\"} %.9g\n%s_count{model_name=\"%.*s\"} %llu\n", name,
            STR_ARG(model), totals->ttft_sum, name, STR_ARG(model), (unsigned long long)count);
    (void)err;
}

static void put_all(struct buf *out, struct str model, const struct mock_load *load,
                    const struct mock_totals *totals) {
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {
        {"num_running_reqs", "gauge", "Requests that run.", (double)load->running},
        {"num_queue_reqs", "gauge", "Requests that wait.", (double)load->waiting},
        {"num_used_tokens", "gauge", "Tokens in use.", (double)load->used_tokens},
        {"max_total_num_tokens", "gauge", "Tokens there is room for.", (double)load->max_tokens},
        {"token_usage", "gauge", "Share of tokens in use.", load->token_usage},
        {"gen_throughput", "gauge", "Output tokens a second.", load->throughput},
        {"cache_hit_rate", "gauge", "Share of prompt tokens found in the cache.", load->hit_rate},
        {"utilization", "gauge", "Share of running places in use.", load->utilization},
        {"prompt_tokens_total", "counter", "Prompt tokens.", (double)totals->prompt_tokens},
        {"cached_tokens_total", "counter", "Prompt tokens from the cache.",
         (double)totals->cached_tokens},
        {"generation_tokens_total", "counter", "Output tokens.", (double)totals->output_tokens},
        {"num_requests_total", "counter", "Requests that ended well.", (double)totals->finished},
        {"num_aborted_requests_total", "counter", "Requests cut off.", (double)totals->cancelled},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        put_metric(out, rows[i].name, rows[i].type, rows[i].help, model, rows[i].value);
    put_ttft(out, model, totals);
}

/* A model name as a label value. */
static struct str label_value(struct arena *arena, struct str name) {
    char *out = arena_alloc(arena, name.len * 2 + 1);
    size_t len = 0;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (c == '"' || c == '\\' || c == '\n')
            out[len++] = '\\';
        out[len++] = c == '\n' ? 'n' : c;
    }
    return str_make(out, len);
}

FIBER_FN void mock_metrics(struct mock_call *call) {
    struct mock_load load = load_now(call);
    mock_site_lock(call->site);
    struct mock_totals totals = call->site->totals;
    mock_site_unlock(call->site);
    struct buf page = buf_make(ANSWER_MAX);
    put_all(&page, label_value(call->arena, model_name(call)), &load, &totals);
    struct str text = arena_dup(call->arena, buf_str(&page));
    buf_free(&page);
    (void)mock_wire_answer(&call->wire, 200, "text/plain; version=0.0.4; charset=utf-8", text);
}

/* --- health and controls --------------------------------------------------------------------- */

FIBER_FN void mock_health(struct mock_call *call) {
    mock_site_lock(call->site);
    bool healthy = call->site->faults.healthy;
    mock_site_unlock(call->site);
    mock_call_text(call, healthy ? 200 : 503, healthy ? STR("OK") : STR("unhealthy"));
}

FIBER_FN void mock_flush_cache(struct mock_call *call) {
    mock_site_lock(call->site);
    bool flushed = mock_model_flush(&call->site->model);
    mock_site_unlock(call->site);
    mock_call_text(call, flushed ? 200 : 400,
                   flushed ? STR("Cache flushed.\n")
                           : STR("Cache not flushed: requests are running or waiting.\n"));
}

static FIBER_FN void profile(struct mock_call *call, bool start) {
    mock_site_lock(call->site);
    bool was = call->site->profiling;
    call->site->profiling = start;
    mock_site_unlock(call->site);
    if (was == start)
        mock_call_text(call, 500,
                       start ? STR("profiling is on already\n") : STR("profiling is not on\n"));
    else
        mock_call_text(call, 200, start ? STR("Start profiling.\n") : STR("Stop profiling.\n"));
}

FIBER_FN void mock_start_profile(struct mock_call *call) { profile(call, true); }
FIBER_FN void mock_stop_profile(struct mock_call *call) { profile(call, false); }

FIBER_FN void mock_cancel_response(struct mock_call *call) {
    struct str path = call->request->path, prefix = STR("/v1/responses/");
    struct str id = str_head(path, path.len - (sizeof "/cancel" - 1));
    id = str_skip(id, prefix.len);
    struct str mine = arena_printf(call->arena, "resp_%u-", call->site->port);
    if (!str_starts(id, mine)) {
        mock_call_error(call, 404, STR("no such response"));
        return;
    }
    struct json_writer out;
    open_object(&out);
    json_kv_str(&out, "id", id);
    json_kv_str(&out, "object", STR("response"));
    json_kv_str(&out, "status", STR("cancelled"));
    json_kv_str(&out, "model", model_name(call));
    send_object(call, &out);
}
