#include "gateway/admin/load_report.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "gateway/admin/control_call.h"
#include "gateway/admin/fanout.h"

/* --- load reports --- */

static const char *report_text(struct arena *arena, enum load_source source, const char *body,
                               int64_t *load) {
    struct load_report report;
    struct json_writer writer;
    if (load_report_read(arena, source, str_from(body), &report) < 0)
        return NULL;
    json_writer_init(&writer, 1 << 20);
    load_report_write(&writer, &report);
    *load = report.load;
    return json_writer_end(&writer, arena).ptr;
}

static void check_report(enum load_source source, const char *body, int64_t load,
                         const char *expected) {
    struct arena *arena = arena_new();
    int64_t got = 0;
    const char *text = report_text(arena, source, body, &got);
    if (text == NULL)
        fail_msg("no report: %s", body);
    assert_string_equal(text, expected);
    assert_int_equal(got, load);
    arena_free(arena);
}

#define ZEROS                                                                                      \
    "\"max_total_num_tokens\":0,\"token_usage\":0.0,\"gen_throughput\":0.0,\"cache_hit_rate\":0."  \
    "0,"                                                                                           \
    "\"utilization\":0.0,\"max_running_requests\":0}"

static void loads_answer(void **state) {
    (void)state;
    check_report(
        LOAD_FROM_LOADS,
        "{\"timestamp\":\"2026-01-02T00:00:00Z\",\"dp_rank_count\":9,\"loads\":[{\"dp_rank\":0,"
        "\"num_running_reqs\":1,\"num_waiting_reqs\":2,\"num_waiting_uncached_tokens\":7,"
        "\"num_total_reqs\":3,\"num_used_tokens\":1234,\"max_total_num_tokens\":65536,"
        "\"token_usage\":0.02,\"gen_throughput\":1.5,\"cache_hit_rate\":0.25,\"utilization\":0.5,"
        "\"max_running_requests\":256,\"extra\":{}},{\"dp_rank\":1,\"num_used_tokens\":6}]}",
        1240,
        "{\"timestamp\":\"2026-01-02T00:00:00Z\",\"dp_rank_count\":2,\"loads\":[{\"dp_rank\":0,"
        "\"num_running_reqs\":1,\"num_waiting_reqs\":2,\"num_waiting_uncached_tokens\":7,"
        "\"num_total_reqs\":3,\"num_used_tokens\":1234,\"max_total_num_tokens\":65536,"
        "\"token_usage\":0.02,\"gen_throughput\":1.5,\"cache_hit_rate\":0.25,\"utilization\":0.5,"
        "\"max_running_requests\":256},{\"dp_rank\":1,\"num_running_reqs\":0,\"num_waiting_reqs\":"
        "0,"
        "\"num_waiting_uncached_tokens\":0,\"num_total_reqs\":0,\"num_used_tokens\":6," ZEROS "]}");
}

static void disaggregated_answer(void **state) {
    (void)state;
    check_report(
        LOAD_FROM_LOADS,
        "{\"timestamp\":1.5,\"loads\":[{\"num_used_tokens\":null,\"num_total_tokens\":5,"
        "\"disaggregation\":{\"mode\":\"decode\",\"decode_prealloc_queue_reqs\":1,"
        "\"decode_transfer_queue_reqs\":2,\"decode_retracted_queue_reqs\":\"x\","
        "\"kv_transfer_speed_gb_s\":3.5}}]}",
        5,
        "{\"timestamp\":\"1.500\",\"dp_rank_count\":1,\"loads\":[{\"dp_rank\":0,"
        "\"num_running_reqs\":0,\"num_waiting_reqs\":0,\"num_waiting_uncached_tokens\":0,"
        "\"num_total_reqs\":0,\"num_used_tokens\":5,"
        "\"max_total_num_tokens\":0,\"token_usage\":0.0,\"gen_throughput\":0.0,"
        "\"cache_hit_rate\":0.0,\"utilization\":0.0,\"max_running_requests\":0,"
        "\"kv_transfer_speed_gb_s\":3.5,\"decode_queue_reqs\":3,\"disagg_mode\":\"decode\"}]}");
}

static void get_load_answer(void **state) {
    (void)state;
    check_report(LOAD_FROM_GET_LOAD,
                 "[{\"dp_rank\":3,\"num_reqs\":5,\"num_waiting_reqs\":2,\"num_tokens\":100},7,"
                 "{\"num_tokens\":11}]",
                 111,
                 "{\"timestamp\":\"\",\"dp_rank_count\":2,\"loads\":[{\"dp_rank\":3,"
                 "\"num_running_reqs\":3,\"num_waiting_reqs\":2,\"num_waiting_uncached_tokens\":0,"
                 "\"num_total_reqs\":5,\"num_used_tokens\":100," ZEROS ",{\"dp_rank\":1,"
                 "\"num_running_reqs\":0,\"num_waiting_reqs\":0,\"num_waiting_uncached_tokens\":0,"
                 "\"num_total_reqs\":0,\"num_used_tokens\":11," ZEROS "]}");
}

