/* tune.c: measures plans for the costly kernels of a model and keeps those that win.
 *
 * The model is compiled up to schedule; each different kernel becomes a graph of its own, is timed with the plan that the cost model gives it, and
 * the kernels are taken by their share of the whole, each with its part of the time that is given. Plan entries are tried one by one, the best value of one
 * staying while the next is tried. A candidate counts only when its loops differ from those already measured, its results are those of
 * the default within the rounding of another order of additions, and it wins against the best so far, taking turns. The
 * winner is measured against the default once more, and is kept when it is faster by 3% and in 4 of 5 turns. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../frontend.h"
#include "../../runtime/runtime.h"
#include "options.h"

const cli_option cli_tune_options[] = {
  {"minutes", "X", "time to measure in (default 5)"},
  {"train", NULL, "the training step, not the evaluation"},
  {"batch-size", "N", "default: the model's"},
  {"data", "SET:DIR", "takes image size and classes from a data set (default: the model's)"},
  CLI_UPDATE,
  CLI_THREADS, CLI_CPU, CLI_SKIP,
  {"keys", NULL, "only lists the kernels, with the keys by which plans are found"},
  {"out", "FILE", "where plans are kept, beside those that are there (default: the file that every compilation reads)"},
  {NULL, NULL, NULL},
};

static volatile int interrupted;
static void on_interrupt(int signal_number) { interrupted = 1; }

enum { TURNS = 9, LAST_TURNS = 25, MOST_VALUES = 24 };
#define LEAST_GAIN 1.03
#define SAMPLE_SECONDS 100e-6

typedef struct { rt_program *p; rt_instance *x; } built;
typedef struct {
  cg_cpu cpu;
  pass_options passes;
  const char *cpu_name;
  rt_team *team;
  const ir_graph *g;
  tt_error *err;
  double until;                    /* for this kernel */
  ir_graph *alone;                 /* the kernel */
  tt_tensor *inputs[256]; int n_inputs;
  built base, best;
  pass_tuning plan;                /* of best */
  char *tried[128]; int n_tried;   /* loops that were measured or that failed */
} tuner;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }
static double median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, ascending);
  return v[n / 2];
}

static void free_built(built *b) {
  rt_instance_free(b->x);
  rt_program_free(b->p);
  *b = (built){0};
}

/* Numbers of 0.5 to 1.5: sums do not cancel, roots and logarithms exist. Whole numbers are small, so that they index something. */
static void fill(tt_tensor *t, uint64_t seed) {
  tt_shape s = tt_tensor_shape(t);
  tt_dtype type = tt_tensor_dtype(t);
  for (int64_t i = 0, n = tt_shape_count(&s); i < n; i++) {
    uint32_t word = tt_random_word(seed, 0, 0, (uint64_t)i);
    ir_store_double(type, tt_tensor_data(t), i, tt_dtype_in(type, TT_REAL) ? 0.5 + word / 4294967296.0 : word % 2);
  }
}

static bool make_inputs(tuner *u, const rt_program *p) {
  for (uint32_t i = 0; i < p->n_slots; i++) {
    if (p->slots[i].kind != RT_INPUT) continue;
    if (u->n_inputs == 256) return tt_fail(u->err, TT_UNSUPPORTED, "error: a kernel reads more than 256 values\n  at @%s\n  fix: leave it as it is", u->alone->name), false;
    tt_tensor *t = tt_tensor_new(p->slots[i].dtype, &p->slots[i].shape, u->err);
    if (!t) return false;
    fill(t, i);
    u->inputs[u->n_inputs++] = t;
  }
  return true;
}

