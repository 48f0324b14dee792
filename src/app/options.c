/* Sub-commands from a table. The program's own name does not matter: it may be installed under the
 * peers' names (smg, amg, sglang-router, shepherd-model-gateway). */
#include "app/options.h"

#include <errno.h>
#include <stdio.h>

#include "base/optname.h"
#include "base/optparse.h"

static const struct {
    const char *name, *help; /* no help: an alias, or not available yet */
    enum command command;
    bool available;
} commands[] = {
    {"launch", "run the gateway (also when no command is given)", COMMAND_LAUNCH, true},
    {"start", NULL, COMMAND_LAUNCH, true},
    {"mock-worker", "run simulated workers", COMMAND_MOCK_WORKER, true},
    {.name = "launch-server"},
    {.name = "launch_server"},
    {.name = "server"},
    {.name = "serve"},
    {.name = "simulate"},
    {.name = "render"},
    {.name = "tokenize"},
    {.name = "parse"},
    {.name = "upgrade"},
};

static int find_command(const char *word) {
    for (size_t i = 0; i < OPT_COUNT(commands); i++)
        if (strcmp(commands[i].name, word) == 0)
            return (int)i;
    return -1;
}

bool command_known(const char *word) { return find_command(word) >= 0; }

bool command_next(unsigned *cursor, const char **name, const char **help) {
    while (*cursor < OPT_COUNT(commands)) {
        unsigned i = (*cursor)++;
        if (commands[i].help == NULL)
            continue;
        *name = commands[i].name;
        *help = commands[i].help;
        return true;
    }
    return false;
}

/* The flags that are answered wherever they stand. */
static bool asks_first(const char *word, enum command *command) {
    static const struct {
        const char *flag;
        enum command command;
    } questions[] = {
        {"--version", COMMAND_VERSION},
        {"-V", COMMAND_VERSION},
        {"--version-verbose", COMMAND_VERSION_VERBOSE},
        {"--help-markdown", COMMAND_HELP_MARKDOWN},
    };
    for (size_t i = 0; i < OPT_COUNT(questions); i++) {
        if (strcmp(questions[i].flag, word) != 0)
            continue;
        *command = questions[i].command;
        return true;
    }
    return false;
}

static const char *near_command(const char *word) {
    for (size_t i = 0; i < OPT_COUNT(commands); i++)
        if (opt_edit_distance(str_from(word), str_from(commands[i].name), 2) <= 2)
            return commands[i].name;
    return NULL;
}

static int fail_unknown(struct command_line *out, const char *word) {
    const char *near = near_command(word);
    if (near != NULL)
        snprintf(out->error, sizeof out->error, "unknown sub-command '%.80s': did you mean '%s'?",
                 word, near);
    else
        snprintf(out->error, sizeof out->error, "unknown sub-command '%.80s': see --help", word);
    return -EINVAL;
}

static int take_command(struct command_line *out) {
    const char *word = out->argv[0];
    int found = find_command(word);
    if (found < 0)
        return fail_unknown(out, word);
    if (!commands[found].available) {
        snprintf(out->error, sizeof out->error,
                 "the sub-command '%s' is not available in this version yet", word);
        return -EINVAL;
    }
    out->command = commands[found].command;
    out->argc--;
    out->argv++;
    return 0;
}

int command_parse(int argc, char *const *argv, struct command_line *out) {
    int skip = argc > 0 ? 1 : 0;
    *out = (struct command_line){.argc = argc - skip, .argv = argv + skip};
    for (int i = 0; i < out->argc; i++)
        if (asks_first(out->argv[i], &out->command))
            return 0;
    if (out->argc == 0 || out->argv[0][0] == '-')
        return 0;
    return take_command(out);
}
