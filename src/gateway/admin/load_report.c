/* See load_report.h. The keys of a rank are a table: where they are read from, and how they are
 * written. */
#include "gateway/admin/load_report.h"

#include <errno.h>
#include <math.h>

#include "gateway/admin/prom_text.h"

const struct str load_report_routes[LOAD_SOURCES] = {
    [LOAD_FROM_LOADS] = STR_INIT("/v1/loads?include=core,disagg,queues,memory"),
    [LOAD_FROM_GET_LOAD] = STR_INIT("/get_load"),
    [LOAD_FROM_METRICS] = STR_INIT("/metrics"),
};

/* Beyond it a double is no exact count. */
#define COUNT_MAX 9007199254740992.0
#define TIMESTAMP_MAX 64
#define MODE_MAX 32

struct rank_key {
    const char *key;   /* in /v1/loads and in our answer */
    const char *old;   /* in /get_load; NULL: not there */
    const char *gauge; /* behind "sglang:" in /metrics */
    size_t offset;
    bool whole, optional; /* optional: left out when it is not known */
};
#define AT(member) offsetof(struct load_rank, member)
static const struct rank_key keys[] = {
    {"dp_rank", "dp_rank", NULL, AT(dp_rank), true, false},
    {"num_running_reqs", NULL, "num_running_reqs", AT(num_running_reqs), true, false},
    {"num_waiting_reqs", "num_waiting_reqs", "num_queue_reqs", AT(num_waiting_reqs), true, false},
    {"num_waiting_uncached_tokens", NULL, NULL, AT(num_waiting_uncached_tokens), true, false},
    {"num_total_reqs", "num_reqs", NULL, AT(num_total_reqs), true, false},
    {"num_used_tokens", "num_tokens", "num_used_tokens", AT(num_used_tokens), true, false},
    {"max_total_num_tokens", NULL, "max_total_num_tokens", AT(max_total_num_tokens), true, false},
    {"token_usage", NULL, "token_usage", AT(token_usage), false, false},
    {"gen_throughput", NULL, "gen_throughput", AT(gen_throughput), false, false},
    {"cache_hit_rate", NULL, "cache_hit_rate", AT(cache_hit_rate), false, false},
    {"utilization", NULL, "utilization", AT(utilization), false, false},
    {"max_running_requests", NULL, "max_running_requests", AT(max_running_requests), true, false},
    {"kv_transfer_latency_ms", NULL, NULL, AT(kv_transfer_latency_ms), false, true},
    {"kv_transfer_speed_gb_s", NULL, NULL, AT(kv_transfer_speed_gb_s), false, true},
    {"prefill_queue_reqs", NULL, NULL, AT(prefill_queue_reqs), true, true},
    {"decode_queue_reqs", NULL, NULL, AT(decode_queue_reqs), true, true},
};
#define KEYS (sizeof keys / sizeof *keys)

static double *field(struct load_rank *rank, const struct rank_key *key) {
    return (double *)((char *)rank + key->offset);
}

static double known_or(double value, double otherwise) { return value >= 0 ? value : otherwise; }

static struct load_rank rank_unknown(void) {
    struct load_rank rank = {.disagg_mode = STR("")};
    for (size_t i = 0; i < KEYS; i++)
        *field(&rank, &keys[i]) = -1;
    return rank;
}

/* A figure as it may be shown, or -1. */
static double checked(double value, bool whole) {
    if (!isfinite(value) || value < 0 || (whole && value > COUNT_MAX))
        return -1;
    return whole ? floor(value) : value;
}

/* What follows from other figures. */
static void rank_derive(struct load_rank *rank) {
    double running = known_or(rank->num_running_reqs, 0),
           waiting = known_or(rank->num_waiting_reqs, 0);
    if (rank->num_running_reqs < 0 && rank->num_total_reqs >= 0)
        rank->num_running_reqs = fmax(0, rank->num_total_reqs - waiting);
    if (rank->num_total_reqs < 0)
        rank->num_total_reqs = running + waiting;
}

