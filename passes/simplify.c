/* simplify.c: makes every row that outputs and assigns need again, in a new graph. That is the whole simplifier: ir_emit folds
 * constants, applies the rules of rules.def and finds equal rows, and a row that nothing needs is not made.
 *
 *     %a = mul(%x, %one) : f32[4]
 *     %b = add(%a, %n)   : f32[4]     with %n = neg(%y)
 *     return %b                       gives  %b = sub(%x, %y) */
#include "passes.h"

#include <stdlib.h>

/* Also what a pass does that has nothing to do. Kernels are kept: their rows stay what they are, in the regions and places that they were in. */
tt_status pass_copy(const ir_graph *in, ir_graph *out, tt_error *err) {
  bool *live = ir_live(in);
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  if (!live || !map) {
    free(live), free(map);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at a pass over @%s\n  fix: free memory", in->n_nodes, in->name);
  }
  bool plain = out->plain;
  out->plain |= in->n_kernels > 1;
  for (uint32_t k = 1; k < in->n_kernels; k++) {
    uint32_t kernel = ir_kernel_add(out, in->kernels[k].name);
    for (uint32_t i = 0; i < in->kernels[k].n_plan; i++)
      ir_kernel_plan(out, kernel, in->kernels[k].plan[i].name, in->kernels[k].plan[i].values, in->kernels[k].plan[i].n);
  }
  for (ir_ref r = 1; r < in->n_nodes; r++)
    if (live[r]) {
      out->at_region = ir_at(in, r)->region;
      map[r] = ir_rebuild(in, out, r, map);
      if (ir_at(in, r)->place != IR_UNPLACED) ir_at(out, map[r])->place = ir_at(in, r)->place;
    }
  out->at_region = 0;
  out->arena_bytes = in->arena_bytes;
  ir_finish(in, out, map);
  out->plain = plain;
  free(live), free(map);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}

tt_status pass_simplify(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) { return pass_copy(in, out, err); }
tt_status pass_tidy(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) { return pass_copy(in, out, err); }
