#include "fleet/worker_spec.c"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct arena *arena;
static struct worker_spec spec;
static struct spec_fault fault;

static int setup(void **state) {
    (void)state;
    arena = arena_new();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static int read_spec(const char *body) {
    fault = (struct spec_fault){0};
    return worker_spec_read(arena, str_from(body), &spec, &fault);
}

static void good(const char *body) {
    if (read_spec(body))
        fail_msg("refused: %s: %.*s", body, STR_ARG(fault.message));
}

static bool says(const char *words) { return str_find(fault.message, str_from(words)) >= 0; }

static void bad(const char *body, int kind, const char *words) {
    if (read_spec(body) != -EINVAL)
        fail_msg("accepted: %s", body);
    if ((int)fault.kind != kind || !says(words))
        fail_msg("%s: kind %d: %.*s", body, (int)fault.kind, STR_ARG(fault.message));
}

#define EQ(text, lit) assert_true(str_eq(text, STR(lit)))

static void a_url_is_enough(void **state) {
    (void)state;
    good("{\"url\":\"http://w:8000/\"}");
    EQ(spec.url, "http://w:8000");
    assert_int_equal(spec.role, ROLE_REGULAR);
    assert_int_equal(spec.priority, FIELD_UNSET);
    assert_true(isnan(spec.cost));
    assert_null(spec.api_key.ptr);
    assert_int_equal(spec.label_count, 0);
    assert_int_equal(spec.model_count, 0);
    assert_int_equal(spec.health.disable_health_check, -1);
}

static void both_generations_are_read(void **state) {
    (void)state;
    good("{\"url\":\"http://w\",\"model_id\":\"m\",\"runtime\":\"vllm\",\"tool_parser\":\"t\","
         "\"health_check_timeout_secs\":7,\"health_success_threshold\":9,"
         "\"disable_health_check\":true,\"worker_type\":\"prefill\",\"bootstrap_port\":9001,"
         "\"cost\":2,\"priority\":0,\"labels\":{\"a\":\"b\"},\"unknown\":[1,2]}");
    EQ(spec.flat.id, "m");
    EQ(spec.flat.tool_parser, "t");
    EQ(spec.runtime, "vllm");
    assert_int_equal(spec.health.timeout_secs, 7);
    assert_int_equal(spec.health.success_threshold, 9);
    assert_int_equal(spec.health.disable_health_check, 1);
    assert_int_equal(spec.role, ROLE_PREFILL);
    assert_int_equal(spec.bootstrap_port, 9001);
    assert_true(spec.cost == 2.0);
    assert_int_equal(spec.priority, 0);
    EQ(spec.labels[0].value, "b");
    good("{\"url\":\"http://w\",\"runtime_type\":\"TensorRT-LLM\",\"provider\":\"Claude\","
         "\"health\":{\"timeout_secs\":3},\"health_check_timeout_secs\":7,"
         "\"models\":[{\"id\":\"m\",\"aliases\":[\"x\"],\"model_type\":[\"chat\",\"vision\","
         "\"new\"],"
         "\"context_length\":4096,\"metadata\":{\"k\":[1,null,true]}},{\"id\":\"n\",\"model_type\":"
         "33}],"
         "\"http_pool\":{\"pool_max_idle_per_host\":0},"
         "\"resilience\":{\"max_retries\":3,\"jitter_factor\":0.5,\"disable_retry\":false,"
         "\"retryable_status_codes\":[429,503]}}");
    EQ(spec.runtime, "trtllm");
    EQ(spec.provider, "anthropic");
    assert_int_equal(spec.health.timeout_secs, 3); /* the nested name wins */
    assert_int_equal(spec.model_count, 2);
    assert_int_equal(spec.models[0].capabilities, MODEL_CHAT | MODEL_VISION);
    assert_int_equal(spec.models[1].capabilities, MODEL_CHAT | MODEL_GENERATE);
    EQ(spec.models[0].metadata, "{\"k\":[1,null,true]}");
    assert_int_equal(spec.pool.pool_max_idle_per_host, 0);
    assert_int_equal(spec.resilience.retryable_status_code_count, 2);
    assert_int_equal(spec.resilience.disable_retry, 0);
}

static void null_is_absent(void **state) {
    (void)state;
    good("{\"url\":\"http://w\",\"priority\":null,\"labels\":null,\"models\":null,\"health\":null,"
         "\"api_key\":null,\"worker_type\":null,\"resilience\":{\"max_retries\":null}}");
    assert_int_equal(spec.priority, FIELD_UNSET);
}

static void faults_name_the_field_and_the_limit(void **state) {
    (void)state;
    static const struct {
        const char *member, *words[2];
    } cases[] = {
        {"\"priority\":-1", {"priority: ", "0..4294967295"}},
        {"\"priority\":4294967296", {"priority: ", "0..4294967295"}},
        {"\"priority\":1.5", {"priority: ", "whole number"}},
        {"\"priority\":\"5\"", {"priority: ", "whole number"}},
        {"\"priority\":1e300", {"priority: ", "whole number"}},
        {"\"cost\":-0.1", {"cost: ", "number 0.."}},
        {"\"cost\":\"x\"", {"cost: ", "number"}},
        {"\"bootstrap_port\":0", {"bootstrap_port: ", "1..65535"}},
        {"\"bootstrap_port\":65536", {"bootstrap_port: ", "1..65535"}},
        {"\"worker_type\":\"boss\"", {"worker_type: ", "regular, prefill, decode, encode"}},
        {"\"worker_type\":7", {"worker_type: ", "one of"}},
        {"\"runtime\":\"cpu\"", {"runtime: ", "sglang"}},
        {"\"labels\":[]", {"labels: ", "64 labels"}},
        {"\"labels\":{\"a\":1}", {"labels: ", "strings"}},
        {"\"labels\":{\"\":\"x\"}", {"labels: ", "1 to 256"}},
        {"\"labels\":{\"a\":\"\\u0000\"}", {"labels: ", "4096"}},
        {"\"models\":{}", {"models: ", "64"}},
        {"\"models\":[1]", {"models[0].id: ", "object"}},
        {"\"models\":[{\"id\":\"a\"},{}]", {"models[1].id: ", "1 to 512"}},
        {"\"models\":[{\"id\":\"a\",\"model_type\":70000}]", {"models[0].model_type: ", "65535"}},
        {"\"models\":[{\"id\":\"a\",\"aliases\":[1]}]", {"models[0].aliases: ", "64 strings"}},
        {"\"health\":7", {"health: ", "object"}},
        {"\"health\":{\"timeout_secs\":0}", {"health.timeout_secs: ", "1..86400"}},
        {"\"health\":{\"disable_health_check\":1}", {"health.disable_health_check: ", "true"}},
        {"\"health_check_interval_secs\":0", {"health_check_interval_secs: ", "1..86400"}},
        {"\"http_pool\":{\"timeout_secs\":0}", {"http_pool.timeout_secs: ", "1..86400"}},
        {"\"resilience\":{\"max_retries\":0}", {"resilience.max_retries: ", "1..100"}},
        {"\"resilience\":{\"backoff_multiplier\":0.9}", {"backoff_multiplier: ", "1.."}},
        {"\"resilience\":{\"jitter_factor\":1.1}", {"jitter_factor: ", "0..1"}},
        {"\"resilience\":{\"retryable_status_codes\":[99]}", {"status_codes: ", "100..599"}},
        {"\"resilience\":{\"retryable_status_codes\":[429.5]}", {"status_codes: ", "100..599"}},
        {"\"api_key\":\"a b\"", {"api_key: ", "visible ASCII"}},
        {"\"api_key\":\"a\\r\\nX: y\"", {"api_key: ", "visible ASCII"}},
        {"\"api_key\":7", {"api_key: ", "4096"}},
        {"\"dp_aware\":true", {"dp_aware: ", "later issue"}},
        {"\"dp_rank\":0", {"dp_rank: ", "later issue"}},
        {"\"max_connection_attempts\":0", {"max_connection_attempts: ", "1.."}},
        {"\"provider\":[]", {"provider: ", "64 bytes"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"url\":\"http://w\",%s}", cases[i].member);
        bad(body, SPEC_BAD_FIELD, cases[i].words[0]);
        assert_true(says(cases[i].words[1]));
    }
}

static void bodies_that_are_no_object(void **state) {
    (void)state;
    bad("", SPEC_BAD_JSON, "JSON syntax error");
    bad("{", SPEC_BAD_JSON, "JSON syntax error");
    bad("[]", SPEC_BAD_JSON, "expected an object");
    bad("\"http://w\"", SPEC_BAD_JSON, "expected an object");
    bad("{}", SPEC_BAD_FIELD, "url: missing");
    bad("{\"url\":null}", SPEC_BAD_FIELD, "url: missing");
    bad("{\"url\":7}", SPEC_BAD_FIELD, "url: expected a string");
    bad("{\"url\":\"\xff\"}", SPEC_BAD_JSON, "JSON syntax error");
}

static void hostile_sizes(void **state) {
    (void)state;
    size_t size = WORKER_SPEC_MAX + 16;
    char *body = mem_alloc(size + 1);
    memset(body, ' ', size);
    body[size] = 0;
    assert_int_equal(worker_spec_read(arena, str_make(body, size), &spec, &fault), -EINVAL);
    assert_true(says("1048576"));
    /* deep nesting in a place that is shown again */
    strncpy(body, "{\"url\":\"http://w\",\"models\":[{\"id\":\"m\",\"metadata\":", size);
    size_t len = strlen(body);
    for (int i = 0; i < 2000; i++, len += 5)
        memcpy(body + len, "{\"a\":", 5);
    assert_int_equal(worker_spec_read(arena, str_make(body, len), &spec, &fault), -EINVAL);
    /* more labels than may be */
    len = (size_t)snprintf(body, size, "{\"url\":\"http://w\",\"labels\":{");
    for (int i = 0; i < 65; i++)
        len += (size_t)snprintf(body + len, size - len, "%s\"l%d\":\"v\"", i ? "," : "", i);
    snprintf(body + len, size - len, "}}");
    bad(body, SPEC_BAD_FIELD, "at most 64 labels");
    mem_free(body);
}

static void urls_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *url, *words;
    } cases[] = {
        {"", "it is empty"},
        {"w:8000", "it must start with"},
        {"HTTP://w", "it must start with"},
        {"ftp://w", "it must start with"},
        {"http://", "scheme://host"},
        {"http://w:0", "port 1..65535"},
        {"http://w:99999", "port 1..65535"},
        {"http://w#x", "fragment"},
        {"http://w/?a=b", "query"},
        {"http://u:p@w", "user info"},
        {"http://@w", "user info"},
        {"http://a b", "scheme://host"},
        {"http://w\\x", "scheme://host"},
        {"grpc://w:20000", "gRPC issue"},
        {"grpcs://w:20000", "Incompatible configuration"},
        {"ipc://", "needs a path"},
        {"ipc:///tmp/x", "later issue"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[URL_FAULT_MAX] = "";
        if (worker_url_check(str_from(cases[i].url), NULL, text) != -EINVAL)
            fail_msg("accepted: %s", cases[i].url);
        if (strstr(text, cases[i].words) == NULL)
            fail_msg("%s: %s", cases[i].url, text);
    }
    bad("{\"url\":\"grpc://w:1\"}", SPEC_BAD_URL, "gRPC issue");
    bad("{\"url\":\"http://w\",\"connection_mode\":\"grpc\"}", SPEC_BAD_URL, "gRPC issue");
    bad("{\"url\":\"http://w\",\"connection_mode\":\"tcp\"}", SPEC_BAD_FIELD, "connection_mode");
    good("{\"url\":\"https://w.example:8443/base/x//\",\"connection_mode\":\"http\"}");
    EQ(spec.url, "https://w.example:8443/base/x");
    good("{\"url\":\"http://[::1]:30000\"}");
}

static void refusals_do_not_quote_secrets(void **state) {
    (void)state;
    char text[URL_FAULT_MAX], long_url[WORKER_URL_MAX + 64];
    assert_int_equal(worker_url_check(STR("http://user:hunter2@w"), NULL, text), -EINVAL);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "http://***@w"));
    assert_int_equal(worker_url_check(STR("user:hunter2@w"), NULL, text), -EINVAL);
    assert_null(strstr(text, "hunter2"));
    memset(long_url, 'a', sizeof long_url);
    memcpy(long_url, "http://", 7);
    assert_int_equal(worker_url_check(str_make(long_url, sizeof long_url), NULL, text), -EINVAL);
    assert_non_null(strstr(text, "2048"));
    assert_int_equal(worker_url_check(STR("http://w/\x01\x02"), NULL, text), -EINVAL);
    assert_null(strchr(text, 1));
    bad("{\"url\":\"http://w\",\"api_key\":\"se cret\"}", SPEC_BAD_FIELD, "api_key");
    assert_false(says("cret"));
}

