/* budget.c: `bench budget [WORKLOAD ...]`: what half of the activations' memory costs. The budget of a training step is what it needs at all, less half of
 * the arena that it would have if nothing were made again; --memory-budget gives another. Two programs, with the budget and with nothing made again, are timed by turns
 * in this process; how far a process grows that keeps to the budget is measured in one of its own, as `bench memory` does it. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static double mib(double bytes) { return bytes / (1 << 20); }

/* Growth in MiB of a process that keeps to the row's budget, its kernels compiled before. */
static bool grow(const cli_args *a, json_t *row, int threads, int steps, tt_error *err) {
  char cache[1200];
  double started, growth = 0;
  if (!bench_temporary(cache, sizeof cache, err)) return false;
  for (int i = 0; i < 2 && !err->status; i++) {
    json_t *j = bench_child(a, bench_text(row, "workload"), threads, i ? steps : 1, (int64_t)bench_number(row, "budget"), cache, &started, err);
    growth = bench_number(j, "rss_peak_mib") - bench_number(j, "rss_before_mib");
    json_decref(j);
  }
  bench_remove_folder(cache);
  json_object_set_new(row, "grown_mib", json_real(growth));
  return !err->status;
}

static void print(const json_t *row) {
  printf("%s: %.1f MiB allowed, %.1f planned, the process grows by %.1f; %.1f planned with all kept, %.1f MiB of activations\n    time %.3fx [%.3f, %.3f] of that without%s\n", bench_text(row, "workload"), bench_number(row, "budget_mib"),
         bench_number(row, "plan_mib"), bench_number(row, "grown_mib"), bench_number(row, "plan_without_mib"), bench_number(row, "activations_mib"), bench_number(row, "ratio"), bench_number(row, "ratio_low"), bench_number(row, "ratio_high"),
         json_is_false(json_object_get(row, "quiet")) ? "  NOT QUIET" : "");
  fflush(stdout);
}

static bool one(const bench_workload *w, bench_ruler *ruler, const bench_target *target, int threads, double seconds, json_t *run, tt_error *err) {
  bench_side sides[2] = {0};
  bench_target within = *target, without = *target;
  char skip[300];
  snprintf(skip, sizeof skip, "recompute%s%s", target->skip ? "," : "", target->skip ? target->skip : "");
  without.skip = skip, without.memory_budget = 0;
  if (!bench_ours(&sides[1], w, ruler->team, &without, err)) return false;
  snprintf(sides[1].framework, sizeof sides[1].framework, "tinytorch, all kept");
  bench_facts all = bench_ours_facts(&sides[1]);
  if (!within.memory_budget) within.memory_budget = (int64_t)(all.plan - all.arena / 2);
  if (!bench_ours(&sides[0], w, ruler->team, &within, err)) return bench_side_close(&sides[1]), false;
  bench_ruler_row(ruler);
  bench_turns(sides, 2, &(bench_patience){seconds, false}, ruler, NULL, NULL);
  json_t *row = bench_row_new(w, sides, 2);
  bench_stat ratio = {0};
  if (sides[0].n_ms && sides[1].n_ms) ratio = bench_ratio(sides[0].ms, sides[0].n_ms, sides[1].ms, sides[1].n_ms);
  double noise = bench_ruler_noise(ruler);
  json_object_update_new(row, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "threads", threads, "budget", (double)within.memory_budget, "budget_mib", mib((double)within.memory_budget), "plan_mib", mib(bench_ours_facts(&sides[0]).plan), "plan_without_mib", mib(all.plan), "activations_mib", mib(all.arena),
                                        "ratio", ratio.median, "ratio_low", ratio.low, "ratio_high", ratio.high, "noise", noise, "quiet", noise <= 0.25));
  json_array_append_new(json_object_get(run, "rows"), row);
  for (int i = 0; i < 2; i++) bench_side_close(&sides[i]);
  return true;
}

int bench_budget(const cli_args *a) {
  tt_error err = {0};
  bench_workload w[BENCH_MOST_NAMES];
  bench_target target;
  int64_t threads, steps;
  double seconds;
  if (!cli_int(a, "threads", 1, 1, &threads) || !cli_int(a, "steps", 20, 1, &steps) || !cli_double(a, "seconds", 2, &seconds) || !bench_target_of(a, &target)) return 2;
  int n = bench_names(a, bench_budget_names, w, &err);
  json_t *run = bench_run_new("budget", (int)threads, target.cpu);
  bench_ruler ruler = {0};
  bool ok = n >= 0 && bench_ruler_open(&ruler, (int)threads, target.cpu, &err);
  for (int i = 0; i < n && ok; i++) ok = one(&w[i], &ruler, &target, (int)threads, seconds, run, &err);
  bench_unpin(&ruler.inherited);                             /* a child gets the cores that this process was given */
  json_t *row;
  size_t i;
  json_array_foreach(json_object_get(run, "rows"), i, row)
    if (ok && (ok = grow(a, row, (int)threads, (int)steps, &err))) print(row);
  int failed = 1;
  if (ok) {
    bench_run_finish(run, &ruler);
    failed = bench_finish(a, run, &err);
  }
  json_decref(run);
  bench_ruler_close(&ruler);
  return err.status ? cli_fail(&err) : failed;
}
