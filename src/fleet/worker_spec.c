/* Most fields are rows of tables (fields.h); here are the tables, and the few fields that are
 * more than a range. Names of the flat generation are rows that point at the same member as the
 * nested ones and are read first, so that the nested name wins when a body has both. */
#include "fleet/worker_spec.h"

#include <errno.h>
#include <math.h>

#include "fleet/url_guard.h"

enum {
    LABELS_MAX = 64,
    LABEL_KEY_MAX = 256,
    LABEL_VALUE_MAX = 4096,
    MODELS_MAX = 64,
    KEY_MAX = 4096,
    CODES_MAX = 64,
};
#define SECS_MAX 86400
#define COUNT_MAX UINT32_MAX

#define AT(member) offsetof(struct worker_spec, member)
#define FLAT_HEALTH(key, member, min, max)                                                         \
    { #key, FIELD_INT, FIELD_HIDDEN, AT(health.member), min, max }
static const struct field legacy_rows[] = {
    FLAT_HEALTH(health_check_timeout_secs, timeout_secs, 1, SECS_MAX),
    FLAT_HEALTH(health_check_interval_secs, check_interval_secs, 1, SECS_MAX),
    FLAT_HEALTH(health_success_threshold, success_threshold, 1, COUNT_MAX),
    FLAT_HEALTH(health_failure_threshold, failure_threshold, 1, COUNT_MAX),
    {"disable_health_check", FIELD_BOOL, FIELD_HIDDEN, AT(health.disable_health_check), 0, 0},
    {"tokenizer_path", FIELD_TEXT, FIELD_HIDDEN, AT(flat.tokenizer_path), 0, 4096},
    {"reasoning_parser", FIELD_TEXT, FIELD_HIDDEN, AT(flat.reasoning_parser), 0, 64},
    {"tool_parser", FIELD_TEXT, FIELD_HIDDEN, AT(flat.tool_parser), 0, 64},
    {"chat_template", FIELD_TEXT, FIELD_HIDDEN, AT(flat.chat_template), 0, 262144},
    {"model_id", FIELD_TEXT, FIELD_HIDDEN, AT(flat.id), 0, 512},
};
static const struct field top_rows[] = {
    {"priority", FIELD_INT, FIELD_PATCH | FIELD_HIDDEN, AT(priority), 0, COUNT_MAX},
    {"cost", FIELD_NUMBER, FIELD_PATCH | FIELD_HIDDEN, AT(cost), 0, 1000000000},
    {"provider", FIELD_TEXT, 0, AT(provider), 0, 64},
    {"bootstrap_port", FIELD_INT, 0, AT(bootstrap_port), 1, 65535},
    {"max_connection_attempts", FIELD_INT, FIELD_HIDDEN, AT(max_connection_attempts), 1, 1000000},
    {"load_monitor_interval_secs", FIELD_INT, 0, AT(load_monitor_interval_secs), 1, SECS_MAX},
    {"dp_size", FIELD_INT, 0, AT(dp_size), 1, 65535},
    {"kv_connector", FIELD_TEXT, 0, AT(kv_connector), 0, 256},
    {"kv_role", FIELD_TEXT, 0, AT(kv_role), 0, 256},
    {"kv_engine_id", FIELD_TEXT, 0, AT(kv_engine_id), 0, 256},
    {"kv_block_size", FIELD_INT, 0, AT(kv_block_size), 1, COUNT_MAX},
    {"multimodal_tensor_transport", FIELD_TEXT, 0, AT(multimodal_tensor_transport), 0, 64},
    {"multimodal_shm_min_bytes", FIELD_INT, 0, AT(multimodal_shm_min_bytes), 0, INT64_MAX},
    {"zmq_handshake_address", FIELD_TEXT, 0, AT(zmq_handshake_address), 0, 1024},
    {"api_key", FIELD_TEXT, FIELD_PATCH | FIELD_HIDDEN, AT(api_key), 0, KEY_MAX},
};
static const struct field health_rows[] = {
    {"timeout_secs", FIELD_INT, FIELD_PATCH, AT(health.timeout_secs), 1, SECS_MAX},
    {"check_interval_secs", FIELD_INT, FIELD_PATCH, AT(health.check_interval_secs), 1, SECS_MAX},
    {"success_threshold", FIELD_INT, FIELD_PATCH, AT(health.success_threshold), 1, COUNT_MAX},
    {"failure_threshold", FIELD_INT, FIELD_PATCH, AT(health.failure_threshold), 1, COUNT_MAX},
    {"disable_health_check", FIELD_BOOL, FIELD_PATCH, AT(health.disable_health_check), 0, 0},
    {"drain_settle_secs", FIELD_INT, FIELD_PATCH, AT(health.drain_settle_secs), 0, SECS_MAX},
};
static const struct field pool_rows[] = {
    {"pool_max_idle_per_host", FIELD_INT, 0, AT(pool.pool_max_idle_per_host), 0, 65535},
    {"pool_idle_timeout_secs", FIELD_INT, 0, AT(pool.pool_idle_timeout_secs), 0, SECS_MAX},
    {"timeout_secs", FIELD_INT, 0, AT(pool.timeout_secs), 1, SECS_MAX},
    {"connect_timeout_secs", FIELD_INT, 0, AT(pool.connect_timeout_secs), 1, SECS_MAX},
};
static const struct field resilience_rows[] = {
    {"max_retries", FIELD_INT, 0, AT(resilience.max_retries), 1, 100},
    {"initial_backoff_ms", FIELD_INT, 0, AT(resilience.initial_backoff_ms), 1, 3600000},
    {"max_backoff_ms", FIELD_INT, 0, AT(resilience.max_backoff_ms), 1, 3600000},
    {"backoff_multiplier", FIELD_NUMBER, 0, AT(resilience.backoff_multiplier), 1, 1000},
    {"jitter_factor", FIELD_NUMBER, 0, AT(resilience.jitter_factor), 0, 1},
    {"disable_retry", FIELD_BOOL, 0, AT(resilience.disable_retry), 0, 0},
    {"cb_failure_threshold", FIELD_INT, 0, AT(resilience.cb_failure_threshold), 1, COUNT_MAX},
    {"cb_success_threshold", FIELD_INT, 0, AT(resilience.cb_success_threshold), 1, COUNT_MAX},
    {"cb_timeout_secs", FIELD_INT, 0, AT(resilience.cb_timeout_secs), 1, SECS_MAX},
    {"cb_window_secs", FIELD_INT, 0, AT(resilience.cb_window_secs), 1, SECS_MAX},
    {"disable_circuit_breaker", FIELD_BOOL, 0, AT(resilience.disable_circuit_breaker), 0, 0},
};
#define TABLE(prefix, rows)                                                                        \
    { prefix, rows, sizeof rows / sizeof *rows }
static const struct field_table legacy_table = TABLE("", legacy_rows);
static const struct field_table top_table = TABLE("", top_rows);
/* Nested objects: the member's name is the prefix without its dot. */
static const struct {
    const char *key;
    struct field_table table;
} nested[] = {
    {"health", TABLE("health.", health_rows)},
    {"http_pool", TABLE("http_pool.", pool_rows)},
    {"resilience", TABLE("resilience.", resilience_rows)},
};
enum { NESTED = sizeof nested / sizeof *nested };

/* Values of enumerations, with other spellings. A refusal stands where a later issue brings it. */
static const struct choice_row {
    struct str name;
    int value;
    const char *refusal;
} roles[] = {{STR_INIT("regular"), ROLE_REGULAR, NULL},
             {STR_INIT("prefill"), ROLE_PREFILL, NULL},
             {STR_INIT("decode"), ROLE_DECODE, NULL},
             {STR_INIT("encode"), ROLE_ENCODE, NULL},
             {.name = STR_INIT("")}},
  modes[] = {{STR_INIT("http"), MODE_HTTP, NULL},
             {STR_INIT("grpc"), 0, "gRPC workers come with a later issue (the gRPC issue)"},
             {STR_INIT("zmq"), 0, "zmq workers come with a later issue (the gRPC issue)"},
             {.name = STR_INIT("")}};
static const char *const runtimes[] = {"", "sglang", "vllm", "trtllm", "mlx", "tokenspeed"};
static const struct choice_row runtime_names[] = {
    {STR_INIT("unspecified"), 0, NULL},
    {STR_INIT("sglang"), 1, NULL},
    {STR_INIT("vllm"), 2, NULL},
    {STR_INIT("trtllm"), 3, NULL},
    {STR_INIT("tensorrt-llm"), 3, NULL},
    {STR_INIT("mlx"), 4, NULL},
    {STR_INIT("tokenspeed"), 5, NULL},
    {STR_INIT("external"), 0, "external workers come with a later issue"},
    {.name = STR_INIT("")}};
static const struct {
    struct str alias, name;
} providers[] = {{STR_INIT("grok"), STR_INIT("xai")},
                 {STR_INIT("claude"), STR_INIT("anthropic")},
                 {STR_INIT("google"), STR_INIT("gemini")}};

/* --- faults ---------------------------------------------------------------------------------- */

static int bad_json(struct spec_fault *fault, struct str message) {
    *fault = (struct spec_fault){SPEC_BAD_JSON, message};
    return -EINVAL;
}

static int bad_field(struct arena *arena, struct spec_fault *fault, const char *key,
                     const char *reason) {
    fault->kind = SPEC_BAD_FIELD;
    return field_fault(arena, &fault->message, "", key, reason);
}

/* --- single fields --------------------------------------------------------------------------- */

static yyjson_val *given(yyjson_val *object, const char *key) {
    yyjson_val *value = json_get(object, key);
    return value == NULL || yyjson_is_null(value) ? NULL : value;
}

static const char *choice_list(struct arena *arena, const struct choice_row *rows) {
    struct str list = STR("expected one of");
    for (const struct choice_row *row = rows; row->name.len > 0; row++)
        list = arena_printf(arena, "%.*s%s %.*s", STR_ARG(list), row == rows ? "" : ",",
                            STR_ARG(row->name));
    return list.ptr;
}

static int read_choice(struct arena *arena, yyjson_val *object, const char *key,
                       const struct choice_row *rows, int *out, struct spec_fault *fault) {
    yyjson_val *value = given(object, key);
    if (value == NULL)
        return 0;
    for (const struct choice_row *row = rows; row->name.len > 0; row++) {
        if (!str_ieq(json_str(value), row->name))
            continue;
        if (row->refusal != NULL) {
            int err = bad_field(arena, fault, key, row->refusal);
            fault->kind = SPEC_BAD_URL;
            return err;
        }
        *out = row->value;
        return 0;
    }
    return bad_field(arena, fault, key, choice_list(arena, rows));
}

static int read_enums(struct arena *arena, yyjson_val *object, struct worker_spec *out,
                      struct spec_fault *fault) {
    int role = ROLE_REGULAR, mode = MODE_HTTP, runtime = 0;
    int err = read_choice(arena, object, "worker_type", roles, &role, fault);
    if (!err)
        err = read_choice(arena, object, "connection_mode", modes, &mode, fault);
    if (!err)
        err = read_choice(arena, object, "runtime", runtime_names, &runtime, fault);
    if (!err)
        err = read_choice(arena, object, "runtime_type", runtime_names, &runtime, fault);
    out->role = (enum worker_role)role;
    out->runtime = str_from(runtimes[runtime]);
    return err;
}

static void add_label(struct worker_spec *spec, struct str key, struct str value) {
    for (size_t i = 0; i < spec->label_count; i++) {
        if (str_eq(spec->labels[i].key, key)) {
            spec->labels[i].value = value;
            return;
        }
    }
    spec->labels[spec->label_count++] = (struct worker_label){key, value};
}

static bool label_ok(struct str key, struct str value) {
    return key.len > 0 && value.ptr != NULL && field_text_ok(key, LABEL_KEY_MAX) &&
           field_text_ok(value, LABEL_VALUE_MAX);
}

/* Merges the labels of the body into those that stand in `out`. */
static int read_labels(struct arena *arena, yyjson_val *object, struct worker_spec *out,
                       struct spec_fault *fault) {
    static const char rule[] = "expected an object of strings: at most 64 labels, keys of 1 to 256 "
                               "bytes, values of at most 4096 bytes";
    yyjson_val *value = given(object, "labels");
    if (value == NULL)
        return 0;
    if (!yyjson_is_obj(value) || yyjson_obj_size(value) > LABELS_MAX)
        return bad_field(arena, fault, "labels", rule);
    struct worker_label *merged =
        arena_zalloc(arena, (out->label_count + yyjson_obj_size(value) + 1) * sizeof *merged);
    if (out->label_count > 0)
        memcpy(merged, out->labels, out->label_count * sizeof *merged);
    out->labels = merged;
    yyjson_obj_iter iter = yyjson_obj_iter_with(value);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter)) != NULL;) {
        struct str text = json_str(yyjson_obj_iter_get_val(key));
        if (!label_ok(json_str(key), text))
            return bad_field(arena, fault, "labels", rule);
        add_label(out, json_str(key), text);
    }
    if (out->label_count > LABELS_MAX)
        return bad_field(arena, fault, "labels", rule);
    return 0;
}
_Static_assert(LABELS_MAX == 64 && LABEL_KEY_MAX == 256 && LABEL_VALUE_MAX == 4096,
               "the message above names the limits");

