#include "gateway/inflight.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A value falls into the first bucket whose bound is not below it. */
static void bounds_are_inclusive(void **state) {
    (void)state;
    assert_int_equal(bucket_of(0), 0);
    for (size_t i = 0; i < BOUNDS; i++) {
        assert_int_equal(bucket_of(bounds[i]), i);
        assert_int_equal(bucket_of(bounds[i] + 1), i + 1);
    }
    assert_int_equal(bucket_of(INT64_MAX), BOUNDS);
}

static void each_request_is_in_one_bucket(void **state) {
    (void)state;
    static struct loop_inflight here;
    static struct inflight requests[400];
    int64_t now = 1000000000000;
    list_init(&here.requests);
    for (int i = 0; i < 400; i++) { /* one a second, the oldest first */
        requests[i].started_us = now - (int64_t)(399 - i) * 1000000;
        list_push_back(&here.requests, &requests[i].link);
    }
    sample(&here, now);
    static const uint32_t want[BUCKETS] = {31, 30, 120, 120, 99};
    for (size_t i = 0; i < BUCKETS; i++)
        assert_int_equal(here.counts[i], want[i]);
    for (int i = 0; i < 399; i++)
        inflight_end(&requests[i]);
    inflight_end(&requests[0]); /* harmless when repeated */
    sample(&here, now);
    assert_int_equal(here.counts[0], 1);
    for (size_t i = 1; i < BUCKETS; i++)
        assert_int_equal(here.counts[i], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_inclusive),
        cmocka_unit_test(each_request_is_in_one_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
