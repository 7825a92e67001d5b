// A library to preload. It counts the calls that a process makes on files under one folder, writes them down in memory
// that outlives the process, and strikes at the n-th: the process dies before it, or in the middle of it, or the call
// fails with an error of one's choice, once or from then on.
//
// A program that knows of it calls strike_arm. One that does not is armed by its environment: STRIKE_ROOT (the folder),
// STRIKE_N, STRIKE_MODE, STRIKE_ERROR, STRIKE_KINDS, all numbers as below, and STRIKE_REPORT, a file outside the folder
// that gets the head of struct Shared; its calls are counted and not written down.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// Kinds of calls; a set of them is a sum. tests/crash/strike.py has the same list.
enum Kind {
  kOpenRead = 1,
  kOpenWrite = 2,
  kRead = 4,
  kWrite = 8,
  kSync = 16,
  kRename = 32,
  kUnlink = 64,
  kMkdir = 128,
  kTruncate = 256,
  kClose = 512,
};

enum Mode { kCount = 0, kKill = 1, kTear = 2, kFail = 3, kFailOn = 4 };

enum { kFds = 4096, kArena = 1 << 24 };

// One call that took effect, followed by its path, its second path and its data.
struct Record {
  int32_t kind;
  int32_t fd;
  int32_t flags;
  int32_t path;
  int32_t path2;
  int32_t data;
  int64_t offset;
};

struct Shared {
  int64_t calls;   // of the kinds that are counted
  int64_t struck;  // how many of them were struck
  int32_t kind;    // of the first that was struck, and its path
  char path[PATH_MAX];
  int64_t used;
  char log[kArena];
};

static struct Shared* shared;
static char folder[PATH_MAX];
static size_t folder_length;
static int64_t strike_at;
static int mode, error_number, kinds;
static int armed, keep_log;
static int log_lock;
static unsigned char ours[kFds];

#define REAL(result, name, ...)                   \
  static result (*real_##name)(__VA_ARGS__);      \
  if (!real_##name) *(void**)&real_##name = dlsym(RTLD_NEXT, #name)

static int64_t Number(const char* name, int64_t otherwise) {
  const char* text = getenv(name);
  return text ? strtoll(text, NULL, 10) : otherwise;
}

static void Arm(const char* root, int64_t n, int new_mode, int error, int counted) {
  snprintf(folder, sizeof folder, "%s", root);
  folder_length = strlen(folder);
  memset(ours, 0, sizeof ours);
  strike_at = n;
  mode = new_mode;
  error_number = error;
  kinds = counted;
  armed = 1;
}

__attribute__((constructor)) static void Begin(void) {
  const char* report = getenv("STRIKE_REPORT");
  const char* root = getenv("STRIKE_ROOT");
  int fd = -1;
  if (report) {
    fd = open(report, O_RDWR | O_CREAT, 0666);
    if (fd < 0 || ftruncate(fd, sizeof *shared)) abort();
  }
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | (report ? 0 : MAP_ANONYMOUS), fd, 0);
  if (shared == MAP_FAILED) abort();
  if (report) close(fd);
  if (root) {
    Arm(root, Number("STRIKE_N", -1), (int)Number("STRIKE_MODE", kCount), (int)Number("STRIKE_ERROR", EIO),
        (int)Number("STRIKE_KINDS", ~kRead));
  }
}

// What the program that holds the library calls ----------------------------------------------------------------------

void* strike_shared(void) { return shared; }

int64_t strike_log_offset(void) { return (int64_t)offsetof(struct Shared, log); }

void strike_reset(void) {
  shared->calls = shared->struck = shared->used = 0;
  shared->kind = 0;
  shared->path[0] = 0;
}

void strike_arm(const char* root, int64_t n, int new_mode, int error, int counted) {
  Arm(root, n, new_mode, error, counted);
  keep_log = 1;
}

// Inside --------------------------------------------------------------------------------------------------------------

// The absolute path of `path`, in `out`, if it is under the folder.
static int Under(int at, const char* path, char* out) {
  if (!armed) return 0;
  if (path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
  } else {
    char link[64], base[PATH_MAX];
    if (at == AT_FDCWD) {
      snprintf(link, sizeof link, "/proc/self/cwd");
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    }
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length < 0) return 0;
    base[length] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) abort();
  }
  return strncmp(out, folder, folder_length) == 0 && (out[folder_length] == '/' || out[folder_length] == 0);
}

static int OnOurs(int fd) { return armed && fd >= 0 && fd < kFds && ours[fd]; }

static const char* PathOf(int fd, char* out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, out, PATH_MAX - 1);
  out[length < 0 ? 0 : length] = 0;
  return out;
}

static void Die(void) {
  for (;;) kill(getpid(), SIGKILL);
}

