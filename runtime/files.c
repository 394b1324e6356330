/* files.c: whole files in and out. A file is written under another name in the same folder, synced and renamed, so that its own
 * name always shows all of the old content or all of the new, also after a crash. */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static tt_status io_error(const char *doing, const char *path, tt_error *err) {
  int e = errno;
  return tt_fail(err, TT_IO, "error: %s failed: %s\n  at %s\n  fix: %s", doing, strerror(e), path,
                 e == ENOENT ? "check the path and that its folder exists" : e == ENOSPC ? "make room on the disk" : e == EACCES ? "check the permissions" : "check the path, the permissions and the disk");
}

static bool write_all(int fd, const char *data, size_t bytes) {
  while (bytes) {
    ssize_t n = write(fd, data, bytes < (size_t)1 << 30 ? bytes : (size_t)1 << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    bytes -= (size_t)n;
  }
  return true;
}

static bool sync_folder(const char *path) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : slash ? (int)(slash - path) : 1, slash ? path : ".");
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  bool ok = fsync(fd) == 0 || errno == EINVAL;           /* EINVAL: the file system has nothing to sync there */
  close(fd);
  return ok;
}

tt_status rt_path(char path[RT_PATH], const char *dir, const char *name, tt_error *err) {
  int n = snprintf(path, RT_PATH, "%s/%s", dir, name);
  return n > 0 && n < RT_PATH ? TT_OK : tt_fail(err, TT_INVALID, "error: the path of %.100s is too long, %d bytes\n  at %.200s...\n  fix: use a folder with a shorter path", name, n, dir);
}

tt_status rt_write_parts(const char *path, const rt_part *parts, int n, tt_error *err) {
  char temporary[RT_PATH];
  int length = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)syscall(SYS_gettid));
  if (length < 0 || (size_t)length >= sizeof temporary) {
    errno = ENAMETOOLONG;
    return io_error("writing", path, err);
  }
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return io_error("creating a temporary file", temporary, err);
  bool ok = true;
  for (int i = 0; ok && i < n; i++) ok = write_all(fd, parts[i].data, parts[i].bytes);
  ok = ok && fsync(fd) == 0;
  int failure = errno;
  if (close(fd) != 0 && ok) ok = false, failure = errno;
  if (ok && rename(temporary, path) != 0) ok = false, failure = errno;
  if (!ok) {
    unlink(temporary);
    errno = failure;
    return io_error("writing", path, err);
  }
  return sync_folder(path) ? TT_OK : io_error("syncing the folder of a written file", path, err);
}

tt_status rt_write_file(const char *path, const void *data, size_t bytes, tt_error *err) { return rt_write_parts(path, &(rt_part){data, bytes}, 1, err); }

tt_status rt_map_file(const char *path, rt_file *f, tt_error *err) {
  *f = (rt_file){0};
  struct stat s;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("opening", path, err);
  tt_status status = TT_OK;
  if (fstat(fd, &s) != 0) status = io_error("reading", path, err);
  else if (!S_ISREG(s.st_mode)) status = tt_fail(err, TT_IO, "error: not a regular file\n  at %s\n  fix: give the path of a file", path);
  else if (!s.st_size) f->data = (const uint8_t *)"";
  else {
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) status = io_error("mapping", path, err);
    else *f = (rt_file){p, (size_t)s.st_size};
  }
  close(fd);
  return status;
}

void rt_unmap_file(rt_file *f) {
  if (f->bytes) munmap((void *)f->data, f->bytes);
  *f = (rt_file){0};
}
