/* The generic parser over a table of every type and field width. */
#include "base/optparse.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/opthelp.h"

struct all {
    bool flag, other_flag;
    int8_t small;
    uint16_t port;
    int32_t number;
    uint64_t big;
    int64_t time_ms;
    double ratio, above;
    const char *text, *choice, *key;
    struct opt_list list, repeat, pairs, urls;
    struct opt_floats floats;
    uint32_t needed;
};
#define ALL(field_) OPT_DEST(struct all, field_)

static const struct opt_row first_rows[] = {
    {.name = "flag", .type = OPT_BOOL, ALL(flag), .env = "T_FLAG", .help = "f"},
    {.name = "other-flag", .type = OPT_BOOL, ALL(other_flag), .help = "f"},
    {.name = "small", .type = OPT_INT, ALL(small), .initial = "-3", .help = "s"},
    {.name = "port",
     .aliases = "listen-port p-o-r-t",
     .type = OPT_INT,
     ALL(port),
     .initial = "80",
     OPT_RANGE(1, 65535),
     .env = "T_PORT T_PORT_OLD",
     .help = "p"},
    {.name = "number", .type = OPT_INT, ALL(number), OPT_MIN(-5), .help = "n"},
    {.name = "big", .type = OPT_INT, ALL(big), .help = "b"},
    {.name = "time-secs",
     .type = OPT_INT,
     ALL(time_ms),
     .initial = "5",
     OPT_RANGE(0, 1000),
     .scale = 1000,
     .field = "some.time",
     .help = "t"},
    {.name = "ratio",
     .type = OPT_FLOAT,
     ALL(ratio),
     .initial = "0.5",
     OPT_FRANGE(0, 1),
     .help = "r"},
    {.name = "above", .type = OPT_FLOAT, ALL(above), .initial = "1", OPT_FABOVE(0), .help = "a"},
};
static const struct opt_row second_rows[] = {
    {.name = "text", .type = OPT_STR, ALL(text), .initial = "hello", .help = "t"},
    {.name = "choice",
     .type = OPT_CHOICE,
     ALL(choice),
     .initial = "one",
     .choices = "one two",
     .help = "c"},
    {.name = "key",
     .type = OPT_STR,
     ALL(key),
     .secret = true,
     .env = "T_KEY",
     OPT_MIN(3),
     .help = "k"},
    {.name = "list", .type = OPT_LIST, ALL(list), .initial = "a b", .env = "T_LIST", .help = "l"},
    {.name = "repeat", .type = OPT_REPEAT, ALL(repeat), .help = "r"},
    {.name = "pairs", .type = OPT_PAIRS, ALL(pairs), .help = "p"},
    {.name = "url", .type = OPT_URL_PORT, ALL(urls), .help = "u"},
    {.name = "floats", .type = OPT_FLOATS, ALL(floats), OPT_FABOVE(0), .help = "f"},
    {.name = "later", .type = OPT_INT, .status = OPT_NOT_YET, .env = "T_LATER", .help = "l"},
    {.name = "later-bound",
     .type = OPT_STR,
     .status = OPT_NOT_YET,
     .env = "T_BOUND",
     .env_binds = true,
     .secret = true,
     .help = "l"},
    {.name = "nothing", .type = OPT_LIST, .status = OPT_NO_OP, .note = "it is old", .help = "n"},
    {.name = "gone", .type = OPT_BOOL, .status = OPT_ABSENT, .note = "use --flag", .help = "g"},
};
static const struct opt_row needed_rows[] = {
    {.name = "needed", .type = OPT_INT, ALL(needed), .need = true, .help = "n"},
};
static const struct opt_group groups[] = {
    {"First", first_rows, OPT_COUNT(first_rows)},
    {"Second", second_rows, OPT_COUNT(second_rows)},
    {"Third", needed_rows, OPT_COUNT(needed_rows)},
};
static const struct opt_schema schema = {.groups = groups, .count = OPT_COUNT(groups)};

/* --- harness --------------------------------------------------------------------------------- */

static struct all all;
static struct optparse *parser;

static void begin(void) {
    memset(&all, 0x5a, sizeof all);
    parser = optparse_new(&schema, &all);
}

static int end(void **state) {
    (void)state;
    optparse_free(parser);
    parser = NULL;
    return 0;
}

static int parse_words(size_t count, const char *const *words) {
    return optparse_args(parser, (int)count, (char *const *)words);
}

#define ARGS(...)                                                                                  \
    parse_words(OPT_COUNT(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__})

