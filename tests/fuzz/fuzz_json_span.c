/* Any bytes: json_member_span never reads outside. When they are a JSON object, every member's span
 * holds the value that the parser finds, and putting the same bytes in its place changes nothing. */
#include "base/panic.h"
#include "proto/json.h"

static bool same(yyjson_val *a, yyjson_val *b) {
    size_t a_len, b_len;
    char *a_text = yyjson_val_write(a, 0, &a_len), *b_text = yyjson_val_write(b, 0, &b_len);
    bool equal = a_text && b_text && str_eq(str_make(a_text, a_len), str_make(b_text, b_len));
    free(a_text);
    free(b_text);
    return equal;
}

static void check_member(struct arena *arena, struct str text, yyjson_val *root, yyjson_val *key) {
    struct str name = json_str(key);
    if (str_find_char(name, '\0') >= 0)
        return; /* json_get takes C strings */
    size_t start, end;
    int err = json_member_span(text, name, &start, &end);
    assert_always(err == 0 && start < end && end <= text.len);
    yyjson_doc *value = json_parse(arena, str_make(text.ptr + start, end - start), NULL);
    assert_always(value != NULL && same(yyjson_doc_get_root(value), json_get(root, name.ptr)));
}

static void check_object(struct arena *arena, struct str text) {
    yyjson_doc *doc = json_parse(arena, text, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL, *key;
    if (!yyjson_is_obj(root) || yyjson_obj_size(root) > 64)
        return;
    yyjson_obj_iter iter = yyjson_obj_iter_with(root);
    while ((key = yyjson_obj_iter_next(&iter)) != NULL)
        check_member(arena, text, root, key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 1 << 16)
        return 0;
    struct str text = str_make((const char *)data, size);
    size_t start = 0, end = 0;
    if (json_member_span(text, STR("model"), &start, &end) == 0)
        assert_always(start < end && end <= size);
    struct arena *arena = arena_new();
    check_object(arena, text);
    arena_free(arena);
    return 0;
}
