/* The gateway's table against the specification, row by row; commands, help and the reference
 * page. */
#include "app/options.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/config.h"
#include "app/help.h"
#include "app/option_table.h"
#include "base/opthelp.h"
#include "base/rand.h"
#include "options_spec.h"

static const char *no_env(const char *name) {
    (void)name;
    return NULL;
}

/* Loads a configuration from one line of blank-separated words. */
static struct config *load_line(const char *line, struct config_error *error) {
    char *words[64];
    int count = 0;
    struct str word;
    while (count < 64 && opt_next_word(&line, &word))
        words[count++] = str_dup(word);
    struct config *config = config_load(count, words, no_env, error);
    for (int i = 0; i < count; i++)
        mem_free(words[i]);
    return config;
}

static const struct opt_row *row_of(const char *name) {
    return optparse_find(option_schema(), str_from(name), false);
}

/* --- the table ------------------------------------------------------------------------------- */

static void table_has_exactly_the_flags_of_the_specification(void **state) {
    (void)state;
    size_t rows = 0;
    const struct opt_schema *schema = option_schema();
    for (size_t i = 0; i < schema->count; i++)
        rows += schema->groups[i].count;
    assert_int_equal(rows, SPEC_FLAGS);
    for (size_t i = 0; i < SPEC_FLAGS; i++)
        if (row_of(spec_flags[i].name) == NULL)
            fail_msg("--%s is missing", spec_flags[i].name);
}

static void assert_text(const char *flag, const char *what, const char *is, const char *should) {
    if ((is == NULL) != (should == NULL) || (is != NULL && strcmp(is, should) != 0))
        fail_msg("--%s: %s is %s, not %s", flag, what, is ? is : "(none)",
                 should ? should : "(none)");
}

static void every_row_says_what_the_specification_says(void **state) {
    (void)state;
    static const char states[] = {
        [OPT_WORKS] = 'w', [OPT_NOT_YET] = 'n', [OPT_NO_OP] = 'o', [OPT_ABSENT] = 'a'};
    for (size_t i = 0; i < SPEC_FLAGS; i++) {
        const struct spec_flag *flag = &spec_flags[i];
        const struct opt_row *row = row_of(flag->name);
        assert_text(flag->name, "default",
                    row->type == OPT_BOOL && row->initial == NULL ? "false" : row->initial,
                    flag->initial);
        assert_text(flag->name, "alias", row->aliases, flag->aliases);
        assert_text(flag->name, "tag", row->tag, flag->tag);
        assert_text(flag->name, "env", row->env, flag->env);
        if (states[row->status] != flag->state)
            fail_msg("--%s: wrong status", flag->name);
        if (row->status == OPT_WORKS && !row->has_dest)
            fail_msg("--%s works but fills nothing", flag->name);
        if (row->status != OPT_WORKS && row->has_dest)
            fail_msg("--%s does not work but fills something", flag->name);
        if ((row->status == OPT_NO_OP || row->status == OPT_ABSENT) && row->note == NULL)
            fail_msg("--%s: no reason given", flag->name);
        assert_non_null(row->help);
        assert_true(row->type != OPT_CHOICE || row->choices != NULL);
    }
}

/* Ranges and choices hold for rows that do not work yet too: their examples must read. */
static void every_example_reads(void **state) {
    (void)state;
    for (size_t i = 0; i < SPEC_FLAGS; i++) {
        struct opt_row row = *row_of(spec_flags[i].name);
        row.status = OPT_WORKS;
        const struct opt_group group = {"one", &row, 1};
        const struct opt_schema schema = {&group, 1, NULL, NULL};
        struct option_values values = {0};
        struct optparse *parser = optparse_new(&schema, &values);
        char line[256], *words[16];
        int count = 0;
        snprintf(line, sizeof line, "--%s %s", spec_flags[i].name, spec_flags[i].example);
        for (char *rest = line, *word; (word = strsep(&rest, " ")) != NULL;)
            if (word[0] != '\0')
                words[count++] = word;
        if (optparse_args(parser, count, words) != 0)
            fail_msg("%s", optparse_error(parser)->text);
        assert_int_equal(optparse_source(parser, row.name), OPT_FROM_ARGS);
        optparse_free(parser);
    }
}

