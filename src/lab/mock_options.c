#include "lab/mock_options.h"

#include <errno.h>
#include <stdio.h>

#include "base/opthelp.h"

#define AT(field) OPT_DEST(struct mock_options, field)

static const struct opt_row worker_rows[] = {
    {.name = "host", .type = OPT_STR, AT(host), .initial = "127.0.0.1", .help = "address to bind"},
    {.name = "port",
     .type = OPT_INT,
     AT(port),
     OPT_RANGE(0, 65535),
     .need = true,
     .help = "first port; 0 lets the kernel choose (with --count 1)"},
    {.name = "count",
     .type = OPT_INT,
     AT(count),
     OPT_RANGE(1, 10000),
     .initial = "1",
     .help = "workers in this process, on consecutive ports"},
    {.name = "model",
     .type = OPT_STR,
     AT(model),
     .initial = "mock-model",
     .help = "model name that the worker reports"},
    {.name = "api-key",
     .type = OPT_STR,
     AT(api_key),
     .secret = true,
     .help = "bearer key that callers must send"},
    {.name = "seed",
     .type = OPT_INT,
     AT(seed),
     OPT_MIN(0),
     .initial = "0",
     .help = "fixes the texts and the random faults"},
    {.name = "threads",
     .type = OPT_INT,
     AT(threads),
     OPT_RANGE(1, 256),
     .initial = "1",
     .help = "event loops that share the connections"},
    {.name = "keep-requests",
     .type = OPT_INT,
     AT(keep_requests),
     OPT_RANGE(0, 10000),
     .initial = "16",
     .help = "how many of the last requests GET /mock/requests shows in full"},
};

static const struct opt_row engine_rows[] = {
    {.name = "output-tokens",
     .type = OPT_INT,
     AT(output_tokens),
     OPT_RANGE(1, 65536),
     .initial = "8",
     .help = "tokens of an answer, unless the request allows fewer; with "
             "ignore_eos the request's limit counts"},
    {.name = "tokens-per-second",
     .type = OPT_FLOAT,
     AT(engine.tokens_per_second),
     OPT_FMIN(0),
     .initial = "0",
     .help = "pace of each answer; 0 = as fast as it goes"},
    {.name = "ttft-ms",
     .type = OPT_INT,
     AT(ttft_ms),
     OPT_RANGE(0, 3600000),
     .initial = "0",
     .help = "base of the time to first token"},
    {.name = "prefill-tps",
     .type = OPT_FLOAT,
     AT(engine.prefill_tps),
     OPT_FMIN(0),
     .initial = "0",
     .help = "uncached prompt tokens a second, shared by all requests of a "
             "worker; 0 = instant"},
    {.name = "max-running",
     .type = OPT_INT,
     AT(engine.max_running),
     OPT_RANGE(1, 1000000),
     .initial = "256",
     .help = "requests served at once; the rest waits in line"},
    {.name = "cache-blocks",
     .type = OPT_INT,
     AT(engine.cache_blocks),
     OPT_RANGE(0, 1 << 24),
     .initial = "4096",
     .help = "blocks of the prefix cache; 0 = no cache"},
    {.name = "block-size",
     .type = OPT_INT,
     AT(engine.block_size),
     OPT_RANGE(1, 4096),
     .initial = "16",
     .help = "tokens in a block"},
};

static const struct opt_row fault_rows[] = {
    {.name = "fail-rate",
     .type = OPT_FLOAT,
     AT(faults.fail_rate),
     OPT_FRANGE(0, 1),
     .initial = "0",
     .help = "share of requests that fail"},
    {.name = "fail-status",
     .type = OPT_INT,
     AT(faults.fail_status),
     OPT_RANGE(100, 999),
     .initial = "500",
     .help = "status of failures"},
    {.name = "delay-ms",
     .type = OPT_INT,
     AT(faults.delay_ms),
     OPT_RANGE(0, INT32_MAX),
     .initial = "0",
     .help = "wait before the head of an answer"},
    {.name = "hang", .type = OPT_BOOL, AT(faults.hang), .help = "take requests and never answer"},
    {.name = "drop",
     .type = OPT_BOOL,
     AT(faults.drop),
     .help = "end the connection instead of answering"},
    {.name = "garbage",
     .type = OPT_BOOL,
     AT(faults.garbage),
     .help = "answer with bytes that are no HTTP"},
    {.name = "cut-after-bytes",
     .type = OPT_INT,
     AT(faults.cut_after_bytes),
     OPT_MIN(-1),
     .initial = "-1",
     .initial_help = "never",
     .help = "end the connection after so many bytes of a body"},
    {.name = "cut-after-events",
     .type = OPT_INT,
     AT(faults.cut_after_events),
     OPT_MIN(-1),
     .initial = "-1",
     .initial_help = "never",
     .help = "end the connection after so many events of a stream"},
    {.name = "cut-inside",
     .type = OPT_BOOL,
     AT(faults.cut_inside),
     .help = "with --cut-after-events: in the middle of the next event"},
    {.name = "hang-after-events",
     .type = OPT_INT,
     AT(faults.hang_after_events),
     OPT_MIN(-1),
     .initial = "-1",
     .initial_help = "never",
     .help = "let a stream go silent after so many events"},
    {.name = "close-mode",
     .type = OPT_CHOICE,
     AT(faults.close_mode),
     .choices = "fin rst",
     .initial = "fin",
     .help = "how a connection is cut"},
    {.name = "slow-body-ms",
     .type = OPT_INT,
     AT(faults.slow_body_ms),
     OPT_RANGE(0, INT32_MAX),
     .initial = "0",
     .help = "wait before each event, or each sixteenth of another body"},
    {.name = "fault-scope",
     .type = OPT_CHOICE,
     AT(faults.scope),
     .choices = "inference health all",
     .initial = "inference",
     .help = "requests that the faults concern"},
};

static const struct opt_group groups[] = {
    {"Mock worker", worker_rows, OPT_COUNT(worker_rows)},
    {"Engine", engine_rows, OPT_COUNT(engine_rows)},
    {"Faults (also live: POST /mock/faults)", fault_rows, OPT_COUNT(fault_rows)},
};

const struct opt_schema mock_option_schema = {.groups = groups, .count = OPT_COUNT(groups)};

static int refuse(struct optparse *parser, const char *text, int status, int *out) {
    fprintf(stderr, "mock-worker: %s\n", text);
    optparse_free(parser);
    *out = status;
    return -EINVAL;
}

static const char *check(const struct mock_options *options) {
    if (options->port == 0 && options->count > 1)
        return "--port 0 goes with --count 1 only";
    if ((unsigned)options->port + options->count > 65536)
        return "--port plus --count goes past port 65535";
    if (options->api_key && options->api_key[0] == '\0')
        return "--api-key must not be empty";
    return NULL;
}

int mock_options_read(int argc, char **argv, struct mock_options *options, struct optparse **parser,
                      int *status) {
    *options = (struct mock_options){.faults = mock_faults_none()};
    *parser = optparse_new(&mock_option_schema, options);
    if (optparse_args(*parser, argc - 1, argv + 1) || optparse_finish(*parser)) {
        const struct opt_error *error = optparse_error(*parser);
        return refuse(*parser, error->text, error->status, status);
    }
    if (optparse_wants_help(*parser)) {
        printf("usage: sluice mock-worker --port PORT [options]\n\n");
        opthelp_write(&mock_option_schema, stdout);
        optparse_free(*parser);
        return 1;
    }
    const char *wrong = check(options);
    if (wrong)
        return refuse(*parser, wrong, 2, status);
    options->engine.ttft_us = options->ttft_ms * 1000;
    return 0;
}
