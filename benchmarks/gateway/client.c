/* The load client: one thread, HTTP/1.1 keep-alive, checks every byte that matters. Prints one line of JSON.
 *
 *   client load  name=value …   `conns` connections, each sends its next request when the last is answered
 *   client hold  name=value …   opens `conns` streams, reads the first event of each, then reads nothing more; prints
 *                               "ready" and holds them until its standard input ends
 *   client abort name=value …   opens `conns` streams, leaves each after its third chunk, tells when (monotonic ns)
 *
 *   port=N prompt=TEXT          where, and what the mock is told (its parameters ride in the prompt)
 *   stream=1 chunks=N           ask for a stream of N numbered chunks; every one must come, in order, then [DONE]
 *   conns=N count=N             connections; stop after N requests (0: by time)
 *   warm_ms=N secs=X            what is counted begins after warm_ms and lasts X seconds
 *   think_us=N                  a pause between an answer and the next request
 *   cpu=PID,PID                 processes whose CPU time within the counted time is reported (all their threads)
 *   tag=N                       streams are tagged N, N+1, … for the mock's abort list
 * Compiled with TLS (as `client_tls`), each connection speaks it and checks no certificate.
 * Deliberately no pipelining, no open-loop arrivals: rates here measure the proxy, not a service level.
 */
#include "wire.h"
#include <dirent.h>
#ifdef TLS
#include <openssl/ssl.h>
static SSL_CTX *tls;
#endif

#define READ_BYTES 262144
#define HEAD_BYTES 8192
#define EVENT_BYTES 65536
#define REQUEST_BYTES 4096
#define PIDS_MAX 64
#define GRACE_NS (5 * NS_PER_S)

enum reading { READ_HEAD, READ_LENGTH, READ_UNTIL_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };
enum outcome { WHOLE, INBAND, TRUNCATED, REFUSED, BROKEN };

struct conn {
    int fd, busy, connecting, fresh;
    enum reading reading;
    int status, done, inband, bad, keep;
    size_t left;               /* bytes to come: of the body, or of this chunk */
    size_t line_bytes;         /* of a chunk-size or trailer line so far */
    long chunks, tag;
    int64_t started_ns, first_ns, again_ns; /* again_ns: when a thinking connection sends next; 0 = not thinking */
    size_t request_bytes, request_sent, head_bytes, event_bytes;
#ifdef TLS
    SSL *ssl;
#endif
    char line[32];
    char request[REQUEST_BYTES], head[HEAD_BYTES + 1], event[EVENT_BYTES + 1];
};

static struct {
    const char *prompt;
    long port, stream, chunks, conns, count, warm_ms, think_us, tag;
    double secs;
    int pids[PIDS_MAX], pid_count;
} ask = {.prompt = "hello", .conns = 1, .warm_ms = 100, .secs = 1.0, .tag = -1};

static int epoll_fd, aborting;
static struct conn *conns;
static char buffer[READ_BYTES];
static char first_error[256];
static long started, finished, outcomes[5], reconnects, all_chunks, left_open;
static long window_requests, window_chunks;
static int64_t window_from_ns, window_to_ns;
static uint32_t *waits, *firsts; /* microseconds x 10 */
static size_t wait_count, wait_room, first_count, first_room;
static int64_t *closed_ns;

/* ---- CPU time of the proxy ---------------------------------------------------------------------------------- */

struct cpu { int64_t sched_ns, tick_ns; };

static int64_t read_sched_ns(const char *path) {
    long long ran = 0;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%lld", &ran) != 1) ran = 0;
    fclose(file);
    return ran;
}

static int64_t threads_ns(int pid) {
    char path[320];
    int64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    if (!folder) return 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        total += read_sched_ns(path);
    }
    closedir(folder);
    return total;
}

/* utime + stime: 10 ms ticks, but they keep the time of threads that have ended, which schedstat loses. */
static int64_t ticks_ns(int pid) {
    char path[64], text[2048], *after;
    unsigned long long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = 0;
    after = strrchr(text, ')');
    if (after) sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
    return (int64_t)(user + system) * (NS_PER_S / sysconf(_SC_CLK_TCK));
}

static struct cpu cpu_now(void) {
    struct cpu sum = {0, 0};
    for (int i = 0; i < ask.pid_count; i++) {
        sum.sched_ns += threads_ns(ask.pids[i]);
        sum.tick_ns += ticks_ns(ask.pids[i]);
    }
    return sum;
}

