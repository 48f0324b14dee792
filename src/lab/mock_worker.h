/* `sluice mock-worker`: simulated SGLang workers, many in one process, on the gateway's own core. */
#pragma once

/* Runs until SIGTERM or SIGINT; the exit status. argv[0] is the sub-command's name ("mock-worker"), the
 * flags follow. Main thread, before any other thread is started. */
int mock_worker_main(int argc, char **argv);
