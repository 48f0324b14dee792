/* Options from declarative tables: rows name a flag and the field of the caller's struct that it
 * fills. The gateway and the lab's commands share this parser; opthelp.h prints help from the same
 * rows. Sources rank: command line over environment over configuration file over default; they may
 * be applied in any order, a weaker source never overwrites a stronger one. All strings and lists
 * that land in the caller's struct belong to the parser and live until optparse_free.
 *
 *     struct mock_options { const char *host; uint16_t port; double fail_rate; bool hang; };
 *     static const struct opt_row rows[] = {
 *         {.name = "host", .type = OPT_STR, OPT_DEST(struct mock_options, host),
 *          .initial = "127.0.0.1", .help = "bind address"},
 *         {.name = "port", .type = OPT_INT, OPT_DEST(struct mock_options, port),
 *          OPT_RANGE(1, 65535), .need = true, .help = "first port"},
 *         {.name = "fail-rate", .type = OPT_FLOAT, OPT_DEST(struct mock_options, fail_rate),
 *          .initial = "0", OPT_FRANGE(0, 1), .help = "share of requests that fail"},
 *         {.name = "hang", .type = OPT_BOOL, OPT_DEST(struct mock_options, hang), .help = "..."},
 *     };
 *     static const struct opt_group groups[] = {{"Mock worker", rows, OPT_COUNT(rows)}};
 *     static const struct opt_schema schema = {groups, OPT_COUNT(groups)};
 *
 *     struct mock_options options = {0};
 *     struct optparse *parser = optparse_new(&schema, &options);      // defaults are in now
 *     if (optparse_args(parser, argc - 2, argv + 2) != 0 || optparse_finish(parser) != 0) {
 *         fprintf(stderr, "%s\n", optparse_error(parser)->text);
 *         return optparse_error(parser)->status;                     // 1 or 2
 *     }
 *     if (optparse_wants_help(parser)) { opthelp_write(&schema, stdout); return 0; }
 *     ...
 *     optparse_free(parser);                                         // strings go with it
 *
 * Grammar: `--flag value`, `--flag=value`; list flags take the tokens up to the next one that starts
 * with '-' and repeats extend; a negative number after a numeric flag is its value; names are exact;
 * `-h` is the only short option here. Nothing parks; one thread at a time. */
#pragma once

#include <stddef.h>

#include "base/str.h"

/* What a row stores, and into which C type of field. */
enum opt_type {
    OPT_BOOL,     /* bool; presence flag without a value */
    OPT_INT,      /* any integer type (width and sign from the field), decimal; times .scale */
    OPT_FLOAT,    /* double */
    OPT_STR,      /* const char * (NULL = unset) */
    OPT_CHOICE,   /* const char *, one of .choices */
    OPT_LIST,     /* struct opt_list; zero or more tokens */
    OPT_REPEAT,   /* struct opt_list; one token for each time it is given */
    OPT_PAIRS,    /* struct opt_list of "key=value"; tokens are also split at blanks */
    OPT_FLOATS,   /* struct opt_floats; zero or more tokens */
    OPT_URL_PORT, /* struct opt_list; URL, then a port 1..65535 or `none` if the next token is one:
                     items are "URL" or "URL PORT" */
};

enum opt_status {
    OPT_WORKS,
    OPT_NOT_YET, /* known, refused when given: a later version brings it */
    OPT_NO_OP,   /* accepted without effect; .note says why */
    OPT_ABSENT,  /* will not come; refused when given; .note says why */
};

struct opt_list {
    const char **items;
    size_t len;
};
struct opt_floats {
    double *items;
    size_t len;
};

struct opt_row {
    const char *name;    /* without the dashes: "worker-urls" */
    const char *aliases; /* other spellings, separated by blanks, or NULL */
    enum opt_type type;
    enum opt_status status;
    bool has_dest, dest_signed, ranged, above_min;
    bool need;      /* optparse_finish fails when no source gave it */
    bool secret;    /* its values never appear in a message */
    bool hidden;    /* not in the help */
    bool env_binds; /* NOT_YET and its variable is set: refuse (it would weaken security) */
    unsigned char size;
    unsigned offset;
    int64_t min, max;    /* when ranged: OPT_INT; OPT_STR: least number of bytes */
    double fmin, fmax;   /* when ranged: OPT_FLOAT, OPT_FLOATS items */
    int64_t scale;       /* 0 = 1; the field gets value * scale (seconds into milliseconds) */
    const char *initial; /* default as on the command line; lists: blank-separated; NULL = unset */
    const char *initial_help; /* what help says of the default when it is computed */
    const char *choices;      /* OPT_CHOICE: blank-separated */
    const char *env;          /* environment variables, blank-separated, first one set wins */
    const char *field;        /* name in messages; NULL = name with '_' for '-' */
    const char *value;        /* value's name in the help: "SECS"; NULL = by type */
    const char *tag;          /* where the flag comes from: "SEED"... */
    const char *help;
    const char *note; /* for NO_OP and ABSENT the reason */
};

