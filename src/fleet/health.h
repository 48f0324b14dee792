/* Health checks: one deadline per worker on the control loop, at most HEALTH_PROBES_MAX probes
 * at once. The first probe follows registration at once, the next ones an interval after the
 * start of the last. The rules are in health_state.h. Control loop only, but for fleet_suspect. */
#pragma once

#include "fleet/roster.h"
#include "fleet/settings.h"

#define HEALTH_PROBES_MAX 128
/* A suspected worker is probed at most so often. */
#define HEALTH_SUSPECT_MS 1000

/* `changed` is told when the rules say that a worker's state has changed; it does what follows
 * from it (the status is not set here). On a fiber, must not park. */
void health_start(const struct fleet_settings *settings,
                  void (*changed)(struct roster_entry *entry, enum worker_status from,
                                  enum worker_status to));
/* Ends all watches and waits for the probes under way. */
FIBER_FN void health_stop(void);
/* Watches a registered worker from its present status on, with a probe at once; also after each
 * replacement. A worker without health checks is not watched (and set ready). */
void health_begin(struct roster_entry *entry);
void health_end(struct roster_entry *entry);

/* One probe: GET of the health endpoint. 0 when the answer is 2xx; -EPROTO for another status,
 * else the errno of the failure; *why (in `arena`) tells people. */
FIBER_FN int health_probe(struct arena *arena, struct http_peer *peer, struct str base_path,
                          struct str auth_line, deadline_ms deadline, struct str *why);
/* Time for one probe of this worker. */
int64_t health_timeout_ms(const struct worker_spec *spec);

/* Passive detection: a connection to the worker was refused. Has it probed at once; changes no
 * state by itself. Any loop; cheap when repeated. */
void fleet_suspect(struct worker *worker);
