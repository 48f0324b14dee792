/* YAML becomes JSON (proto/yaml.h), each member becomes texts as they would stand on the command
 * line, and the parser does the rest: one set of types and ranges for all sources. Numbers are taken
 * for numeric options only; elsewhere they would lose what was written (a key 007, a version 1.10). */
#include "app/config_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "proto/yaml.h"

#define FILE_MAX_BYTES (4u << 20)
#define REASON_MAX 512

/* One file being read. */
struct reading {
    struct config_file *file;
    const struct opt_schema *schema;
    struct optparse *parser;
    struct arena *arena;
    struct str text;
    char *error;
    size_t error_size;
};

/* The texts of one member. */
struct texts {
    const char **items;
    size_t len;
};

static int fail_line(struct reading *reading, int line, const char *key, const char *reason) {
    snprintf(reading->error, reading->error_size, "%s:%d: %.100s%s%s", reading->file->path, line,
             key, key[0] != '\0' ? ": " : "", reason);
    return -EINVAL;
}

static const char *number_text(struct arena *arena, yyjson_val *value) {
    if (yyjson_is_uint(value))
        return arena_printf(arena, "%" PRIu64, yyjson_get_uint(value)).ptr;
    if (yyjson_is_sint(value))
        return arena_printf(arena, "%" PRId64, yyjson_get_sint(value)).ptr;
    return arena_printf(arena, "%.17g", yyjson_get_real(value)).ptr;
}

static bool is_numeric(enum opt_type type) {
    return type == OPT_INT || type == OPT_FLOAT || type == OPT_FLOATS;
}

/* The value as a word of the command line, or NULL with what is wrong. */
static const char *scalar_text(struct arena *arena, enum opt_type type, yyjson_val *value,
                               const char **reason) {
    if (yyjson_is_str(value)) {
        *reason = "holds a NUL byte";
        bool whole = strlen(yyjson_get_str(value)) == yyjson_get_len(value);
        return whole ? yyjson_get_str(value) : NULL;
    }
    if (yyjson_is_bool(value) && type == OPT_BOOL)
        return yyjson_get_bool(value) ? "true" : "false";
    if (yyjson_is_num(value) && is_numeric(type))
        return number_text(arena, value);
    *reason = yyjson_is_ctn(value)    ? "expected one value"
              : yyjson_is_null(value) ? "an item without a value"
              : type == OPT_BOOL      ? "expected true or false"
              : is_numeric(type)      ? "expected a number"
                                      : "expected text: put the value in quotes";
    return NULL;
}

static bool is_list(enum opt_type type) {
    return type == OPT_LIST || type == OPT_REPEAT || type == OPT_PAIRS || type == OPT_FLOATS ||
           type == OPT_URL_PORT;
}

static const char *array_texts(struct arena *arena, enum opt_type type, yyjson_val *array,
                               struct texts *out) {
    size_t i, max;
    yyjson_val *item;
    const char *reason = NULL;
    yyjson_arr_foreach(array, i, max, item) {
        const char *text = scalar_text(arena, type, item, &reason);
        if (text == NULL)
            return reason;
        out->items[out->len++] = text;
    }
    return NULL;
}

static const char *mapping_texts(struct arena *arena, yyjson_val *object, struct texts *out) {
    size_t i, max;
    yyjson_val *key, *value;
    const char *reason = NULL;
    yyjson_obj_foreach(object, i, max, key, value) {
        const char *text = scalar_text(arena, OPT_STR, value, &reason);
        if (text == NULL)
            return reason;
        out->items[out->len++] = arena_printf(arena, "%s=%s", yyjson_get_str(key), text).ptr;
    }
    return NULL;
}

/* Fills `out` from the member's value; what is wrong, or NULL. */
static const char *value_texts(struct arena *arena, enum opt_type type, yyjson_val *value,
                               struct texts *out) {
    out->items = arena_alloc(arena, (yyjson_get_len(value) + 1) * sizeof *out->items);
    out->len = 0;
    if (yyjson_is_arr(value) && is_list(type))
        return array_texts(arena, type, value, out);
    if (yyjson_is_obj(value) && type == OPT_PAIRS)
        return mapping_texts(arena, value, out);
    const char *reason = NULL;
    out->items[0] = scalar_text(arena, type, value, &reason);
    out->len = 1;
    return out->items[0] != NULL ? NULL : reason;
}