static void give(const struct spec_flag *flag, const char *name, const char *separator) {
    struct config_error error;
    char line[256], expected[256];
    snprintf(line, sizeof line, "--%s%s%s", name, separator, flag->example);
    struct config *config = load_line(line, &error);
    if (flag->state == 'w' || flag->state == 'o') {
        if (config == NULL)
            fail_msg("%s: %s", line, error.text);
        assert_int_equal(config_note(config, 0) != NULL, flag->state == 'o');
        config_free(config);
        return;
    }
    if (config != NULL)
        fail_msg("%s was taken", line);
    assert_int_equal(error.status, 2);
    snprintf(expected, sizeof expected, "--%s is not available", flag->name);
    if (strstr(error.text, expected) == NULL)
        fail_msg("%s: %s", line, error.text);
}

static void every_flag_is_taken_or_refused_by_every_spelling(void **state) {
    (void)state;
    for (size_t i = 0; i < SPEC_FLAGS; i++) {
        const struct spec_flag *flag = &spec_flags[i];
        give(flag, flag->name, " ");
        if (flag->example[0] != '\0')
            give(flag, flag->name, "=");
        if (flag->aliases != NULL)
            give(flag, flag->aliases, " ");
    }
}

static void names_are_unique(void **state) {
    (void)state;
    const struct opt_schema *schema = option_schema();
    for (size_t i = 0; i < schema->count; i++)
        for (size_t j = 0; j < schema->groups[i].count; j++) {
            const struct opt_row *row = &schema->groups[i].rows[j];
            const char *cursor = row->aliases;
            struct str alias;
            assert_ptr_equal(row_of(row->name), row);
            while (opt_next_word(&cursor, &alias))
                assert_ptr_equal(optparse_find(schema, alias, false), row);
        }
}

/* --- defaults as settings -------------------------------------------------------------------- */

