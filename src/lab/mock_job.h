/* One piece of work for the simulated engine: prompts in, answers out, whatever API they came by. The
 * driver here does the waiting, the pace and the bookkeeping; a format reads one API's requests and writes
 * its answers. */
#pragma once

#include "lab/mock_call.h"
#include "lab/mock_tokens.h"

struct mock_job;

struct mock_format {
    const char *id_prefix;
    /* Reads call->root: adds prompts, sets the limit. 0, or -EINVAL with job->error. */
    int (*read)(struct mock_job *job);
    /* The whole unstreamed answer. */
    void (*write)(struct mock_job *job, struct json_writer *out);
    /* A stream: what comes first, each token, what comes last. NULL: the API does not stream. 0 or what
     * mock_job_send gave. */
    FIBER_FN int (*open)(struct mock_job *job);
    FIBER_FN int (*token)(struct mock_job *job, size_t choice, size_t index);
    FIBER_FN int (*close)(struct mock_job *job);
};

struct mock_job {
    struct mock_call *call;
    const struct mock_format *format;
    struct str error;
    struct str model, id;
    int64_t created; /* Unix seconds */
    struct mock_tokens *prompts;
    size_t prompt_count, prompt_cap;
    size_t copies;  /* answers to each prompt */
    size_t output;  /* tokens of each answer */
    bool by_length; /* the request's limit ended it */
    bool batch;     /* the prompts came as a list: so does the answer of /generate */
    bool stream, include_usage;
    size_t count; /* answers: prompts times copies */
    struct mock_sequence *sequences;
    struct mock_text *texts;
    struct mock_stay stay;
    struct json_writer out; /* the event being written */
    uint64_t events;
    void *extra; /* the format's own */
};

/* Runs the request to its end. */
FIBER_FN void mock_job_run(struct mock_call *call, const struct mock_format *format);

/* For formats: a new empty prompt. */
struct mock_tokens *mock_job_prompt(struct mock_job *job);
/* A string, a list of strings, a list of token ids, or a list of such lists: one prompt each. 0 or
 * -EINVAL. */
int mock_job_prompts(struct mock_job *job, yyjson_val *value);
/* Applies the request's own limit (negative: none). 0, or -EINVAL when it is out of bounds. */
int mock_job_limit(struct mock_job *job, int64_t limit, bool ignore_eos);
/* -EINVAL with the message as job->error. */
int mock_job_refuse(struct mock_job *job, struct str message);

/* An event: write one JSON value into the result, then send. `event` may be NULL. */
struct json_writer *mock_job_event(struct mock_job *job, const char *event);
FIBER_FN int mock_job_send(struct mock_job *job);
/* "data: [DONE]". */
FIBER_FN int mock_job_done(struct mock_job *job);

size_t mock_job_output_tokens(const struct mock_job *job);
/* A key and its "usage" object as OpenAI has it. */
void mock_job_usage(const struct mock_job *job, struct json_writer *out);
/* Reads stream_options.include_usage. */
void mock_job_stream_options(struct mock_job *job);
