/* compare.c: a run against an older one, by the bootstrap interval of the ratio of medians. The same machine is not as fast on two days, and one program
 * differs from itself by a percent or two from run to run (how its pages happen to lie): so a row counts as slower when the whole interval lies above
 * 1.02, for the times and, of what computes, also for the times scaled by each run's measured peak. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const json_t *find_row(const json_t *run, const json_t *like) {
  const json_t *row;
  size_t i;
  json_array_foreach(json_object_get(run, "rows"), i, row)
    if (!strcmp(bench_text(row, "workload"), bench_text(like, "workload")) && bench_number(row, "threads") == bench_number(like, "threads")) return row;
  return NULL;
}

static const json_t *find_result(const json_t *row, const char *framework) {
  const json_t *r;
  size_t i;
  json_array_foreach(json_object_get(row, "results"), i, r)
    if (!strcmp(bench_text(r, "framework"), framework)) return r;
  return NULL;
}

/* malloc'ed. */
static double *samples_of(const json_t *result, int *n) {
  const json_t *samples = json_object_get(result, "samples"), *v;
  size_t i;
  double *to = malloc((json_array_size(samples) + 1) * sizeof *to);
  *n = 0;
  if (to) json_array_foreach(samples, i, v) to[(*n)++] = json_number_value(v);
  return to;
}

static const double TOLERANCE = 0.02;

/* 1: slower, with significance; -1: faster; 0: neither. scale: the new machine's peak over the old one's. */
static int compare_result(const json_t *row, const char *framework, const json_t *was, const json_t *is, double scale) {
  const char *name = bench_text(row, "workload");
  double before = bench_number(was, "median_ms"), now = bench_number(is, "median_ms");
  if (before <= 0 || now <= 0) {
    printf("%-34s %-18s %s: %s\n", name, framework, before > 0 ? "FAILS NOW" : "failed before", bench_text(before > 0 ? is : was, "error"));
    return before > 0;
  }
  int n_was, n_is, verdict = 0;
  double *a = samples_of(was, &n_was), *b = samples_of(is, &n_is);
  if (a && b && n_was && n_is) {
    bench_stat r = bench_ratio(b, n_is, a, n_was);
    bool memory = !strcmp(bench_text(row, "unit"), "MiB");
    double low = r.low * fmin(1, scale), high = r.high * fmax(1, scale);
    verdict = (low > 1 + TOLERANCE) - (high < 1 - TOLERANCE);
    printf("%-34s %-18s %10.4g -> %10.4g %s  %.3fx [%.3f, %.3f]%s\n", name, framework, before, now, memory ? "MiB" : "ms ", r.median, r.low, r.high,
           verdict > 0 ? memory ? "  MORE" : "  SLOWER" : verdict < 0 ? memory ? "  less" : "  faster" : "");
  }
  free(a);
  free(b);
  return verdict;
}

int bench_compare(const json_t *old, const json_t *run, const char *path, tt_error *err) {
  const char *what = bench_text(run, "what");
  if (strcmp(bench_text(old, "what"), what) || bench_number(old, "schema") != bench_number(run, "schema")) {
    tt_fail(err, TT_INVALID, "error: these figures are of %s, schema %d, not of %s, schema %d\n  at %s\n  fix: compare with figures that `tinytorch bench %s --json` of this version wrote", bench_text(old, "what"), (int)bench_number(old, "schema"),
            what, (int)bench_number(run, "schema"), path, what);
    return 0;
  }
  const char *cpu = bench_text(json_object_get(run, "machine"), "cpu"), *old_cpu = bench_text(json_object_get(old, "machine"), "cpu");
  printf("\nagainst %s of %s%s%s: new over old; the measured peak was %.1f GFLOP/s, is %.1f\n", path, bench_text(old, "date"), strcmp(cpu, old_cpu) ? " on another CPU, " : "", strcmp(cpu, old_cpu) ? old_cpu : "", bench_number(old, "peak_gflops"),
         bench_number(run, "peak_gflops"));
  const json_t *row, *result;
  size_t i, k;
  int compared = 0, regressions = 0;
  double peaks = bench_number(run, "peak_gflops") > 0 && bench_number(old, "peak_gflops") > 0 ? bench_number(run, "peak_gflops") / bench_number(old, "peak_gflops") : 1;
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    const json_t *before = find_row(old, row);
    json_array_foreach(json_object_get(row, "results"), k, result) {
      const char *framework = bench_text(result, "framework");
      const json_t *was = before && !strncmp(framework, "tinytorch", 9) ? find_result(before, framework) : NULL;
      if (!was) continue;
      compared++;
      regressions += compare_result(row, framework, was, result, bench_number(row, "flops") > 0 ? peaks : 1) > 0;
    }
  }
  printf("%d compared, %d regressed\n", compared, regressions);
  return regressions;
}

json_t *bench_load(const char *path, tt_error *err) {
  json_error_t why;
  size_t length;
  char *text = cli_read_file(path, &length, err);
  json_t *run = text ? json_loadb(text, length, 0, &why) : NULL;
  free(text);
  if (!run && !err->status) tt_fail(err, TT_FORMAT, "error: this is no JSON: %s\n  at %s:%d\n  fix: give a file that `tinytorch bench ... --json` wrote", why.text, path, why.line);
  if (run && (!bench_text(run, "what")[0] || !json_is_array(json_object_get(run, "rows")))) {
    json_decref(run);
    run = NULL;
    tt_fail(err, TT_FORMAT, "error: this JSON has no figures\n  at %s\n  fix: give a file that `tinytorch bench ... --json` wrote", path);
  }
  return run;
}
