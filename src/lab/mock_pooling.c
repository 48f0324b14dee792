/* Endpoints that give numbers for texts: embeddings, rerank, classify. The numbers follow from the
 * tokens, so the same text always gets the same ones, from whichever worker. */
#include "lab/mock_formats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/hash.h"
#include "lab/mock_job.h"

static struct rand_stream dice_for(const struct mock_tokens *tokens) {
    struct rand_stream dice;
    rand_stream_init(&dice, hash_bytes(tokens->ids, tokens->len * sizeof *tokens->ids));
    return dice;
}

static int read_input(struct mock_job *job) {
    if (mock_job_prompts(job, json_get(job->call->root, "input")))
        return mock_job_refuse(job, STR("input must be a string, token ids, or a list of them"));
    return 0;
}

/* --- embeddings ------------------------------------------------------------------------------ */

enum { DIMENSIONS = 16, DIMENSIONS_MAX = 8192 };

static int embeddings_read(struct mock_job *job) {
    int64_t *dimensions = arena_alloc(job->call->arena, sizeof *dimensions);
    *dimensions = json_get_int(job->call->root, "dimensions", DIMENSIONS);
    if (*dimensions < 1 || *dimensions > DIMENSIONS_MAX)
        return mock_job_refuse(job, STR("dimensions must be from 1 to 8192"));
    job->extra = dimensions;
    return read_input(job);
}

/* A vector of length 1. */
static float *embed(struct mock_job *job, const struct mock_tokens *tokens, size_t dimensions) {
    float *vector = arena_alloc(job->call->arena, dimensions * sizeof *vector);
    struct rand_stream dice = dice_for(tokens);
    double squares = 0;
    for (size_t i = 0; i < dimensions; i++) {
        vector[i] = (float)(rand_stream_unit(&dice) * 2 - 1);
        squares += (double)vector[i] * vector[i];
    }
    float scale = squares > 0 ? (float)(1 / sqrt(squares)) : 0;
    for (size_t i = 0; i < dimensions; i++)
        vector[i] *= scale;
    return vector;
}

static void write_vector(struct mock_job *job, struct json_writer *out, const float *vector,
                         size_t dimensions) {
    struct str format = json_get_str(job->call->root, "encoding_format", STR("float"));
    json_key(out, "embedding");
    if (str_eq(format, STR("base64"))) {
        struct str bytes = str_make((const char *)vector, dimensions * sizeof *vector);
        char *text = arena_alloc(job->call->arena, base64_encoded_len(bytes.len));
        json_string(out, str_make(text, base64_encode(bytes, text)));
        return;
    }
    json_array(out);
    for (size_t i = 0; i < dimensions; i++)
        json_double(out, vector[i]);
    json_array_end(out);
}

static void write_input_usage(const struct mock_job *job, struct json_writer *out) {
    int64_t tokens = (int64_t)job->stay.ticket.prompt_tokens;
    json_key(out, "usage");
    json_object(out);
    json_kv_int(out, "prompt_tokens", tokens);
    json_kv_int(out, "total_tokens", tokens);
    json_kv_int(out, "completion_tokens", 0);
    json_object_end(out);
}

static void embeddings_write(struct mock_job *job, struct json_writer *out) {
    size_t dimensions = (size_t) * (const int64_t *)job->extra;
    json_object(out);
    json_kv_str(out, "object", STR("list"));
    json_key(out, "data");
    json_array(out);
    for (size_t i = 0; i < job->prompt_count; i++) {
        json_object(out);
        json_kv_str(out, "object", STR("embedding"));
        json_kv_int(out, "index", (int64_t)i);
        write_vector(job, out, embed(job, &job->prompts[i], dimensions), dimensions);
        json_object_end(out);
    }
    json_array_end(out);
    json_kv_str(out, "model", job->model);
    write_input_usage(job, out);
    json_object_end(out);
}

FIBER_FN void mock_embeddings(struct mock_call *call) {
    static const struct mock_format format = {
        "embd-", embeddings_read, embeddings_write, NULL, NULL, NULL};
    mock_job_run(call, &format);
}

