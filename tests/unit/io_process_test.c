#include "io/process.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

static struct process *shell(const char *script, bool own_group) {
    const char *argv[] = {"sh", "-c", script, NULL};
    struct process_options options = {.argv = argv, .own_group = own_group, .quiet = true};
    struct process *process = NULL;
    assert_int_equal(process_start(&options, &process), 0);
    assert_true(process_pid(process) > 0);
    return process;
}

static void body_status(void) {
    struct process *process = shell("exit 7", false);
    assert_int_equal(process_wait(process, DEADLINE_NEVER), 7);
    assert_int_equal(process_wait(process, DEADLINE_NEVER), 7); /* still known */
    assert_int_equal(process_signal(process, SIGTERM), -ESRCH);
    process_free(process);
}

static void test_exit_status(void **state) {
    (void)state;
    on_loops(1, body_status);
}

static void body_signal(void) {
    struct process *process = shell("sleep 100 & wait", true);
    assert_int_equal(process_wait(process, deadline_in(30)), -ETIMEDOUT);
    assert_int_equal(process_signal(process, SIGKILL), 0);
    assert_int_equal(process_wait(process, DEADLINE_NEVER), 128 + SIGKILL);
    process_free(process);
}

static void test_signal_to_the_group(void **state) {
    (void)state;
    on_loops(1, body_signal);
}

static void body_missing(void) {
    const char *argv[] = {"/nowhere/there-is-no-such-program", NULL};
    struct process_options options = {.argv = argv, .quiet = true};
    struct process *process = NULL;
    assert_int_equal(process_start(&options, &process), -ENOENT);
    assert_null(process);
    turns(3); /* its close callback */
}

static void test_no_such_program(void **state) {
    (void)state;
    on_loops(1, body_missing);
}

/* --- cancelled while it waits; the child is waited for again ----------------------------------- */

static struct fiber *waiter;
static int wait_result;

static void waiter_main(void *arg) {
    waiter = fiber_self();
    wait_result = process_wait(arg, DEADLINE_NEVER);
    waiter = NULL;
}

static void body_cancelled(void) {
    struct process *process = shell("sleep 0.1; exit 3", false);
    fiber_spawn(waiter_main, process);
    turns(2);
    fiber_cancel(waiter);
    turns(2);
    assert_int_equal(wait_result, -ECANCELED);
    assert_null(waiter);
    assert_int_equal(process_wait(process, DEADLINE_NEVER), 3);
    process_free(process);
}

static void test_cancelled_wait(void **state) {
    (void)state;
    on_loops(1, body_cancelled);
}

/* Our descriptors are closed in the child, its environment is the one given, its signals are open. */
static void body_clean_child(void) {
    int leak = dup(STDIN_FILENO);
    assert_true(leak >= 0);
    assert_int_equal(fcntl(leak, F_SETFD, FD_CLOEXEC), 0);
    char script[256];
    snprintf(script, sizeof script,
             "test ! -e /proc/self/fd/%d && test \"$MARK\" = yes && "
             "grep -q '^SigBlk:[[:space:]]*0*$' /proc/self/status",
             leak);
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const char *env[] = {"MARK=yes", "PATH=/usr/bin:/bin", NULL};
    struct process_options options = {.argv = argv, .env = env, .quiet = true};
    struct process *process;
    assert_int_equal(process_start(&options, &process), 0);
    assert_int_equal(process_wait(process, DEADLINE_NEVER), 0);
    process_free(process);
    close(leak);
}

static void test_clean_child(void **state) {
    (void)state;
    on_loops(1, body_clean_child);
}

static void body_many(void) {
    struct process *processes[12];
    for (int i = 0; i < 12; i++) {
        char script[32];
        snprintf(script, sizeof script, "exit %d", i);
        processes[i] = shell(script, i % 2);
    }
    for (int i = 11; i >= 0; i--) {
        assert_int_equal(process_wait(processes[i], DEADLINE_NEVER), i);
        process_free(processes[i]);
    }
}

static void test_many_children(void **state) {
    (void)state;
    on_loops(1, body_many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_status),     cmocka_unit_test(test_signal_to_the_group),
        cmocka_unit_test(test_no_such_program), cmocka_unit_test(test_cancelled_wait),
        cmocka_unit_test(test_clean_child),     cmocka_unit_test(test_many_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