static struct sockaddr_storage address_of(const char *text) {
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    address.ss_family = AF_INET;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        return address;
    address.ss_family = AF_INET6;
    assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
    return address;
}

static bool allowed(const struct fleet_settings *settings, const char *host, const char *address) {
    char text[URL_FAULT_MAX];
    struct sockaddr_storage socket_address = address_of(address);
    return worker_address_check(settings, str_from(host), &socket_address, text) == 0;
}

static void addresses_are_guarded(void **state) {
    (void)state;
    static const char *allow[] = {"10.1.0.0/16", "gpu.example", "fd00::/8"};
    struct fleet_settings any = {0}, strict = {.strict_urls = true},
                          listed = {.worker_url_allow = allow, .worker_url_allow_count = 3},
                          both = listed, link_local = {.allow_link_local = true};
    both.strict_urls = true;
    assert_true(allowed(&any, "w", "127.0.0.1"));
    assert_true(allowed(&any, "w", "10.0.0.1"));
    assert_false(allowed(&any, "w", "169.254.169.254"));
    assert_false(allowed(&any, "w", "::ffff:169.254.169.254"));
    assert_false(allowed(&any, "w", "fe80::1"));
    assert_true(allowed(&link_local, "w", "169.254.169.254"));
    static const char *const private[] = {
        "127.0.0.1",   "10.0.0.1",   "172.16.0.1",     "172.31.255.255",
        "192.168.1.1", "100.64.0.1", "0.0.0.0",        "::1",
        "fc00::1",     "::",         "::ffff:10.0.0.1"};
    for (size_t i = 0; i < sizeof private / sizeof *private; i++)
        assert_false(allowed(&strict, "w", private[i]));
    assert_true(allowed(&strict, "w", "8.8.8.8"));
    assert_true(allowed(&strict, "w", "172.32.0.1"));
    assert_true(allowed(&strict, "w", "2001:db8::1"));
    assert_true(allowed(&listed, "w", "10.1.255.1"));
    assert_false(allowed(&listed, "w", "10.2.0.1"));
    assert_false(allowed(&listed, "w", "8.8.8.8"));
    assert_true(allowed(&listed, "GPU.example", "8.8.8.8"));
    assert_true(allowed(&listed, "w", "fd12::1"));
    assert_true(allowed(&both, "w", "10.1.0.1"));
    assert_false(allowed(&both, "w", "127.0.0.1"));
}

