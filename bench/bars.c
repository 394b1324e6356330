/* bars.c: what issues 4 and 5 ask of each row, and whether it is met. A bar holds for a family of shapes: it follows from the sizes, the CPU's vectors and
 * the bound, and never names one shape. "N x or P%": ahead of every other framework, and N times the best of them or P% of the bound. */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const json_t *run, *row, *ours; bench_workload w; double ms, peak, share, ratio, vector; bench_verdict *v; } judged;

static const char *limit_of(const char *workload) {
  static const struct { const char *begins, *text; } limits[] = {
#define LIMIT(begins, text) {begins, text},
#include "limits.def"
#undef LIMIT
  };
  const char *best = "";
  size_t length = 0;
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    if (strlen(limits[i].begins) > length && !strncmp(workload, limits[i].begins, strlen(limits[i].begins))) best = limits[i].text, length = strlen(limits[i].begins);
  return best;
}

TT_PRINTF(4, 5) static void say(judged *j, int item, bool met, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(j->v->bar, sizeof j->v->bar, format, args);
  va_end(args);
  j->v->item = item, j->v->met = met;
}

/* Time over the best of the results whose framework has one of the words in its name (NULL: any other); 0: there is none. */
static double ratio_to(const judged *j, const char *const *words) {
  const json_t *r;
  size_t i;
  double least = 0;
  json_array_foreach(json_object_get(j->row, "results"), i, r) {
    double ms = bench_number(r, "median_ms");
    bool fits = i > 0 && ms > 0 && strncmp(bench_text(r, "framework"), "tinytorch", 9) != 0, named = !words;
    for (int k = 0; words && words[k]; k++) named |= strstr(bench_text(r, "framework"), words[k]) != NULL;
    if (fits && named && (least == 0 || ms < least)) least = ms;
  }
  return least / j->ms;
}
static const char *const blas_words[] = {"blas", "blis", "mkl", NULL};

static double filled(double n, double lanes) { return n / (ceil(n / lanes) * lanes); }

static void judge_product(judged *j) {
  const int64_t *d = j->w.size + !strcmp(j->w.family->what, "bmm");
  double n = (double)d[1], most = fmax(fmax((double)d[0], n), (double)d[2]), flops = bench_number(j->row, "flops");
  double barrier = bench_number(j->row, "threads") > 1 ? 0.00035 : 0, ms = fmax(j->ms - barrier, 1e-9), blas = ratio_to(j, blas_words);
  bool narrow = d[0] == 1 || n < 2 * j->vector, even = blas == 0 || blas >= 0.97;
  double lanes = filled(d[0] == 1 && n == 1 ? j->vector : n, j->vector), arithmetic = flops / j->peak / 1e6 / lanes, memory = bench_number(j->row, "gbytes_s") > 0 ? bench_number(j->row, "traffic") / bench_number(j->row, "gbytes_s") / 1e6 : 0;
  double share = (narrow ? fmax(arithmetic, memory) : arithmetic) / ms, bar = narrow ? 0.8 : most <= 512 ? 0.95 : 0.91;
  snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%", 100 * share);
  if (blas > 0) snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%, %.2fx BLAS", 100 * share, blas);
  say(j, 1, share >= bar && even, narrow ? "%.0f%% of the lesser of peak and read bandwidth" : lanes < 1 ? "%.0f%% of the peak of the lanes it fills" : "%.0f%% of peak", 100 * bar);
}

static void judge_conv(judged *j) {
  const int64_t *s = j->w.size;
  int64_t groups = j->w.n > 6 ? s[6] : 1, c = s[1] / groups, k = s[3] / groups;
  bool depthwise = groups > 1 && c == 1, first = groups == 1 && c < 8, wide = c >= 32 && k >= 32, three = s[4] == 3 && s[5] == 1 && c >= 64 && k >= 64;
  double bar = depthwise || first ? 0.8 : wide && (s[4] == 3 || s[4] == 1) ? 0.88 : 0, ahead = three ? 1.4 : 1;
  if (three) bar *= 1.5;           /* Winograd's form in all three directions */
  if (j->ratio > 0) snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%, %.2fx", 100 * j->share, j->ratio);
  else snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%", 100 * j->share);
  say(j, 2, j->share >= bar && (j->ratio == 0 || j->ratio >= ahead), bar > 0 ? "%.0f%% of the lesser of peak and bandwidth, %.1fx of every other" : "%.0f%%; ahead of every other (%.1fx)", 100 * bar, ahead);
}

