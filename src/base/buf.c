/* Growth doubles, from 256 bytes, and never passes `max`: cap <= max always holds, so whoever reads
 * into the free room (cap - len) needs no check of his own. */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/panic.h"

enum { FIRST_CAP = 256 };

void buf_free(struct buf *buf) {
    mem_free(buf->ptr);
    *buf = buf_make(buf->max);
}

static size_t grown_cap(const struct buf *buf, size_t need) {
    size_t cap = buf->cap > buf->max / 2 ? buf->max : buf->cap * 2;
    if (cap < FIRST_CAP)
        cap = FIRST_CAP;
    if (cap < need)
        cap = need;
    return cap < buf->max ? cap : buf->max;
}

int buf_reserve(struct buf *buf, size_t extra) {
    if (extra <= buf->cap - buf->len)
        return 0;
    if (extra > buf->max - buf->len)
        return -EMSGSIZE;
    size_t cap = grown_cap(buf, buf->len + extra);
    char *ptr = mem_try_realloc(buf->ptr, cap);
    if (ptr == NULL)
        return -ENOMEM;
    buf->ptr = ptr;
    buf->cap = cap;
    return 0;
}

int buf_append(struct buf *buf, const void *ptr, size_t len) {
    if (len == 0)
        return 0;
    int err = buf_reserve(buf, len);
    if (err)
        return err;
    memcpy(buf->ptr + buf->len, ptr, len);
    buf->len += len;
    return 0;
}

/* Formats into the free room. A text that does not fit there goes through memory of its own: where
 * it would fill the buf to the last byte there is no place for vsnprintf's NUL. */
int buf_printf(struct buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = buf->cap - buf->len;
    int n = vsnprintf(room ? buf->ptr + buf->len : NULL, room, format, args);
    assert_always(n >= 0);
    size_t len = (size_t)n;
    int err = 0;
    if (len < room) {
        buf->len += len;
    } else if (len > buf->max - buf->len) {
        err = -EMSGSIZE;
    } else {
        char *text = mem_try_realloc(NULL, len + 1);
        if (text != NULL)
            (void)vsnprintf(text, len + 1, format, again);
        err = text ? buf_append(buf, text, len) : -ENOMEM;
        mem_free(text);
    }
    va_end(again);
    va_end(args);
    return err;
}

void buf_consume(struct buf *buf, size_t len) {
    assert_always(len <= buf->len);
    buf->len -= len;
    if (len > 0 && buf->len > 0)
        memmove(buf->ptr, buf->ptr + len, buf->len);
}

char *buf_steal(struct buf *buf, size_t *len) {
    char *ptr = buf->ptr;
    *len = buf->len;
    *buf = buf_make(buf->max);
    return ptr;
}
