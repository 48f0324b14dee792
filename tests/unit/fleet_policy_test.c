/* The fleet that a choice looks at is the test's own. */
#include "fleet/fleet.h"
static const struct fleet *test_fleet;
static const struct fleet *fleet_now_here(void) { return test_fleet; }
#define fleet_now fleet_now_here
#include "fleet/policy.c"
#undef fleet_now

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/rand.h"
#include "fleet/worker_build.h"

enum { WORKERS = 8 };
static struct worker *workers[WORKERS];
static struct fleet *fleet;
static struct policy *policy;
static const struct facts facts = {.model = STR_INIT("unknown")};
static const struct fleet_settings settings = {
    .breaker = {false, 5, 2, 30000, 60000}, .upstream_idle_per_worker = 1, .connect_timeout_s = 1};

static struct worker *make_worker(int i, enum worker_role role) {
    char url[64], id[UUID_LEN + 1];
    struct worker_spec spec;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", 9000 + i);
    worker_spec_init(&spec, str_from(url));
    spec.role = role;
    uuid_v7(id);
    struct worker_plan plan = {
        .id = id, .revision = 1, .index = (uint32_t)i, .spec = &spec, .settings = &settings};
    struct worker *worker = worker_build(&plan);
    atomic_store(&worker->run->status, WORKER_READY);
    return worker;
}

static void use_policy(const char *name) {
    policy_free(policy);
    policy = policy_new(policy_find(str_from(name)));
}

static void use_workers(int count) {
    for (int i = 0; i < count; i++)
        workers[i] = make_worker(i, ROLE_REGULAR);
    fleet = fleet_build(workers, (size_t)count, 1);
    test_fleet = fleet;
}

static int teardown(void **state) {
    (void)state;
    if (fleet != NULL)
        fleet_destroy(fleet);
    fleet = NULL;
    for (int i = 0; i < WORKERS; i++) {
        worker_unref(workers[i]);
        workers[i] = NULL;
    }
    policy_free(policy);
    policy = NULL;
    worker_fail_open(false);
    return 0;
}

static struct choice choose(struct worker *const *tried, size_t count, bool dry) {
    struct choice choice;
    policy_choose(policy, ROLE_REGULAR, &facts, tried, count, dry, &choice);
    return choice;
}

static int index_of(const struct worker *worker) {
    for (int i = 0; i < WORKERS; i++) {
        if (worker != NULL && workers[i] == worker)
            return i;
    }
    return -1;
}

static void open_circuit(struct worker *worker) {
    for (int i = 0; i < 5; i++)
        breaker_record(&worker->run->breaker, breaker_enter(&worker->run->breaker, clock_ms()),
                       BREAKER_FAILURE, clock_ms());
    assert_int_equal(breaker_state(&worker->run->breaker), BREAKER_OPEN);
}

static void names_are_found(void **state) {
    (void)state;
    assert_string_equal(policy_find(STR("Round_Robin"))->name, "round_robin");
    assert_string_equal(policy_find(STR("ROUNDROBIN"))->name, "round_robin");
    assert_string_equal(policy_find(STR("cacheaware"))->name, "cache_aware");
    assert_null(policy_find(STR("round")));
    assert_null(policy_find(STR("")));
    assert_null(policy_find(STR("randomm")));
    assert_null(policy_name_at(POLICY_SLOTS));
    for (size_t i = 0; i < POLICY_SLOTS; i++)
        assert_non_null(policy_find(str_from(policy_name_at(i))));
    assert_true(policy_find(STR("random"))->implemented);
    assert_false(policy_find(STR("cache_aware"))->implemented);
    use_policy("cache_aware");
    assert_string_equal(policy_name(policy), "round_robin");
}

static void round_robin_takes_turns(void **state) {
    (void)state;
    use_policy("round_robin");
    use_workers(3);
    for (int i = 0; i < 9; i++) {
        struct choice choice = choose(NULL, 0, false);
        assert_int_equal(index_of(choice.worker), i % 3);
        assert_string_equal(choice.reason, "round_robin");
        assert_int_equal(choice.candidates, 3);
    }
    assert_int_equal(atomic_load(&workers[0]->run->processed), 3);
    for (int i = 0; i < 5; i++) /* a look moves nothing */
        assert_int_equal(index_of(choose(NULL, 0, true).worker), 0);
    assert_int_equal(atomic_load(&workers[0]->run->processed), 3);
    assert_int_equal(index_of(choose(NULL, 0, false).worker), 0);
}

