/* freeze.c: what follows from parameters alone is computed once, not in every call.
 *
 *     kernel @k0(%w) -> %u [kind=0, ..., once=1]            runs when a parameter has changed (runtime/execute.c), and its results stay
 *     kernel @k1(%x, %u) -> %y [kind=1]                     runs in every call
 *
 * Such kernels come first, in the order they had. Only in programs that assign nothing: a step that trains changes its parameters in every call; and under
 * no memory budget, because what stays takes memory. A kernel with an output of the program stays with the others: outputs may be bound anew between two
 * calls. */
#include "form.h"

#include <stdlib.h>

bool pass_is_once(const ir_graph *g, uint32_t region) {
  uint32_t n;
  const int64_t *once = region ? ir_kernel_get(g, region, "once", &n) : NULL;
  return once && n && *once;
}

bool *pass_fixed_rows(const ir_graph *g, const pass_options *options) {
  bool *fixed = calloc(g->n_nodes, sizeof *fixed);
  uint32_t leaves = 0;
  for (ir_ref r = 1; fixed && (options->body || !g->n_effects) && r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    bool leaf = n->op == IR_input || n->op == IR_param;
    fixed[r] = options->body && leaf ? leaves++ >= options->body_steps : n->op != IR_input && n->op != IR_poison && n->op != IR_assign;
    for (uint32_t i = 0; i < n->n_args; i++) fixed[r] &= fixed[n->args[i]];
  }
  return fixed;
}

/* once[region]: all that the kernel reads is params, constants, and results of such kernels. fixed: of each row, false. */
static void find(const ir_graph *g, const group *groups, int n, bool *fixed, bool *once) {
  for (int k = 0; k < n; k++) {
    const group *x = &groups[k];
    bool all = true;
    for (int i = 0; i < x->n; i++) {
      const ir_node *r = ir_at(g, x->rows[i]);
      fixed[x->rows[i]] = r->op != IR_scan;          /* its steps are no prefix of the program's */
      for (uint32_t j = 0; j < r->n_args; j++) fixed[x->rows[i]] &= fixed[r->args[j]] || ir_at(g, r->args[j])->op == IR_param || ir_at(g, r->args[j])->op == IR_const;
      all &= fixed[x->rows[i]];
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) all &= ir_at(g, g->outputs[i].value)->region != x->region;
    for (int i = 0; i < x->n; i++) fixed[x->rows[i]] = all;
    once[x->region] = all;
  }
}

static void plan_kernel(void *user, const group *x, const ir_graph *in, ir_graph *out, uint32_t region) {
  const bool *once = user;
  const ir_kernel *k = &in->kernels[x->region];
  for (uint32_t i = 0; i < k->n_plan; i++) ir_kernel_plan(out, region, k->plan[i].name, k->plan[i].values, k->plan[i].n);
  if (once[x->region]) ir_kernel_plan(out, region, "once", &(int64_t){1}, 1);
}

tt_status pass_freeze(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  int n = 0, m = 0;
  group *groups = groups_of(in, &n);
  int *order = calloc((size_t)n + 1, sizeof *order);
  bool *fixed = calloc(in->n_nodes, sizeof *fixed), *once = calloc(in->n_kernels + 1, sizeof *once), ok = groups && order && fixed && once;
  if (ok && !in->n_effects && options->memory_budget <= 0) find(in, groups, n, fixed, once);
  for (int first = 1; ok && first >= 0; first--)
    for (int k = 0; k < n; k++)
      if (once[groups[k].region] == first) order[m++] = k;
  tt_status status = ok ? groups_emit(in, out, groups, n, order, plan_kernel, once, err)
                        : tt_fail(err, TT_NO_MEMORY, "error: no memory for the kernels of @%s\n  at pass freeze\n  fix: free memory", in->name);
  groups_free(groups, n);
  free(order), free(fixed), free(once);
  return status;
}
