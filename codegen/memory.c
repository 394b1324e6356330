/* memory.c: the bytes that a placed graph's program will need, before any of it is compiled: kernels are lowered for their scratch, and a
 * program without steps has all the slots. */
#include "codegen.h"

#include <stdlib.h>
#include <string.h>

enum { LOOP, CONTRACT, CALL, MAX_ARGUMENTS = 1024 };

static bool scratch_of(const ir_graph *g, uint32_t region, const cg_cpu *cpu, size_t *scratch, tt_error *err) {
  uint32_t n;
  const int64_t *kind = ir_kernel_get(g, region, "kind", &n);
  ir_ref rows[MAX_ARGUMENTS], row;
  if ((kind && *kind == CALL) || (kind && *kind == CONTRACT && cg_blas_wants(g, region, &row))) return true;
  lp_kernel *k = kind && *kind == CONTRACT ? cg_lower_contract(g, region, cpu, rows, MAX_ARGUMENTS, err) : cg_lower(g, region, cpu, rows, MAX_ARGUMENTS, err);
  if (!k) return false;
  if (lp_scratch_bytes(k) > *scratch) *scratch = lp_scratch_bytes(k);
  lp_free(k);
  return true;
}

/* The scratch of all kernels, those of scans' bodies too, and the memory that scans need besides. */
static bool walk(cg_program *c, const ir_graph *g, const cg_cpu *cpu, size_t *scratch, tt_error *err) {
  bool *live = ir_live(g), ok = live;
  if (!live) tt_fail(err, TT_NO_MEMORY, "error: no memory to plan @%s\n  at %u rows\n  fix: free memory", g->name, g->n_nodes);
  for (ir_ref r = 1, before = 0; ok && r < g->n_nodes; r++) {
    uint32_t region = ir_at(g, r)->region;
    if (!live[r] || !region || region == before) continue;
    before = region;
    if (ir_at(g, r)->op == IR_scan) ok = cg_program_scan(c, region) && walk(c, ir_scan_body(g, ir_at(g, r)), cpu, scratch, err) && cg_program_scan_end(c);
    else ok = scratch_of(g, region, cpu, scratch, err);
  }
  free(live);
  return ok;
}

tt_status cg_memory(const ir_graph *g, const char *cpu_name, int n_threads, rt_memory *m, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  cg_cpu cpu;
  size_t scratch = 0;
  cg_program *c = cg_cpu_get(cpu_name, &cpu, err) == TT_OK ? cg_program_new(g, true, err) : NULL;
  rt_program *p = NULL;
  if (c && !walk(c, g, &cpu, &scratch, err)) cg_program_free(c), c = NULL;
  if (c && cg_program_finish(c, scratch, NULL, NULL, &p) == TT_OK) {
    *m = rt_program_memory(p, n_threads);
    rt_program_free(p);
    return TT_OK;
  }
  return err->status ? err->status : TT_NO_MEMORY;
}
