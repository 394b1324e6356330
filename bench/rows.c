/* rows.c: a run of the benchmark as JSON, which is what is printed, kept, plotted and compared. */
#include "bench.h"

#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { SCHEMA = 1, KEPT_SAMPLES = 200 };

double bench_number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
const char *bench_text(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* The value after the colon of the first line of `path` that begins with key. */
static void line_of(const char *path, const char *key, char *to, size_t size) {
  char line[500];
  FILE *f = fopen(path, "re");
  snprintf(to, size, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(to, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    break;
  }
  if (f) fclose(f);
}

json_t *bench_run_new(const char *what, int threads, const char *compile_for) {
  char date[40], model[200];
  time_t now = time(NULL);
  struct tm tm;
  struct utsname u = {0};
  cg_cpu cpu = {0};
  gmtime_r(&now, &tm);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
  line_of("/proc/cpuinfo", "model name", model, sizeof model);
  uname(&u);
  cg_cpu_get(compile_for, &cpu, NULL);
  json_t *machine = json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:s, s:s}", "cpu", model, "compiles_for", cpu.name ? cpu.name : "unknown", "vector_bytes", cpu.vector_bytes, "cores", rt_team_default_size(), "l1d", (json_int_t)cpu.l1d,
                              "l2", (json_int_t)cpu.l2, "l3", (json_int_t)cpu.l3, "system", u.sysname, "release", u.release);
  json_t *versions = json_pack("{s:s, s:s}", "compiler", __VERSION__, "glibc", gnu_get_libc_version());
  return json_pack("{s:s, s:i, s:s, s:o, s:o, s:i, s:[]}", "what", what, "schema", SCHEMA, "date", date, "machine", machine, "versions", versions, "threads", threads, "rows");
}

/* Five digits tell more than a sample knows. */
static double rounded(double v) {
  char text[32];
  snprintf(text, sizeof text, "%.5g", v);
  return strtod(text, NULL);
}

static json_t *result_new(const bench_side *s) {
  json_t *r = json_pack("{s:s}", "framework", s->framework);
  if (s->version[0]) json_object_set_new(r, "version", json_string(s->version));
  if (s->error[0] || !s->n_ms) {
    json_object_set_new(r, "error", json_string(s->error[0] ? s->error : "it was not run"));
    return r;
  }
  bench_stat t = bench_stats(s->ms, s->n_ms);
  json_t *samples = json_array();
  int step = s->n_ms / KEPT_SAMPLES + 1;
  for (int i = 0; i < s->n_ms; i += step) json_array_append_new(samples, json_real(rounded(s->ms[i])));
  json_object_set_new(r, "median_ms", json_real(t.median));
  json_object_set_new(r, "low_ms", json_real(t.low));
  json_object_set_new(r, "high_ms", json_real(t.high));
  json_object_set_new(r, "best_ms", json_real(t.best));
  json_object_set_new(r, "runs", json_integer(t.n));
  json_object_set_new(r, "samples", samples);
  return r;
}

json_t *bench_row_new(const bench_workload *w, const bench_side *sides, int n) {
  json_t *row = json_pack("{s:s, s:s, s:f, s:f, s:[]}", "workload", w->name, "family", w->family->what, "flops", bench_flops(w), "bytes", bench_bytes(w), "results");
  for (int i = 0; i < n; i++) json_array_append_new(json_object_get(row, "results"), result_new(&sides[i]));
  return row;
}

static const json_t *ours_of(const json_t *row) { return json_array_get(json_object_get(row, "results"), 0); }

const json_t *bench_row_best(const json_t *row) {
  const json_t *best = NULL, *r;
  size_t i;
  json_array_foreach(json_object_get(row, "results"), i, r) {
    double ms = bench_number(r, "median_ms");
    if (strncmp(bench_text(r, "framework"), "tinytorch", 9) && ms > 0 && (!best || ms < bench_number(best, "median_ms"))) best = r;
  }
  return best;
}

/* Arithmetic at the peak, or what must cross memory at the best rate measured for a block of that size, whichever takes longer. */
double bench_row_bound(const json_t *row, double peak_gflops) {
  double flops = bench_number(row, "flops"), gbytes = bench_number(row, "gbytes_s");
  double arithmetic = flops > 0 && peak_gflops > 0 ? flops / peak_gflops / 1e6 : 0, memory = gbytes > 0 ? bench_number(row, "traffic") / gbytes / 1e6 : 0;
  return arithmetic > memory ? arithmetic : memory;
}

static int samples_of(const json_t *result, double *to, int most) {
  const json_t *v;
  size_t i;
  int n = 0;
  json_array_foreach(json_object_get(result, "samples"), i, v) if (n < most) to[n++] = json_number_value(v);
  return n;
}

static void print_times(const json_t *result) {
  double ms = bench_number(result, "median_ms"), scale = ms < 0.0995 ? 1e3 : 1;
  printf(scale > 1 ? "%9.2f us" : "%9.3f ms", scale * ms);
  printf(" [%.3g, %.3g]", scale * bench_number(result, "low_ms"), scale * bench_number(result, "high_ms"));
}

