/* interp.c: the backend that generates nothing. Every live row of the graph is a step that evaluates it in plain C (ir/eval*.c), at
 * any stage of the pipeline without composites; kernels, plans and places mean nothing to it. What the JIT makes is tested and
 * measured against it. */
#include "codegen.h"

#include <stdlib.h>
#include <string.h>

typedef struct { const ir_graph *g; ir_ref row; } context;

/* args: the row's operands, then its result. */
static void evaluate(char *const *args, int64_t begin, int64_t end, char *scratch, const void *of) {
  const context *c = of;
  uint32_t n = ir_at(c->g, c->row)->n_args;
  (void)scratch;
  if (begin >= end || ir_eval_node(c->g, c->row, (const void *const *)args, args[n], NULL) == TT_OK) return;
  /* The only failure left is no memory for a temporary, which a kernel has no way to report: the result is made one that is seen. */
  tt_shape s = ir_shape(c->g, c->row);
  memset(args[n], 0xff, (size_t)tt_shape_count(&s) * tt_dtype_size((tt_dtype)ir_at(c->g, c->row)->dtype));
}

static void free_graph(void *g) { ir_graph_free(g); }

static bool row_step(cg_program *c, const ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  char label[100];
  context *with = cg_program_alloc(c, sizeof *with);
  ir_ref *args = malloc((n->n_args + 1) * sizeof *args);
  bool ok = with && args;
  if (ok) {
    *with = (context){g, r};
    if (n->n_args) memcpy(args, n->args, n->n_args * sizeof *args);
    args[n->n_args] = r;
    ok = cg_program_step(c, &(cg_step){.run = evaluate, .context = with, .name = ir_label(g, r, label, sizeof label), .row = r, .args = args, .n_args = n->n_args + 1, .tasks = 1, .serial = true});
  }
  free(args);
  return ok;
}

tt_status cg_interp(const ir_graph *g, const cg_options *o, rt_program **p, tt_error *err) {
  (void)o;
  tt_error ignored = {0};
  if (!err) err = &ignored;
  if (g->error.status) return tt_fail(err, g->error.status, "%s", g->error.message);
  ir_graph *own = ir_clone(g);
  bool *live = own ? ir_live(own) : NULL;
  cg_program *c = live ? cg_program_new(own, false, err) : NULL;
  bool ok = c;
  if (!live) tt_fail(err, TT_NO_MEMORY, "error: no memory for the program of @%s\n  at %u rows\n  fix: make the model smaller", g->name, g->n_nodes);
  for (ir_ref r = 1; ok && r < own->n_nodes; r++) {
    uint16_t op = ir_at(own, r)->op;
    if (!live[r] || op == IR_input || op == IR_param || op == IR_const || op == IR_assign) continue;
    char label[100];
    if (ir_ops[op].kind == IR_COMPOSITE)
      ok = tt_fail(err, TT_INVALID, "error: %s is not evaluated as it is\n  at row %u, %s of @%s\n  fix: run the pass decompose before", ir_ops[op].name, r, ir_label(own, r, label, sizeof label), own->name) == TT_OK;
    else ok = row_step(c, own, r);
  }
  free(live);
  if (ok) return cg_program_finish(c, 0, own, free_graph, p);
  cg_program_free(c);
  ir_graph_free(own);
  return err->status;
}
