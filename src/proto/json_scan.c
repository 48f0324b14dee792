/* See json_scan.h. One pass without recursion; what is open is a bit a level. Strings, which are most of a prompt,
 * go by 16 bytes at a time; bytes over 0x7f only raise a flag, and then the whole text is checked as UTF-8. */
#include "proto/json_scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/utf8.h"
#include "proto/json.h"

struct scan {
    const char *at, *end;
    size_t depth;
    bool high;                                 /* a byte over 0x7f was seen */
    uint64_t objects[JSON_MAX_DEPTH / 64 + 1]; /* bit n: level n is an object */
    const char *key, *key_end, *value;         /* of the top-level member being read */
    json_member_fn *fn;
    void *arg;
};

static bool digit(char c) { return c >= '0' && c <= '9'; }

static void blanks(struct scan *scan) {
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

static bool take(struct scan *scan, char c) {
    if (scan->at >= scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

/* --- strings --- */

#ifdef __SSE2__
/* Lanes that hold a quote, a backslash or a control character. */
static inline __m128i stops(__m128i bytes) {
    __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                 _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    return _mm_or_si128(marks, _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes));
}

/* Whole blocks before the first stop, 32 bytes at a time. */
static const char *plain_blocks(const char *at, const char *end, bool *high) {
    __m128i seen = _mm_setzero_si128();
    for (; end - at >= 32; at += 32) {
        __m128i a = _mm_loadu_si128((const __m128i *)at),
                b = _mm_loadu_si128((const __m128i *)(at + 16));
        if (_mm_movemask_epi8(_mm_or_si128(stops(a), stops(b))) != 0)
            break;
        seen = _mm_or_si128(seen, _mm_or_si128(a, b));
    }
    *high |= _mm_movemask_epi8(seen) != 0;
    return at;
}

/* The stop within the next 16 bytes, or the end of them. */
static const char *plain_lanes(const char *at, bool *high) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);
    unsigned mask = (unsigned)_mm_movemask_epi8(stops(bytes)) | 1u << 16;
    unsigned clear = (unsigned)__builtin_ctz(mask), top = (unsigned)_mm_movemask_epi8(bytes);
    *high |= (top & ((1u << clear) - 1)) != 0;
    return at + clear;
}
#endif

static bool stop(char c) { return c == '"' || c == '\\' || (unsigned char)c <= 0x1f; }

/* Skips bytes that mean nothing in a string; stops at a quote, a backslash, a control character or the end. */
static void plain(struct scan *scan) {
    const char *at = scan->at;
#ifdef __SSE2__
    at = plain_blocks(at, scan->end, &scan->high);
    while (scan->end - at >= 16 && !stop(*at))
        at = plain_lanes(at, &scan->high);
#endif
    for (; at < scan->end && !stop(*at); at++)
        scan->high |= (unsigned char)*at > 0x7f;
    scan->at = at;
}

