/* The order of jobs, pure: FIFO among jobs of one key (a worker's URL), parallel across keys, at
 * most so many at work at once, a bound on those that wait, and one remembered failure per key
 * and kind. What runs them is jobs.c. One thread; nothing parks, nothing is allocated but keys
 * and texts. */
#pragma once

#include <stdint.h>

#include "base/list.h"
#include "base/map.h"

/* X(id, name): the names of spec 01 section 3.1. */
#define JOB_KINDS(X)                                                                               \
    X(ADD_WORKER, "AddWorker")                                                                     \
    X(UPDATE_WORKER, "UpdateWorker")                                                               \
    X(REMOVE_WORKER, "RemoveWorker")                                                               \
    X(INITIALIZE_WORKERS, "InitializeWorkersFromConfig")                                           \
    X(INITIALIZE_MCP, "InitializeMcpServers")                                                      \
    X(REGISTER_MCP, "RegisterMcpServer")                                                           \
    X(ADD_WASM, "AddWasmModule")                                                                   \
    X(REMOVE_WASM, "RemoveWasmModule")                                                             \
    X(ADD_TOKENIZER, "AddTokenizer")                                                               \
    X(REMOVE_TOKENIZER, "RemoveTokenizer")
enum job_kind {
#define JOB_ENUM(id, name) JOB_##id,
    JOB_KINDS(JOB_ENUM)
#undef JOB_ENUM
        JOB_KIND_COUNT
};
enum job_state { JOB_PENDING, JOB_PROCESSING, JOB_FAILED };

const char *job_kind_name(enum job_kind kind);
const char *job_state_name(enum job_state state);

#define JOB_NOTE_MAX 256
/* How long a failure is remembered, and how often old ones are swept out. */
#define JOB_FAILURE_KEPT_MS 300000
#define JOB_SWEEP_MS 60000

struct job_line;
/* Embedded in its owner's job. */
struct job_node {
    struct list in_line; /* jobs of the same key, oldest first */
    struct list in_all;  /* all unfinished jobs, oldest first */
    struct job_line *line;
    enum job_kind kind;
    enum job_state state;
    bool free_of_charge;     /* not bound by the capacity */
    bool at_work;            /* holds one of the places */
    int64_t submitted_ms;    /* monotonic */
    int64_t changed_s;       /* wall clock */
    char note[JOB_NOTE_MAX]; /* how far it is */
};

struct job_queue {
    struct map lines;
    struct list runnable; /* lines whose first job wants to run */
    struct list all;
    size_t capacity, places;          /* most that wait; free places to work */
    size_t pending, charged, working; /* not yet started (those under the capacity too); started */
};

struct job_status {
    enum job_kind kind;
    enum job_state state;
    struct str key, message; /* valid until the queue changes */
    int64_t changed_s;
};

void job_queue_init(struct job_queue *queue, size_t capacity, size_t places);
/* All jobs must have ended. */
void job_queue_free(struct job_queue *queue);
/* May one more be added that is not free of charge? */
bool job_queue_room(const struct job_queue *queue);
/* Appends; the node stays the caller's and must not move until job_queue_end. */
void job_queue_add(struct job_queue *queue, struct job_node *node, struct str key, int64_t now_ms,
                   int64_t wall_s);
/* The next job to work on, which takes a place; NULL when there is none or all places are taken. */
struct job_node *job_queue_take(struct job_queue *queue, int64_t wall_s);
/* The job gives its place back and rests, without letting the next of its line pass. */
void job_queue_rest(struct job_queue *queue, struct job_node *node);
/* A resting job wants to work again. */
void job_queue_ready(struct job_queue *queue, struct job_node *node);
/* The job has ended (started or not). `failure` NULL: well; else it is remembered. */
void job_queue_end(struct job_queue *queue, struct job_node *node, const char *failure,
                   int64_t now_ms, int64_t wall_s);
/* Forgets what failed under this key. */
void job_queue_forgive(struct job_queue *queue, struct str key);
/* What to show for a key: the job at work, else the first that waits, else the newest failure. */
bool job_queue_status(const struct job_queue *queue, struct str key, struct job_status *out);
/* The unfinished jobs of a key, oldest first; NULL when there are none. */
const struct list *job_queue_line(const struct job_queue *queue, struct str key);
/* Forgets failures older than JOB_FAILURE_KEPT_MS. */
void job_queue_sweep(struct job_queue *queue, int64_t now_ms);
