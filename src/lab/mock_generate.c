/* /generate, SGLang's own: the text of a stream's events is all that was generated so far. */
#include "lab/mock_formats.h"
#include "lab/mock_job.h"

static int generate_read(struct mock_job *job) {
    yyjson_val *root = job->call->root, *params = json_get(root, "sampling_params");
    yyjson_val *text = json_get(root, "text");
    if (mock_job_prompts(job, text ? text : json_get(root, "input_ids")))
        return mock_job_refuse(job, STR("either text or input_ids must be given: a string, token "
                                        "ids, or a list of them"));
    int64_t copies = json_get_int(params, "n", 1);
    if (copies < 1 || copies > 128)
        return mock_job_refuse(job, STR("sampling_params.n must be from 1 to 128"));
    job->copies = (size_t)copies;
    job->batch = job->batch || copies > 1;
    int64_t limit = json_get_int(params, "max_new_tokens", -1);
    if (mock_job_limit(job, limit, json_get_bool(params, "ignore_eos", false)))
        return mock_job_refuse(job, STR("sampling_params.max_new_tokens must be at most 65536"));
    return 0;
}

static void write_finish(const struct mock_job *job, struct json_writer *out, bool finished) {
    json_key(out, "finish_reason");
    if (!finished) {
        json_null(out);
        return;
    }
    json_object(out);
    json_kv_str(out, "type", job->by_length ? STR("length") : STR("stop"));
    if (job->by_length)
        json_kv_int(out, "length", (int64_t)job->output);
    else
        json_kv_int(out, "matched", 2);
    json_object_end(out);
}

static struct str request_id(const struct mock_job *job, size_t choice) {
    struct str rid = json_get_str(job->call->root, "rid", job->id);
    return job->batch ? arena_printf(job->call->arena, "%.*s-%zu", STR_ARG(rid), choice) : rid;
}

static void write_meta(const struct mock_job *job, struct json_writer *out, size_t choice,
                       size_t given) {
    const struct mock_sequence *sequence = &job->sequences[choice];
    int64_t spent_us = clock_us() - job->stay.ticket.arrived_us;
    json_key(out, "meta_info");
    json_object(out);
    json_kv_str(out, "id", request_id(job, choice));
    write_finish(job, out, given == job->output);
    json_kv_int(out, "prompt_tokens", (int64_t)sequence->prompt);
    json_kv_str(out, "weight_version", STR("default"));
    json_kv_int(out, "completion_tokens", (int64_t)given);
    json_kv_int(out, "cached_tokens", (int64_t)sequence->cached);
    json_kv_double(out, "e2e_latency", (double)spent_us / 1e6);
    json_object_end(out);
}

/* One answer as far as `given` tokens go. */
static void write_answer(const struct mock_job *job, struct json_writer *out, size_t choice,
                         size_t given) {
    const struct mock_text *text = &job->texts[choice];
    const struct mock_sequence *sequence = &job->sequences[choice];
    json_object(out);
    json_kv_str(out, "text", str_head(text->text, given > 0 ? text->ends[given - 1] : 0));
    json_key(out, "output_ids");
    json_array(out);
    for (size_t i = 0; i < given; i++)
        json_int(out, sequence->tokens[sequence->prompt + i]);
    json_array_end(out);
    write_meta(job, out, choice, given);
    if (job->batch)
        json_kv_int(out, "index", (int64_t)choice);
    json_object_end(out);
}

static void generate_write(struct mock_job *job, struct json_writer *out) {
    if (job->batch)
        json_array(out);
    for (size_t i = 0; i < job->count; i++)
        write_answer(job, out, i, job->output);
    if (job->batch)
        json_array_end(out);
}

static FIBER_FN int send_answer(struct mock_job *job, size_t choice, size_t given) {
    write_answer(job, mock_job_event(job, NULL), choice, given);
    return mock_job_send(job);
}

static FIBER_FN int generate_open(struct mock_job *job) {
    int err = 0; /* without tokens there is still one event for each answer */
    for (size_t i = 0; i < job->count && job->output == 0 && err == 0; i++)
        err = send_answer(job, i, 0);
    return err;
}

static FIBER_FN int generate_token(struct mock_job *job, size_t choice, size_t index) {
    return send_answer(job, choice, index + 1);
}

static FIBER_FN int generate_close(struct mock_job *job) { return mock_job_done(job); }

FIBER_FN void mock_generate(struct mock_call *call) {
    static const struct mock_format format = {"gen-",        generate_read,  generate_write,
                                              generate_open, generate_token, generate_close};
    mock_job_run(call, &format);
}
