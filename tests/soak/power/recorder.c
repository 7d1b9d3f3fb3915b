/* Records what a process writes under one folder, in the order in which it happened over all processes.
 *
 * Preloaded (LD_PRELOAD) into the node's processes. Every call that changes a file or a folder under
 * $DICOM_NODE_RECORDED is made and written down under one lock, so that the record has one order. Written down: what a
 * power failure can take back (writes, truncations, names) and what keeps it from doing so (syncs).
 *
 * Not seen: stores into mapped memory (of the node's files only SQLite's -shm is mapped, which holds nothing that it
 * does not make anew), and calls that go past libc. `replay.py` compares the record with the folder, so either shows.
 *
 * Record: type (1 byte), inode, offset, length of the data, lengths of two paths (8 bytes each, little endian), the
 * paths, the data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int record_fd = -1;
static uint32_t syncs;
static char root[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("DICOM_NODE_RECORDED"), *file = getenv("DICOM_NODE_RECORD");
    if (folder && file && strlen(folder) < PATH_MAX) {
        strcpy(root, folder);
        int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        record_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900); /* out of the way of programs that count */
        syscall(SYS_close, fd);
    }
}

static int under_root(const char *path) {
    size_t length = strlen(root);
    return record_fd >= 0 && length && strncmp(path, root, length) == 0 && (path[length] == '/' || !path[length]);
}

