/* The registry of workers as the rest of the house uses it: start and stop of the fleet, and
 * what the admin endpoints ask for. All changes happen on the control loop and end in a
 * published snapshot (fleet.h); the calls below go there by themselves, so they may be made on a
 * fiber of any loop. */
#pragma once

#include "base/rand.h"
#include "fleet/fleet.h"
#include "fleet/settings.h"

/* Starts registry, job queue and health checker; on the control loop. Settings are kept by
 * reference for the life of the process. Queues one AddWorker job per listed URL and returns at
 * once; workers need not be up. */
void fleet_start(const struct fleet_settings *given);
/* Stops probes and jobs and lets go of the workers; on a control-loop fiber. Calls below answer
 * REGISTRY_STOPPED from then on. */
FIBER_FN void fleet_stop(void);
/* Listed workers that are not in yet plus registered ones (total_workers of /readiness); any
 * thread. */
size_t fleet_expected_count(void);

enum registry_verdict {
    REGISTRY_DONE,        /* 200 or 202 */
    REGISTRY_BAD_JSON,    /* 400 json_parse_error */
    REGISTRY_BAD_FIELD,   /* 422 invalid_field */
    REGISTRY_BAD_REQUEST, /* 400 BAD_REQUEST: URL or id in the path */
    REGISTRY_EXISTS,      /* 409 WORKER_ALREADY_EXISTS */
    REGISTRY_NOT_FOUND,   /* 404 WORKER_NOT_FOUND */
    REGISTRY_QUEUE_FULL,  /* 500 INTERNAL_SERVER_ERROR: no room in the job queue for 30 s, too many
                             workers, or a list over 256 MiB */
    REGISTRY_JOB_FAILED,  /* legacy calls: the job that was waited for failed; 400 */
    REGISTRY_TIMED_OUT,   /* legacy calls: it has not ended in time (it goes on); 400 */
    REGISTRY_CANCELLED,   /* the caller's fiber was cancelled: nobody reads the answer */
    REGISTRY_STOPPED,     /* 503: the gateway is stopping */
};

/* What came of a call; texts live in the caller's arena. */
struct registry_answer {
    enum registry_verdict verdict;
    struct str message;    /* for the client: the refusal, or what was done; no secrets in it */
    char id[UUID_LEN + 1]; /* of the worker, when it is known; else empty */
    struct str url;        /* likewise */
    struct str json;       /* the body of the reading calls */
};

/* `name` is what follows "/workers/" in the path, undecoded: UUID, percent-encoded URL, or raw
 * URL, also with collapsed slashes and one trailing '/' (01 section 3.1, D5). */

/* POST /workers: reserves the id of the URL and queues its addition (id and url are set).
 * BAD_JSON, BAD_FIELD, BAD_REQUEST (URL refused), EXISTS (registered already), QUEUE_FULL. */
FIBER_FN void registry_post(struct arena *arena, struct str body, struct registry_answer *out);
/* PUT /workers/NAME: with `url` in the body a full replacement (same URL, else BAD_REQUEST;
 * bound to the revision of now), else as PATCH. */
FIBER_FN void registry_put(struct arena *arena, struct str name, struct str body,
                           struct registry_answer *out);
/* PATCH /workers/NAME: priority, cost, labels (merged), api_key, health; queued. */
FIBER_FN void registry_patch(struct arena *arena, struct str name, struct str body,
                             struct registry_answer *out);
/* DELETE /workers/NAME: drops what is still being added, drains, removes; queued. */
FIBER_FN void registry_delete(struct arena *arena, struct str name, struct registry_answer *out);
/* GET /workers/NAME: out->json is a WorkerInfo with job_status, or the pending stub of a
 * reserved id. */
FIBER_FN void registry_get(struct arena *arena, struct str name, struct registry_answer *out);
/* GET /workers: out->json is {"workers":[...],"total":N,"stats":{...}}; of those that serve
 * `model` by id or alias when its ptr is not NULL. */
FIBER_FN void registry_list(struct arena *arena, struct str model, struct registry_answer *out);
/* GET /list_workers: out->json is {"urls":[...]}. */
FIBER_FN void registry_urls(struct arena *arena, struct registry_answer *out);
/* POST /add_worker, /remove_worker (decoded query values): wait for the job, at most the
 * start-up timeout. out->message is the text to answer with, also when it failed. */
FIBER_FN void registry_legacy_add(struct arena *arena, struct str url, struct str api_key,
                                  struct registry_answer *out);
FIBER_FN void registry_legacy_remove(struct arena *arena, struct str url,
                                     struct registry_answer *out);

/* HTTP status and code of a verdict, as the comments above say ("json_parse_error",
 * "WORKER_NOT_FOUND"...); DONE is 200 and "". */
int registry_status(enum registry_verdict verdict);
const char *registry_code(enum registry_verdict verdict);