/* The time of a byte of this family where the data lies in the first caches, from smaller rows of the same run; 0: there are none. */
static double cached_byte(const judged *j) {
  const json_t *row;
  size_t i;
  double best = 0, l2 = bench_number(json_object_get(j->run, "machine"), "l2");
  json_array_foreach(json_object_get(j->run, "rows"), i, row) {
    double ms = bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms"), bytes = bench_number(row, "bytes");
    if (!strcmp(bench_text(row, "family"), j->w.family->what) && ms > 0 && bytes > 0 && bytes <= 2 * l2 && bytes < bench_number(j->row, "bytes") && (best == 0 || ms / bytes < best)) best = ms / bytes;
  }
  return best;
}

static void judge_row(judged *j) {
  double cached = cached_byte(j), over = cached > 0 ? j->ms / bench_number(j->row, "bytes") / cached : 0;
  snprintf(j->v->figure, sizeof j->v->figure, over > 0 ? "%.1f%%, %.2fx of cached" : "%.1f%%", 100 * j->share, over);
  if (bench_number(j->row, "bytes") <= bench_number(json_object_get(j->run, "machine"), "l1d")) return;         /* what others are compared with */
  say(j, 3, j->share >= 0.85 || (over > 0 && over <= 1.15), "85%% of the best copy, or 1.15x of the time on cached data");
}

/* The first row that fits. what NULL: any other. */
static const struct { const char *kind, *what; int item; double times, percent; } models[] = {
  {"train", "mlp", 4, 1.4, 75}, {"train", "cnn", 4, 2, 75}, {"train", "resnet20", 4, 1.5, 70},
  {"train", "vit", BENCH_MODERN + 4, 1.5, 84}, {"train", "gpt", BENCH_MODERN + 4, 1.5, 84}, {"infer", "vit", BENCH_MODERN + 4, 1.3, 85}, {"infer", "gpt", BENCH_MODERN + 4, 1.3, 85},
  {"train", "lstm", BENCH_MODERN + 4, 2, 60}, {"train", "charlstm", BENCH_MODERN + 4, 2, 60},
  {"op", "attention", BENCH_MODERN + 4, 1.4, 80}, {"op", "attention_bwd", BENCH_MODERN + 4, 1.4, 80},
  {"train", NULL, 4, 1.5, 75}, {"infer", NULL, 5, 1.3, 85},
};
static void judge_model(judged *j, int item, double times, double percent) {
  bool bound = j->share >= percent / 100;
  if (j->ratio > 0) snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%, %.2fx", 100 * j->share, j->ratio);
  else snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%, nothing else measured", 100 * j->share);
  say(j, item, bound ? j->ratio == 0 || j->ratio > 1 : j->ratio >= times, "%.1fx of the best other, or %.0f%% of the bound", times, percent);
}

/* An instruction set that was asked for, of its own peak. */
static void judge_other_cpu(judged *j) {
  snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%", 100 * j->share);
  say(j, 11, j->share >= 0.85, "85%% of the peak of %s", bench_text(json_object_get(j->run, "machine"), "compiles_for"));
}

static void judge_kernels(judged *j) {
  bool chain = strcmp(j->w.family->what, "tiny") != 0;
  double each = 1e6 * j->ms / (chain ? (double)j->w.size[0] : 1), bar = !chain ? 3000 : !strcmp(j->w.family->what, "barriers") ? 350 : 50;
  snprintf(j->v->figure, sizeof j->v->figure, chain ? "%.1f ns each" : "%.0f ns", each);
  say(j, 6, each <= bar, "at most %.0f ns", bar);
}