static void gauges_answer(void **state) {
    (void)state;
    check_report(LOAD_FROM_METRICS,
                 "# TYPE sglang:num_used_tokens gauge\n"
                 "sglang:num_used_tokens{tp_rank=\"0\",dp_rank=\"0\"} 10.0\n"
                 "sglang:num_used_tokens{tp_rank=\"1\",dp_rank=\"0\"} 12.0\n"
                 "sglang_num_running_reqs 4\nsglang:num_queue_reqs 1\nother:num_used_tokens 99\n"
                 "sglang:num_used_tokens{dp_rank=\"1\"} 3\nsglang:token_usage NaN\n",
                 15,
                 "{\"timestamp\":\"\",\"dp_rank_count\":2,\"loads\":[{\"dp_rank\":0,"
                 "\"num_running_reqs\":4,\"num_waiting_reqs\":1,\"num_waiting_uncached_tokens\":0,"
                 "\"num_total_reqs\":5,\"num_used_tokens\":12," ZEROS ",{\"dp_rank\":1,"
                 "\"num_running_reqs\":0,\"num_waiting_reqs\":0,\"num_waiting_uncached_tokens\":0,"
                 "\"num_total_reqs\":0,\"num_used_tokens\":3," ZEROS "]}");
}

static void other_answers_are_no_reports(void **state) {
    (void)state;
    static const struct {
        enum load_source source;
        const char *body;
    } cases[] = {
        {LOAD_FROM_LOADS, ""},
        {LOAD_FROM_LOADS, "OK"},
        {LOAD_FROM_LOADS, "[]"},
        {LOAD_FROM_LOADS, "{}"},
        {LOAD_FROM_LOADS, "{\"loads\":{}}"},
        {LOAD_FROM_LOADS, "{\"loads\":[]}"},
        {LOAD_FROM_LOADS, "{\"loads\":[1,\"x\",null]}"},
        {LOAD_FROM_LOADS, "{\"loads\":[{\"num_used_tokens\":\"12\"}]}"},
        {LOAD_FROM_LOADS, "{\"loads\":[{\"num_used_tokens\":-1}]}"},
        {LOAD_FROM_LOADS, "{\"loads\":[{\"num_used_tokens\":1e300}]}"},
        {LOAD_FROM_GET_LOAD, "{\"num_tokens\":1}"},
        {LOAD_FROM_GET_LOAD, "[{\"num_used_tokens\":1}]"},
        {LOAD_FROM_METRICS, ""},
        {LOAD_FROM_METRICS, "vllm:kv_cache_usage_perc 0.5\n"},
        {LOAD_FROM_METRICS, "sglang:num_used_tokens 5\n<html>"},
        {LOAD_FROM_METRICS, "sglang:num_used_tokens NaN\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *arena = arena_new();
        int64_t load;
        if (report_text(arena, cases[i].source, cases[i].body, &load) != NULL)
            fail_msg("taken for a report: %s", cases[i].body);
        arena_free(arena);
    }
}

static void ranks_are_bounded(void **state) {
    (void)state;
    struct arena *arena = arena_new();
    struct json_writer writer;
    struct load_report report;
    json_writer_init(&writer, 1 << 20);
    json_array(&writer);
    for (int i = 0; i < 5000; i++)
        json_raw(&writer, STR("{\"num_tokens\":2}"));
    json_array_end(&writer);
    struct str body = json_writer_end(&writer, arena);
    assert_int_equal(load_report_read(arena, LOAD_FROM_GET_LOAD, body, &report), 0);
    assert_int_equal(report.rank_count, LOAD_RANKS_MAX);
    assert_int_equal(report.load, 2 * LOAD_RANKS_MAX);
    arena_free(arena);
}

/* --- base URLs --- */

static void base_urls(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"http://h:1", "http://h:1"},       {"http://h:1@0", "http://h:1"},
        {"http://h:1@12", "http://h:1"},    {"http://h:1/a@b", "http://h:1/a@b"},
        {"http://h:1/a@", "http://h:1/a@"}, {"http://10", "http://10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct worker worker = {.url = str_from(cases[i][0])};
        assert_true(str_eq(fanout_base_url(&worker), str_from(cases[i][1])));
    }
}

/* --- calls on the control loop, lanes --- */

#define TARGETS 20

/* Filled on the loops, looked at afterwards. */
static struct {
    int plain, ran_on, cancelled_inside, cancelled_result, late;
    int lanes_result, most_lanes, called[TARGETS];
    int enough_result, enough_called;
    int64_t enough_ms, cancel_ms;
    int cut_result, cut_called;
} seen;

static struct {
    int now, most, called;
    bool enough;
} lanes;

static int here(void *arg) {
    *(int *)arg = 42;
    return (int)loop_index(loop_here());
}

