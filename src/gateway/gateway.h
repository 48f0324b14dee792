/* The gateway: servers, listeners, the path of every request, start and stop. */
#pragma once

#include "gateway/routes.h"

struct gateway;

/* Opens the listeners (API, metrics, probe port) without accepting yet. 0 with *out; or a
 * negative errno with `error` (size bytes) saying what could not be bound. Main thread, after
 * loops_start. Settings are kept by reference. */
int gateway_open(const struct gateway_settings *settings, struct policy *policy,
                 struct gateway **out, char *error, size_t size) MUST_CHECK;
/* Starts to accept. */
void gateway_start(struct gateway *gateway);
/* Spec 01 section 8.3: readiness turns 503, settle, refuse, drain, cut. Control-loop fiber;
 * returns when no connection is left. `settle_ms` 0: refuse at once. */
FIBER_FN void gateway_stop(struct gateway *gateway, int64_t settle_ms, int64_t drain_ms);
/* Nothing is open, and nobody has asked for readiness in the last minute: no need to settle. */
bool gateway_unwatched(const struct gateway *gateway);

bool gateway_draining(const struct gateway *gateway);
int64_t gateway_started_ms(const struct gateway *gateway); /* monotonic */
uint64_t gateway_config_version(const struct gateway *gateway);
struct policy *gateway_policy(const struct gateway *gateway);
/* Said by the readiness handler. */
void gateway_probed(struct gateway *gateway);

/* The check of an auth class; false when it was answered 401 here. */
FIBER_FN bool gateway_authorize(struct request *request, enum route_auth auth);
