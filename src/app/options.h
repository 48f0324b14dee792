/* Which command the words of the command line ask for (spec 01 section 1.1): sub-commands, their
 * aliases, and the questions that are answered before anything else is looked at. */
#pragma once

#include <stdbool.h>

#include "base/mem.h"

enum command {
    COMMAND_LAUNCH, /* the gateway: `launch`, `start` or no sub-command */
    COMMAND_MOCK_WORKER,
    COMMAND_VERSION,
    COMMAND_VERSION_VERBOSE,
    COMMAND_HELP_MARKDOWN, /* prints docs/configuration.md */
};

struct command_line {
    enum command command;
    int argc; /* what follows the program's and the command's name */
    char *const *argv;
    char error[256];
};

/* Reads argv as main got it. --version, -V and --version-verbose count anywhere on the line. 0, or
 * -EINVAL with `error` (a usage error: exit status 2). */
int command_parse(int argc, char *const *argv, struct command_line *out) MUST_CHECK;
/* True for every word that is a sub-command in this version or a later one. */
bool command_known(const char *word);
/* Walks the commands for the help: name and one line; false at the end. */
bool command_next(unsigned *cursor, const char **name, const char **help);
