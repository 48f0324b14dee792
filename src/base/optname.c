/* Look-up by a linear walk: a few hundred rows, asked a few dozen times a start. */
#include "base/optname.h"

#include <stdio.h>

#define NAME_MAX_LEN 64

bool opt_next_word(const char **cursor, struct str *word) {
    if (*cursor == NULL)
        return false;
    const char *start = *cursor + strspn(*cursor, " \t\r\n");
    size_t len = strcspn(start, " \t\r\n");
    *cursor = start + len;
    *word = str_make(start, len);
    return len > 0;
}

const char *opt_field_name(const struct opt_row *row, char *out, size_t size) {
    snprintf(out, size, "%s", row->field != NULL ? row->field : row->name);
    for (char *c = out; row->field == NULL && *c != '\0'; c++)
        if (*c == '-')
            *c = '_';
    return out;
}

static bool same_name(struct str row_name, struct str name, bool underscores) {
    if (row_name.len != name.len)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = underscores && name.ptr[i] == '_' ? '-' : name.ptr[i];
        if (c != row_name.ptr[i])
            return false;
    }
    return true;
}

static bool row_has_name(const struct opt_row *row, struct str name, bool underscores) {
    if (same_name(str_from(row->name), name, underscores))
        return true;
    const char *cursor = row->aliases;
    struct str alias;
    while (opt_next_word(&cursor, &alias))
        if (same_name(alias, name, underscores))
            return true;
    return false;
}

const struct opt_row *optparse_find(const struct opt_schema *schema, struct str name,
                                    bool underscores) {
    for (size_t i = 0; i < schema->count; i++)
        for (size_t j = 0; j < schema->groups[i].count; j++)
            if (row_has_name(&schema->groups[i].rows[j], name, underscores))
                return &schema->groups[i].rows[j];
    return NULL;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* One row of the distance table: `before` and `older` are the two rows above. */
static void distance_row(struct str a, struct str b, size_t i, const size_t *older,
                         const size_t *before, size_t *row) {
    row[0] = i;
    for (size_t j = 1; j <= b.len; j++) {
        size_t change = before[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
        row[j] = least(change, least(before[j], row[j - 1]) + 1);
        if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1])
            row[j] = least(row[j], older[j - 2] + 1);
    }
}

size_t opt_edit_distance(struct str a, struct str b, size_t limit) {
    size_t rows[3][NAME_MAX_LEN + 1] = {{0}};
    size_t apart = a.len > b.len ? a.len - b.len : b.len - a.len;
    if (a.len > NAME_MAX_LEN || b.len > NAME_MAX_LEN || apart > limit)
        return limit + 1;
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.len; i++)
        distance_row(a, b, i, rows[(i + 1) % 3], rows[(i + 2) % 3], rows[i % 3]);
    return least(rows[a.len % 3][b.len], limit + 1);
}

/* The best name so far and how far it is off. */
struct nearest {
    struct str name;
    const char *best;
    size_t distance;
};

static void consider(struct nearest *nearest, const struct opt_row *row, struct str name) {
    size_t distance = opt_edit_distance(nearest->name, name, nearest->distance);
    if (distance >= nearest->distance)
        return;
    nearest->distance = distance;
    nearest->best = row->name;
}

static void consider_row(struct nearest *nearest, const struct opt_row *row) {
    if (row->hidden)
        return;
    consider(nearest, row, str_from(row->name));
    const char *cursor = row->aliases;
    struct str alias;
    while (opt_next_word(&cursor, &alias))
        consider(nearest, row, alias);
}

/* The first row whose name goes on where `name` ends: `--log` for `--log-level`. */
static const char *longer_name(const struct opt_schema *schema, struct str name) {
    for (size_t i = 0; name.len >= 3 && i < schema->count; i++)
        for (size_t j = 0; j < schema->groups[i].count; j++)
            if (str_starts(str_from(schema->groups[i].rows[j].name), name))
                return schema->groups[i].rows[j].name;
    return NULL;
}

const char *optparse_near(const struct opt_schema *schema, struct str name) {
    const struct opt_row *row = optparse_find(schema, name, true);
    if (row != NULL)
        return row->name;
    struct nearest nearest = {name, NULL, name.len <= 6 ? 2 : name.len <= 12 ? 3 : 4};
    for (size_t i = 0; i < schema->count; i++)
        for (size_t j = 0; j < schema->groups[i].count; j++)
            consider_row(&nearest, &schema->groups[i].rows[j]);
    return nearest.best != NULL ? nearest.best : longer_name(schema, name);
}