void bench_row_print(const json_t *row, double peak_gflops) {
  const json_t *o = ours_of(row), *best = bench_row_best(row), *r;
  double ms = bench_number(o, "median_ms"), flops = bench_number(row, "flops"), bytes = bench_number(row, "bytes"), bound = bench_row_bound(row, peak_gflops);
  printf("%-34s", bench_text(row, "workload"));
  if (ms > 0) {
    print_times(o);
    if (flops > 0) printf(" %7.1f GFLOP/s %5.1f%% of peak", flops / ms / 1e6, 100 * flops / ms / 1e6 / peak_gflops);
    if (bytes > 0) printf(" %7.1f GB/s", bytes / ms / 1e6);
    if (bound > 0 && (bytes > 0 || bound > 1.001 * flops / peak_gflops / 1e6)) printf(" %5.1f%% of bound (%s)", 100 * bound / ms, bench_text(row, "bandwidth_of"));
    if (json_is_true(json_object_get(row, "winograd"))) printf(" winograd");
  } else printf("   %s", bench_text(o, "error"));
  if (best && ms > 0) {
    double a[KEPT_SAMPLES + 1], b[KEPT_SAMPLES + 1];
    bench_stat ratio = bench_ratio(b, samples_of(best, b, KEPT_SAMPLES), a, samples_of(o, a, KEPT_SAMPLES));
    printf("  %.2fx [%.2f, %.2f] %s", ratio.median, ratio.low, ratio.high, bench_text(best, "framework"));
  }
  if (json_is_false(json_object_get(row, "quiet"))) printf("  NOT QUIET (%.0f%% of the probes slow)", 100 * bench_number(row, "noise"));
  printf("\n");
  size_t i;
  json_array_foreach(json_object_get(row, "results"), i, r) {
    if (!i) continue;
    printf("    %-18s", bench_text(r, "framework"));
    if (bench_number(r, "median_ms") > 0) {
      print_times(r);
      if (flops > 0) printf(" %5.1f%% of peak", 100 * flops / bench_number(r, "median_ms") / 1e6 / peak_gflops);
      printf("\n");
    } else printf("   %s\n", bench_text(r, "error"));
  }
  fflush(stdout);
}

void bench_run_finish(json_t *run, const bench_ruler *r) {
  json_object_set_new(run, "peak_gflops", json_real(r->peak / 1e9));
  json_object_set_new(run, "peak_samples", json_integer(r->n_peaks));
  json_t *row, *result, *versions = json_object_get(run, "versions");
  size_t i, k;
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    json_object_set_new(row, "bound_ms", json_real(bench_row_bound(row, r->peak / 1e9)));
    json_array_foreach(json_object_get(row, "results"), k, result)
      if (bench_text(result, "version")[0]) json_object_set_new(versions, bench_text(result, "framework"), json_string(bench_text(result, "version")));
  }
}

int bench_over_peak(const json_t *run) {
  int n = 0;
  const json_t *row;
  size_t i;
  double peak = bench_number(run, "peak_gflops");
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    double ms = bench_number(ours_of(row), "median_ms"), flops = bench_number(row, "flops");
    double traffic = bench_number(row, "traffic"), gbytes = bench_number(row, "gbytes_s");
    if (ms > 0 && flops <= 0 && gbytes > 0 && traffic / ms / 1e6 > 1.1 * gbytes) {        /* reads weigh less than writes: no row is a copy to the byte */
      fprintf(stderr, "error: %s moves %.1f GB/s, over the best %s of so many bytes, %.1f\n  at bench\n  fix: run again on a quiet machine; when it stays, what memory can do is measured too low (runtime/machine.c)\n", bench_text(row, "workload"), traffic / ms / 1e6, bench_text(row, "bandwidth_of"), gbytes);
      n++;
    }
    if (ms <= 0 || flops / ms / 1e6 <= peak || json_is_true(json_object_get(row, "winograd"))) continue;
    fprintf(stderr, "error: %s runs at %.1f GFLOP/s, over the measured peak of %.1f\n  at bench\n  fix: run again on a quiet machine; when it stays, the count of operations or the peak is wrong\n",
            bench_text(row, "workload"), flops / ms / 1e6, peak);
    n++;
  }
  return n;
}

/* To the file that an option names, when it does. */
static bool write_to(const cli_args *a, const char *option, char *text, tt_error *err) {
  const char *file = cli_get(a, option, NULL);
  bool ok = text && cli_write(file, text, err);
  if (!text) tt_fail(err, TT_NO_MEMORY, "error: no memory for the figures\n  at %s\n  fix: free memory", file);
  free(text);
  return ok;
}

int bench_finish(const cli_args *a, const json_t *run, tt_error *err) {
  if (cli_has(a, "json") && !write_to(a, "json", json_dumps(run, JSON_INDENT(1) | JSON_REAL_PRECISION(9)), err)) return 1;
  if (cli_has(a, "svg") && !write_to(a, "svg", bench_svg(run), err)) return 1;
  const char *file = cli_get(a, "compare", NULL);
  json_t *old = file ? bench_load(file, err) : NULL;
  int regressions = old ? bench_compare(old, run, file, err) : 0;
  json_decref(old);
  return regressions > 0 || err->status;
}