static void allow_items_are_checked(void **state) {
    (void)state;
    assert_true(worker_url_allow_valid(STR("10.0.0.0/8")));
    assert_true(worker_url_allow_valid(STR("10.0.0.1")));
    assert_true(worker_url_allow_valid(STR("::/0")));
    assert_true(worker_url_allow_valid(STR("gpu-1.example")));
    assert_false(worker_url_allow_valid(STR("10.0.0.0/33")));
    assert_false(worker_url_allow_valid(STR("fd00::/129")));
    assert_false(worker_url_allow_valid(STR("fd00::/x")));
    assert_false(worker_url_allow_valid(STR("")));
    assert_false(worker_url_allow_valid(STR("http://w")));
}

static void patch_copies_then_modifies(void **state) {
    (void)state;
    struct worker_spec old, now;
    good("{\"url\":\"http://w\",\"worker_type\":\"prefill\",\"bootstrap_port\":9001,\"priority\":1,"
         "\"kv_role\":\"p\",\"provider\":\"x\",\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"api_key\":"
         "\"k\","
         "\"http_pool\":{\"timeout_secs\":9},\"resilience\":{\"cb_failure_threshold\":4,"
         "\"retryable_status_codes\":[500]},\"models\":[{\"id\":\"m\"}]}");
    old = spec;
    struct arena *other = arena_new();
    int err =
        worker_spec_patch(other, &old,
                          STR("{\"priority\":7,\"cost\":0.5,\"labels\":{\"b\":\"3\",\"c\":\"4\"},"
                              "\"health\":{\"timeout_secs\":2},\"url\":\"http://evil\","
                              "\"worker_type\":\"decode\",\"bootstrap_port\":1}"),
                          &now, &fault);
    assert_int_equal(err, 0);
    teardown(NULL); /* nothing of the old one is needed any more */
    setup(NULL);
    EQ(now.url, "http://w");
    assert_int_equal(now.role, ROLE_PREFILL);
    assert_int_equal(now.bootstrap_port, 9001);
    assert_int_equal(now.priority, 7);
    assert_true(now.cost == 0.5);
    EQ(now.kv_role, "p");
    EQ(now.provider, "x");
    EQ(now.api_key, "k");
    assert_int_equal(now.pool.timeout_secs, 9);
    assert_int_equal(now.resilience.cb_failure_threshold, 4);
    assert_int_equal(now.resilience.retryable_status_codes[0], 500);
    EQ(now.models[0].id, "m");
    assert_int_equal(now.health.timeout_secs, 2);
    assert_int_equal(now.label_count, 3);
    EQ(now.labels[0].value, "1");
    EQ(now.labels[1].value, "3");
    EQ(now.labels[2].value, "4");
    struct worker_spec third;
    assert_int_equal(worker_spec_patch(other, &now, STR("{\"api_key\":\"\"}"), &third, &fault), 0);
    assert_null(third.api_key.ptr);
    assert_int_equal(worker_spec_patch(other, &now, STR("{}"), &third, &fault), 0);
    EQ(third.api_key, "k");
    assert_int_equal(worker_spec_patch(other, &now, STR("[]"), &third, &fault), -EINVAL);
    assert_int_equal(worker_spec_patch(other, &now, STR("{\"health\":{\"success_threshold\":0}}"),
                                       &third, &fault),
                     -EINVAL);
    assert_true(says("health.success_threshold: expected a whole number 1.."));
    assert_true(worker_spec_has_url(other, STR("{\"url\":\"x\"}")));
    assert_false(worker_spec_has_url(other, STR("{\"url\":null}")));
    assert_false(worker_spec_has_url(other, STR("nonsense")));
    arena_free(other);
}

