/* files.h: a folder of its own for each test, and small files in it. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Criterion's runner loses 48 bytes of its own now and then; the leak checker is not to blame a suite for it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libcriterion"; }

typedef struct { char dir[200], path[400]; } folder;

static inline folder folder_new(void) {
  folder f = {.path = ""};
  const char *base = getenv("TMPDIR");
  snprintf(f.dir, sizeof f.dir, "%s/tinytorch-test-XXXXXX", base ? base : "/tmp");
  cr_assert_not_null(mkdtemp(f.dir));
  return f;
}
static inline const char *in(folder *f, const char *name) {
  snprintf(f->path, sizeof f->path, "%s/%s", f->dir, name);
  return f->path;
}
static inline int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at) { return remove(path); }
static inline void folder_remove(folder *f) { nftw(f->dir, remove_one, 10, FTW_DEPTH | FTW_PHYS); }

static inline void put(const char *path, const void *data, size_t bytes) {
  FILE *out = fopen(path, "wb");
  cr_assert_not_null(out);
  cr_assert_eq(fwrite(data, 1, bytes, out), bytes);
  fclose(out);
}
static inline size_t get(const char *path, void *data, size_t room) {
  FILE *f = fopen(path, "rb");
  if (!f) return 0;
  size_t n = fread(data, 1, room, f);
  fclose(f);
  return n;
}
