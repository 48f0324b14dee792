/* What the prefix index costs: hashing of keys, match and record against an index of many blocks,
 * threads, memory under ten times as many insertions, the hash ring. One case a run, figures as
 * `name value` lines; prefix.py runs the cases and prints the table. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fleet/hash_ring.h"
#include "fleet/prefix_index.h"
#include "fleet/prefix_key.h"

enum { PATH = 128, WORKERS = 1000, SAMPLES = 20000, MAX_THREADS = 64 };

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* A path: a quarter shared with its 64 siblings, the rest its own. */
static void make_path(uint64_t number, uint64_t family, uint64_t *path) {
    for (uint64_t i = 0; i < PATH; i++)
        path[i] = mix(mix(i < PATH / 4 ? family | UINT64_C(1) << 60 : number) + i);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, uint64_t *times, size_t n) {
    qsort(times, n, sizeof *times, by_value);
    printf("%s_p50_ns %llu\n", name, (unsigned long long)times[n / 2]);
    printf("%s_p99_ns %llu\n", name, (unsigned long long)times[n * 99 / 100]);
}

static struct prefix_index *new_index(uint64_t entries, uint64_t bytes) {
    struct prefix_index *index;
    if (prefix_index_new(&(struct prefix_index_options){entries, bytes, 1000}, &index) < 0) {
        fprintf(stderr, "prefix_index: cannot make an index of %llu bytes\n",
                (unsigned long long)bytes);
        exit(1);
    }
    return index;
}

static int64_t record_path(struct prefix_index *index, uint64_t number, int64_t now_ms) {
    uint64_t path[PATH];
    make_path(number, number / 64, path);
    uint64_t start = now_ns();
    struct prefix_holder holder = prefix_index_holder(index, (uint16_t)(number % WORKERS));
    prefix_index_record(index, path, PATH, holder, now_ms);
    return (int64_t)(now_ns() - start);
}

/* Paths for about this many blocks. */
static uint64_t fill(struct prefix_index *index, uint64_t blocks) {
    uint64_t paths = 0;
    struct prefix_stats stats;
    uint64_t each = PATH * 3 / 4 + PATH / 4 / 64;
    int64_t spent = 0;
    for (; paths * each < blocks; paths++)
        spent += record_path(index, paths, (int64_t)(paths / 10));
    prefix_index_stats(index, &stats);
    printf("entries %llu\nbytes %llu\nfill_ns_per_block %.1f\n", (unsigned long long)stats.entries,
           (unsigned long long)stats.bytes, (double)spent / (double)(paths * PATH));
    return paths;
}

static long resident_bytes(void) {
    long pages = 0, skip = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &skip, &pages) != 2)
        exit(1);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* --- cases ----------------------------------------------------------------------------------- */

static void hash_text(size_t bytes, size_t slice) {
    char *text = malloc(bytes);
    size_t room = prefix_key_room(PREFIX_TEXT, bytes);
    uint64_t *hashes = malloc(room * sizeof *hashes), rounds = (256u << 20) / bytes, sum = 0;
    for (size_t i = 0; i < bytes; i++)
        text[i] = (char)('a' + mix(i) % 26);
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        struct prefix_key key;
        prefix_key_init(&key, PREFIX_TEXT, i, hashes, room);
        for (size_t at = 0; at < bytes; at += slice)
            prefix_key_add(&key, str_make(text + at, bytes - at < slice ? bytes - at : slice));
        prefix_key_end(&key);
        sum += hashes[key.count - 1];
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("hash_%zu_by_%zu_gb_s %.2f\nhash_%zu_by_%zu_us %.2f\n", bytes, slice,
           (double)(bytes * rounds) / 1e9 / seconds, bytes, slice, seconds * 1e6 / (double)rounds);
    fprintf(stderr, "%s", sum == 1 ? " " : "");
    free(text);
    free(hashes);
}

static void run_hash(void) {
    hash_text(4096, 4096);
    hash_text(16384, 16384);
    hash_text(16384, 700);
    hash_text(65536, 65536);
    hash_text(1 << 20, 1 << 20);
}

