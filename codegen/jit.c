/* jit.c: from a scheduled, placed graph to a program of machine code. Each kernel is lowered to loops (lower.c, contract.c); kernels
 * that print alike are compiled once; the LLVM module, opened here on the first need, compiles them; program.c makes the tables.
 * argsort is a C function of the runtime. Nothing falls back to the interpreter: what cannot be lowered is an error. */
#define _GNU_SOURCE       /* sched_getaffinity */
#include "codegen.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the LLVM module */

#define MODULE "libtinytorch_llvm.so"

static void *try_open(const char *path, char *why, size_t size) {
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!module) snprintf(why, size, "%s", dlerror());
  return module;
}

/* $ORIGIN in the RUNPATH of the library (or command) that this code stands in finds the module beside it or in ../lib. Where dlopen
 * does not see who calls it (under a sanitizer), and for programs that carry the library inside, the same is spelled out. */
static void *open_module(char *why, size_t size) {
  const char *set = getenv("TT_LLVM_MODULE");
  if (set && *set) return try_open(set, why, size);
  void *module = try_open(MODULE, why, size);
  for (int i = 0; i < 2 && !module; i++) {
    char path[4096 + 64] = "";
    Dl_info here;
    if (i == 0 && dladdr(MODULE, &here) && here.dli_fname) snprintf(path, 4096, "%s", here.dli_fname);
    if (i == 1 && readlink("/proc/self/exe", path, 4095) < 0) path[0] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) continue;
    strcpy(slash, "/" MODULE);
    if (access(path, F_OK)) strcpy(slash, "/../lib/" MODULE);
    if (!access(path, F_OK)) module = try_open(path, why, size);
  }
  return module;
}

const cg_llvm_api *cg_llvm_open(tt_error *err) {
  /* Loading is idempotent (dlopen counts), so two threads that come first at once do no harm. The module stays loaded. */
  static _Atomic(const cg_llvm_api *) opened;
  const cg_llvm_api *api = atomic_load(&opened);
  if (api) return api;
  char why[800] = "";
  void *module = open_module(why, sizeof why);
  if (!module) {
    tt_fail(err, TT_UNSUPPORTED, "error: the module that calls LLVM cannot be opened: %s\n  at opening libtinytorch_llvm.so\n  fix: install it beside libtinytorch.so with LLVM 19, set TT_LLVM_MODULE to its path, or use the interpreter", why);
    return NULL;
  }
  const cg_llvm_api *(*get)(void);
  *(void **)&get = dlsym(module, "cg_llvm_module");
  api = get ? get() : NULL;
  if (!api || api->version != CG_LLVM_VERSION) {
    tt_fail(err, TT_UNSUPPORTED, "error: the module that calls LLVM is of another version, %d instead of %d\n  at opening libtinytorch_llvm.so\n  fix: install the module and the library from one build", api ? api->version : 0, CG_LLVM_VERSION);
    dlclose(module);
    return NULL;
  }
  atomic_store(&opened, api);
  return api;
}

/* ---- kernels of a graph */

enum { LOOP, CONTRACT, CALL };
enum { MAX_ARGUMENTS = 1024 };      /* of one kernel */

static int64_t kind_of(const ir_graph *g, uint32_t region) {
  uint32_t n;
  const int64_t *kind = ir_kernel_get(g, region, "kind", &n);
  return kind && n ? *kind : -1;
}

/* The kernels that have live rows, in their order; false when a row that must be computed stands in none. */
static bool list_kernels(const ir_graph *g, uint32_t **list, uint32_t *n, tt_error *err) {
  bool *live = ir_live(g), ok = true;
  *n = 0;
  *list = malloc((g->n_kernels + 1) * sizeof **list);
  if (!live || !*list) ok = tt_fail(err, TT_NO_MEMORY, "error: no memory to compile @%s\n  at %u kernels\n  fix: make the model smaller", g->name, g->n_kernels) == TT_OK;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *x = ir_at(g, r);
    if (!live[r] || x->op == IR_input || x->op == IR_param || x->op == IR_const || x->op == IR_assign) continue;
    char label[100];
    if (!x->region)
      ok = tt_fail(err, TT_INTERNAL, "error: %s is in no kernel\n  at row %u, %s of @%s\n  fix: run the passes decompose, schedule and memory before compiling", ir_ops[x->op].name, r, ir_label(g, r, label, sizeof label), g->name) == TT_OK;
    else if (!*n || (*list)[*n - 1] != x->region) (*list)[(*n)++] = x->region;
  }
  free(live);
  if (!ok) free(*list), *list = NULL;
  return ok;
}

static lp_kernel *lower(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, tt_error *err) {
  lp_kernel *k = kind_of(g, region) == CONTRACT ? cg_lower_contract(g, region, cpu, rows, MAX_ARGUMENTS, err) : cg_lower(g, region, cpu, rows, MAX_ARGUMENTS, err);
  if (!k) tt_fail(err, TT_INTERNAL, "error: kernel @%s cannot be lowered\n  at @%s\n  fix: this is a bug of the compiler; please report it", g->kernels[region].name, g->name);
  return k;
}

