/* Lists are short (a dozen lines), so look-ups walk them; the length is compared before any byte. */
#include "proto/headers.h"

static void grow(struct headers *headers, struct arena *arena) {
    size_t cap = headers->cap ? headers->cap * 2 : 16;
    struct header *items = arena_alloc(arena, cap * sizeof *items);
    if (headers->len)
        memcpy(items, headers->items, headers->len * sizeof *items);
    headers->items = items;
    headers->cap = cap;
}

void headers_add(struct headers *headers, struct arena *arena, struct str name, struct str value) {
    if (headers->len == headers->cap)
        grow(headers, arena);
    headers->items[headers->len++] = (struct header){name, value};
}

static bool named(const struct header *header, struct str name) {
    return header->name.len == name.len && memcmp(header->name.ptr, name.ptr, name.len) == 0;
}

struct str headers_get(const struct headers *headers, struct str name) {
    for (size_t i = 0; i < headers->len; i++) {
        if (named(&headers->items[i], name))
            return headers->items[i].value;
    }
    return STR_NONE;
}

size_t headers_count(const struct headers *headers, struct str name) {
    size_t count = 0;
    for (size_t i = 0; i < headers->len; i++)
        count += named(&headers->items[i], name);
    return count;
}

static bool list_has(struct str list, struct str token) {
    struct str part;
    while (str_split(&list, ',', &part)) {
        if (str_ieq(str_trim(part), token))
            return true;
    }
    return false;
}

bool headers_has_token(const struct headers *headers, struct str name, struct str token) {
    for (size_t i = 0; i < headers->len; i++) {
        const struct header *header = &headers->items[i];
        if (named(header, name) && list_has(header->value, token))
            return true;
    }
    return false;
}

bool headers_hop_by_hop(struct str name) {
    switch (name.len) {
    case 2: return str_eq(name, STR("te"));
    case 4: return str_eq(name, STR("host"));
    case 7: return str_eq(name, STR("upgrade")) || str_eq(name, STR("trailer"));
    case 8: return str_eq(name, STR("trailers"));
    case 10: return str_eq(name, STR("connection")) || str_eq(name, STR("keep-alive"));
    case 16: return str_eq(name, STR("content-encoding")) || str_eq(name, STR("proxy-connection"));
    case 17: return str_eq(name, STR("transfer-encoding"));
    case 18: return str_eq(name, STR("proxy-authenticate"));
    case 19: return str_eq(name, STR("proxy-authorization"));
    default: return false;
    }
}

static bool value_byte(unsigned char c) { return (c >= ' ' && c != 0x7f) || c == '\t'; }

static bool blank(char c) { return c == ' ' || c == '\t'; }

bool headers_value_ok(struct str value) {
    if (value.len == 0)
        return true;
    if (blank(value.ptr[0]) || blank(value.ptr[value.len - 1]))
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (!value_byte((unsigned char)value.ptr[i]))
            return false;
    }
    return true;
}
