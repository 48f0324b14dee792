/* Header lists: arrays of name/value slices in an arena. Names are lower case: those of a message were made so when
 * it was parsed (http1.c), and those we write are written so; look-ups therefore compare bytes. */
#pragma once

#include "base/arena.h"

struct header {
    struct str name, value;
};
struct headers {
    struct header *items;
    size_t len, cap;
};

/* Appends without copying the bytes; the array grows in `arena`. */
void headers_add(struct headers *headers, struct arena *arena, struct str name, struct str value);
/* First value of that name, or a str with ptr NULL. */
struct str headers_get(const struct headers *headers, struct str name);
size_t headers_count(const struct headers *headers, struct str name);
/* True when `token` stands in the comma-separated values of that name (no case). */
bool headers_has_token(const struct headers *headers, struct str name, struct str token);
/* Connection, Keep-Alive, Transfer-Encoding...: never passed on (01 section 5.3). */
bool headers_hop_by_hop(struct str name);
/* Legal as a field value: visible ASCII, blanks inside, bytes over 0x7f. Empty is legal. */
bool headers_value_ok(struct str value);