static int read_models(struct arena *arena, yyjson_val *object, struct worker_spec *out,
                       struct spec_fault *fault) {
    yyjson_val *value = given(object, "models");
    if (value == NULL)
        return 0;
    if (!yyjson_is_arr(value) || yyjson_arr_size(value) > MODELS_MAX)
        return bad_field(arena, fault, "models", "expected an array of at most 64 model cards");
    out->models = arena_zalloc(arena, (yyjson_arr_size(value) + 1) * sizeof *out->models);
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL; out->model_count++) {
        struct str prefix = arena_printf(arena, "models[%zu].", out->model_count);
        fault->kind = SPEC_BAD_FIELD;
        int err = model_card_read(arena, item, prefix.ptr, &out->models[out->model_count],
                                  &fault->message);
        if (err)
            return err;
    }
    return 0;
}
_Static_assert(MODELS_MAX == 64, "the message above names the limit");

static int read_codes(struct arena *arena, yyjson_val *resilience, struct worker_spec *out,
                      struct spec_fault *fault) {
    static const char key[] = "resilience.retryable_status_codes";
    static const char rule[] = "expected an array of at most 64 status codes 100..599";
    yyjson_val *value = given(resilience, "retryable_status_codes");
    if (value == NULL)
        return 0;
    if (!yyjson_is_arr(value) || yyjson_arr_size(value) > CODES_MAX)
        return bad_field(arena, fault, key, rule);
    uint16_t *codes = arena_zalloc(arena, (yyjson_arr_size(value) + 1) * sizeof *codes);
    size_t count = 0;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;) {
        if (!yyjson_is_uint(item) || yyjson_get_uint(item) < 100 || yyjson_get_uint(item) > 599)
            return bad_field(arena, fault, key, rule);
        codes[count++] = (uint16_t)yyjson_get_uint(item);
    }
    out->resilience.retryable_status_codes = codes;
    out->resilience.retryable_status_code_count = count;
    return 0;
}
_Static_assert(CODES_MAX == 64, "the message above names the limit");

