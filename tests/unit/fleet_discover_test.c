#include "fleet/discover.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct arena *arena;
static struct discovery found;

static int setup(void **state) {
    (void)state;
    arena = arena_new();
    discovery_init(&found);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static bool feed(enum discover_source source, const char *body) {
    return discovery_read(arena, source, str_from(body), &found);
}

static bool has(const char *key, const char *value) {
    return str_eq(label(&found, key), str_from(value));
}

static void an_sglang_worker(void **state) {
    (void)state;
    assert_true(feed(FROM_SERVER_INFO,
                     "{\"model_path\":\"/m/llama\",\"served_model_name\":\"llama\",\"tp_size\":2,"
                     "\"dp_size\":1,\"version\":\"0.4.6\",\"max_total_tokens\":65536,"
                     "\"context_length\":null,\"internal_states\":[{}],\"is_embedding\":false}"));
    assert_true(feed(FROM_MODEL_INFO,
                     "{\"model_path\":\"/other\",\"tokenizer_path\":\"/t\",\"is_generation\":true,"
                     "\"has_image_understanding\":true,\"model_type\":\"llama\","
                     "\"architectures\":[\"LlamaForCausalLM\"]}"));
    assert_true(feed(FROM_MODELS,
                     "{\"object\":\"list\",\"data\":[{\"id\":\"llama-x\",\"root\":\"/r\","
                     "\"owned_by\":\"sglang\",\"max_model_len\":131072}]}"));
    discovery_finish(arena, &found);
    assert_true(has("model_path", "/m/llama")); /* the first one stays */
    assert_true(has("served_model_name", "llama"));
    assert_true(has("tp_size", "2"));
    assert_true(has("architectures", "[\"LlamaForCausalLM\"]"));
    assert_true(has("is_embedding", "false"));
    assert_null(find_label(&found, "context_length"));
    assert_true(str_eq(found.runtime, STR("sglang")));
    assert_int_equal(found.card.context_length, 131072);
    assert_true(found.card.capabilities & MODEL_CHAT);
    assert_true(found.card.capabilities & MODEL_VISION);
    assert_int_equal(found.card.architectures.count, 1);
    assert_true(str_eq(found.card.tokenizer_path, STR("/t")));
    assert_true(str_eq(found.card.hf_model_type, STR("llama")));
}

static void kinds_of_models(void **state) {
    (void)state;
    static const struct {
        const char *server_info, *model_info;
        uint32_t has, has_not;
    } cases[] = {
        {"{\"is_embedding\":true}", "{\"model_type\":\"bert\"}", MODEL_EMBEDDINGS, MODEL_CHAT},
        {"{\"version\":\"1\"}", "{\"is_generation\":false,\"architectures\":[\"XRerankerModel\"]}",
         MODEL_RERANK, MODEL_EMBEDDINGS},
        {"{\"is_embedding\":true}", "{\"model_type\":\"CrossEncoder\"}", MODEL_RERANK, MODEL_CHAT},
        {"{\"version\":\"1\"}", "{\"is_generation\":true}", MODEL_COMPLETIONS, MODEL_VISION},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        discovery_init(&found);
        assert_true(feed(FROM_SERVER_INFO, cases[i].server_info));
        assert_true(feed(FROM_MODEL_INFO, cases[i].model_info));
        discovery_finish(arena, &found);
        assert_int_equal(found.card.capabilities & cases[i].has, cases[i].has);
        assert_int_equal(found.card.capabilities & cases[i].has_not, 0);
    }
}

static void wrong_shapes_count_as_absent(void **state) {
    (void)state;
    static const struct {
        enum discover_source source;
        const char *body;
    } cases[] = {
        {FROM_SERVER_INFO, ""},
        {FROM_SERVER_INFO, "not found"},
        {FROM_SERVER_INFO, "[]"},
        {FROM_SERVER_INFO, "[{\"model_id\":\"m\"}]"},
        {FROM_SERVER_INFO, "7"},
        {FROM_SERVER_INFO, "{}"},
        {FROM_SERVER_INFO, "{\"detail\":\"Not Found\"}"},
        {FROM_MODEL_INFO, "{\"error\":{\"message\":\"x\"}}"},
        {FROM_MODELS, "{\"data\":7}"},
        {FROM_MODELS, "{\"data\":[7]}"},
        {FROM_MODELS, "{\"data\":[\"m\"]}"},
        {FROM_MODELS, "{\"models\":[]}"},
        {FROM_MODELS, "[{\"id\":\"m\"}]"},
        {FROM_VERSION, "\"1.0\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (feed(cases[i].source, cases[i].body))
            fail_msg("case %zu was taken", i);
    }
    assert_true(feed(FROM_MODELS, "{\"data\":[]}")); /* no models is an answer */
    assert_int_equal(found.label_count, 0);
    discovery_finish(arena, &found);
    assert_int_equal(found.card.capabilities, 0);
    assert_int_equal(found.card.context_length, FIELD_UNSET);
    assert_int_equal(found.runtime.len, 0);
}

static void odd_values_are_passed_over(void **state) {
    (void)state;
    char body[8192];
    assert_true(feed(FROM_SERVER_INFO,
                     "{\"model_id\":{\"a\":1},\"model_path\":\"\",\"version\":\"a\\u0000b\","
                     "\"tp_size\":[1,[2]],\"dp_size\":\"four\",\"context_length\":-5,"
                     "\"max_total_tokens\":\"999999999999999999999\",\"weight_version\":null}"));
    assert_null(find_label(&found, "model_id"));
    assert_null(find_label(&found, "model_path"));
    assert_null(find_label(&found, "version"));
    assert_null(find_label(&found, "weight_version"));
    assert_true(has("tp_size", "[1,[2]]"));
    size_t len = (size_t)snprintf(body, sizeof body, "{\"model_id\":\"");
    memset(body + len, 'x', 5000);
    snprintf(body + len + 5000, sizeof body - len - 5000, "\",\"version\":\"v\"}");
    discovery_init(&found);
    assert_true(feed(FROM_SERVER_INFO, body)); /* too long for a label */
    assert_null(find_label(&found, "model_id"));
    assert_true(has("version", "v"));
    discovery_finish(arena, &found);
    assert_int_equal(found.card.context_length, FIELD_UNSET);
}

static void architectures_that_are_none(void **state) {
    (void)state;
    assert_true(feed(FROM_MODEL_INFO, "{\"architectures\":\"LlamaForCausalLM\"}"));
    discovery_finish(arena, &found);
    assert_int_equal(found.card.architectures.count, 0);
    discovery_init(&found);
    assert_true(feed(FROM_MODEL_INFO, "{\"architectures\":[1,null,\"A\"]}"));
    discovery_finish(arena, &found);
    assert_int_equal(found.card.architectures.count, 1);
}

static void copies_stand_alone(void **state) {
    (void)state;
    struct discovery copy;
    assert_true(feed(FROM_MODEL_INFO, "{\"model_path\":\"/m\",\"architectures\":[\"A\",\"B\"]}"));
    discovery_finish(arena, &found);
    struct arena *other = arena_new();
    discovery_copy(other, &found, &copy);
    assert_true(discovery_same(&found, &copy));
    teardown(NULL);
    setup(NULL);
    assert_true(str_eq(label(&copy, "model_path"), STR("/m")));
    assert_true(str_eq(copy.card.architectures.items[1], STR("B")));
    assert_false(discovery_same(&found, &copy));
    arena_free(other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_sglang_worker),
        TEST(kinds_of_models),
        TEST(wrong_shapes_count_as_absent),
        TEST(odd_values_are_passed_over),
        TEST(architectures_that_are_none),
        TEST(copies_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