/* One of issue 5's networks: it has bars of its own for memory and compile time. */
static bool is_transformer(const judged *j) { return !strcmp(j->w.family->what, "gpt") || !strcmp(j->w.family->what, "vit"); }

/* Its own kernel ahead of all scores in memory, which is of the same run. */
static void judge_naive(judged *j) {
  const json_t *row;
  size_t i;
  double ms = 0;
  json_array_foreach(json_object_get(j->run, "rows"), i, row) {
    bench_workload w;
    bool same = bench_parse(bench_text(row, "workload"), &w, NULL) && !strcmp(w.family->what, "attention") && !memcmp(w.size, j->w.size, sizeof w.size) && w.causal == j->w.causal;
    if (same && bench_number(row, "threads") == bench_number(j->row, "threads")) ms = bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms");
  }
  if (ms <= 0) return;
  snprintf(j->v->figure, sizeof j->v->figure, "%.2fx of attention's time, at %.0f%% of peak itself", j->ms / ms, 100 * j->share);
  if (j->w.size[2] >= 1024) say(j, BENCH_MODERN + 4, j->ms >= 10 * ms, "10x");
}

/* Reading the weights once a token. */
static void judge_decode(judged *j) {
  snprintf(j->v->figure, sizeof j->v->figure, "%.1f%%", 100 * j->share);
  say(j, BENCH_MODERN + 4, j->share >= 0.8, "80%% of the bandwidth of reading the weights once a token");
}

static void judge_compile(judged *j) {
  const json_t *cached = json_array_get(json_object_get(j->row, "results"), 1), *row;
  size_t i;
  double warm = bench_number(cached, "median_ms"), few = 0;
  bool many = !strcmp(j->w.family->what, "blocks") && j->w.size[1] > 2;
  json_array_foreach(json_object_get(j->run, "rows"), i, row) {
    bench_workload w;
    if (many && bench_parse(bench_text(row, "workload"), &w, NULL) && w.family == j->w.family && w.size[1] == 2) few = bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms");
  }
  snprintf(j->v->figure, sizeof j->v->figure, "%.0f ms cold, %.1f ms cached", j->ms, warm);
  if (few > 0) snprintf(j->v->figure, sizeof j->v->figure, "%.0f ms, %.2fx of 2 blocks", j->ms, j->ms / few);
  if (few > 0) say(j, 7, j->ms <= 1.5 * few, "1.5x of the time of 2 blocks");
  else if (is_transformer(j)) say(j, BENCH_MODERN + 6, j->ms <= 700 && warm <= 60, "700 ms cold, 60 ms from the cache");
  else say(j, 7, j->ms <= 500 && warm <= 50, "500 ms cold, 50 ms from the cache");
}

static void judge_memory(judged *j) {
  static const char *const torch[] = {"torch", NULL};
  double plan = bench_number(j->row, "plan_mib"), of_torch = ratio_to(j, torch);
  bool image = !strcmp(j->w.family->what, "cnn") || !strcmp(j->w.family->what, "resnet20");
  snprintf(j->v->figure, sizeof j->v->figure, "%.1f MiB, %.1f planned", j->ms, plan);
  if (of_torch > 0) snprintf(j->v->figure, sizeof j->v->figure, "%.1f MiB, %.1f planned, %.2fx of PyTorch", j->ms, plan, 1 / of_torch);
  if (is_transformer(j)) say(j, BENCH_MODERN + 5, j->ms <= plan + 2 && (of_torch == 0 || of_torch >= 2), "the plan and 2 MiB; half of PyTorch's");
  else say(j, 8, j->ms <= plan + 2 && (!image || of_torch == 0 || of_torch >= 2), image ? "the plan and 2 MiB; half of PyTorch's" : "the plan and 2 MiB");
}

