/* Growable bytes with a maximum given at the start. Owns its memory; len <= cap <= max. When a call
 * fails the contents stay as they were. */
#pragma once

#include "base/str.h"

struct buf {
    char *ptr;
    size_t len, cap, max;
};

/* An empty buf that will never hold more than `max` bytes. Allocates nothing yet. */
static inline struct buf buf_make(size_t max) { return (struct buf){NULL, 0, 0, max}; }
/* Gives the memory back; the buf is empty and usable again. */
void buf_free(struct buf *buf);
/* Room for `extra` more bytes: 0, -EMSGSIZE (over max), -ENOMEM. */
int buf_reserve(struct buf *buf, size_t extra) MUST_CHECK;
int buf_append(struct buf *buf, const void *ptr, size_t len) MUST_CHECK;
static inline int MUST_CHECK buf_add(struct buf *buf, struct str s) {
    return buf_append(buf, s.ptr, s.len);
}
int buf_printf(struct buf *buf, const char *format, ...) MUST_CHECK
    __attribute__((format(printf, 2, 3)));
/* Drops the first `len` bytes. */
void buf_consume(struct buf *buf, size_t len);
/* Moves the memory out into the caller's hands (mem_free; NULL when the buf never held anything);
 * the buf is empty afterwards. */
char *buf_steal(struct buf *buf, size_t *len);
static inline struct str buf_str(const struct buf *buf) { return str_make(buf->ptr, buf->len); }
static inline void buf_clear(struct buf *buf) { buf->len = 0; }
