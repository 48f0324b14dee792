/* See routes.h. Exact paths are found by hash; the few templates by a walk. */
#include "gateway/routes.h"

#include "base/map.h"

/* Rows of one path, chained in table order. */
struct path_rows {
    const struct route *first;
    size_t count;
    struct str allow;
};

static struct map exact;
static struct path_rows *templates[64];
static size_t template_count;

static const struct {
    enum http_method method;
    const char *name;
} method_names[] = {
    {HTTP_GET_METHOD, "GET, HEAD"}, {HTTP_POST_METHOD, "POST"},     {HTTP_PUT_METHOD, "PUT"},
    {HTTP_PATCH_METHOD, "PATCH"},   {HTTP_DELETE_METHOD, "DELETE"},
};

static bool serves(const struct route *first, size_t count, enum http_method method) {
    for (size_t i = 0; i < count; i++)
        if (first[i].method == method)
            return true;
    return false;
}

static struct str allow_list(const struct route *first, size_t count) {
    char text[64], *at = text;
    for (size_t m = 0; m < sizeof method_names / sizeof *method_names; m++) {
        if (!serves(first, count, method_names[m].method))
            continue;
        at = str_put(at, at == text ? STR("") : STR(", "));
        at = str_put(at, str_from(method_names[m].name));
    }
    struct str list = str_make(text, (size_t)(at - text));
    return str_make(str_dup(list), list.len);
}

static void path_add(const struct route *first, size_t count) {
    struct path_rows *rows = mem_alloc(sizeof *rows);
    *rows = (struct path_rows){.first = first, .count = count, .allow = allow_list(first, count)};
    if (str_find_char(first->path, '{') >= 0)
        templates[template_count++] = rows;
    else
        map_put(&exact, first->path, rows);
}

void routes_init(void) {
    if (exact.len > 0)
        return;
    map_init(&exact);
    for (size_t i = 0; i < route_count;) {
        size_t count = 1;
        while (i + count < route_count && str_eq(route_table[i + count].path, route_table[i].path))
            count++;
        path_add(&route_table[i], count);
        i += count;
    }
}

/* Matches "/a/{x}/b": the braces stand for one segment, or at the end of a `rest` row for all that follows. */
static bool template_match(struct str pattern, bool rest, struct str path, struct str *param) {
    size_t open = (size_t)str_find_char(pattern, '{');
    struct str tail = str_skip(pattern, (size_t)str_find_char(pattern, '}') + 1);
    if (!str_starts(path, str_head(pattern, open)))
        return false;
    struct str value = str_skip(path, open);
    ptrdiff_t slash = rest && tail.len == 0 ? -1 : str_find_char(value, '/');
    *param = slash < 0 ? value : str_head(value, (size_t)slash);
    struct str after = str_skip(value, param->len), inner;
    if (param->len == 0)
        return false;
    return str_find_char(tail, '{') < 0 ? str_eq(after, tail)
                                        : template_match(tail, rest, after, &inner);
}

static const struct path_rows *rows_for(struct str path, struct str *param) {
    const struct path_rows *rows = map_get(&exact, path);
    for (size_t i = 0; rows == NULL && i < template_count; i++) {
        const struct route *first = templates[i]->first;
        if (template_match(first->path, first->rest, path, param))
            rows = templates[i];
    }
    return rows;
}

const struct route *route_find(enum http_method method, struct str path, struct str *param,
                               struct str *allow) {
    *param = *allow = STR_NONE;
    const struct path_rows *rows = rows_for(path, param);
    if (rows == NULL)
        return NULL;
    if (method == HTTP_HEAD_METHOD)
        method = HTTP_GET_METHOD;
    for (size_t i = 0; i < rows->count; i++)
        if (rows->first[i].method == method)
            return &rows->first[i];
    *allow = rows->allow;
    return NULL;
}
