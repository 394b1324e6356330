/* plan.c: the command plan: how much memory a model's step needs, what lies in it at the worst moment, and who made it.
 *
 *     42.1 MiB at the peak of cnn, training, batch 64, 2 threads
 *       parameters ...
 *     in the arena at its peak, kernel 47 of 62, @k47_matmul: 5 values, 31.0 MiB
 *        8.0 MiB  %86   f32[64,32,32,32]   relu  cnn.c:7    made by 6, read until 58
 *     over time, one column for every 2 kernels
 *       all  ▂▃▅▇█...
 *
 * The SVG is the arena itself: kernels to the right, offsets upward, a box for each value. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"

const cli_option cli_plan_options[] = {
  {"train", NULL, "the training step (default)"},
  {"infer", NULL, "prediction"},
  {"batch-size", "N", "default: the model's"},
  {"data", "SET:DIR", "takes image size and classes from a data set (default: the model's)"},
  CLI_UPDATE,
  {"accumulate", "N", "with the sums of N batches' gradients (default 1)"},
  CLI_BUDGET, CLI_THREADS, CLI_CPU, CLI_PRODUCTS, CLI_SKIP,
  {"svg", "FILE", "the arena as a picture: kernels to the right, offsets upward"},
  {"check", NULL, "runs 20 steps and prints how much the process really grew"},
  {NULL, NULL, NULL},
};

enum { COLUMNS = 60, SHOWN = 30 };
#define MIB(bytes) ((double)(bytes) / (1 << 20))

typedef struct { const ir_graph *g; const pass_plan *p; } view;

/* "8.0 MiB", "96.0 KiB" */
static const char *size_text(int64_t bytes, char *text, size_t size) {
  if (bytes >= 100 << 10) snprintf(text, size, "%.1f MiB", MIB(bytes));
  else if (bytes >= 1000) snprintf(text, size, "%.1f KiB", (double)bytes / 1024);
  else snprintf(text, size, "%lld B", (long long)bytes);
  return text;
}

static bool is_alive(const pass_value *v, int from, int to) { return v->first < to && v->last >= from; }

static const char *source(const ir_graph *g, ir_ref r, char *text, size_t size) {
  const ir_origin *o = &g->origins[ir_at(g, r)->origin];
  const char *slash = o->file ? strrchr(o->file, '/') : NULL;
  if (!o->file) snprintf(text, size, "-");
  else snprintf(text, size, "%s:%d%s%s", slash ? slash + 1 : o->file, o->line, o->scope ? " " : "", o->scope ? o->scope : "");
  return text;
}

/* Movement says little: the op that made the elements. */
static const char *maker(const ir_graph *g, ir_ref r) {
  while (ir_ops[ir_at(g, r)->op].kind == IR_MOVEMENT && ir_at(g, r)->op != IR_pad && ir_at(g, ir_at(g, r)->args[0])->region == ir_at(g, r)->region) r = ir_at(g, r)->args[0];
  return ir_ops[ir_at(g, r)->op].name;
}

static int larger_first(const void *a, const void *b) {
  const pass_value *x = *(pass_value *const *)a, *y = *(pass_value *const *)b;
  return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : (x->row > y->row) - (x->row < y->row);
}
static int earlier_first(const void *a, const void *b) {
  const pass_value *x = *(pass_value *const *)a, *y = *(pass_value *const *)b;
  return x->first != y->first ? x->first - y->first : (x->row > y->row) - (x->row < y->row);
}

/* The values that live in kernels from..to-1, largest first. malloc'ed. */
static const pass_value **alive(const pass_plan *p, int from, int to, int *n) {
  const pass_value **list = malloc(((size_t)p->n_values + 1) * sizeof *list);
  *n = 0;
  for (int i = 0; list && i < p->n_values; i++)
    if (is_alive(&p->values[i], from, to)) list[(*n)++] = &p->values[i];
  if (list) qsort(list, (size_t)*n, sizeof *list, larger_first);
  return list;
}

