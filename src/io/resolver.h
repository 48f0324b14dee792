/* Names to addresses, with a deadline and a cache (30 s, stale answers served while a failing look-up
 * is retried). Literal addresses never touch a thread pool. */
#pragma once

#include <sys/socket.h>

#include "base/str.h"
#include "io/fiber.h"

/* What a name stands for, in the order to try: "localhost" is often ::1 first, where nobody may listen. */
#define RESOLVER_MAX 4
struct resolver_addresses {
    struct sockaddr_storage items[RESOLVER_MAX];
    size_t len; /* at least 1 */
};
/* The addresses of host:port (IPv4 or IPv6, bare or bracketed). 0, -ECANCELED, -ETIMEDOUT, -EHOSTUNREACH when the
 * name does not resolve, or -ENOBUFS when this loop knows 4,096 other names. */
FIBER_FN int resolver_lookup_all(struct str host, uint16_t port, deadline_ms deadline,
                                 struct resolver_addresses *out);
/* The same, the first one only. */
FIBER_FN int resolver_lookup(struct str host, uint16_t port, deadline_ms deadline,
                             struct sockaddr_storage *out);
/* Without waiting, literals only: 0 or -EINVAL. */
int resolver_literal(struct str host, uint16_t port, struct sockaddr_storage *out);
