/* /v1/chat/completions and /v1/completions. */
#include "lab/mock_formats.h"
#include "lab/mock_job.h"

static struct str finish_reason(const struct mock_job *job) {
    return job->by_length ? STR("length") : STR("stop");
}

static int read_copies(struct mock_job *job) {
    int64_t copies = json_get_int(job->call->root, "n", 1);
    if (copies < 1 || copies > 128)
        return mock_job_refuse(job, STR("n must be from 1 to 128"));
    job->copies = (size_t)copies;
    return 0;
}

static int read_limit(struct mock_job *job) {
    yyjson_val *root = job->call->root;
    int64_t limit = json_get_int(root, "max_tokens", -1);
    limit = json_get_int(root, "max_completion_tokens", limit);
    if (mock_job_limit(job, limit, json_get_bool(root, "ignore_eos", false)))
        return mock_job_refuse(job, STR("max_tokens must be at most 65536"));
    mock_job_stream_options(job);
    return read_copies(job);
}

static void open_answer(const struct mock_job *job, struct json_writer *out, struct str object) {
    json_object(out);
    json_kv_str(out, "id", job->id);
    json_kv_str(out, "object", object);
    json_kv_int(out, "created", job->created);
    json_kv_str(out, "model", job->model);
    json_key(out, "choices");
    json_array(out);
}

static void kv_null(struct json_writer *out, const char *key) {
    json_key(out, key);
    json_null(out);
}

/* Ends the choices and the object of a chunk. */
static void close_chunk(const struct mock_job *job, struct json_writer *out) {
    json_array_end(out);
    if (job->include_usage)
        kv_null(out, "usage");
    json_object_end(out);
}

static void close_choice(struct json_writer *out, struct str finish) {
    kv_null(out, "logprobs");
    json_key(out, "finish_reason");
    if (finish.ptr)
        json_string(out, finish);
    else
        json_null(out);
    kv_null(out, "matched_stop");
    json_object_end(out);
}

static FIBER_FN int send_usage(struct mock_job *job, struct str object) {
    if (!job->include_usage)
        return 0;
    struct json_writer *out = mock_job_event(job, NULL);
    open_answer(job, out, object);
    json_array_end(out);
    mock_job_usage(job, out);
    json_object_end(out);
    return mock_job_send(job);
}

/* --- chat ------------------------------------------------------------------------------------ */

static const struct str chat_chunk = STR_INIT("chat.completion.chunk");

static int chat_read(struct mock_job *job) {
    yyjson_val *messages = json_get(job->call->root, "messages");
    if (!yyjson_is_arr(messages) || yyjson_arr_size(messages) == 0)
        return mock_job_refuse(job, STR("messages must be a list that is not empty"));
    mock_tokens_messages(mock_job_prompt(job), messages);
    return read_limit(job);
}

static void chat_choice(const struct mock_job *job, struct json_writer *out, size_t index) {
    json_object(out);
    json_kv_int(out, "index", (int64_t)index);
    json_key(out, "message");
    json_object(out);
    json_kv_str(out, "role", STR("assistant"));
    json_kv_str(out, "content", job->texts[index].text);
    kv_null(out, "reasoning_content");
    kv_null(out, "tool_calls");
    json_object_end(out);
    close_choice(out, finish_reason(job));
}

static void chat_write(struct mock_job *job, struct json_writer *out) {
    open_answer(job, out, STR("chat.completion"));
    for (size_t i = 0; i < job->count; i++)
        chat_choice(job, out, i);
    json_array_end(out);
    mock_job_usage(job, out);
    json_object_end(out);
}

/* One chunk; `role` and `content` with ptr NULL are left out. */
static FIBER_FN int chat_send(struct mock_job *job, size_t choice, struct str role,
                              struct str content, struct str finish) {
    struct json_writer *out = mock_job_event(job, NULL);
    open_answer(job, out, chat_chunk);
    json_object(out);
    json_kv_int(out, "index", (int64_t)choice);
    json_key(out, "delta");
    json_object(out);
    if (role.ptr)
        json_kv_str(out, "role", role);
    if (content.ptr)
        json_kv_str(out, "content", content);
    json_object_end(out);
    close_choice(out, finish);
    close_chunk(job, out);
    return mock_job_send(job);
}

static FIBER_FN int chat_open(struct mock_job *job) {
    int err = 0;
    for (size_t i = 0; i < job->count && err == 0; i++)
        err = chat_send(job, i, STR("assistant"), STR(""), STR_NONE);
    return err;
}

static FIBER_FN int chat_token(struct mock_job *job, size_t choice, size_t index) {
    struct str piece = mock_text_piece(&job->texts[choice], index);
    return chat_send(job, choice, STR_NONE, piece, STR_NONE);
}

static FIBER_FN int chat_close(struct mock_job *job) {
    int err = 0;
    for (size_t i = 0; i < job->count && err == 0; i++)
        err = chat_send(job, i, STR_NONE, STR_NONE, finish_reason(job));
    if (err == 0)
        err = send_usage(job, chat_chunk);
    return err ? err : mock_job_done(job);
}

FIBER_FN void mock_chat(struct mock_call *call) {
    static const struct mock_format format = {"chatcmpl-", chat_read,  chat_write,
                                              chat_open,   chat_token, chat_close};
    mock_job_run(call, &format);
}

/* --- completions ----------------------------------------------------------------------------- */

static const struct str text_completion = STR_INIT("text_completion");

static int text_read(struct mock_job *job) {
    if (mock_job_prompts(job, json_get(job->call->root, "prompt")))
        return mock_job_refuse(job, STR("prompt must be a string, token ids, or a list of them"));
    return read_limit(job);
}

static void text_choice(struct json_writer *out, size_t index, struct str text, struct str finish) {
    json_object(out);
    json_kv_int(out, "index", (int64_t)index);
    json_kv_str(out, "text", text);
    close_choice(out, finish);
}

static void text_write(struct mock_job *job, struct json_writer *out) {
    open_answer(job, out, text_completion);
    for (size_t i = 0; i < job->count; i++)
        text_choice(out, i, job->texts[i].text, finish_reason(job));
    json_array_end(out);
    mock_job_usage(job, out);
    json_object_end(out);
}

static FIBER_FN int text_send(struct mock_job *job, size_t choice, struct str text,
                              struct str finish) {
    struct json_writer *out = mock_job_event(job, NULL);
    open_answer(job, out, text_completion);
    text_choice(out, choice, text, finish);
    close_chunk(job, out);
    return mock_job_send(job);
}

static FIBER_FN int text_open(struct mock_job *job) {
    (void)job;
    return 0;
}

static FIBER_FN int text_token(struct mock_job *job, size_t choice, size_t index) {
    return text_send(job, choice, mock_text_piece(&job->texts[choice], index), STR_NONE);
}

static FIBER_FN int text_close(struct mock_job *job) {
    int err = 0;
    for (size_t i = 0; i < job->count && err == 0; i++)
        err = text_send(job, i, STR(""), finish_reason(job));
    if (err == 0)
        err = send_usage(job, text_completion);
    return err ? err : mock_job_done(job);
}

FIBER_FN void mock_completions(struct mock_call *call) {
    static const struct mock_format format = {"cmpl-",   text_read,  text_write,
                                              text_open, text_token, text_close};
    mock_job_run(call, &format);
}
