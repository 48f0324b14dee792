/* Pointer and length: the string type everywhere. A str never owns what it points at and need not
 * end in NUL. Nothing here allocates or parks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

struct str {
    const char *ptr;
    size_t len;
};

/* A literal as a str; STR_INIT is the same for static initialisers. */
#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})
#define STR_INIT(lit)                                                                              \
    { (lit), sizeof(lit) - 1 }
#define STR_NONE ((struct str){NULL, 0})
/* For printf("%.*s", STR_ARG(s)). */
#define STR_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct str str_make(const char *ptr, size_t len) { return (struct str){ptr, len}; }
static inline struct str str_from(const char *text) {
    return (struct str){text, text ? strlen(text) : 0};
}
static inline bool str_eq(struct str a, struct str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case-insensitive equality. */
bool str_ieq(struct str a, struct str b);
/* Byte order; <0, 0, >0. */
int str_cmp(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_istarts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* Offset of the first occurrence, or -1. */
ptrdiff_t str_find(struct str s, struct str needle);
ptrdiff_t str_find_char(struct str s, char c);
/* Without leading and trailing blanks (space, tab, CR, LF). */
struct str str_trim(struct str s);
/* From `start` to the end; start is clamped to the length. */
struct str str_skip(struct str s, size_t start);
/* The first `len` bytes; len is clamped. */
struct str str_head(struct str s, size_t len);
/* Cuts the part before `sep` off `rest` into `part`; false when `rest` is used up (its ptr becomes
 * NULL after the last part). "a,,b" yields "a", "", "b"; an empty str yields one empty part, but
 * STR_NONE none. */
bool str_split(struct str *rest, char sep, struct str *part);
/* Whole-string decimal numbers: 0, -EINVAL (no number, trailing bytes), -ERANGE. No sign for u64,
 * no blanks, no '+'. */
int str_to_u64(struct str s, uint64_t *out) MUST_CHECK;
int str_to_i64(struct str s, int64_t *out) MUST_CHECK;
/* Decimal fraction, optional sign and exponent; finite only: 0, -EINVAL, -ERANGE (too large). */
int str_to_double(struct str s, double *out) MUST_CHECK;
/* NUL-terminated copy, freed with mem_free. */
char *str_dup(struct str s);
/* Decodes %XX into `out` (at least s.len bytes; may be s.ptr itself); bytes written, or -EINVAL. A
 * '+' stays, and what comes out may hold any byte, NUL too. */
ptrdiff_t str_percent_decode(struct str s, char *out);

/* Writes the number without NUL (at most 20 bytes); returns the byte after it. */
char *str_put_u64(char *at, uint64_t value);
/* The same in lower-case hex, at most 16 bytes. */
char *str_put_hex(char *at, uint64_t value);
/* Copies s to `at`; returns the byte after it. */
static inline char *str_put(char *at, struct str s) {
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}
