/* The option parser: walks tokens, finds rows, and gives each value to one function, `assign`, that
 * ranks its source, reads it (optvalue.c) and stores it. Lists grow in arrays that the parser owns;
 * a stronger source starts a list anew, the same source extends it. The first usage error ends the
 * walk; a refused value is remembered and the walk goes on, because a usage error weighs more. */
#include "base/optparse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/optname.h"
#include "base/optvalue.h"
#include "base/panic.h"
#include "base/vec.h"

#define REASON_MAX 400

struct row_state {
    enum opt_source source;
    void *items; /* of a list */
    size_t len;
};

struct optparse {
    const struct opt_schema *schema;
    char *dest;
    struct row_state *states; /* one for each row, in table order */
    struct opt_error error;
    bool wants_help;
    VEC(char *) strings;
};

/* --- rows and their state -------------------------------------------------------------------- */

static size_t row_count(const struct opt_schema *schema) {
    size_t count = 0;
    for (size_t i = 0; i < schema->count; i++)
        count += schema->groups[i].count;
    return count;
}

/* Row number `index` in table order, or NULL past the last one. */
static const struct opt_row *row_at(const struct opt_schema *schema, size_t index) {
    for (size_t i = 0; i < schema->count; i++) {
        if (index < schema->groups[i].count)
            return &schema->groups[i].rows[index];
        index -= schema->groups[i].count;
    }
    return NULL;
}

static struct row_state *state_of(const struct optparse *parser, const struct opt_row *row) {
    size_t index = 0;
    for (size_t i = 0; i < parser->schema->count; i++) {
        const struct opt_group *group = &parser->schema->groups[i];
        if (row >= group->rows && row < group->rows + group->count)
            return &parser->states[index + (size_t)(row - group->rows)];
        index += group->count;
    }
    panic_here("--%s is no row of this parser", row->name);
}

/* --- errors ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int fail(struct optparse *parser, int status,
                                                      const char *format, ...) {
    if (parser->error.status >= status)
        return -EINVAL;
    va_list args;
    va_start(args, format);
    vsnprintf(parser->error.text, sizeof parser->error.text, format, args);
    va_end(args);
    parser->error.status = status;
    return -EINVAL;
}

#define fail_usage(parser, ...) fail((parser), 2, __VA_ARGS__)
#define fail_value(parser, ...) fail((parser), 1, __VA_ARGS__)

/* The value as a message may show it. */
static const char *shown(const struct opt_row *row, const char *value) {
    return row->secret ? "[redacted]" : value;
}

static int fail_refused(struct optparse *parser, const struct opt_row *row, const char *value,
                        const char *reason) {
    char field[96];
    return fail_value(parser, "Invalid value for field '%s': %.200s - %s",
                      opt_field_name(row, field, sizeof field), shown(row, value), reason);
}

/* --- storing --------------------------------------------------------------------------------- */

const char *optparse_keep(struct optparse *parser, struct str text) {
    char *copy = str_dup(text);
    vec_push(&parser->strings, copy);
    return copy;
}

static void publish_list(struct optparse *parser, const struct opt_row *row,
                         const struct row_state *state) {
    if (!row->has_dest)
        return;
    char *field = parser->dest + row->offset;
    if (row->type == OPT_FLOATS)
        *(struct opt_floats *)field = (struct opt_floats){state->items, state->len};
    else
        *(struct opt_list *)field = (struct opt_list){state->items, state->len};
}

static void append_item(struct optparse *parser, const struct opt_row *row, struct row_state *state,
                        const struct opt_value *value) {
    if (row->type == OPT_FLOATS) {
        double *items = mem_realloc(state->items, (state->len + 1) * sizeof *items);
        items[state->len++] = value->real;
        state->items = items;
    } else {
        const char **items = mem_realloc(state->items, (state->len + 1) * sizeof *items);
        items[state->len++] = optparse_keep(parser, str_from(value->text));
        state->items = items;
    }
}

static void store(struct optparse *parser, const struct opt_row *row, struct row_state *state,
                  struct opt_value *value) {
    if (opt_type_is_list(row->type)) {
        append_item(parser, row, state, value);
        return;
    }
    if (row->has_dest && (row->type == OPT_STR || row->type == OPT_CHOICE))
        value->text = optparse_keep(parser, str_from(value->text));
    opt_value_store(row, value, parser->dest);
}

/* A source speaks of this row: true when it may write. A list that another source filled is begun
 * anew. */
