/* plan.c: reads off a placed graph what lies in its arena at each kernel; for people (`tinytorch plan`) and for tests. */
#include "form.h"

#include <stdlib.h>

void pass_plan_free(pass_plan *p) {
  if (!p) return;
  free(p->regions), free(p->values);
  free(p);
}

/* Kernel by kernel: its number for each row that it computes, and the last that reads a row. */
static void lives(const ir_graph *g, const group *groups, int n, int *maker, int *last) {
  for (ir_ref r = 0; r < g->n_nodes; r++) maker[r] = last[r] = -1;
  for (int k = 0; k < n; k++)
    for (int i = 0; i < groups[k].n; i++) {
      const ir_node *r = ir_at(g, groups[k].rows[i]);
      maker[groups[k].rows[i]] = last[groups[k].rows[i]] = k;
      for (uint32_t j = 0; j < r->n_args; j++) last[r->args[j]] = k;
    }
  for (uint32_t i = 0; i < g->n_effects; i++) {          /* copied when all kernels are done, unless it is in place */
    ir_ref value = ir_at(g, g->effects[i])->args[1];
    if (ir_at(g, value)->place != IR_UNPLACED) last[value] = n - 1;
  }
  for (int k = 0; k < n; k++) {
    uint32_t pairs;
    const int64_t *reuse = ir_kernel_get(g, groups[k].region, "reuse", &pairs);
    for (uint32_t i = 0; i + 1 < pairs; i += 2) last[reuse[i + 1]] = k - 1;
  }
}

pass_plan *pass_plan_of(const ir_graph *g, tt_error *err) {
  pass_plan *p = calloc(1, sizeof *p);
  int n = 0, *maker = malloc(g->n_nodes * sizeof *maker), *last = malloc(g->n_nodes * sizeof *last);
  group *groups = groups_of(g, &n);
  place_buffer *buffers = calloc(g->n_nodes, sizeof *buffers);
  bool *live = ir_live(g), ok = p && maker && last && groups && buffers && live;
  if (ok) ok = (p->values = calloc(g->n_nodes, sizeof *p->values)) && (p->regions = calloc((size_t)n + 1, sizeof *p->regions));
  if (ok) {
    lives(g, groups, n, maker, last);
    for (int k = 0; k < n; k++) p->regions[k] = groups[k].region;
    for (int k = 0; k < n; k++)
      for (int i = 0; i < groups[k].n; i++) {
        ir_ref r = groups[k].rows[i];
        if (ir_at(g, r)->place == IR_UNPLACED || !live[r]) continue;
        int64_t bytes = (pass_bytes(g, r) + 63) & ~(int64_t)63;
        bool kept = place_kept(g, groups, maker, last, r);
        buffers[p->n_values] = (place_buffer){.bytes = bytes, .first = kept ? 0 : k, .last = kept ? n - 1 : last[r]};
        p->values[p->n_values] = (pass_value){r, bytes, ir_at(g, r)->place, buffers[p->n_values].first, buffers[p->n_values].last};
        p->n_values++;
      }
    p->n_kernels = n;
    p->arena_bytes = g->arena_bytes;
    ok = (p->bound = place_bound(buffers, p->n_values, &p->peak)) >= 0;
  }
  groups_free(groups, n);
  free(maker), free(last), free(buffers), free(live);
  if (ok) return p;
  pass_plan_free(p);
  return tt_fail(err, TT_NO_MEMORY, "error: no memory for the plan of @%s\n  at %u rows\n  fix: free memory", g->name, g->n_nodes), NULL;
}