/* Which path of so many comes at step i. */
static uint64_t any_of(uint64_t paths, uint64_t i) { return mix(i * 7919 + 13) % paths; }

static void time_matches(struct prefix_index *index, const char *name, uint64_t paths,
                         uint64_t beyond, uint64_t shift) {
    static uint64_t times[SAMPLES];
    struct prefix_hit hits[PREFIX_HITS_MAX];
    uint64_t path[PATH], depth = 0;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint64_t number = any_of(paths, i);
        make_path(number + beyond, (number + shift) / 64, path);
        uint64_t start = now_ns();
        size_t n = prefix_index_match(index, path, PATH, hits, PREFIX_HITS_MAX);
        times[i] = now_ns() - start;
        depth += n > 0 ? hits[0].blocks : 0;
    }
    print_times(name, times, SAMPLES);
    printf("%s_depth %.1f\n", name, (double)depth / SAMPLES);
}

static void run_match(uint64_t blocks, uint64_t bytes) {
    struct prefix_index *index = new_index(UINT64_C(1) << 26, bytes);
    uint64_t paths = fill(index, blocks);
    time_matches(index, "match_any", paths, 0, 0);
    time_matches(index, "match_hot", 256, 0, 0);
    time_matches(index, "match_sibling", paths, paths, 0); /* only the shared quarter is there */
    time_matches(index, "match_none", paths, paths, paths * 2);
    static uint64_t times[SAMPLES];
    for (uint64_t i = 0; i < SAMPLES; i++)
        times[i] = (uint64_t)record_path(index, any_of(paths, i), (int64_t)(paths / 10) + 1);
    print_times("record_again", times, SAMPLES);
    for (uint64_t i = 0; i < SAMPLES; i++)
        times[i] = (uint64_t)record_path(index, paths * 3 + i, (int64_t)(paths / 10) + 2);
    print_times("record_new", times, SAMPLES);
    prefix_index_free(index);
}

/* Ten times what fits. */
static void run_bound(uint64_t bytes) {
    long before = resident_bytes(), most = 0;
    struct prefix_index *index = new_index(UINT64_C(1) << 26, bytes);
    struct prefix_stats stats;
    prefix_index_stats(index, &stats);
    uint64_t wanted = stats.entry_limit * 10, each = PATH * 3 / 4, paths = wanted / each;
    int64_t spent = 0;
    for (uint64_t i = 0; i < paths; i++) {
        spent += record_path(index, i, (int64_t)(i / 10));
        if (i % 1024 == 0 && resident_bytes() > most)
            most = resident_bytes();
    }
    prefix_index_stats(index, &stats);
    printf("inserted %llu\nentries %llu\nentry_limit %llu\nevictions %llu\nbytes %llu\n",
           (unsigned long long)(paths * each), (unsigned long long)stats.entries,
           (unsigned long long)stats.entry_limit, (unsigned long long)stats.evictions,
           (unsigned long long)stats.bytes);
    printf("byte_limit %llu\nresident %ld\nns_per_block %.1f\n",
           (unsigned long long)stats.byte_limit, most - before,
           (double)spent / (double)(paths * PATH));
    uint64_t start = now_ns();
    prefix_index_limit(index, stats.entry_limit / 4);
    prefix_index_stats(index, &stats);
    printf("shrink_ms %.1f\nshrunk_entries %llu\nshrunk_bytes %llu\nshrunk_resident %ld\n",
           (double)(now_ns() - start) / 1e6, (unsigned long long)stats.entries,
           (unsigned long long)stats.bytes, resident_bytes() - before);
    prefix_index_free(index);
}

struct crowd {
    struct prefix_index *index;
    uint64_t paths;
    _Atomic bool stop;
    _Atomic uint64_t done;
    bool writes;
};

static void *match_for_long(void *arg) {
    static _Atomic uint64_t threads;
    struct crowd *crowd = arg;
    uint64_t step = atomic_fetch_add(&threads, 1) * 1000003, done = 0;
    struct prefix_hit hits[PREFIX_HITS_MAX];
    uint64_t path[PATH];
    while (!atomic_load_explicit(&crowd->stop, memory_order_relaxed)) {
        uint64_t number = any_of(crowd->paths, step + done);
        make_path(number, number / 64, path);
        prefix_index_match(crowd->index, path, PATH, hits, PREFIX_HITS_MAX);
        if (crowd->writes)
            record_path(crowd->index, done % 4 ? number : mix(step + done), 1 << 20);
        done++;
    }
    atomic_fetch_add(&crowd->done, done);
    return NULL;
}