static FIBER_FN int sleep_long(void *arg) {
    (void)arg;
    seen.cancelled_inside = fiber_sleep(60000);
    return -7;
}

static void call_long(void *arg) {
    int64_t start = clock_ms();
    (void)arg;
    seen.cancelled_result = control_call(sleep_long, NULL);
    seen.cancel_ms = clock_ms() - start;
    int value = 0;
    seen.late = control_call(here, &value) == 0 && value == 42;
}

static FIBER_FN void one_short(void *ctx, size_t index, const struct fanout_target *target,
                               struct arena *scratch) {
    (void)target;
    int *called = ctx;
    assert_true(arena_alloc(scratch, 8) != NULL);
    called[index]++;
    if (++lanes.now > lanes.most)
        lanes.most = lanes.now;
    (void)fiber_sleep(5);
    lanes.now--;
}

/* Number 2 is done at once, 0 and 1 never. */
static FIBER_FN void one_of_three(void *ctx, size_t index, const struct fanout_target *target,
                                  struct arena *scratch) {
    (void)ctx, (void)target, (void)scratch;
    lanes.called++;
    if (index == 2)
        lanes.enough = true;
    else
        (void)fiber_sleep(60000);
}

static FIBER_FN void one_hung(void *ctx, size_t index, const struct fanout_target *target,
                              struct arena *scratch) {
    (void)ctx, (void)index, (void)target, (void)scratch;
    seen.cut_called++;
    (void)fiber_sleep(60000);
}

static FIBER_FN int run_lanes(void *arg) {
    struct fanout_target targets[TARGETS] = {{NULL, STR_NONE}};
    struct fanout_list list = {targets, TARGETS};
    (void)arg;
    struct fanout all = {.parallel = 4, .one = one_short, .ctx = seen.called};
    seen.lanes_result = fanout_run(&all, &list);
    seen.most_lanes = lanes.most;
    list.count = 3;
    struct fanout race = {
        .parallel = 8, .one = one_of_three, .enough = &lanes.enough, .linger_ms = 30};
    int64_t start = clock_ms();
    seen.enough_result = fanout_run(&race, &list);
    seen.enough_ms = clock_ms() - start;
    seen.enough_called = lanes.called;
    return 0;
}

static FIBER_FN int run_hung(void *arg) {
    struct fanout_target targets[TARGETS] = {{NULL, STR_NONE}};
    struct fanout_list list = {targets, TARGETS};
    (void)arg;
    struct fanout hung = {.parallel = 3, .one = one_hung};
    seen.cut_result = fanout_run(&hung, &list);
    return seen.cut_result;
}

static void call_hung(void *arg) {
    (void)arg;
    (void)control_call(run_hung, NULL);
}

static void drive(void *arg) {
    (void)arg;
    struct fiber_group group;
    int value = 0;
    seen.ran_on = control_call(here, &value);
    seen.plain = value;
    fiber_group_init(&group);
    fiber_group_spawn(&group, call_long, NULL);
    (void)fiber_sleep(20);
    fiber_group_cancel(&group);
    (void)fiber_group_join(&group);
    (void)control_call(run_lanes, NULL);
    fiber_group_spawn(&group, call_hung, NULL);
    (void)fiber_sleep(20);
    fiber_group_cancel(&group);
    (void)fiber_group_join(&group);
    loops_stop();
}

static void calls_and_lanes(void **state) {
    (void)state;
    memset(&seen, 0xff, sizeof seen);
    memset(seen.called, 0, sizeof seen.called);
    seen.cut_called = 0;
    assert_int_equal(loops_start(1, NULL, NULL), 0);
    loop_spawn(loop_at(1), drive, NULL);
    loops_run();

    assert_int_equal(seen.plain, 42);
    assert_int_equal(seen.ran_on, 0);
    assert_int_equal(seen.cancelled_inside, -ECANCELED);
    assert_int_equal(seen.cancelled_result, -7);
    assert_in_range(seen.cancel_ms, 10, 5000);
    assert_int_equal(seen.late, 1);

    assert_int_equal(seen.lanes_result, 0);
    assert_int_equal(seen.most_lanes, 4);
    for (size_t i = 0; i < TARGETS; i++)
        assert_int_equal(seen.called[i], 1);

    assert_int_equal(seen.enough_called, 3);
    assert_in_range(seen.enough_ms, 25, 5000);
    assert_int_equal(seen.enough_result, 0);

    assert_int_equal(seen.cut_result, -ECANCELED);
    assert_int_equal(seen.cut_called, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_answer),
        cmocka_unit_test(disaggregated_answer),
        cmocka_unit_test(get_load_answer),
        cmocka_unit_test(gauges_answer),
        cmocka_unit_test(other_answers_are_no_reports),
        cmocka_unit_test(ranks_are_bounded),
        cmocka_unit_test(base_urls),
        cmocka_unit_test(calls_and_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
