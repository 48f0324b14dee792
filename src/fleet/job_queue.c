/* A line per key holds its jobs in order; only the first of a line may work. Lines whose first
 * job wants to work stand in one FIFO, so a place that comes free costs no search. A line goes
 * when it has neither jobs nor failures. */
#include "fleet/job_queue.h"

#include "base/mem.h"
#include "base/panic.h"

struct failure {
    char *message; /* NULL: none */
    int64_t at_ms, at_s;
};

struct job_line {
    char *key_text;
    struct str key;
    struct list jobs;
    struct list in_runnable;
    bool active; /* its first job works, rests or stands in `runnable` */
    struct failure failures[JOB_KIND_COUNT];
};

static const char *const kind_names[] = {
#define JOB_NAME(id, name) name,
    JOB_KINDS(JOB_NAME)
#undef JOB_NAME
};
static const char *const state_names[] = {"pending", "processing", "failed"};

const char *job_kind_name(enum job_kind kind) { return kind_names[kind]; }
const char *job_state_name(enum job_state state) { return state_names[state]; }

void job_queue_init(struct job_queue *queue, size_t capacity, size_t places) {
    *queue = (struct job_queue){.capacity = capacity, .places = places};
    map_init(&queue->lines);
    list_init(&queue->runnable);
    list_init(&queue->all);
}

/* --- lines ----------------------------------------------------------------------------------- */

static struct job_line *line_of(struct job_queue *queue, struct str key) {
    struct job_line *line = map_get(&queue->lines, key);
    if (line != NULL)
        return line;
    line = mem_zalloc(sizeof *line);
    line->key_text = str_dup(key);
    line->key = str_make(line->key_text, key.len);
    list_init(&line->jobs);
    map_put(&queue->lines, key, line);
    return line;
}

static void line_free(struct job_queue *queue, struct job_line *line) {
    map_remove(&queue->lines, line->key);
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++)
        mem_free(line->failures[kind].message);
    mem_free(line->key_text);
    mem_free(line);
}

static bool line_useless(const struct job_line *line) {
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++) {
        if (line->failures[kind].message != NULL)
            return false;
    }
    return list_empty(&line->jobs);
}

static void forget(struct failure *failure) {
    mem_free(failure->message);
    *failure = (struct failure){0};
}

static struct job_node *first_job(const struct job_line *line) {
    return list_empty(&line->jobs) ? NULL : container_of(line->jobs.next, struct job_node, in_line);
}

/* Puts the line up for a place if its first job is not under way. */
static void line_wake(struct job_queue *queue, struct job_line *line) {
    if (line->active || list_empty(&line->jobs))
        return;
    line->active = true;
    list_push_back(&queue->runnable, &line->in_runnable);
}

void job_queue_free(struct job_queue *queue) {
    assert_always(list_empty(&queue->all));
    size_t cursor = 0;
    struct str key;
    void *line;
    while (map_next(&queue->lines, &cursor, &key, &line)) {
        struct job_line *gone = line;
        for (int kind = 0; kind < JOB_KIND_COUNT; kind++)
            mem_free(gone->failures[kind].message);
        mem_free(gone->key_text);
        mem_free(gone);
    }
    map_free(&queue->lines);
}

/* --- the way of a job ------------------------------------------------------------------------ */

bool job_queue_room(const struct job_queue *queue) { return queue->charged < queue->capacity; }

void job_queue_add(struct job_queue *queue, struct job_node *node, struct str key, int64_t now_ms,
                   int64_t wall_s) {
    struct job_line *line = line_of(queue, key);
    node->line = line;
    node->state = JOB_PENDING;
    node->at_work = false;
    node->submitted_ms = now_ms;
    node->changed_s = wall_s;
    node->note[0] = 0;
    list_push_back(&line->jobs, &node->in_line);
    list_push_back(&queue->all, &node->in_all);
    queue->pending++;
    if (!node->free_of_charge)
        queue->charged++;
    line_wake(queue, line);
}

static void start(struct job_queue *queue, struct job_node *node, int64_t wall_s) {
    node->state = JOB_PROCESSING;
    node->changed_s = wall_s;
    queue->pending--;
    queue->working++;
    if (!node->free_of_charge)
        queue->charged--;
}

