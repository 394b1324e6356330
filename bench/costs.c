/* costs.c: `bench compile` and `bench memory`: what a program costs before and beside its steps, in processes of their own.
 *
 * compile: from the start of the process until the program is made and everything is bound to it; cold, with an empty cache of compiled kernels,
 * and from that cache, by turns. For other frameworks, which are started once: making the model and its first step.
 * memory: how far the process grows over some steps, from before the program is made (from the cache), against the plan. */
#define _GNU_SOURCE
#include "bench.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Removes a folder that this file has made, with what is in it. */
void bench_remove_folder(const char *path) {
  char inner[5000];
  DIR *d = opendir(path);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    snprintf(inner, sizeof inner, "%.2400s/%.255s", path, e->d_name);
    if (unlink(inner) != 0) bench_remove_folder(inner);
  }
  if (d) closedir(d);
  rmdir(path);
}

bool bench_temporary(char *folder, size_t size, tt_error *err) {
  const char *tmp = getenv("TMPDIR");
  snprintf(folder, size, "%.1000s/tinytorch-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  if (mkdtemp(folder)) return true;
  tt_fail(err, TT_IO, "error: no temporary folder can be made\n  at %s\n  fix: set TMPDIR to a folder that may be written", folder);
  folder[0] = 0;
  return false;
}

static bool add_sample(bench_side *s, double v) {
  double *more = realloc(s->ms, (size_t)(s->n_ms + 1) * sizeof *more);
  if (!more) return false;
  s->ms = more, s->ms[s->n_ms++] = v;
  return true;
}

/* Waits for each peer alone, so that none compiles while another does. */
static int peers_alone(const cli_args *a, const bench_workload *w, int threads, const bench_cores *cores, bench_side *sides, int most, double (*figure)(const bench_side *s)) {
  char framework[40];
  int n = 0;
  const char *folder = bench_peers_folder(a);
  for (const char *at = folder ? w->family->peers : NULL; at && *at && n < most; at += strspn(at, " ")) {
    size_t length = strcspn(at, " ");
    snprintf(framework, sizeof framework, "%.*s", (int)length, at);
    at += length;
    if (!bench_framework_wanted(a, framework)) continue;
    bench_side *s = &sides[n++];
    if (bench_peer_start(s, folder, framework, w->name, threads, cores) && bench_peer_ready(s, bench_peers_patience(a))) add_sample(s, figure(s));
    if (s->close && s->self) s->close(s);
    s->self = NULL;
  }
  return n;
}
static double first_step(const bench_side *s) { return 1e3 * (bench_peer_figure(s, "build_s") + bench_peer_figure(s, "first_step_s")); }
static double grown(const bench_side *s) { return bench_peer_figure(s, "rss_peak_mib") - bench_peer_figure(s, "rss_before_mib"); }

static bool compile_row(const cli_args *a, const bench_workload *w, int threads, int runs, int64_t budget, bench_side *sides, int *n, json_t *extra, tt_error *err) {
  snprintf(sides[0].framework, sizeof sides[0].framework, "tinytorch");
  snprintf(sides[1].framework, sizeof sides[1].framework, "tinytorch, cached");
  *n = 2;
  for (int r = 0; r < runs && !err->status; r++) {
    char cache[1200];
    if (!bench_temporary(cache, sizeof cache, err)) return false;
    for (int i = 0; i < 2 && !err->status; i++) {
      double started;
      json_t *j = bench_child(a, w->name, threads, 1, budget, cache, &started, err);
      if (j && !add_sample(&sides[i], 1e3 * (bench_number(j, "ready") - started))) tt_fail(err, TT_NO_MEMORY, "error: no memory for a sample\n  at bench compile\n  fix: free memory");
      if (j && !r) json_object_set_new(extra, i ? "first_step_cached_ms" : "first_step_ms", json_real(1e3 * (bench_number(j, "first") - started)));
      json_decref(j);
    }
    bench_remove_folder(cache);
  }
  return !err->status;
}

static bool memory_row(const cli_args *a, const bench_workload *w, int threads, int steps, int64_t budget, bench_side *sides, int *n, json_t *extra, tt_error *err) {
  char cache[1200];
  snprintf(sides[0].framework, sizeof sides[0].framework, "tinytorch");
  *n = 1;
  if (!bench_temporary(cache, sizeof cache, err)) return false;
  for (int i = 0; i < 2 && !err->status; i++) {              /* the first fills the cache */
    double started;
    json_t *j = bench_child(a, w->name, threads, i ? steps : 1, budget, cache, &started, err);
    if (i && j) {
      if (!add_sample(&sides[0], bench_number(j, "rss_peak_mib") - bench_number(j, "rss_before_mib"))) tt_fail(err, TT_NO_MEMORY, "error: no memory for a sample\n  at bench memory\n  fix: free memory");
      json_object_set_new(extra, "plan_mib", json_real(bench_number(j, "plan_mib")));
      json_object_set_new(extra, "steps", json_integer(steps));
    }
    json_decref(j);
  }
  bench_remove_folder(cache);
  return !err->status;
}

static void print(const json_t *row, bool memory) {
  const json_t *r, *best = bench_row_best(row);
  size_t i;
  printf("%s\n", bench_text(row, "workload"));
  json_array_foreach(json_object_get(row, "results"), i, r) {
    double v = bench_number(r, "median_ms");
    printf("    %-20s", bench_text(r, "framework"));
    if (v <= 0) printf(" %s\n", bench_text(r, "error"));
    else if (memory) printf(" %9.1f MiB%s", v, i ? "\n" : "");
    else printf(" %9.1f ms [%.1f, %.1f]\n", v, bench_number(r, "low_ms"), bench_number(r, "high_ms"));
    if (memory && !i && v > 0) printf(" over %d steps, %.1f MiB planned%s", (int)bench_number(row, "steps"), bench_number(row, "plan_mib"), best ? "" : "\n");
    if (memory && !i && v > 0 && best) printf(", %.2fx of the least other\n", v / bench_number(best, "median_ms"));
  }
  fflush(stdout);
}

int bench_costs(const cli_args *a, bool memory) {
  tt_error err = {0};
  int64_t threads, runs, steps, budget;
  double patience;
  bench_workload w[BENCH_MOST_NAMES];
  if (!cli_int(a, "threads", 1, 1, &threads) || !cli_int(a, "runs", 3, 1, &runs) || !cli_int(a, "steps", 20, 1, &steps) || !cli_bytes(a, "memory-budget", &budget) || !cli_double(a, "patience", 300, &patience)) return 2;
  int n = bench_names(a, memory ? bench_memory_names : bench_compile_names, w, &err);
  signal(SIGPIPE, SIG_IGN);
  json_t *run = bench_run_new(memory ? "memory" : "compile", (int)threads, cli_get(a, "cpu", NULL));
  if (n > 0) printf("%d thread%s; %s\n", (int)threads, threads > 1 ? "s" : "", memory ? "growth of a process from before its program is made, MiB" : "from the start of a process until its program is ready, ms");
  for (int i = 0; i < n && !err.status; i++) {
    bench_side sides[BENCH_MOST_SIDES] = {0};
    int n_sides = 0;
    json_t *extra = json_object();
    bool ok = !w[i].family->trace ? tt_fail(&err, TT_UNSUPPORTED, "error: %s is not in the language yet\n  at bench\n  fix: use another workload", w[i].name) == TT_OK
              : memory ? memory_row(a, &w[i], (int)threads, (int)steps, budget, sides, &n_sides, extra, &err) : compile_row(a, &w[i], (int)threads, (int)runs, budget, sides, &n_sides, extra, &err);
    if (ok) {
      n_sides += peers_alone(a, &w[i], (int)threads, &(bench_cores){0}, sides + n_sides, BENCH_MOST_SIDES - n_sides, memory ? grown : first_step);
      json_t *row = bench_row_new(&w[i], sides, n_sides);
      json_object_update(row, extra);
      json_object_set_new(row, "threads", json_integer(threads));
      json_object_set_new(row, "unit", json_string(memory ? "MiB" : "ms"));
      print(row, memory);
      json_array_append_new(json_object_get(run, "rows"), row);
    }
    json_decref(extra);
    for (int k = 0; k < n_sides; k++) bench_side_close(&sides[k]);
  }
  int failed = err.status ? 1 : bench_finish(a, run, &err);
  json_decref(run);
  return err.status ? cli_fail(&err) : failed;
}