static int hex(char c) {
    if (digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits after \u; negative when they are not there. */
static int code_unit(struct scan *scan) {
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int value = scan->at < scan->end ? hex(*scan->at++) : -1;
        if (value < 0)
            return -1;
        unit = unit << 4 | value;
    }
    return unit;
}

static bool escape_unicode(struct scan *scan) {
    int unit = code_unit(scan);
    if (unit < 0xd800 || unit > 0xdfff)
        return unit >= 0;
    if (unit > 0xdbff || !take(scan, '\\') || !take(scan, 'u'))
        return false;
    int second = code_unit(scan);
    return second >= 0xdc00 && second <= 0xdfff;
}

static bool escape(struct scan *scan) {
    char c = scan->at < scan->end ? *scan->at++ : '\0';
    if (c == 'u')
        return escape_unicode(scan);
    return c != '\0' && strchr("\"\\/bfnrt", c) != NULL;
}

/* After the opening quote. */
static bool string(struct scan *scan) {
    for (;;) {
        plain(scan);
        if (take(scan, '"'))
            return true;
        if (!take(scan, '\\') || !escape(scan))
            return false;
    }
}

/* --- numbers and words --- */

static bool digits(struct scan *scan) {
    const char *start = scan->at;
    while (scan->at < scan->end && digit(*scan->at))
        scan->at++;
    return scan->at > start;
}

static bool number(struct scan *scan) {
    (void)take(scan, '-');
    if (!take(scan, '0') && !digits(scan))
        return false;
    if (take(scan, '.') && !digits(scan))
        return false;
    if (take(scan, 'e') || take(scan, 'E')) {
        if (!take(scan, '+'))
            (void)take(scan, '-');
        return digits(scan);
    }
    return true;
}

static bool word(struct scan *scan, struct str text) {
    if ((size_t)(scan->end - scan->at) < text.len || memcmp(scan->at, text.ptr, text.len) != 0)
        return false;
    scan->at += text.len;
    return true;
}

static bool scalar(struct scan *scan) {
    switch (scan->at < scan->end ? *scan->at : '\0') {
    case '"': scan->at++; return string(scan);
    case 't': return word(scan, STR("true"));
    case 'f': return word(scan, STR("false"));
    case 'n': return word(scan, STR("null"));
    default: return number(scan);
    }
}

/* --- structure --- */

static bool in_object(const struct scan *scan) {
    size_t level = scan->depth - 1;
    return scan->objects[level / 64] >> (level % 64) & 1;
}

static bool open_level(struct scan *scan, bool object) {
    if (scan->depth == JSON_MAX_DEPTH)
        return false;
    uint64_t bit = (uint64_t)1 << (scan->depth % 64), *bits = &scan->objects[scan->depth / 64];
    *bits = object ? *bits | bit : *bits & ~bit;
    scan->depth++;
    return true;
}

/* A key with its colon; on the top level it is remembered. */
static bool key(struct scan *scan) {
    blanks(scan);
    if (!take(scan, '"'))
        return false;
    const char *start = scan->at;
    if (!string(scan))
        return false;
    const char *stop = scan->at - 1;
    blanks(scan);
    if (!take(scan, ':'))
        return false;
    blanks(scan);
    if (scan->depth == 1) {
        scan->key = start;
        scan->key_end = stop;
        scan->value = scan->at;
    }
    return true;
}

static void member_done(struct scan *scan) {
    if (scan->depth != 1 || !in_object(scan))
        return;
    scan->fn(scan->arg, str_make(scan->key, (size_t)(scan->key_end - scan->key)),
             str_make(scan->value, (size_t)(scan->at - scan->value)));
}

enum step { STEP_VALUE, STEP_AFTER, STEP_FAULT };

/* Begins a value: a container is entered (and left again when it is empty), a scalar taken whole. */
static enum step value(struct scan *scan) {
    blanks(scan);
    bool object = take(scan, '{');
    if (!object && !take(scan, '['))
        return scalar(scan) ? STEP_AFTER : STEP_FAULT;
    if (!open_level(scan, object))
        return STEP_FAULT;
    blanks(scan);
    if (take(scan, object ? '}' : ']')) {
        scan->depth--;
        return STEP_AFTER;
    }
    return !object || key(scan) ? STEP_VALUE : STEP_FAULT;
}

/* After a value: the next one, or the end of what holds it. */
static enum step after(struct scan *scan) {
    member_done(scan);
    bool object = in_object(scan);
    blanks(scan);
    if (take(scan, ','))
        return !object || key(scan) ? STEP_VALUE : STEP_FAULT;
    if (!take(scan, object ? '}' : ']'))
        return STEP_FAULT;
    scan->depth--;
    return STEP_AFTER;
}

enum json_kind json_scan(struct str text, json_member_fn *fn, void *arg) {
    struct scan scan = {.at = text.ptr, .end = text.ptr + text.len, .fn = fn, .arg = arg};
    blanks(&scan);
    bool object = scan.at < scan.end && *scan.at == '{';
    enum step step = STEP_VALUE;
    while (step == STEP_VALUE || (step == STEP_AFTER && scan.depth > 0))
        step = step == STEP_VALUE ? value(&scan) : after(&scan);
    if (step == STEP_FAULT)
        return JSON_INVALID;
    blanks(&scan);
    if (scan.at != scan.end || (scan.high && !utf8_valid(text)))
        return JSON_INVALID;
    return object ? JSON_OBJECT : JSON_OTHER;
}
