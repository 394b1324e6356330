/* kernels.c: from the regions of a scheduled graph to loops. Many regions are alike: blocks of one network repeat. So regions get a key of all that
 * lowering can see of them, with rows by their place and not by their number, and one region of each key is lowered, on all threads; the others are
 * called with rows of theirs at the same places. Of what was lowered, kernels that print alike are one. */
#define _GNU_SOURCE                /* sched_getaffinity */
#include "kernels.h"
#include "lower.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../runtime/image.h"

int64_t cg_kernel_kind(const ir_graph *g, uint32_t region) {
  uint32_t n;
  const int64_t *kind = ir_kernel_get(g, region, "kind", &n);
  return kind && n ? *kind : -1;
}

int cg_default_threads(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

lp_kernel *cg_kernel_lower(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, tt_error *err) {
  bool contract = cg_kernel_kind(g, region) == CG_KIND_CONTRACT;
  lp_kernel *k = contract ? cg_lower_contract(g, region, cpu, rows, CG_MAX_ARGUMENTS, err) : cg_lower(g, region, cpu, rows, CG_MAX_ARGUMENTS, err);
  if (!k) tt_fail(err, TT_INTERNAL, "error: kernel @%s cannot be lowered\n  at @%s\n  fix: this is a bug of the compiler; please report it", g->kernels[region].name, g->name);
  return k;
}

static bool no_memory(const ir_graph *g, tt_error *err) {
  return tt_fail(err, TT_NO_MEMORY, "error: no memory to compile @%s\n  at %u kernels\n  fix: make the model smaller", g->name, g->n_kernels), false;
}

static bool push_region(cg_kernels *ks, const ir_graph *g, uint32_t region, int which, uint32_t *cap) {
  if (ks->n_regions + 1 >= *cap) {
    *cap = 2 * *cap + 64;
    void *regions = realloc(ks->regions, *cap * sizeof *ks->regions), *graphs = regions ? realloc(ks->graphs, *cap * sizeof *ks->graphs) : NULL;
    if (regions) ks->regions = regions;
    if (graphs) ks->graphs = graphs;
    int *more = graphs ? realloc(ks->which, *cap * sizeof *ks->which) : NULL;
    if (!more) return false;
    ks->which = more;
  }
  ks->regions[ks->n_regions] = region, ks->graphs[ks->n_regions] = g, ks->which[ks->n_regions++] = which;
  return true;
}

static bool regions_of(const ir_graph *g, cg_kernels *ks, uint32_t *cap, tt_error *err) {
  bool *live = ir_live(g), ok = live || no_memory(g, err);
  uint32_t last = 0;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *x = ir_at(g, r);
    if (!live[r] || x->op == IR_input || x->op == IR_param || x->op == IR_const || x->op == IR_assign) continue;
    char label[100];
    if (!x->region) {
      ok = tt_fail(err, TT_INTERNAL, "error: %s is in no kernel\n  at row %u, %s of @%s\n  fix: run the passes decompose, schedule and memory before compiling", ir_ops[x->op].name, r, ir_label(g, r, label, sizeof label), g->name) == TT_OK;
      break;
    }
    if (x->region == last) continue;
    last = x->region;
    bool scan = x->op == IR_scan;
    ok = push_region(ks, g, last, scan ? CG_SCAN : cg_kernel_kind(g, last) == CG_KIND_CALL ? CG_CALL : 0, cap) || no_memory(g, err);
    if (ok && scan) ok = regions_of(ir_scan_body(g, x), ks, cap, err) && (push_region(ks, g, last, CG_END, cap) || no_memory(g, err));
  }
  free(live);
  return ok;
}

bool cg_regions_of(const ir_graph *g, cg_kernels *ks, tt_error *err) {
  uint32_t cap = 0;
  *ks = (cg_kernels){.g = g};
  if (regions_of(g, ks, &cap, err)) return true;
  cg_kernels_free(ks);
  return false;
}

/* ---- which regions are alike */

