/* Capability discovery of an HTTP worker (spec 02 section 4.4): what a worker says of itself at
 * /server_info, /model_info, /v1/models and /version becomes labels, a runtime and a model card.
 * Every field is optional; a wrong shape counts as absent and is logged once for each worker and
 * endpoint. */
#pragma once

#include "fleet/worker_spec.h"

/* What was found. Plain value; texts live in the arena it was made with. */
struct discovery {
    struct worker_label *labels;
    size_t label_count;
    struct str runtime;     /* static text; empty: not found out */
    struct model_card card; /* without id, which depends on the labels that were asked for */
};

/* Endpoints of which a worker has sent a wrong shape already, as bits; kept with the worker. */
typedef uint32_t discover_faults;

enum discover_source { FROM_SERVER_INFO, FROM_MODEL_INFO, FROM_MODELS, FROM_VERSION, SOURCE_COUNT };

/* Asks the worker: all endpoints together, at most `deadline`. Fills *out with what could be
 * learnt; texts in `arena`. 0, -ECANCELED, or -EHOSTUNREACH when no endpoint could be reached at
 * all (worth another try). */
FIBER_FN int discover_worker(struct arena *arena, struct http_peer *peer, struct str base_path,
                             struct str auth_line, struct str url, deadline_ms deadline,
                             discover_faults *faults, struct discovery *out);

void discovery_init(struct discovery *found);
/* Pure: takes one answer's body in. False when its shape is wrong (then nothing is taken). */
bool discovery_read(struct arena *arena, enum discover_source source, struct str body,
                    struct discovery *found);
/* Pure: derives runtime and card once all bodies are in. */
void discovery_finish(struct arena *arena, struct discovery *found);
/* Did two discoveries find the same? */
bool discovery_same(const struct discovery *a, const struct discovery *b);
void discovery_copy(struct arena *arena, const struct discovery *from, struct discovery *to);