/* Sums up; false when no rank tells its used tokens. */
static bool report_close(struct load_report *report) {
    double sum = 0;
    bool known = false;
    for (size_t i = 0; i < report->rank_count; i++) {
        struct load_rank *rank = &report->ranks[i];
        known = known || rank->num_used_tokens >= 0;
        sum += known_or(rank->num_used_tokens, 0);
        if (rank->dp_rank < 0)
            rank->dp_rank = (double)i;
        rank_derive(rank);
    }
    report->load = (int64_t)fmin(sum, COUNT_MAX);
    return known;
}

/* --- JSON --- */

static double number_in(yyjson_val *object, const char *key, bool whole) {
    return checked(json_get_num(object, key, -1), whole);
}

/* Figures of a disaggregated worker stand in an object of their own, under longer names. */
static void read_disaggregation(struct arena *arena, yyjson_val *object, struct load_rank *rank) {
    static const struct {
        const char *key;
        size_t offset;
        bool whole;
    } sums[] = {
        {"kv_transfer_latency_ms", AT(kv_transfer_latency_ms), false},
        {"kv_transfer_speed_gb_s", AT(kv_transfer_speed_gb_s), false},
        {"prefill_prealloc_queue_reqs", AT(prefill_queue_reqs), true},
        {"prefill_bootstrap_queue_reqs", AT(prefill_queue_reqs), true},
        {"prefill_inflight_queue_reqs", AT(prefill_queue_reqs), true},
        {"decode_prealloc_queue_reqs", AT(decode_queue_reqs), true},
        {"decode_transfer_queue_reqs", AT(decode_queue_reqs), true},
        {"decode_retracted_queue_reqs", AT(decode_queue_reqs), true},
    };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        double *target = (double *)((char *)rank + sums[i].offset);
        double value = number_in(object, sums[i].key, sums[i].whole);
        if (value >= 0)
            *target = checked(known_or(*target, 0) + value, sums[i].whole);
    }
    struct str mode = json_get_str(object, "mode", STR(""));
    if (rank->disagg_mode.len == 0 && mode.len <= MODE_MAX && !str_eq(mode, STR("null")))
        rank->disagg_mode = arena_dup(arena, mode);
}

static struct load_rank read_rank(struct arena *arena, yyjson_val *object, bool old) {
    struct load_rank rank = rank_unknown();
    for (size_t i = 0; i < KEYS; i++) {
        const char *key = old ? keys[i].old : keys[i].key;
        if (key != NULL)
            *field(&rank, &keys[i]) = number_in(object, key, keys[i].whole);
    }
    if (old)
        return rank;
    if (rank.num_used_tokens < 0)
        rank.num_used_tokens = number_in(object, "num_total_tokens", true);
    struct str mode = json_get_str(object, "disagg_mode", STR(""));
    if (mode.len <= MODE_MAX)
        rank.disagg_mode = arena_dup(arena, mode);
    read_disaggregation(arena, json_get(object, "disaggregation"), &rank);
    return rank;
}

static void read_ranks(struct arena *arena, yyjson_val *array, bool old, struct load_report *out) {
    size_t i, max;
    yyjson_val *item;
    out->ranks = arena_alloc(arena, LOAD_RANKS_MAX * sizeof *out->ranks);
    yyjson_arr_foreach(array, i, max, item) {
        if (yyjson_is_obj(item) && out->rank_count < LOAD_RANKS_MAX)
            out->ranks[out->rank_count++] = read_rank(arena, item, old);
    }
}

static struct str read_timestamp(struct arena *arena, yyjson_val *root) {
    struct str text = json_get_str(root, "timestamp", STR(""));
    double number = json_get_num(root, "timestamp", -1);
    if (text.len == 0 && number >= 0 && number < COUNT_MAX)
        return arena_printf(arena, "%.3f", number);
    return text.len <= TIMESTAMP_MAX ? arena_dup(arena, text) : STR("");
}

