/* cache.c: the command cache: what is kept of compiled kernels. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../codegen/cache.h"
#include "cli.h"

typedef struct { bool list, remove; int n, n_wrong, n_kept; uint64_t bytes; } tally;

static void on_entry(void *user, const cg_cache_entry *e) {
  tally *t = user;
  char when[32] = "";
  time_t used = (time_t)e->used;
  struct tm tm;
  if (localtime_r(&used, &tm)) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &tm);
  t->n++, t->bytes += e->bytes;
  if (e->wrong) t->n_wrong++;
  if (t->remove && unlink(e->path)) t->n_kept++;
  if (t->remove) return;
  if (t->list) printf("%.32s %8llu  %s  %s\n", e->name, (unsigned long long)e->bytes, when, e->wrong ? e->wrong : e->about);
  else if (e->wrong) printf("%s: %s\n", e->path, e->wrong);
}

int cli_cache(const cli_args *a) {
  static const char *const actions[] = {"ls", "verify", "clear", NULL};
  if (a->n_words != 1) return cli_usage(a, "one of ls, verify, clear");
  int action = 0;
  while (actions[action] && strcmp(actions[action], a->words[0])) action++;
  if (!actions[action]) return cli_unknown("action", a->words[0], actions);
  cg_cache c;
  cg_cache_open(&c);
  if (!c.folder[0]) {
    printf("there is no cache: %s\n", "TT_CACHE=0, or neither TT_CACHE_DIR, XDG_CACHE_HOME nor HOME is set");
    return 0;
  }
  tally t = {.list = action == 0, .remove = action == 2};
  tt_error err = {0};
  if (!cg_cache_each(&c, action == 2, on_entry, &t)) {
    tt_fail(&err, TT_NO_MEMORY, "error: no memory to list the cache\n  at %s\n  fix: free memory", c.folder);
    return cli_fail(&err);
  }
  double mib = (double)t.bytes / (1 << 20);
  if (t.remove) printf("%d of %d kernels and programs removed, %.1f MiB, from %s\n", t.n - t.n_kept, t.n, mib, c.folder);
  else if (t.list) printf("%d kernels and programs, %.1f MiB of at most %.1f, in %s\n", t.n, mib, (double)c.limit / (1 << 20), c.folder);
  else printf("%d kernels and programs, %d whole, %d not, in %s\n", t.n, t.n - t.n_wrong, t.n_wrong, c.folder);
  return t.remove ? t.n_kept > 0 : action == 1 && t.n_wrong > 0;
}
