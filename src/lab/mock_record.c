/* A kept request is one allocation in the JSON it will be shown as, cut where the status goes in. */
#include "lab/mock_record.h"

#include "base/panic.h"

enum { PATHS_MAX = 256, BODY_MAX = 65536 };

struct mock_kept {
    uint64_t number;
    int status;
    struct str json; /* members of an object, without braces and status */
    char bytes[];
};

void mock_record_init(struct mock_record *record, size_t cap) {
    *record = (struct mock_record){.cap = cap};
    record->kept = cap ? mem_zalloc(cap * sizeof(struct mock_kept *)) : NULL;
    map_init(&record->counts);
}

static void free_counts(struct mock_record *record) {
    size_t cursor = 0;
    struct str path;
    for (void *count; map_next(&record->counts, &cursor, &path, &count);)
        mem_free(count);
    map_free(&record->counts);
}

static void drop_kept(struct mock_record *record) {
    for (size_t i = 0; i < record->cap; i++) {
        mem_free(record->kept[i]);
        record->kept[i] = NULL;
    }
}

void mock_record_free(struct mock_record *record) {
    free_counts(record);
    drop_kept(record);
    mem_free(record->kept);
    record->kept = NULL;
}

void mock_record_clear(struct mock_record *record) {
    free_counts(record);
    map_init(&record->counts);
    drop_kept(record);
}

void mock_record_count(struct mock_record *record, struct str path) {
    uint64_t *count = map_get(&record->counts, path);
    if (count == NULL && record->counts.len >= PATHS_MAX) {
        path = STR("other");
        count = map_get(&record->counts, path);
    }
    if (count == NULL) {
        count = mem_zalloc(sizeof *count);
        map_put(&record->counts, path, count);
    }
    (*count)++;
}

/* --- one request as JSON --------------------------------------------------------------------- */

/* All values of that name, joined as one list. */
static struct str joined(struct arena *arena, const struct headers *headers, struct str name) {
    struct str all = STR_NONE;
    for (size_t i = 0; i < headers->len; i++) {
        struct str value = headers->items[i].value;
        if (!str_ieq(headers->items[i].name, name))
            continue;
        all = all.ptr ? arena_printf(arena, "%.*s, %.*s", STR_ARG(all), STR_ARG(value)) : value;
    }
    return all;
}

static bool first_of_name(const struct headers *headers, size_t at) {
    struct headers before = {headers->items, at, at};
    return headers_count(&before, headers->items[at].name) == 0;
}

static void write_headers(struct json_writer *writer, struct arena *arena,
                          const struct headers *headers) {
    json_key(writer, "headers");
    json_object(writer);
    for (size_t i = 0; i < headers->len; i++) {
        if (!first_of_name(headers, i))
            continue;
        json_key_str(writer, headers->items[i].name);
        json_string(writer, joined(arena, headers, headers->items[i].name));
    }
    json_object_end(writer);
}

static struct mock_kept *kept_new(struct str json) {
    struct mock_kept *kept = mem_zalloc(sizeof *kept + json.len);
    memcpy(kept->bytes, json.ptr, json.len);
    kept->json = str_make(kept->bytes, json.len);
    return kept;
}

uint64_t mock_record_keep(struct mock_record *record, struct str method, struct str target,
                          const struct headers *headers, struct str body) {
    uint64_t number = record->seen++;
    if (record->cap == 0)
        return number;
    struct arena *arena = arena_new();
    struct json_writer writer;
    json_writer_init(&writer, 1 << 20);
    json_kv_str(&writer, "method", method);
    json_kv_str(&writer, "target", target);
    write_headers(&writer, arena, headers);
    json_kv_str(&writer, "body", str_head(body, BODY_MAX));
    json_kv_int(&writer, "body_bytes", (int64_t)body.len);
    struct str json = writer.error ? STR("\"error\":\"too large\"") : buf_str(&writer.buf);
    struct mock_kept **place = &record->kept[number % record->cap];
    mem_free(*place);
    *place = kept_new(json);
    (*place)->number = number;
    buf_free(&writer.buf);
    arena_free(arena);
    return number;
}

void mock_record_status(struct mock_record *record, uint64_t number, int status) {
    struct mock_kept *kept = record->cap ? record->kept[number % record->cap] : NULL;
    if (kept && kept->number == number)
        kept->status = status;
}

/* --- showing --------------------------------------------------------------------------------- */

static void write_counts(const struct mock_record *record, struct json_writer *writer) {
    json_key(writer, "counts");
    json_object(writer);
    size_t cursor = 0;
    struct str path;
    for (void *count; map_next(&record->counts, &cursor, &path, &count);) {
        json_key_str(writer, path);
        json_int(writer, (int64_t) * (uint64_t *)count);
    }
    json_object_end(writer);
}

void mock_record_write(const struct mock_record *record, size_t last, struct json_writer *writer) {
    write_counts(record, writer);
    size_t shown = record->seen < record->cap ? (size_t)record->seen : record->cap;
    if (shown > last)
        shown = last;
    json_key(writer, "last");
    json_array(writer);
    for (uint64_t number = record->seen - shown; number < record->seen; number++) {
        const struct mock_kept *kept = record->kept[number % record->cap];
        if (kept == NULL)
            continue; /* before a reset */
        json_object(writer);
        json_raw(writer, kept->json);
        json_kv_int(writer, "status", kept->status);
        json_object_end(writer);
    }
    json_array_end(writer);
}
