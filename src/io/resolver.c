/* See resolver.h. A look-up that is under way belongs to the cache, not to the fibers that wait for it: they
 * can leave at any time and no thread holds a pointer into their stacks. Caches are per loop. */
#include "io/resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "base/map.h"
#include "io/loop_core.h"

#define FRESH_MS 30000
#define RETRY_MS 1000
#define CACHE_MAX 4096

struct entry {
    uv_getaddrinfo_t request;
    struct resolver_addresses found; /* ports not set; none: not known */
    struct list waiters;
    int64_t looked_ms;
    bool busy;
};

struct name_waiter {
    struct list link;
    struct fiber *fiber;
};

static _Thread_local struct {
    struct map names;
    bool started;
} cache;

static void port_set(struct sockaddr_storage *address, uint16_t port) {
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

static struct str unbracket(struct str host) {
    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        return str_make(host.ptr + 1, host.len - 2);
    return host;
}

/* The system's functions would take the part before it. */
static bool has_nul(struct str host) { return memchr(host.ptr, '\0', host.len) != NULL; }

int resolver_literal(struct str host, uint16_t port, struct sockaddr_storage *out) {
    char text[INET6_ADDRSTRLEN + 1];
    host = unbracket(host);
    if (host.len == 0 || host.len >= sizeof text || has_nul(host))
        return -EINVAL;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    memset(out, 0, sizeof *out);
    struct sockaddr_in *four = (struct sockaddr_in *)out;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1)
        out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1)
        out->ss_family = AF_INET6;
    else
        return -EINVAL;
    port_set(out, port);
    return 0;
}

static void found_take(struct resolver_addresses *found, const struct addrinfo *list) {
    found->len = 0;
    for (; list != NULL && found->len < RESOLVER_MAX; list = list->ai_next)
        if (list->ai_family == AF_INET || list->ai_family == AF_INET6)
            memcpy(&found->items[found->len++], list->ai_addr, list->ai_addrlen);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *result) {
    struct entry *entry = container_of(request, struct entry, request);
    loop_entered(request->loop->data);
    if (status == 0 && result != NULL)
        found_take(&entry->found, result);
    uv_freeaddrinfo(result);
    entry->busy = false;
    entry->looked_ms = loop_now_ms();
    struct list *item;
    while ((item = list_pop_front(&entry->waiters)) != NULL)
        fiber_wake(container_of(item, struct name_waiter, link)->fiber);
}

static struct entry *entry_for(struct str host) {
    if (!cache.started) {
        map_init(&cache.names);
        cache.started = true;
    }
    struct entry *entry = map_get(&cache.names, host);
    if (entry != NULL || cache.names.len >= CACHE_MAX)
        return entry;
    entry = mem_zalloc(sizeof *entry);
    list_init(&entry->waiters);
    entry->looked_ms = -FRESH_MS;
    map_put(&cache.names, host, entry);
    return entry;
}

static int look_up(struct entry *entry, struct str host) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    char *name = str_dup(host);
    int rc = uv_getaddrinfo(loop_uv(loop_here()), &entry->request, on_resolved, name, NULL, &hints);
    mem_free(name); /* libuv copies it */
    entry->busy = rc == 0;
    return rc;
}

static FIBER_FN int entry_wait(struct entry *entry, deadline_ms deadline) {
    struct name_waiter waiter = {.fiber = fiber_self()};
    list_push_back(&entry->waiters, &waiter.link);
    int rc = 0;
    while (list_linked(&waiter.link) && rc == 0)
        rc = fiber_park(deadline);
    list_remove(&waiter.link);
    return rc;
}

/* Sees to it that the entry is fresh, or is being looked up, or has just failed. */
static int entry_refresh(struct entry *entry, struct str host) {
    bool known = entry->found.len > 0;
    int64_t age = loop_now_ms() - entry->looked_ms;
    if (entry->busy || age < (known ? FRESH_MS : RETRY_MS))
        return 0;
    return look_up(entry, host) == 0 || known ? 0 : -EHOSTUNREACH;
}

FIBER_FN int resolver_lookup_all(struct str host, uint16_t port, deadline_ms deadline,
                                 struct resolver_addresses *out) {
    out->len = 1;
    if (resolver_literal(host, port, &out->items[0]) == 0)
        return 0;
    host = unbracket(host);
    if (host.len == 0 || has_nul(host))
        return -EHOSTUNREACH;
    struct entry *entry = entry_for(host);
    if (entry == NULL)
        return -ENOBUFS;
    int rc = entry_refresh(entry, host);
    if (rc == 0 && entry->found.len == 0 && entry->busy)
        rc = entry_wait(entry, deadline);
    if (rc < 0)
        return rc;
    if (entry->found.len == 0)
        return -EHOSTUNREACH;
    *out = entry->found;
    for (size_t i = 0; i < out->len; i++)
        port_set(&out->items[i], port);
    return 0;
}

FIBER_FN int resolver_lookup(struct str host, uint16_t port, deadline_ms deadline,
                             struct sockaddr_storage *out) {
    struct resolver_addresses all;
    int rc = resolver_lookup_all(host, port, deadline, &all);
    if (rc == 0)
        *out = all.items[0];
    return rc;
}