typedef struct { ir_ref *refs; uint32_t n; } outside;      /* rows that a region reads, in the order in which it comes to them */

typedef struct {
  const ir_graph *g;
  const cg_cpu *cpu;
  int64_t *words; size_t n, cap;               /* of the region at hand */
  uint32_t *number, *mark, stamp;              /* of an outside row: its number, valid while mark[row] is the region's stamp */
  bool *used_outside;                          /* rows that others than their own kernel read */
  ir_ref *found; uint32_t n_found, cap_found;
  bool failed;
} keyer;

static void put(keyer *y, int64_t word) {
  if (y->n == y->cap) {
    size_t cap = y->cap ? 2 * y->cap : 1024;
    int64_t *more = realloc(y->words, cap * sizeof *more);
    if (!more) { y->failed = true; return; }
    y->words = more, y->cap = cap;
  }
  y->words[y->n++] = word;
}

static void put_type(keyer *y, const ir_node *x) {
  put(y, (int64_t)x->op << 32 | x->dtype << 16 | x->rank);
  for (int d = 0; d < x->rank; d++) put(y, x->dim[d]);
}

static void put_words(keyer *y, const ir_node *x) {
  put(y, x->n_words);
  for (uint32_t i = 0; i < x->n_words; i++) put(y, x->words[i]);       /* texts and blobs are one in a graph when they are equal */
}

/* A row by its place: inside of the region counted from its first, outside by its number. What lowering sees of an outside row is its type, and a
 * constant's value. */
static void put_ref(keyer *y, uint32_t region, ir_ref r) {
  const ir_node *x = ir_at(y->g, r);
  if (x->region == region) { put(y, (int64_t)(r - y->g->kernels[region].first)); return; }
  if (y->mark[r] != y->stamp) {
    if (y->n_found == y->cap_found) {
      uint32_t cap = y->cap_found ? 2 * y->cap_found : 64;
      ir_ref *more = realloc(y->found, cap * sizeof *more);
      if (!more) { y->failed = true; return; }
      y->found = more, y->cap_found = cap;
    }
    y->mark[r] = y->stamp;
    y->found[y->n_found++] = r;
    y->number[r] = y->n_found;
    put_type(y, x);
    if (x->op == IR_const) put_words(y, x);
    double splat = 0;
    bool same = ir_is_splat(y->g, r, &splat);
    int64_t bits;
    memcpy(&bits, &splat, sizeof bits);
    put(y, same), put(y, bits);
  }
  put(y, -(int64_t)y->number[r]);
}

static void put_plan(keyer *y, uint32_t region) {
  const ir_kernel *k = &y->g->kernels[region];
  for (uint32_t i = 0; i < k->n_plan; i++) {
    if (!strcmp(k->plan[i].name, "once")) continue;                            /* when it runs is not in its code */
    bool refs = !strcmp(k->plan[i].name, "inplace") || !strcmp(k->plan[i].name, "reuse");
    put(y, (int64_t)(intptr_t)k->plan[i].name), put(y, k->plan[i].n);            /* interned */
    for (uint32_t j = 0; j < k->plan[i].n; j++)
      if (refs && k->plan[i].values[j] > 0 && k->plan[i].values[j] < y->g->n_nodes) put_ref(y, region, (ir_ref)k->plan[i].values[j]);
      else put(y, k->plan[i].values[j]);
  }
}

static bool key_of_region(keyer *y, uint32_t region, rt_key *key, outside *out) {
  const ir_kernel *k = &y->g->kernels[region];
  y->n = y->n_found = 0;
  y->stamp++;
  for (ir_ref r = k->first; r && r <= k->last; r++) {
    const ir_node *x = ir_at(y->g, r);
    put_type(y, x), put_words(y, x);
    put(y, y->used_outside[r]), put(y, y->used_outside[r] ? lower_streams_of(y->g, region, y->cpu, r) : 0), put(y, x->n_args);
    for (uint32_t i = 0; i < x->n_args; i++) put_ref(y, region, x->args[i]);
  }
  put_plan(y, region);
  out->n = y->n_found;
  out->refs = malloc((y->n_found + 1) * sizeof *out->refs);
  if (y->failed || !out->refs) return false;
  if (y->n_found) memcpy(out->refs, y->found, y->n_found * sizeof *out->refs);
  *key = rt_key_of(y->words, y->n * sizeof *y->words);
  return true;
}