/* Make a path absolute as open() would find it; the folder may be a symbolic link, the last part stays. */
static int absolute(int dirfd, const char *path, char *out) {
    char whole[PATH_MAX], base[PATH_MAX] = "", resolved[PATH_MAX];
    if (path[0] != '/') {
        char link[64];
        ssize_t n;
        if (dirfd == AT_FDCWD)
            strcpy(link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        if ((n = readlink(link, base, sizeof base - 1)) < 0) return 0;
        base[n] = 0;
    }
    if (snprintf(whole, sizeof whole, "%s%s%s", base, base[0] ? "/" : "", path) >= (int)sizeof whole) return 0;
    char *slash = strrchr(whole, '/');
    char name[NAME_MAX + 2];
    snprintf(name, sizeof name, "%s", slash);
    *slash = 0;
    if (!realpath(whole[0] ? whole : "/", resolved)) return 0;
    return snprintf(out, PATH_MAX, "%s%s", resolved, name) < PATH_MAX && under_root(out);
}

static int of_fd(int fd, char *out, struct stat *found) {
    char link[64];
    if (record_fd < 0 || fstat(fd, found) || !(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return under_root(out);
}

static void lock(void) {
    pthread_mutex_lock(&mutex);
    while (flock(record_fd, LOCK_EX) && errno == EINTR) {}
}

static void unlock(void) {
    int kept = errno;
    flock(record_fd, LOCK_UN);
    pthread_mutex_unlock(&mutex);
    errno = kept;
}

static void note(char type, uint64_t inode, uint64_t offset, const void *data, uint64_t length, const char *one,
                 const char *two) {
    int kept = errno;
    char head[41] = {type};
    uint64_t numbers[5] = {inode, offset, length, strlen(one), strlen(two)};
    memcpy(head + 1, numbers, sizeof numbers);
    struct iovec parts[4] = {
        {head, sizeof head}, {(void *)one, numbers[3]}, {(void *)two, numbers[4]}, {(void *)data, data ? length : 0}};
    if (!data) {
        uint64_t none = 0;
        memcpy(head + 17, &none, 8);
    }
    syscall(SYS_writev, record_fd, parts, 4);
    errno = kept;
}

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    int changes = (flags & O_CREAT) || (flags & O_TRUNC);
    if (record_fd < 0 || !changes || !absolute(dirfd, path, whole)) return syscall(SYS_openat, dirfd, path, flags, mode);
    lock();
    int existed = syscall(SYS_faccessat, AT_FDCWD, whole, F_OK) == 0;
    int fd = syscall(SYS_openat, dirfd, path, flags, mode);
    struct stat found;
    if (fd >= 0 && fstat(fd, &found) == 0) {
        if (!existed)
            note('C', found.st_ino, 0, NULL, 0, whole, "");
        else if (flags & O_TRUNC)
            note('T', found.st_ino, 0, NULL, 0, whole, "");
    }
    unlock();
    return fd;
}

#define MODE(flags)                                      \
    mode_t mode = 0;                                     \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {             \
        va_list arguments;                               \
        va_start(arguments, flags);                      \
        mode = va_arg(arguments, mode_t);                \
        va_end(arguments);                               \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int dirfd, const char *path, int flags, ...) { MODE(flags) return opened(dirfd, path, flags, mode); }
int openat64(int dirfd, const char *path, int flags, ...) { MODE(flags) return opened(dirfd, path, flags, mode); }

static void note_write(int fd, const struct stat *found, const char *path, const struct iovec *parts, int count,
                       int64_t offset, ssize_t written) {
    if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - written;
    for (int i = 0; i < count && written > 0; i++) {
        size_t n = parts[i].iov_len < (size_t)written ? parts[i].iov_len : (size_t)written;
        note('W', found->st_ino, offset, parts[i].iov_base, n, path, "");
        offset += n;
        written -= n;
    }
}

#define WRITING(call, parts, count, offset)                                             \
    char path[PATH_MAX];                                                                \
    struct stat found;                                                                  \
    if (!of_fd(fd, path, &found)) return call;                                          \
    lock();                                                                             \
    ssize_t written = call;                                                             \
    if (written > 0) note_write(fd, &found, path, parts, count, offset, written);       \
    unlock();                                                                           \
    return written;

ssize_t write(int fd, const void *data, size_t n) {
    struct iovec part = {(void *)data, n};
    WRITING(syscall(SYS_write, fd, data, n), &part, 1, -1)
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    struct iovec part = {(void *)data, n};
    WRITING(syscall(SYS_pwrite64, fd, data, n, offset), &part, 1, offset)
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) { return pwrite(fd, data, n, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    WRITING(syscall(SYS_writev, fd, parts, count), parts, count, -1)
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    WRITING(REAL(pwritev)(fd, parts, count, offset), parts, count, offset)
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    WRITING(REAL(pwritev64v2)(fd, parts, count, offset, flags), parts, count, offset)
}

static int synced(int fd, long number) {
    char path[PATH_MAX];
    struct stat found;
    if (!of_fd(fd, path, &found)) return syscall(number, fd);
    /* Made outside the lock, for others write meanwhile; what they write after 'B' is not what this sync keeps. */
    uint64_t token = ((uint64_t)gettid() << 32) | __atomic_fetch_add(&syncs, 1, __ATOMIC_RELAXED);
    lock();
    note('B', found.st_ino, token, NULL, 0, path, "");
    unlock();
    int done = syscall(number, fd);
    lock();
    if (done == 0) note(S_ISDIR(found.st_mode) ? 'D' : 'S', found.st_ino, token, NULL, 0, path, "");
    unlock();
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    struct stat found;
    if (!of_fd(fd, path, &found)) return syscall(SYS_ftruncate, fd, length);
    lock();
    int done = syscall(SYS_ftruncate, fd, length);
    if (done == 0) note('T', found.st_ino, length, NULL, 0, path, "");
    unlock();
    return done;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static int renamed(int from, const char *old, int to, const char *new) {
    char one[PATH_MAX], two[PATH_MAX];
    if (record_fd < 0 || !absolute(from, old, one) || !absolute(to, new, two))
        return syscall(SYS_renameat2, from, old, to, new, 0);
    lock();
    int done = syscall(SYS_renameat2, from, old, to, new, 0);
    if (done == 0) note('R', 0, 0, NULL, 0, one, two);
    unlock();
    return done;
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new); }

static int linked(int from, const char *old, int to, const char *new, int flags) {
    char one[PATH_MAX], two[PATH_MAX];
    if (record_fd < 0 || !absolute(from, old, one) || !absolute(to, new, two))
        return syscall(SYS_linkat, from, old, to, new, flags);
    lock();
    int done = syscall(SYS_linkat, from, old, to, new, flags);
    if (done == 0) note('L', 0, 0, NULL, 0, one, two);
    unlock();
    return done;
}
int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return linked(from, old, to, new, flags); }

static int removed(int dirfd, const char *path, int flags) {
    char whole[PATH_MAX];
    if (record_fd < 0 || !absolute(dirfd, path, whole)) return syscall(SYS_unlinkat, dirfd, path, flags);
    lock();
    int done = syscall(SYS_unlinkat, dirfd, path, flags);
    if (done == 0) note('U', 0, 0, NULL, 0, whole, "");
    unlock();
    return done;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int dirfd, const char *path, int flags) { return removed(dirfd, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int dirfd, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    if (record_fd < 0 || !absolute(dirfd, path, whole)) return syscall(SYS_mkdirat, dirfd, path, mode);
    lock();
    int done = syscall(SYS_mkdirat, dirfd, path, mode);
    if (done == 0) note('M', 0, 0, NULL, 0, whole, "");
    unlock();
    return done;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int dirfd, const char *path, mode_t mode) { return made(dirfd, path, mode); }