static void defaults_become_settings(void **state) {
    (void)state;
    struct config_error error;
    struct config *config = load_line("", &error);
    assert_non_null(config);
    const struct gateway_settings *gateway = &config_settings(config)->gateway;
    const struct fleet_settings *fleet = &config_settings(config)->fleet;
    const struct log_options *log = &config_settings(config)->log;
    const struct {
        const char *what;
        int64_t is, should;
    } numbers[] = {
        {"port", gateway->port, 30000},
        {"health port", gateway->health_check_port, 0},
        {"body", (int64_t)gateway->limits.max_body, 268435456},
        {"request timeout", gateway->request_timeout_ms, 600000},
        {"fleet request timeout", fleet->request_timeout_s, 600},
        {"grace", gateway->shutdown_grace_ms, 180000},
        {"settle", gateway->shutdown_settle_ms, 5000},
        {"attempts", gateway->retry.max_attempts, 5},
        {"retries off", gateway->retry.disabled, 0},
        {"initial backoff", gateway->retry.initial_ms, 50},
        {"max backoff", gateway->retry.max_ms, 30000},
        {"multiplier x10", (int64_t)(gateway->retry.multiplier * 10), 15},
        {"jitter x10", (int64_t)(gateway->retry.jitter * 10), 2},
        {"first byte", gateway->first_byte_timeout_ms, 0},
        {"stream idle", gateway->stream_idle_timeout_ms, 0},
        {"connect", gateway->connect_timeout_ms, 10000},
        {"fleet connect", fleet->connect_timeout_s, 10},
        {"retry after", gateway->overload_retry_after_s, 1},
        {"connections", (int64_t)gateway->limits.max_connections, 0},
        {"header bytes", (int64_t)gateway->limits.max_header_bytes, 65536},
        {"headers", (int64_t)gateway->limits.max_headers, 100},
        {"request line", (int64_t)gateway->limits.max_request_line, 8192},
        {"header timeout", gateway->limits.header_timeout_ms, 10000},
        {"idle timeout", gateway->limits.idle_timeout_ms, 75000},
        {"body idle", gateway->limits.body_idle_timeout_ms, 30000},
        {"idle per worker", (int64_t)gateway->limits.upstream_idle_per_worker, 64},
        {"fleet idle per worker", (int64_t)fleet->upstream_idle_per_worker, 64},
        {"idle in all", (int64_t)gateway->limits.upstream_idle_total, 4096},
        {"idle ms", fleet->upstream_idle_ms, 4000},
        {"upstream", (int64_t)gateway->limits.max_upstream, 0},
        {"metrics port", gateway->metrics.port, 29000},
        {"naming", gateway->metrics.naming, METRICS_NAMING_BOTH},
        {"buckets", (int64_t)gateway->metrics.buckets.len, 0},
        {"origins", (int64_t)gateway->cors_origins.len, 0},
        {"id headers", (int64_t)gateway->request_id_headers.len, 4},
        {"workers", (int64_t)fleet->worker_url_count, 0},
        {"allowed urls", (int64_t)fleet->worker_url_allow_count, 0},
        {"startup timeout", fleet->startup_timeout_s, 600},
        {"check interval", fleet->startup_check_interval_s, 30},
        {"startup delay", fleet->startup_delay_s, 0},
        {"health failures", fleet->health.failure_threshold, 3},
        {"health successes", fleet->health.success_threshold, 2},
        {"health timeout", fleet->health.timeout_s, 5},
        {"health interval", fleet->health.interval_s, 60},
        {"health off", fleet->health.disabled, 0},
        {"removal", fleet->health.remove_unhealthy, 0},
        {"drain settle", fleet->drain_settle_s, 5},
        {"breaker failures", fleet->breaker.failure_threshold, 5},
        {"breaker successes", fleet->breaker.success_threshold, 2},
        {"breaker timeout", fleet->breaker.timeout_ms, 30000},
        {"breaker window", fleet->breaker.window_ms, 60000},
        {"breaker off", fleet->breaker.disabled, 0},
        {"fail open", fleet->cb_fail_open, 0},
        {"strict urls", fleet->strict_urls, 0},
        {"link local", fleet->allow_link_local, 0},
        {"log level", log->level, LOG_INFO},
        {"log json", log->json, 0},
        {"log files", log->max_files, 0},
        {"seed given", config_settings(config)->seed_given, 0},
    };
    for (size_t i = 0; i < OPT_COUNT(numbers); i++)
        if (numbers[i].is != numbers[i].should)
            fail_msg("%s is %lld, not %lld", numbers[i].what, (long long)numbers[i].is,
                     (long long)numbers[i].should);
    assert_string_equal(gateway->host, "127.0.0.1");
    assert_string_equal(gateway->metrics.host, "0.0.0.0");
    assert_string_equal(gateway->policy, "cache_aware");
    assert_string_equal(fleet->policy, "cache_aware");
    assert_string_equal(fleet->health.endpoint, "/health");
    assert_string_equal(gateway->request_id_headers.items[0], "x-request-id");
    assert_string_equal(gateway->request_id_headers.items[3], "request-id");
    assert_null(gateway->api_key);
    assert_null(fleet->api_key);
    assert_null(log->dir);
    assert_true(gateway->runtime_threads >= 1);
    assert_true(gateway->limits.memory_bytes > 0);
    config_free(config);
}

/* --- commands -------------------------------------------------------------------------------- */

static int parse_words(struct command_line *line, int argc, const char *const *argv) {
    return command_parse(argc, (char *const *)argv, line);
}

#define COMMAND(line, ...)                                                                         \
    parse_words((line), (int)OPT_COUNT(((const char *[]){__VA_ARGS__})),                           \
                (const char *[]){__VA_ARGS__})

static void commands_are_told_apart(void **state) {
    (void)state;
    struct command_line line;
    assert_int_equal(COMMAND(&line, "sluice"), 0);
    assert_int_equal(line.command, COMMAND_LAUNCH);
    assert_int_equal(line.argc, 0);
    assert_int_equal(COMMAND(&line, "smg", "--port", "1"), 0);
    assert_int_equal(line.command, COMMAND_LAUNCH);
    assert_int_equal(line.argc, 2);
    assert_int_equal(COMMAND(&line, "sluice", "launch", "--port", "1"), 0);
    assert_int_equal(line.argc, 2);
    assert_string_equal(line.argv[0], "--port");
    assert_int_equal(COMMAND(&line, "sluice", "start"), 0);
    assert_int_equal(line.command, COMMAND_LAUNCH);
    assert_int_equal(COMMAND(&line, "sluice", "mock-worker", "--port", "1"), 0);
    assert_int_equal(line.command, COMMAND_MOCK_WORKER);
    assert_int_equal(line.argc, 2);
}