/* ---- counting ----------------------------------------------------------------------------------------------- */

static void complain(const char *what, long detail) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s (%ld)", what, detail);
}

static void note(uint32_t **list, size_t *count, size_t *room, int64_t took_ns) {
    if (*count == *room) {
        *room = *room ? *room * 2 : 65536;
        *list = need(realloc(*list, *room * sizeof **list));
    }
    (*list)[(*count)++] = (uint32_t)(took_ns / 100);
}

static int counted(int64_t at_ns) {
    return window_from_ns && at_ns >= window_from_ns && (!window_to_ns || at_ns < window_to_ns);
}

/* Has the shape of a real key, so that a gateway that asks for keys reads what it would read. Also in processes.py. */
#define API_KEY "fh-benchmarkbenchmarkbenchmarkbenchmark2345"

/* ---- requests ----------------------------------------------------------------------------------------------- */

static void write_request(struct conn *conn) {
    char body[REQUEST_BYTES / 2], tag[32] = "";
    if (ask.tag >= 0) snprintf(tag, sizeof tag, ";tag=%ld", conn->tag = ask.tag + started);
    int body_bytes = snprintf(body, sizeof body,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant. Answer in one "
        "paragraph, name your sources, and say so when you do not know.\"},{\"role\":\"user\",\"content\":\"%s%s\"}],"
        "\"max_tokens\":512,\"temperature\":0.7,\"stream\":%s}", ask.prompt, tag, ask.stream ? "true" : "false");
    conn->request_bytes = (size_t)snprintf(conn->request, sizeof conn->request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nAuthorization: Bearer " API_KEY "\r\nUser-Agent: bench-client/1\r\n"
        "Content-Length: %d\r\n\r\n%s", ask.port, body_bytes, body);
}

/* As send(2) and recv(2), through TLS where it is compiled in. */
#ifdef TLS
static ssize_t outcome_of(struct conn *conn, int done) {
    if (done > 0) return done;
    int why = SSL_get_error(conn->ssl, done);
    if (why == SSL_ERROR_ZERO_RETURN) return 0;
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}
static ssize_t put(struct conn *conn, const char *from, size_t count) {
    return outcome_of(conn, SSL_write(conn->ssl, from, (int)count));
}
static ssize_t get(struct conn *conn) { return outcome_of(conn, SSL_read(conn->ssl, buffer, READ_BYTES)); }
#else
static ssize_t put(struct conn *conn, const char *from, size_t count) { return send(conn->fd, from, count, 0); }
static ssize_t get(struct conn *conn) { return recv(conn->fd, buffer, READ_BYTES, 0); }
#endif

static void leave(struct conn *conn) {
#ifdef TLS
    SSL_free(conn->ssl);
    conn->ssl = NULL;
#endif
    if (conn->fd >= 0) close(conn->fd);
    conn->fd = -1;
}

static void finish(struct conn *conn, enum outcome outcome, int64_t now);

static void send_request(struct conn *conn) {
    ssize_t sent = put(conn, conn->request + conn->request_sent, conn->request_bytes - conn->request_sent);
    if (sent < 0 && errno != EAGAIN) {
        complain("send failed, errno", errno);
        finish(conn, BROKEN, now_ns());
        return;
    }
    if (sent > 0) conn->request_sent += (size_t)sent;
    int more = conn->request_sent < conn->request_bytes;
#ifdef TLS
    more = more && !SSL_want_read(conn->ssl);  /* a handshake that waits for the proxy */
#endif
    watch(epoll_fd, EPOLL_CTL_MOD, conn->fd, more ? EPOLLIN | EPOLLOUT : EPOLLIN, conn);
}

static void open_connection(struct conn *conn) {
    conn->fd = connect_to((int)ask.port);
    if (conn->fd < 0) fail("connect");
    conn->connecting = conn->fresh = 1;
#ifdef TLS
    conn->ssl = need(SSL_new(tls));
    SSL_set_fd(conn->ssl, conn->fd);
    SSL_set_connect_state(conn->ssl);
#endif
    watch(epoll_fd, EPOLL_CTL_ADD, conn->fd, EPOLLIN | EPOLLOUT, conn);
}

