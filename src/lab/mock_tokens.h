/* Pseudo tokens: what a simulated worker takes for the tokens of a prompt, and the words it answers with.
 * A token is a blank-separated word, or 16 bytes of a longer one; its id is a hash. So equal text gives
 * equal tokens, and an answer that comes back as part of the next prompt gives the tokens that were
 * generated. Pure, in an arena. */
#pragma once

#include "proto/json.h"

struct mock_tokens {
    struct arena *arena;
    uint32_t *ids;
    size_t len, cap;
};

void mock_tokens_id(struct mock_tokens *tokens, uint32_t id);
/* A word that stands for itself, whatever its length ("<user>"). */
void mock_tokens_word(struct mock_tokens *tokens, struct str word);
void mock_tokens_text(struct mock_tokens *tokens, struct str text);
/* A JSON value as found in requests: a string, an array of token ids, or (nested at most 8 deep) an array
 * or object of content: members "text", "content", "image_url" and "url" count, others do not. */
void mock_tokens_value(struct mock_tokens *tokens, yyjson_val *value);
/* Chat messages: each with its role in front, and the mark at which the answer begins at the end. */
void mock_tokens_messages(struct mock_tokens *tokens, yyjson_val *messages);

/* An answer: its text, and where each token's part of it ends. */
struct mock_text {
    struct str text;
    uint32_t *ends; /* `count` of them */
    size_t count;
};
/* `count` (>= 1) words, the first being "served-by-<port>"; the others follow from the prompt, the seed
 * and the number of the answer. The tokens are added to `tokens`, which holds the prompt. */
struct mock_text mock_tokens_answer(struct mock_tokens *tokens, uint16_t port, uint64_t seed,
                                    size_t number, size_t count);
/* The part of the text that token `index` brought. */
struct str mock_text_piece(const struct mock_text *text, size_t index);