static void questions_go_first(void **state) {
    (void)state;
    struct command_line line;
    assert_int_equal(COMMAND(&line, "sluice", "--nonsense", "-V"), 0);
    assert_int_equal(line.command, COMMAND_VERSION);
    assert_int_equal(COMMAND(&line, "sluice", "mock-worker", "--version"), 0);
    assert_int_equal(line.command, COMMAND_VERSION);
    assert_int_equal(COMMAND(&line, "sluice", "nonsense", "--version-verbose"), 0);
    assert_int_equal(line.command, COMMAND_VERSION_VERBOSE);
    assert_int_equal(COMMAND(&line, "sluice", "--help-markdown"), 0);
    assert_int_equal(line.command, COMMAND_HELP_MARKDOWN);
}

static void commands_of_later_versions_are_refused(void **state) {
    (void)state;
    struct command_line line;
    static const char *const later[] = {"serve",    "server", "launch-server", "launch_server",
                                        "simulate", "render", "tokenize",      "upgrade"};
    for (size_t i = 0; i < OPT_COUNT(later); i++) {
        assert_int_equal(COMMAND(&line, "sluice", later[i]), -EINVAL);
        assert_non_null(strstr(line.error, "is not available in this version yet"));
    }
    assert_int_equal(COMMAND(&line, "sluice", "lanch"), -EINVAL);
    assert_non_null(strstr(line.error, "did you mean 'launch'?"));
    assert_int_equal(COMMAND(&line, "sluice", "whatever"), -EINVAL);
    assert_non_null(strstr(line.error, "unknown sub-command 'whatever'"));
}

static void flags_before_a_command_conflict(void **state) {
    (void)state;
    struct config_error error;
    assert_null(load_line("--port 8000 launch", &error));
    assert_int_equal(error.status, 2);
    assert_non_null(strstr(error.text, "a sub-command stands first"));
}

/* --- help ------------------------------------------------------------------------------------ */

static char *printed(void (*write)(FILE *out)) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    write(out);
    fclose(out);
    return text;
}

static void help_lists_what_works_within_the_width(void **state) {
    (void)state;
    char *text = printed(help_write), flag[80];
    for (size_t i = 0; i < SPEC_FLAGS; i++) {
        snprintf(flag, sizeof flag, "--%s", spec_flags[i].name);
        assert_true((strstr(text, flag) != NULL) == (spec_flags[i].state != 'a'));
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= OPTHELP_COLUMNS);
    assert_non_null(strstr(text, "[default: 30000]"));
    assert_non_null(strstr(text, "[also: --runtime]"));
    assert_non_null(strstr(text, "mock-worker"));
    free(text);
}

static void help_wins_over_bad_values_before_it(void **state) {
    (void)state;
    struct config_error error;
    static const char *const lines[] = {"--help", "-h", "--port 0 --help", "--log-json -h --what"};
    for (size_t i = 0; i < OPT_COUNT(lines); i++) {
        struct config *config = load_line(lines[i], &error);
        assert_non_null(config);
        assert_true(config_wants_help(config));
        config_free(config);
    }
}

static void version_is_project_and_number(void **state) {
    (void)state;
    char *text = printed(help_version);
    assert_true(strncmp(text, "sluice ", 7) == 0);
    assert_true(strchr(text, '\n') == text + strlen(text) - 1);
    free(text);
    text = printed(help_version_verbose);
    assert_non_null(strstr(text, "compiler: "));
    assert_non_null(strstr(text, "platform: "));
    free(text);
}

/* --- the reference page ---------------------------------------------------------------------- */

/* Opens a file of the source tree: it lies above the folder of this program, or above the working
 * directory. */
