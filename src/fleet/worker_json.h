/* WorkerInfo (spec 01 section 3.1): the union of both generations of the shape. Keys are never
 * in it. */
#pragma once

#include "fleet/jobs.h"
#include "fleet/worker_spec.h"

/* One WorkerInfo object. `job` may be NULL. */
void worker_info_write(struct json_writer *writer, const struct worker *worker,
                       const struct job_status *job);
/* The stub of a worker whose id is reserved and whose registration is under way or failed. */
void worker_stub_write(struct json_writer *writer, const char *id, struct str url,
                       const struct job_status *job);