static void nobody_is_left(void **state) {
    (void)state;
    static const struct fleet nobody;
    use_policy("random");
    test_fleet = &nobody;
    struct choice choice = choose(NULL, 0, false);
    assert_null(choice.worker);
    assert_string_equal(choice.reason, "none");
    use_workers(2);
    choice = choose(workers, 2, false);
    assert_null(choice.worker);
    assert_int_equal(choice.candidates, 0);
    atomic_store(&workers[0]->run->status, WORKER_NOT_READY);
    atomic_store(&workers[1]->run->status, WORKER_DRAINING);
    assert_null(choose(NULL, 0, false).worker);
}

static void only_those_who_can(void **state) {
    (void)state;
    use_policy("round_robin");
    use_workers(5);
    atomic_store(&workers[0]->run->status, WORKER_PENDING);
    atomic_store(&workers[1]->run->status, WORKER_FAILED);
    open_circuit(workers[2]);
    struct choice choice = choose(&workers[3], 1, false);
    assert_int_equal(index_of(choice.worker), 4);
    assert_string_equal(choice.reason, "only_candidate");
    assert_int_equal(choice.candidates, 1);
    struct choice prefill;
    policy_choose(policy, ROLE_PREFILL, &facts, NULL, 0, false, &prefill);
    assert_null(prefill.worker);
}

static void an_older_version_was_tried_too(void **state) {
    (void)state;
    use_policy("round_robin");
    use_workers(2);
    struct worker_plan plan = {.id = workers[0]->id,
                               .revision = 2,
                               .spec = workers[0]->spec,
                               .old = workers[0],
                               .settings = &settings};
    struct worker *newer = worker_build(&plan);
    assert_ptr_equal(newer->run, workers[0]->run);
    assert_ptr_equal(newer->peer, workers[0]->peer);
    for (int i = 0; i < 4; i++)
        assert_int_equal(index_of(choose(&newer, 1, false).worker), 1);
    worker_unref(newer);
}

static void a_lone_candidate_moves_the_counter(void **state) {
    (void)state;
    use_policy("round_robin");
    use_workers(2);
    atomic_store(&workers[1]->run->status, WORKER_NOT_READY);
    for (int i = 0; i < 3; i++)
        assert_string_equal(choose(NULL, 0, false).reason, "only_candidate");
    atomic_store(&workers[1]->run->status, WORKER_READY);
    assert_int_equal(index_of(choose(NULL, 0, false).worker), 1);
}

static void random_reaches_everybody(void **state) {
    (void)state;
    int hits[WORKERS] = {0};
    use_policy("random");
    use_workers(WORKERS);
    for (int i = 0; i < 8000; i++) {
        struct choice choice = choose(NULL, 0, false);
        assert_string_equal(choice.reason, "random");
        hits[index_of(choice.worker)]++;
    }
    for (int i = 0; i < WORKERS; i++)
        assert_in_range(hits[i], 800, 1200); /* 1000 +- 6.7 sigma */
}

static void passthrough_takes_the_first(void **state) {
    (void)state;
    use_policy("passthrough");
    use_workers(3);
    for (int i = 0; i < 5; i++)
        assert_int_equal(index_of(choose(NULL, 0, false).worker), 0);
    atomic_store(&workers[0]->run->status, WORKER_FAILED);
    struct choice choice = choose(NULL, 0, false);
    assert_int_equal(index_of(choice.worker), 1);
    assert_string_equal(choice.reason, "first");
}

static void fail_open_takes_the_oldest_circuit(void **state) {
    (void)state;
    struct worker_guard guard;
    use_policy("round_robin");
    use_workers(3);
    for (int i = 0; i < 3; i++)
        open_circuit(workers[i]);
    atomic_store(&workers[0]->run->breaker.changed_ms, 300);
    atomic_store(&workers[1]->run->breaker.changed_ms, 100);
    atomic_store(&workers[2]->run->breaker.changed_ms, 200);
    assert_null(choose(NULL, 0, false).worker);
    assert_false(worker_guard_begin(&guard, workers[1], 5));
    worker_fail_open(true);
    struct choice choice = choose(NULL, 0, false);
    assert_int_equal(index_of(choice.worker), 1);
    assert_string_equal(choice.reason, "fail_open");
    assert_int_equal(index_of(choose(&workers[1], 1, false).worker), 2);
    assert_true(worker_guard_begin(&guard, workers[1], 5));
    guard.outcome = BREAKER_SUCCESS;
    worker_guard_end(&guard);
    assert_int_equal(breaker_state(&workers[1]->run->breaker), BREAKER_OPEN);
    /* somebody whose circuit is closed was tried: then nobody is "open for all" */
    worker_fail_open(true);
    breaker_configure(&workers[0]->run->breaker,
                      &(struct breaker_options){false, 9, 2, 30000, 60000}, clock_ms());
    assert_null(choose(&workers[0], 1, false).worker);
}

