/* Reading through yyjson with the request's arena as its allocator: nothing is freed by itself. Blocks
 * too large for a never-failing allocator (a body may be hundreds of megabytes) come from the heap, may
 * fail, and hang on the arena's defer list.
 *
 * The span search walks the bytes themselves: strings, which are nearly all of a body, are passed over
 * by memchr. It relies on valid JSON for what it finds, never for where it reads. */
#include "proto/json.h"

#include <errno.h>

#include "base/utf8.h"

enum { LARGE = 1 << 20 };

/* In front of a large block: where it hangs. */
struct large {
    _Alignas(16) struct defer *defer;
};

static void *large_grow(struct arena *arena, struct large *old, size_t size) {
    struct large *block;
    if (__builtin_add_overflow(size, sizeof *block, &size))
        return NULL;
    struct defer *hung = old ? old->defer : NULL;
    block = mem_try_realloc(old, size);
    if (block == NULL)
        return NULL;
    if (hung)
        defer_drop(hung);
    block->defer = arena_defer(arena, mem_free, block);
    return block + 1;
}

static void *alloc(void *arena, size_t size) {
    return size > LARGE ? large_grow(arena, NULL, size) : arena_alloc(arena, size);
}

static void *resize(void *arena, void *ptr, size_t old_size, size_t size) {
    if (size <= old_size)
        return ptr;
    if (old_size > LARGE)
        return large_grow(arena, (struct large *)ptr - 1, size);
    void *grown = alloc(arena, size);
    if (grown)
        memcpy(grown, ptr, old_size);
    return grown;
}

static void release(void *arena, void *ptr) {
    (void)arena;
    (void)ptr;
}

/* Values lie in the order of the text and a container knows its end, so the depth needs no recursion:
 * a stack of the ends of what is open. A document of few values cannot be deep. */
static bool too_deep(const yyjson_doc *doc) {
    if (doc->val_read <= JSON_MAX_DEPTH)
        return false;
    uint32_t ends[JSON_MAX_DEPTH];
    size_t depth = 0;
    for (size_t i = 0; i < doc->val_read; i++) {
        while (depth > 0 && ends[depth - 1] <= i)
            depth--;
        yyjson_val *value = doc->root + i;
        if (!unsafe_yyjson_is_ctn(value))
            continue;
        if (depth == JSON_MAX_DEPTH)
            return true;
        ends[depth++] = (uint32_t)(unsafe_yyjson_get_next(value) - doc->root);
    }
    return false;
}

/* Line and column, from 1, of the byte after `before`. */
static void position(struct str before, size_t *line, size_t *column) {
    *line = 1;
    for (ptrdiff_t at; (at = str_find_char(before, '\n')) >= 0; (*line)++)
        before = str_skip(before, (size_t)at + 1);
    *column = before.len + 1;
}

static void say(struct arena *arena, struct str *error, struct str reason) {
    if (error)
        *error = arena_dup(arena, reason);
}

static void say_where(struct arena *arena, struct str *error, struct str text,
                      const yyjson_read_err *err) {
    if (error == NULL)
        return;
    size_t line, column;
    position(str_head(text, err->pos), &line, &column);
    *error = arena_printf(arena, "%s at line %zu column %zu", err->msg, line, column);
}

yyjson_doc *json_parse(struct arena *arena, struct str text, struct str *error) {
    if (text.len == 0) {
        say(arena, error, STR("the text is empty"));
        return NULL;
    }
    if (text.len > UINT32_MAX / 2) { /* keeps too_deep's offsets in range */
        say(arena, error, STR("the text is longer than 2 GiB"));
        return NULL;
    }
    yyjson_alc memory = {alloc, resize, release, arena};
    yyjson_read_err err;
    /* Without YYJSON_READ_INSITU the text is only read. */
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.ptr, text.len, 0, &memory, &err);
    if (doc == NULL) {
        say_where(arena, error, text, &err);
        return NULL;
    }
    if (too_deep(doc)) {
        say(arena, error, STR("nested deeper than 512 levels"));
        return NULL;
    }
    return doc;
}
_Static_assert(JSON_MAX_DEPTH == 512, "the message above names the limit");

yyjson_val *json_get(yyjson_val *object, const char *key) {
    if (!yyjson_is_obj(object))
        return NULL;
    size_t len = strlen(key);
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    yyjson_val *found = NULL, *at;
    while ((at = yyjson_obj_iter_next(&iter)) != NULL) {
        if (yyjson_equals_strn(at, key, len))
            found = yyjson_obj_iter_get_val(at);
    }
    return found;
}

struct str json_str(yyjson_val *value) {
    return yyjson_is_str(value) ? str_make(yyjson_get_str(value), yyjson_get_len(value)) : STR_NONE;
}

struct str json_text(struct arena *arena, yyjson_val *value) {
    yyjson_alc memory = {alloc, resize, release, arena};
    size_t len = 0;
    char *text = yyjson_val_write_opts(value, 0, &memory, &len, NULL);
    return str_make(text, len);
}

struct str json_get_str(yyjson_val *object, const char *key, struct str fallback) {
    struct str text = json_str(json_get(object, key));
    return text.ptr ? text : fallback;
}

int64_t json_get_int(yyjson_val *object, const char *key, int64_t fallback) {
    yyjson_val *value = json_get(object, key);
    if (yyjson_is_sint(value))
        return yyjson_get_sint(value);
    if (yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX)
        return (int64_t)yyjson_get_uint(value);
    return fallback;
}