static void Note(int kind, int fd, int flags, const char* path, const char* path2, const void* data, int64_t size,
                 int64_t offset) {
  if (!keep_log) return;
  int saved = errno;
  struct Record record = {kind, fd, flags, (int32_t)strlen(path), (int32_t)strlen(path2), (int32_t)size, offset};
  int64_t needed = (int64_t)sizeof record + record.path + record.path2 + record.data;
  while (__atomic_exchange_n(&log_lock, 1, __ATOMIC_ACQUIRE)) {
  }
  if (shared->used + needed > kArena) {
    fprintf(stderr, "strike: the log is full\n");
    abort();
  }
  char* to = shared->log + shared->used;
  memcpy(to, &record, sizeof record);
  to += sizeof record;
  memcpy(to, path, (size_t)record.path);
  to += record.path;
  memcpy(to, path2, (size_t)record.path2);
  to += record.path2;
  if (size) memcpy(to, data, (size_t)size);
  shared->used += needed;
  __atomic_store_n(&log_lock, 0, __ATOMIC_RELEASE);
  errno = saved;
}

// Counts a call; 0: go on, -1: fail with errno, 1: tear.
static int Struck(int kind, const char* path) {
  if (!(kinds & kind)) return 0;
  int64_t number = __atomic_fetch_add(&shared->calls, 1, __ATOMIC_RELAXED);
  int hit = mode != kCount && (number == strike_at || (mode == kFailOn && number > strike_at));
  if (!hit) return 0;
  if (__atomic_fetch_add(&shared->struck, 1, __ATOMIC_RELAXED) == 0) {
    shared->kind = kind;
    snprintf(shared->path, PATH_MAX, "%s", path);
  }
  if (mode == kKill) Die();
  if (mode == kTear) {
    if (kind == kWrite) return 1;
    Die();
  }
  errno = error_number;
  return -1;
}

static int KindOfOpen(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) ? kOpenWrite : kOpenRead;
}

static mode_t ModeOf(int flags, va_list list) {
  return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

static int Open(int (*real)(int, const char*, int, ...), int at, const char* path, int flags, mode_t create) {
  char full[PATH_MAX];
  if (!Under(at, path, full)) return real(at, path, flags, create);
  int kind = KindOfOpen(flags);
  if (Struck(kind, full)) return -1;
  int fd = real(at, path, flags, create);
  if (fd >= kFds) abort();
  if (fd >= 0) {
    ours[fd] = 1;
    Note(kind, fd, flags, full, "", NULL, 0, 0);
  }
  return fd;
}

static int RealOpenAt(int at, const char* path, int flags, ...) {
  REAL(int, openat, int, const char*, int, ...);
  va_list list;
  va_start(list, flags);
  mode_t create = ModeOf(flags, list);
  va_end(list);
  return real_openat(at, path, flags, create);
}

// The calls -----------------------------------------------------------------------------------------------------------

#define OPEN(name, extra)                                                 \
  int name(const char* path, int flags, ...) {                            \
    va_list list;                                                         \
    va_start(list, flags);                                                \
    mode_t create = ModeOf(flags, list);                                  \
    va_end(list);                                                         \
    return Open(RealOpenAt, AT_FDCWD, path, flags | (extra), create);     \
  }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)

#define OPENAT(name, extra)                                               \
  int name(int at, const char* path, int flags, ...) {                    \
    va_list list;                                                         \
    va_start(list, flags);                                                \
    mode_t create = ModeOf(flags, list);                                  \
    va_end(list);                                                         \
    return Open(RealOpenAt, at, path, flags | (extra), create);           \
  }
OPENAT(openat, 0)
OPENAT(openat64, O_LARGEFILE)

#define CREAT(name)                                                                            \
  int name(const char* path, mode_t create) {                                                  \
    return Open(RealOpenAt, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, create);             \
  }
CREAT(creat)
CREAT(creat64)

static void NoteWrite(int fd, const void* data, ssize_t done, int64_t offset) {
  char path[PATH_MAX];
  if (done < 0) return;
  if (offset < 0) offset = (int64_t)lseek(fd, 0, SEEK_CUR) - done;
  Note(kWrite, fd, 0, PathOf(fd, path), "", data, done, offset);
}

ssize_t write(int fd, const void* data, size_t size) {
  REAL(ssize_t, write, int, const void*, size_t);
  if (!OnOurs(fd)) return real_write(fd, data, size);
  char path[PATH_MAX];
  int struck = Struck(kWrite, PathOf(fd, path));
  if (struck < 0) return -1;
  ssize_t done = real_write(fd, data, struck ? size / 2 : size);
  NoteWrite(fd, data, done, -1);
  if (struck) Die();
  return done;
}

