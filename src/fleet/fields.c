/* One switch per operation over the kind of a row. Numbers are read strictly: 1.5 is no whole
 * number, "5" is no number, and 5.0 counts as 5 because some JSON writers know no integers. */
#include "fleet/fields.h"

#include <errno.h>
#include <math.h>

static void *at(void *target, const struct field *row) { return (char *)target + row->offset; }
static const void *const_at(const void *from, const struct field *row) {
    return (const char *)from + row->offset;
}

/* --- unset ----------------------------------------------------------------------------------- */

static void clear(const struct field *row, void *target) {
    switch (row->kind) {
    case FIELD_TEXT:
    case FIELD_OBJECT: *(struct str *)at(target, row) = STR_NONE; break;
    case FIELD_INT: *(int64_t *)at(target, row) = FIELD_UNSET; break;
    case FIELD_NUMBER: *(double *)at(target, row) = NAN; break;
    case FIELD_BOOL: *(int *)at(target, row) = -1; break;
    case FIELD_TEXTS: *(struct text_list *)at(target, row) = (struct text_list){NULL, 0}; break;
    }
}

static bool is_set(const struct field *row, const void *from) {
    const void *value = const_at(from, row);
    switch (row->kind) {
    case FIELD_TEXT:
    case FIELD_OBJECT: return ((const struct str *)value)->ptr != NULL;
    case FIELD_INT: return *(const int64_t *)value != FIELD_UNSET;
    case FIELD_NUMBER: return !isnan(*(const double *)value);
    case FIELD_BOOL: return *(const int *)value >= 0;
    case FIELD_TEXTS: return ((const struct text_list *)value)->items != NULL;
    }
    return false;
}

void fields_clear(const struct field_table *table, void *target) {
    for (size_t i = 0; i < table->count; i++)
        clear(&table->rows[i], target);
}

/* --- reading --------------------------------------------------------------------------------- */

int field_fault(struct arena *arena, struct str *fault, const char *prefix, const char *key,
                const char *reason) {
    *fault = arena_printf(arena, "%s%s: %s", prefix, key, reason);
    return -EINVAL;
}

bool field_text_ok(struct str text, int64_t max) {
    return text.len <= (size_t)max && str_find_char(text, 0) < 0;
}

static const char *expected(struct arena *arena, const struct field *row) {
    long long min = (long long)row->min, max = (long long)row->max;
    switch (row->kind) {
    case FIELD_TEXT:
        return arena_printf(arena, "expected a string of at most %lld bytes, without NUL", max).ptr;
    case FIELD_INT: return arena_printf(arena, "expected a whole number %lld..%lld", min, max).ptr;
    case FIELD_NUMBER: return arena_printf(arena, "expected a number %lld..%lld", min, max).ptr;
    case FIELD_BOOL: return "expected true or false";
    case FIELD_TEXTS:
        return arena_printf(arena, "expected an array of at most %lld strings of at most %d bytes",
                            max, FIELD_TEXT_MAX)
            .ptr;
    case FIELD_OBJECT:
        return arena_printf(arena, "expected an object of at most %lld bytes", max).ptr;
    }
    return "unexpected";
}

static bool read_int(const struct field *row, yyjson_val *value, int64_t *out) {
    int64_t number;
    if (yyjson_is_sint(value))
        number = yyjson_get_sint(value);
    else if (yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX)
        number = (int64_t)yyjson_get_uint(value);
    else if (yyjson_is_real(value) && fabs(yyjson_get_real(value)) < 1e15 &&
             yyjson_get_real(value) == floor(yyjson_get_real(value)))
        number = (int64_t)yyjson_get_real(value);
    else
        return false;
    *out = number;
    return number >= row->min && number <= row->max;
}

static bool read_number(const struct field *row, yyjson_val *value, double *out) {
    if (!yyjson_is_num(value))
        return false;
    *out = yyjson_get_num(value);
    return *out >= (double)row->min && *out <= (double)row->max;
}

static bool read_texts(struct arena *arena, const struct field *row, yyjson_val *value,
                       struct text_list *out) {
    if (!yyjson_is_arr(value) || yyjson_arr_size(value) > (size_t)row->max)
        return false;
    out->items = arena_zalloc(arena, (yyjson_arr_size(value) + 1) * sizeof *out->items);
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;) {
        struct str text = json_str(item);
        if (text.ptr == NULL || !field_text_ok(text, FIELD_TEXT_MAX))
            return false;
        out->items[out->count++] = text;
    }
    return true;
}

static bool read_object(struct arena *arena, const struct field *row, yyjson_val *value,
                        struct str *out) {
    struct json_writer writer;
    if (!yyjson_is_obj(value))
        return false;
    json_writer_init(&writer, (size_t)row->max);
    json_value(&writer, value);
    *out = json_writer_end(&writer, arena);
    return out->ptr != NULL;
}

static bool read(struct arena *arena, const struct field *row, yyjson_val *value, void *target) {
    switch (row->kind) {
    case FIELD_TEXT: {
        struct str text = json_str(value);
        *(struct str *)at(target, row) = text;
        return text.ptr != NULL && field_text_ok(text, row->max);
    }
    case FIELD_INT: return read_int(row, value, at(target, row));
    case FIELD_NUMBER: return read_number(row, value, at(target, row));
    case FIELD_BOOL: *(int *)at(target, row) = yyjson_is_true(value); return yyjson_is_bool(value);
    case FIELD_TEXTS: return read_texts(arena, row, value, at(target, row));
    case FIELD_OBJECT: return read_object(arena, row, value, at(target, row));
    }
    return false;
}

