#include "lab/mock_faults.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct arena *arena;

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

static int set_text(struct mock_faults *faults, const char *text, struct str *error) {
    yyjson_doc *doc = json_parse(arena, str_from(text), NULL);
    assert_non_null(doc);
    return mock_faults_set(faults, yyjson_doc_get_root(doc), arena, error);
}

static void sets_only_what_is_named(void **state) {
    (void)state;
    struct mock_faults faults = mock_faults_none();
    struct str error;
    assert_int_equal(set_text(&faults, "{\"fail_rate\":0.25,\"fail_status\":503}", &error), 0);
    assert_int_equal(set_text(&faults, "{\"close_mode\":\"rst\",\"cut_after_events\":2}", &error),
                     0);
    assert_true(faults.fail_rate == 0.25);
    assert_int_equal(faults.fail_status, 503);
    assert_string_equal(faults.close_mode, "rst");
    assert_int_equal(faults.cut_after_events, 2);
    assert_int_equal(faults.cut_after_bytes, -1);
    assert_true(faults.healthy);
}

static void refuses_and_changes_nothing(void **state) {
    (void)state;
    static const struct {
        const char *text, *names;
    } cases[] = {
        {"{\"delay_ms\":5,\"fail_rate\":1.5}", "fail_rate"},
        {"{\"delay_ms\":5,\"fail_status\":99}", "fail_status"},
        {"{\"delay_ms\":5,\"fail_status\":\"500\"}", "fail_status"},
        {"{\"delay_ms\":5,\"hang\":1}", "hang"},
        {"{\"delay_ms\":5,\"close_mode\":\"slam\"}", "close_mode"},
        {"{\"delay_ms\":5,\"scope\":null}", "scope"},
        {"{\"delay_ms\":5,\"nonsense\":1}", "nonsense"},
        {"{\"delay_ms\":5,\"cut_after_bytes\":18446744073709551615}", "cut_after_bytes"},
        {"{\"delay_ms\":-1}", "delay_ms"},
        {"[]", "object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mock_faults faults = mock_faults_none();
        struct str error = STR_NONE;
        assert_int_equal(set_text(&faults, cases[i].text, &error), -EINVAL);
        assert_true(str_find(error, str_from(cases[i].names)) >= 0);
        assert_int_equal(faults.delay_ms, 0);
    }
}

static void writes_what_it_reads(void **state) {
    (void)state;
    struct mock_faults faults = mock_faults_none(), copy = mock_faults_none();
    struct str error;
    assert_int_equal(set_text(&faults,
                              "{\"fail_rate\":0.5,\"fail_first\":3,\"retry_after\":2,"
                              "\"slow_body_ms\":7,\"hang_after_events\":1,\"cut_inside\":true,"
                              "\"drop\":true,\"healthy\":false,\"scope\":\"all\"}",
                              &error),
                     0);
    struct json_writer writer;
    json_writer_init(&writer, 4096);
    mock_faults_write(&faults, &writer);
    struct str text = json_writer_end(&writer, arena);
    assert_int_equal(set_text(&copy, text.ptr, &error), 0);
    assert_true(str_eq(str_from(copy.scope), STR("all")));
    assert_true(copy.fail_rate == 0.5 && copy.fail_first == 3 && copy.retry_after == 2);
    assert_true(copy.slow_body_ms == 7 && copy.hang_after_events == 1 && copy.cut_inside);
    assert_true(copy.drop && !copy.healthy && !copy.hang);
}

static void draws_by_rate_and_count(void **state) {
    (void)state;
    struct mock_faults faults = mock_faults_none();
    struct rand_stream rand, again;
    rand_stream_init(&rand, 1);
    rand_stream_init(&again, 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_SERVE);
    faults.fail_first = 2;
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_FAIL);
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_FAIL);
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_SERVE);
    faults.fail_rate = 0.3;
    int failed = 0;
    for (int i = 0; i < 10000; i++) {
        enum mock_fate fate = mock_faults_draw(&faults, &rand);
        assert_int_equal(fate, mock_faults_draw(&faults, &again)); /* same seed, same fate */
        failed += fate == MOCK_FAIL;
    }
    assert_in_range(failed, 2700, 3300);
    faults.hang = true;
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_HANG);
    faults.garbage = true;
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_GARBAGE);
    faults.drop = true;
    assert_int_equal(mock_faults_draw(&faults, &rand), MOCK_DROP);
}

static void concerns_its_scope(void **state) {
    (void)state;
    struct mock_faults faults = mock_faults_none();
    assert_true(mock_faults_concern(&faults, true, false));
    assert_false(mock_faults_concern(&faults, false, true));
    faults.scope = "health";
    assert_false(mock_faults_concern(&faults, true, false));
    assert_true(mock_faults_concern(&faults, false, true));
    faults.scope = "all";
    assert_true(mock_faults_concern(&faults, false, false));
}

static void cuts_at_the_byte(void **state) {
    (void)state;
    struct mock_faults faults = mock_faults_none();
    assert_int_equal(mock_faults_room(&faults, 1000, 50), 50);
    faults.cut_after_bytes = 100;
    assert_int_equal(mock_faults_room(&faults, 0, 50), 50);
    assert_int_equal(mock_faults_room(&faults, 80, 50), 20);
    assert_int_equal(mock_faults_room(&faults, 100, 50), 0);
    assert_int_equal(mock_faults_room(&faults, 50, 50), 50);
    faults.cut_after_bytes = 0;
    assert_int_equal(mock_faults_room(&faults, 0, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_only_what_is_named), cmocka_unit_test(refuses_and_changes_nothing),
        cmocka_unit_test(writes_what_it_reads),    cmocka_unit_test(draws_by_rate_and_count),
        cmocka_unit_test(concerns_its_scope),      cmocka_unit_test(cuts_at_the_byte),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
