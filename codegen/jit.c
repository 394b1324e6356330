/* jit.c: from a scheduled, placed graph to a program of machine code: its kernels as loops (kernels.c), their code from the cache or from LLVM
 * (code.c), and the tables (program.c). argsort is a C function of the runtime. Nothing falls back to the interpreter: what cannot be lowered is an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code.h"
#include "keep.h"

typedef struct { const ir_graph *g; const cg_kernels *ks; tt_error *err; } job;

/* argsort: the lines along the axis are sorted one by one by the runtime's C function. */
static bool call_step(job *j, cg_program *c, uint32_t i) {
  const ir_graph *g = j->ks->graphs[i];
  uint32_t region = j->ks->regions[i];
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

static void free_code(void *code) { rt_code_free(code); }

tt_status cg_program_of(const cg_kernels *ks, rt_kernel *const *symbols, rt_code *code, rt_program **p, tt_error *err) {
  job one = {ks->g, ks, err}, *j = &one;
  cg_program *c = cg_program_new(j->g, true, j->err);
  bool ok = c;
  size_t scratch = 0;
  for (uint32_t i = 0; ok && i < ks->n_regions; i++) {
    ir_ref row;
    const ir_graph *g = ks->graphs[i];
    if (ks->which[i] == CG_SCAN) { ok = cg_program_scan(c, ks->regions[i]); continue; }
    if (ks->which[i] == CG_END) { ok = cg_program_scan_end(c); continue; }
    if (ks->which[i] == CG_CALL) { ok = call_step(j, c, i); continue; }
    if (ks->which[i] == CG_BLAS) { ok = cg_blas_wants(g, ks->regions[i], &row) && cg_blas_step(g, ks->regions[i], row, c); continue; }
    lp_kernel *k = ks->kernels[ks->which[i]].loops;
    int64_t task_bytes[CG_MAX_ARGUMENTS] = {0};
    cg_task_bytes(k, task_bytes);
    if (lp_scratch_bytes(k) > scratch) scratch = lp_scratch_bytes(k);
    ok = cg_program_step(c, &(cg_step){.run = symbols[ks->which[i]], .context = &rt_function_table, .name = g->kernels[ks->regions[i]].name, .region = ks->regions[i], .args = ks->rows[i], .task_bytes = task_bytes, .n_args = ks->n_rows[i], .tasks = k->tasks});
  }
  if (ok) return cg_program_finish(c, scratch, code, free_code, p);
  cg_program_free(c);
  free_code(code);
  return j->err->status;
}

tt_status cg_jit(const ir_graph *g, const cg_options *options, rt_program **p, tt_error *err) {
  tt_error ignored = {0};
  const cg_options none = {0}, *o = options ? options : &none;
  if (!err) err = &ignored;
  cg_cpu cpu;
  cg_kernels ks;
  if (ir_verify(g, "scheduling", err) != TT_OK || cg_cpu_get(o->cpu, &cpu, err) != TT_OK || !cg_kernels_of(g, &cpu, o->n_threads, true, o->stop, &ks, err)) return err->status;
  rt_kernel **symbols = calloc((size_t)ks.n_kernels + 1, sizeof *symbols);
  rt_code *code = symbols ? cg_code(ks.kernels, ks.n_kernels, &cpu, o, symbols, err) : NULL;
  if (!symbols) tt_fail(err, TT_NO_MEMORY, "error: no memory to compile @%s\n  at %d kernels\n  fix: make the model smaller", g->name, ks.n_kernels);
  tt_status status = code ? cg_program_of(&ks, symbols, code, p, err) : err->status;
  if (status == TT_OK) (*p)->tuned = o->tuned;
  if (status == TT_OK && o->cache && o->keep) cg_keep_put(o->cache, o->keep, *p, &ks, &cpu, symbols);
  free(symbols);
  cg_kernels_free(&ks);
  return status;
}
