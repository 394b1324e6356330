/* report.c: figures from files, for people: `bench verdict FILE...` says PASS or FAIL of each row that has a bar; `bench report FILE...` writes
 * docs/performance.md. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FILES = 64 };
static const char *const items[] = {NULL, "Products", "Convolutions", "Rows and elements", "Training steps", "Inference", "Many small kernels", "Compile time", "Memory", "Equal bits", "Ahead of time", "Another instruction set",
                                     [BENCH_MODERN + 4] = "Modern networks: speed", [BENCH_MODERN + 5] = "Modern networks: memory", [BENCH_MODERN + 6] = "Modern networks: compile time"};
enum { N_ITEMS = sizeof items / sizeof *items };

static bool load_all(const cli_args *a, json_t **runs, int *n, tt_error *err) {
  for (*n = 0; *n < a->n_words - 1 && *n < MOST_FILES; ++*n)
    if (!(runs[*n] = bench_load(a->words[*n + 1], err))) return false;
  return true;
}

int bench_verdicts(const cli_args *a) {
  tt_error err = {0};
  json_t *runs[MOST_FILES] = {0};
  const json_t *row;
  size_t i;
  int n, failed = 0;
  if (a->n_words < 2) return cli_usage(a, "verdict: which files of figures?");
  bool ok = load_all(a, runs, &n, &err);
  for (int k = 0; k < n && ok; k++) {
    json_array_foreach(json_object_get(runs[k], "rows"), i, row) {
      bench_verdict v = bench_judge(runs[k], row);
      if (!v.item) printf("----  %s: %s\n", bench_text(row, "workload"), v.figure[0] ? v.figure : "no bar");
      else printf("%s  %s, %d thread%s: %s (bar: %s)%s\n", v.met ? "PASS" : "FAIL", bench_text(row, "workload"), (int)bench_number(row, "threads"), bench_number(row, "threads") > 1 ? "s" : "", v.figure, v.bar,
                  json_is_false(json_object_get(row, "quiet")) ? " NOT QUIET" : "");
      failed += v.item && !v.met;
    }
    int products;
    double mean = bench_blas_mean(runs[k], &products);
    if (products > 1) printf("%s  geometric mean of %d products against the best BLAS, %d thread(s): %.3fx (bar: 1.08x)\n", mean >= 1.08 ? "PASS" : "FAIL", products, (int)bench_number(runs[k], "threads"), mean), failed += mean < 1.08;
  }
  for (int k = 0; k < n; k++) json_decref(runs[k]);
  return err.status ? cli_fail(&err) : failed > 0;
}

/* -- docs/performance.md ---------------------------------------------------------------------------------------------------- */

static void put_ms(double ms, bool memory) {
  if (memory) printf("%.1f MiB", ms);
  else if (ms < 0.0995) printf("%.2f us", 1e3 * ms);
  else printf("%.3g ms", ms);
}

static void put_row(const json_t *run, const json_t *row, const bench_verdict *v) {
  const json_t *ours = json_array_get(json_object_get(row, "results"), 0), *best = bench_row_best(row);
  double ms = bench_number(ours, "median_ms"), flops = bench_number(row, "flops"), bytes = bench_number(row, "bytes"), peak = bench_number(run, "peak_gflops"), bound = bench_row_bound(row, peak);
  bool memory = !strcmp(bench_text(row, "unit"), "MiB");
  printf("| %s | ", bench_text(row, "workload"));
  if (!ours || json_object_get(row, "ratio")) {          /* its figure is no single time */
    printf("%s | | | | %s | %s%s |\n", v->figure, v->bar, v->met ? "met" : "**short**", json_is_false(json_object_get(row, "quiet")) ? ", not quiet" : "");
    return;
  }
  put_ms(ms, memory);
  double scale = ms < 0.0995 ? 1e3 : 1;                  /* an interval has the unit of its median */
  printf(memory ? " | " : " [%.3g, %.3g] | ", scale * bench_number(ours, "low_ms"), scale * bench_number(ours, "high_ms"));
  if (!memory && peak > 0 && flops > 0) printf("%.1f GFLOP/s, %.0f%%", flops / ms / 1e6, 100 * flops / ms / 1e6 / peak);
  else if (!memory && bytes > 0) printf("%.1f GB/s", bytes / ms / 1e6);
  printf(" | ");
  if (bound > 0) printf("%.0f%%", 100 * bound / ms);
  printf(" | ");
  if (best) {
    printf("%s ", bench_text(best, "framework"));
    put_ms(bench_number(best, "median_ms"), memory);
    printf(", %.2fx", bench_number(best, "median_ms") / ms);
  }
  printf(" | %s | %s%s |\n", v->item ? v->bar : "", v->item ? v->met ? "met" : "**short**" : "", json_is_false(json_object_get(row, "quiet")) ? ", not quiet" : "");
}

static void put_section(json_t *const *runs, int n, int item, int threads) {
  bool begun = false;
  const json_t *row;
  size_t i;
  for (int k = 0; k < n; k++)
    json_array_foreach(json_object_get(runs[k], "rows"), i, row) {
      bench_verdict v = bench_judge(runs[k], row);
      if (v.item != item || (int)bench_number(row, "threads") != threads) continue;
      if (!begun) printf("\n### %s, %d thread%s\n\n| workload | median [95%%] | rate, of peak | of the bound | best other | bar | |\n| --- | --- | --- | --- | --- | --- | --- |\n", items[item], threads, threads > 1 ? "s" : "");
      begun = true;
      put_row(runs[k], row, &v);
    }
}