static void assert_list(const struct opt_list *list, const char *joined) {
    char text[256] = "";
    for (size_t i = 0; i < list->len; i++) {
        strncat(text, list->items[i], sizeof text - strlen(text) - 1);
        strncat(text, ";", sizeof text - strlen(text) - 1);
    }
    assert_string_equal(text, joined);
}

static void assert_error(int status, const char *text) {
    assert_int_equal(optparse_error(parser)->status, status);
    assert_string_equal(optparse_error(parser)->text, text);
}

/* --- values ---------------------------------------------------------------------------------- */

static void defaults_are_written_over_whatever_was_there(void **state) {
    (void)state;
    begin();
    assert_false(all.flag);
    assert_int_equal(all.small, -3);
    assert_int_equal(all.port, 80);
    assert_int_equal(all.number, 0);
    assert_true(all.big == 0);
    assert_int_equal(all.time_ms, 5000);
    assert_true(all.ratio == 0.5);
    assert_string_equal(all.text, "hello");
    assert_string_equal(all.choice, "one");
    assert_null(all.key);
    assert_list(&all.list, "a;b;");
    assert_int_equal(all.repeat.len, 0);
    assert_int_equal(optparse_source(parser, "port"), OPT_FROM_DEFAULT);
}

static void scalars_of_every_width_are_read(void **state) {
    (void)state;
    begin();
    assert_int_equal(ARGS("--small", "-128", "--port=65535", "--number", "-5", "--big",
                          "18446744073709551615", "--time-secs=7", "--ratio", "1", "--above=.001",
                          "--text=", "--choice", "two", "--key", "abc", "--flag"),
                     0);
    assert_int_equal(all.small, -128);
    assert_int_equal(all.port, 65535);
    assert_int_equal(all.number, -5);
    assert_true(all.big == UINT64_MAX);
    assert_int_equal(all.time_ms, 7000);
    assert_true(all.ratio == 1);
    assert_true(all.above == .001);
    assert_string_equal(all.text, "");
    assert_string_equal(all.choice, "two");
    assert_string_equal(all.key, "abc");
    assert_true(all.flag);
    assert_false(all.other_flag);
    assert_int_equal(optparse_source(parser, "port"), OPT_FROM_ARGS);
}

static void the_last_of_repeated_scalars_counts(void **state) {
    (void)state;
    begin();
    assert_int_equal(ARGS("--port", "1", "--text", "x", "--listen-port=2", "--text=y"), 0);
    assert_int_equal(all.port, 2);
    assert_string_equal(all.text, "y");
}

static void lists_take_words_up_to_the_next_flag(void **state) {
    (void)state;
    begin();
    assert_int_equal(ARGS("--list", "x", "y", "--flag", "--list=z", "w", "--repeat", "1",
                          "--repeat=2", "--floats", "1", "2.5"),
                     0);
    assert_list(&all.list, "x;y;z;w;");
    assert_list(&all.repeat, "1;2;");
    assert_int_equal(all.floats.len, 2);
    assert_true(all.floats.items[1] == 2.5);
}

static void an_empty_list_replaces_the_default(void **state) {
    (void)state;
    begin();
    assert_int_equal(ARGS("--list", "--flag"), 0);
    assert_list(&all.list, "");
    assert_int_equal(optparse_source(parser, "list"), OPT_FROM_ARGS);
}

static void pairs_are_split_at_blanks(void **state) {
    (void)state;
    begin();
    assert_int_equal(ARGS("--pairs", "a=1 b=2", "c=x=y", "d="), 0);
    assert_list(&all.pairs, "a=1;b=2;c=x=y;d=;");
}

static void a_url_takes_its_port_only_if_it_is_one(void **state) {
    (void)state;
    begin();
    assert_int_equal(
        ARGS("--url", "http://a", "8998", "--url=http://b", "NONE", "--url", "http://c", "--flag"),
        0);
    assert_list(&all.urls, "http://a 8998;http://b NONE;http://c;");
    end(state);
    begin();
    assert_int_equal(ARGS("--url", "http://a", "65536"), -EINVAL);
    assert_error(2, "unexpected argument '65536' after '--url'");
}

/* --- refusals -------------------------------------------------------------------------------- */

struct refusal {
    const char *words[6];
    int status;
    const char *text;
};

