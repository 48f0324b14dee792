/* The error table: every row can be looked up, and its codes are fit for headers and labels. */
#include "base/problem.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void assert_str(struct str s, const char *text) {
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.ptr, text, s.len);
}

static void rows_are_sound(void **state) {
    (void)state;
    for (int id = PROBLEM_NONE + 1; id < PROBLEM_COUNT; id++) {
        struct str code = problem_code(id);
        assert_true(code.len > 0);
        for (size_t i = 0; i < code.len; i++)
            assert_true((code.ptr[i] >= 'a' && code.ptr[i] <= 'z') || code.ptr[i] == '_');
        assert_in_range(problem_status(id), 400, 599);
        assert_false(str_eq(status_reason(problem_status(id)), STR("Unknown")));
        assert_true(problem_text((struct problem){id, STR_NONE}).len > 0);
        assert_true(problem_code_known(code));
        for (int other = id + 1; other < PROBLEM_COUNT; other++)
            assert_false(str_eq(code, problem_code(other)));
    }
}

static void known_rows(void **state) {
    (void)state;
    assert_int_equal(problem_status(PROBLEM_NO_AVAILABLE_WORKERS), 503);
    assert_str(problem_code(PROBLEM_NO_AVAILABLE_WORKERS), "no_available_workers");
    assert_int_equal(problem_status(PROBLEM_PAYLOAD_TOO_LARGE), 413);
    assert_int_equal(problem_status(PROBLEM_UPSTREAM_TIMEOUT), 504);
    assert_int_equal(problem_status(PROBLEM_NONE), 200);
    assert_str(problem_code(PROBLEM_NONE), "");
}

static void own_message_wins(void **state) {
    (void)state;
    struct problem problem = {PROBLEM_INVALID_FIELD, STR("url: not a URL")};
    assert_str(problem_text(problem), "url: not a URL");
    problem.message = STR_NONE;
    assert_str(problem_text(problem), "wrong or missing field");
}

static void unknown_codes(void **state) {
    (void)state;
    assert_false(problem_code_known(STR("")));
    assert_false(problem_code_known(STR_NONE));
    assert_false(problem_code_known(STR("no_available_worker")));
    assert_false(problem_code_known(STR("no_available_workers ")));
    assert_false(problem_code_known(STR("No_Available_Workers")));
}

static void reasons_of_statuses(void **state) {
    (void)state;
    assert_str(status_reason(200), "OK");
    assert_str(status_reason(503), "Service Unavailable");
    assert_str(status_reason(422), "Unprocessable Entity");
    assert_str(status_reason(299), "Unknown");
    assert_str(status_reason(0), "Unknown");
    assert_str(status_reason(-1), "Unknown");
    for (size_t i = 1; i < sizeof reasons / sizeof *reasons; i++)
        assert_true(reasons[i - 1].status < reasons[i].status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sound),      cmocka_unit_test(known_rows),
        cmocka_unit_test(own_message_wins),    cmocka_unit_test(unknown_codes),
        cmocka_unit_test(reasons_of_statuses),
    };
    return cmocka_run_group_tests_name("problem", tests, NULL, NULL);
}
