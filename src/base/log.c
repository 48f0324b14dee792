/* Each thread formats its lines into a queue of its own: a list of 64 KiB chunks with one writer and
 * one reader, which grows to 4 MiB and then drops. The writer thread is woken by the first line, lets
 * 5 ms of lines gather, merges the queues by time and writes stdout and the day's file. Nobody but
 * that thread ever waits for a descriptor, and no lock is taken after a thread's first line.
 *
 * A chunk is handed over byte by byte (`filled`), and left behind by `next`; what the reader is done
 * with goes back as the spare. The queue of a thread that ends goes to the next one that starts. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_line.h"
#include "base/log_sink.h"
#include "base/panic.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    MAX_CHUNKS = 64, /* of one thread's queue */
    BATCH_MS = 5,
    DRAIN_LINES = 10000,
    STOP_MS = 2000, /* for what is queued when the log is stopped */
    MAX_RULES = 16,
};

struct record {
    int64_t when_ns; /* since 1970 */
    uint32_t len, level;
    char line[];
};

struct chunk {
    struct chunk *_Atomic next;
    _Atomic uint32_t filled;
    char bytes[CHUNK_BYTES - sizeof(void *) - 8] __attribute__((aligned(8)));
};

struct queue {
    struct queue *next; /* in `queues`; never changes */
    struct queue *next_idle;
    struct chunk *tail; /* the logging thread's */
    uint32_t tail_used;
    struct chunk *head; /* the writer's */
    uint32_t head_used;
    struct chunk *_Atomic spare;
    _Atomic int chunks;
};

_Atomic int log_threshold = LOG_INFO;
static _Atomic uint64_t dropped;
static _Atomic bool started;

/* Start, stop, and which thread has which queue. */
static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER;
static struct queue *_Atomic queues;
static struct queue *idle_queues;
static _Thread_local struct queue *my_queue;
static pthread_key_t queue_key;
static pthread_once_t queue_once = PTHREAD_ONCE_INIT;

static bool as_json; /* set before `started` */
static pthread_t thread;
static _Atomic bool running; /* the writer thread; it ends when this is false */
static sem_t wake;
static _Atomic bool woken;

static int64_t wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --- which lines are wanted ------------------------------------------------------------------ */

struct filter {
    struct filter *older; /* kept: another thread may still read it */
    int level;
    size_t count;
    struct {
        struct str target;
        int level;
    } rules[MAX_RULES];
    char text[];
};

static struct filter *_Atomic filter;
static struct filter *filters;

void log_set_level(enum log_level level) {
    atomic_store(&filter, NULL);
    atomic_store(&log_threshold, (int)level);
}

