/* The flags of `sluice mock-worker`. */
#pragma once

#include "base/optparse.h"
#include "lab/mock_faults.h"
#include "lab/mock_model.h"

struct mock_options {
    const char *host, *model, *api_key; /* api_key NULL = open */
    uint16_t port;
    unsigned count, threads;
    uint64_t seed;
    size_t output_tokens;
    size_t keep_requests; /* how many of the last requests GET /mock/requests shows */
    int64_t ttft_ms;
    struct mock_model_options engine;
    struct mock_faults faults;
};

extern const struct opt_schema mock_option_schema;

/* Reads the command line (argv[0] is the sub-command's name). 0 with *parser, which owns the strings and
 * is freed by the caller; 1 when help was asked for (and printed); else a negative errno, the message is
 * on stderr and *status the exit status. */
int mock_options_read(int argc, char **argv, struct mock_options *options, struct optparse **parser,
                      int *status) MUST_CHECK;