static bool claim(struct optparse *parser, const struct opt_row *row, enum opt_source source) {
    struct row_state *state = state_of(parser, row);
    if (source < state->source)
        return false;
    if (source > state->source)
        state->len = 0;
    state->source = source;
    if (opt_type_is_list(row->type))
        publish_list(parser, row, state);
    return true;
}

/* Reads one value (one item of a list) and stores it if `claimed`. */
static enum opt_verdict assign_one(struct optparse *parser, const struct opt_row *row, bool claimed,
                                   const char *text, char *reason) {
    struct opt_value value;
    enum opt_verdict verdict = opt_value_read(row, text, &value, reason, REASON_MAX);
    if (verdict != OPT_VALUE_OK || !claimed)
        return verdict;
    struct row_state *state = state_of(parser, row);
    store(parser, row, state, &value);
    if (opt_type_is_list(row->type))
        publish_list(parser, row, state);
    return OPT_VALUE_OK;
}

/* As assign_one; a token of an OPT_PAIRS row may hold several pairs. */
static enum opt_verdict assign(struct optparse *parser, const struct opt_row *row, bool claimed,
                               const char *text, char *reason) {
    if (row->type != OPT_PAIRS)
        return assign_one(parser, row, claimed, text, reason);
    struct str word;
    while (opt_next_word(&text, &word)) {
        char *pair = str_dup(word);
        enum opt_verdict verdict = assign_one(parser, row, claimed, pair, reason);
        mem_free(pair);
        if (verdict != OPT_VALUE_OK)
            return verdict;
    }
    return OPT_VALUE_OK;
}

/* Assigns the blank-separated words of `text` to a list row, or all of it to another one. */
static enum opt_verdict assign_words(struct optparse *parser, const struct opt_row *row,
                                     bool claimed, const char *text, char *reason) {
    if (!opt_type_is_list(row->type))
        return assign(parser, row, claimed, text, reason);
    struct str word;
    enum opt_verdict verdict = OPT_VALUE_OK;
    while (verdict == OPT_VALUE_OK && opt_next_word(&text, &word)) {
        char *item = str_dup(word);
        verdict = assign(parser, row, claimed, item, reason);
        mem_free(item);
    }
    return verdict;
}

/* --- life ------------------------------------------------------------------------------------ */

static void apply_default(struct optparse *parser, const struct opt_row *row) {
    char reason[REASON_MAX];
    if (row->has_dest)
        memset(parser->dest + row->offset, 0, row->size);
    if (row->initial == NULL)
        return;
    enum opt_verdict verdict = assign_words(parser, row, true, row->initial, reason);
    if (verdict != OPT_VALUE_OK)
        panic_here("--%s: its default is refused: %s", row->name, reason);
}

struct optparse *optparse_new(const struct opt_schema *schema, void *dest) {
    struct optparse *parser = mem_zalloc(sizeof *parser);
    parser->schema = schema;
    parser->dest = dest;
    parser->states = mem_zalloc((row_count(schema) + 1) * sizeof *parser->states);
    const struct opt_row *row;
    for (size_t i = 0; (row = row_at(schema, i)) != NULL; i++)
        apply_default(parser, row);
    return parser;
}

void optparse_free(struct optparse *parser) {
    if (parser == NULL)
        return;
    for (size_t i = 0; row_at(parser->schema, i) != NULL; i++)
        mem_free(parser->states[i].items);
    mem_free(parser->states);
    for (size_t i = 0; i < parser->strings.len; i++)
        mem_free(parser->strings.items[i]);
    vec_free(&parser->strings);
    mem_free(parser);
}

/* --- the command line ------------------------------------------------------------------------ */

struct tokens {
    char *const *at, *const *end;
    const struct opt_row *last; /* the flag before the token at hand */
};

/* The next token if it can be a value of `row`, else NULL. */
static const char *take_value(struct tokens *tokens, const struct opt_row *row) {
    if (tokens->at == tokens->end)
        return NULL;
    const char *token = *tokens->at;
    bool number = opt_type_is_numeric(row->type) && opt_value_negative_number(token);
    if (token[0] == '-' && !number)
        return NULL;
    tokens->at++;
    return token;
}

static int args_assign(struct optparse *parser, const struct opt_row *row, bool claimed,
                       const char *text) {
    char reason[REASON_MAX];
    switch (assign(parser, row, claimed, text, reason)) {
    case OPT_VALUE_OK: return 0;
    case OPT_VALUE_REFUSED:
        (void)fail_refused(parser, row, text, reason);
        return 0; /* the walk goes on: a usage error would weigh more */
    default:
        return fail_usage(parser, "invalid value '%.200s' for '--%s': %s", shown(row, text),
                          row->name, reason);
    }
}