static void mark_used(keyer *y) {
  const ir_graph *g = y->g;
  for (ir_ref r = 1; r < g->n_nodes; r++)
    for (uint32_t i = 0; i < ir_at(g, r)->n_args; i++) {
      ir_ref a = ir_at(g, r)->args[i];
      if (ir_at(g, a)->region != ir_at(g, r)->region) y->used_outside[a] = true;
    }
  for (uint32_t i = 0; i < g->n_outputs; i++) y->used_outside[g->outputs[i].value] = true;
}

/* A table from keys to numbers, open addressing. */
typedef struct { rt_key *keys; int *values; size_t cap; } table;

static bool table_new(table *t, size_t n) {
  for (t->cap = 16; t->cap < 2 * n; t->cap *= 2) {}
  t->keys = malloc(t->cap * sizeof *t->keys);
  t->values = malloc(t->cap * sizeof *t->values);
  for (size_t i = 0; t->values && i < t->cap; i++) t->values[i] = -1;
  return t->keys && t->values;
}
static void table_free(table *t) { free(t->keys), free(t->values); }

/* The number that the key has; `value` from now on when it had none. */
static int table_find(table *t, const rt_key *key, int value) {
  size_t i;
  memcpy(&i, key->bytes, sizeof i);
  for (i &= t->cap - 1; t->values[i] >= 0; i = (i + 1) & (t->cap - 1))
    if (!memcmp(&t->keys[i], key, sizeof *key)) return t->values[i];
  t->keys[i] = *key;
  return t->values[i] = value;
}

/* Of the regions of one graph. */
static bool find_alike_in(const cg_kernels *ks, const ir_graph *g, const cg_cpu *cpu, int *like, outside *reads) {
  keyer y = {.g = g, .cpu = cpu, .number = calloc(g->n_nodes, sizeof *y.number), .mark = calloc(g->n_nodes, sizeof *y.mark), .used_outside = calloc(g->n_nodes, 1)};
  table t = {0};
  bool ok = y.number && y.mark && y.used_outside && table_new(&t, ks->n_regions);
  if (ok) mark_used(&y);
  for (uint32_t i = 0; ok && i < ks->n_regions; i++) {
    rt_key key;
    if (ks->graphs[i] != g) continue;
    like[i] = (int)i;
    if (ks->which[i] < 0) continue;
    ok = key_of_region(&y, ks->regions[i], &key, &reads[i]);
    if (ok) like[i] = table_find(&t, &key, (int)i);
  }
  table_free(&t);
  free(y.words), free(y.number), free(y.mark), free(y.used_outside), free(y.found);
  return ok;
}

/* like[i]: the first region that region i is like (itself, perhaps). */
static bool find_alike(const cg_kernels *ks, const cg_cpu *cpu, int *like, outside *reads) {
  bool ok = true;
  for (uint32_t i = 0; ok && i < ks->n_regions; i++) {
    uint32_t first = 0;
    while (ks->graphs[first] != ks->graphs[i]) first++;
    if (first == i) ok = find_alike_in(ks, ks->graphs[i], cpu, like, reads);
  }
  return ok;
}

/* ---- lowering, on threads */

typedef struct {
  cg_kernels *ks;
  const cg_cpu *cpu;
  const int *list; int n;                      /* regions to lower */
  cg_kernel *out;                              /* of each region */
  const volatile int *stop;
  atomic_int next;
  atomic_bool failed;
} job;
typedef struct { job *j; tt_error err; pthread_t thread; bool started; } worker;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static char *text_of(lp_kernel *k) {
  const char *name = k->name;
  k->name = "k";
  char *text = lp_print(k);
  k->name = name;
  return text;
}

