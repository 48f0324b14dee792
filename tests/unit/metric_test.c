/* The registry: the table's own rules, counting from many threads, numbers used again, and scrapes
 * while others count (which the thread sanitizer watches). */
#include "base/metric.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* --- reading one series back ----------------------------------------------------------------- */

struct reading {
    enum metric_id family;
    const char *first_label; /* NULL: any */
    int seen;
    double value, sum;
    uint64_t counts[MAX_BUCKETS + 1];
    size_t buckets;
};

static void keep(void *arg, const struct metric_sample *sample) {
    struct reading *reading = arg;
    if (sample->family != reading->family)
        return;
    if (reading->first_label && strcmp(sample->label_values[0], reading->first_label) != 0)
        return;
    reading->seen++;
    reading->value = sample->value;
    reading->sum = sample->sum;
    reading->buckets = sample->buckets;
    if (sample->bounds)
        memcpy(reading->counts, sample->counts, (sample->buckets + 1) * sizeof(uint64_t));
}

static struct reading read_metric(enum metric_id family, const char *first_label) {
    struct reading reading = {.family = family, .first_label = first_label};
    metric_collect(keep, &reading);
    return reading;
}

static double value_now(enum metric_id family, const char *first_label) {
    struct reading reading = read_metric(family, first_label);
    assert_int_equal(reading.seen, 1);
    return reading.value;
}

static bool ends_with(const char *text, const char *end) {
    return str_ends(str_from(text), str_from(end));
}

/* --- the table ------------------------------------------------------------------------------- */

static void check_name(const struct metric_family *family) {
    static const char *const prefixes[][2] = {
        [METRIC_LEGACY] = {"sgl_router_", "sgl_router_"},
        [METRIC_LAYERED] = {"smg_", "smg_"},
        [METRIC_OURS] = {"sluice_", "process_"},
    };
    struct str name = str_from(family->name);
    assert_true(str_starts(name, str_from(prefixes[family->generation][0])) ||
                str_starts(name, str_from(prefixes[family->generation][1])));
    for (size_t i = 0; i < name.len; i++)
        assert_true((name.ptr[i] >= 'a' && name.ptr[i] <= 'z') || name.ptr[i] == '_');
    assert_int_equal(family->type == METRIC_TYPE_COUNTER, ends_with(family->name, "_total"));
    if (family->type == METRIC_TYPE_D20)
        assert_int_equal(family->generation, METRIC_LEGACY);
}

static void table_is_sound(void **state) {
    (void)state;
    for (size_t i = 0; i < METRIC_FAMILY_COUNT; i++) {
        const struct metric_family *family = &metric_families[i];
        check_name(family);
        assert_true(family->label_count <= METRIC_MAX_LABELS);
        for (size_t l = 0; l < METRIC_MAX_LABELS; l++)
            assert_int_equal(family->labels[l] != NULL, l < family->label_count);
        assert_true(ends_with(family->help, "."));
        assert_null(strpbrk(family->help, "\n\\"));
        for (size_t other = i + 1; other < METRIC_FAMILY_COUNT; other++)
            assert_string_not_equal(family->name, metric_families[other].name);
    }
    assert_string_equal(metric_families[METRIC_SGL_REQUESTS_TOTAL].name,
                        "sgl_router_requests_total");
    assert_string_equal(metric_families[METRIC_SMG_ROUTER_REQUESTS_TOTAL].labels[5], "streaming");
    assert_int_equal(metric_families[METRIC_SGL_ACTIVE_WORKERS].label_count, 0);
}

static void bounds_ascend(void **state) {
    (void)state;
    for (int type = METRIC_TYPE_D20; type < METRIC_TYPE_COUNT; type++) {
        const struct bounds *bounds = &bounds_of_type[type];
        for (size_t i = 1; i < bounds->count; i++)
            assert_true(bounds->upper[i - 1] < bounds->upper[i]);
        assert_true(bounds->upper[bounds->count] == 0); /* the count is right */
    }
    assert_true(bounds_of_type[METRIC_TYPE_D20].upper[19] == 240);
    assert_true(bounds_of_type[METRIC_TYPE_D29].upper[28] == 7200);
}

