/* The gateway as a process: wiring, start and stop. */
#pragma once

/* `sluice launch FLAGS`: argv without program and command name. Exit status (spec 01 section 8.4). */
int launch_main(int argc, char *const *argv);