static struct str shown(const struct worker_spec *what) {
    struct json_writer writer;
    json_writer_init(&writer, 1 << 20);
    json_object(&writer);
    worker_spec_write(&writer, what);
    json_object_end(&writer);
    return json_writer_end(&writer, arena);
}

static void what_is_shown(void **state) {
    (void)state;
    good("{\"url\":\"http://w\"}");
    EQ(shown(&spec), "{\"priority\":50,\"cost\":1.0,\"max_connection_attempts\":20}");
    good(
        "{\"url\":\"http://w\",\"api_key\":\"secret\",\"priority\":1,\"cost\":2,\"provider\":\"x\","
        "\"health\":{\"timeout_secs\":2,\"disable_health_check\":false},\"http_pool\":{},"
        "\"resilience\":{\"retryable_status_codes\":[429]},\"tool_parser\":\"t\"}");
    EQ(shown(&spec),
       "{\"priority\":1,\"cost\":2.0,\"max_connection_attempts\":20,\"provider\":\"x\","
       "\"health\":{\"timeout_secs\":2,\"disable_health_check\":false},"
       "\"resilience\":{\"retryable_status_codes\":[429]}}");
    assert_int_equal(str_find(shown(&spec), STR("secret")), -1);
}

static void own_values_win(void **state) {
    (void)state;
    struct fleet_settings settings = {
        .drain_settle_s = 5, .breaker = {false, 5, 2, 30000, 60000}, .health.disabled = false};
    good("{\"url\":\"http://w\",\"health\":{\"drain_settle_secs\":1,\"disable_health_check\":true},"
         "\"resilience\":{\"cb_failure_threshold\":9,\"cb_window_secs\":7,"
         "\"disable_circuit_breaker\":true}}");
    struct breaker_options options = worker_spec_breaker(&spec, &settings);
    assert_int_equal(options.failure_threshold, 9);
    assert_int_equal(options.success_threshold, 2);
    assert_int_equal(options.timeout_ms, 30000);
    assert_int_equal(options.window_ms, 7000);
    assert_true(options.disabled);
    assert_int_equal(worker_spec_drain_ms(&spec, &settings), 1000);
    assert_true(worker_spec_unprobed(&spec, &settings));
    good("{\"url\":\"http://w\"}");
    assert_int_equal(worker_spec_drain_ms(&spec, &settings), 5000);
    assert_false(worker_spec_unprobed(&spec, &settings));
}