static void print_value(const ir_graph *g, const pass_value *v) {
  char size[32], label[64], type[100], from[200];
  tt_shape s = ir_shape(g, v->row);
  printf("  %10s  %-6s %-22s %-9.9s %3d..%-3d  %.40s\n", size_text(v->bytes, size, sizeof size), ir_label(g, v->row, label, sizeof label),
         tt_type_text((tt_dtype)ir_at(g, v->row)->dtype, &s, type, sizeof type), maker(g, v->row), v->first, v->last, source(g, v->row, from, sizeof from));
}

static bool print_peak(const view *w) {
  const pass_plan *p = w->p;
  int n;
  char arena[32], least[32];
  const pass_value **list = alive(p, p->peak, p->peak + 1, &n);
  if (!list) return false;
  size_text(p->arena_bytes, arena, sizeof arena), size_text(p->bound, least, sizeof least);
  printf("\nthe arena has %s; at its peak, kernel %d of %d, @%s, %d values hold %s (the least that any arena of these values can have)\n", arena, p->peak, p->n_kernels,
         p->n_kernels ? w->g->kernels[p->regions[p->peak]].name : "-", n, least);
  if (n) printf("  %10s  %-6s %-22s %-9s %8s  %s\n", "size", "value", "type", "made by", "kernels", "from");
  int64_t rest = 0;
  for (int i = 0; i < n; i++)
    if (i < SHOWN) print_value(w->g, list[i]);
    else rest += list[i]->bytes;
  if (n > SHOWN) printf("  %10s  in %d smaller ones\n", size_text(rest, arena, sizeof arena), n - SHOWN);
  free(list);
  return true;
}

/* Kernels of column c. */
static int column(const pass_plan *p, int columns, int c) { return (int)((int64_t)c * p->n_kernels / columns); }

static void print_sum(const pass_plan *p, int columns) {
  static const char *const bars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  printf("  %-32s", "all together");
  for (int c = 0; c < columns; c++) {
    int64_t most = 0;
    for (int k = column(p, columns, c); k < column(p, columns, c + 1); k++) {
      int64_t sum = 0;
      for (int i = 0; i < p->n_values; i++) sum += is_alive(&p->values[i], k, k + 1) ? p->values[i].bytes : 0;
      most = sum > most ? sum : most;
    }
    fputs(bars[p->bound ? (most * 8 + p->bound - 1) / p->bound : 0], stdout);
  }
  printf("\n");
}

/* A row of blocks for each of the largest values, over the kernels. */
static bool print_timeline(const view *w) {
  const pass_plan *p = w->p;
  int n, columns = p->n_kernels < COLUMNS ? p->n_kernels : COLUMNS;
  const pass_value **list = alive(p, 0, p->n_kernels, &n);
  if (!list) return false;
  printf("\nover time, kernels 0 to %d from left to right; the %d largest values\n", p->n_kernels - 1, n < SHOWN ? n : SHOWN);
  print_sum(p, columns);
  if (n > SHOWN) n = SHOWN;
  qsort(list, (size_t)n, sizeof *list, earlier_first);
  for (int i = 0; i < n; i++) {
    char label[64], size[32], from[200];
    ir_label(w->g, list[i]->row, label, sizeof label);
    printf("  %9s %-5.5s %-15.15s ", size_text(list[i]->bytes, size, sizeof size), label, source(w->g, list[i]->row, from, sizeof from));
    for (int c = 0; c < columns; c++) fputs(is_alive(list[i], column(p, columns, c), column(p, columns, c + 1)) ? "█" : "·", stdout);
    printf("\n");
  }
  free(list);
  return true;
}

static void put_xml(FILE *f, const char *text) {
  for (; *text; text++) *text == '<' ? fputs("&lt;", f) : *text == '&' ? fputs("&amp;", f) : fputc(*text, f);
}