/* Runs first: nothing may have been made. */
static void own_buckets(void **state) {
    (void)state;
    struct bounds before[2] = {bounds_of_type[METRIC_TYPE_D20], bounds_of_type[METRIC_TYPE_D29]};
    static double many[MAX_BUCKETS + 1];
    for (size_t i = 0; i < MAX_BUCKETS + 1; i++)
        many[i] = (double)i;
    assert_int_equal(metric_set_buckets(many, 0), -EINVAL);
    assert_int_equal(metric_set_buckets(many, MAX_BUCKETS + 1), -EINVAL);
    assert_int_equal(metric_set_buckets((double[]){1, 1}, 2), -EINVAL);
    assert_int_equal(metric_set_buckets((double[]){2, 1}, 2), -EINVAL);
    assert_int_equal(metric_set_buckets((double[]){1, NAN}, 2), -EINVAL);
    assert_int_equal(metric_set_buckets((double[]){1, INFINITY}, 2), -EINVAL);
    assert_memory_equal(&before[0], &bounds_of_type[METRIC_TYPE_D20], sizeof before[0]);
    assert_int_equal(metric_set_buckets(many, MAX_BUCKETS), 0);
    assert_int_equal(bounds_of_type[METRIC_TYPE_OVERHEAD].count, 12);
    assert_int_equal(cells_of(METRIC_SGL_REQUEST_DURATION_SECONDS), MAX_CELLS);
    assert_int_equal(metric_set_buckets((double[]){0.5, 1.5}, 2), 0);
    assert_int_equal(cells_of(METRIC_SMG_HTTP_REQUEST_DURATION_SECONDS), 4);
    bounds_of_type[METRIC_TYPE_D20] = before[0];
    bounds_of_type[METRIC_TYPE_D29] = before[1];
    metric_drop(metric_ref_of(METRIC_SGL_RETRIES_TOTAL, "x"));
    assert_int_equal(metric_set_buckets((double[]){1}, 1), -EINVAL); /* too late */
}

/* --- counting -------------------------------------------------------------------------------- */

static void number_zero_is_nowhere(void **state) {
    (void)state;
    metric_add(0, 5);
    metric_observe(0, 1);
    metric_set(0, 1);
    metric_gauge_add(0, 1);
    metric_drop(0);
}

static void same_labels_same_series(void **state) {
    (void)state;
    metric_ref a = metric_ref_of(METRIC_SGL_REQUESTS_TOTAL, "/generate", "/generate", "POST");
    metric_ref b = metric_ref_of(METRIC_SGL_REQUESTS_TOTAL, "/generate", "/generate", "POST");
    metric_ref c = metric_ref_of(METRIC_SGL_REQUESTS_TOTAL, "/generate", "/generatePOST", "");
    assert_int_not_equal(a, 0);
    assert_int_equal(a, b);
    assert_int_not_equal(a, c);
    metric_inc(a);
    metric_add(b, 41);
    assert_int_equal(read_metric(METRIC_SGL_REQUESTS_TOTAL, "/generate").seen, 2);
    metric_drop(c);
    assert_true(value_now(METRIC_SGL_REQUESTS_TOTAL, "/generate") == 42);
    metric_drop(a); /* one of two references */
    assert_true(value_now(METRIC_SGL_REQUESTS_TOTAL, "/generate") == 42);
    metric_drop(b);
    assert_int_equal(read_metric(METRIC_SGL_REQUESTS_TOTAL, NULL).seen, 0);
}