static void begin(struct conn *conn) {
    conn->again_ns = 0;
    write_request(conn);
    started++;
    conn->reading = READ_HEAD;
    conn->status = conn->done = conn->inband = conn->bad = 0;
    conn->chunks = 0;
    conn->head_bytes = conn->event_bytes = conn->line_bytes = conn->request_sent = 0;
    conn->first_ns = 0;
    conn->busy = 1;
    conn->started_ns = now_ns();
    if (conn->fd < 0) open_connection(conn);
    else {
        conn->fresh = 0;
        send_request(conn);
    }
}

static int more_to_do(int64_t now) {
    if (ask.count) return started < ask.count;
    return !window_to_ns && (!window_from_ns || now < window_from_ns + (int64_t)(ask.secs * 1e9));
}

/* An answer ended, well or not. */
static void finish(struct conn *conn, enum outcome outcome, int64_t now) {
    outcomes[outcome]++;
    finished++;
    conn->busy = 0;
    if (counted(now)) {
        window_requests++;
        note(&waits, &wait_count, &wait_room, now - conn->started_ns);
    }
    if (outcome == TRUNCATED || outcome == BROKEN || !conn->keep) leave(conn);
    if (!more_to_do(now)) return;
    if (ask.think_us) conn->again_ns = now + ask.think_us * 1000;
    else begin(conn);
}