/* The colour says how long a value is kept: from blue (one kernel) to red (all of them). */
static char *svg_text(const view *w) {
  const pass_plan *p = w->p;
  enum { WIDTH = 1200, HEIGHT = 700, LEFT = 80, BOTTOM = 40 };
  char *text = NULL, size[32], label[64], type[100], from[200];
  size_t length;
  FILE *f = open_memstream(&text, &length);
  if (!f) return NULL;
  double x1 = (double)WIDTH / (p->n_kernels ? p->n_kernels : 1), y1 = (double)HEIGHT / (p->arena_bytes ? (double)p->arena_bytes : 1);
  fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
          LEFT + WIDTH + 20, HEIGHT + BOTTOM + 20);
  for (int i = 0; i <= 4; i++)
    fprintf(f, "<text x=\"%d\" y=\"%g\" text-anchor=\"end\">%s</text>\n<line x1=\"%d\" x2=\"%d\" y1=\"%g\" y2=\"%g\" stroke=\"#ddd\"/>\n", LEFT - 6, 14 + HEIGHT * (1 - i / 4.0),
            size_text(p->arena_bytes * i / 4, size, sizeof size), LEFT, LEFT + WIDTH, 10 + HEIGHT * (1 - i / 4.0), 10 + HEIGHT * (1 - i / 4.0));
  for (int i = 0; i < p->n_values; i++) {
    const pass_value *v = &p->values[i];
    tt_shape s = ir_shape(w->g, v->row);
    int kept = v->last - v->first + 1, hue = 220 - (int)(220.0 * kept / p->n_kernels);
    fprintf(f, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"hsl(%d,60%%,70%%)\" stroke=\"#444\" stroke-width=\"0.3\"><title>", LEFT + v->first * x1,
            10 + HEIGHT - (double)(v->offset + v->bytes) * y1, kept * x1, (double)v->bytes * y1, hue);
    put_xml(f, ir_label(w->g, v->row, label, sizeof label));
    fprintf(f, " %s, %s, %s, kernels %d to %d, ", tt_type_text((tt_dtype)ir_at(w->g, v->row)->dtype, &s, type, sizeof type), maker(w->g, v->row), size_text(v->bytes, size, sizeof size), v->first, v->last);
    put_xml(f, source(w->g, v->row, from, sizeof from));
    fprintf(f, "</title></rect>\n");
  }
  fprintf(f, "<line x1=\"%.2f\" x2=\"%.2f\" y1=\"10\" y2=\"%d\" stroke=\"red\" stroke-dasharray=\"4\"/>\n", LEFT + (p->peak + 0.5) * x1, LEFT + (p->peak + 0.5) * x1, 10 + HEIGHT);
  fprintf(f, "<text x=\"%d\" y=\"%d\">@", LEFT, HEIGHT + 30);
  put_xml(f, w->g->name);
  fprintf(f, ": kernels 0 to %d, an arena of %s; the peak is at kernel %d</text>\n</svg>\n", p->n_kernels - 1, size_text(p->arena_bytes, size, sizeof size), p->peak);
  if (fclose(f)) {
    free(text);
    return NULL;
  }
  return text;
}

static void print_total(const char *name, bool train, long long batch, int threads, const rt_memory *m) {
  const struct { const char *what; size_t bytes; } parts[] = {
    {"parameters", m->params}, {"optimizer state", m->state}, {"gradients", m->gradients}, {"inputs", m->inputs}, {"outputs", m->outputs},
    {"constants", m->constants}, {"arena", m->arena}, {"packing and other scratch", m->scratch}};
  char size[32];
  printf("%s, %s, batch %lld, %d thread%s: %zu bytes at the peak, %.1f MiB\n", name, train ? "a training step" : "prediction", batch, threads, threads == 1 ? "" : "s", m->total, MIB(m->total));
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (parts[i].bytes) printf("  %10s  %s\n", size_text((int64_t)parts[i].bytes, size, sizeof size), parts[i].what);
}

typedef struct { ir_graph *placed; } keeper;
static void keep_placed(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  keeper *k = user;
  if (strcmp(pass, "memory") == 0 && !k->placed) k->placed = ir_clone(g);
}