static bool lower_one(job *j, int i, tt_error *err) {
  cg_kernels *ks = j->ks;
  ir_ref rows[CG_MAX_ARGUMENTS];
  double start = now_ms();
  lp_kernel *k = j->out[i].loops = cg_kernel_lower(ks->graphs[i], ks->regions[i], j->cpu, rows, err);
  if (!k) return false;
  uint32_t n = 0;
  for (int b = 0; b < k->n_buffers; b++) n += !k->buffers[b].scratch;
  j->out[i].text = text_of(k);
  j->out[i].lower_ms = now_ms() - start;
  ks->rows[i] = malloc((n + 1) * sizeof *rows);
  if (!j->out[i].text || !ks->rows[i]) return no_memory(ks->g, err);
  memcpy(ks->rows[i], rows, n * sizeof *rows);
  ks->n_rows[i] = n;
  return true;
}

static void *work(void *arg) {
  worker *w = arg;
  job *j = w->j;
  while (!atomic_load(&j->failed)) {
    int at = atomic_fetch_add(&j->next, 1);
    if (at >= j->n) break;
    if (j->stop && *j->stop) tt_fail(&w->err, TT_INTERRUPTED, "error: compiling was interrupted\n  at lowering %d kernels\n  fix: start again", j->n);
    if (w->err.status != TT_OK || !lower_one(j, j->list[at], &w->err)) atomic_store(&j->failed, true);
  }
  return NULL;
}

static bool lower_all(job *j, int n_threads, tt_error *err) {
  enum { MAX_THREADS = 64, EACH = 4 };         /* a thread is worth starting for so many kernels */
  worker workers[MAX_THREADS] = {0};
  if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
  if (n_threads > j->n / EACH) n_threads = j->n / EACH;
  if (n_threads < 1) n_threads = 1;
  for (int i = 0; i < n_threads; i++) {
    workers[i].j = j;
    if (i) workers[i].started = !pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  }
  work(&workers[0]);
  for (int i = 1; i < n_threads; i++)
    if (workers[i].started) pthread_join(workers[i].thread, NULL);
  for (int i = 0; i < n_threads; i++)
    if (workers[i].err.status != TT_OK) return tt_fail(err, workers[i].err.status, "%s", workers[i].err.message), false;
  return true;
}

/* Region i is called as region `as` is, with rows of its own. */
static bool same_rows(cg_kernels *ks, const outside *reads, int i, int as) {
  const ir_graph *g = ks->graphs[i];                   /* the same as that of `as` */
  const ir_kernel *mine = &g->kernels[ks->regions[i]], *its = &g->kernels[ks->regions[as]];
  uint32_t n = ks->n_rows[i] = ks->n_rows[as];
  ir_ref *rows = ks->rows[i] = malloc((n + 1) * sizeof *rows);
  if (!rows) return false;
  for (uint32_t j = 0; j < n; j++) {
    ir_ref r = ks->rows[as][j];
    if (ir_at(g, r)->region == ks->regions[as]) { rows[j] = mine->first + (r - its->first); continue; }
    uint32_t at = 0;
    while (at < reads[as].n && reads[as].refs[at] != r) at++;
    if (at == reads[as].n) return false;       /* cannot be: lowering reads what its rows read */
    rows[j] = reads[i].refs[at];
  }
  return true;
}

#ifndef NDEBUG
/* What the key does not see, lowering must not see either. */
static bool check_alike(job *j, int i, int as, tt_error *err) {
  ir_ref rows[CG_MAX_ARGUMENTS];
  lp_kernel *k = cg_kernel_lower(j->ks->graphs[i], j->ks->regions[i], j->cpu, rows, err);
  char *text = k ? text_of(k) : NULL;
  bool same = text && !strcmp(text, j->out[as].text) && !memcmp(rows, j->ks->rows[i], j->ks->n_rows[i] * sizeof *rows);
  if (text && !same) tt_fail(err, TT_INTERNAL, "error: kernels @%s and @%s have one key but differ\n  at codegen/kernels.c\n  fix: what lowering looks at belongs into the key", j->ks->graphs[i]->kernels[j->ks->regions[i]].name, j->ks->graphs[i]->kernels[j->ks->regions[as]].name);
  free(text);
  lp_free(k);
  return same;
}
#endif

