/* What a worker says of its load, out of any of the three places where engines tell it (spec 01
 * section 3.4). Answers are hostile: what is missing or of a wrong shape counts as 0, and an answer
 * without used tokens is no report at all. Pure; nothing parks. */
#pragma once

#include "proto/json.h"

#define LOAD_RANKS_MAX 256
/* Routes of the sources below. */
extern const struct str load_report_routes[];

enum load_source { LOAD_FROM_LOADS, LOAD_FROM_GET_LOAD, LOAD_FROM_METRICS, LOAD_SOURCES };

/* One data-parallel rank. Numbers below 0 are not known. */
struct load_rank {
    double dp_rank, num_running_reqs, num_waiting_reqs, num_waiting_uncached_tokens, num_total_reqs,
        num_used_tokens, max_total_num_tokens, token_usage, gen_throughput, cache_hit_rate,
        utilization, max_running_requests;
    double kv_transfer_latency_ms, kv_transfer_speed_gb_s, prefill_queue_reqs, decode_queue_reqs;
    struct str disagg_mode; /* empty: none */
};
struct load_report {
    int64_t load; /* used tokens over all ranks */
    struct str timestamp;
    struct load_rank *ranks;
    size_t rank_count;
};

/* Reads an answer's body. 0 with *out (in `arena`), or -EINVAL when it tells no used tokens. */
int load_report_read(struct arena *arena, enum load_source source, struct str body,
                     struct load_report *out) MUST_CHECK;
/* The object `details`. */
void load_report_write(struct json_writer *writer, const struct load_report *report);