/* Matches a second with so many threads. */
static double rate_of(struct crowd *crowd, int threads, int window_ms) {
    pthread_t ids[MAX_THREADS];
    atomic_store(&crowd->stop, false);
    atomic_store(&crowd->done, 0);
    uint64_t start = now_ns();
    for (int i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, match_for_long, crowd);
    usleep((useconds_t)window_ms * 1000);
    atomic_store(&crowd->stop, true);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return (double)atomic_load(&crowd->done) * 1e9 / (double)(now_ns() - start);
}

/* One line for each round; with --threads 1 in two processes it is the machine's own ceiling. */
static void run_threads(uint64_t blocks, uint64_t bytes, int threads, int rounds, bool writes) {
    struct crowd crowd = {.index = new_index(UINT64_C(1) << 26, bytes), .writes = writes};
    crowd.paths = fill(crowd.index, blocks);
    printf("ready 1\n");
    fflush(stdout);
    for (int i = 0; i < rounds && getchar() != EOF; i++) {
        printf("rate %.0f\n", rate_of(&crowd, threads, 300));
        if (threads > 1)
            printf("rate_one %.0f\n", rate_of(&crowd, 1, 300));
        fflush(stdout);
    }
    prefix_index_free(crowd.index);
}

static bool take_late(void *arg, uint32_t number) {
    (void)number;
    return --*(int *)arg == 0;
}

static void run_ring(size_t workers) {
    static char names[65536][32];
    static struct str strs[65536];
    for (size_t i = 0; i < workers; i++)
        strs[i] = str_make(
            names[i], (size_t)snprintf(names[i], 32, "http://10.0.%zu.%zu:8000", i / 256, i % 256));
    uint64_t start = now_ns();
    struct hash_ring *ring = hash_ring_new(strs, workers);
    printf("ring_%zu_build_ms %.2f\n", workers, (double)(now_ns() - start) / 1e6);
    uint64_t sum = 0;
    start = now_ns();
    for (uint64_t i = 0; i < 1000000; i++)
        sum += (uint64_t)hash_ring_owner(ring, mix(i));
    printf("ring_%zu_owner_ns %.1f\n", workers, (double)(now_ns() - start) / 1e6);
    start = now_ns();
    for (uint64_t i = 0; i < 100000; i++) {
        int nth = 4;
        sum += (uint64_t)hash_ring_find(ring, mix(i), take_late, &nth);
    }
    printf("ring_%zu_fourth_ns %.1f\n", workers, (double)(now_ns() - start) / 1e5);
    fprintf(stderr, "%s", sum == 1 ? " " : "");
    hash_ring_free(ring);
}

int main(int argc, char **argv) {
    uint64_t blocks = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000000;
    uint64_t bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : UINT64_C(512) << 20;
    int threads = argc > 4 ? atoi(argv[4]) : 1, rounds = argc > 5 ? atoi(argv[5]) : 1;
    struct str name = str_from(argc > 1 ? argv[1] : "");
    if (str_eq(name, STR("hash"))) {
        run_hash();
    } else if (str_eq(name, STR("match"))) {
        run_match(blocks, bytes);
    } else if (str_eq(name, STR("bound"))) {
        run_bound(bytes);
    } else if (str_eq(name, STR("threads")) || str_eq(name, STR("mixed"))) {
        run_threads(blocks, bytes, threads < MAX_THREADS ? threads : MAX_THREADS, rounds,
                    str_eq(name, STR("mixed")));
    } else if (str_eq(name, STR("ring"))) {
        run_ring(10);
        run_ring(1000);
        run_ring(4000);
    } else {
        fprintf(stderr, "prefix_index: hash | match | bound | threads | mixed | ring "
                        "[BLOCKS BYTES THREADS ROUNDS]\n");
        return 2;
    }
    return 0;
}
