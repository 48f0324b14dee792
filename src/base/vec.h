/* Typed growable arrays, owned by whoever embeds them: VEC(int) ids; vec_push(&ids, 3). */
#pragma once

#include "base/mem.h"

#define VEC(type)                                                                                  \
    struct {                                                                                       \
        type *items;                                                                               \
        size_t len, cap;                                                                           \
    }

#define vec_push(vec, value)                                                                       \
    do {                                                                                           \
        if ((vec)->len == (vec)->cap) {                                                            \
            (vec)->cap = (vec)->cap ? (vec)->cap * 2 : 8;                                          \
            (vec)->items = mem_realloc((vec)->items, (vec)->cap * sizeof *(vec)->items);           \
        }                                                                                          \
        (vec)->items[(vec)->len++] = (value);                                                      \
    } while (0)
/* Removes item i by moving the last one there. */
#define vec_swap_remove(vec, i) ((vec)->items[i] = (vec)->items[--(vec)->len])
#define vec_free(vec)                                                                              \
    do {                                                                                           \
        mem_free((vec)->items);                                                                    \
        (vec)->items = NULL;                                                                       \
        (vec)->len = (vec)->cap = 0;                                                               \
    } while (0)