/* A line of /proc/self/status, in bytes; -1: it cannot be read. */
static int64_t status_bytes(const char *field) {
  FILE *f = fopen("/proc/self/status", "r");
  char line[200];
  long long kib = -1;
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, field, strlen(field)) == 0) sscanf(line + strlen(field), ": %lld", &kib);
  if (f) fclose(f);
  return kib < 0 ? -1 : kib * 1024;
}

/* 20 steps on zeros; the process's peak against its size before the model was made. */
static tt_status check(tt_model *m, const rt_program *p, const rt_memory *plan, int64_t before, tt_error *err) {
  rt_instance *x = rt_instance_new(p, tt_model_team(m, err), err);
  tt_status status = x ? rt_params_bind(tt_model_params(m), x, err) : err->status;
  for (uint32_t i = 0; status == TT_OK && i < p->n_slots; i++) {
    if (p->slots[i].kind != RT_INPUT) continue;
    tt_tensor *t = tt_tensor_new(p->slots[i].dtype, &p->slots[i].shape, err);
    status = t ? rt_bind(x, p->slots[i].name, t, err) : err->status;
    if (status == TT_OK) memset(tt_tensor_data(t), 0, p->slots[i].bytes);
    tt_tensor_free(t);
  }
  for (int i = 0; status == TT_OK && i < 20; i++) status = rt_run(x, err);
  rt_instance_free(x);
  if (status != TT_OK) return status;
  int64_t grown = status_bytes("VmHWM") - before;
  printf("\nchecked: over 20 steps, compilation included, the process grew by %.1f MiB at most; the plan says %.1f\n", MIB(grown), MIB(plan->total));
  return TT_OK;
}

int cli_plan(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  if (cli_has(a, "train") && cli_has(a, "infer")) return cli_usage(a, "--train or --infer, not both");
  bool train = !cli_has(a, "infer");
  cli_update update;
  int64_t batch, before = status_bytes("VmRSS"), budget, accumulate;
  if (!cli_target(a) || !cli_update_read(a, info, &update) || !cli_int(a, "batch-size", info->batch, 1, &batch) || !cli_bytes(a, "memory-budget", &budget) || !cli_int(a, "accumulate", 1, 1, &accumulate)) return 2;
  model_config arg;
  tt_shape shape;
  const char *svg = cli_get(a, "svg", NULL);
  tt_dtype dtype;
  if (!cli_input(a, info, batch, &arg, &dtype, &shape, &err)) return cli_fail(&err);
  keeper kept = {0};
  tt_compile_options o = {.train = train, .accumulate = train ? (int)accumulate : 0, .memory_budget = budget, .watch = keep_placed, .user = &kept};
  cli_update_put(&update, &o);
  tt_model *m = cli_model_new(a, info, &arg, &err);
  if (!m && !err.status) return 2;
  rt_program *program = NULL;
  rt_team *team = m ? tt_model_team(m, &err) : NULL;
  pass_plan *p = NULL;
  bool ok = team && tt_model_compile(m, dtype, &shape, train ? model_labels(info) : TT_NO_LABELS, &o, &program, &err) == TT_OK;
  if (ok && kept.placed) p = pass_plan_of(kept.placed, &err);
  if (ok && p) {
    view w = {kept.placed, p};
    rt_memory memory = rt_program_memory(program, rt_team_size(team));
    print_total(info->name, train, (long long)batch, rt_team_size(team), &memory);
    char *text = svg ? svg_text(&w) : NULL;
    if (!print_peak(&w) || !print_timeline(&w) || (svg && !text)) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the plan\n  at plan\n  fix: free memory");
    else if (svg) cli_write(svg, text, &err);
    free(text);
    ir_graph_free(kept.placed), pass_plan_free(p);
    kept.placed = NULL, p = NULL;
    if (!err.status && cli_has(a, "check")) check(m, program, &memory, before, &err);
  } else if (ok && !err.status) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the plan\n  at plan\n  fix: free memory");
  if (m) cli_warnings(m);
  rt_program_free(program);
  ir_graph_free(kept.placed), pass_plan_free(p);
  tt_model_free(m);
  return err.status ? cli_fail(&err) : 0;
}