static int parse_level(struct str word, int *level) {
    static const struct {
        struct str name;
        int level;
    } words[] = {
        {STR_INIT("trace"), LOG_DEBUG},   {STR_INIT("debug"), LOG_DEBUG},
        {STR_INIT("info"), LOG_INFO},     {STR_INIT("warn"), LOG_WARN},
        {STR_INIT("warning"), LOG_WARN},  {STR_INIT("error"), LOG_ERROR},
        {STR_INIT("off"), LOG_ERROR + 1},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (str_ieq(words[i].name, word)) {
            *level = words[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_rule(struct filter *made, struct str part) {
    part = str_trim(part);
    if (part.len == 0)
        return 0;
    ptrdiff_t equals = str_find_char(part, '=');
    if (equals < 0)
        return parse_level(part, &made->level);
    if (equals == 0 || made->count == MAX_RULES)
        return -EINVAL;
    int level;
    int err = parse_level(str_trim(str_skip(part, (size_t)equals + 1)), &level);
    if (err)
        return err;
    made->rules[made->count].target = str_trim(str_head(part, (size_t)equals));
    made->rules[made->count++].level = level;
    return 0;
}

static int lowest_level(const struct filter *f) {
    int level = f->level;
    for (size_t i = 0; i < f->count; i++)
        level = f->rules[i].level < level ? f->rules[i].level : level;
    return level;
}

int log_set_filter(const char *list) {
    size_t size = strlen(list) + 1;
    struct filter *made = mem_zalloc(sizeof *made + size);
    made->level = LOG_INFO;
    struct str rest = str_make(memcpy(made->text, list, size), size - 1), part;
    while (str_split(&rest, ',', &part)) {
        int err = parse_rule(made, part);
        if (err) {
            mem_free(made);
            return err;
        }
    }
    pthread_mutex_lock(&control);
    made->older = filters;
    filters = made;
    atomic_store(&filter, made);
    atomic_store(&log_threshold, lowest_level(made));
    pthread_mutex_unlock(&control);
    return 0;
}

/* `rule` is the target or one of the modules above it. */
static bool covers(struct str rule, struct str target) {
    return str_starts(target, rule) &&
           (target.len == rule.len || str_starts(str_skip(target, rule.len), STR("::")));
}

static int level_for(const struct filter *f, struct str target) {
    int level = f->level;
    size_t longest = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (f->rules[i].target.len >= longest && covers(f->rules[i].target, target)) {
            longest = f->rules[i].target.len;
            level = f->rules[i].level;
        }
    }
    return level;
}

static bool wanted(enum log_level level, const char *target) {
    const struct filter *f = atomic_load_explicit(&filter, memory_order_acquire);
    return f == NULL || (int)level >= level_for(f, str_from(target));
}

/* --- queues: the logging thread's end -------------------------------------------------------- */

static struct chunk *make_chunk(struct queue *queue) {
    struct chunk *chunk = atomic_exchange(&queue->spare, NULL);
    if (chunk == NULL) {
        if (atomic_load(&queue->chunks) >= MAX_CHUNKS)
            return NULL;
        chunk = mem_try_realloc(NULL, sizeof *chunk);
        if (chunk == NULL)
            return NULL;
        atomic_fetch_add(&queue->chunks, 1);
    }
    atomic_store_explicit(&chunk->next, NULL, memory_order_relaxed);
    atomic_store_explicit(&chunk->filled, 0, memory_order_relaxed);
    return chunk;
}

static void release_queue(void *arg) {
    struct queue *queue = arg;
    pthread_mutex_lock(&control);
    queue->next_idle = idle_queues;
    idle_queues = queue;
    pthread_mutex_unlock(&control);
    my_queue = NULL;
}

static void make_queue_key(void) {
    int err = pthread_key_create(&queue_key, release_queue);
    assert_always(err == 0);
}

static __attribute__((noinline, cold)) struct queue *take_queue(void) {
    pthread_once(&queue_once, make_queue_key);
    pthread_mutex_lock(&control);
    struct queue *queue = idle_queues;
    if (queue != NULL) {
        idle_queues = queue->next_idle;
    } else {
        queue = mem_zalloc(sizeof *queue);
        queue->head = queue->tail = make_chunk(queue);
        assert_always(queue->head != NULL);
        queue->next = atomic_load(&queues);
        atomic_store(&queues, queue);
    }
    pthread_mutex_unlock(&control);
    pthread_setspecific(queue_key, queue);
    return my_queue = queue;
}

/* Where a record may be written; NULL when the queue is full. */
static struct record *reserve(struct queue *queue) {
    if (queue->tail_used + sizeof(struct record) + LOG_LINE_MAX > sizeof queue->tail->bytes) {
        struct chunk *chunk = make_chunk(queue);
        if (chunk == NULL)
            return NULL;
        atomic_store(&queue->tail->next, chunk);
        queue->tail = chunk;
        queue->tail_used = 0;
    }
    return (struct record *)(void *)(queue->tail->bytes + queue->tail_used);
}

static uint32_t record_size(const struct record *record) {
    return (uint32_t)((sizeof *record + record->len + 7) & ~(size_t)7);
}

/* The writer clears `woken` before it looks, so a line is either seen or wakes it: both this order
 * and the writer's are sequentially consistent. */
static void commit(struct queue *queue, const struct record *record) {
    queue->tail_used += record_size(record);
    atomic_store(&queue->tail->filled, queue->tail_used);
    if (!atomic_load(&woken) && !atomic_exchange(&woken, true))
        sem_post(&wake);
}

static void write_stderr(const struct log_event *event) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char line[LOG_LINE_MAX];
    pthread_mutex_lock(&lock);
    size_t len = log_line_format(line, event, false);
    if (write(STDERR_FILENO, line, len) != (ssize_t)len)
        atomic_fetch_add(&dropped, 1);
    pthread_mutex_unlock(&lock);
}

static void enqueue(const struct log_event *event) {
    struct queue *queue = my_queue ? my_queue : take_queue();
    struct record *record = reserve(queue);
    if (record == NULL) {
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
        return;
    }
    record->when_ns = event->when_ns;
    record->level = event->level;
    record->len = (uint32_t)log_line_format(record->line, event, as_json);
    commit(queue, record);
}

void log_write(enum log_level level, const char *target, const char *file, int line,
               const char *message, const struct log_field *fields, size_t count) {
    if (!wanted(level, target))
        return;
    struct log_event event = {wall_ns(), level, target, file, line, message, fields, count};
    if (atomic_load_explicit(&started, memory_order_acquire))
        enqueue(&event);
    else
        write_stderr(&event);
}

uint64_t log_dropped(void) {
    return atomic_load_explicit(&dropped, memory_order_relaxed) + log_sink_lost();
}

/* --- queues: the writer's end ---------------------------------------------------------------- */

static void retire_chunk(struct queue *queue, struct chunk *chunk) {
    struct chunk *old = atomic_exchange(&queue->spare, chunk);
    if (old != NULL) {
        mem_free(old);
        atomic_fetch_sub(&queue->chunks, 1);
    }
}

/* The oldest record that was not taken yet, NULL when there is none. */
static const struct record *peek(struct queue *queue) {
    for (;;) {
        struct chunk *chunk = queue->head;
        struct chunk *next = atomic_load(&chunk->next); /* before `filled`, which is then final */
        if (queue->head_used < atomic_load(&chunk->filled))
            return (const struct record *)(const void *)(chunk->bytes + queue->head_used);
        if (next == NULL)
            return NULL;
        queue->head = next;
        queue->head_used = 0;
        retire_chunk(queue, chunk);
    }
}

/* The queue whose first record is the oldest. */
static struct queue *oldest_queue(const struct record **record) {
    struct queue *found = NULL;
    *record = NULL;
    for (struct queue *queue = atomic_load(&queues); queue != NULL; queue = queue->next) {
        const struct record *first = peek(queue);
        if (first != NULL && (*record == NULL || first->when_ns < (*record)->when_ns)) {
            *record = first;
            found = queue;
        }
    }
    return found;
}

/* --- the writer ------------------------------------------------------------------------------ */

/* One line a second at most, and one at the end. */
static void report_dropped(bool last) {
    static uint64_t reported;
    static int64_t next_ms;
    static char line[LOG_LINE_MAX];
    uint64_t count = log_dropped();
    if (count == reported || (!last && clock_ms() < next_ms))
        return;
    next_ms = clock_ms() + 1000;
    const struct log_field fields[] = {F_INT("lines", (int64_t)(count - reported)),
                                       F_INT("total", (int64_t)count)};
    reported = count;
    struct log_event event = {.when_ns = wall_ns(),
                              .level = LOG_WARN,
                              .target = "log",
                              .file = __FILE__,
                              .number = __LINE__,
                              .message = "log lines were lost",
                              .fields = fields,
                              .count = 2};
    log_sink_put(event.when_ns, event.level, line, log_line_format(line, &event, as_json));
}

/* True when it stopped for having done its share, so that losses are reported under load too. */
static bool drain_some(void) {
    const struct record *record;
    for (int i = 0; i < DRAIN_LINES; i++) {
        struct queue *queue = oldest_queue(&record);
        if (queue == NULL)
            return false;
        log_sink_put(record->when_ns, record->level, record->line, record->len);
        queue->head_used += record_size(record);
    }
    return true;
}

static void drain(bool last) {
    bool more;
    do {
        more = drain_some();
        report_dropped(last && !more);
        log_sink_flush();
    } while (more);
}

static void *run_writer(void *arg) {
    (void)arg;
    bool stopping = false;
    while (!stopping) {
        while (sem_wait(&wake) != 0) {
        }
        stopping = !atomic_load(&running);
        if (!stopping)
            nanosleep(&(struct timespec){0, BATCH_MS * 1000000}, NULL);
        atomic_store(&woken, false);
        drain(stopping);
    }
    return NULL;
}

static int start_thread(void) {
    atomic_store(&running, true);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&thread, NULL, run_writer, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        pthread_setname_np(thread, "log");
    return -err;
}

static void once_per_process(void) {
    sem_init(&wake, 0, 0);
    atexit(log_stop);
}

static int start_locked(const struct log_options *options) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (atomic_load(&started))
        return -EALREADY;
    pthread_once(&once, once_per_process);
    as_json = options->json;
    int err = log_sink_open(options, wall_ns());
    if (err)
        return err;
    err = start_thread();
    if (err) {
        log_sink_close();
        return err;
    }
    atomic_store_explicit(&started, true, memory_order_release);
    return 0;
}

int log_start(const struct log_options *options) {
    pthread_mutex_lock(&control);
    int err = start_locked(options);
    pthread_mutex_unlock(&control);
    if (err == 0)
        log_set_level(options->level);
    return err;
}

void log_stop(void) {
    pthread_mutex_lock(&control);
    if (atomic_load(&started)) {
        atomic_store(&started, false);
        log_sink_stop_by(clock_ms() + STOP_MS);
        atomic_store(&running, false);
        sem_post(&wake);
        pthread_join(thread, NULL);
        drain(true); /* of threads that were about to queue a line when it stopped */
        log_sink_close();
    }
    pthread_mutex_unlock(&control);
}
