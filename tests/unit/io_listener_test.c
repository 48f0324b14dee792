#include "io/listener.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "loop_fixture.h"

/* Connections are kept as bare descriptors: who took which, on which loop. */
#define FDS_MAX 4096

struct taken {
    int fds[FDS_MAX];
    _Atomic int count;
};

static struct taken taken[8];

static void on_accepted(void *arg, int fd) {
    struct taken *mine_here = &((struct taken *)arg)[loop_index(loop_here())];
    int at = atomic_load(&mine_here->count);
    assert_true(at < FDS_MAX);
    mine_here->fds[at] = fd;
    atomic_store(&mine_here->count, at + 1);
}

static int taken_total(void) {
    int sum = 0;
    for (unsigned i = 0; i < loops_count(); i++)
        sum += atomic_load(&taken[i].count);
    return sum;
}

/* Closes the last one that this loop took. */
static int close_one(void *arg) {
    (void)arg;
    struct taken *here = &taken[loop_index(loop_here())];
    int at = atomic_load(&here->count) - 1;
    assert_true(at >= 0);
    close(here->fds[at]);
    atomic_store(&here->count, at);
    listener_connection_closed();
    return 0;
}

static int close_all_here(void *arg) {
    while (atomic_load(&taken[loop_index(loop_here())].count) > 0)
        (void)close_one(arg);
    return 0;
}

static struct listener *listen_on(const char *host, uint16_t port) {
    struct listener_options options = {
        .host = host, .port = port, .accepted = on_accepted, .arg = taken};
    struct listener *listener;
    assert_int_equal(listener_open(&options, &listener), 0);
    assert_true(listener_port(listener) > 0);
    return listener;
}

static void close_everywhere(void) {
    for (unsigned i = 0; i < loops_count(); i++)
        (void)loop_call(loop_at(i), close_all_here, NULL);
}

/* --- opening ---------------------------------------------------------------------------------- */

static void body_in_use(void) {
    struct listener *first = listen_on("127.0.0.1", 0), *second = NULL;
    struct listener_options options = {.host = "127.0.0.1", .port = listener_port(first)};
    assert_int_equal(listener_open(&options, &second), -EADDRINUSE);
    listener_start(first);
    assert_int_equal(listener_open(&options, &second), -EADDRINUSE);
    options.host = "localhost"; /* one of its addresses is taken */
    assert_int_equal(listener_open(&options, &second), -EADDRINUSE);
    options.host = "no-such-host.invalid";
    assert_int_equal(listener_open(&options, &second), -EADDRNOTAVAIL);
    options.host = "192.0.2.1"; /* nobody has it */
    assert_int_equal(listener_open(&options, &second), -EADDRNOTAVAIL);
    assert_null(second);
    uint16_t port = listener_port(first);
    listener_close(first);
    second = listen_on("127.0.0.1", port); /* free again */
    listener_close(second);
}

static void test_address_in_use(void **state) {
    (void)state;
    on_loops(2, body_in_use);
}

static bool has_ipv6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void body_hosts(void) {
    static const char *const hosts[] = {"127.0.0.1", "0.0.0.0", "localhost", "[::1]", "::1", "::"};
    for (int i = 0; i < (has_ipv6() ? 6 : 3); i++) {
        struct listener *listener = listen_on(hosts[i], 0);
        uint16_t port = listener_port(listener);
        listener_close(listener);
        listener = listen_on(hosts[i], port); /* all addresses of the name */
        listener_start(listener);
        if (strchr(hosts[i], '1') == NULL || hosts[i][0] == '1') {
            int fd = raw_connect(listener_port(listener));
            await(taken_total() == 1);
            close_everywhere();
            close(fd);
        }
        listener_close(listener);
    }
}

static void test_hosts(void **state) {
    (void)state;
    on_loops(2, body_hosts);
}

/* --- balance ----------------------------------------------------------------------------------- */

#define CROWD 400