/* The body came to its proper end: was it what was asked for? */
static void judge(struct conn *conn, int64_t now) {
    if (conn->status != 200) {
        complain("status", conn->status);
        finish(conn, REFUSED, now);
    } else if (conn->bad) {
        finish(conn, BROKEN, now);
    } else if (!ask.stream) {
        finish(conn, WHOLE, now);
    } else if (conn->inband && !conn->done) {
        finish(conn, INBAND, now);
    } else if (conn->done && conn->chunks == ask.chunks) {
        finish(conn, WHOLE, now);
    } else {
        complain("stream ended without [DONE] or short of chunks, had", conn->chunks);
        finish(conn, TRUNCATED, now);
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

static void on_event(struct conn *conn, const char *event, size_t count) {
    static const char mark[] = "\"delta\":{\"content\":\"w";
    if (count < 6 || memcmp(event, "data: ", 6)) return;
    const char *at = memmem(event, count, mark, sizeof mark - 1);
    if (at) {
        long number = strtol(at + sizeof mark - 1, NULL, 10);
        if (number != conn->chunks) {
            complain("chunk out of order, want", conn->chunks);
            conn->bad = 1;
        }
        conn->chunks++;
        all_chunks++;
    } else if (!memcmp(event + 6, "[DONE]", count - 6 < 6 ? count - 6 : 6)) {
        conn->done = 1;
    } else if (memmem(event, count, "\"error\"", 7)) {
        conn->inband = 1;
    }
}

static void on_payload(struct conn *conn, const char *bytes, size_t count, int64_t now) {
    if (!ask.stream || conn->status != 200) return;
    if (!conn->first_ns) {
        conn->first_ns = now;
        if (counted(now)) note(&firsts, &first_count, &first_room, now - conn->started_ns);
    }
    /* One chunk may hold many events: what does not fit at once is taken in parts. */
    for (size_t room; count > (room = EVENT_BYTES - conn->event_bytes); bytes += room, count -= room) {
        if (!room) {
            complain("event too long", (long)count);
            conn->bad = 1;
            return;
        }
        on_payload(conn, bytes, room, now);
    }
    memcpy(conn->event + conn->event_bytes, bytes, count);
    conn->event_bytes += count;
    char *from = conn->event, *end = conn->event + conn->event_bytes, *blank;
    long before = all_chunks;
    while ((blank = memmem(from, (size_t)(end - from), "\n\n", 2))) {
        on_event(conn, from, (size_t)(blank - from));
        from = blank + 2;
    }
    if (counted(now)) window_chunks += all_chunks - before;
    conn->event_bytes = (size_t)(end - from);
    memmove(conn->event, from, conn->event_bytes);
}

static const char *header(const char *head, const char *name) {
    size_t name_bytes = strlen(name);
    for (const char *at = strstr(head, "\r\n"); at; at = strstr(at + 2, "\r\n"))
        if (!strncasecmp(at + 2, name, name_bytes)) return at + 2 + name_bytes;
    return NULL;
}

/* Collect the head; returns the bytes used. */
static size_t on_head(struct conn *conn, const char *bytes, size_t count) {
    size_t before = conn->head_bytes, room = HEAD_BYTES - before;
    memcpy(conn->head + before, bytes, count < room ? count : room);
    conn->head_bytes += count < room ? count : room;
    conn->head[conn->head_bytes] = 0;
    char *blank = strstr(conn->head, "\r\n\r\n");
    if (!blank) return count;
    blank[2] = 0;
    const char *length = header(conn->head, "content-length:"), *coding = header(conn->head, "transfer-encoding:");
    const char *connection = header(conn->head, "connection:");
    conn->status = atoi(conn->head + 9);
    conn->keep = !(connection && strncasecmp(connection + strspn(connection, " "), "close", 5) == 0);
    conn->reading = coding ? CHUNK_SIZE : length ? READ_LENGTH : READ_UNTIL_CLOSE;
    conn->left = length ? (size_t)atol(length) : 0;
    if (conn->reading == READ_UNTIL_CLOSE) conn->keep = 0;
    return (size_t)(blank + 4 - conn->head) - before;
}

/* One line of framing (a chunk size, or a trailer), byte by byte; returns 1 when it is whole. */
static int on_line(struct conn *conn, char byte) {
    if (byte == '\n') {
        conn->line[conn->line_bytes] = 0;
        return 1;
    }
    if (byte != '\r' && conn->line_bytes < sizeof conn->line - 1) conn->line[conn->line_bytes++] = byte;
    return 0;
}

static void after_size(struct conn *conn) {
    conn->left = strtoul(conn->line, NULL, 16);
    conn->line_bytes = 0;
    conn->reading = conn->left ? CHUNK_DATA : TRAILER;
}

static size_t on_data(struct conn *conn, const char *bytes, size_t count, int64_t now) {
    size_t take = count < conn->left ? count : conn->left;
    on_payload(conn, bytes, take, now);
    conn->left -= take;
    return take;
}

/* One step of the answer; returns the bytes used. Sets *whole at its end. */
static size_t step(struct conn *conn, const char *bytes, size_t count, int64_t now, int *whole) {
    size_t used = 1;
    switch (conn->reading) {
    case READ_HEAD:
        used = on_head(conn, bytes, count);
        *whole = conn->reading == READ_LENGTH && !conn->left;
        return used;
    case READ_LENGTH:
        used = on_data(conn, bytes, count, now);
        *whole = !conn->left;
        return used;
    case READ_UNTIL_CLOSE:
        on_payload(conn, bytes, count, now);
        return count;
    case CHUNK_SIZE:
        if (on_line(conn, *bytes)) after_size(conn);
        return 1;
    case CHUNK_DATA:
        used = on_data(conn, bytes, count, now);
        if (!conn->left) conn->reading = CHUNK_END;
        return used;
    case CHUNK_END:
        if (*bytes == '\n') conn->reading = CHUNK_SIZE;
        return 1;
    case TRAILER:
        if (on_line(conn, *bytes)) {
            *whole = conn->line_bytes == 0;
            conn->line_bytes = 0;
        }
        return 1;
    }
    return used;
}

static void on_bytes(struct conn *conn, const char *bytes, size_t count, int64_t now) {
    int whole = 0;
    for (size_t at = 0; at < count && !whole;) at += step(conn, bytes + at, count - at, now, &whole);
    if (whole) judge(conn, now);
}

static void on_close(struct conn *conn, int64_t now) {
    if (conn->busy && conn->reading == READ_UNTIL_CLOSE) {
        judge(conn, now);
        return;
    }
    leave(conn);
    if (!conn->busy) return;
    if (conn->reading == READ_HEAD && !conn->head_bytes && !conn->fresh) {
        /* a pooled connection that the proxy had closed between two answers: not the proxy's failure */
        reconnects++;
        started--;
        begin(conn);
        return;
    }
    complain("connection closed within an answer, chunks so far", conn->chunks);
    finish(conn, conn->head_bytes ? TRUNCATED : BROKEN, now);
}

static void read_from(struct conn *conn) {
    int again = 0;
    do {
        ssize_t got = get(conn);
        if (got < 0 && errno == EAGAIN) return;
        int64_t now = now_ns();
        if (got <= 0) on_close(conn, now);
        else if (conn->busy) on_bytes(conn, buffer, (size_t)got, now);
#ifdef TLS
        again = conn->fd >= 0 && SSL_has_pending(conn->ssl);
#endif
    } while (again);
}

static void handle(struct conn *conn, uint32_t events) {
    if (conn->fd < 0) return;
    if (conn->connecting && events & EPOLLOUT) {
        conn->connecting = 0;
        send_request(conn);
    } else if (events & EPOLLOUT || (events & EPOLLIN && conn->busy && conn->request_sent < conn->request_bytes)) {
        send_request(conn);
    }
#ifdef TLS
    if (conn->busy && conn->request_sent < conn->request_bytes) return; /* what came was the handshake's */
#endif
    if (conn->fd >= 0 && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) read_from(conn);
}

/* ---- what it prints ----------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void print_quantiles(const char *name, uint32_t *list, size_t count) {
    static const double wanted[] = {0.5, 0.9, 0.99, 1.0};
    static const char *names[] = {"p50", "p90", "p99", "max"};
    if (!count) return;
    qsort(list, count, sizeof *list, by_size);
    for (int i = 0; i < 4; i++)
        printf(",\"%s_us_%s\":%.1f", name, names[i], list[(size_t)(wanted[i] * (double)(count - 1))] / 10.0);
}

static void print_report(double window_s, struct cpu used) {
    printf("{\"started\":%ld,\"finished\":%ld,\"whole\":%ld,\"inband\":%ld,\"truncated\":%ld,\"refused\":%ld,\"broken\":%ld,"
           "\"unfinished\":%ld,\"reconnects\":%ld,\"chunks\":%ld,\"window_s\":%.6f,\"window_requests\":%ld,"
           "\"window_chunks\":%ld,\"cpu_sched_ns\":%lld,\"cpu_tick_ns\":%lld,\"first_error\":\"%s\"",
           started, finished, outcomes[WHOLE], outcomes[INBAND], outcomes[TRUNCATED], outcomes[REFUSED], outcomes[BROKEN],
           left_open, reconnects, all_chunks, window_s, window_requests, window_chunks, (long long)used.sched_ns,
           (long long)used.tick_ns, first_error);
    print_quantiles("wait", waits, wait_count);
    print_quantiles("first", firsts, first_count);
    if (aborting) {
        printf(",\"closed\":[");
        for (long i = 0; i < ask.conns; i++)
            printf("%s[%ld,%lld]", i ? "," : "", conns[i].tag, (long long)closed_ns[i]);
        printf("]");
    }
    printf("}\n");
}

/* ---- the three ways to run ---------------------------------------------------------------------------------- */

static void turn(int64_t until_ns) {
    struct epoll_event events[512];
    int count = wait_until(epoll_fd, events, 512, until_ns);
    for (int i = 0; i < count; i++) handle(events[i].data.ptr, events[i].events);
}

/* Start what has thought long enough; returns when the next one will have. */
static int64_t wake_thinkers(int64_t now, int64_t otherwise_ns) {
    int64_t soonest = otherwise_ns;
    for (long i = 0; ask.think_us && i < ask.conns; i++) {
        if (!conns[i].again_ns) continue;
        if (conns[i].again_ns <= now) begin(&conns[i]);
        else if (conns[i].again_ns < soonest) soonest = conns[i].again_ns;
    }
    return soonest;
}

static int any_busy(void) {
    for (long i = 0; i < ask.conns; i++)
        if (conns[i].busy || conns[i].again_ns) return 1;
    return 0;
}

/* The counted time: opened after the warm-up (which waits for every stream's first byte), closed `secs` later. */
static void run_load(void) {
    int64_t start = now_ns(), give_up = start + ask.warm_ms * NS_PER_MS + (int64_t)(ask.secs * 1e9) + GRACE_NS, now;
    struct cpu before = {0, 0}, after = {0, 0};
    if (ask.count) window_from_ns = start;
    if (ask.count) before = cpu_now();
    for (long i = 0; i < ask.conns && more_to_do(start); i++) begin(&conns[i]);
    while ((now = now_ns()) < give_up) {
        int64_t due = window_from_ns ? window_from_ns + (int64_t)(ask.secs * 1e9) : start + ask.warm_ms * NS_PER_MS;
        if (!ask.count && !window_from_ns && now >= due) {
            before = cpu_now();
            window_from_ns = now_ns();
        } else if (!ask.count && window_from_ns && !window_to_ns && now >= due) {
            after = cpu_now();
            window_to_ns = now_ns();
        }
        if ((window_to_ns || ask.count) && !any_busy()) break;
        turn(wake_thinkers(now, window_to_ns || ask.count ? give_up : due > now ? due : now));
    }
    if (!window_to_ns) after = cpu_now();
    if (!window_to_ns) window_to_ns = now_ns();
    for (long i = 0; i < ask.conns; i++) left_open += conns[i].busy;
    print_report((double)(window_to_ns - window_from_ns) / 1e9,
                 (struct cpu){after.sched_ns - before.sched_ns, after.tick_ns - before.tick_ns});
}

static void run_hold(void) {
    int64_t give_up = now_ns() + 4 * GRACE_NS;
    long ready = 0;
    char byte;
    for (long i = 0; i < ask.conns; i++) begin(&conns[i]);
    while (ready < ask.conns && now_ns() < give_up) {
        turn(give_up);
        for (long i = 0; i < ask.conns; i++) {
            if (!conns[i].first_ns || conns[i].keep == -1 || conns[i].fd < 0) continue;
            watch(epoll_fd, EPOLL_CTL_DEL, conns[i].fd, 0, NULL);
            conns[i].keep = -1;
            ready++;
        }
    }
    printf("ready %ld\n", ready);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) continue;
    for (long i = 0; i < ask.conns; i++) leave(&conns[i]);
    print_report(0, (struct cpu){0, 0});
}

static void run_abort(void) {
    int64_t give_up = now_ns() + 2 * GRACE_NS;
    long gone = 0;
    aborting = 1;
    closed_ns = need(calloc((size_t)ask.conns, sizeof *closed_ns));
    for (long i = 0; i < ask.conns; i++) begin(&conns[i]);
    while (gone < ask.conns && now_ns() < give_up) {
        turn(now_ns() + NS_PER_MS);
        /* one at a time, so that the aborts are spread over the turns and not one burst */
        for (long i = 0; i < ask.conns; i++) {
            if (conns[i].fd < 0 || conns[i].chunks < 3) continue;
            closed_ns[i] = now_ns();
            leave(&conns[i]);
            conns[i].busy = 0;
            gone++;
            break;
        }
    }
    print_report(0, (struct cpu){0, 0});
}

/* ---- arguments ---------------------------------------------------------------------------------------------- */

static void take_pids(const char *text) {
    for (char *end; *text && ask.pid_count < PIDS_MAX; text = *end ? end + 1 : end)
        ask.pids[ask.pid_count++] = (int)strtol(text, &end, 10);
}

static void take(const char *argument) {
    static const struct { const char *name; long *to; } numbers[] = {
        {"port=", &ask.port}, {"stream=", &ask.stream}, {"chunks=", &ask.chunks}, {"conns=", &ask.conns},
        {"count=", &ask.count}, {"warm_ms=", &ask.warm_ms}, {"think_us=", &ask.think_us}, {"tag=", &ask.tag}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strncmp(argument, numbers[i].name, strlen(numbers[i].name))) {
            *numbers[i].to = atol(argument + strlen(numbers[i].name));
            return;
        }
    if (!strncmp(argument, "prompt=", 7)) ask.prompt = argument + 7;
    else if (!strncmp(argument, "secs=", 5)) ask.secs = atof(argument + 5);
    else if (!strncmp(argument, "cpu=", 4)) take_pids(argument + 4);
    else {
        fprintf(stderr, "client: unknown argument %s\n", argument);
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: client load|hold|abort name=value ...      (names: the head of client.c)\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) take(argv[i]);
    settle_in();
#ifdef TLS
    tls = need(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#endif
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = need(calloc((size_t)ask.conns, sizeof *conns));
    for (long i = 0; i < ask.conns; i++) {
        conns[i].fd = -1;
        conns[i].tag = -1;
    }
    if (!strcmp(argv[1], "load")) run_load();
    else if (!strcmp(argv[1], "hold")) run_hold();
    else if (!strcmp(argv[1], "abort")) run_abort();
    else return 2;
    return 0;
}
