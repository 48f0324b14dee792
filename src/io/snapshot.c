/* See snapshot.h. A version is counted by the loops that show it; within a loop the count is a plain integer in
 * the loop's own hold, so keeping a version across a park costs no atomic. */
#include "io/snapshot.h"

#include <pthread.h>

#include "base/panic.h"

#define PUSH_EVERY_MS 10

struct version {
    void *data;
    void (*destroy)(void *data);
    uint64_t number;
    _Atomic unsigned refs;
};

struct snapshot_hold {
    struct version *version;
    unsigned refs;
};

/* What one loop shows of one kind, and the message that tells it of something newer. */
struct shown {
    struct message message;
    struct snapshot_hold *hold;
    _Atomic uint64_t number;
    _Atomic bool posted;
    enum snapshot_kind kind;
};

static struct {
    pthread_mutex_t lock;
    struct version *latest[SNAPSHOT_KINDS];
    struct timer push[SNAPSHOT_KINDS];
    int64_t pushed_ms[SNAPSHOT_KINDS];
} board = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct shown shown[LOOPS_MAX][SNAPSHOT_KINDS];

static struct shown *shown_here(enum snapshot_kind kind) {
    return &shown[loop_index(loop_here())][kind];
}

static void version_release(struct version *version) {
    if (atomic_fetch_sub(&version->refs, 1) > 1)
        return;
    version->destroy(version->data);
    mem_free(version);
}

void snapshot_release(struct snapshot_hold *hold) {
    if (--hold->refs > 0)
        return;
    version_release(hold->version);
    mem_free(hold);
}

static struct version *latest_ref(enum snapshot_kind kind) {
    pthread_mutex_lock(&board.lock);
    struct version *version = board.latest[kind];
    atomic_fetch_add(&version->refs, 1);
    pthread_mutex_unlock(&board.lock);
    return version;
}

static void show_latest(struct shown *mine, enum snapshot_kind kind) {
    struct snapshot_hold *old = mine->hold;
    struct snapshot_hold *hold = mem_alloc(sizeof *hold);
    *hold = (struct snapshot_hold){.version = latest_ref(kind), .refs = 1};
    mine->hold = hold;
    atomic_store(&mine->number, hold->version->number);
    if (old != NULL)
        snapshot_release(old);
}

static void on_newer(struct message *message) {
    struct shown *mine = container_of(message, struct shown, message);
    enum snapshot_kind kind = mine->kind;
    atomic_store(&mine->posted, false); /* from here on the control loop may write to it again */
    show_latest(mine, kind);
}

static void push_now(enum snapshot_kind kind) {
    board.pushed_ms[kind] = loop_now_ms();
    for (unsigned i = 1; i < loops_count(); i++) {
        struct shown *theirs = &shown[i][kind];
        if (atomic_exchange(&theirs->posted, true))
            continue;
        theirs->kind = kind;
        theirs->message.run = on_newer;
        loop_post(loop_at(i), &theirs->message);
    }
}

static void on_push(struct timer *timer) { push_now((enum snapshot_kind)(timer - board.push)); }

static void push_soon(enum snapshot_kind kind) {
    struct timer *timer = &board.push[kind];
    if (list_linked(&timer->link))
        return;
    int64_t due = board.pushed_ms[kind] + PUSH_EVERY_MS;
    if (due <= loop_now_ms()) {
        push_now(kind);
        return;
    }
    timer->fire = on_push;
    timer_set(timer, due);
}

void snapshot_publish(enum snapshot_kind kind, void *data, void (*destroy)(void *data)) {
    assert_always(loop_here() == loop_control());
    static uint64_t numbers[SNAPSHOT_KINDS];
    struct version *version = mem_alloc(sizeof *version);
    *version =
        (struct version){.data = data, .destroy = destroy, .number = ++numbers[kind], .refs = 1};
    pthread_mutex_lock(&board.lock);
    struct version *old = board.latest[kind];
    board.latest[kind] = version;
    pthread_mutex_unlock(&board.lock);
    if (old != NULL)
        version_release(old);
    show_latest(shown_here(kind), kind);
    push_soon(kind);
}

void *snapshot_get(enum snapshot_kind kind) {
    struct snapshot_hold *hold = shown_here(kind)->hold;
    return hold ? hold->version->data : NULL;
}

struct snapshot_hold *snapshot_keep(enum snapshot_kind kind) {
    struct snapshot_hold *hold = shown_here(kind)->hold;
    assert_always(hold != NULL);
    hold->refs++;
    return hold;
}

void *snapshot_held(const struct snapshot_hold *hold) { return hold->version->data; }

static bool all_show(enum snapshot_kind kind) {
    uint64_t wanted = board.latest[kind] ? board.latest[kind]->number : 0;
    for (unsigned i = 0; i < loops_count(); i++)
        if (atomic_load(&shown[i][kind].number) < wanted)
            return false;
    return true;
}

FIBER_FN void snapshot_settle(enum snapshot_kind kind) {
    while (!all_show(kind))
        if (fiber_sleep(2) < 0)
            return;
}
