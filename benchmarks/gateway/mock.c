/* A mock engine: HTTP/1.1 keep-alive, one thread, far faster than any proxy in front of it. `mock PORT`
 *
 *   POST /v1/chat/completions   an answer or an SSE stream; GET /v1/models, GET /health: 200
 *   GET /stats                  counts as JSON, with [tag, monotonic ns] of every tagged stream whose client was seen to leave
 *   GET /mode/ok|close|503|exit what a completion meets from now on: an answer; a connection closed before the
 *                               answer; 503; the end of this process
 *
 * Parameters ride in the prompt, since typed routers drop unknown fields and headers: "bench:name=value;name=value".
 *   bytes=N     non-stream: the length of the JSON answer (default 1024)
 *   chunks=N    stream: numbered content chunks (default 100); then finish_reason, usage if asked for, [DONE]
 *   delay_ms=N  time between chunks; 0 (default): as fast as the socket takes them
 *   spread=1    each stream has its own phase; else all streams send in step, as continuous batching does
 *   batch=N     chunks per write (default 1)
 *   hold=1      after the last chunk: silence, until the client leaves
 *   cut=N       closes the connection after N chunks, as a dying engine would; a stream that goes on from there is not cut
 *   tag=N       names the stream in the abort list
 * A stream whose last message is the assistant's goes on with it: its numbers begin behind the last one in that text.
 * Deliberately no chunked request bodies, no pipelining beyond what happens to be in the buffer, no TLS.
 */
#include "wire.h"

#define REQUEST_BYTES 65536
#define EVENT_ROOM 512
#define BATCH_MAX 64
#define ABORTS_KEPT 8192
#define NUMBER_DIGITS 8

enum mode { MODE_OK, MODE_CLOSE, MODE_503, MODE_EXIT };

struct ask {
    long bytes, chunks, delay_ms, spread, batch, hold, cut, tag, from;
    int stream, usage;
};

struct conn {
    int fd, heap_at; /* heap_at: -1 when nothing is due */
    int answering, closing, blocked;
    struct conn *next_dead;
    struct ask ask;
    long sent_chunks;
    int64_t due_ns;
    char *out;
    size_t out_bytes, out_sent;
    size_t in_bytes;
    char in[REQUEST_BYTES + 1];
};

static int epoll_fd;
static enum mode mode = MODE_OK;
static struct conn *graveyard;
static struct conn **heap;
static int heap_count, heap_room;
static long requests, failed, streams, cuts, continued, aborts, tagged, open_conns;
static uint64_t sent_bytes;
static struct { long tag; int64_t at_ns; } abort_list[ABORTS_KEPT];

/* ---- timers: a binary heap by due time ---------------------------------------------------------------------- */

static void heap_put(int at, struct conn *conn) {
    heap[at] = conn;
    conn->heap_at = at;
}

static void heap_up(int at) {
    struct conn *conn = heap[at];
    for (; at > 0 && heap[(at - 1) / 2]->due_ns > conn->due_ns; at = (at - 1) / 2) heap_put(at, heap[(at - 1) / 2]);
    heap_put(at, conn);
}

static void heap_down(int at) {
    struct conn *conn = heap[at];
    for (int child; (child = 2 * at + 1) < heap_count; at = child) {
        if (child + 1 < heap_count && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= conn->due_ns) break;
        heap_put(at, heap[child]);
    }
    heap_put(at, conn);
}

static void schedule(struct conn *conn, int64_t due_ns) {
    conn->due_ns = due_ns;
    if (heap_count == heap_room) {
        heap_room = heap_room ? heap_room * 2 : 256;
        heap = need(realloc(heap, (size_t)heap_room * sizeof *heap));
    }
    heap[heap_count] = conn;
    heap_up(heap_count++);
}

static void unschedule(struct conn *conn) {
    int at = conn->heap_at;
    if (at < 0) return;
    conn->heap_at = -1;
    struct conn *last = heap[--heap_count];
    if (last == conn) return;
    heap_put(at, last);
    heap_up(at);
    heap_down(last->heap_at);
}