/* Only rows with all of `flags`. */
static int read_nested(struct arena *arena, yyjson_val *object, unsigned flags,
                       struct worker_spec *out, struct spec_fault *fault) {
    for (int i = 0; i < NESTED; i++) {
        yyjson_val *value = given(object, nested[i].key);
        if (value == NULL)
            continue;
        if (!yyjson_is_obj(value))
            return bad_field(arena, fault, nested[i].key, "expected an object");
        fault->kind = SPEC_BAD_FIELD;
        int err = fields_read(arena, &nested[i].table, value, flags, out, &fault->message);
        if (err)
            return err;
    }
    return flags ? 0 : read_codes(arena, given(object, "resilience"), out, fault);
}

bool worker_key_ok(struct str key) {
    for (size_t i = 0; i < key.len; i++) {
        if (key.ptr[i] <= ' ' || key.ptr[i] > '~')
            return false;
    }
    return key.len <= KEY_MAX;
}

static int check_key(struct arena *arena, struct worker_spec *spec, struct spec_fault *fault) {
    if (spec->api_key.len == 0)
        spec->api_key = STR_NONE;
    if (!worker_key_ok(spec->api_key))
        return bad_field(arena, fault, "api_key", "expected visible ASCII without blanks");
    return 0;
}

/* Things that only later issues can do are refused rather than dropped. */
static int refuse_later(struct arena *arena, yyjson_val *object, struct spec_fault *fault) {
    static const char reason[] = "data-parallel expansion comes with a later issue";
    if (yyjson_is_true(json_get(object, "dp_aware")))
        return bad_field(arena, fault, "dp_aware", reason);
    if (given(object, "dp_rank") != NULL)
        return bad_field(arena, fault, "dp_rank", reason);
    return 0;
}