#define OPT_COUNT(array) (sizeof(array) / sizeof *(array))
/* The field a row fills; its width and sign are taken from its type. */
#define OPT_DEST(type_, field_)                                                                    \
    .has_dest = true, .offset = offsetof(type_, field_), .size = sizeof(((type_ *)0)->field_),     \
    .dest_signed = _Generic(((type_ *)0)->field_, signed char                                      \
                            : true, short                                                          \
                            : true, int                                                            \
                            : true, long                                                           \
                            : true, long long                                                      \
                            : true, default                                                        \
                            : false)
#define OPT_RANGE(min_, max_) .ranged = true, .min = (min_), .max = (max_)
#define OPT_MIN(min_) OPT_RANGE(min_, INT64_MAX)
#define OPT_NOT_EMPTY OPT_MIN(1) /* for OPT_STR */
#define OPT_FRANGE(min_, max_) .ranged = true, .fmin = (min_), .fmax = (max_)
#define OPT_FMIN(min_) OPT_FRANGE(min_, __DBL_MAX__)
#define OPT_FABOVE(min_) OPT_FMIN(min_), .above_min = true

/* One section of the help. Groups may live in several files. */
struct opt_group {
    const char *title;
    const struct opt_row *rows;
    size_t count;
};
struct opt_schema {
    const struct opt_group *groups;
    size_t count;
    /* A last word on an unknown flag (without dashes) when no name is near, and on a token that is
     * no flag and nobody's value; both may be NULL or return NULL. */
    const char *(*unknown_hint)(const char *name);
    const char *(*argument_hint)(const char *token);
};

enum opt_source { OPT_FROM_DEFAULT, OPT_FROM_FILE, OPT_FROM_ENV, OPT_FROM_ARGS };

/* The first thing that went wrong. Usage errors: status 2. Values of the right type that the range
 * refuses: status 1, in the layout `Invalid value for field 'F': V - reason`. */
struct opt_error {
    int status; /* exit status: 0 (none), 1 or 2 */
    char text[640];
};

struct optparse;

/* A parser that fills `dest`; writes every default at once. The schema must outlive it. A default
 * that its own row refuses is a bug and panics. */
struct optparse *optparse_new(const struct opt_schema *schema, void *dest);
void optparse_free(struct optparse *parser);

/* Command line: argv without the program's and the sub-command's name. 0, or -EINVAL with the error
 * kept. A usage error anywhere wins over a value out of range. Stops at --help / -h. */
int optparse_args(struct optparse *parser, int argc, char *const *argv) MUST_CHECK;
/* Environment variables of the rows; `get` NULL = getenv. Empty variables count as unset. */
int optparse_env(struct optparse *parser, const char *(*get)(const char *name)) MUST_CHECK;
/* One value of a configuration file: `values` are texts as on the command line (OPT_BOOL: "true" or
 * "false"; a list: all its items). `reason` (at least 512 bytes) says what is wrong on -EINVAL. */
int optparse_file(struct optparse *parser, const struct opt_row *row, const char *const *values,
                  size_t count, char *reason, size_t reason_size) MUST_CHECK;
/* Checks that all needed rows were given. Does nothing when help is wanted. */
int optparse_finish(struct optparse *parser) MUST_CHECK;

bool optparse_wants_help(const struct optparse *parser);
const struct opt_error *optparse_error(const struct optparse *parser);

/* The row of a name or alias ("worker-urls"; with '_' for '-' when `underscores`), or NULL. */
const struct opt_row *optparse_find(const struct opt_schema *schema, struct str name,
                                    bool underscores);
/* The nearest spelling of an unknown name, or NULL when nothing is near. */
const char *optparse_near(const struct opt_schema *schema, struct str name);
/* Where the row's present value comes from. Panics on a name that is not in the table. */
enum opt_source optparse_source(const struct optparse *parser, const char *name);
/* Walks NO_OP rows that some source gave: start with *cursor = 0; NULL at the end. */
const struct opt_row *optparse_next_no_op(const struct optparse *parser, size_t *cursor);
/* A string that lives as long as the parser, for values computed later. */
const char *optparse_keep(struct optparse *parser, struct str text);

/* The name used in messages: row->field, or the name with underscores, into `out`. */
const char *opt_field_name(const struct opt_row *row, char *out, size_t size);
/* Iterates blank-separated words (aliases, choices, initial): false at the end. */
bool opt_next_word(const char **cursor, struct str *word);
