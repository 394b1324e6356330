/* ruler.c: the machine under the figures, measured while they are taken: the peak (f32 multiply-adds with one operand from L1), the best of
 * samples spread over the whole run, because all that disturbs one makes it smaller; and whether the machine was quiet: a loop of fixed
 * length on every core, which takes longer when something else runs there or the clock is lower. */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(cpu_set_t) == sizeof((bench_cores){0}.mask), "a set of 1024 CPUs");

rt_team *bench_pinned_team(int threads, bench_cores *inherited, tt_error *err) {
  cpu_set_t all, lowest, first;
  int n = 0;
  CPU_ZERO(&lowest);
  CPU_ZERO(&first);
  *inherited = (bench_cores){0};
  if (sched_getaffinity(0, sizeof all, &all) != 0) return rt_team_new(threads, err);       /* more CPUs than a set holds: nothing is pinned */
  memcpy(inherited->mask, &all, sizeof all);
  inherited->known = true;
  for (int c = 0; c < CPU_SETSIZE && n < threads; c++)
    if (CPU_ISSET(c, &all)) {
      CPU_SET(c, &lowest);
      if (!n++) CPU_SET(c, &first);
    }
  if (n < threads) {
    tt_fail(err, TT_INVALID, "error: %d threads, but this process may use %d cores\n  at bench --threads\n  fix: ask for at most %d", threads, n, n);
    return NULL;
  }
  sched_setaffinity(0, sizeof first, &first);          /* from there the team counts: its other threads get the others of the lowest */
  sched_setaffinity(0, sizeof lowest, &lowest);
  rt_team *team = rt_team_new(threads, err);
  sched_setaffinity(0, sizeof first, &first);
  return team;
}

void bench_keep_to(const bench_cores *inherited, int n) {
  const cpu_set_t *all = (const cpu_set_t *)(const void *)inherited->mask;
  cpu_set_t some;
  CPU_ZERO(&some);
  for (int c = 0; c < CPU_SETSIZE && n > 0; c++)
    if (inherited->known && CPU_ISSET(c, all)) CPU_SET(c, &some), n--;
  if (inherited->known) sched_setaffinity(0, sizeof some, &some);
}

void bench_unpin(const bench_cores *inherited) {
  if (inherited->known) sched_setaffinity(0, sizeof inherited->mask, (const cpu_set_t *)(const void *)inherited->mask);
}

/* About 100 us of dependent multiplications. */
typedef struct { double seconds[64]; volatile uint64_t sink; } loop_times;
static void fixed_loop(void *arg, int thread, int n_threads) {
  loop_times *l = arg;
  uint64_t x = (uint64_t)thread + 1;
  double start = bench_now();
  for (int i = 0; i < 60000; i++) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    __asm__ volatile("" : "+r"(x));
  }
  if (thread < 64) l->seconds[thread] = bench_now() - start;
  if (n_threads < 0) l->sink = x;
}

static double slowest(bench_ruler *r) {
  loop_times l = {0};
  double most = 0;
  rt_team_run(r->team, fixed_loop, &l);
  for (int i = 0; i < rt_team_size(r->team) && i < 64; i++)
    if (l.seconds[i] > most) most = l.seconds[i];
  return most;
}

void bench_ruler_look(bench_ruler *r) {
  double p = rt_meter_sample(r->fma), q = slowest(r);
  r->n_peaks++;
  if (p > r->peak) r->peak = p;
  if (q < r->quiet || r->quiet == 0) r->quiet = q;
  if (r->n_probes == r->cap_probes) {
    int cap = r->cap_probes ? 2 * r->cap_probes : 64;
    double *more = realloc(r->probes, (size_t)cap * sizeof *more);
    if (!more) return;
    r->probes = more, r->cap_probes = cap;
  }
  r->probes[r->n_probes++] = q;
}

void bench_ruler_row(bench_ruler *r) { r->n_probes = 0; }

double bench_ruler_noise(const bench_ruler *r) {
  int slow = 0;
  for (int i = 0; i < r->n_probes; i++) slow += r->probes[i] > 1.05 * r->quiet;
  return r->n_probes ? (double)slow / r->n_probes : 0;
}

bool bench_ruler_open(bench_ruler *r, int threads, const char *cpu, tt_error *err) {
  cg_cpu target;
  *r = (bench_ruler){0};
  if (cg_cpu_get(cpu, &target, err) != TT_OK || !(r->team = bench_pinned_team(threads, &r->inherited, err)) || !(r->fma = rt_meter_new(RT_METER_FMA, (size_t)target.vector_bytes, r->team, err))) return false;
  for (int i = 0; i < 20; i++) bench_ruler_look(r);       /* cores that slept take a while */
  return true;
}

void bench_ruler_close(bench_ruler *r) {
  rt_meter_free(r->fma);
  rt_team_free(r->team);
  free(r->probes);
  bench_unpin(&r->inherited);
}