static void name_provider(struct worker_spec *spec) {
    for (size_t i = 0; i < sizeof providers / sizeof *providers; i++) {
        if (str_ieq(spec->provider, providers[i].alias))
            spec->provider = providers[i].name;
    }
}

static int read_url(struct arena *arena, yyjson_val *object, struct worker_spec *out,
                    struct spec_fault *fault) {
    char text[URL_FAULT_MAX];
    yyjson_val *value = given(object, "url");
    if (value == NULL)
        return bad_field(arena, fault, "url", "missing: the worker's URL is required");
    if (!yyjson_is_str(value))
        return bad_field(arena, fault, "url", "expected a string of 1 to 2048 bytes");
    if (worker_url_check(json_str(value), NULL, text)) {
        *fault = (struct spec_fault){SPEC_BAD_URL, arena_dup(arena, str_from(text))};
        return -EINVAL;
    }
    out->url = worker_url_canonical(json_str(value));
    return 0;
}

/* --- whole bodies ---------------------------------------------------------------------------- */

static int read_body(struct arena *arena, struct str body, yyjson_val **object,
                     struct spec_fault *fault) {
    struct str error;
    if (body.len > WORKER_SPEC_MAX)
        return bad_json(fault, STR("the body is longer than 1048576 bytes"));
    yyjson_doc *doc = json_parse(arena, body, &error);
    if (doc == NULL)
        return bad_json(fault, arena_printf(arena, "JSON syntax error: %.*s", STR_ARG(error)));
    *object = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(*object))
        return bad_json(fault, STR("Invalid JSON data: expected an object"));
    return 0;
}
_Static_assert(WORKER_SPEC_MAX == 1048576, "the message above names the limit");

