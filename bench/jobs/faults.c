// Fails chosen system calls on files below a folder, in every process that preloads this library (LD_PRELOAD).
//
// The file named by FAULTS_CONTROL is mapped by all processes: `struct control` says which call fails, and counts calls.
// bench/jobs/fault_calls.py writes it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { WRITE, FSYNC, RENAME, UNLINK, FTRUNCATE, OPEN, CALLS };

struct control {
    int64_t call;          // of enum call: the one that fails; -1: none
    int64_t number;        // which call of that kind fails, counted from 1 over all processes
    int64_t error;         // errno
    int64_t lasting;       // all later calls of that kind fail too
    int64_t partial;       // the first of these writes is short: half of its bytes
    int64_t fired;         // calls that failed
    int64_t count[CALLS];  // calls so far
    char prefix[PATH_MAX];
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

static int below_prefix(const char *path) {
    size_t length = strlen(control->prefix);
    return length && !strncmp(path, control->prefix, length);
}

static int is_ours(int file) {
    char link[32], path[PATH_MAX];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below_prefix(path);
}

static int is_our_path(int folder, const char *path) {
    if (!control || !path) return 0;
    return path[0] == '/' || folder == AT_FDCWD ? below_prefix(path) : is_ours(folder);
}

// Counts a call; returns 1 if it is to fail, with errno set.
static int fails(enum call call) {
    int64_t number = __atomic_add_fetch(&control->count[call], 1, __ATOMIC_SEQ_CST);
    if (control->call != call || number < control->number) return 0;
    if (number > control->number && !control->lasting) return 0;
    __atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST);
    errno = (int)control->error;
    return 1;
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *bytes, size_t size) {
    NEXT(write);
    if (is_ours(file) && fails(WRITE)) {
        if (control->partial && size > 1 && control->fired == 1) return next(file, bytes, size / 2);
        return -1;
    }
    return next(file, bytes, size);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    NEXT(pwrite64);
    if (is_ours(file) && fails(WRITE)) {
        if (control->partial && size > 1 && control->fired == 1) return next(file, bytes, size / 2, at);
        return -1;
    }
    return next(file, bytes, size, at);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) { return pwrite64(file, bytes, size, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    NEXT(writev);
    return is_ours(file) && fails(WRITE) ? -1 : next(file, parts, count);
}

int fsync(int file) {
    NEXT(fsync);
    return is_ours(file) && fails(FSYNC) ? -1 : next(file);
}

int fdatasync(int file) {
    NEXT(fdatasync);
    return is_ours(file) && fails(FSYNC) ? -1 : next(file);
}

int ftruncate64(int file, off64_t size) {
    NEXT(ftruncate64);
    return is_ours(file) && fails(FTRUNCATE) ? -1 : next(file, size);
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int rename(const char *from, const char *to) {
    NEXT(rename);
    return is_our_path(AT_FDCWD, to) && fails(RENAME) ? -1 : next(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    NEXT(renameat);
    return is_our_path(to_folder, to) && fails(RENAME) ? -1 : next(from_folder, from, to_folder, to);
}

int unlink(const char *path) {
    NEXT(unlink);
    return is_our_path(AT_FDCWD, path) && fails(UNLINK) ? -1 : next(path);
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    return is_our_path(folder, path) && fails(UNLINK) ? -1 : next(folder, path, flags);
}

// The mode of a file is an argument only if the file may be made.
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open64(const char *path, int flags, ...) {
    NEXT(open64);
    MODE(flags)
    return is_our_path(AT_FDCWD, path) && fails(OPEN) ? -1 : next(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    NEXT(open);
    MODE(flags)
    return is_our_path(AT_FDCWD, path) && fails(OPEN) ? -1 : next(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    NEXT(openat64);
    MODE(flags)
    return is_our_path(folder, path) && fails(OPEN) ? -1 : next(folder, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    NEXT(openat);
    MODE(flags)
    return is_our_path(folder, path) && fails(OPEN) ? -1 : next(folder, path, flags, mode);
}
