/* The whole answer is made before the engine is entered, so that the chain of its blocks is known and
 * nothing is computed under the lock; what is left then is waiting and sending. */
#include "lab/mock_job.h"

#include <errno.h>

enum { OUTPUT_MAX = 65536, ANSWERS_MAX = 4096, YIELD_EVERY = 32 };

int mock_job_refuse(struct mock_job *job, struct str message) {
    job->error = message;
    return -EINVAL;
}

struct mock_tokens *mock_job_prompt(struct mock_job *job) {
    struct arena *arena = job->call->arena;
    if (job->prompt_count == job->prompt_cap) {
        size_t cap = job->prompt_cap ? job->prompt_cap * 2 : 4;
        struct mock_tokens *prompts = arena_alloc(arena, cap * sizeof *prompts);
        if (job->prompt_count)
            memcpy(prompts, job->prompts, job->prompt_count * sizeof *prompts);
        job->prompts = prompts;
        job->prompt_cap = cap;
    }
    struct mock_tokens *prompt = &job->prompts[job->prompt_count++];
    *prompt = (struct mock_tokens){.arena = arena};
    return prompt;
}

int mock_job_prompts(struct mock_job *job, yyjson_val *value) {
    bool list = yyjson_is_arr(value) && !yyjson_is_int(yyjson_arr_get_first(value));
    if (yyjson_is_str(value) || (yyjson_is_arr(value) && !list)) {
        mock_tokens_value(mock_job_prompt(job), value);
        return 0;
    }
    if (!list || yyjson_arr_size(value) == 0 || yyjson_arr_size(value) > ANSWERS_MAX)
        return -EINVAL;
    job->batch = true;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (yyjson_val *item; (item = yyjson_arr_iter_next(&iter)) != NULL;)
        mock_tokens_value(mock_job_prompt(job), item);
    return 0;
}

int mock_job_limit(struct mock_job *job, int64_t limit, bool ignore_eos) {
    size_t standard = job->call->site->options->output_tokens;
    job->output = standard;
    if (limit < 0)
        return 0;
    if (limit > OUTPUT_MAX)
        return -EINVAL;
    job->by_length = ignore_eos || (size_t)limit <= standard;
    if (job->by_length)
        job->output = (size_t)limit;
    return 0;
}

void mock_job_stream_options(struct mock_job *job) {
    yyjson_val *options = json_get(job->call->root, "stream_options");
    job->include_usage = json_get_bool(options, "include_usage", false);
}

/* --- answers --------------------------------------------------------------------------------- */

/* Answer `number` to a prompt: its tokens behind the prompt's, and the hashes of all. */
static void make_answer(struct mock_job *job, const struct mock_tokens *prompt, size_t at) {
    struct mock_site *site = job->call->site;
    struct arena *arena = job->call->arena;
    size_t number = at % job->copies, room = prompt->len + job->output;
    struct mock_tokens all = {.arena = arena, .len = prompt->len, .cap = room};
    all.ids = arena_alloc(arena, (room + 1) * sizeof *all.ids);
    if (prompt->len)
        memcpy(all.ids, prompt->ids, prompt->len * sizeof *all.ids);
    job->texts[at] = mock_tokens_answer(&all, site->port, site->options->seed, number, job->output);
    size_t block = site->options->engine.block_size;
    uint64_t *chain = arena_alloc(arena, (room / block + 1) * sizeof *chain);
    mock_chain(all.ids, all.len, block, chain);
    job->sequences[at] = (struct mock_sequence){
        .tokens = all.ids,
        .prompt = prompt->len,
        .output = job->output,
        .chain = chain,
        .copy = number > 0,
    };
}

static int make_answers(struct mock_job *job) {
    if (job->prompt_count * job->copies > ANSWERS_MAX)
        return mock_job_refuse(job, STR("more than 4096 answers are asked for"));
    job->count = job->prompt_count * job->copies;
    job->sequences = arena_zalloc(job->call->arena, job->count * sizeof *job->sequences);
    job->texts = arena_zalloc(job->call->arena, job->count * sizeof *job->texts);
    for (size_t i = 0; i < job->count; i++)
        make_answer(job, &job->prompts[i / job->copies], i);
    job->stay.ticket.sequences = job->sequences;
    job->stay.ticket.count = job->count;
    return 0;
}

static void free_writer(void *writer) { buf_free(&((struct json_writer *)writer)->buf); }

