/* The rules of which JSON member becomes which label are a table; reading is pure, so it is
 * tested with hostile bodies and no socket. The endpoints are asked in parallel, each fiber with
 * an arena of its own. */
#include "fleet/discover.h"

#include <errno.h>

#include "base/log.h"

enum { VALUE_MAX = 4096, BODY_MAX = 4 << 20, LABEL_CAPACITY = 48 };

/* --- from JSON to labels --------------------------------------------------------------------- */

/* Later rows with the same label fill it only if it is still absent. `source` FROM_MODELS reads
 * data[0]. */
static const struct {
    enum discover_source source;
    const char *key, *label;
} rules[] = {
    {FROM_SERVER_INFO, "model_id", "model_id"},
    {FROM_SERVER_INFO, "model", "model_id"},
    {FROM_SERVER_INFO, "model_path", "model_path"},
    {FROM_SERVER_INFO, "served_model_name", "served_model_name"},
    {FROM_SERVER_INFO, "tp_size", "tp_size"},
    {FROM_SERVER_INFO, "dp_size", "dp_size"},
    {FROM_SERVER_INFO, "pp_size", "pp_size"},
    {FROM_SERVER_INFO, "load_balance_method", "load_balance_method"},
    {FROM_SERVER_INFO, "disaggregation_mode", "disaggregation_mode"},
    {FROM_SERVER_INFO, "version", "version"},
    {FROM_SERVER_INFO, "is_embedding", "is_embedding"},
    {FROM_SERVER_INFO, "context_length", "context_length"},
    {FROM_SERVER_INFO, "max_total_tokens", "max_total_tokens"},
    {FROM_SERVER_INFO, "max_running_requests", "max_running_requests"},
    {FROM_SERVER_INFO, "weight_version", "weight_version"},
    {FROM_SERVER_INFO, "tokenizer_path", "tokenizer_path"},
    {FROM_MODEL_INFO, "model_id", "model_id"},
    {FROM_MODEL_INFO, "model", "model_id"},
    {FROM_MODEL_INFO, "model_path", "model_path"},
    {FROM_MODEL_INFO, "served_model_name", "served_model_name"},
    {FROM_MODEL_INFO, "tokenizer_path", "tokenizer_path"},
    {FROM_MODEL_INFO, "is_generation", "is_generation"},
    {FROM_MODEL_INFO, "has_image_understanding", "has_image_understanding"},
    {FROM_MODEL_INFO, "has_audio_understanding", "has_audio_understanding"},
    {FROM_MODEL_INFO, "supports_vision", "supports_vision"},
    {FROM_MODEL_INFO, "model_type", "model_type"},
    {FROM_MODEL_INFO, "architectures", "architectures"},
    {FROM_MODEL_INFO, "weight_version", "weight_version"},
    {FROM_MODELS, "id", "served_model_name"},
    {FROM_MODELS, "root", "model_path"},
    {FROM_MODELS, "max_model_len", "max_model_len"},
    {FROM_MODELS, "owned_by", "owned_by"},
    {FROM_VERSION, "version", "version"},
};

static const struct str *find_label(const struct discovery *found, const char *key) {
    for (size_t i = 0; i < found->label_count; i++) {
        if (str_eq(found->labels[i].key, str_from(key)))
            return &found->labels[i].value;
    }
    return NULL;
}

static struct str label(const struct discovery *found, const char *key) {
    const struct str *value = find_label(found, key);
    return value ? *value : STR("");
}

static bool label_true(const struct discovery *found, const char *key) {
    return str_eq(label(found, key), STR("true"));
}

/* Text of a scalar, or of an array of scalars as JSON; ptr NULL for anything else and for what
 * is empty. */
static struct str value_text(struct arena *arena, yyjson_val *value) {
    if (yyjson_is_str(value)) {
        struct str text = json_str(value);
        return text.len > 0 && field_text_ok(text, VALUE_MAX) ? text : STR_NONE;
    }
    if (yyjson_is_bool(value))
        return yyjson_is_true(value) ? STR("true") : STR("false");
    if (!yyjson_is_num(value) && !yyjson_is_arr(value))
        return STR_NONE;
    struct json_writer writer;
    json_writer_init(&writer, VALUE_MAX);
    json_value(&writer, value);
    return json_writer_end(&writer, arena);
}

static void take_label(struct arena *arena, struct discovery *found, const char *key,
                       yyjson_val *value) {
    struct str text = value_text(arena, value);
    if (text.ptr == NULL || find_label(found, key) != NULL || found->label_count == LABEL_CAPACITY)
        return;
    if (found->labels == NULL)
        found->labels = arena_zalloc(arena, LABEL_CAPACITY * sizeof *found->labels);
    found->labels[found->label_count++] =
        (struct worker_label){str_from(key), arena_dup(arena, text)};
}