/* The kernel with these entries over its plan, compiled and run once. False without an error: no such kernel can be made, or it has been tried. */
static bool build(tuner *u, const pass_tuning *plan, built *b) {
  tt_error err = {0};
  ir_graph *g = ir_clone(u->alone), *placed = NULL;
  *b = (built){0};
  if (!g) return tt_fail(u->err, TT_NO_MEMORY, "error: no memory for a kernel\n  at @%s\n  fix: free memory", u->alone->name), false;
  for (int i = 0; i < plan->n; i++) ir_kernel_plan(g, 1, plan->entries[i].name, plan->entries[i].values, plan->entries[i].n);
  char *loops = pass_run(g, &placed, "memory", NULL, &u->passes, NULL, NULL, &err) == TT_OK ? cg_dump(placed, "loops", &u->cpu, NULL, NULL, &err) : NULL;
  bool fresh = loops && u->n_tried < 128;
  for (int i = 0; i < u->n_tried && fresh; i++) fresh = strcmp(loops, u->tried[i]) != 0;
  if (fresh) u->tried[u->n_tried++] = loops;
  else free(loops);
  cg_options o = {.cpu = u->cpu_name, .n_threads = 1};
  bool ok = fresh && cg_jit(placed, &o, &b->p, &err) == TT_OK && (u->n_inputs || make_inputs(u, b->p)) && (b->x = rt_instance_new(b->p, u->team, &err));
  for (uint32_t i = 0, k = 0; ok && i < b->p->n_slots; i++)
    if (b->p->slots[i].kind == RT_INPUT) ok = rt_bind_slot(b->x, (int)i, u->inputs[k++], &err) == TT_OK;
  ok = ok && rt_run(b->x, &err) == TT_OK;
  ir_graph_free(g);
  ir_graph_free(placed);
  if (!ok) free_built(b);
  if (!ok && !u->base.p && err.status) tt_fail(u->err, err.status, "%s", err.message);      /* the default itself */
  return ok;
}

/* Equal up to the rounding of another order of additions, in the type's own terms and against the largest number of the result. */
static bool agrees(const built *a, const built *b) {
  for (uint32_t i = 0; i < a->p->n_slots; i++) {
    const rt_slot *s = &a->p->slots[i];
    if (s->kind != RT_OUTPUT) continue;
    const char *x = tt_tensor_data(rt_bound(a->x, s->name)), *y = tt_tensor_data(rt_bound(b->x, s->name));
    int64_t n = tt_shape_count(&s->shape);
    if (!tt_dtype_in(s->dtype, TT_REAL)) {
      if (memcmp(x, y, s->bytes)) return false;
      continue;
    }
    double largest = 0, tolerance = s->dtype == TT_F64 ? 1e-10 : s->dtype == TT_F32 ? 1e-4 : 2e-2;
    for (int64_t k = 0; k < n; k++) {
      double v = fabs(ir_load_double(s->dtype, x, k));
      if (v > largest && isfinite(v)) largest = v;
    }
    for (int64_t k = 0; k < n; k++) {
      double v = ir_load_double(s->dtype, x, k), w = ir_load_double(s->dtype, y, k);
      if (!(fabs(v - w) <= tolerance * largest) && !(isnan(v) && isnan(w)) && v != w) return false;
    }
  }
  return true;
}

static double sample(const built *b, int runs) {
  double start = now();
  for (int i = 0; i < runs; i++) rt_run(b->x, NULL);
  return (now() - start) / runs;
}

static int runs_for(const built *b) {
  double once = sample(b, 1), again = sample(b, 1);
  if (again < once) once = again;
  return once >= SAMPLE_SECONDS ? 1 : (int)(SAMPLE_SECONDS / (once > 1e-8 ? once : 1e-8)) + 1;
}

/* How many times as fast b is as a, the median of turns; *won: turns that b won. */
static double faster(const built *a, const built *b, int turns, int *won) {
  double ratios[LAST_TURNS];
  int runs = runs_for(a);
  *won = 0;
  sample(b, 1);
  for (int i = 0; i < turns; i++) {
    double first = sample(i % 2 ? b : a, runs), second = sample(i % 2 ? a : b, runs);
    ratios[i] = i % 2 ? second / first : first / second;
    *won += ratios[i] > 1;
  }
  return median(ratios, turns);
}