static uint32_t n_arguments(const lp_kernel *k) {
  uint32_t n = 0;
  for (int i = 0; i < k->n_buffers; i++) n += !k->buffers[i].scratch;
  return n;
}

/* The text by which kernels that differ in their names are equal. */
static char *key_of(lp_kernel *k) {
  const char *name = k->name;
  k->name = "k";
  char *text = lp_print(k);
  k->name = name;
  return text;
}

typedef struct {
  const ir_graph *g;
  const cg_llvm_api *api;
  cg_cpu cpu;
  tt_error *err;
  uint32_t *regions, n_regions;
  lp_kernel **kernels; char **keys; uint32_t n_kernels;      /* the different ones */
  uint32_t *which;                                            /* kernel of each region; UINT32_MAX: a call; UINT32_MAX - 1: a product for OpenBLAS */
  ir_ref **rows; uint32_t *n_rows;                            /* arguments of each region */
  rt_kernel **code;
} job;

static bool no_memory(job *j) { return tt_fail(j->err, TT_NO_MEMORY, "error: no memory to compile @%s\n  at %u kernels\n  fix: make the model smaller", j->g->name, j->n_regions), false; }

/* Lowers kernel i of the list, and finds or keeps its loops. */
static bool lower_one(job *j, uint32_t i) {
  ir_ref rows[MAX_ARGUMENTS];
  lp_kernel *k = lower(j->g, j->regions[i], &j->cpu, rows, j->err);
  if (!k) return false;
  char *key = key_of(k);
  j->n_rows[i] = n_arguments(k);
  j->rows[i] = malloc((j->n_rows[i] + 1) * sizeof *rows);
  if (!key || !j->rows[i]) return free(key), lp_free(k), no_memory(j);
  memcpy(j->rows[i], rows, j->n_rows[i] * sizeof *rows);
  uint32_t at = 0;
  while (at < j->n_kernels && strcmp(j->keys[at], key)) at++;
  j->which[i] = at;
  if (at < j->n_kernels) return free(key), lp_free(k), true;
  j->keys[at] = key;
  j->kernels[at] = k;
  j->n_kernels++;
  return true;
}

/* argsort: the lines along the axis are sorted one by one by the runtime's C function. */
static bool call_step(job *j, cg_program *c, uint32_t i) {
  const ir_graph *g = j->g;
  uint32_t region = j->regions[i];
  ir_ref r = 1;
  while (r < g->n_nodes && (ir_at(g, r)->region != region || ir_at(g, r)->op != IR_argsort)) r++;
  if (r == g->n_nodes) return tt_fail(j->err, TT_INTERNAL, "error: kernel @%s calls nothing that is known\n  at @%s\n  fix: this is a bug of the compiler (schedule); please report it", g->kernels[region].name, g->name), false;
  const ir_node *n = ir_at(g, r), *x = ir_at(g, n->args[0]);
  int64_t axis = ir_int(n, "axis"), inner = 1, outer = 1;
  for (int d = 0; d < axis; d++) outer *= n->dim[d];
  for (int d = (int)axis + 1; d < n->rank; d++) inner *= n->dim[d];
  rt_sort *sort = cg_program_alloc(c, sizeof *sort);
  if (!sort) return false;
  *sort = (rt_sort){.dtype = (tt_dtype)x->dtype, .length = n->dim[axis], .stride = inner, .inner = inner, .descending = ir_int(n, "descending")};
  ir_ref args[] = {n->args[0], r};
  return cg_program_step(c, &(cg_step){.run = rt_argsort, .context = sort, .context_bytes = sizeof *sort, .name = g->kernels[region].name, .region = region, .args = args, .n_args = 2, .tasks = n->dim[axis] ? outer * inner : 0});
}

typedef struct { const cg_llvm_api *api; cg_llvm_jit *jit; } code_owner;
static void free_code(void *owner) {
  code_owner *o = owner;
  if (!o) return;
  if (o->jit) o->api->destroy(o->jit);
  free(o);
}