/* Half of the activations: the plan and the process are within the budget, and the time is. */
static void judge_budget(judged *j) {
  double budget = bench_number(j->row, "budget_mib"), planned = bench_number(j->row, "plan_mib"), grown = bench_number(j->row, "grown_mib"), ratio = bench_number(j->row, "ratio");
  snprintf(j->v->figure, sizeof j->v->figure, "%.1f MiB allowed, %.1f planned, %.1f grown; %.2fx [%.2f, %.2f] of the time", budget, planned, grown, ratio, bench_number(j->row, "ratio_low"), bench_number(j->row, "ratio_high"));
  say(j, 8, planned <= budget && grown <= budget + 2 && ratio > 0 && ratio <= 1.35, "within half of the activations (and 2 MiB), 1.35x of the time");
}

/* What passes or fails stands in its row. */
static bool stated(const json_t *row, bench_verdict *v) {
  if (!json_object_get(row, "item")) return false;
  *v = (bench_verdict){.item = (int)bench_number(row, "item"), .met = json_is_true(json_object_get(row, "met")), .limit = limit_of(bench_text(row, "workload"))};
  snprintf(v->figure, sizeof v->figure, "%.159s", bench_text(row, "figure"));
  snprintf(v->bar, sizeof v->bar, "%.159s", bench_text(row, "bar"));
  return true;
}

bench_verdict bench_judge(const json_t *run, const json_t *row) {
  bench_verdict v = {0};
  judged j = {.run = run, .row = row, .ours = json_array_get(json_object_get(row, "results"), 0), .v = &v, .peak = bench_number(run, "peak_gflops")};
  const char *what = bench_text(run, "what");
  if (stated(row, &v) || !bench_parse(bench_text(row, "workload"), &j.w, NULL)) return v;
  j.vector = fmax(4, bench_number(json_object_get(run, "machine"), "vector_bytes") / 4);
  j.ms = bench_number(j.ours, "median_ms");
  v.limit = limit_of(!strcmp(what, "compile") || !strcmp(what, "memory") || !strcmp(what, "budget") ? what : j.w.name);
  if (j.ms <= 0) {
    snprintf(v.figure, sizeof v.figure, "%.100s", bench_text(j.ours, "error"));
    return v;
  }
  j.ratio = ratio_to(&j, NULL), j.share = bench_row_bound(row, j.peak) / j.ms;
  const char *cpu = bench_text(json_object_get(run, "machine"), "compiles_for"), *kind = j.w.family->kind, *family = j.w.family->what;
  bool product = !strncmp(family, "matmul", 6) || !strcmp(family, "bmm"), convolution = !strncmp(family, "conv", 4), other = cpu[0] && strcmp(cpu, "native") != 0;
  if (!strcmp(what, "compile")) judge_compile(&j);
  else if (!strcmp(what, "memory")) judge_memory(&j);
  else if (!strcmp(what, "budget")) judge_budget(&j);
  else if (other && (product || convolution)) judge_other_cpu(&j);
  else if (!strcmp(family, "kernels") || !strcmp(family, "barriers") || !strcmp(family, "tiny")) judge_kernels(&j);
  else if (product) judge_product(&j);
  else if (convolution) judge_conv(&j);
  else if (j.w.family->transfers > 0) judge_row(&j);
  else if (!strcmp(family, "attention_naive")) judge_naive(&j);
  else if (!strcmp(kind, "decode")) judge_decode(&j);
  else
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
      if (!strcmp(models[i].kind, kind) && (!models[i].what || !strcmp(models[i].what, family))) {
        judge_model(&j, models[i].item, models[i].times, models[i].percent);
        break;
      }
  return v;
}

double bench_blas_mean(const json_t *run, int *n) {
  const json_t *row;
  size_t i;
  double sum = 0;
  *n = 0;
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    judged j = {.row = row, .ms = bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms")};
    double r = j.ms > 0 ? ratio_to(&j, blas_words) : 0;
    if (r > 0) sum += log(r), (*n)++;
  }
  return *n ? exp(sum / *n) : 0;
}
