/* Words are short and few, so generated text costs little; ids stay below a usual vocabulary size. */
#include "lab/mock_tokens.h"

#include "base/hash.h"
#include "base/rand.h"

enum { WORD_MAX = 16, VOCABULARY = 128000, NESTING_MAX = 8 };

static const char *const words[] = {"river", "stone",  "cloud", "maple", "ember", "north", "quiet",
                                    "field", "glass",  "amber", "cedar", "delta", "fable", "grove",
                                    "haven", "ivory",  "jolly", "knoll", "lemon", "mirth", "noble",
                                    "ocean", "pearl",  "quill", "raven", "solar", "tiger", "umber",
                                    "vivid", "willow", "xenon", "yarrow"};
#define WORDS (sizeof words / sizeof *words)

void mock_tokens_id(struct mock_tokens *tokens, uint32_t id) {
    if (tokens->len == tokens->cap) {
        size_t cap = tokens->cap ? tokens->cap * 2 : 64;
        uint32_t *ids = arena_alloc(tokens->arena, cap * sizeof *ids);
        if (tokens->len)
            memcpy(ids, tokens->ids, tokens->len * sizeof *ids);
        tokens->ids = ids;
        tokens->cap = cap;
    }
    tokens->ids[tokens->len++] = id;
}

void mock_tokens_word(struct mock_tokens *tokens, struct str word) {
    mock_tokens_id(tokens, (uint32_t)(hash_str(word) % VOCABULARY));
}

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

void mock_tokens_text(struct mock_tokens *tokens, struct str text) {
    size_t at = 0;
    while (at < text.len) {
        if (is_blank(text.ptr[at])) {
            at++;
            continue;
        }
        size_t start = at;
        while (at < text.len && at - start < WORD_MAX && !is_blank(text.ptr[at]))
            at++;
        mock_tokens_word(tokens, str_make(text.ptr + start, at - start));
    }
}

static void add_value(struct mock_tokens *tokens, yyjson_val *value, int depth);

static void add_object(struct mock_tokens *tokens, yyjson_val *object, int depth) {
    static const char *const members[] = {"text", "content", "image_url", "url"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        add_value(tokens, json_get(object, members[i]), depth);
}

static void add_array(struct mock_tokens *tokens, yyjson_val *array, int depth) {
    yyjson_arr_iter iter = yyjson_arr_iter_with(array);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;)
        add_value(tokens, item, depth);
}

static void add_value(struct mock_tokens *tokens, yyjson_val *value, int depth) {
    if (depth > NESTING_MAX)
        return;
    if (yyjson_is_str(value))
        mock_tokens_text(tokens, json_str(value));
    else if (yyjson_is_int(value))
        mock_tokens_id(tokens, (uint32_t)yyjson_get_uint(value));
    else if (yyjson_is_arr(value))
        add_array(tokens, value, depth + 1);
    else if (yyjson_is_obj(value))
        add_object(tokens, value, depth + 1);
}

void mock_tokens_value(struct mock_tokens *tokens, yyjson_val *value) {
    add_value(tokens, value, 0);
}

static void add_role(struct mock_tokens *tokens, struct str role) {
    mock_tokens_word(tokens, STR("<role>"));
    mock_tokens_word(tokens, role);
}

void mock_tokens_messages(struct mock_tokens *tokens, yyjson_val *messages) {
    yyjson_arr_iter iter = yyjson_arr_iter_with(messages);
    for (yyjson_val *message; (message = yyjson_arr_iter_next(&iter)) != NULL;) {
        add_role(tokens, json_get_str(message, "role", STR("user")));
        mock_tokens_value(tokens, json_get(message, "content"));
    }
    add_role(tokens, STR("assistant"));
}

static struct str word_at(struct arena *arena, struct rand_stream *rand, uint16_t port,
                          size_t index) {
    if (index == 0)
        return arena_printf(arena, "served-by-%u", port);
    return str_from(words[rand_stream_u64(rand) % WORDS]);
}

/* Room for "served-by-65535" and for a blank and the longest word each time after it. */
enum { FIRST_ROOM = 16, NEXT_ROOM = 8 };

struct mock_text mock_tokens_answer(struct mock_tokens *tokens, uint16_t port, uint64_t seed,
                                    size_t number, size_t count) {
    struct rand_stream rand;
    size_t bytes = tokens->len * sizeof *tokens->ids;
    rand_stream_init(&rand, hash_seeded(tokens->ids, bytes, seed ^ number));
    char *text = arena_alloc(tokens->arena, FIRST_ROOM + count * NEXT_ROOM);
    uint32_t *ends = arena_alloc(tokens->arena, count * sizeof *ends);
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        struct str word = word_at(tokens->arena, &rand, port, i);
        if (i > 0)
            text[len++] = ' ';
        memcpy(text + len, word.ptr, word.len);
        len += word.len;
        ends[i] = (uint32_t)len;
        mock_tokens_word(tokens, word);
    }
    return (struct mock_text){str_make(text, len), ends, count};
}

struct str mock_text_piece(const struct mock_text *text, size_t index) {
    size_t start = index > 0 ? text->ends[index - 1] : 0;
    return str_make(text->text.ptr + start, text->ends[index] - start);
}
