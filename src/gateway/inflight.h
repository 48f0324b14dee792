/* Requests in flight by age (smg_http_inflight_request_age_count, spec 06 section 1.5). Each
 * loop keeps its own in order of arrival; every 20 s it is asked to count them, and a scrape
 * shows the sums of the last counts. */
#pragma once

#include "base/list.h"

#include <stdint.h>

/* Embedded in the request; touched by its own loop only. */
struct inflight {
    struct list link;
    int64_t started_us; /* monotonic */
};

/* Makes the lists and begins to sample; control loop, once, after loops_start. */
void inflight_start(void);
void inflight_begin(struct inflight *entry, int64_t started_us);
void inflight_end(struct inflight *entry);
/* Sets the gauges; at scrape. */
void inflight_show(void);