int fields_read(struct arena *arena, const struct field_table *table, yyjson_val *object,
                unsigned flags, void *target, struct str *fault) {
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        yyjson_val *value = json_get(object, row->key);
        if (value == NULL || yyjson_is_null(value) || (row->flags & flags) != flags)
            continue;
        clear(row, target);
        if (!read(arena, row, value, target))
            return field_fault(arena, fault, table->prefix, row->key, expected(arena, row));
    }
    return 0;
}

/* --- copying --------------------------------------------------------------------------------- */

static struct str text_copy(struct arena *arena, struct str text) {
    return text.ptr ? arena_dup(arena, text) : text;
}

struct text_list text_list_copy(struct arena *arena, struct text_list list) {
    if (list.items == NULL)
        return list;
    struct text_list copy = {arena_alloc(arena, (list.count + 1) * sizeof *copy.items), list.count};
    for (size_t i = 0; i < list.count; i++)
        copy.items[i] = text_copy(arena, list.items[i]);
    return copy;
}

static void take(const struct field *row, const void *from, void *to) {
    const void *value = const_at(from, row);
    void *target = at(to, row);
    switch (row->kind) {
    case FIELD_TEXT:
    case FIELD_OBJECT: *(struct str *)target = *(const struct str *)value; break;
    case FIELD_INT: *(int64_t *)target = *(const int64_t *)value; break;
    case FIELD_NUMBER: *(double *)target = *(const double *)value; break;
    case FIELD_BOOL: *(int *)target = *(const int *)value; break;
    case FIELD_TEXTS: *(struct text_list *)target = *(const struct text_list *)value; break;
    }
}

void fields_copy(struct arena *arena, const struct field_table *table, const void *from, void *to) {
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        take(row, from, to);
        if (row->kind == FIELD_TEXT || row->kind == FIELD_OBJECT)
            *(struct str *)at(to, row) = text_copy(arena, *(struct str *)at(to, row));
        else if (row->kind == FIELD_TEXTS)
            *(struct text_list *)at(to, row) =
                text_list_copy(arena, *(struct text_list *)at(to, row));
    }
}

void fields_overlay(const struct field_table *table, const void *from, void *to) {
    for (size_t i = 0; i < table->count; i++) {
        if (is_set(&table->rows[i], from))
            take(&table->rows[i], from, to);
    }
}

/* --- showing --------------------------------------------------------------------------------- */

static void write_texts(struct json_writer *writer, const struct text_list *list) {
    json_array(writer);
    for (size_t i = 0; i < list->count; i++)
        json_string(writer, list->items[i]);
    json_array_end(writer);
}

static void write_value(struct json_writer *writer, const struct field *row, const void *from) {
    const void *value = const_at(from, row);
    switch (row->kind) {
    case FIELD_TEXT: json_string(writer, *(const struct str *)value); break;
    case FIELD_INT: json_int(writer, *(const int64_t *)value); break;
    case FIELD_NUMBER: json_double(writer, *(const double *)value); break;
    case FIELD_BOOL: json_bool(writer, *(const int *)value > 0); break;
    case FIELD_TEXTS: write_texts(writer, value); break;
    case FIELD_OBJECT: json_raw(writer, *(const struct str *)value); break;
    }
}

static bool is_empty(const struct field *row, const void *from) {
    const void *value = const_at(from, row);
    if (row->kind == FIELD_TEXT)
        return ((const struct str *)value)->len == 0;
    return row->kind == FIELD_TEXTS && ((const struct text_list *)value)->count == 0;
}

static bool is_shown(const struct field *row, const void *from) {
    return !(row->flags & FIELD_HIDDEN) && is_set(row, from) && !is_empty(row, from);
}

bool fields_any(const struct field_table *table, const void *from) {
    for (size_t i = 0; i < table->count; i++) {
        if (is_shown(&table->rows[i], from))
            return true;
    }
    return false;
}

void fields_write(struct json_writer *writer, const struct field_table *table, const void *from) {
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        if (!is_shown(row, from))
            continue;
        json_key(writer, row->key);
        write_value(writer, row, from);
    }
}

static void json_members(struct json_writer *writer, yyjson_val *object) {
    json_object(writer);
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter)) != NULL;) {
        json_key_str(writer, json_str(key));
        json_value(writer, yyjson_obj_iter_get_val(key));
    }
    json_object_end(writer);
}

static void json_items(struct json_writer *writer, yyjson_val *array) {
    json_array(writer);
    yyjson_arr_iter iter = yyjson_arr_iter_with(array);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;)
        json_value(writer, item);
    json_array_end(writer);
}

/* Recursion is bounded by JSON_MAX_DEPTH, which the reader keeps. */
void json_value(struct json_writer *writer, yyjson_val *value) {
    if (yyjson_is_obj(value))
        json_members(writer, value);
    else if (yyjson_is_arr(value))
        json_items(writer, value);
    else if (yyjson_is_str(value))
        json_string(writer, json_str(value));
    else if (yyjson_is_bool(value))
        json_bool(writer, yyjson_is_true(value));
    else if (yyjson_is_sint(value))
        json_int(writer, yyjson_get_sint(value));
    else if (yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX)
        json_int(writer, (int64_t)yyjson_get_uint(value));
    else if (yyjson_is_num(value))
        json_double(writer, yyjson_get_num(value));
    else
        json_null(writer);
}