double json_get_num(yyjson_val *object, const char *key, double fallback) {
    yyjson_val *value = json_get(object, key);
    return yyjson_is_num(value) ? yyjson_get_num(value) : fallback;
}

bool json_get_bool(yyjson_val *object, const char *key, bool fallback) {
    yyjson_val *value = json_get(object, key);
    return yyjson_is_bool(value) ? yyjson_get_bool(value) : fallback;
}

/* --- spans ---------------------------------------------------------------------------------- */

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static size_t skip_blanks(struct str text, size_t at) {
    while (at < text.len && is_blank(text.ptr[at]))
        at++;
    return at;
}

/* True when the quote at `quote` is escaped: an odd number of backslashes stands before it. */
static bool escaped(struct str text, size_t from, size_t quote) {
    size_t at = quote;
    while (at > from && text.ptr[at - 1] == '\\')
        at--;
    return (quote - at) % 2 == 1;
}

/* `at` is behind an opening quote; the offset behind the closing one, or text.len. */
static size_t skip_string(struct str text, size_t at) {
    size_t from = at;
    while (at < text.len) {
        const char *quote = memchr(text.ptr + at, '"', text.len - at);
        if (quote == NULL)
            return text.len;
        at = (size_t)(quote - text.ptr) + 1;
        if (!escaped(text, from, at - 1))
            return at;
    }
    return text.len;
}

/* `at` is on an opening bracket; the offset behind the one that closes it, or text.len. */
static size_t skip_container(struct str text, size_t at) {
    size_t depth = 0;
    while (at < text.len) {
        switch (text.ptr[at++]) {
        case '"': at = skip_string(text, at); break;
        case '{':
        case '[': depth++; break;
        case '}':
        case ']':
            if (--depth == 0)
                return at;
            break;
        default: break;
        }
    }
    return text.len;
}

static size_t skip_scalar(struct str text, size_t at) {
    while (at < text.len && !is_blank(text.ptr[at]) && text.ptr[at] != ',' && text.ptr[at] != '}' &&
           text.ptr[at] != ']')
        at++;
    return at;
}

static size_t skip_value(struct str text, size_t at) {
    if (at >= text.len)
        return at;
    switch (text.ptr[at]) {
    case '"': return skip_string(text, at + 1);
    case '{':
    case '[': return skip_container(text, at);
    default: return skip_scalar(text, at);
    }
}

/* The four digits after "\u"; -1 when they are none. */
static int32_t hex4(struct str s) {
    int32_t code = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = i < s.len ? s.ptr[i] : '\0';
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code;
}

/* Cuts "uXXXX", or the two of a surrogate pair, off `raw`. */
static size_t decode_unicode(struct str *raw, char out[4]) {
    int32_t code = hex4(str_skip(*raw, 1));
    *raw = str_skip(*raw, 5);
    if (code >= 0xd800 && code <= 0xdbff && str_starts(*raw, STR("\\u"))) {
        int32_t low = hex4(str_skip(*raw, 2));
        if (low >= 0xdc00 && low <= 0xdfff) {
            *raw = str_skip(*raw, 6);
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return code < 0 ? 0 : utf8_encode((uint32_t)code, out);
}

/* Cuts one character off the raw key (behind its backslash, when it has one) and decodes it. */
static size_t decode_char(struct str *raw, char out[4]) {
    static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    out[0] = raw->ptr[0];
    if (raw->ptr[0] != '\\' || raw->len < 2) {
        *raw = str_skip(*raw, 1);
        return 1;
    }
    *raw = str_skip(*raw, 1);
    if (raw->ptr[0] == 'u')
        return decode_unicode(raw, out);
    const char *name = memchr(names, raw->ptr[0], sizeof names - 1);
    *raw = str_skip(*raw, 1);
    out[0] = name ? bytes[name - names] : '\0';
    return name ? 1 : 0;
}

static bool key_is(struct str raw, struct str key) {
    if (str_find_char(raw, '\\') < 0)
        return str_eq(raw, key);
    while (raw.len > 0) {
        char decoded[4];
        size_t len = decode_char(&raw, decoded);
        if (len == 0 || !str_starts(key, str_make(decoded, len)))
            return false;
        key = str_skip(key, len);
    }
    return key.len == 0;
}

/* One member: the raw key and the value's span. False at the end of the object (or of what is one). */
static bool next_member(struct str text, size_t *at, struct str *key, size_t *start, size_t *end) {
    size_t open = skip_blanks(text, *at);
    if (open >= text.len || text.ptr[open] != '"')
        return false;
    size_t close = skip_string(text, open + 1);
    *key = str_make(text.ptr + open + 1, close - open - (close > open + 1 ? 2 : 1));
    size_t colon = skip_blanks(text, close);
    *start = skip_blanks(text, colon + 1);
    *end = skip_value(text, *start);
    *at = skip_blanks(text, *end) + 1; /* behind the comma or the brace */
    return *start < *end;
}

int json_member_span(struct str text, struct str key, size_t *start, size_t *end) {
    int found = -ENOENT;
    size_t at = skip_blanks(text, 0), from, to;
    if (at >= text.len || text.ptr[at] != '{')
        return -ENOENT;
    at++;
    for (struct str raw; next_member(text, &at, &raw, &from, &to);) {
        if (!key_is(raw, key))
            continue;
        *start = from;
        *end = to;
        found = 0;
    }
    return found;
}