struct job_node *job_queue_take(struct job_queue *queue, int64_t wall_s) {
    if (queue->places == 0 || list_empty(&queue->runnable))
        return NULL;
    struct job_line *line =
        container_of(list_pop_front(&queue->runnable), struct job_line, in_runnable);
    struct job_node *node = first_job(line);
    if (node->state == JOB_PENDING)
        start(queue, node, wall_s);
    node->at_work = true;
    queue->places--;
    return node;
}

static void give_place(struct job_queue *queue, struct job_node *node) {
    if (!node->at_work)
        return;
    node->at_work = false;
    queue->places++;
}

void job_queue_rest(struct job_queue *queue, struct job_node *node) { give_place(queue, node); }

void job_queue_ready(struct job_queue *queue, struct job_node *node) {
    assert_always(node->state == JOB_PROCESSING && !node->at_work);
    if (!list_linked(&node->line->in_runnable))
        list_push_back(&queue->runnable, &node->line->in_runnable);
}

static void remember(struct job_line *line, enum job_kind kind, const char *failure, int64_t now_ms,
                     int64_t wall_s) {
    forget(&line->failures[kind]);
    if (failure != NULL)
        line->failures[kind] = (struct failure){mem_strdup(failure), now_ms, wall_s};
}

void job_queue_end(struct job_queue *queue, struct job_node *node, const char *failure,
                   int64_t now_ms, int64_t wall_s) {
    struct job_line *line = node->line;
    bool first = first_job(line) == node;
    give_place(queue, node);
    if (node->state == JOB_PENDING) {
        queue->pending--;
        if (!node->free_of_charge)
            queue->charged--;
    } else {
        queue->working--;
    }
    list_remove(&node->in_line);
    list_remove(&node->in_all);
    node->line = NULL;
    remember(line, node->kind, failure, now_ms, wall_s);
    if (first) {
        list_remove(&line->in_runnable);
        line->active = false;
        line_wake(queue, line);
    }
    if (line_useless(line))
        line_free(queue, line);
}

/* --- what is shown --------------------------------------------------------------------------- */

void job_queue_forgive(struct job_queue *queue, struct str key) {
    struct job_line *line = map_get(&queue->lines, key);
    if (line == NULL)
        return;
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++)
        forget(&line->failures[kind]);
    if (line_useless(line))
        line_free(queue, line);
}

static bool newest_failure(const struct job_line *line, struct job_status *out) {
    int newest = -1;
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++) {
        if (line->failures[kind].message != NULL &&
            (newest < 0 || line->failures[kind].at_ms > line->failures[newest].at_ms))
            newest = kind;
    }
    if (newest < 0)
        return false;
    *out =
        (struct job_status){(enum job_kind)newest, JOB_FAILED, line->key,
                            str_from(line->failures[newest].message), line->failures[newest].at_s};
    return true;
}

bool job_queue_status(const struct job_queue *queue, struct str key, struct job_status *out) {
    const struct job_line *line = map_get(&queue->lines, key);
    if (line == NULL)
        return false;
    const struct job_node *node = first_job(line);
    if (node == NULL)
        return newest_failure(line, out);
    *out = (struct job_status){node->kind, node->state, line->key, str_from(node->note),
                               node->changed_s};
    return true;
}

const struct list *job_queue_line(const struct job_queue *queue, struct str key) {
    const struct job_line *line = map_get(&queue->lines, key);
    return line == NULL || list_empty(&line->jobs) ? NULL : &line->jobs;
}

static void sweep_line(struct job_queue *queue, struct job_line *line, int64_t now_ms) {
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++) {
        if (now_ms - line->failures[kind].at_ms >= JOB_FAILURE_KEPT_MS)
            forget(&line->failures[kind]);
    }
    if (line_useless(line))
        line_free(queue, line);
}

/* The map must not change while it is walked: the keys are gathered first. */
void job_queue_sweep(struct job_queue *queue, int64_t now_ms) {
    size_t cursor = 0, count = 0;
    struct str key;
    void *line;
    struct job_line **lines = mem_alloc((queue->lines.len + 1) * sizeof *lines);
    while (map_next(&queue->lines, &cursor, &key, &line))
        lines[count++] = line;
    for (size_t i = 0; i < count; i++)
        sweep_line(queue, lines[i], now_ms);
    mem_free(lines);
}