/* ---- connections -------------------------------------------------------------------------------------------- */

static void drop(struct conn *conn) {
    if (conn->fd < 0) return;
    unschedule(conn);
    close(conn->fd);
    conn->fd = -1;
    conn->next_dead = graveyard;
    graveyard = conn;
    open_conns--;
}

static void bury(void) {
    while (graveyard) {
        struct conn *conn = graveyard;
        graveyard = conn->next_dead;
        free(conn->out);
        free(conn);
    }
}

static void lost(struct conn *conn) {
    if (conn->answering) {
        aborts++;
        if (conn->ask.tag >= 0) {
            abort_list[tagged % ABORTS_KEPT].tag = conn->ask.tag;
            abort_list[tagged++ % ABORTS_KEPT].at_ns = now_ns();
        }
    }
    drop(conn);
}

/* Send, or keep the rest and wait for room. */
static void put(struct conn *conn, const char *bytes, size_t count) {
    ssize_t sent = send(conn->fd, bytes, count, 0);
    if (sent < 0 && errno != EAGAIN) {
        lost(conn);
        return;
    }
    if (sent < 0) sent = 0;
    sent_bytes += (uint64_t)sent;
    if ((size_t)sent == count) return;
    conn->out_bytes = count - (size_t)sent;
    conn->out_sent = 0;
    conn->out = need(realloc(conn->out, conn->out_bytes));
    memcpy(conn->out, bytes + sent, conn->out_bytes);
    conn->blocked = 1;
    unschedule(conn);
    watch(epoll_fd, EPOLL_CTL_MOD, conn->fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT, conn);
}

static void next_request(struct conn *conn);
static void resume(struct conn *conn);

