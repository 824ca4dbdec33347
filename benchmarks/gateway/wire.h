/* What the mock engine, the load client and the relay share: clock, sockets on loopback, epoll.
 *
 * Deliberately small: loopback TCP only, IPv4 only, no TLS, no name lookup. Everything that fails here is a broken
 * machine or a wrong argument, so it ends the program with a sentence.
 */
#ifndef WIRE_H
#define WIRE_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

static inline int64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static inline void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void *need(void *block) {
    if (!block) fail("out of memory");
    return block;
}

/* Every program here: many descriptors, no SIGPIPE, dies with whoever started it, precise timers. */
static inline void settle_in(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1UL);
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = loopback(port);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(fd, 4096) < 0) fail("listen");
    return fd;
}

/* A non-blocking connect: 0 or more is the descriptor, which epoll will call writable; -1 is a refusal. */
static inline int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    if (fd < 0) fail("socket");
    no_delay(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void watch(int epoll_fd, int operation, int fd, uint32_t events, void *who) {
    struct epoll_event event = {.events = events, .data.ptr = who};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0) fail("epoll_ctl");
}

/* Wait until `due_ns` (monotonic; negative: for ever) or an event; returns how many events lie in `out`. */
static inline int wait_until(int epoll_fd, struct epoll_event *out, int room, int64_t due_ns) {
    struct timespec rest = {0, 0}, *timeout = NULL;
    if (due_ns >= 0) {
        int64_t left = due_ns - now_ns();
        if (left > 0) rest = (struct timespec){.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};
        timeout = &rest;
    }
    int got = epoll_pwait2(epoll_fd, out, room, timeout, NULL);
    if (got < 0 && errno != EINTR) fail("epoll_pwait2");
    return got < 0 ? 0 : got;
}
#endif