static void histogram_bounds_are_inclusive(void **state) {
    (void)state;
    metric_ref ref = metric_ref_of(METRIC_SGL_GENERATE_DURATION_SECONDS);
    const double values[] = {0, -3, 0.001, 0.0011, 240, 240.5, 0.5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        metric_observe(ref, values[i]);
    metric_observe(ref, NAN);
    metric_observe(ref, INFINITY);
    struct reading got = read_metric(METRIC_SGL_GENERATE_DURATION_SECONDS, NULL);
    assert_int_equal(got.seen, 1);
    assert_int_equal(got.buckets, 20);
    assert_int_equal(got.counts[0], 3); /* 0, a clock that went back, 0.001 */
    assert_int_equal(got.counts[1], 1);
    assert_int_equal(got.counts[7], 1); /* 0.5 */
    assert_int_equal(got.counts[19], 1);
    assert_int_equal(got.counts[20], 1);
    assert_true(fabs(got.sum - 481.0021) < 1e-9);
    metric_drop(ref);
}

static void gauges_and_set_counters(void **state) {
    (void)state;
    metric_ref gauge = metric_ref_of(METRIC_SGL_ACTIVE_WORKERS);
    metric_set(gauge, 3);
    metric_gauge_add(gauge, -1.5);
    assert_true(value_now(METRIC_SGL_ACTIVE_WORKERS, NULL) == 1.5);
    metric_ref total = metric_ref_of(METRIC_PROCESS_CPU_SECONDS_TOTAL);
    metric_set(total, 12.25);
    assert_true(value_now(METRIC_PROCESS_CPU_SECONDS_TOTAL, NULL) == 12.25);
    metric_drop(gauge);
    metric_drop(total);
}

/* --- numbers used again ---------------------------------------------------------------------- */

static void reuse_starts_from_zero(void **state) {
    (void)state;
    metric_ref counter = metric_ref_of(METRIC_SGL_RETRIES_TOTAL, "/a");
    metric_ref timer = metric_ref_of(METRIC_SGL_REQUEST_DURATION_SECONDS, "/a");
    metric_ref gauge = metric_ref_of(METRIC_SGL_WORKER_LOAD, "/a");
    for (int i = 0; i < 1000; i++)
        metric_observe(timer, 0.1);
    metric_add(counter, 7);
    metric_set(gauge, 7);
    metric_drop(gauge);
    metric_drop(counter);
    metric_drop(timer);
    assert_int_equal(metric_ref_of(METRIC_SGL_REQUEST_DURATION_SECONDS, "/b"), timer);
    assert_int_equal(metric_ref_of(METRIC_SGL_PROCESSED_REQUESTS_TOTAL, "/b"), counter);
    assert_int_equal(metric_ref_of(METRIC_SGL_RETRIES_TOTAL, "/b"), gauge);
    struct reading got = read_metric(METRIC_SGL_REQUEST_DURATION_SECONDS, "/b");
    assert_int_equal(got.seen, 1);
    assert_true(got.sum == 0);
    for (size_t i = 0; i <= got.buckets; i++)
        assert_int_equal(got.counts[i], 0);
    metric_observe(timer, 0.25);
    metric_add(counter, 2);
    got = read_metric(METRIC_SGL_REQUEST_DURATION_SECONDS, "/b");
    assert_int_equal(got.counts[6], 1);
    assert_true(fabs(got.sum - 0.25) < 1e-9);
    assert_true(value_now(METRIC_SGL_PROCESSED_REQUESTS_TOTAL, "/b") == 2);
    assert_true(value_now(METRIC_SGL_RETRIES_TOTAL, "/b") == 0);
    metric_drop(timer);
    metric_drop(counter);
    metric_drop(gauge);
}

static void a_full_family_refuses(void **state) {
    (void)state;
    static metric_ref refs[METRIC_MAX_SERIES];
    char name[32];
    for (int i = 0; i < METRIC_MAX_SERIES; i++) {
        snprintf(name, sizeof name, "http://w%d", i);
        refs[i] = metric_ref_of(METRIC_SMG_WORKER_HEALTH, name);
        assert_int_not_equal(refs[i], 0);
    }
    assert_int_equal(metric_ref_of(METRIC_SMG_WORKER_HEALTH, "one more"), 0);
    assert_int_equal(metric_ref_of(METRIC_SMG_WORKER_HEALTH, "http://w0"), refs[0]);
    assert_true(value_now(METRIC_SLUICE_METRIC_SERIES_REFUSED_TOTAL, "smg_worker_health") == 1);
    metric_drop(refs[0]);
    for (int i = 0; i < METRIC_MAX_SERIES; i++)
        metric_drop(refs[i]);
    assert_int_equal(read_metric(METRIC_SMG_WORKER_HEALTH, NULL).seen, 0);
    metric_ref again = metric_ref_of(METRIC_SMG_WORKER_HEALTH, "one more");
    assert_int_not_equal(again, 0);
    metric_drop(again);
}

/* A series never crosses from one chunk into the next. */
static void series_stay_within_chunks(void **state) {
    (void)state;
    metric_ref refs[100];
    char name[32];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "kind %d", i);
        refs[i] = metric_ref_of(METRIC_SLUICE_JOB_DURATION_SECONDS, name);
        assert_int_equal(refs[i] / CHUNK_CELLS,
                         (refs[i] + cells_of(METRIC_SLUICE_JOB_DURATION_SECONDS) - 1) /
                             CHUNK_CELLS);
        metric_observe(refs[i], i);
    }
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "kind %d", i);
        assert_true(read_metric(METRIC_SLUICE_JOB_DURATION_SECONDS, name).sum == i);
        metric_drop(refs[i]);
    }
}