static const struct refusal refusals[] = {
    {{"--port", "0"}, 1, "Invalid value for field 'port': 0 - must be 1 to 65535"},
    {{"--port", "-1"}, 1, "Invalid value for field 'port': -1 - must be 1 to 65535"},
    {{"--port", "65536"}, 1, "Invalid value for field 'port': 65536 - must be 1 to 65535"},
    {{"--port", "99999999999999999999"},
     1,
     "Invalid value for field 'port': 99999999999999999999 - must be 1 to 65535"},
    {{"--small", "128"}, 1, "Invalid value for field 'small': 128 - must be -128 to 127"},
    {{"--small", "-129"}, 1, "Invalid value for field 'small': -129 - must be -128 to 127"},
    {{"--number", "-6"}, 1, "Invalid value for field 'number': -6 - must be at least -5"},
    {{"--number", "2147483648"},
     1,
     "Invalid value for field 'number': 2147483648 - must be -5 to 2147483647"},
    {{"--number", "-99999999999999999999"},
     1,
     "Invalid value for field 'number': -99999999999999999999 - must be at least -5"},
    {{"--big", "-1"}, 1, "Invalid value for field 'big': -1 - must be 0 to 18446744073709551615"},
    {{"--time-secs", "1001"}, 1, "Invalid value for field 'some.time': 1001 - must be 0 to 1000"},
    {{"--ratio", "1.01"}, 1, "Invalid value for field 'ratio': 1.01 - must be 0 to 1"},
    {{"--above", "0"}, 1, "Invalid value for field 'above': 0 - must be over 0"},
    {{"--floats", "1", "-1"}, 1, "Invalid value for field 'floats': -1 - must be over 0"},
    {{"--key", "ab"}, 1, "Invalid value for field 'key': [redacted] - must not be empty"},
    {{"--port", "x"}, 2, "invalid value 'x' for '--port': expected an integer"},
    {{"--port", "1.5"}, 2, "invalid value '1.5' for '--port': expected an integer"},
    {{"--port", "+1"}, 2, "invalid value '+1' for '--port': expected an integer"},
    {{"--port", ""}, 2, "invalid value '' for '--port': expected an integer"},
    {{"--number=--1"}, 2, "invalid value '--1' for '--number': expected an integer"},
    {{"--ratio", "nan"}, 2, "invalid value 'nan' for '--ratio': expected a number"},
    {{"--ratio", "inf"}, 2, "invalid value 'inf' for '--ratio': expected a number"},
    {{"--choice", "on"}, 2, "invalid value 'on' for '--choice': expected one of: one two"},
    {{"--pairs", "a=1 b"}, 2, "invalid value 'a=1 b' for '--pairs': expected key=value"},
    {{"--pairs", "=1"}, 2, "invalid value '=1' for '--pairs': expected key=value"},
    {{"--port"}, 2, "'--port' needs a value"},
    {{"--port", "--flag"}, 2, "'--port' needs a value"},
    {{"--text", "-x"}, 2, "'--text' needs a value"},
    {{"--repeat"}, 2, "'--repeat' needs a value"},
    {{"--flag=1"}, 2, "'--flag' takes no value"},
    {{"--flag", "x"}, 2, "unexpected argument 'x' after '--flag'"},
    {{"--key", "abc", "more"}, 2, "unexpected argument '[redacted]' after '--key'"},
    {{"x"}, 2, "unexpected argument 'x'"},
    {{"-f"}, 2, "unknown option '-f'"},
    {{"-"}, 2, "unexpected argument '-'"},
    {{"--"}, 2, "unknown option '--'"},
    {{"--prot", "1"}, 2, "unknown flag '--prot': did you mean '--port'?"},
    {{"--other_flag"}, 2, "unknown flag '--other_flag': did you mean '--other-flag'?"},
    {{"--choi"}, 2, "unknown flag '--choi': did you mean '--choice'?"},
    {{"--completely-else"}, 2, "unknown flag '--completely-else'"},
    {{"--later", "3"}, 2, "--later is not available in this version yet"},
    {{"--later-bound=abc"}, 2, "--later-bound is not available in this version yet"},
    {{"--gone"}, 2, "--gone is not available: use --flag"},
    /* a usage error weighs more than a value out of range before it */
    {{"--port", "0", "--what"}, 2, "unknown flag '--what'"},
    {{"--port", "0", "--ratio", "7"}, 1, "Invalid value for field 'port': 0 - must be 1 to 65535"},
};

static void bad_words_are_refused_with_these_messages(void **state) {
    (void)state;
    for (size_t i = 0; i < OPT_COUNT(refusals); i++) {
        const struct refusal *refusal = &refusals[i];
        size_t count = 0;
        while (count < 6 && refusal->words[count] != NULL)
            count++;
        begin();
        assert_int_equal(parse_words(count, refusal->words), -EINVAL);
        assert_error(refusal->status, refusal->text);
        end(state);
    }
}