/* The object that the rules of a source look into; NULL when the shape is wrong. /v1/models may
 * list nothing, which is no fault. */
static yyjson_val *subject(enum discover_source source, yyjson_val *root, bool *empty) {
    if (source != FROM_MODELS)
        return yyjson_is_obj(root) ? root : NULL;
    yyjson_val *data = json_get(root, "data");
    *empty = yyjson_is_arr(data) && yyjson_arr_size(data) == 0;
    yyjson_val *first = yyjson_arr_get_first(data);
    return yyjson_is_obj(first) ? first : NULL;
}

static bool source_known(enum discover_source source, yyjson_val *object) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].source == source && json_get(object, rules[i].key) != NULL)
            return true;
    }
    return false;
}

bool discovery_read(struct arena *arena, enum discover_source source, struct str body,
                    struct discovery *found) {
    bool empty = false;
    yyjson_doc *doc = json_parse(arena, body, NULL);
    yyjson_val *object = doc ? subject(source, yyjson_doc_get_root(doc), &empty) : NULL;
    if (object == NULL)
        return empty;
    if (!source_known(source, object))
        return false;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].source == source)
            take_label(arena, found, rules[i].label, json_get(object, rules[i].key));
    }
    return true;
}

/* --- from labels to runtime and card --------------------------------------------------------- */

static const struct {
    struct str owner, runtime;
} owners[] = {{STR_INIT("sglang"), STR_INIT("sglang")},
              {STR_INIT("nvidia"), STR_INIT("sglang")},
              {STR_INIT("vllm"), STR_INIT("vllm")},
              {STR_INIT("trtllm"), STR_INIT("trtllm")}};

static struct str owner_runtime(const struct discovery *found) {
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++) {
        if (str_ieq(label(found, "owned_by"), owners[i].owner))
            return owners[i].runtime;
    }
    return STR("");
}

static int64_t first_number(const struct discovery *found, const char *const *keys) {
    for (; *keys != NULL; keys++) {
        int64_t number;
        if (str_to_i64(label(found, *keys), &number) == 0 && number > 0)
            return number;
    }
    return FIELD_UNSET;
}

static bool mentions(struct str text, const char *word) {
    struct str needle = str_from(word);
    for (size_t i = 0; i + needle.len <= text.len; i++) {
        if (str_ieq(str_make(text.ptr + i, needle.len), needle))
            return true;
    }
    return false;
}

static bool is_reranker(const struct discovery *found) {
    static const char *const words[] = {"rerank", "crossencoder", "cross_encoder"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (mentions(label(found, "architectures"), words[i]) ||
            mentions(label(found, "model_type"), words[i]))
            return true;
    }
    return false;
}

static uint32_t capabilities(const struct discovery *found) {
    bool embedding =
        label_true(found, "is_embedding") || str_eq(label(found, "is_generation"), STR("false"));
    if (embedding)
        return is_reranker(found) ? MODEL_RERANK : MODEL_EMBEDDINGS;
    uint32_t bits = MODEL_CHAT | MODEL_COMPLETIONS | MODEL_RESPONSES | MODEL_GENERATE | MODEL_TOOLS;
    if (label_true(found, "supports_vision") || label_true(found, "has_image_understanding"))
        bits |= MODEL_VISION;
    return bits;
}

static struct text_list architectures(struct arena *arena, const struct discovery *found) {
    struct text_list list = {NULL, 0};
    yyjson_doc *doc = json_parse(arena, label(found, "architectures"), NULL);
    yyjson_val *array = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_arr(array))
        return list;
    list.items = arena_zalloc(arena, (yyjson_arr_size(array) + 1) * sizeof *list.items);
    yyjson_arr_iter iter = yyjson_arr_iter_with(array);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;) {
        if (yyjson_is_str(item))
            list.items[list.count++] = json_str(item);
    }
    return list;
}

void discovery_init(struct discovery *found) {
    *found = (struct discovery){.runtime = STR(""), .card = model_card_empty()};
}

void discovery_finish(struct arena *arena, struct discovery *found) {
    static const char *const lengths[] = {"context_length",   "max_context_length", "max_model_len",
                                          "max_total_tokens", "max_seq_len",        NULL};
    if (found->label_count == 0)
        return;
    struct str tokenizer = label(found, "tokenizer_path"), type = label(found, "model_type");
    found->card.context_length = first_number(found, lengths);
    found->card.capabilities = capabilities(found);
    found->card.architectures = architectures(arena, found);
    if (tokenizer.len > 0)
        found->card.tokenizer_path = tokenizer;
    if (type.len > 0)
        found->card.hf_model_type = type;
    if (found->runtime.len == 0)
        found->runtime = owner_runtime(found);
}

bool discovery_same(const struct discovery *a, const struct discovery *b) {
    if (a->label_count != b->label_count || !str_eq(a->runtime, b->runtime))
        return false;
    for (size_t i = 0; i < a->label_count; i++) {
        if (!str_eq(a->labels[i].key, b->labels[i].key) ||
            !str_eq(a->labels[i].value, b->labels[i].value))
            return false;
    }
    return true;
}

