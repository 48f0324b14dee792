#include "fleet/breaker.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct breaker_options options = {
    .failure_threshold = 5, .success_threshold = 2, .timeout_ms = 30000, .window_ms = 60000};
static struct breaker breaker;

static int setup(void **state) {
    (void)state;
    breaker_init(&breaker, &options, "http://w:1");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    breaker_end(&breaker);
    return 0;
}

/* One request with its outcome; false when it was not let in. */
static bool request(enum breaker_outcome outcome, int64_t now_ms) {
    uint32_t ticket = breaker_enter(&breaker, now_ms);
    if (ticket != 0)
        breaker_record(&breaker, ticket, outcome, now_ms);
    return ticket != 0;
}

static void requests(int count, enum breaker_outcome outcome, int64_t now_ms) {
    for (int i = 0; i < count; i++)
        assert_true(request(outcome, now_ms));
}

static void opens_on_failures_in_a_row(void **state) {
    (void)state;
    requests(100, BREAKER_SUCCESS, 1000);
    requests(4, BREAKER_FAILURE, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(1, BREAKER_FAILURE, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    assert_false(breaker_allows(&breaker, 1000));
    assert_false(request(BREAKER_SUCCESS, 30999));
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

static void opens_on_half_of_the_window(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        requests(1, BREAKER_SUCCESS, 1000);
        requests(1, BREAKER_FAILURE, 1000);
    }
    requests(1, BREAKER_SUCCESS, 1000); /* 5 good, 4 bad */
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(1, BREAKER_FAILURE, 1000); /* 5 and 5 */
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

static void stays_closed_below_half(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        requests(2, BREAKER_SUCCESS, 1000 + i);
        requests(1, BREAKER_FAILURE, 1000 + i);
    }
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
}

static void forgets_what_left_the_window(void **state) {
    (void)state;
    requests(4, BREAKER_FAILURE, 1000);
    requests(1, BREAKER_FAILURE,
             67000); /* the four are older than 60 s, their slot is not reused */
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(3, BREAKER_FAILURE, 127000); /* and here the slot is reused */
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(1, BREAKER_FAILURE, 128000);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(1, BREAKER_FAILURE, 180000); /* five within 60 s */
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

static void neutral_outcomes_do_not_count(void **state) {
    (void)state;
    requests(1000, BREAKER_NEUTRAL, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(4, BREAKER_FAILURE, 1000);
    requests(10, BREAKER_NEUTRAL, 1000); /* they do not end the row either */
    requests(1, BREAKER_FAILURE, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

static void half_open_has_few_places(void **state) {
    (void)state;
    requests(5, BREAKER_FAILURE, 1000);
    assert_true(breaker_allows(&breaker, 31000));
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN); /* a look changes nothing */
    uint32_t first = breaker_enter(&breaker, 31000);
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
    uint32_t second = breaker_enter(&breaker, 31000);
    assert_true(first != 0 && second != 0);
    assert_false(breaker_allows(&breaker, 31000));
    assert_int_equal(breaker_enter(&breaker, 31000), 0);
    breaker_record(&breaker, first, BREAKER_NEUTRAL, 31100); /* gives its place back */
    assert_true(breaker_allows(&breaker, 31100));
    uint32_t third = breaker_enter(&breaker, 31100);
    assert_true(third != 0);
    assert_int_equal(breaker_enter(&breaker, 31100), 0);
    breaker_record(&breaker, second, BREAKER_SUCCESS, 31200);
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
    breaker_record(&breaker, third, BREAKER_SUCCESS, 31300);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(4, BREAKER_FAILURE, 31400); /* the window started anew */
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
}

static void each_reopening_doubles_the_wait(void **state) {
    (void)state;
    int64_t now = 1000;
    requests(5, BREAKER_FAILURE, now);
    static const int64_t waits[] = {30000, 60000, 120000, 240000, 240000, 240000};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        assert_false(breaker_allows(&breaker, now + waits[i] - 1));
        now += waits[i];
        assert_true(request(BREAKER_FAILURE, now)); /* half-open: one failure is enough */
        assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    }
    now += 240000;
    requests(2, BREAKER_SUCCESS, now);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(5, BREAKER_FAILURE, now); /* and the wait is short again */
    assert_true(breaker_allows(&breaker, now + 30000));
}

static void late_outcomes_do_not_judge(void **state) {
    (void)state;
    uint32_t stream = breaker_enter(&breaker, 1000); /* a long one from before */
    requests(5, BREAKER_FAILURE, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    breaker_record(&breaker, stream, BREAKER_SUCCESS, 2000); /* open: nothing counts */
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    uint32_t late = stream;
    uint32_t first = breaker_enter(&breaker, 31000);
    breaker_record(&breaker, late, BREAKER_FAILURE, 31000); /* not its own: no reopening */
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
    assert_int_equal(atomic_load(&breaker.half_open_places), 1); /* nor a place given back */
    breaker_record(&breaker, first, BREAKER_SUCCESS, 31000);
    breaker_record(&breaker, 0, BREAKER_FAILURE, 31000); /* sent by --cb-fail-open */
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
}

static void probes_heal_without_traffic(void **state) {
    (void)state;
    requests(5, BREAKER_FAILURE, 1000);
    breaker_probe_ok(&breaker, 20000); /* its time has not come */
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    breaker_probe_ok(&breaker, 31000);
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
    breaker_probe_ok(&breaker, 91000);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
}

static void a_probe_counts_beside_a_request(void **state) {
    (void)state;
    requests(5, BREAKER_FAILURE, 1000);
    requests(1, BREAKER_SUCCESS, 31000);
    assert_int_equal(breaker_state(&breaker), BREAKER_HALF_OPEN);
    breaker_probe_ok(&breaker, 31001);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
}

static void disabled_never_opens(void **state) {
    (void)state;
    struct breaker_options off = options;
    off.disabled = true;
    breaker_configure(&breaker, &off, 500);
    requests(1000, BREAKER_FAILURE, 1000);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
}

static void other_options_start_it_anew(void **state) {
    (void)state;
    requests(5, BREAKER_FAILURE, 1000);
    breaker_configure(&breaker, &options, 1001); /* the same: kept */
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
    struct breaker_options other = options;
    other.failure_threshold = 1;
    breaker_configure(&breaker, &other, 1002);
    assert_int_equal(breaker_state(&breaker), BREAKER_CLOSED);
    requests(1, BREAKER_FAILURE, 1003);
    assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

/* Places are exact under concurrency: of many threads that enter a half-open circuit, S get in. */
static _Atomic int let_in;
static void *enter_once(void *arg) {
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        if (breaker_enter(&breaker, 40000) != 0)
            atomic_fetch_add(&let_in, 1);
    }
    return NULL;
}

static void places_are_exact_under_threads(void **state) {
    (void)state;
    pthread_t threads[4];
    requests(5, BREAKER_FAILURE, 1000);
    atomic_store(&let_in, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, enter_once, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&let_in), 2);
    assert_int_equal(atomic_load(&breaker.half_open_places), 2);
}

static void *fail_and_succeed(void *arg) {
    int64_t *now = arg;
    for (int i = 0; i < 20000; i++) {
        uint32_t ticket = breaker_enter(&breaker, *now + i);
        if (ticket != 0)
            breaker_record(&breaker, ticket, (enum breaker_outcome)(i % 3), *now + i);
    }
    return NULL;
}

static void places_come_back_under_threads(void **state) {
    (void)state;
    pthread_t threads[4];
    struct breaker_options quick = {false, 2, 2, 3, 100};
    int64_t starts[4] = {1000, 1000, 1000, 1000};
    breaker_configure(&breaker, &quick, 500);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fail_and_succeed, &starts[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    if (breaker_state(&breaker) == BREAKER_HALF_OPEN)
        assert_int_equal(atomic_load(&breaker.half_open_places), 0);
    assert_true(atomic_load(&breaker.generation) > 1); /* it has moved */
}

/* --- metrics --------------------------------------------------------------------------------- */

static double shown[METRIC_FAMILY_COUNT];
static size_t series;
static void take(void *arg, const struct metric_sample *sample) {
    if (metric_families[sample->family].label_count > 0 &&
        strcmp(sample->label_values[0], arg) == 0) {
        shown[sample->family] += sample->value;
        series++;
    }
}

static void collect(void) {
    memset(shown, 0, sizeof shown);
    series = 0;
    char url[] = "http://w:1";
    metric_collect(take, url);
}

static void metrics_tell_it_and_go(void **state) {
    (void)state;
    requests(1, BREAKER_SUCCESS, 1000);
    requests(5, BREAKER_FAILURE, 1000);
    requests(1, BREAKER_NEUTRAL, 31000);
    collect();
    assert_int_equal(shown[METRIC_SGL_CB_STATE], BREAKER_HALF_OPEN);
    assert_int_equal(shown[METRIC_SMG_WORKER_CB_STATE], BREAKER_HALF_OPEN);
    assert_int_equal(shown[METRIC_SGL_CB_OUTCOMES_TOTAL], 6);
    assert_int_equal(shown[METRIC_SMG_WORKER_CB_TRANSITIONS_TOTAL], 2);
    breaker_end(&breaker);
    collect();
    assert_int_equal(series, 0);
    breaker_init(&breaker, &options, "http://w:1");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        TEST(opens_on_failures_in_a_row),
        TEST(opens_on_half_of_the_window),
        TEST(stays_closed_below_half),
        TEST(forgets_what_left_the_window),
        TEST(neutral_outcomes_do_not_count),
        TEST(half_open_has_few_places),
        TEST(each_reopening_doubles_the_wait),
        TEST(late_outcomes_do_not_judge),
        TEST(probes_heal_without_traffic),
        TEST(a_probe_counts_beside_a_request),
        TEST(disabled_never_opens),
        TEST(other_options_start_it_anew),
        TEST(places_are_exact_under_threads),
        TEST(places_come_back_under_threads),
        TEST(metrics_tell_it_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