static void body_balance(void) {
    int clients[CROWD];
    struct listener *listener = listen_on("127.0.0.1", 0);
    listener_start(listener);
    for (int i = 0; i < CROWD; i++)
        clients[i] = raw_connect(listener_port(listener));
    await(taken_total() == CROWD);
    for (unsigned i = 1; i < loops_count(); i++) {
        int count = atomic_load(&taken[i].count);
        assert_true(count > CROWD / 3 * 3 / 4 && count < CROWD / 3 * 5 / 4);
        assert_int_equal(atomic_load(&loop_stats(loop_at(i))->connections), count);
    }
    assert_int_equal(atomic_load(&taken[0].count), 0);
    assert_int_equal(atomic_load(&limits.connections), CROWD);
    close_everywhere();
    for (unsigned i = 0; i < loops_count(); i++)
        assert_int_equal(atomic_load(&loop_stats(loop_at(i))->connections), 0);
    assert_int_equal(atomic_load(&limits.connections), 0);
    for (int i = 0; i < CROWD; i++)
        close(clients[i]);
    listener_close(listener);
}

static void test_connections_are_balanced(void **state) {
    (void)state;
    on_loops(3, body_balance);
}

static void body_control_loop(void) {
    struct listener_options options = {.host = "127.0.0.1",
                                       .control_loop = true,
                                       .unlimited = true,
                                       .accepted = on_accepted,
                                       .arg = taken};
    struct listener *listener, *other = listen_on("127.0.0.1", 0);
    assert_int_equal(listener_open(&options, &listener), 0);
    listener_limit(1);
    listener_start(listener);
    listener_start(other);
    int one = raw_connect(listener_port(other)), two = raw_connect(listener_port(other));
    await(listener_paused());
    int probe = raw_connect(listener_port(listener)); /* served although the others wait */
    await(atomic_load(&taken[0].count) == 1);
    assert_int_equal(taken_total(), 2);
    listener_limit(0);
    await(taken_total() == 3); /* a raised limit ends the pause */
    close_everywhere();
    close(one);
    close(two);
    close(probe);
    listener_close(listener);
    listener_close(other);
}

static void test_control_loop_listener(void **state) {
    (void)state;
    on_loops(2, body_control_loop);
}

/* --- limits: whoever comes at the limit waits, and is served later ------------------------------ */

#define LIMIT 20
#define COMERS 60

/* Each client must get one byte from whoever serves it. */
static int greet_here(void *arg) {
    struct taken *here = &taken[loop_index(loop_here())];
    for (int i = 0; i < atomic_load(&here->count); i++)
        *(int *)arg += (int)write(here->fds[i], "!", 1);
    return close_all_here(NULL);
}

static void body_connection_limit(void) {
    int clients[COMERS], served = 0;
    struct listener *listener = listen_on("127.0.0.1", 0);
    listener_limit(LIMIT);
    listener_start(listener);
    for (int i = 0; i < COMERS; i++)
        clients[i] = raw_connect(listener_port(listener));
    while (served < COMERS) {
        await(taken_total() > 0);
        assert_true(taken_total() <= LIMIT + 2); /* both loops may look before either counts */
        for (unsigned i = 1; i < loops_count(); i++)
            assert_int_equal(loop_call(loop_at(i), greet_here, &served), 0);
    }
    assert_int_equal(served, COMERS);
    assert_true(listener_pauses() > 0);
    for (int i = 0; i < COMERS; i++) {
        char byte;
        assert_int_equal(raw_read(clients[i], &byte, 1, 5000), 1);
        close(clients[i]);
    }
    await(!listener_paused());
    listener_close(listener);
}

static void test_connection_limit(void **state) {
    (void)state;
    on_loops(2, body_connection_limit);
}

/* Upstream sockets hold the descriptors; when they go, accepting must go on although no client closed. */
static void body_descriptors_of_others(void) {
    struct listener *listener = listen_on("127.0.0.1", 0);
    struct rlimit few = {100, 100};
    uint64_t before, now;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    descriptors_raise(&before, &now);
    assert_int_equal(now, 100);
    assert_int_equal(descriptors_limit(), 100);
    listener_start(listener);
    descriptors_count(200);
    int client = raw_connect(listener_port(listener));
    await(listener_paused());
    assert_int_equal(taken_total(), 0);
    descriptors_count(-200);
    await(taken_total() == 1);
    assert_false(listener_paused());
    close_everywhere();
    close(client);
    listener_close(listener);
}

static void test_descriptors_of_others(void **state) {
    (void)state;
    if (UNDER_VALGRIND)
        skip();
    on_loops(2, body_descriptors_of_others);
}

