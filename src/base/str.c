/* Comparing, searching, cutting and converting strings of pointer and length. A str with len 0 may
 * have a NULL ptr, which the C library's functions must not be given. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static unsigned char lower(char c) {
    unsigned char byte = (unsigned char)c;
    return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool str_ieq(struct str a, struct str b) {
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (a.ptr[i] != b.ptr[i] && lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    }
    return true;
}

int str_cmp(struct str a, struct str b) {
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

bool str_starts(struct str s, struct str prefix) {
    return s.len >= prefix.len && str_eq(str_head(s, prefix.len), prefix);
}

bool str_istarts(struct str s, struct str prefix) {
    return s.len >= prefix.len && str_ieq(str_head(s, prefix.len), prefix);
}

bool str_ends(struct str s, struct str suffix) {
    return s.len >= suffix.len && str_eq(str_skip(s, s.len - suffix.len), suffix);
}

ptrdiff_t str_find(struct str s, struct str needle) {
    if (needle.len == 0)
        return 0;
    if (s.len < needle.len)
        return -1;
    const char *hit = memmem(s.ptr, s.len, needle.ptr, needle.len);
    return hit ? hit - s.ptr : -1;
}

ptrdiff_t str_find_char(struct str s, char c) {
    const char *hit = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return hit ? hit - s.ptr : -1;
}

struct str str_trim(struct str s) {
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    while (s.len > 0 && is_blank(*s.ptr)) {
        s.ptr++;
        s.len--;
    }
    return s;
}

struct str str_skip(struct str s, size_t start) {
    if (start > s.len)
        start = s.len;
    return str_make(start ? s.ptr + start : s.ptr, s.len - start);
}

struct str str_head(struct str s, size_t len) {
    return str_make(s.ptr, len < s.len ? len : s.len);
}

bool str_split(struct str *rest, char sep, struct str *part) {
    if (rest->ptr == NULL)
        return false;
    ptrdiff_t at = str_find_char(*rest, sep);
    if (at < 0) {
        *part = *rest;
        *rest = STR_NONE;
    } else {
        *part = str_head(*rest, (size_t)at);
        *rest = str_skip(*rest, (size_t)at + 1);
    }
    return true;
}

int str_to_u64(struct str s, uint64_t *out) {
    if (s.len == 0)
        return -EINVAL;
    uint64_t value = 0;
    bool over = false;
    for (size_t i = 0; i < s.len; i++) {
        if (!is_digit(s.ptr[i]))
            return -EINVAL;
        over |= __builtin_mul_overflow(value, 10, &value);
        over |= __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value);
    }
    if (over)
        return -ERANGE;
    *out = value;
    return 0;
}

int str_to_i64(struct str s, int64_t *out) {
    bool negative = s.len > 0 && *s.ptr == '-';
    uint64_t size;
    int err = str_to_u64(str_skip(s, negative), &size);
    if (err)
        return err;
    if (size > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *out = negative ? (int64_t)(0 - size) : (int64_t)size;
    return 0;
}

/* Steps over digits; how many there were. */
static size_t skip_digits(struct str *s) {
    size_t n = 0;
    while (n < s->len && is_digit(s->ptr[n]))
        n++;
    *s = str_skip(*s, n);
    return n;
}

static bool skip_either(struct str *s, char a, char b) {
    if (s->len == 0 || (*s->ptr != a && *s->ptr != b))
        return false;
    *s = str_skip(*s, 1);
    return true;
}

/* strtod also takes blanks, hexadecimals, "inf" and "nan": what it shall see is checked before. */
static bool is_decimal(struct str s) {
    (void)skip_either(&s, '-', '+');
    size_t digits = skip_digits(&s);
    if (skip_either(&s, '.', '.'))
        digits += skip_digits(&s);
    if (digits == 0)
        return false;
    if (skip_either(&s, 'e', 'E')) {
        (void)skip_either(&s, '-', '+');
        if (skip_digits(&s) == 0)
            return false;
    }
    return s.len == 0;
}

int str_to_double(struct str s, double *out) {
    if (!is_decimal(s))
        return -EINVAL;
    char local[64];
    char *text = s.len < sizeof local ? local : mem_alloc(s.len + 1);
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    double value = strtod(text, NULL);
    if (text != local)
        mem_free(text);
    if (!isfinite(value))
        return -ERANGE;
    *out = value;
    return 0;
}

char *str_dup(struct str s) {
    char *copy = mem_alloc(s.len + 1);
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

static int hex_value(char c) {
    if (is_digit(c))
        return c - '0';
    unsigned char letter = lower(c);
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

ptrdiff_t str_percent_decode(struct str s, char *out) {
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '%') {
            int high = s.len - i > 2 ? hex_value(s.ptr[i + 1]) : -1;
            int low = s.len - i > 2 ? hex_value(s.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        }
        out[len++] = c;
    }
    return (ptrdiff_t)len;
}

char *str_put_u64(char *at, uint64_t value) {
    char text[20], *start = text + sizeof text;
    do
        *--start = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    return str_put(at, str_make(start, (size_t)(text + sizeof text - start)));
}

char *str_put_hex(char *at, uint64_t value) {
    char text[16], *start = text + sizeof text;
    do
        *--start = "0123456789abcdef"[value % 16];
    while ((value /= 16) != 0);
    return str_put(at, str_make(start, (size_t)(text + sizeof text - start)));
}
