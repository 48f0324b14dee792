/* Names to addresses, with a deadline and a cache (30 s, stale answers served while a failing look-up
 * is retried). Literal addresses never touch a thread pool. */
#pragma once

#include <sys/socket.h>

#include "base/str.h"
#include "io/fiber.h"

/* The first usable address of host:port (IPv4 or IPv6, bare or bracketed). 0, -ECANCELED, -ETIMEDOUT, or
 * -EHOSTUNREACH when the name does not resolve. */
FIBER_FN int resolver_lookup(struct str host, uint16_t port, deadline_ms deadline,
                             struct sockaddr_storage *out);
/* Without waiting, literals only: 0 or -EINVAL. */
int resolver_literal(struct str host, uint16_t port, struct sockaddr_storage *out);
