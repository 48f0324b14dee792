/* A panic is tried in a child process whose stderr is a pipe. */
#include "base/panic.c"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/mem.h"

/* What the child said on stderr before SIGABRT ended it. */
static void run_to_abort(void (*fn)(void), char *out, size_t size) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        fn();
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = read(ends[0], out + len, size - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void say_it(void) { panic_here("slot %d of %s", 7, "registry"); }

static void break_assertion(void) { assert_always(1 + 1 == 3); }

static void say_too_much(void) {
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    panic_here("%s", text);
}

static void ask_too_much(void) { (void)mem_alloc(SIZE_MAX / 2); }

static void message_and_backtrace(void **state) {
    (void)state;
    char out[16384];
    run_to_abort(say_it, out, sizeof out);
    assert_non_null(strstr(out, "panic: "));
    assert_non_null(strstr(out, "base_panic_test.c:"));
    assert_non_null(strstr(out, "slot 7 of registry\n"));
    assert_non_null(strstr(out, "[0x")); /* a frame */
}

static void assertion_names_its_condition(void **state) {
    (void)state;
    char out[16384];
    run_to_abort(break_assertion, out, sizeof out);
    assert_non_null(strstr(out, "assertion failed: 1 + 1 == 3\n"));
}

static void a_true_assertion_goes_on(void **state) {
    (void)state;
    int seen = 0;
    assert_always(++seen == 1);
    assert_int_equal(seen, 1);
}

static void long_message_is_cut(void **state) {
    (void)state;
    char out[16384];
    run_to_abort(say_too_much, out, sizeof out);
    char *newline = strchr(out, '\n');
    assert_non_null(newline);
    assert_int_equal(newline - out, MESSAGE_SIZE - 1);
    assert_int_equal(newline[-1], 'x');
}

static void failed_allocation_names_the_size(void **state) {
    (void)state;
    char out[16384];
    run_to_abort(ask_too_much, out, sizeof out);
    assert_non_null(strstr(out, "out of memory: 9223372036854775807 bytes"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_and_backtrace),
        cmocka_unit_test(assertion_names_its_condition),
        cmocka_unit_test(a_true_assertion_goes_on),
        cmocka_unit_test(long_message_is_cut),
        cmocka_unit_test(failed_allocation_names_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
