/* Signals arrive on the control loop only: every other thread blocks them; SIGPIPE is ignored. */
#pragma once

/* Ignores SIGPIPE; before any thread starts (threads of io/ are made with signals blocked). */
void signals_init(void);
/* Calls `fn(arg, signo)` on the control loop's stack at each arrival. */
void signals_on(int signo, void (*fn)(void *arg, int signo), void *arg);