static int default_threads(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static tt_status compile(job *j, const cg_options *o, rt_program **p) {
  for (uint32_t i = 0; i < j->n_regions; i++) {
    j->which[i] = UINT32_MAX;
    ir_ref row;
    if (kind_of(j->g, j->regions[i]) == CONTRACT && cg_blas_wants(j->g, j->regions[i], &row)) j->which[i] = UINT32_MAX - 1;
    else if (kind_of(j->g, j->regions[i]) != CALL && !lower_one(j, i)) return j->err->status;
  }
  code_owner *owner = calloc(1, sizeof *owner);
  if (!owner) return no_memory(j), TT_NO_MEMORY;
  if (j->n_kernels) {
    owner->api = j->api = cg_llvm_open(j->err);
    owner->jit = j->api ? j->api->create(&j->cpu, j->err) : NULL;
    if (!owner->jit || j->api->compile(owner->jit, j->kernels, (int)j->n_kernels, o && o->n_threads ? o->n_threads : default_threads(), j->code, j->err) != TT_OK)
      return free_code(owner), j->err->status;
  }
  cg_program *c = cg_program_new(j->g, true, j->err);
  bool ok = c;
  size_t scratch = 0;
  for (uint32_t i = 0; ok && i < j->n_regions; i++) {
    ir_ref row;
    if (j->which[i] == UINT32_MAX) { ok = call_step(j, c, i); continue; }
    if (j->which[i] == UINT32_MAX - 1) { ok = cg_blas_wants(j->g, j->regions[i], &row) && cg_blas_step(j->g, j->regions[i], row, c); continue; }
    const lp_kernel *k = j->kernels[j->which[i]];
    if (lp_scratch_bytes(k) > scratch) scratch = lp_scratch_bytes(k);
    ok = cg_program_step(c, &(cg_step){.run = j->code[j->which[i]], .context = &rt_function_table, .name = j->g->kernels[j->regions[i]].name, .region = j->regions[i], .args = j->rows[i], .n_args = j->n_rows[i], .tasks = k->tasks});
  }
  if (ok) return cg_program_finish(c, scratch, owner, free_code, p);
  cg_program_free(c);
  free_code(owner);
  return j->err->status;
}

tt_status cg_jit(const ir_graph *g, const cg_options *o, rt_program **p, tt_error *err) {
  tt_error ignored = {0};
  job j = {.g = g, .err = err ? err : &ignored};
  if (ir_verify(g, "scheduling", j.err) != TT_OK) return j.err->status;
  if (cg_cpu_get(o ? o->cpu : NULL, &j.cpu, j.err) != TT_OK || !list_kernels(g, &j.regions, &j.n_regions, j.err)) return j.err->status;
  size_t n = j.n_regions + 1;
  j.kernels = calloc(n, sizeof *j.kernels), j.keys = calloc(n, sizeof *j.keys), j.which = calloc(n, sizeof *j.which);
  j.rows = calloc(n, sizeof *j.rows), j.n_rows = calloc(n, sizeof *j.n_rows), j.code = calloc(n, sizeof *j.code);
  tt_status status = TT_NO_MEMORY;
  if (j.kernels && j.keys && j.which && j.rows && j.n_rows && j.code) status = compile(&j, o, p);
  else no_memory(&j);
  for (uint32_t i = 0; j.kernels && j.keys && i < j.n_kernels; i++) lp_free(j.kernels[i]), free(j.keys[i]);
  for (uint32_t i = 0; j.rows && i < j.n_regions; i++) free(j.rows[i]);
  free(j.kernels), free(j.keys), free(j.which), free(j.rows), free(j.n_rows), free(j.code), free(j.regions);
  return status;
}

/* ---- dump */

char *cg_dump(const ir_graph *g, const char *stage, const cg_cpu *cpu, tt_error *err) {
  bool loops = !strcmp(stage, "loops"), assembly = !strcmp(stage, "asm");
  tt_error ignored = {0};
  if (!err) err = &ignored;
  if (!loops && !assembly && strcmp(stage, "llvm")) return tt_fail(err, TT_INVALID, "error: there is no stage %s\n  at dump\n  fix: use loops, llvm or asm", stage), NULL;
  const cg_llvm_api *api = loops ? NULL : cg_llvm_open(err);
  uint32_t *regions, n;
  if ((!loops && !api) || !list_kernels(g, &regions, &n, err)) return NULL;
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  bool ok = out;
  for (uint32_t i = 0; ok && i < n; i++) {
    const char *comment = loops || assembly ? "#" : ";";
    if (kind_of(g, regions[i]) == CALL) { fprintf(out, "%s kernel @%s: a call of rt_argsort\n\n", comment, g->kernels[regions[i]].name); continue; }
    ir_ref rows[MAX_ARGUMENTS], row;
    if (kind_of(g, regions[i]) == CONTRACT && cg_blas_wants(g, regions[i], &row)) { fprintf(out, "%s kernel @%s: a call of OpenBLAS (TT_BLAS=0: our own)\n\n", comment, g->kernels[regions[i]].name); continue; }
    lp_kernel *k = lower(g, regions[i], cpu, rows, err);
    char *one = !k ? NULL : loops ? lp_print(k) : api->text(cpu, k, assembly, err);
    ok = one != NULL;
    if (ok && !loops) fprintf(out, "%s kernel @%s\n", comment, g->kernels[regions[i]].name);      /* loops say their name */
    if (ok) fprintf(out, "%s\n", one);
    free(one);
    lp_free(k);
  }
  if (out && fclose(out)) ok = false;
  free(regions);
  if (ok) return text;
  free(text);
  tt_fail(err, TT_NO_MEMORY, "error: no memory for the text of @%s\n  at stage %s\n  fix: free memory", g->name, stage);
  return NULL;
}
