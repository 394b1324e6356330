/* cache.c: the cache of compiled kernels. A file is written under a name of its own and renamed, so that others see all of it or nothing; it is not
 * synced, because a torn one fails its checksum and is compiled anew. Only files that this user alone can write are believed: they are code. */
#define _GNU_SOURCE
#include "cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "build_id.h"              /* made by CMake: TT_BUILD_ID, of all sources that a kernel's code depends on and of LLVM's version */

static const char suffix[] = ".kernel", temporary_suffix[] = ".part";
enum { STALE_SECONDS = 3600 };     /* a write of that age was interrupted; and a file that is used has its time renewed that often */

static uint64_t limit_of(const char *text) {
  uint64_t otherwise = (uint64_t)256 << 20;
  if (!text || !*text) return otherwise;
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  int shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : *end == 'G' || *end == 'g' ? 30 : 0;
  if (shift) end++;
  return errno || end == text || *end || *text == '-' || n > UINT64_MAX >> shift ? otherwise : (uint64_t)n << shift;
}

void cg_cache_open(cg_cache *c) {
  *c = (cg_cache){.limit = limit_of(getenv("TT_CACHE_MAX"))};
  const char *use = getenv("TT_CACHE"), *own = getenv("TT_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (use && !strcmp(use, "0")) return;
  int n = own && *own    ? snprintf(c->folder, sizeof c->folder, "%s", own)
          : xdg && *xdg == '/' ? snprintf(c->folder, sizeof c->folder, "%s/tinytorch", xdg)
          : home && *home ? snprintf(c->folder, sizeof c->folder, "%s/.cache/tinytorch", home)
                          : 0;
  if (n < 0 || (size_t)n >= sizeof c->folder) c->folder[0] = 0;
}

rt_key cg_cache_key(const char *kernel_text, const cg_cpu *cpu) {
  char text[700], hex[33];
  rt_key kernel = rt_key_of(kernel_text, strlen(kernel_text));
  int n = snprintf(text, sizeof text, "%s build=" TT_BUILD_ID " cpu=", rt_key_text(&kernel, hex));
  cg_cpu_identity(cpu, text + n, sizeof text - (size_t)n);
  return rt_key_of(text, strlen(text));
}

static void bad(cg_cache *c, const char *path, const char *why) {
  if (!c->bad++) snprintf(c->first_bad, sizeof c->first_bad, "%s\n  at %s", why, path);
}

static bool path_of(const cg_cache *c, const rt_key *key, const char *more, char *path, size_t size) {
  char hex[33];
  int n = snprintf(path, size, "%s/%s%s", c->folder, rt_key_text(key, hex), more);
  return n > 0 && (size_t)n < size;
}

/* The file's bytes, malloc'ed; NULL: why is set, or it is not there (errno ENOENT). */
static void *read_file(int folder, const char *path, size_t *bytes, const char **why) {
  int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat s;
  *why = NULL;
  if (fd < 0) {
    if (errno != ENOENT && errno != ENOTDIR) *why = strerror(errno);
    return NULL;
  }
  char *data = NULL;
  *bytes = 0;
  if (fstat(fd, &s) || !S_ISREG(s.st_mode)) *why = "it is not a file";
  else if (s.st_uid != geteuid() || (s.st_mode & (S_IWGRP | S_IWOTH))) *why = "others than this user can write it";
  else if (s.st_size > RT_IMAGE_MAX + RT_IMAGE_HEAD) *why = "it is too large";
  else if (!(data = malloc((size_t)s.st_size + 1))) *why = "there is no memory for it";
  else {
    for (ssize_t n; *bytes < (size_t)s.st_size && (n = read(fd, data + *bytes, (size_t)s.st_size - *bytes)) > 0;) *bytes += (size_t)n;
    if (time(NULL) - s.st_mtime > STALE_SECONDS) futimens(fd, NULL);                 /* for the order in which files are removed; may fail */
  }
  close(fd);
  if (!data) errno = 0;
  return data;
}

bool cg_cache_get(cg_cache *c, const rt_key *key, rt_image *image) {
  char path[4096];
  size_t bytes;
  const char *why;
  *image = (rt_image){0};
  if (!c->folder[0] || !path_of(c, key, suffix, path, sizeof path)) return false;
  char *file = read_file(AT_FDCWD, path, &bytes, &why);
  if (file && !(why = rt_image_parse(file, bytes, key, image, NULL))) {
    memmove(file, image->data, image->bytes);
    image->data = file;
    return true;
  }
  free(file);
  *image = (rt_image){0};
  if (why) bad(c, path, why);
  return false;
}

/* ---- writing */

static bool make_folder(const char *path) {
  char part[4096];
  size_t n = strlen(path);
  if (n >= sizeof part) return false;
  for (size_t i = 1; i <= n; i++)
    if (i == n || path[i] == '/') {
      memcpy(part, path, i);
      part[i] = 0;
      if (mkdir(part, 0700) && errno != EEXIST) return false;
    }
  return true;
}

static bool write_all(int fd, const void *data, size_t bytes) {
  for (const char *at = data; bytes;) {
    ssize_t n = write(fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n, bytes -= (size_t)n;
  }
  return true;
}

/* Looking through a folder of many thousand files takes longer than a compilation, so it is done LOOKS times for as many bytes as may be kept: a key is a
 * hash, hence a number drawn. The limit is exceeded by a 64th of it at most, or nearly so. */
enum { LOOKS = 64 };

void cg_cache_put(cg_cache *c, const rt_key *key, const char *about, const rt_image *image) {
  char path[4096], temporary[4096], more[64];
  uint8_t head[RT_IMAGE_HEAD];
  if (!c->folder[0] || c->not_written[0] || image->bytes + sizeof head > c->limit) return;
  snprintf(more, sizeof more, ".%ld.%ld%s", (long)getpid(), (long)syscall(SYS_gettid), temporary_suffix);
  if (!path_of(c, key, suffix, path, sizeof path) || !path_of(c, key, more, temporary, sizeof temporary)) return;
  rt_image_head(image, key, about, head);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 && errno == ENOENT && make_folder(c->folder)) fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  bool ok = fd >= 0 && write_all(fd, head, sizeof head) && write_all(fd, image->data, image->bytes);
  int failure = errno;
  if (fd >= 0 && close(fd) && ok) ok = false, failure = errno;
  if (ok && rename(temporary, path)) ok = false, failure = errno;
  uint32_t draw;
  memcpy(&draw, key->bytes, sizeof draw);
  double bytes = (double)(sizeof head + image->bytes);
  if (ok && draw * 0x1p-32 * (double)c->limit < LOOKS * bytes) c->trim = true;
  if (!ok) {
    snprintf(c->not_written, sizeof c->not_written, "%s\n  at %s", strerror(failure), c->folder);
    if (fd >= 0) unlink(temporary);
  }
}

/* ---- the folder as a whole */

typedef struct { char *name; uint64_t bytes; int64_t used; bool part; } found;
typedef struct { found *list; int n, cap; } listing;

static bool ends_in(const char *name, const char *end) {
  size_t n = strlen(name), m = strlen(end);
  return n > m && !strcmp(name + n - m, end);
}

/* Ours begin with the 32 digits of a key; what else may lie in the folder is left alone. */
static bool is_ours(const char *name, bool *part) {
  *part = ends_in(name, temporary_suffix);
  size_t digits = strspn(name, "0123456789abcdef");
  return digits == 32 && (*part || !strcmp(name + 32, suffix));
}

static void free_listing(listing *l) {
  for (int i = 0; i < l->n; i++) free(l->list[i].name);
  free(l->list);
}

static bool list_folder(DIR *d, listing *l) {
  for (struct dirent *e; (e = readdir(d));) {
    struct stat s;
    bool part;
    if (!is_ours(e->d_name, &part) || fstatat(dirfd(d), e->d_name, &s, AT_SYMLINK_NOFOLLOW)) continue;
    if (l->n == l->cap) {
      found *more = realloc(l->list, (size_t)(l->cap = l->cap ? 2 * l->cap : 256) * sizeof *more);
      if (!more) return false;
      l->list = more;
    }
    l->list[l->n] = (found){strdup(e->d_name), (uint64_t)s.st_size, (int64_t)s.st_mtime, part};
    if (!l->list[l->n].name) return false;
    l->n++;
  }
  return true;
}

static int by_time(const void *a, const void *b) {
  const found *x = a, *y = b;
  return x->used != y->used ? (x->used < y->used ? -1 : 1) : strcmp(x->name, y->name);
}
static int by_name(const void *a, const void *b) { return strcmp(((const found *)a)->name, ((const found *)b)->name); }

void cg_cache_trim(cg_cache *c) {
  DIR *d = c->folder[0] && c->trim ? opendir(c->folder) : NULL;
  if (!d) return;
  listing l = {0};
  if (list_folder(d, &l)) {
    uint64_t total = 0;
    int64_t now = (int64_t)time(NULL);
    qsort(l.list, (size_t)l.n, sizeof *l.list, by_time);
    for (int i = 0; i < l.n; i++) total += l.list[i].bytes;
    for (int i = 0; i < l.n; i++) {
      const found *f = &l.list[i];
      if (!(f->part ? now - f->used > STALE_SECONDS : total > c->limit)) continue;
      if (unlinkat(dirfd(d), f->name, 0) == 0 || errno == ENOENT) total -= f->bytes;
    }
  }
  free_listing(&l);
  closedir(d);
  c->trim = false;
}

bool cg_cache_each(const cg_cache *c, bool all, void (*entry)(void *user, const cg_cache_entry *e), void *user) {
  DIR *d = c->folder[0] ? opendir(c->folder) : NULL;
  if (!d) return true;
  listing l = {0};
  bool ok = list_folder(d, &l);
  if (ok && l.n) qsort(l.list, (size_t)l.n, sizeof *l.list, by_name);
  for (int i = 0; ok && i < l.n; i++) {
    const found *f = &l.list[i];
    char path[4400], about[RT_IMAGE_ABOUT] = "";
    if (f->part && !all) continue;
    snprintf(path, sizeof path, "%s/%s", c->folder, f->name);
    rt_key key;
    rt_image image;
    size_t bytes = 0;
    for (int k = 0; k < 16; k++) {
      unsigned byte = 0;
      sscanf(f->name + 2 * k, "%2x", &byte);
      key.bytes[k] = (uint8_t)byte;
    }
    const char *why = "it was not written to its end";
    char *file = f->part ? NULL : read_file(dirfd(d), f->name, &bytes, &why);
    if (file) why = rt_image_parse(file, bytes, &key, &image, about);
    entry(user, &(cg_cache_entry){path, f->name, about, file || why ? why : "it cannot be read", f->bytes, f->used});
    free(file);
  }
  free_listing(&l);
  closedir(d);
  return ok;
}

bool cg_cache_warning(const cg_cache *c, char *text, size_t size) {
  if (c->bad)
    snprintf(text, size, "%d file%s of the kernel cache cannot be used: %s\n  fix: nothing has to be done, what it should hold was compiled; `tinytorch cache verify` lists all such files", c->bad, c->bad > 1 ? "s" : "", c->first_bad);
  else if (c->not_written[0])
    snprintf(text, size, "compiled kernels cannot be kept: %s\n  fix: set TT_CACHE_DIR to a folder that may be written, or TT_CACHE=0", c->not_written);
  return c->bad || c->not_written[0];
}