/* --- classify -------------------------------------------------------------------------------- */

enum { CLASSES = 2 };

static void write_class(struct json_writer *out, const struct mock_tokens *tokens, size_t index) {
    struct rand_stream dice = dice_for(tokens);
    double first = rand_stream_unit(&dice);
    json_object(out);
    json_kv_int(out, "index", (int64_t)index);
    json_kv_str(out, "label", first >= 0.5 ? STR("LABEL_0") : STR("LABEL_1"));
    json_key(out, "probs");
    json_array(out);
    json_double(out, first);
    json_double(out, 1 - first);
    json_array_end(out);
    json_kv_int(out, "num_classes", CLASSES);
    json_object_end(out);
}

static void classify_write(struct mock_job *job, struct json_writer *out) {
    json_object(out);
    json_kv_str(out, "id", job->id);
    json_kv_str(out, "object", STR("list"));
    json_kv_int(out, "created", job->created);
    json_kv_str(out, "model", job->model);
    json_key(out, "data");
    json_array(out);
    for (size_t i = 0; i < job->prompt_count; i++)
        write_class(out, &job->prompts[i], i);
    json_array_end(out);
    write_input_usage(job, out);
    json_object_end(out);
}

FIBER_FN void mock_classify(struct mock_call *call) {
    static const struct mock_format format = {"classify-", read_input, classify_write,
                                              NULL,        NULL,       NULL};
    mock_job_run(call, &format);
}

/* --- rerank ---------------------------------------------------------------------------------- */

struct ranked {
    double score;
    size_t index;
    struct str document;
};

static int rerank_read(struct mock_job *job) {
    yyjson_val *root = job->call->root, *documents = json_get(root, "documents");
    struct str query = json_str(json_get(root, "query"));
    if (query.ptr == NULL)
        return mock_job_refuse(job, STR("query must be a string"));
    if (!yyjson_is_arr(documents) || yyjson_arr_size(documents) == 0)
        return mock_job_refuse(job, STR("documents must be a list that is not empty"));
    struct ranked *all = arena_zalloc(job->call->arena, yyjson_arr_size(documents) * sizeof *all);
    job->extra = all;
    yyjson_arr_iter iter = yyjson_arr_iter_with(documents);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL; all++) {
        struct mock_tokens *prompt = mock_job_prompt(job);
        mock_tokens_text(prompt, query);
        mock_tokens_value(prompt, item);
        struct rand_stream dice = dice_for(prompt);
        all->score = rand_stream_unit(&dice);
        all->index = job->prompt_count - 1;
        all->document = json_get_str(item, "text", yyjson_is_str(item) ? json_str(item) : STR(""));
    }
    return 0;
}

static int by_score(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void write_ranked(const struct mock_job *job, struct json_writer *out,
                         const struct ranked *item) {
    json_object(out);
    json_kv_double(out, "score", item->score);
    if (json_get_bool(job->call->root, "return_documents", true))
        json_kv_str(out, "document", item->document);
    json_kv_int(out, "index", (int64_t)item->index);
    json_key(out, "meta_info");
    json_object(out);
    json_kv_str(out, "id",
                arena_printf(job->call->arena, "%.*s-%zu", STR_ARG(job->id), item->index));
    json_kv_int(out, "prompt_tokens", (int64_t)job->prompts[item->index].len);
    json_object_end(out);
    json_object_end(out);
}

static void rerank_write(struct mock_job *job, struct json_writer *out) {
    struct ranked *all = job->extra;
    qsort(all, job->prompt_count, sizeof *all, by_score);
    int64_t top = json_get_int(job->call->root, "top_n", (int64_t)job->prompt_count);
    json_array(out);
    for (size_t i = 0; i < job->prompt_count && (int64_t)i < top; i++)
        write_ranked(job, out, &all[i]);
    json_array_end(out);
}

FIBER_FN void mock_rerank(struct mock_call *call) {
    static const struct mock_format format = {"rerank-", rerank_read, rerank_write,
                                              NULL,      NULL,        NULL};
    mock_job_run(call, &format);
}