static FILE *open_in_tree(const char *name) {
    char folder[512], path[1024];
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder - 1);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            len = getcwd(folder, sizeof folder) != NULL ? (ssize_t)strlen(folder) : -1;
        for (folder[len > 0 ? len : 0] = '\0'; folder[0] != '\0';) {
            snprintf(path, sizeof path, "%s/%s", folder, name);
            FILE *file = fopen(path, "r");
            if (file != NULL)
                return file;
            char *slash = strrchr(folder, '/');
            *(slash != NULL ? slash : folder) = '\0';
        }
    }
    return NULL;
}

static void reference_page_is_up_to_date(void **state) {
    (void)state;
    char *expected = printed(help_markdown);
    FILE *file = open_in_tree("docs/configuration.md");
    if (file == NULL)
        fail_msg("docs/configuration.md is not found");
    size_t size = strlen(expected) + 2;
    char *page = mem_zalloc(size);
    size_t len = fread(page, 1, size - 1, file);
    fclose(file);
    if (len != strlen(expected) || strcmp(page, expected) != 0)
        fail_msg("docs/configuration.md is old: sluice --help-markdown > docs/configuration.md");
    mem_free(page);
    free(expected);
}

/* --- anything at all ------------------------------------------------------------------------- */

static const char *random_word(struct rand_stream *rand, char *out, size_t size) {
    static const char *const words[] = {
        "--",
        "-",
        "--=",
        "--port=",
        "-1",
        "--help-me",
        "none",
        "http://x",
        "a=b",
        "--prefill",
        "1e999",
        "-.5",
        "--api-key",
        "99999999999999999999",
        "",
        "é",
        "--x=y=z",
        "--seed",
        "-9223372036854775809",
    };
    uint64_t kind = rand_stream_u64(rand) % 4;
    if (kind == 0)
        return words[rand_stream_u64(rand) % OPT_COUNT(words)];
    const char *name = spec_flags[rand_stream_u64(rand) % SPEC_FLAGS].name;
    if (kind == 1)
        snprintf(out, size, "--%s", name);
    else if (kind == 2)
        snprintf(out, size, "--%s=%lld", name, (long long)rand_stream_u64(rand));
    else
        for (size_t i = 0; i < size; i++)
            out[i] = i + 1 < size && i < 12 ? (char)(rand_stream_u64(rand) % 255 + 1) : '\0';
    return out;
}

static void random_words_never_crash(void **state) {
    (void)state;
    struct rand_stream rand;
    char room[8][64];
    rand_stream_init(&rand, 20);
    for (int round = 0; round < 5000; round++) {
        const char *argv[9] = {"sluice"};
        int argc = 1 + (int)(rand_stream_u64(&rand) % 8);
        struct command_line line;
        struct config_error error;
        for (int i = 1; i < argc; i++)
            argv[i] = random_word(&rand, room[i - 1], sizeof room[0]);
        if (command_parse(argc, (char *const *)argv, &line) != 0) {
            assert_true(line.error[0] != '\0');
            continue;
        }
        struct config *config = config_load(line.argc, line.argv, no_env, &error);
        assert_true(config != NULL || (error.text[0] != '\0' && error.status >= 1));
        config_free(config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_has_exactly_the_flags_of_the_specification),
        cmocka_unit_test(every_row_says_what_the_specification_says),
        cmocka_unit_test(every_example_reads),
        cmocka_unit_test(every_flag_is_taken_or_refused_by_every_spelling),
        cmocka_unit_test(names_are_unique),
        cmocka_unit_test(defaults_become_settings),
        cmocka_unit_test(commands_are_told_apart),
        cmocka_unit_test(questions_go_first),
        cmocka_unit_test(commands_of_later_versions_are_refused),
        cmocka_unit_test(flags_before_a_command_conflict),
        cmocka_unit_test(help_lists_what_works_within_the_width),
        cmocka_unit_test(help_wins_over_bad_values_before_it),
        cmocka_unit_test(version_is_project_and_number),
        cmocka_unit_test(reference_page_is_up_to_date),
        cmocka_unit_test(random_words_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