void worker_spec_init(struct worker_spec *spec, struct str url) {
    *spec = (struct worker_spec){.url = url, .role = ROLE_REGULAR, .runtime = STR("")};
    fields_clear(&legacy_table, spec);
    fields_clear(&top_table, spec);
    for (int i = 0; i < NESTED; i++)
        fields_clear(&nested[i].table, spec);
    spec->flat = model_card_empty();
}

static int read_tables(struct arena *arena, yyjson_val *object, struct worker_spec *out,
                       struct spec_fault *fault) {
    fault->kind = SPEC_BAD_FIELD;
    int err = fields_read(arena, &legacy_table, object, 0, out, &fault->message);
    if (!err)
        err = fields_read(arena, &top_table, object, 0, out, &fault->message);
    return err ? err : read_nested(arena, object, 0, out, fault);
}

int worker_spec_read(struct arena *arena, struct str body, struct worker_spec *out,
                     struct spec_fault *fault) {
    yyjson_val *object = NULL;
    worker_spec_init(out, STR(""));
    int err = read_body(arena, body, &object, fault);
    if (!err)
        err = read_url(arena, object, out, fault);
    if (!err)
        err = read_enums(arena, object, out, fault);
    if (!err)
        err = refuse_later(arena, object, fault);
    if (!err)
        err = read_tables(arena, object, out, fault);
    if (!err)
        err = read_labels(arena, object, out, fault);
    if (!err)
        err = read_models(arena, object, out, fault);
    name_provider(out);
    return err ? err : check_key(arena, out, fault);
}

int worker_spec_patch(struct arena *arena, const struct worker_spec *old, struct str body,
                      struct worker_spec *out, struct spec_fault *fault) {
    yyjson_val *object = NULL;
    worker_spec_copy(arena, old, out);
    int err = read_body(arena, body, &object, fault);
    if (err)
        return err;
    fault->kind = SPEC_BAD_FIELD;
    err = fields_read(arena, &top_table, object, FIELD_PATCH, out, &fault->message);
    if (!err)
        err = read_nested(arena, object, FIELD_PATCH, out, fault);
    if (!err)
        err = read_labels(arena, object, out, fault);
    return err ? err : check_key(arena, out, fault);
}

bool worker_spec_has_url(struct arena *arena, struct str body) {
    struct spec_fault fault;
    yyjson_val *object = NULL;
    return read_body(arena, body, &object, &fault) == 0 && given(object, "url") != NULL;
}