/* --- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000 };

struct job {
    metric_ref counter, timer, gauge;
};

static void *count(void *arg) {
    const struct job *job = arg;
    for (int i = 0; i < ROUNDS; i++) {
        metric_inc(job->counter);
        metric_observe(job->timer, 0.002);
        metric_gauge_add(job->gauge, i % 2 ? -1 : 1);
        if (i % 1000 == 0)
            metric_drop(
                metric_ref_of(METRIC_SGL_CB_STATE_TRANSITIONS_TOTAL, "w", "open", "closed"));
    }
    return NULL;
}

static void threads_count_while_scraped(void **state) {
    (void)state;
    struct job job = {metric_ref_of(METRIC_SLUICE_JOBS_TOTAL, "add", "success"),
                      metric_ref_of(METRIC_SLUICE_OVERHEAD_SECONDS, "http"),
                      metric_ref_of(METRIC_SLUICE_JOBS, "pending")};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, &job);
    double before = 0;
    for (int i = 0; i < 50; i++) {
        double now = value_now(METRIC_SLUICE_JOBS_TOTAL, "add");
        assert_true(now >= before);
        before = now;
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(value_now(METRIC_SLUICE_JOBS_TOTAL, "add") == THREADS * ROUNDS);
    assert_true(value_now(METRIC_SLUICE_JOBS, "pending") == 0);
    struct reading got = read_metric(METRIC_SLUICE_OVERHEAD_SECONDS, "http");
    assert_int_equal(got.counts[6], THREADS * ROUNDS);
    assert_true(fabs(got.sum - THREADS * ROUNDS * 0.002) < 1e-6);
    metric_drop(job.counter);
    metric_drop(job.timer);
    metric_drop(job.gauge);
}

static void *count_once(void *arg) {
    metric_inc(*(const metric_ref *)arg);
    return NULL;
}

static size_t shard_count(void) {
    size_t shards = 0;
    for (const struct shard *shard = registry.shards; shard != NULL; shard = shard->next)
        shards++;
    return shards;
}

static void ended_threads_leave_counts_and_shards(void **state) {
    (void)state;
    metric_ref ref = metric_ref_of(METRIC_SLUICE_ACCEPT_PAUSES_TOTAL);
    pthread_t thread;
    pthread_create(&thread, NULL, count_once, &ref);
    pthread_join(thread, NULL);
    size_t before = shard_count();
    for (int i = 0; i < 100; i++) {
        pthread_create(&thread, NULL, count_once, &ref);
        pthread_join(thread, NULL);
    }
    assert_int_equal(shard_count(), before);
    assert_true(value_now(METRIC_SLUICE_ACCEPT_PAUSES_TOTAL, NULL) == 101);
    metric_drop(ref);
}

static void set_at_scrape(void *arg) {
    metric_set(metric_ref_of(METRIC_SLUICE_CONFIG_VERSION), ++*(double *)arg);
}

static void hooks_run_at_each_scrape(void **state) {
    (void)state;
    static double version;
    metric_on_scrape(set_at_scrape, &version);
    assert_true(value_now(METRIC_SLUICE_CONFIG_VERSION, NULL) == 1);
    assert_true(value_now(METRIC_SLUICE_CONFIG_VERSION, NULL) == 2);
}

struct walk {
    int last, families;
};

static void check_order(void *arg, const struct metric_sample *sample) {
    struct walk *walk = arg;
    assert_true((int)sample->family >= walk->last);
    walk->families += (int)sample->family != walk->last;
    walk->last = (int)sample->family;
}

static void samples_come_family_by_family(void **state) {
    (void)state;
    metric_ref refs[] = {
        metric_ref_of(METRIC_SLUICE_JOBS, "pending"), metric_ref_of(METRIC_SGL_CB_STATE, "a"),
        metric_ref_of(METRIC_SLUICE_JOBS, "processing"), metric_ref_of(METRIC_SGL_CB_STATE, "b")};
    struct walk walk = {-1, 0};
    metric_collect(check_order, &walk);
    assert_true(walk.families >= 2);
    for (size_t i = 0; i < 4; i++)
        metric_drop(refs[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_buckets),
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(bounds_ascend),
        cmocka_unit_test(number_zero_is_nowhere),
        cmocka_unit_test(same_labels_same_series),
        cmocka_unit_test(histogram_bounds_are_inclusive),
        cmocka_unit_test(gauges_and_set_counters),
        cmocka_unit_test(reuse_starts_from_zero),
        cmocka_unit_test(a_full_family_refuses),
        cmocka_unit_test(series_stay_within_chunks),
        cmocka_unit_test(threads_count_while_scraped),
        cmocka_unit_test(ended_threads_leave_counts_and_shards),
        cmocka_unit_test(hooks_run_at_each_scrape),
        cmocka_unit_test(samples_come_family_by_family),
    };
    return cmocka_run_group_tests_name("metric", tests, NULL, NULL);
}
