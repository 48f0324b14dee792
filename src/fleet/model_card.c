/* See model_card.h. Capabilities come as a list of names or as the bit field of the peers; the
 * names of the table are the bits in order. */
#include "fleet/model_card.h"

#include <errno.h>

enum { ID_MAX = 512, PATH_MAX_BYTES = 4096, TEMPLATE_MAX = 262144, METADATA_MAX = 65536 };

static const char *const capability_names[] = {"chat",       "completions", "responses",
                                               "embeddings", "rerank",      "generate",
                                               "vision",     "tools",       "reasoning"};
enum { CAPABILITIES = sizeof capability_names / sizeof *capability_names };

#define ROW(field, kind, max)                                                                      \
    { #field, kind, 0, offsetof(struct model_card, field), 0, max }
static const struct field rows[] = {
    ROW(display_name, FIELD_TEXT, ID_MAX),
    ROW(aliases, FIELD_TEXTS, 64),
    ROW(hf_model_type, FIELD_TEXT, ID_MAX),
    ROW(architectures, FIELD_TEXTS, 16),
    ROW(provider, FIELD_TEXT, 64),
    ROW(context_length, FIELD_INT, UINT32_MAX),
    ROW(tokenizer_path, FIELD_TEXT, PATH_MAX_BYTES),
    ROW(chat_template, FIELD_TEXT, TEMPLATE_MAX),
    ROW(reasoning_parser, FIELD_TEXT, 64),
    ROW(tool_parser, FIELD_TEXT, 64),
    ROW(metadata, FIELD_OBJECT, METADATA_MAX),
    ROW(id2label, FIELD_OBJECT, METADATA_MAX),
    ROW(num_labels, FIELD_INT, UINT32_MAX),
};
#undef ROW
const struct field_table model_card_fields = {"", rows, sizeof rows / sizeof *rows};

struct model_card model_card_empty(void) {
    struct model_card card = {.id = STR_NONE};
    fields_clear(&model_card_fields, &card);
    return card;
}

static int capability_find(struct str name) {
    for (int i = 0; i < CAPABILITIES; i++) {
        if (str_ieq(name, str_from(capability_names[i])))
            return i;
    }
    return -1;
}

/* Names that are not known are passed over: newer peers have more. */
static bool read_capabilities(yyjson_val *value, uint32_t *out) {
    if (yyjson_is_uint(value)) {
        *out = (uint32_t)(yyjson_get_uint(value) & ((1u << CAPABILITIES) - 1));
        return yyjson_get_uint(value) <= UINT16_MAX;
    }
    if (!yyjson_is_arr(value))
        return false;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;) {
        if (!yyjson_is_str(item))
            return false;
        int bit = capability_find(json_str(item));
        if (bit >= 0)
            *out |= 1u << bit;
    }
    return true;
}

int model_card_read(struct arena *arena, yyjson_val *value, const char *prefix,
                    struct model_card *out, struct str *fault) {
    *out = model_card_empty();
    if (!yyjson_is_obj(value))
        return field_fault(arena, fault, prefix, "id", "expected a model card (an object)");
    out->id = json_get_str(value, "id", STR_NONE);
    if (out->id.len == 0 || !field_text_ok(out->id, ID_MAX))
        return field_fault(arena, fault, prefix, "id",
                           "expected a string of 1 to 512 bytes, without NUL");
    yyjson_val *type = json_get(value, "model_type");
    if (type != NULL && !yyjson_is_null(type) && !read_capabilities(type, &out->capabilities))
        return field_fault(arena, fault, prefix, "model_type",
                           "expected an array of capability names, or a bit field 0..65535");
    struct field_table table = model_card_fields;
    table.prefix = prefix;
    return fields_read(arena, &table, value, 0, out, fault);
}
_Static_assert(ID_MAX == 512, "the message above names the limit");

struct model_card model_card_copy(struct arena *arena, const struct model_card *card) {
    struct model_card copy = *card;
    if (card->id.ptr != NULL)
        copy.id = arena_dup(arena, card->id);
    fields_copy(arena, &model_card_fields, card, &copy);
    return copy;
}

void model_card_overlay(struct model_card *card, const struct model_card *over) {
    if (over->id.len > 0)
        card->id = over->id;
    if (over->capabilities != 0)
        card->capabilities = over->capabilities;
    fields_overlay(&model_card_fields, over, card);
}

void model_card_write(struct json_writer *writer, const struct model_card *card) {
    json_object(writer);
    json_kv_str(writer, "id", card->id);
    if (card->capabilities != 0) {
        json_key(writer, "model_type");
        json_array(writer);
        for (int i = 0; i < CAPABILITIES; i++) {
            if (card->capabilities & (1u << i))
                json_string(writer, str_from(capability_names[i]));
        }
        json_array_end(writer);
    }
    fields_write(writer, &model_card_fields, card);
    json_object_end(writer);
}

bool model_card_named(const struct model_card *card, struct str name) {
    if (str_eq(card->id, name))
        return true;
    for (size_t i = 0; i < card->aliases.count; i++) {
        if (str_eq(card->aliases.items[i], name))
            return true;
    }
    return false;
}
