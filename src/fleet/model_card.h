/* What is known of a model that a worker serves (spec 02 section 1.3). A plain value; its texts
 * live in the memory of whoever made it. Nothing parks. */
#pragma once

#include "fleet/fields.h"

enum model_capability {
    MODEL_CHAT = 1 << 0,
    MODEL_COMPLETIONS = 1 << 1,
    MODEL_RESPONSES = 1 << 2,
    MODEL_EMBEDDINGS = 1 << 3,
    MODEL_RERANK = 1 << 4,
    MODEL_GENERATE = 1 << 5,
    MODEL_VISION = 1 << 6,
    MODEL_TOOLS = 1 << 7,
    MODEL_REASONING = 1 << 8,
};

struct model_card {
    struct str id;         /* NULL or empty: not known */
    uint32_t capabilities; /* enum model_capability; 0: not known */
    struct str display_name, hf_model_type, provider;
    struct str tokenizer_path, chat_template, reasoning_parser, tool_parser;
    struct text_list aliases, architectures;
    int64_t context_length, num_labels; /* FIELD_UNSET: not known */
    struct str metadata, id2label;      /* JSON text */
};

/* All fields but id and capabilities. */
extern const struct field_table model_card_fields;

struct model_card model_card_empty(void);
/* Reads one element of `models`; `prefix` names it in messages ("models[0]."). 0, or -EINVAL
 * with *fault. */
int model_card_read(struct arena *arena, yyjson_val *value, const char *prefix,
                    struct model_card *out, struct str *fault) MUST_CHECK;
struct model_card model_card_copy(struct arena *arena, const struct model_card *card);
/* Takes over what is set in `over`. */
void model_card_overlay(struct model_card *card, const struct model_card *over);
void model_card_write(struct json_writer *writer, const struct model_card *card);
/* Is the model called so, by id or alias? */
bool model_card_named(const struct model_card *card, struct str name);
