/* Watches that loops turn: a loop that has been at work for 100 ms without coming back to its wait has its
 * backtrace logged, once a stall, and counted in loop_stats.stalls. For loop.c only. */
#pragma once

#include <signal.h>

/* Asks a stalled thread for its backtrace; loop threads must not block it. */
#define WATCHDOG_SIGNAL (SIGRTMIN + 3)

/* Starts and ends the watching thread. */
void watchdog_start(void);
void watchdog_stop(void);