/* A real shortage: the clients are another process, so that only our descriptors are counted. */
#define SHORT_OF 64
#define MANY 200

struct crowd {
    uint16_t port;
    _Atomic int greeted;
};

static void crowd_main(void *arg) {
    struct crowd *crowd = arg;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit enough = {1024, 1024};
        int clients[MANY], greeted = 0;
        char byte;
        if (setrlimit(RLIMIT_NOFILE, &enough) != 0)
            _exit(254);
        for (int i = 0; i < MANY; i++)
            clients[i] = raw_connect(crowd->port);
        for (int i = 0; i < MANY; i++)
            greeted += raw_read(clients[i], &byte, 1, 20000) == 1;
        _exit(greeted);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    atomic_store(&crowd->greeted, WEXITSTATUS(status));
}

static void body_shortage(void) {
    struct script script;
    struct crowd crowd = {0};
    struct listener *listener = listen_on("127.0.0.1", 0);
    struct rlimit limit;
    uint64_t before, now;
    int served = 0;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = SHORT_OF;
    limit.rlim_max = limit.rlim_max < 1024 ? limit.rlim_max : 1024;
    crowd.port = listener_port(listener);
    descriptors_raise(&before, &now);
    atomic_store(&limits.max_descriptors, SHORT_OF);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    listener_start(listener);
    script_start(&script, crowd_main, &crowd);
    while (served < MANY) {
        await(taken_total() > 0);
        for (unsigned i = 1; i < loops_count(); i++)
            assert_int_equal(loop_call(loop_at(i), greet_here, &served), 0);
        assert_true(descriptors_in_use() <= SHORT_OF);
        (void)fiber_sleep(5); /* lets them queue */
    }
    script_join(&script);
    assert_int_equal(atomic_load(&crowd.greeted), MANY);
    listener_close(listener);
}

static void test_shortage_of_descriptors(void **state) {
    (void)state;
    if (UNDER_VALGRIND)
        skip();
    on_loops(2, body_shortage);
}

/* EMFILE itself: nothing counted on it, the reserve is used, and it is tried again. */
static void body_emfile(void) {
    struct listener *listener = listen_on("127.0.0.1", 0);
    struct rlimit limit, none;
    uint64_t before, now;
    descriptors_raise(&before, &now);
    atomic_store(&limits.max_descriptors, UINT64_MAX);
    listener_start(listener);
    int client = raw_connect(listener_port(listener)), spare = dup(client);
    await(taken_total() == 1);
    close_everywhere();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){3, limit.rlim_max};
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct sockaddr_in address = local_address(listener_port(listener));
    assert_int_equal(connect(late, (struct sockaddr *)&address, sizeof address), 0);
    (void)fiber_sleep(50);
    assert_int_equal(taken_total(), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    await(taken_total() == 1);
    await(atomic_load(&limits.reserve) >= 0);
    close_everywhere();
    close(client);
    close(spare);
    close(late);
    listener_close(listener);
}

static void test_emfile(void **state) {
    (void)state;
    if (UNDER_VALGRIND)
        skip();
    on_loops(1, body_emfile);
}

/* --- closing ----------------------------------------------------------------------------------- */

static void body_close(void) {
    struct listener *listener = listen_on("127.0.0.1", 0);
    uint16_t port = listener_port(listener);
    struct sockaddr_in address = local_address(port);
    listener_start(listener);
    int client = raw_connect(port);
    await(taken_total() == 1);
    listener_close(listener);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    char byte;
    assert_int_equal(raw_read(client, &byte, 1, 20), -1); /* what was accepted lives on */
    close_everywhere();
    assert_int_equal(raw_read(client, &byte, 1, 5000), 0);
    close(client);
    listener = listen_on("127.0.0.1", 0); /* never started */
    listener_close(listener);
    listener = listen_on("127.0.0.1", 0); /* started a moment ago */
    listener_start(listener);
    listener_close(listener);
}

static void test_close(void **state) {
    (void)state;
    on_loops(2, body_close);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_connections_are_balanced),
        cmocka_unit_test(test_control_loop_listener),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_descriptors_of_others),
        cmocka_unit_test(test_shortage_of_descriptors),
        cmocka_unit_test(test_emfile),
        cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