static int args_url_port(struct optparse *parser, const struct opt_row *row, bool claimed,
                         struct tokens *tokens, const char *url) {
    char item[2048];
    bool port = tokens->at != tokens->end && opt_value_is_port(*tokens->at);
    int len = snprintf(item, sizeof item, "%s%s%s", url, port ? " " : "", port ? *tokens->at : "");
    if (len < 0 || (size_t)len >= sizeof item)
        return fail_usage(parser, "the value of '--%s' is too long", row->name);
    tokens->at += port;
    return args_assign(parser, row, claimed, item);
}

static int args_list(struct optparse *parser, const struct opt_row *row, bool claimed,
                     struct tokens *tokens, const char *inline_value) {
    if (inline_value != NULL && args_assign(parser, row, claimed, inline_value) != 0)
        return -EINVAL;
    const char *item;
    while ((item = take_value(tokens, row)) != NULL)
        if (args_assign(parser, row, claimed, item) != 0)
            return -EINVAL;
    return 0;
}

/* Takes what belongs to a flag: `inline_value` after '=', or NULL. */
static int args_values(struct optparse *parser, const struct opt_row *row, struct tokens *tokens,
                       const char *inline_value) {
    bool claimed = claim(parser, row, OPT_FROM_ARGS);
    if (row->type == OPT_BOOL) {
        if (inline_value != NULL)
            return fail_usage(parser, "'--%s' takes no value", row->name);
        return args_assign(parser, row, claimed, "true");
    }
    if (row->type == OPT_LIST || row->type == OPT_PAIRS || row->type == OPT_FLOATS)
        return args_list(parser, row, claimed, tokens, inline_value);
    const char *value = inline_value != NULL ? inline_value : take_value(tokens, row);
    if (value == NULL)
        return fail_usage(parser, "'--%s' needs a value", row->name);
    if (row->type == OPT_URL_PORT)
        return args_url_port(parser, row, claimed, tokens, value);
    return args_assign(parser, row, claimed, value);
}

static int fail_unknown(struct optparse *parser, struct str name) {
    const char *near = optparse_near(parser->schema, name);
    if (near != NULL)
        return fail_usage(parser, "unknown flag '--%.*s': did you mean '--%s'?",
                          (int)(name.len < 100 ? name.len : 100), name.ptr, near);
    char text[101];
    snprintf(text, sizeof text, "%.*s", STR_ARG(name));
    const char *hint = parser->schema->unknown_hint ? parser->schema->unknown_hint(text) : NULL;
    return fail_usage(parser, "unknown flag '--%s'%s%s", text, hint ? ": " : "", hint ? hint : "");
}

/* Why a row that is in the table cannot be used; NULL when it can. */
static const char *row_barred(const struct opt_row *row, char *reason, size_t size) {
    if (row->status == OPT_NOT_YET)
        snprintf(reason, size, "is not available in this version yet");
    else if (row->status == OPT_ABSENT)
        snprintf(reason, size, "is not available: %s", row->note);
    else
        return NULL;
    return reason;
}

static int args_flag(struct optparse *parser, struct tokens *tokens, const char *token) {
    struct str name = str_from(token + 2);
    ptrdiff_t equals = str_find_char(name, '=');
    const char *inline_value = equals >= 0 ? name.ptr + equals + 1 : NULL;
    if (equals >= 0)
        name = str_head(name, (size_t)equals);
    const struct opt_row *row = optparse_find(parser->schema, name, false);
    if (row == NULL)
        return fail_unknown(parser, name);
    char reason[REASON_MAX];
    if (row_barred(row, reason, sizeof reason) != NULL)
        return fail_usage(parser, "--%s %s", row->name, reason);
    tokens->last = row;
    return args_values(parser, row, tokens, inline_value);
}

static int fail_token(struct optparse *parser, const struct tokens *tokens, const char *token) {
    if (token[0] == '-' && token[1] != '\0')
        return fail_usage(parser, "unknown option '%.100s'", token);
    const char *hint = parser->schema->argument_hint ? parser->schema->argument_hint(token) : NULL;
    if (hint != NULL)
        return fail_usage(parser, "unexpected argument '%.100s': %s", token, hint);
    if (tokens->last == NULL)
        return fail_usage(parser, "unexpected argument '%.100s'", token);
    return fail_usage(parser, "unexpected argument '%.100s' after '--%s'",
                      shown(tokens->last, token), tokens->last->name);
}

