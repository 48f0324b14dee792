/* See process.h. */
#include "io/process.h"

#include <errno.h>
#include <signal.h>

#include "base/panic.h"
#include "io/loop_core.h"

struct process {
    uv_process_t handle;
    struct fiber *waiter;
    int status;
    bool exited, own_group, freed, closed;
};

static void process_release(struct process *process) {
    if (process->freed && process->closed)
        mem_free(process);
}

static void on_closed(uv_handle_t *handle) {
    struct process *process = handle->data;
    process->closed = true;
    process_release(process);
}

static void on_exit_status(uv_process_t *handle, int64_t status, int signo) {
    struct process *process = handle->data;
    loop_entered(handle->loop->data);
    process->exited = true;
    process->status = signo ? 128 + signo : (int)status;
    uv_close((uv_handle_t *)handle, on_closed);
    if (process->waiter != NULL)
        fiber_wake(process->waiter);
}

int process_start(const struct process_options *options, struct process **out) {
    assert_always(loop_here() == loop_control());
    struct process *process = mem_zalloc(sizeof *process);
    uv_stdio_container_t stdio[3];
    for (int i = 0; i < 3; i++) {
        stdio[i].flags = options->quiet ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = i;
    }
    uv_process_options_t uv = {.file = options->argv[0],
                               .args = (char **)options->argv,
                               .env = (char **)options->env,
                               .stdio = stdio,
                               .stdio_count = 3,
                               .exit_cb = on_exit_status,
                               .flags = options->own_group ? UV_PROCESS_DETACHED : 0};
    process->own_group = options->own_group;
    process->handle.data = process;
    int rc = uv_spawn(loop_uv(loop_control()), &process->handle, &uv);
    *out = process;
    if (rc == 0)
        return 0;
    *out = NULL;
    process->freed = true;
    uv_close((uv_handle_t *)&process->handle, on_closed);
    return rc;
}

pid_t process_pid(const struct process *process) { return process->handle.pid; }

FIBER_FN int process_wait(struct process *process, deadline_ms deadline) {
    process->waiter = fiber_self();
    int rc = 0;
    while (!process->exited && rc == 0)
        rc = fiber_park(deadline);
    process->waiter = NULL;
    return process->exited ? process->status : rc;
}

int process_signal(struct process *process, int signo) {
    if (process->exited)
        return -ESRCH;
    pid_t pid = process_pid(process);
    return kill(process->own_group ? -pid : pid, signo) == 0 ? 0 : -errno;
}

void process_free(struct process *process) {
    assert_always(process->exited && process->waiter == NULL);
    process->freed = true;
    process_release(process);
}