void discovery_copy(struct arena *arena, const struct discovery *from, struct discovery *to) {
    *to = *from;
    to->labels = worker_labels_copy(arena, from->labels, from->label_count);
    to->card = model_card_copy(arena, &from->card);
}

/* --- asking ---------------------------------------------------------------------------------- */

/* Two names of each endpoint: the second is asked when the first is not found. */
static const struct {
    struct str target, old_target;
} endpoints[SOURCE_COUNT] = {
    [FROM_SERVER_INFO] = {STR_INIT("/server_info"), STR_INIT("/get_server_info")},
    [FROM_MODEL_INFO] = {STR_INIT("/model_info"), STR_INIT("/get_model_info")},
    [FROM_MODELS] = {STR_INIT("/v1/models"), STR_INIT("")},
    [FROM_VERSION] = {STR_INIT("/version"), STR_INIT("")},
};

/* One endpoint being asked; `status` is the HTTP status or a negative errno. */
struct question {
    enum discover_source source;
    struct arena *arena;
    struct http_peer *peer;
    struct str base_path, auth_line, body;
    deadline_ms deadline;
    int status;
};

static FIBER_FN void ask_target(struct question *question, struct str target) {
    struct http_fetch fetch = {
        .method = STR("GET"),
        .target = arena_printf(question->arena, "%.*s%.*s", STR_ARG(question->base_path),
                               STR_ARG(target)),
        .head = question->auth_line,
        .max_body = BODY_MAX,
        .deadline = question->deadline,
    };
    question->status = http_fetch(question->arena, question->peer, &fetch, &question->body, NULL);
}

static FIBER_FN void ask(void *arg) {
    struct question *question = arg;
    struct str old = endpoints[question->source].old_target;
    ask_target(question, endpoints[question->source].target);
    if (question->status == 404 && old.len > 0)
        ask_target(question, old);
}

static bool answered(const struct question *question) {
    return question->status >= 200 && question->status < 300;
}

static void take_answer(struct arena *arena, const struct question *question, struct str url,
                        discover_faults *faults, struct discovery *out) {
    discover_faults bit = 1u << question->source;
    if (!answered(question) || discovery_read(arena, question->source, question->body, out))
        return;
    if (!(*faults & bit))
        log_warn("fleet", "the worker's answer has an unexpected shape and is passed over",
                 F_STR("worker", url), F_STR("endpoint", endpoints[question->source].target));
    *faults |= bit;
}

static FIBER_FN int ask_all(struct question *questions, size_t count) {
    struct fiber_group group;
    fiber_group_init(&group);
    for (size_t i = 0; i < count; i++)
        fiber_group_spawn(&group, ask, &questions[i]);
    return fiber_group_join(&group);
}

static bool all_unreached(const struct question *questions, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (questions[i].status > 0)
            return false;
    }
    return true;
}

/* The last resort to tell a runtime: vLLM has /version, SGLang has /server_info. */
static FIBER_FN int tell_runtime(struct arena *arena, struct question *question, bool server_info,
                                 struct str url, discover_faults *faults, struct discovery *out) {
    if (out->runtime.len > 0)
        return 0;
    if (server_info) {
        out->runtime = STR("sglang");
        return 0;
    }
    int err = ask_all(question, 1);
    take_answer(arena, question, url, faults, out);
    out->runtime = answered(question) ? STR("vllm") : STR("sglang");
    return err;
}

FIBER_FN int discover_worker(struct arena *arena, struct http_peer *peer, struct str base_path,
                             struct str auth_line, struct str url, deadline_ms deadline,
                             discover_faults *faults, struct discovery *out) {
    struct question questions[SOURCE_COUNT];
    discovery_init(out);
    for (int i = 0; i < SOURCE_COUNT; i++)
        questions[i] = (struct question){.source = (enum discover_source)i,
                                         .arena = arena_new(),
                                         .peer = peer,
                                         .base_path = base_path,
                                         .auth_line = auth_line,
                                         .deadline = deadline,
                                         .status = -EHOSTUNREACH};
    int err = ask_all(questions, FROM_VERSION);
    for (int i = 0; i < FROM_VERSION; i++)
        take_answer(arena, &questions[i], url, faults, out);
    discovery_finish(arena, out);
    bool unreached = all_unreached(questions, FROM_VERSION);
    if (!err && !unreached) {
        err = tell_runtime(arena, &questions[FROM_VERSION], answered(&questions[FROM_SERVER_INFO]),
                           url, faults, out);
    }
    for (int i = 0; i < SOURCE_COUNT; i++)
        arena_free(questions[i].arena);
    return err ? err : unreached ? -EHOSTUNREACH : 0;
}
