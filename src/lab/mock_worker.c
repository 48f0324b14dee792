/* Start and stop. One listener and one server for each worker; all loops accept for all of them. */
#include "lab/mock_worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/panic.h"
#include "io/listener.h"
#include "io/signals.h"
#include "lab/mock_routes.h"

enum { MAX_BODY = 1 << 30, MAX_HEADER = 1 << 20, MAX_HEADERS = 1000, SILENCE_MS = 600000 };

struct mock_port {
    struct mock_door door;
    struct http_server *server;
    struct listener *listener;
};

static struct mock_process {
    struct mock_lab lab;
    struct mock_port *ports;
    unsigned opened;
    bool stopping;
} process;

static struct http_server *new_server(struct mock_door *door) {
    struct http_server_options options = {
        .max_header_bytes = MAX_HEADER,
        .max_headers = MAX_HEADERS,
        .max_request_line = 65536,
        .max_body = MAX_BODY,
        .header_timeout_ms = SILENCE_MS,
        .idle_timeout_ms = SILENCE_MS,
        .body_idle_timeout_ms = SILENCE_MS,
        .write_timeout_ms = SILENCE_MS,
        .handler = mock_serve,
        .arg = door,
    };
    return http_server_new(&options);
}

static int open_port(unsigned index) {
    const struct mock_options *options = &process.lab.options;
    struct mock_port *port = &process.ports[index];
    struct mock_site *site = &process.lab.sites[index];
    port->door = (struct mock_door){&process.lab, site};
    port->server = new_server(&port->door);
    struct listener_options listen = {
        .host = options->host,
        .port = (uint16_t)(options->port ? options->port + index : 0),
        .accepted = http_server_accept,
        .arg = port->server,
    };
    int err = listener_open(&listen, &port->listener);
    if (err) {
        fprintf(stderr, "mock-worker: cannot listen on %s:%u: %s\n", options->host,
                options->port + index, strerror(-err));
        return err;
    }
    mock_site_init(site, options, listener_port(port->listener));
    process.opened++;
    return 0;
}

static int open_ports(void) {
    unsigned count = process.lab.options.count;
    process.lab.sites = mem_zalloc(count * sizeof *process.lab.sites);
    process.ports = mem_zalloc(count * sizeof *process.ports);
    process.lab.count = count;
    for (unsigned i = 0; i < count; i++) {
        int err = open_port(i);
        if (err)
            return err;
    }
    return 0;
}

/* --- stop ------------------------------------------------------------------------------------ */

static FIBER_FN void stop(void *arg) {
    (void)arg;
    for (unsigned i = 0; i < process.opened; i++) {
        http_server_drain(process.ports[i].server);
        listener_close(process.ports[i].listener);
        http_server_cut(process.ports[i].server);
    }
    loops_stop();
}

static void on_signal(void *arg, int signo) {
    (void)arg;
    (void)signo;
    if (process.stopping)
        return;
    process.stopping = true;
    fiber_spawn(stop, NULL);
}

/* --- start ----------------------------------------------------------------------------------- */

static void say_ready(void) {
    const struct mock_options *options = &process.lab.options;
    unsigned first = process.lab.sites[0].port;
    unsigned last = process.lab.sites[process.lab.count - 1].port;
    printf("ready on http://%s:%u (workers: %u, ports: %u-%u, model: %s)\n", options->host, first,
           process.lab.count, first, last, options->model);
    fflush(stdout);
}

static int run(void) {
    signals_init();
    uint64_t before, now;
    descriptors_raise(&before, &now);
    int err = loops_start(process.lab.options.threads, NULL, NULL);
    if (err) {
        fprintf(stderr, "mock-worker: cannot start: %s\n", strerror(-err));
        return 1;
    }
    signals_on(SIGTERM, on_signal, NULL);
    signals_on(SIGINT, on_signal, NULL);
    err = open_ports();
    for (unsigned i = 0; i < process.opened && err == 0; i++)
        listener_start(process.ports[i].listener);
    if (err == 0)
        say_ready();
    else
        loops_stop();
    loops_run();
    return err ? 1 : 0;
}

/* Servers, and so the ports that hold them, live as long as the process. */
static void clean_up(void) {
    for (unsigned i = 0; i < process.opened; i++)
        mock_site_free(&process.lab.sites[i]);
    mem_free(process.lab.sites);
}

int mock_worker_main(int argc, char **argv) {
    struct optparse *parser;
    int status;
    int err = mock_options_read(argc, argv, &process.lab.options, &parser, &status);
    if (err)
        return err > 0 ? 0 : status;
    status = run();
    clean_up();
    optparse_free(parser);
    return status;
}