static double best_of(const built *b) {
  double times[TURNS];
  int runs = runs_for(b);
  for (int i = 0; i < TURNS; i++) times[i] = sample(b, runs);
  return median(times, TURNS);
}

/* ---- candidates ---- */

/* Values worth trying for an entry of this kernel. */
static int values_of(const tuner *u, const char *name, int64_t kind, int64_t values[MOST_VALUES][2]) {
  int n = 0;
  if (kind == 0) {
    uint32_t count;
    const int64_t *now_ = ir_kernel_get(u->alone, 1, name, &count);
    if (!now_ || !count) return 0;
    const int64_t times[] = {1, 2, 4, 8}, divisors[] = {2, 4};
    bool lanes = strcmp(name, "lanes") == 0;
    for (int i = 1; i < 4; i++) values[n++][0] = now_[0] * times[i];
    for (int i = 0; i < 2; i++)
      if (now_[0] / divisors[i] >= (lanes ? 2 : 256)) values[n++][0] = now_[0] / divisors[i];
    return n;
  }
  if (strcmp(name, "tile") == 0) {
    int64_t machine = u->cpu.vector_bytes / 4;
    const int64_t rows[] = {2, 3, 4, 6, 8, 10, 12, 14};
    for (int64_t vectors = 1; vectors <= 8; vectors *= 2)
      for (int i = 0; i < 8; i++)
        if (rows[i] * vectors >= 4 && rows[i] * vectors + vectors + 1 <= u->cpu.n_registers && n < MOST_VALUES) values[n][0] = rows[i], values[n++][1] = vectors * machine;
    return n;
  }
  static const struct { const char *name; int64_t values[8]; } lists[] = {
    {"winograd", {0, 2, 4, -1}}, {"pack", {0, 1, -1}}, {"inside", {0, 1, -1}}, {"blocks", {1, 2, 3, 4, 6, 8, 16, -1}}, {"chunk", {1, 2, 4, 8, 16, 32, 64, -1}}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    for (int k = 0; strcmp(name, lists[i].name) == 0 && k < 8 && lists[i].values[k] >= 0; k++) values[n++][0] = lists[i].values[k];
  return n;
}

static void try_entry(tuner *u, const char *name, uint32_t n_values, int64_t kind) {
  int64_t values[MOST_VALUES][2] = {{0}};
  int n = values_of(u, name, kind, values), won;
  pass_tuning from = u->plan;
  for (int i = 0; i < n && from.n < PASS_ENTRIES && now() < u->until && !interrupted && !u->err->status; i++) {
    pass_tuning with = from;
    with.entries[with.n++] = (pass_entry){name, n_values, {values[i][0], values[i][1]}};
    built b;
    if (!build(u, &with, &b)) continue;
    const built *best = u->best.p ? &u->best : &u->base;
    if (agrees(&u->base, &b) && faster(best, &b, TURNS, &won) > 1.01 && won > TURNS / 2) {
      free_built(&u->best);
      u->best = b;
      u->plan = with;
    } else free_built(&b);
  }
}

static void release(tuner *u) {
  free_built(&u->base);
  free_built(&u->best);
  for (int i = 0; i < u->n_inputs; i++) tt_tensor_free(u->inputs[i]);
  for (int i = 0; i < u->n_tried; i++) free(u->tried[i]);
  ir_graph_free(u->alone);
  u->n_inputs = u->n_tried = 0;
  u->alone = NULL;
  u->plan = (pass_tuning){0};
}

static bool begin(tuner *u, uint32_t region) {
  u->plan = (pass_tuning){0};
  return (u->alone = pass_kernel_alone(u->g, region, u->err)) && build(u, &u->plan, &u->base);
}

/* ---- the model ---- */

/* The kernels as lines of a file of plans, but for the plan. */
static tt_status list_keys(tuner *u) {
  pass_kernels *ks = pass_kernels_of(u->g, u->err);
  char cpu[64];
  for (int i = 0; ks && i < ks->n; i++)
    printf("%s %016llx kind=%lld %s\n", cg_cpu_text(&u->cpu, cpu, sizeof cpu), (unsigned long long)ks->at[i].key, (long long)ks->at[i].kind, u->g->kernels[ks->at[i].region].name);
  pass_kernels_free(ks);
  return u->err->status;
}

typedef struct { pass_kernel k; int count; double seconds; } costly;
static int costliest(const void *a, const void *b) {
  double x = ((const costly *)a)->seconds * ((const costly *)a)->count, y = ((const costly *)b)->seconds * ((const costly *)b)->count;
  return (x < y) - (x > y);
}

/* "k3_matmul_add: f32[128,512]", of its first result */
static void about_text(const tuner *u, char *text, size_t size) {
  char type[150];
  tt_shape s = ir_shape(u->alone, u->alone->outputs[0].value);
  snprintf(text, size, "%s: %s", u->alone->kernels[1].name, tt_type_text((tt_dtype)ir_at(u->alone, u->alone->outputs[0].value)->dtype, &s, type, sizeof type));
}

static tt_status save(const pass_tunings *keep, const char *path, tt_error *err) {
  char *text = pass_tunings_text(keep);
  tt_status status = !text ? tt_fail(err, TT_NO_MEMORY, "error: no memory for the plans\n  at %s\n  fix: free memory", path) : rt_write_file(path, text, strlen(text), err);
  free(text);
  return status;
}

static void tune_kernel(tuner *u, const costly *c, double all, pass_tunings *keep, const char *path) {
  static const struct { const char *name; uint32_t n; int64_t kind; } entries[] = {{"winograd", 1, 1}, {"tile", 2, 1}, {"pack", 1, 1}, {"inside", 1, 1}, {"blocks", 1, 1}, {"chunk", 1, 1}, {"lanes", 1, 0}, {"grain", 1, 0}};
  if (!begin(u, c->k.region)) return;
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
    if (entries[i].kind == c->k.kind) try_entry(u, entries[i].name, entries[i].n, c->k.kind);
  char plan[200] = "as it is", about[180];
  int won = 0;
  double ratio = u->best.p ? faster(&u->base, &u->best, LAST_TURNS, &won) : 1;
  bool keeps = ratio >= LEAST_GAIN && won * 5 >= LAST_TURNS * 4;
  about_text(u, about, sizeof about);
  if (keeps) {
    u->plan.key = c->k.key, u->plan.ratio = ratio;
    snprintf(u->plan.about, sizeof u->plan.about, "%s", about);
    if (pass_tunings_set(keep, &u->plan, u->err) == TT_OK) save(keep, path, u->err);          /* what is known is not lost when this is stopped */
    pass_entries_text(u->plan.entries, u->plan.n, plan, sizeof plan);
  }
  printf("%5.1f%% %9.4f ms x%-3d %-44s %3d tried  %s", 100 * c->seconds * c->count / all, c->seconds * 1e3, c->count, about, u->n_tried - 1, plan);
  printf(keeps ? "  %.2fx\n" : "\n", ratio);
  fflush(stdout);
}

static tt_status tune(tuner *u, double seconds, pass_tunings *keep, const char *path) {
  pass_kernels *ks = pass_kernels_of(u->g, u->err);
  costly *list = ks ? calloc((size_t)ks->n + 1, sizeof *list) : NULL;
  int n = 0;
  double all = 0, start = now(), left = 0;
  for (int i = 0; list && i < ks->n && !u->err->status && !interrupted; i++) {
    int at = 0;
    while (at < n && list[at].k.key != ks->at[i].key) at++;
    list[at].count++;
    if (at < n) {
      all += list[at].seconds;
      continue;
    }
    list[n++].k = ks->at[i];
    if (begin(u, ks->at[i].region)) all += list[at].seconds = best_of(&u->base);
    release(u);
  }
  if (list) qsort(list, (size_t)n, sizeof *list, costliest);
  for (int i = 0; i < n; i++) left += list[i].seconds * list[i].count;
  if (!u->err->status) printf("%d kernels, %d of them different, %.3f ms in all\n", ks ? ks->n : 0, n, all * 1e3);
  for (int i = 0; i < n && !u->err->status && !interrupted && now() < start + seconds; i++) {
    double share = list[i].seconds * list[i].count;
    if (share < 0.003 * all || list[i].k.kind > 1) continue;
    double slice = (start + seconds - now()) * share / left;
    u->until = now() + (slice > 1 ? slice : 1);
    if (u->until > start + seconds) u->until = start + seconds;
    left -= share;
    tune_kernel(u, &list[i], all, keep, path);
    release(u);
  }
  if (!list && !u->err->status) tt_fail(u->err, TT_NO_MEMORY, "error: no memory to tune\n  at @%s\n  fix: free memory", u->g->name);
  free(list);
  pass_kernels_free(ks);
  return u->err->status;
}

int cli_tune(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  int64_t batch;
  double minutes;
  cli_update update;
  if (!cli_target(a) || !cli_update_read(a, info, &update) || !cli_int(a, "batch-size", info->batch, 1, &batch) || !cli_double(a, "minutes", 5, &minutes)) return 2;
  if (minutes <= 0) return cli_usage(a, "--minutes must be more than 0");
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  if (!cli_input(a, info, batch, &arg, &dtype, &shape, &err)) return cli_fail(&err);
  bool train = cli_has(a, "train");
  char path[4096], cpu[64];
  const char *out = cli_get(a, "out", NULL);
  tuner u = {.err = &err, .cpu_name = cli_get(a, "cpu", NULL)};
  if (cg_cpu_get(u.cpu_name, &u.cpu, &err)) return cli_fail(&err);
  if (!out && !(out = tuned_default(path, sizeof path))) return cli_usage(a, "there is no home folder: say where plans are kept with --out");
  u.passes = (pass_options){.train = train, .optimizer = update.optimizer, .hyper = update.hyper, .clip_norm = update.clip_norm, .no_decay_norm_bias = update.no_decay_norm_bias,
                            .vector_bytes = u.cpu.vector_bytes, .n_registers = u.cpu.n_registers, .skip = cli_get(a, "skip", NULL)};
  for (int i = 0; i < 8 && update.groups[i].pattern; i++, u.passes.n_groups++) {
    u.passes.groups[i].pattern = update.groups[i].pattern;
    u.passes.groups[i].optimizer = update.groups[i].optimizer;
    u.passes.groups[i].hyper = update.groups[i].hyper;
  }
  pass_tunings *keep = pass_tunings_new(cg_cpu_text(&u.cpu, cpu, sizeof cpu));
  tt_model *m = keep ? cli_model_new(a, info, &arg, &err) : NULL;
  if (keep && !m && !err.status) return pass_tunings_free(keep), 2;
  ir_graph *g = NULL, *scheduled = NULL;
  setenv("TT_CACHE", "0", 1);                            /* hundreds of kernels that nobody will want again */
  signal(SIGINT, on_interrupt);
  bool ok = m && tuned_read(keep, out, true, &err) == TT_OK && tt_model_trace(m, dtype, &shape, train ? model_labels(info) : TT_NO_LABELS, train, &g, &err) == TT_OK &&
            pass_run(g, &scheduled, NULL, "schedule", &u.passes, NULL, NULL, &err) == TT_OK && (u.team = tt_model_team(m, &err));
  u.g = scheduled;
  if (ok && cli_has(a, "keys")) list_keys(&u);
  else if (ok && tune(&u, minutes * 60, keep, out) == TT_OK && save(keep, out, &err) == TT_OK) printf("%d plans for this CPU are in %s\n", keep->mine, out);
  release(&u);
  ir_graph_free(g);
  ir_graph_free(scheduled);
  tt_model_free(m);
  pass_tunings_free(keep);
  return err.status ? cli_fail(&err) : 0;
}
