/* The floor: a bare epoll TCP relay that knows no HTTP. `relay LISTEN_PORT ENGINE_PORT`
 *
 * Each client connection gets its own engine connection; bytes go one read, one write. What it costs is the kernel's
 * share of any proxy's bill. It has backpressure (a side that cannot be written to stops the other from being read)
 * and closes both sides when one ends. Deliberately no pool, no retry, no limits.
 */
#include "wire.h"

#define READ_BYTES 65536

struct side {
    int fd;
    int dead;          /* the pair is closed; freed at the end of the turn */
    struct side *peer;
    struct side *next_dead;
    char *left;        /* what `fd` would not take yet */
    size_t left_bytes, left_sent;
    uint32_t interest;
};

static int epoll_fd, engine_port;
static struct side *graveyard;
static char buffer[READ_BYTES];

static void want(struct side *side, uint32_t interest) {
    if (side->interest == interest) return;
    side->interest = interest;
    watch(epoll_fd, EPOLL_CTL_MOD, side->fd, interest, side);
}

static void close_pair(struct side *side) {
    struct side *both[2] = {side, side->peer};
    if (side->dead) return;
    for (int i = 0; i < 2; i++) {
        close(both[i]->fd);
        both[i]->dead = 1;
        both[i]->next_dead = graveyard;
        graveyard = both[i];
    }
}

static void bury(void) {
    while (graveyard) {
        struct side *side = graveyard;
        graveyard = side->next_dead;
        free(side->left);
        free(side);
    }
}

static struct side *adopt(int fd, uint32_t interest) {
    struct side *side = need(calloc(1, sizeof *side));
    side->fd = fd;
    side->interest = interest;
    watch(epoll_fd, EPOLL_CTL_ADD, fd, interest, side);
    return side;
}

static void accept_all(int listener) {
    for (;;) {
        int client_fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), engine_fd;
        if (client_fd < 0) return;
        no_delay(client_fd);
        if ((engine_fd = connect_to(engine_port)) < 0) {
            close(client_fd);
            continue;
        }
        struct side *client = adopt(client_fd, EPOLLIN), *engine = adopt(engine_fd, EPOLLIN);
        client->peer = engine;
        engine->peer = client;
    }
}

/* Write to `side`; what does not fit is kept and its source is no longer read. */
static void pass_on(struct side *side, const char *bytes, size_t count) {
    ssize_t sent = send(side->fd, bytes, count, 0);
    if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
        close_pair(side);
        return;
    }
    if (sent < 0) sent = 0;
    if ((size_t)sent == count) return;
    side->left_bytes = count - (size_t)sent;
    side->left_sent = 0;
    side->left = need(realloc(side->left, READ_BYTES));
    memcpy(side->left, bytes + sent, side->left_bytes);
    want(side, side->interest | EPOLLOUT);
    want(side->peer, side->peer->interest & ~(uint32_t)EPOLLIN);
}

static void flush(struct side *side) {
    ssize_t sent = send(side->fd, side->left + side->left_sent, side->left_bytes - side->left_sent, 0);
    if (sent < 0) {
        if (errno != EAGAIN) close_pair(side);
        return;
    }
    side->left_sent += (size_t)sent;
    if (side->left_sent < side->left_bytes) return;
    side->left_bytes = 0;
    want(side, side->interest & ~(uint32_t)EPOLLOUT);
    want(side->peer, side->peer->interest | EPOLLIN);
}

static void read_from(struct side *side) {
    ssize_t got = recv(side->fd, buffer, READ_BYTES, 0);
    if (got > 0) pass_on(side->peer, buffer, (size_t)got);
    else if (got == 0 || errno != EAGAIN) close_pair(side);
}

static void handle(struct side *side, uint32_t events) {
    if (side->dead) return;
    if (events & EPOLLERR || (events & EPOLLHUP && !(events & EPOLLIN))) {
        close_pair(side);
        return;
    }
    if (events & EPOLLOUT && side->left_bytes) flush(side);
    if (!side->dead && events & EPOLLIN && side->interest & EPOLLIN) read_from(side);
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    if (argc != 3 || atoi(argv[1]) <= 0 || atoi(argv[2]) <= 0) {
        fprintf(stderr, "usage: relay LISTEN_PORT ENGINE_PORT\n");
        return 2;
    }
    settle_in();
    engine_port = atoi(argv[2]);
    int listener = listen_on(atoi(argv[1]));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int count = wait_until(epoll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) handle(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        bury();
    }
}