#define PWRITE(name)                                                          \
  ssize_t name(int fd, const void* data, size_t size, off_t offset) {         \
    REAL(ssize_t, name, int, const void*, size_t, off_t);                     \
    if (!OnOurs(fd)) return real_##name(fd, data, size, offset);              \
    char path[PATH_MAX];                                                      \
    int struck = Struck(kWrite, PathOf(fd, path));                            \
    if (struck < 0) return -1;                                                \
    ssize_t done = real_##name(fd, data, struck ? size / 2 : size, offset);   \
    NoteWrite(fd, data, done, offset);                                        \
    if (struck) Die();                                                        \
    return done;                                                              \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int fd, const struct iovec* pieces, int count) {
  REAL(ssize_t, writev, int, const struct iovec*, int);
  if (!OnOurs(fd)) return real_writev(fd, pieces, count);
  // As one write: the same bytes, and the strike can fall inside any piece.
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += pieces[i].iov_len;
  char* data = malloc(size + 1);
  if (!data) abort();
  size_t at = 0;
  for (int i = 0; i < count; ++i) {
    memcpy(data + at, pieces[i].iov_base, pieces[i].iov_len);
    at += pieces[i].iov_len;
  }
  ssize_t done = write(fd, data, size);
  free(data);
  return done;
}

ssize_t read(int fd, void* data, size_t size) {
  REAL(ssize_t, read, int, void*, size_t);
  char path[PATH_MAX];
  if (OnOurs(fd) && Struck(kRead, PathOf(fd, path))) return -1;
  return real_read(fd, data, size);
}

#define PREAD(name)                                                           \
  ssize_t name(int fd, void* data, size_t size, off_t offset) {               \
    REAL(ssize_t, name, int, void*, size_t, off_t);                           \
    char path[PATH_MAX];                                                      \
    if (OnOurs(fd) && Struck(kRead, PathOf(fd, path))) return -1;             \
    return real_##name(fd, data, size, offset);                               \
  }
PREAD(pread)
PREAD(pread64)

#define SYNC(name)                                                            \
  int name(int fd) {                                                          \
    REAL(int, name, int);                                                     \
    if (!OnOurs(fd)) return real_##name(fd);                                  \
    char path[PATH_MAX];                                                      \
    PathOf(fd, path);                                                         \
    if (Struck(kSync, path)) return -1;                                       \
    int result = real_##name(fd);                                             \
    if (!result) Note(kSync, fd, 0, path, "", NULL, 0, 0);                    \
    return result;                                                            \
  }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name)                                                        \
  int name(int fd, off_t size) {                                              \
    REAL(int, name, int, off_t);                                              \
    if (!OnOurs(fd)) return real_##name(fd, size);                            \
    char path[PATH_MAX];                                                      \
    PathOf(fd, path);                                                         \
    if (Struck(kTruncate, path)) return -1;                                   \
    int result = real_##name(fd, size);                                       \
    if (!result) Note(kTruncate, fd, 0, path, "", NULL, 0, size);             \
    return result;                                                            \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int close(int fd) {
  REAL(int, close, int);
  if (!OnOurs(fd)) return real_close(fd);
  char path[PATH_MAX];
  PathOf(fd, path);
  int struck = Struck(kClose, path);
  int saved = errno;
  // A close that fails has closed all the same.
  ours[fd] = 0;
  int result = real_close(fd);
  Note(kClose, fd, 0, path, "", NULL, 0, 0);
  if (!struck) return result;
  errno = saved;
  return -1;
}

static int Rename(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  REAL(int, renameat2, int, const char*, int, const char*, unsigned);
  char a[PATH_MAX], b[PATH_MAX];
  int under = Under(from_at, from, a);
  if (Under(to_at, to, b) != under) abort();
  if (under && Struck(kRename, b)) return -1;
  int result = real_renameat2(from_at, from, to_at, to, flags);
  if (under && !result) Note(kRename, -1, (int)flags, a, b, NULL, 0, 0);
  return result;
}

int rename(const char* from, const char* to) { return Rename(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat(int from_at, const char* from, int to_at, const char* to) { return Rename(from_at, from, to_at, to, 0); }

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  return Rename(from_at, from, to_at, to, flags);
}

int unlinkat(int at, const char* path, int flags) {
  REAL(int, unlinkat, int, const char*, int);
  char full[PATH_MAX];
  int under = Under(at, path, full);
  if (under && Struck(kUnlink, full)) return -1;
  int result = real_unlinkat(at, path, flags);
  if (under && !result) Note(kUnlink, -1, flags, full, "", NULL, 0, 0);
  return result;
}

int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char* path, mode_t create) {
  REAL(int, mkdirat, int, const char*, mode_t);
  char full[PATH_MAX];
  int under = Under(at, path, full);
  if (under && Struck(kMkdir, full)) return -1;
  int result = real_mkdirat(at, path, create);
  if (under && !result) Note(kMkdir, -1, 0, full, "", NULL, 0, 0);
  return result;
}

int mkdir(const char* path, mode_t create) { return mkdirat(AT_FDCWD, path, create); }
