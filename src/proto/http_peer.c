/* Peers of the HTTP client: address, options, and per loop the idle connections. Idle ones hang in two lists,
 * their peer's and their loop's, both with the newest first: reuse takes the newest of the peer, the limits
 * close the oldest of the loop. */
#include <stdio.h>

#include "io/listener.h"
#include "proto/http_client_core.h"

#define DESCRIPTORS_SPARE 64

static struct { _Atomic size_t max_idle, max_open, open; } limits = {.max_idle = 4096};

struct loop_idle {
    struct list conns;
    size_t count;
};

static struct loop_idle *idle_here(void) {
    static _Thread_local struct loop_idle idle;
    if (idle.conns.next == NULL)
        list_init(&idle.conns);
    return &idle;
}

void http_client_limits(size_t max_idle, size_t max_open) {
    atomic_store(&limits.max_idle, max_idle);
    atomic_store(&limits.max_open, max_open);
}

struct http_peer *http_peer_new(const struct http_peer_options *options) {
    struct http_peer *peer = mem_zalloc(sizeof *peer);
    bool bare_six = str_find_char(options->host, ':') >= 0 && options->host.ptr[0] != '[';
    size_t room = options->host.len + 16;
    peer->text = mem_alloc(room);
    int len = snprintf(peer->text, room, bare_six ? "[%.*s]:%u" : "%.*s:%u", STR_ARG(options->host),
                       options->port);
    peer->authority = str_make(peer->text, (size_t)len);
    peer->options = *options;
    peer->options.host = str_make(peer->text + bare_six, options->host.len);
    peer->loops = mem_zalloc(loops_count() * sizeof *peer->loops);
    for (unsigned i = 0; i < loops_count(); i++)
        list_init(&peer->loops[i].idle);
    atomic_store(&peer->refs, 1);
    return peer;
}

struct http_peer *http_peer_ref(struct http_peer *peer) {
    atomic_fetch_add_explicit(&peer->refs, 1, memory_order_relaxed);
    return peer;
}

/* Idle connections hold references too, so the lists are empty when the last one goes. */
void http_peer_unref(struct http_peer *peer) {
    if (peer == NULL || atomic_fetch_sub(&peer->refs, 1) > 1)
        return;
    mem_free(peer->loops);
    mem_free(peer->text);
    mem_free(peer);
}

struct str http_peer_authority(const struct http_peer *peer) {
    return peer->authority;
}
struct peer_loop *peer_here(struct http_peer *peer) {
    return &peer->loops[loop_index(loop_here())];
}

void peer_forget_idle(struct upstream *conn) {
    if (!list_linked(&conn->of_peer))
        return;
    list_remove(&conn->of_peer);
    list_remove(&conn->of_loop);
    timer_clear(&conn->timer);
    peer_here(conn->peer)->count--;
    idle_here()->count--;
}

struct upstream *peer_take_idle(struct http_peer *peer) {
    struct peer_loop *here = peer_here(peer);
    if (here->count == 0)
        return NULL;
    struct upstream *conn = container_of(here->idle.next, struct upstream, of_peer);
    peer_forget_idle(conn);
    return conn;
}

static void close_oldest(struct list *list, bool by_peer) {
    if (list_empty(list))
        return;
    struct upstream *conn = by_peer ? container_of(list->prev, struct upstream, of_peer)
                                    : container_of(list->prev, struct upstream, of_loop);
    upstream_close(conn);
}

void peer_put_idle(struct upstream *conn) {
    struct peer_loop *here = peer_here(conn->peer);
    struct loop_idle *all = idle_here();
    size_t share = atomic_load_explicit(&limits.max_idle, memory_order_relaxed) / loops_count() + 1;
    if (conn->peer->options.max_idle == 0) {
        upstream_close(conn);
        return;
    }
    if (here->count >= conn->peer->options.max_idle)
        close_oldest(&here->idle, true);
    if (all->count >= share)
        close_oldest(&all->conns, false);
    list_push_front(&here->idle, &conn->of_peer);
    list_push_front(&all->conns, &conn->of_loop);
    here->count++;
    all->count++;
    timer_set(&conn->timer, loop_now_ms() + conn->peer->options.idle_ms);
}

static bool full(void) {
    size_t max = atomic_load(&limits.max_open);
    if (max > 0 && atomic_load(&limits.open) >= max)
        return true;
    uint64_t descriptors = descriptors_limit();
    return descriptors != UINT64_MAX && descriptors_in_use() + DESCRIPTORS_SPARE >= descriptors;
}

/* Idle connections of other loops fill the limit too: those loops are asked to close one each. A message under way
 * is asked only once. */
static struct trim {
    struct message message;
    _Atomic bool posted;
} trims[LOOPS_MAX];

static void on_trim(struct message *message) {
    atomic_store(&container_of(message, struct trim, message)->posted, false);
    if (full())
        close_oldest(&idle_here()->conns, false);
}

static void ask_others(void) {
    for (unsigned i = 0; i < loops_count(); i++) {
        if (loop_at(i) == loop_here() || atomic_exchange(&trims[i].posted, true))
            continue;
        trims[i].message.run = on_trim;
        loop_post(loop_at(i), &trims[i].message);
    }
}

bool peer_may_open(void) {
    if (!full())
        return true;
    close_oldest(&idle_here()->conns, false);
    if (!full())
        return true;
    ask_others();
    return false;
}

void peer_opened(int delta) {
    atomic_fetch_add(&limits.open, (size_t)(ptrdiff_t)delta);
    atomic_fetch_add(&loop_stats(loop_here())->upstream, (uint64_t)(int64_t)delta);
    descriptors_count(delta);
}