static void needed_rows_are_asked_for(void **state) {
    (void)state;
    begin();
    assert_int_equal(optparse_finish(parser), -EINVAL);
    assert_error(2, "'--needed' is required");
    end(state);
    begin();
    assert_int_equal(ARGS("--needed", "0"), 0);
    assert_int_equal(optparse_finish(parser), 0);
    end(state);
    begin();
    assert_int_equal(ARGS("--help"), 0);
    assert_int_equal(optparse_finish(parser), 0);
    assert_true(optparse_wants_help(parser));
}

static void no_op_rows_are_told(void **state) {
    (void)state;
    size_t cursor = 0;
    begin();
    assert_null(optparse_next_no_op(parser, &cursor));
    assert_int_equal(ARGS("--nothing", "a", "b", "--flag"), 0);
    cursor = 0;
    const struct opt_row *row = optparse_next_no_op(parser, &cursor);
    assert_string_equal(row->name, "nothing");
    assert_null(optparse_next_no_op(parser, &cursor));
    assert_true(all.flag);
}

/* --- environment ----------------------------------------------------------------------------- */

static const char *env_names[4], *env_values[4];

static const char *fake_env(const char *name) {
    for (size_t i = 0; i < 4; i++)
        if (env_names[i] != NULL && strcmp(env_names[i], name) == 0)
            return env_values[i];
    return NULL;
}

static void set_env(size_t slot, const char *name, const char *value) {
    env_names[slot] = name;
    env_values[slot] = value;
}

static void clear_env(void) { memset(env_names, 0, sizeof env_names); }

static void environment_fills_what_the_line_left(void **state) {
    (void)state;
    begin();
    set_env(0, "T_PORT_OLD", "81");
    set_env(1, "T_FLAG", "Yes");
    set_env(2, "T_LIST", " x  y ");
    set_env(3, "T_KEY", "");
    assert_int_equal(optparse_env(parser, fake_env), 0);
    assert_int_equal(all.port, 81);
    assert_true(all.flag);
    assert_list(&all.list, "x;y;");
    assert_null(all.key);
    set_env(3, "T_PORT", "82");
    assert_int_equal(optparse_env(parser, fake_env), 0);
    assert_int_equal(all.port, 82);
    assert_int_equal(ARGS("--port", "83", "--list", "z"), 0);
    assert_int_equal(optparse_env(parser, fake_env), 0);
    assert_int_equal(all.port, 83);
    assert_list(&all.list, "z;");
    clear_env();
}

static void bad_environment_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *text;
    } cases[] = {
        {"T_PORT", "x",
         "invalid value 'x' in environment variable T_PORT (--port): expected an integer"},
        {"T_PORT", "0", "Invalid value for field 'port': 0 - must be 1 to 65535"},
        {"T_FLAG", "maybe",
         "invalid value 'maybe' in environment variable T_FLAG (--flag): expected true or false"},
        {"T_KEY", "ab", "Invalid value for field 'key': [redacted] - must not be empty"},
        {"T_BOUND", "secret",
         "environment variable T_BOUND is set, but --later-bound is not available in this version "
         "yet"},
    };
    for (size_t i = 0; i < OPT_COUNT(cases); i++) {
        begin();
        set_env(0, cases[i].name, cases[i].value);
        assert_int_equal(optparse_env(parser, fake_env), -EINVAL);
        assert_error(1, cases[i].text);
        end(state);
    }
    begin();
    set_env(0, "T_LATER", "3");
    assert_int_equal(optparse_env(parser, fake_env), 0);
    clear_env();
}

/* --- file ------------------------------------------------------------------------------------ */

static int file_value(const char *name, const char *const *values, size_t count, char *reason) {
    const struct opt_row *row = optparse_find(&schema, str_from(name), true);
    return optparse_file(parser, row, values, count, reason, 512);
}

static void sources_rank_in_any_order(void **state) {
    (void)state;
    char reason[512];
    begin();
    assert_int_equal(file_value("port", (const char *[]){"90"}, 1, reason), 0);
    assert_int_equal(file_value("list", (const char *[]){"f", "g"}, 2, reason), 0);
    assert_int_equal(all.port, 90);
    assert_list(&all.list, "f;g;");
    assert_int_equal(optparse_source(parser, "list"), OPT_FROM_FILE);
    set_env(0, "T_LIST", "e");
    assert_int_equal(optparse_env(parser, fake_env), 0);
    clear_env();
    assert_list(&all.list, "e;");
    assert_int_equal(file_value("list", (const char *[]){"f", "g"}, 2, reason), 0);
    assert_list(&all.list, "e;");
    assert_int_equal(ARGS("--port", "91", "--list", "h"), 0);
    assert_int_equal(all.port, 91);
    assert_list(&all.list, "h;");
    assert_int_equal(file_value("list", (const char *[]){"f", "g"}, 2, reason), 0);
    assert_list(&all.list, "h;");
    assert_int_equal(file_value("other_flag", (const char *[]){"true"}, 1, reason), 0);
    assert_true(all.other_flag);
}

