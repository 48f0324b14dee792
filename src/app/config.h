/* From words to settings: command line, environment and configuration file are merged, checked as
 * a whole and turned into `struct settings`. Runs before any loop starts. */
#pragma once

#include "app/settings.h"

struct config;

/* What went wrong; secrets are never in the text. */
struct config_error {
    int status; /* exit status: 1 (a value, a file) or 2 (usage) */
    char text[1024];
};

/* `argv` without the program's and the command's name; `env` NULL = getenv. NULL with *error when
 * anything is refused. Free with config_free. */
struct config *config_load(int argc, char *const *argv, const char *(*env)(const char *name),
                           struct config_error *error);
void config_free(struct config *config);
/* --help was given: nothing else was looked at, and there are no settings to use. */
bool config_wants_help(const struct config *config);
/* Valid until config_free. */
const struct settings *config_settings(const struct config *config);
/* Lines to be logged as warnings once the log is up: what was accepted without effect, or changed.
 * NULL past the last one. */
const char *config_note(const struct config *config, size_t index);
