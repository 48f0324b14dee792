/* String-keyed hash table (open addressing). Keys are copied, values are the caller's pointers.
 * One thread at a time. */
#pragma once

#include "base/str.h"

struct map {
    struct map_slot *slots;
    size_t len, cap;
};

void map_init(struct map *map);
void map_free(struct map *map);
/* The value, or NULL. */
void *map_get(const struct map *map, struct str key);
/* Sets or replaces; the value that stood there before, or NULL. `value` must not be NULL. */
void *map_put(struct map *map, struct str key, void *value);
/* Takes the key out; its value, or NULL. */
void *map_remove(struct map *map, struct str key);
/* Walks in no order: start with *cursor = 0; false at the end. The map must not change meanwhile. */
bool map_next(const struct map *map, size_t *cursor, struct str *key, void **value);