/* Where a row stands on the roofline. */
static void put_shortfalls(json_t *const *runs, int n) {
  const json_t *row;
  size_t i;
  printf("\n## What falls short, and what limits it\n\n| workload | threads | figure | bar | roofline | limited by |\n| --- | --- | --- | --- | --- | --- |\n");
  for (int k = 0; k < n; k++)
    json_array_foreach(json_object_get(runs[k], "rows"), i, row) {
      bench_verdict v = bench_judge(runs[k], row);
      double flops = bench_number(row, "flops"), traffic = bench_number(row, "traffic"), peak = bench_number(runs[k], "peak_gflops"), gbytes = bench_number(row, "gbytes_s");
      if (!v.item || v.met) continue;
      printf("| %s | %d | %s | %s | ", bench_text(row, "workload"), (int)bench_number(row, "threads"), v.figure, v.bar);
      if (flops > 0 && traffic > 0 && gbytes > 0) printf("%.1f operations a byte, ridge at %.1f: %s, %.0f GFLOP/s", flops / traffic, peak / gbytes, flops / traffic * gbytes > peak ? "arithmetic" : "memory", fmin(peak, flops / traffic * gbytes));
      else if (traffic > 0 && gbytes > 0) printf("memory, %.1f GB/s", gbytes);
      else if (flops > 0 && peak > 0) printf("arithmetic, %.0f GFLOP/s", peak);
      printf(" | %s |\n", v.limit);
    }
}

static void put_machines(json_t *const *runs, int n) {
  printf("| figures | date | CPU | cores | L1d, L2, L3 KiB | system | peak GFLOP/s | versions |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (int k = 0; k < n; k++) {
    if (!strcmp(bench_text(runs[k], "what"), "checks")) continue;      /* of no machine */
    const json_t *m = json_object_get(runs[k], "machine"), *v;
    const char *key;
    printf("| %s, %d thread%s | %s | %s (%s) | %d | %d, %d, %d | %s %s | %.1f | ", bench_text(runs[k], "what"), (int)bench_number(runs[k], "threads"), bench_number(runs[k], "threads") > 1 ? "s" : "", bench_text(runs[k], "date"), bench_text(m, "cpu"),
           bench_text(m, "compiles_for"), (int)bench_number(m, "cores"), (int)bench_number(m, "l1d") >> 10, (int)bench_number(m, "l2") >> 10, (int)bench_number(m, "l3") >> 10, bench_text(m, "system"), bench_text(m, "release"),
           bench_number(runs[k], "peak_gflops"));
    json_object_foreach(json_object_get(runs[k], "versions"), key, v) printf("%s %s; ", key, json_string_value(v));
    printf("|\n");
  }
}

static void put_summary(json_t *const *runs, int n) {
  const json_t *row;
  size_t i;
  printf("| item | rows that meet their bar |\n| --- | --- |\n");
  for (int item = 1; item < N_ITEMS; item++) {
    int met = 0, all = 0;
    for (int k = 0; k < n; k++)
      json_array_foreach(json_object_get(runs[k], "rows"), i, row) {
        bench_verdict v = bench_judge(runs[k], row);
        all += v.item == item, met += v.item == item && v.met;
      }
    if (all) printf("| %d. %s | %d of %d |\n", item % BENCH_MODERN, items[item], met, all);
  }
  for (int k = 0; k < n; k++) {
    int products;
    double mean = bench_blas_mean(runs[k], &products);
    if (products > 1) printf("| 1. Products, geometric mean against the best BLAS, %d thread(s) | %.3fx over %d shapes (bar 1.08x) |\n", (int)bench_number(runs[k], "threads"), mean, products);
  }
}

int bench_report(const cli_args *a) {
  tt_error err = {0};
  json_t *runs[MOST_FILES] = {0};
  int n, most = 1;
  if (a->n_words < 2) return cli_usage(a, "report: which files of figures?");
  if (load_all(a, runs, &n, &err)) {
    for (int k = 0; k < n; k++)
      if ((int)bench_number(runs[k], "threads") > most) most = (int)bench_number(runs[k], "threads");
    printf("# Performance\n\n`tinytorch bench report` has written this page from the figures of `tinytorch bench ... --json`; `script/show limit` and `script/show modern` take them, and the former writes it anew. Every time is a median with the 95%% bootstrap interval "
           "behind it; other frameworks and libraries were measured by turns in the same run, on the same cores. The peak is the rate of f32 multiply-adds with one operand from L1 on so many threads; a bound is the workload's "
           "operations at that peak, or the bytes that must cross memory at the rate of the best copy (or read) of so many bytes, whichever takes longer. The bars are those of issue 4, \"The limit\", and of issue 5, \"Modern networks\". Images are channels-last, "
           "weights OIHW.\n\n");
    put_machines(runs, n);
    printf("\n");
    put_summary(runs, n);
    printf("\n## Figures\n");
    for (int item = 1; item < N_ITEMS; item++)
      for (int threads = 1; threads <= most; threads++) put_section(runs, n, item, threads);
    put_shortfalls(runs, n);
  }
  for (int k = 0; k < n; k++) json_decref(runs[k]);
  return err.status ? cli_fail(&err) : 0;
}
