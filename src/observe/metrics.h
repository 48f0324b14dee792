/* The metrics page: Prometheus text format 0.0.4, and the gauges that are read at scrape time. */
#pragma once

#include "base/buf.h"
#include "base/metric.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
/* The page is never larger; for buf_make. */
#define METRICS_MAX_BYTES ((size_t)16 << 20)

/* --metrics-naming: which generation of names is shown. Ours (sluice_*, process_*) always are. */
enum metrics_naming { METRICS_NAMING_LEGACY, METRICS_NAMING_LAYERED, METRICS_NAMING_BOTH };

/* Makes sluice_build_info and hooks the process_* figures and the log's drop counter to the scrape.
 * Once per process, before the first metrics_render. The strings are copied. */
void metrics_init(const char *version, const char *commit);

/* Appends the page to `out`. Takes the registry's lock and reads /proc: milliseconds for a large
 * fleet, so not on a data loop. Does not park. 0, -EMSGSIZE when the page passes the maximum of `out`
 * or METRICS_MAX_BYTES, or -ENOMEM; on failure `out` is as it was. */
int metrics_render(struct buf *out, enum metrics_naming naming) MUST_CHECK;