static struct mock_job *job_new(struct mock_call *call, const struct mock_format *format) {
    struct mock_job *job = arena_zalloc(call->arena, sizeof *job);
    job->call = call;
    job->format = format;
    job->created = clock_wall_ms() / 1000;
    job->copies = 1;
    job->model = json_get_str(call->root, "model", str_from(call->site->options->model));
    job->stream = format->open && json_get_bool(call->root, "stream", false);
    job->id = arena_printf(call->arena, "%s%u-%llu", format->id_prefix, call->site->port,
                           (unsigned long long)mock_site_id(call->site));
    json_writer_init(&job->out, 16 << 20);
    arena_defer(call->arena, free_writer, &job->out);
    return job;
}

/* --- the run --------------------------------------------------------------------------------- */

static FIBER_FN int send_whole(struct mock_job *job) {
    struct mock_call *call = job->call;
    int err = 0;
    if (job->output > 0)
        err = mock_site_token(call->site, &job->stay, job->output - 1);
    if (err)
        return err;
    struct json_writer out;
    json_writer_init(&out, 256 << 20);
    job->format->write(job, &out);
    mock_call_json(call, 200, &out);
    return 0;
}

static FIBER_FN int send_tokens(struct mock_job *job) {
    int err = 0;
    for (size_t index = 0; index < job->output && err == 0; index++) {
        err = mock_site_token(job->call->site, &job->stay, index);
        for (size_t choice = 0; choice < job->count && err == 0; choice++)
            err = job->format->token(job, choice, index);
        /* At full speed nothing else makes this fiber wait. */
        if (err == 0 && index % YIELD_EVERY == YIELD_EVERY - 1)
            err = fiber_yield();
    }
    return err;
}

static FIBER_FN int send_stream(struct mock_job *job) {
    mock_wire_stream(&job->call->wire);
    int err = job->format->open(job);
    if (err == 0)
        err = send_tokens(job);
    if (err == 0)
        err = job->format->close(job);
    return err ? err : mock_wire_end(&job->call->wire);
}

static FIBER_FN int serve(struct mock_job *job) {
    int err = mock_site_prefill(job->call->site, &job->stay);
    if (err)
        return err;
    return job->stream ? send_stream(job) : send_whole(job);
}

FIBER_FN void mock_job_run(struct mock_call *call, const struct mock_format *format) {
    struct mock_job *job = job_new(call, format);
    if (format->read(job) || make_answers(job)) {
        mock_call_error(call, 400, job->error);
        return;
    }
    if (mock_site_enter(call->site, &job->stay))
        return;
    int err = serve(job);
    mock_site_leave(call->site, &job->stay, err == 0);
}

/* --- for formats ----------------------------------------------------------------------------- */

struct json_writer *mock_job_event(struct mock_job *job, const char *event) {
    struct json_writer *out = &job->out;
    buf_clear(&out->buf);
    out->need_comma = 0;
    if (event)
        out->error = buf_printf(&out->buf, "event: %s\n", event);
    if (out->error == 0)
        out->error = buf_append(&out->buf, "data: ", 6);
    return out;
}

FIBER_FN int mock_job_send(struct mock_job *job) {
    int err = job->out.error;
    if (err == 0)
        err = buf_append(&job->out.buf, "\n\n", 2);
    return err ? err : mock_wire_event(&job->call->wire, buf_str(&job->out.buf));
}

FIBER_FN int mock_job_done(struct mock_job *job) {
    return mock_wire_event(&job->call->wire, STR("data: [DONE]\n\n"));
}

size_t mock_job_output_tokens(const struct mock_job *job) { return job->output * job->count; }

void mock_job_usage(const struct mock_job *job, struct json_writer *out) {
    const struct mock_ticket *ticket = &job->stay.ticket;
    size_t output = mock_job_output_tokens(job);
    json_key(out, "usage");
    json_object(out);
    json_kv_int(out, "prompt_tokens", (int64_t)ticket->prompt_tokens);
    json_kv_int(out, "total_tokens", (int64_t)(ticket->prompt_tokens + output));
    json_kv_int(out, "completion_tokens", (int64_t)output);
    json_key(out, "prompt_tokens_details");
    json_object(out);
    json_kv_int(out, "cached_tokens", (int64_t)ticket->cached_tokens);
    json_object_end(out);
    json_object_end(out);
}
