/* Who exists: the registry of workers. All changes happen on the control loop (fibers of it; use
 * loop_call from elsewhere) and end in a published snapshot. */
#pragma once

#include "fleet/fleet.h"
#include "fleet/jobs.h"
#include "fleet/settings.h"
#include "fleet/worker_spec.h"

/* Starts registry, job queue and health checker on the control loop; settings are kept by reference for
 * the life of the process. Queues one AddWorker job per listed URL and returns at once. */
void fleet_start(const struct fleet_settings *settings);
/* Stops probes and jobs; on a control-loop fiber. */
FIBER_FN void fleet_stop(void);
/* Listed workers that are not in yet plus registered ones (total_workers of /readiness); any loop. */
size_t fleet_expected_count(void);