static int fail_unknown(struct reading *reading, int line, struct str key) {
    char reason[REASON_MAX];
    const char *near = optparse_near(reading->schema, key);
    snprintf(reason, sizeof reason, near ? "unknown option, did you mean '%s'?" : "unknown option",
             near);
    return fail_line(reading, line, key.ptr, reason);
}

static int apply_member(struct reading *reading, struct str key, yyjson_val *value) {
    char reason[REASON_MAX];
    struct texts texts;
    int line = yaml_line_of(reading->text, key);
    const struct opt_row *row = optparse_find(reading->schema, key, true);
    if (row == NULL)
        return fail_unknown(reading, line, key);
    if (strcmp(row->name, "config") == 0)
        return fail_line(reading, line, key.ptr, "a file cannot name another one");
    if (config_file_line(reading->file, row) != 0)
        return fail_line(reading, line, key.ptr, "given twice");
    vec_push(&reading->file->lines, ((struct config_line){row, line}));
    if (yyjson_is_null(value))
        return 0;
    const char *wrong = value_texts(reading->arena, row->type, value, &texts);
    if (wrong != NULL)
        return fail_line(reading, line, key.ptr, wrong);
    if (optparse_file(reading->parser, row, texts.items, texts.len, reason, sizeof reason) != 0)
        return fail_line(reading, line, key.ptr, reason);
    return 0;
}

static int apply_members(struct reading *reading, yyjson_val *root) {
    size_t i, max;
    yyjson_val *key, *value;
    if (yyjson_is_null(root))
        return 0;
    if (!yyjson_is_obj(root))
        return fail_line(reading, 1, "", "expected a mapping of options");
    yyjson_obj_foreach(root, i, max, key, value) {
        int error = apply_member(reading, json_str(key), value);
        if (error != 0)
            return error;
    }
    return 0;
}

static int apply_text(struct reading *reading) {
    struct str json, why;
    struct yaml_error error;
    if (yaml_to_json(reading->arena, reading->text, &json, &error) != 0)
        return fail_line(reading, error.line, "", error.reason);
    yyjson_doc *doc = json_parse(reading->arena, json, &why);
    if (doc == NULL)
        return fail_line(reading, 1, "", why.ptr);
    return apply_members(reading, yyjson_doc_get_root(doc));
}

static int fail_read(struct reading *reading, const char *reason) {
    snprintf(reading->error, reading->error_size,
             "Validation failed: cannot read the configuration file %s: %s", reading->file->path,
             reason);
    return -EINVAL;
}

static int read_whole(struct reading *reading, FILE *file) {
    char *text = arena_alloc(reading->arena, FILE_MAX_BYTES + 1);
    size_t len = fread(text, 1, FILE_MAX_BYTES + 1, file);
    if (ferror(file))
        return fail_read(reading, strerror(errno));
    if (len > FILE_MAX_BYTES)
        return fail_read(reading, "larger than 4 MiB");
    reading->text = str_make(text, len);
    return apply_text(reading);
}

int config_file_apply(struct config_file *file, const char *path, const struct opt_schema *schema,
                      struct optparse *parser, char *error, size_t size) {
    *file = (struct config_file){.path = path};
    struct reading reading = {file, schema, parser, NULL, STR_NONE, error, size};
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return fail_read(&reading, strerror(errno));
    reading.arena = arena_new();
    int result = read_whole(&reading, stream);
    arena_free(reading.arena);
    fclose(stream);
    return result;
}

int config_file_line(const struct config_file *file, const struct opt_row *row) {
    for (size_t i = 0; i < file->lines.len; i++)
        if (file->lines.items[i].row == row)
            return file->lines.items[i].line;
    return 0;
}

void config_file_free(struct config_file *file) { vec_free(&file->lines); }