static void guards_count_load(void **state) {
    (void)state;
    struct worker_guard one, two;
    use_policy("round_robin");
    use_workers(1);
    assert_true(worker_guard_begin(&one, workers[0], 10));
    assert_true(worker_guard_begin(&two, workers[0], 0));
    assert_int_equal(worker_load(workers[0]), 2);
    assert_int_equal(atomic_load(&workers[0]->run->tokens), 10);
    assert_int_equal(choose(NULL, 0, true).load, 2);
    worker_guard_end(&one);
    worker_guard_end(&one); /* harmless */
    assert_int_equal(worker_load(workers[0]), 1);
    assert_int_equal(atomic_load(&workers[0]->run->tokens), 0);
    worker_guard_end(&two);
    assert_int_equal(worker_load(workers[0]), 0);
}

/* --- exactness under threads ----------------------------------------------------------------- */

enum { THREADS = 4, TURNS = 30000 };
static void *choose_often(void *arg) {
    int *hits = arg;
    for (int i = 0; i < TURNS; i++)
        hits[index_of(choose(NULL, 0, false).worker)]++;
    return NULL;
}

static void round_robin_is_exact_under_threads(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    int hits[THREADS][WORKERS] = {{0}};
    use_policy("round_robin");
    use_workers(6);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, choose_often, hits[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int w = 0; w < 6; w++) {
        int sum = 0;
        for (int i = 0; i < THREADS; i++)
            sum += hits[i][w];
        assert_int_equal(sum, THREADS * TURNS / 6);
        assert_int_equal(atomic_load(&workers[w]->run->processed), THREADS * TURNS / 6);
    }
}

static void *guard_often(void *arg) {
    (void)arg;
    for (int i = 0; i < TURNS; i++) {
        struct worker_guard guard;
        if (worker_guard_begin(&guard, workers[i % 2], 3)) {
            guard.outcome = (enum breaker_outcome)(i % 3);
            worker_guard_end(&guard);
        }
    }
    return NULL;
}

static void loads_come_back_to_zero_under_threads(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    use_policy("round_robin");
    use_workers(2);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, guard_often, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int w = 0; w < 2; w++) {
        assert_int_equal(worker_load(workers[w]), 0);
        assert_int_equal(atomic_load(&workers[w]->run->tokens), 0);
        assert_int_equal(atomic_load(&workers[w]->refs), 2);
    }
}

/* --- the snapshot ---------------------------------------------------------------------------- */

static void names_lead_to_workers(void **state) {
    (void)state;
    use_policy("round_robin");
    use_workers(WORKERS);
    for (int i = 0; i < WORKERS; i++) {
        assert_ptr_equal(fleet_find(fleet, workers[i]->url), workers[i]);
        assert_ptr_equal(fleet_find(fleet, str_from(workers[i]->id)), workers[i]);
    }
    assert_null(fleet_find(fleet, STR("http://127.0.0.1:1")));
    assert_null(fleet_find(fleet, STR("")));
    assert_int_equal(fleet->by_role[ROLE_REGULAR].count, WORKERS);
    assert_int_equal(fleet->by_role[ROLE_DECODE].count, 0);
}

/* --- metrics --------------------------------------------------------------------------------- */

static double decisions, selections, processed;
static void sum_up(void *arg, const struct metric_sample *sample) {
    (void)arg;
    if (sample->family == METRIC_SGL_POLICY_DECISIONS_TOTAL)
        decisions += sample->value;
    if (sample->family == METRIC_SMG_WORKER_SELECTION_TOTAL)
        selections += sample->value;
    if (sample->family == METRIC_SGL_PROCESSED_REQUESTS_TOTAL)
        processed += sample->value;
}

static void sum_all(void) {
    decisions = selections = processed = 0;
    metric_collect(sum_up, NULL);
}

static void choices_are_counted_and_series_go(void **state) {
    use_policy("round_robin");
    use_workers(3);
    for (int i = 0; i < 10; i++)
        choose(NULL, 0, i % 2 == 1);
    sum_all();
    assert_true(decisions == 5 && selections == 5 && processed == 5);
    teardown(state);
    sum_all();
    assert_true(decisions == 0 && selections == 0 && processed == 0);
}

#define TEST(fn) cmocka_unit_test_teardown(fn, teardown)

int main(void) {
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        TEST(names_are_found),
        TEST(round_robin_takes_turns),
        TEST(nobody_is_left),
        TEST(only_those_who_can),
        TEST(an_older_version_was_tried_too),
        TEST(a_lone_candidate_moves_the_counter),
        TEST(random_reaches_everybody),
        TEST(passthrough_takes_the_first),
        TEST(fail_open_takes_the_oldest_circuit),
        TEST(guards_count_load),
        TEST(round_robin_is_exact_under_threads),
        TEST(loads_come_back_to_zero_under_threads),
        TEST(names_lead_to_workers),
        TEST(choices_are_counted_and_series_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