static void flush(struct conn *conn) {
    ssize_t sent = send(conn->fd, conn->out + conn->out_sent, conn->out_bytes - conn->out_sent, 0);
    if (sent < 0) {
        if (errno != EAGAIN) lost(conn);
        return;
    }
    sent_bytes += (uint64_t)sent;
    conn->out_sent += (size_t)sent;
    if (conn->out_sent < conn->out_bytes) return;
    conn->blocked = 0;
    watch(epoll_fd, EPOLL_CTL_MOD, conn->fd, EPOLLIN | EPOLLRDHUP, conn);
    resume(conn);
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

#define EVENT_HEAD \
    "data: {\"id\":\"chatcmpl-3f9c1b7ad2e84f6c\",\"object\":\"chat.completion.chunk\",\"created\":1763900000," \
    "\"model\":\"m\",\"choices\":["
static const char CHUNK_HEAD[] = EVENT_HEAD "{\"index\":0,\"delta\":{\"content\":\"w";
static const char CHUNK_TAIL[] = " \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char FINISH[] = EVENT_HEAD
    "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    "cache-control: no-cache\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/* One HTTP chunk around `count` bytes of payload; returns the bytes written to `to`. */
static size_t frame(char *to, const char *payload, size_t count) {
    size_t at = (size_t)sprintf(to, "%zx\r\n", count);
    memcpy(to + at, payload, count);
    memcpy(to + at + count, "\r\n", 2);
    return at + count + 2;
}

/* A numbered content chunk in its frame. Its length never changes, so it is made once and only the digits move. */
static size_t numbered(char *to, long number) {
    static char made[EVENT_ROOM];
    static size_t made_bytes, digits_at;
    if (!made_bytes) {
        char event[EVENT_ROOM];
        int count = sprintf(event, "%s%0*d%s", CHUNK_HEAD, NUMBER_DIGITS, 0, CHUNK_TAIL);
        made_bytes = frame(made, event, (size_t)count);
        digits_at = made_bytes - 2 - (sizeof CHUNK_TAIL - 1) - NUMBER_DIGITS;
    }
    memcpy(to, made, made_bytes);
    for (int i = NUMBER_DIGITS - 1; i >= 0; i--, number /= 10) to[digits_at + (size_t)i] = (char)('0' + number % 10);
    return made_bytes;
}

static size_t ending(char *to, const struct conn *conn) {
    char event[EVENT_ROOM];
    size_t at = frame(to, FINISH, sizeof FINISH - 1);
    if (conn->ask.usage) {
        int count = sprintf(event, EVENT_HEAD "],\"usage\":{\"prompt_tokens\":%ld,\"completion_tokens\":%ld,"
                            "\"total_tokens\":%ld}}\n\n", conn->ask.from + 9, conn->ask.chunks - conn->ask.from,
                            conn->ask.chunks + 9);
        at += frame(to + at, event, (size_t)count);
    }
    at += frame(to + at, "data: [DONE]\n\n", 14);
    memcpy(to + at, "0\r\n\r\n", 5);
    return at + 5;
}

static int64_t next_due(const struct conn *conn) {
    return conn->ask.delay_ms ? conn->due_ns + conn->ask.delay_ms * NS_PER_MS : now_ns();
}

static int64_t first_due(const struct conn *conn) {
    int64_t delay_ns = conn->ask.delay_ms * NS_PER_MS, now = now_ns();
    if (!delay_ns) return now;
    /* golden-ratio steps give any number of streams an even spread of phases */
    if (conn->ask.spread) return now + (int64_t)((double)delay_ns * ((double)streams * 0.61803398875 -
                                                                     (double)(long)((double)streams * 0.61803398875)));
    return (now / delay_ns + 1) * delay_ns;
}

/* What a stream sends when it is due: a batch of chunks, or its end. */
static void emit(struct conn *conn) {
    static char room[EVENT_ROOM * (BATCH_MAX + 3)];
    size_t at = 0;
    long cut = conn->ask.cut > conn->ask.from ? conn->ask.cut : 0;
    long last = cut && cut < conn->ask.chunks ? cut : conn->ask.chunks;
    for (long i = 0; i < conn->ask.batch && conn->sent_chunks < last; i++) at += numbered(room + at, conn->sent_chunks++);
    if (conn->sent_chunks < last) {
        put(conn, room, at);
        if (conn->fd >= 0 && !conn->blocked) schedule(conn, next_due(conn));
        return;
    }
    if (cut) {
        cuts++;
        conn->answering = 0;
        conn->closing = 1;
    } else if (!conn->ask.hold) {
        at += ending(room + at, conn);
        conn->answering = 0;
    }
    put(conn, room, at);
    if (conn->fd >= 0 && !conn->blocked && !conn->answering) resume(conn);
}

/* The socket takes bytes again, or an answer is out: go on with whatever this connection was about. */
static void resume(struct conn *conn) {
    if (conn->closing) drop(conn);
    else if (!conn->answering) next_request(conn);
    else if (conn->sent_chunks < conn->ask.chunks) schedule(conn, next_due(conn));
}

static void answer(struct conn *conn, const char *status, const char *body, size_t count) {
    static char *room;
    static size_t room_bytes;
    if (room_bytes < count + 512) room = need(realloc(room, room_bytes = count + 512));
    int at = sprintf(room, "HTTP/1.1 %s\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                     "content-length: %zu\r\ncontent-type: application/json\r\n\r\n", status, count);
    memcpy(room + at, body, count);
    conn->answering = 0;
    put(conn, room, (size_t)at + count);
    if (conn->fd >= 0 && !conn->blocked) resume(conn);
}

static void answer_text(struct conn *conn, const char *status, const char *body) {
    answer(conn, status, body, strlen(body));
}

static void answer_completion(struct conn *conn) {
    static const char before[] = "{\"id\":\"chatcmpl-3f9c1b7ad2e84f6c\",\"object\":\"chat.completion\",\"created\":1763900000,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
    static const char after[] = "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
        "\"completion_tokens\":100,\"total_tokens\":109}}";
    static char *body;
    static size_t body_bytes;
    size_t frame_bytes = sizeof before - 1 + sizeof after - 1;
    size_t want = (size_t)conn->ask.bytes > frame_bytes ? (size_t)conn->ask.bytes : frame_bytes;
    if (body_bytes != want) {
        body = need(realloc(body, want));
        memset(body, 'x', want);
        memcpy(body, before, sizeof before - 1);
        memcpy(body + want - (sizeof after - 1), after, sizeof after - 1);
        body_bytes = want;
    }
    answer(conn, "200 OK", body, body_bytes);
}

static void answer_stats(struct conn *conn) {
    long kept = tagged < ABORTS_KEPT ? tagged : ABORTS_KEPT;
    char *body = need(malloc((size_t)kept * 48 + 512));
    int at = sprintf(body, "{\"requests\":%ld,\"failed\":%ld,\"streams\":%ld,\"cuts\":%ld,\"continued\":%ld,"
                     "\"aborts\":%ld,\"open\":%ld,\"sent_bytes\":%llu,\"abort_list\":[",
                     requests, failed, streams, cuts, continued, aborts, open_conns, (unsigned long long)sent_bytes);
    for (long i = 0; i < kept; i++)
        at += sprintf(body + at, "%s[%ld,%lld]", i ? "," : "", abort_list[i].tag, (long long)abort_list[i].at_ns);
    at += sprintf(body + at, "]}");
    answer(conn, "200 OK", body, (size_t)at);
    free(body);
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

static long parameter(const char *text, const char *end, const char *name, long otherwise) {
    size_t name_bytes = strlen(name);
    for (const char *at = text; at < end; at++) {
        if ((size_t)(end - at) > name_bytes && !memcmp(at, name, name_bytes) && at[name_bytes] == '=')
            return atol(at + name_bytes + 1);
        while (at < end && *at != ';') at++;
    }
    return otherwise;
}

/* Is `"name":true` in the JSON, with or without a space? The bodies are our own client's, so this is enough. */
static int flag(const char *body, size_t count, const char *quoted_name) {
    const char *at = memmem(body, count, quoted_name, strlen(quoted_name));
    if (!at) return 0;
    at += strlen(quoted_name);
    while (*at == ' ' || *at == ':') at++;
    return !strncmp(at, "true", 4);
}

/* How many chunks of its own text a stream is to go on from: one more than the last number in a final assistant message. */
static long said(const char *body, const char *end) {
    static const char role[] = "\"role\":\"assistant\",\"content\":\"";
    const char *at = memmem(body, (size_t)(end - body), role, sizeof role - 1), *last = NULL;
    if (!at) return 0;
    for (at += sizeof role - 1; at < end && *at != '"'; at++)
        if (*at == 'w') last = at + 1;
    return last ? strtol(last, NULL, 10) + 1 : 0;
}

static struct ask understand(const char *body, size_t count) {
    const char *at = memmem(body, count, "bench:", 6), *end = body + count;
    at = at ? at + 6 : end;
    const char *stop = at;
    while (stop < end && *stop != '"' && *stop != ' ') stop++;
    struct ask ask = {
        .bytes = parameter(at, stop, "bytes", 1024), .chunks = parameter(at, stop, "chunks", 100),
        .delay_ms = parameter(at, stop, "delay_ms", 0), .spread = parameter(at, stop, "spread", 0),
        .batch = parameter(at, stop, "batch", 1), .hold = parameter(at, stop, "hold", 0),
        .cut = parameter(at, stop, "cut", 0), .tag = parameter(at, stop, "tag", -1), .from = said(stop, end),
        .stream = flag(body, count, "\"stream\""), .usage = flag(body, count, "\"include_usage\""),
    };
    if (ask.batch < 1) ask.batch = 1;
    if (ask.batch > BATCH_MAX) ask.batch = BATCH_MAX;
    return ask;
}

static void complete(struct conn *conn, const char *body, size_t count) {
    failed += mode != MODE_OK;
    if (mode == MODE_EXIT) exit(0);
    if (mode == MODE_CLOSE) {
        drop(conn);
        return;
    }
    if (mode == MODE_503) {
        answer_text(conn, "503 Service Unavailable", "{\"error\":{\"message\":\"busy\",\"type\":\"server_error\"}}");
        return;
    }
    requests++;
    conn->ask = understand(body, count);
    if (!conn->ask.stream) {
        answer_completion(conn);
        return;
    }
    streams++;
    continued += conn->ask.from > 0;
    conn->sent_chunks = conn->ask.from;
    conn->answering = 1;
    put(conn, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (conn->fd >= 0 && !conn->blocked) schedule(conn, first_due(conn));
}

static void change_mode(struct conn *conn, const char *name) {
    static const char *names[] = {"ok", "close", "503", "exit"};
    for (int i = 0; i < 4; i++)
        if (!strncmp(name, names[i], strlen(names[i]))) mode = (enum mode)i;
    answer_text(conn, "200 OK", "{}");
}

static void route(struct conn *conn, const char *head, const char *body, size_t body_bytes) {
    if (!strncmp(head, "POST /v1/chat/completions", 25)) complete(conn, body, body_bytes);
    else if (!strncmp(head, "GET /stats", 10)) answer_stats(conn);
    else if (!strncmp(head, "GET /mode/", 10)) change_mode(conn, head + 10);
    else if (!strncmp(head, "GET /v1/models", 14))
        answer_text(conn, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"owned_by\":\"bench\"}]}");
    else if (!strncmp(head, "GET /", 5)) answer_text(conn, "200 OK", "{}");
    else answer_text(conn, "404 Not Found", "{}");
}

static size_t content_length(const char *head, const char *end) {
    for (const char *at = head; at && at < end; at = memchr(at, '\n', (size_t)(end - at)), at = at ? at + 1 : at)
        if (!strncasecmp(at, "content-length:", 15)) return (size_t)atol(at + 15);
    return 0;
}

/* If a whole request lies in the buffer and no answer is under way: answer it. */
static void next_request(struct conn *conn) {
    static char head[REQUEST_BYTES + 1];
    conn->in[conn->in_bytes] = 0;
    char *blank = memmem(conn->in, conn->in_bytes, "\r\n\r\n", 4);
    if (!blank) return;
    size_t head_bytes = (size_t)(blank - conn->in) + 4;
    size_t whole = head_bytes + content_length(conn->in, blank + 2);
    if (whole > REQUEST_BYTES) fail("request too large for the mock");
    if (conn->in_bytes < whole) return;
    memcpy(head, conn->in, whole);
    head[whole] = 0;
    conn->in_bytes -= whole;
    memmove(conn->in, conn->in + whole, conn->in_bytes);
    route(conn, head, head + head_bytes, whole - head_bytes);
}

static void receive(struct conn *conn) {
    size_t room = REQUEST_BYTES - conn->in_bytes;
    ssize_t got = recv(conn->fd, conn->in + conn->in_bytes, room, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        lost(conn);
        return;
    }
    if (got < 0) return;
    conn->in_bytes += (size_t)got;
    if (!conn->answering && !conn->blocked) next_request(conn);
}

static void handle(struct conn *conn, uint32_t events) {
    if (conn->fd < 0) return;
    if (events & (EPOLLERR | EPOLLHUP)) lost(conn);
    else if (events & (EPOLLIN | EPOLLRDHUP)) receive(conn);
    if (conn->fd >= 0 && events & EPOLLOUT && conn->blocked) flush(conn);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct conn *conn = need(malloc(sizeof *conn));
        memset(conn, 0, offsetof(struct conn, in));
        no_delay(fd);
        conn->fd = fd;
        conn->heap_at = -1;
        open_conns++;
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, conn);
    }
}

static void run_due(int64_t now) {
    while (heap_count && heap[0]->due_ns <= now) {
        struct conn *conn = heap[0];
        unschedule(conn);
        emit(conn);
    }
}

int main(int argc, char **argv) {
    struct epoll_event events[512];
    if (argc != 2 || atoi(argv[1]) <= 0) {
        fprintf(stderr, "usage: mock PORT      (parameters and control paths: the head of mock.c)\n");
        return 2;
    }
    settle_in();
    int listener = listen_on(atoi(argv[1]));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int count = wait_until(epoll_fd, events, 512, heap_count ? heap[0]->due_ns : -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) handle(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        bury();
        run_due(now_ns());
    }
}
