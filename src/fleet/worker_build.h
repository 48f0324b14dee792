/* Makes worker objects: what was asked for and what was discovered become the one immutable
 * struct that requests read. Nothing parks. */
#pragma once

#include "fleet/discover.h"

struct worker_plan {
    const char *id; /* UUID text */
    uint64_t revision;
    uint32_t index;
    const struct worker_spec *spec; /* copied */
    const struct discovery *found;  /* copied; NULL: nothing is known */
    const struct worker
        *old; /* the version that it replaces, or NULL: its run-time block is shared, and
                                       its connections when the pool options are the same */
    const struct fleet_settings *settings;
    bool trusted; /* see worker_peer */
};

/* A new worker with one reference. Its breaker options are put in force. */
struct worker *worker_build(const struct worker_plan *plan);
/* A connection pool to the worker of a specification; http_peer_unref gives it back. Unless it is trusted
 * (listed on the command line) the address rules are asked before each connection. */
struct http_peer *worker_peer(const struct worker_spec *spec, const struct fleet_settings *settings,
                              bool trusted);
/* "Authorization: Bearer KEY\r\n" in the arena, or an empty str. */
struct str worker_auth_line(struct arena *arena, struct str api_key);
