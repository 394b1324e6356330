/* turns.c: the sides of a workload are measured by turns, not one after the other, because times on a machine drift. A turn is a few runs,
 * 25 ms or so, the first of which is dropped: it finds caches and clocks as another left them. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_side_close(bench_side *s) {
  if (s->close && s->self) s->close(s);
  free(s->ms);
  s->self = NULL, s->ms = NULL, s->n_ms = s->cap_ms = 0;
}

enum { MOST_RUNS = 400, MOST_SAMPLES = 20000, LEAST_ROUNDS = 5 };

static bool keep(bench_side *s, const double *ms, int n) {
  if (s->n_ms + n > s->cap_ms) {
    int cap = 2 * (s->n_ms + n);
    double *more = realloc(s->ms, (size_t)cap * sizeof *more);
    if (!more) return false;
    s->ms = more, s->cap_ms = cap;
  }
  memcpy(s->ms + s->n_ms, ms, (size_t)n * sizeof *ms);
  s->n_ms += n;
  return true;
}

/* How long one run takes, to know how many make a turn. */
static bool warm_up(bench_side *s) {
  double ms[8];
  if (!s->run(s, 1, ms)) return false;
  int n = ms[0] > 20 ? 1 : 8;
  if (!s->run(s, n, ms)) return false;
  s->once = bench_stats(ms, n).median;
  if (s->once < 1e-6) s->once = 1e-6;
  return n == 1 || s->run(s, 8, ms);
}

void bench_turns(bench_side *sides, int n, const bench_patience *p, bench_ruler *r, void (*between)(void *user), void *user) {
  double ms[MOST_RUNS + 1];
  for (int i = 0; i < n; i++)
    if (!sides[i].error[0]) warm_up(&sides[i]);
  double begin = bench_now();
  for (int round = 0;; round++) {
    int alive = 0;
    for (int i = 0; i < n; i++) alive += !sides[i].error[0];
    if (!alive || round == MOST_SAMPLES / MOST_RUNS || (round >= LEAST_ROUNDS && bench_now() - begin > p->seconds * alive)) return;
    for (int i = 0; i < n; i++) {
      bench_side *s = &sides[i];
      if (s->error[0]) continue;
      if (p->others) nanosleep(&(struct timespec){0, 20000000}, NULL);
      if (i == 0 || p->others) {
        bench_ruler_look(r);
        if (between) between(user);
      }
      int runs = (int)(25 / s->once);
      runs = runs < 2 ? 2 : runs > MOST_RUNS ? MOST_RUNS : runs;
      if (s->run(s, runs + 1, ms) && !keep(s, ms + 1, runs)) strcpy(s->error, "no memory for the samples");
    }
  }
}