/* Kernels that print alike become one. */
static bool number_kernels(cg_kernels *ks, job *j, const int *like) {
  table t = {0};
  ks->kernels = calloc((size_t)j->n + 1, sizeof *ks->kernels);
  bool ok = ks->kernels && table_new(&t, (size_t)j->n);
  for (uint32_t i = 0; ok && i < ks->n_regions; i++) {
    if (ks->which[i] < 0) continue;
    if (like[i] != (int)i) { ks->which[i] = ks->which[like[i]]; continue; }
    rt_key key = rt_key_of(j->out[i].text, strlen(j->out[i].text));
    ks->which[i] = table_find(&t, &key, ks->n_kernels);
    if (ks->which[i] < ks->n_kernels) continue;
    ks->kernels[ks->n_kernels++] = j->out[i];
    j->out[i] = (cg_kernel){0};
  }
  table_free(&t);
  return ok;
}

bool cg_kernels_of(const ir_graph *g, const cg_cpu *cpu, int n_threads, bool blas, const volatile int *stop, cg_kernels *ks, tt_error *err) {
  bool ok = cg_regions_of(g, ks, err);
  size_t n = ks->n_regions + 1;
  int *like = calloc(n, sizeof *like), *list = calloc(n, sizeof *list);
  outside *reads = calloc(n, sizeof *reads);
  job j = {.ks = ks, .cpu = cpu, .list = list, .stop = stop, .out = calloc(n, sizeof *j.out)};
  ks->rows = calloc(n, sizeof *ks->rows), ks->n_rows = calloc(n, sizeof *ks->n_rows);
  bool memory = like && list && reads && j.out && ks->rows && ks->n_rows;
  for (uint32_t i = 0; ok && memory && i < ks->n_regions; i++) {
    ir_ref row;
    if (ks->which[i] == 0 && blas && cg_kernel_kind(ks->graphs[i], ks->regions[i]) == CG_KIND_CONTRACT && cg_blas_wants(ks->graphs[i], ks->regions[i], &row)) ks->which[i] = CG_BLAS;
  }
  memory = memory && (!ok || find_alike(ks, cpu, like, reads));
  for (uint32_t i = 0; ok && memory && i < ks->n_regions; i++)
    if (ks->which[i] >= 0 && like[i] == (int)i) list[j.n++] = (int)i;
  ok = ok && memory && lower_all(&j, n_threads > 0 ? n_threads : cg_default_threads(), err);
  for (uint32_t i = 0; ok && memory && i < ks->n_regions; i++)
    if (ks->which[i] >= 0 && like[i] != (int)i) {
      memory = same_rows(ks, reads, (int)i, like[i]);
#ifndef NDEBUG
      ok = memory && check_alike(&j, (int)i, like[i], err);
#endif
    }
  if (ok && memory) memory = number_kernels(ks, &j, like);
  if (!memory) ok = no_memory(g, err);
  for (uint32_t i = 0; i < ks->n_regions; i++) {
    if (reads) free(reads[i].refs);
    if (j.out) lp_free(j.out[i].loops), free(j.out[i].text);
  }
  free(like), free(list), free(reads), free(j.out);
  if (!ok) cg_kernels_free(ks);
  return ok;
}

void cg_kernels_free(cg_kernels *ks) {
  for (int i = 0; i < ks->n_kernels; i++) lp_free(ks->kernels[i].loops), free(ks->kernels[i].text);
  for (uint32_t i = 0; ks->rows && i < ks->n_regions; i++) free(ks->rows[i]);
  free(ks->regions), free(ks->graphs), free(ks->which), free(ks->rows), free(ks->n_rows), free(ks->kernels);
  *ks = (cg_kernels){0};
}