static int read_json(struct arena *arena, struct str body, bool old, struct load_report *out) {
    yyjson_doc *doc = json_parse(arena, body, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    yyjson_val *array = old ? root : json_get(root, "loads");
    if (!yyjson_is_arr(array))
        return -EINVAL;
    out->timestamp = old ? STR("") : read_timestamp(arena, root);
    read_ranks(arena, array, old, out);
    return report_close(out) ? 0 : -EINVAL;
}

/* --- gauges --- */

/* "sglang:x" and, as some proxies write it, "sglang_x". */
static const struct rank_key *gauge_key(struct str name) {
    if (!str_starts(name, STR("sglang:")) && !str_starts(name, STR("sglang_")))
        return NULL;
    struct str rest = str_skip(name, strlen("sglang:"));
    for (size_t i = 0; i < KEYS; i++) {
        if (keys[i].gauge != NULL && str_eq(rest, str_from(keys[i].gauge)))
            return &keys[i];
    }
    return NULL;
}

static double label_rank(struct str labels) {
    struct prom_label label;
    double rank = -1;
    while (prom_label(&labels, &label)) {
        if (str_eq(label.name, STR("dp_rank")) && str_to_double(label.value, &rank) < 0)
            rank = -1;
    }
    return known_or(checked(rank, true), 0);
}

/* NULL when there are too many. */
static struct load_rank *rank_numbered(struct load_report *report, double number) {
    for (size_t i = 0; i < report->rank_count; i++) {
        if (report->ranks[i].dp_rank == number)
            return &report->ranks[i];
    }
    if (report->rank_count == LOAD_RANKS_MAX)
        return NULL;
    struct load_rank *rank = &report->ranks[report->rank_count++];
    *rank = rank_unknown();
    rank->dp_rank = number;
    return rank;
}

/* The tensor-parallel processes of one rank all tell its figures: the highest counts. */
static void read_gauge(struct load_report *report, const struct prom_line *line) {
    const struct rank_key *key = gauge_key(line->name);
    struct load_rank *rank = key ? rank_numbered(report, label_rank(line->labels)) : NULL;
    if (rank == NULL)
        return;
    double *target = field(rank, key), value = checked(line->number, key->whole);
    *target = fmax(*target, value);
}

static int read_metrics(struct arena *arena, struct str body, struct load_report *out) {
    struct prom_line line;
    int rc;
    out->timestamp = STR("");
    out->ranks = arena_alloc(arena, LOAD_RANKS_MAX * sizeof *out->ranks);
    while ((rc = prom_next(&body, &line)) == 1) {
        if (line.kind == PROM_SAMPLE)
            read_gauge(out, &line);
    }
    return rc == 0 && report_close(out) ? 0 : -EINVAL;
}

int load_report_read(struct arena *arena, enum load_source source, struct str body,
                     struct load_report *out) {
    *out = (struct load_report){0};
    if (source == LOAD_FROM_METRICS)
        return read_metrics(arena, body, out);
    return read_json(arena, body, source == LOAD_FROM_GET_LOAD, out);
}

/* --- writing --- */

static void write_rank(struct json_writer *writer, struct load_rank *rank) {
    json_object(writer);
    for (size_t i = 0; i < KEYS; i++) {
        double value = *field(rank, &keys[i]);
        if (value < 0 && keys[i].optional)
            continue;
        if (keys[i].whole)
            json_kv_int(writer, keys[i].key, (int64_t)known_or(value, 0));
        else
            json_kv_double(writer, keys[i].key, known_or(value, 0));
    }
    if (rank->disagg_mode.len > 0)
        json_kv_str(writer, "disagg_mode", rank->disagg_mode);
    json_object_end(writer);
}

void load_report_write(struct json_writer *writer, const struct load_report *report) {
    json_object(writer);
    json_kv_str(writer, "timestamp", report->timestamp);
    json_kv_int(writer, "dp_rank_count", (int64_t)report->rank_count);
    json_key(writer, "loads");
    json_array(writer);
    for (size_t i = 0; i < report->rank_count; i++)
        write_rank(writer, &report->ranks[i]);
    json_array_end(writer);
    json_object_end(writer);
}
