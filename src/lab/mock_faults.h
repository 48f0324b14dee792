/* Faults on demand: what a simulated worker does wrong, from the command line or live over
 * POST /mock/faults. One table names the settings for both directions of the JSON. Pure. */
#pragma once

#include "base/rand.h"
#include "proto/json.h"

/* -1 = off for all counts; times in milliseconds. */
struct mock_faults {
    double fail_rate;   /* share of requests answered with fail_status */
    int64_t fail_first; /* so many requests fail, then the rate holds again */
    int64_t fail_status;
    int64_t retry_after;       /* Retry-After of failures, seconds */
    int64_t delay_ms;          /* before the head */
    int64_t slow_body_ms;      /* before each event, or each sixteenth of another body */
    int64_t cut_after_bytes;   /* of the body */
    int64_t cut_after_events;  /* of a stream, at the border */
    int64_t hang_after_events; /* the stream goes silent */
    bool cut_inside;           /* with cut_after_events: half of the next event goes out too */
    bool hang;                 /* never answers */
    bool drop;                 /* ends the connection instead of answering */
    bool garbage;              /* answers with bytes that are no HTTP */
    bool healthy;              /* false: /health and /health_generate answer 503 */
    const char *close_mode;    /* how a connection is cut: "fin" or "rst" */
    const char *scope;         /* requests concerned: "inference", "health", "all" */
};

/* No fault at all. */
struct mock_faults mock_faults_none(void);
/* Sets the members that `object` names, all or none: 0, or -EINVAL with *error (in the arena) naming the
 * member and what it takes. */
int mock_faults_set(struct mock_faults *faults, yyjson_val *object, struct arena *arena,
                    struct str *error) MUST_CHECK;
/* All settings as one object. */
void mock_faults_write(const struct mock_faults *faults, struct json_writer *writer);

enum mock_fate { MOCK_SERVE, MOCK_FAIL, MOCK_HANG, MOCK_DROP, MOCK_GARBAGE };
/* What becomes of one request in scope. Counts fail_first down. */
enum mock_fate mock_faults_draw(struct mock_faults *faults, struct rand_stream *rand);
/* True when requests of that kind are concerned. */
bool mock_faults_concern(const struct mock_faults *faults, bool inference, bool health);
/* The next `len` body bytes when `sent` are out: how many of them may still go before the cut. */
size_t mock_faults_room(const struct mock_faults *faults, uint64_t sent, size_t len);
