/* A slow or full disk and a wall clock that jumps, for any program: load with LD_PRELOAD.
 *
 *   SHIM_CONTROL=file   four numbers of eight bytes that may change at any time, see `struct control`
 *   SHIM_FOLDER=folder  files below it are on the disk that is slow or full; all other files, sockets and pipes are not
 *
 * Writes to mapped memory are not caught (SQLite's -shm file is such a one, and is never waited for).
 * Waits of the kernel know nothing of the jump, as it is with a real one for everything on the monotonic clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t delay_ms; /* each write and each sync to the disk takes so much longer */
    int64_t full;     /* 1: each write to it fails with ENOSPC */
    int64_t ahead_s;  /* the wall clock's error */
    int64_t touched;  /* counted here: calls that were delayed or failed */
};

static volatile struct control nothing, *control = &nothing;
static char folder[4096];
static size_t folder_bytes;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_CONTROL"), *below = getenv("SHIM_FOLDER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) control = found;
    close(fd);
    if (below && strlen(below) < sizeof folder) folder_bytes = strlen(strcpy(folder, below));
}

static int on_disk(int fd) {
    char link[64], path[4096];
    struct stat about;
    if (!folder_bytes || (!control->delay_ms && !control->full)) return 0;
    int saved = errno, found = 0;
    if (!fstat(fd, &about) && S_ISREG(about.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(link, path, sizeof path);
        found = bytes > (ssize_t)folder_bytes && !memcmp(path, folder, folder_bytes) && path[folder_bytes] == '/';
    }
    errno = saved;
    return found;
}

/* Returns 1 where the call is to fail. */
static int meet(int fd, int writes) {
    if (!on_disk(fd)) return 0;
    __atomic_add_fetch(&control->touched, 1, __ATOMIC_RELAXED);
    int64_t delay_ms = control->delay_ms;
    if (delay_ms) {
        struct timespec left = {delay_ms / 1000, delay_ms % 1000 * 1000000};
        while (nanosleep(&left, &left) && errno == EINTR) continue;
    }
    if (!writes || !control->full) return 0;
    errno = ENOSPC;
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    return meet(fd, 1) ? -1 : real(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    return meet(fd, 1) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite);
    return meet(fd, 1) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    return meet(fd, 1) ? -1 : real(fd, bytes, count, at);
}

int fsync(int fd) {
    REAL(fsync);
    meet(fd, 0);
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    meet(fd, 0);
    return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += control->ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (to) *to = exact.tv_sec;
    return exact.tv_sec;
}