struct worker_label *worker_labels_copy(struct arena *arena, const struct worker_label *labels,
                                        size_t count) {
    struct worker_label *copy = arena_alloc(arena, (count + 1) * sizeof *copy);
    for (size_t i = 0; i < count; i++) {
        copy[i].key = arena_dup(arena, labels[i].key);
        copy[i].value = arena_dup(arena, labels[i].value);
    }
    return copy;
}

static void copy_codes(struct arena *arena, struct worker_resilience_spec *resilience) {
    size_t size = resilience->retryable_status_code_count * sizeof(uint16_t);
    if (resilience->retryable_status_codes == NULL)
        return;
    uint16_t *copy = arena_alloc(arena, size + sizeof *copy);
    memcpy(copy, resilience->retryable_status_codes, size);
    resilience->retryable_status_codes = copy;
}

void worker_spec_copy(struct arena *arena, const struct worker_spec *from, struct worker_spec *to) {
    *to = *from;
    to->url = arena_dup(arena, from->url);
    fields_copy(arena, &top_table, from, to);
    to->flat = model_card_copy(arena, &from->flat);
    to->labels = worker_labels_copy(arena, from->labels, from->label_count);
    to->models = arena_alloc(arena, (from->model_count + 1) * sizeof *to->models);
    for (size_t i = 0; i < from->model_count; i++)
        to->models[i] = model_card_copy(arena, &from->models[i]);
    copy_codes(arena, &to->resilience);
}

/* --- showing --------------------------------------------------------------------------------- */

static void write_codes(struct json_writer *writer, const struct worker_resilience_spec *spec) {
    json_key(writer, "retryable_status_codes");
    json_array(writer);
    for (size_t i = 0; i < spec->retryable_status_code_count; i++)
        json_int(writer, spec->retryable_status_codes[i]);
    json_array_end(writer);
}

static void write_nested(struct json_writer *writer, int i, const struct worker_spec *spec) {
    bool codes = i == NESTED - 1 && spec->resilience.retryable_status_codes != NULL;
    if (!codes && !fields_any(&nested[i].table, spec))
        return;
    json_key(writer, nested[i].key);
    json_object(writer);
    fields_write(writer, &nested[i].table, spec);
    if (codes)
        write_codes(writer, &spec->resilience);
    json_object_end(writer);
}

void worker_spec_write(struct json_writer *writer, const struct worker_spec *spec) {
    json_kv_int(writer, "priority",
                spec->priority == FIELD_UNSET ? WORKER_PRIORITY : spec->priority);
    json_kv_double(writer, "cost", isnan(spec->cost) ? WORKER_COST : spec->cost);
    json_kv_int(writer, "max_connection_attempts",
                spec->max_connection_attempts == FIELD_UNSET ? WORKER_CONNECTION_ATTEMPTS
                                                             : spec->max_connection_attempts);
    fields_write(writer, &top_table, spec);
    for (int i = 0; i < NESTED; i++)
        write_nested(writer, i, spec);
}

/* --- what holds ------------------------------------------------------------------------------ */

static int64_t or_else(int64_t own, int64_t gateway) { return own == FIELD_UNSET ? gateway : own; }

struct breaker_options worker_spec_breaker(const struct worker_spec *spec,
                                           const struct fleet_settings *settings) {
    const struct worker_resilience_spec *own = &spec->resilience;
    struct breaker_options options = settings->breaker;
    options.failure_threshold =
        (uint32_t)or_else(own->cb_failure_threshold, options.failure_threshold);
    options.success_threshold =
        (uint32_t)or_else(own->cb_success_threshold, options.success_threshold);
    if (own->cb_timeout_secs != FIELD_UNSET)
        options.timeout_ms = own->cb_timeout_secs * 1000;
    if (own->cb_window_secs != FIELD_UNSET)
        options.window_ms = own->cb_window_secs * 1000;
    if (own->disable_circuit_breaker >= 0)
        options.disabled = own->disable_circuit_breaker > 0;
    return options;
}

int64_t worker_spec_drain_ms(const struct worker_spec *spec,
                             const struct fleet_settings *settings) {
    return or_else(spec->health.drain_settle_secs, settings->drain_settle_s) * 1000;
}

bool worker_spec_unprobed(const struct worker_spec *spec, const struct fleet_settings *settings) {
    if (spec->health.disable_health_check >= 0)
        return spec->health.disable_health_check > 0;
    return settings->health.disabled;
}