static void bad_file_values_are_refused_even_when_outranked(void **state) {
    (void)state;
    char reason[512];
    begin();
    assert_int_equal(ARGS("--port", "1"), 0);
    assert_int_equal(file_value("port", (const char *[]){"0"}, 1, reason), -EINVAL);
    assert_string_equal(reason, "'0': must be 1 to 65535");
    assert_int_equal(file_value("port", (const char *[]){"1", "2"}, 2, reason), -EINVAL);
    assert_string_equal(reason, "expected one value, found a list");
    assert_int_equal(file_value("key", (const char *[]){"ab"}, 1, reason), -EINVAL);
    assert_string_equal(reason, "must not be empty");
    assert_int_equal(file_value("later", (const char *[]){"1"}, 1, reason), -EINVAL);
    assert_string_equal(reason, "is not available in this version yet");
    assert_int_equal(all.port, 1);
}

/* --- names and help -------------------------------------------------------------------------- */

static void distances_are_counted(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        size_t limit, distance;
    } cases[] = {
        {"", "", 2, 0},       {"a", "", 2, 1},        {"abc", "abc", 2, 0},
        {"abc", "acb", 2, 1}, {"abc", "abd", 2, 1},   {"abc", "bc", 2, 1},
        {"ab", "ba", 2, 1},   {"abcd", "badc", 3, 2}, {"kitten", "sitting", 5, 3},
        {"abc", "xyz", 1, 2}, {"a", "abcdef", 2, 3},
    };
    for (size_t i = 0; i < OPT_COUNT(cases); i++) {
        struct str a = str_from(cases[i].a), b = str_from(cases[i].b);
        assert_int_equal(opt_edit_distance(a, b, cases[i].limit), cases[i].distance);
        assert_int_equal(opt_edit_distance(b, a, cases[i].limit), cases[i].distance);
    }
    char longer[100];
    memset(longer, 'x', sizeof longer);
    assert_int_equal(opt_edit_distance(str_make(longer, 100), str_make(longer, 100), 3), 4);
}

static void help_shows_usable_rows(void **state) {
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    opthelp_write(&schema, out);
    fclose(out);
    assert_non_null(strstr(text, "First:"));
    assert_non_null(strstr(text, "--port N"));
    assert_non_null(strstr(text, "[default: 80]"));
    assert_non_null(strstr(text, "[env: T_PORT T_PORT_OLD]"));
    assert_non_null(strstr(text, "--choice one|two"));
    assert_non_null(strstr(text, "No effect: it is old"));
    assert_null(strstr(text, "--gone"));
    const char *later = strstr(text, "Known, but not available");
    assert_non_null(later);
    assert_non_null(strstr(later, "--later"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(defaults_are_written_over_whatever_was_there, end),
        cmocka_unit_test_teardown(scalars_of_every_width_are_read, end),
        cmocka_unit_test_teardown(the_last_of_repeated_scalars_counts, end),
        cmocka_unit_test_teardown(lists_take_words_up_to_the_next_flag, end),
        cmocka_unit_test_teardown(an_empty_list_replaces_the_default, end),
        cmocka_unit_test_teardown(pairs_are_split_at_blanks, end),
        cmocka_unit_test_teardown(a_url_takes_its_port_only_if_it_is_one, end),
        cmocka_unit_test_teardown(bad_words_are_refused_with_these_messages, end),
        cmocka_unit_test_teardown(needed_rows_are_asked_for, end),
        cmocka_unit_test_teardown(no_op_rows_are_told, end),
        cmocka_unit_test_teardown(environment_fills_what_the_line_left, end),
        cmocka_unit_test_teardown(bad_environment_is_refused, end),
        cmocka_unit_test_teardown(sources_rank_in_any_order, end),
        cmocka_unit_test_teardown(bad_file_values_are_refused_even_when_outranked, end),
        cmocka_unit_test(distances_are_counted),
        cmocka_unit_test(help_shows_usable_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