/* Random JSON-like bytes never do harm. */
static void garbage_is_survived(void **state) {
    (void)state;
    static const char *const bits[] = {
        "{",  "}",          "[",          "]",          ":",    ",",    "\"url\"", "\"http://w\"",
        "1",  "\"models\"", "\"health\"", "\"labels\"", "null", "true", "\"id\"",  "\"resilience\"",
        "-1", "1e99",       "\"\\u0000\""};
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        struct arena *scratch = arena_new();
        char body[256] = "{\"url\":\"http://w\",";
        while (strlen(body) < 200) {
            seed = seed * 1103515245 + 12345;
            strncat(body, bits[(seed >> 16) % (sizeof bits / sizeof *bits)], 20);
        }
        (void)!worker_spec_read(scratch, str_from(body), &spec, &fault);
        arena_free(scratch);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_url_is_enough),
        TEST(both_generations_are_read),
        TEST(null_is_absent),
        TEST(faults_name_the_field_and_the_limit),
        TEST(bodies_that_are_no_object),
        TEST(hostile_sizes),
        TEST(urls_are_checked),
        TEST(refusals_do_not_quote_secrets),
        TEST(addresses_are_guarded),
        TEST(allow_items_are_checked),
        TEST(patch_copies_then_modifies),
        TEST(what_is_shown),
        TEST(own_values_win),
        TEST(garbage_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