int optparse_args(struct optparse *parser, int argc, char *const *argv) {
    struct tokens tokens = {argv, argv + argc, NULL};
    while (tokens.at != tokens.end) {
        const char *token = *tokens.at++;
        if (strcmp(token, "--help") == 0 || strcmp(token, "-h") == 0) {
            parser->wants_help = true;
            parser->error = (struct opt_error){0};
            return 0;
        }
        bool flag = token[0] == '-' && token[1] == '-' && token[2] != '\0';
        int error = flag ? args_flag(parser, &tokens, token) : fail_token(parser, &tokens, token);
        if (error != 0)
            return error;
    }
    return parser->error.status == 0 ? 0 : -EINVAL;
}

/* --- environment and file -------------------------------------------------------------------- */

static const char *env_lookup(const struct opt_row *row, const char *(*get)(const char *),
                              char *name, size_t size) {
    const char *cursor = row->env;
    struct str word;
    while (opt_next_word(&cursor, &word)) {
        snprintf(name, size, "%.*s", STR_ARG(word));
        const char *value = get(name);
        if (value != NULL && value[0] != '\0')
            return value;
    }
    return NULL;
}

static int env_row(struct optparse *parser, const struct opt_row *row,
                   const char *(*get)(const char *)) {
    char name[96], reason[REASON_MAX];
    const char *value = row->env ? env_lookup(row, get, name, sizeof name) : NULL;
    if (value == NULL)
        return 0;
    if (row_barred(row, reason, sizeof reason) != NULL) {
        if (!row->env_binds)
            return 0;
        return fail_value(parser, "environment variable %s is set, but --%s %s", name, row->name,
                          reason);
    }
    bool claimed = claim(parser, row, OPT_FROM_ENV);
    switch (assign_words(parser, row, claimed, value, reason)) {
    case OPT_VALUE_OK: return 0;
    case OPT_VALUE_REFUSED: return fail_refused(parser, row, value, reason);
    default:
        return fail_value(parser, "invalid value '%.200s' in environment variable %s (--%s): %s",
                          shown(row, value), name, row->name, reason);
    }
}

static const char *process_env(const char *name) { return getenv(name); }

int optparse_env(struct optparse *parser, const char *(*get)(const char *name)) {
    const struct opt_row *row;
    for (size_t i = 0; (row = row_at(parser->schema, i)) != NULL; i++) {
        int error = env_row(parser, row, get != NULL ? get : process_env);
        if (error != 0)
            return error;
    }
    return 0;
}

int optparse_file(struct optparse *parser, const struct opt_row *row, const char *const *values,
                  size_t count, char *reason, size_t reason_size) {
    char why[REASON_MAX];
    if (row_barred(row, reason, reason_size) != NULL)
        return -EINVAL;
    bool list = opt_type_is_list(row->type);
    if (!list && count != 1) {
        snprintf(reason, reason_size, "expected one value, found a list");
        return -EINVAL;
    }
    bool claimed = claim(parser, row, OPT_FROM_FILE);
    for (size_t i = 0; i < count; i++) {
        if (assign(parser, row, claimed, values[i], why) == OPT_VALUE_OK)
            continue;
        if (row->secret)
            snprintf(reason, reason_size, "%s", why);
        else
            snprintf(reason, reason_size, "'%.100s': %s", values[i], why);
        return -EINVAL;
    }
    return 0;
}

/* --- results --------------------------------------------------------------------------------- */

int optparse_finish(struct optparse *parser) {
    const struct opt_row *row;
    if (parser->wants_help)
        return 0;
    for (size_t i = 0; (row = row_at(parser->schema, i)) != NULL; i++)
        if (row->need && parser->states[i].source == OPT_FROM_DEFAULT)
            return fail_usage(parser, "'--%s' is required", row->name);
    return 0;
}

bool optparse_wants_help(const struct optparse *parser) { return parser->wants_help; }

const struct opt_error *optparse_error(const struct optparse *parser) { return &parser->error; }

enum opt_source optparse_source(const struct optparse *parser, const char *name) {
    const struct opt_row *row = optparse_find(parser->schema, str_from(name), false);
    if (row == NULL)
        panic_here("no option --%s", name);
    return state_of(parser, row)->source;
}

const struct opt_row *optparse_next_no_op(const struct optparse *parser, size_t *cursor) {
    const struct opt_row *row;
    while ((row = row_at(parser->schema, *cursor)) != NULL) {
        enum opt_source source = parser->states[(*cursor)++].source;
        if (row->status == OPT_NO_OP && source != OPT_FROM_DEFAULT)
            return row;
    }
    return NULL;
}
