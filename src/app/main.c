/* The program: which command, and on to it. */
#include <stdio.h>

#include "app/help.h"
#include "app/launch.h"
#include "app/options.h"
#include "lab/mock_worker.h"

static int say(void (*what)(FILE *out)) {
    what(stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    struct command_line line;
    if (command_parse(argc, argv, &line) < 0) {
        fprintf(stderr, "sluice: %s\n", line.error);
        return 2;
    }
    switch (line.command) {
    case COMMAND_VERSION: return say(help_version);
    case COMMAND_VERSION_VERBOSE: return say(help_version_verbose);
    case COMMAND_HELP_MARKDOWN: return say(help_markdown);
    case COMMAND_MOCK_WORKER: return mock_worker_main(line.argc + 1, (char **)line.argv - 1);
    case COMMAND_LAUNCH: return launch_main(line.argc, line.argv);
    }
    return 2;
}
