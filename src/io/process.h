/* Child processes with pipes, from the control loop only. Every descriptor of ours is CLOEXEC. */
#pragma once

#include <sys/types.h>

#include "io/fiber.h"

struct process;

struct process_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;  /* NULL: ours */
    bool own_group;          /* its own session and process group */
    bool quiet;              /* stdin, stdout and stderr from and to /dev/null; else inherited */
};
/* Starts a child. 0 with *out, or a negative errno. The struct stays until process_free. */
int process_start(const struct process_options *options, struct process **out) MUST_CHECK;
pid_t process_pid(const struct process *process);
/* Waits for its end; exit status (128+n for a signal), -ECANCELED or -ETIMEDOUT. */
FIBER_FN int process_wait(struct process *process, deadline_ms deadline);
/* Sends a signal to it, or to its whole group when it has its own. */
int process_signal(struct process *process, int signo);
void process_free(struct process *process);
