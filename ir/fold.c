/* fold.c: what ir_emit need not make because its value is known: an op on constants is a constant, an op on splats (a number
 * broadcast) is computed once, on rank 0, and broadcast. Values come from ir_eval_node, so folding cannot mean anything else
 * than the op. A broadcast of a number itself stays: it is the form that rules match. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RESULT = 4096, MAX_WORK = 1 << 16 };     /* elements; beyond these, folding costs more than it gives */

/* The rank-0 constant that r broadcasts, r itself when it is one, or 0. */
static ir_ref splat_of(const ir_graph *g, ir_ref r) {
  while (ir_at(g, r)->op == IR_broadcast) r = ir_at(g, r)->args[0];
  return ir_at(g, r)->op == IR_const && ir_at(g, r)->rank == 0 ? r : 0;
}

/* Evaluates the row that would be next, in its place, without appending it. */
static ir_ref evaluate(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, tt_dtype t, const tt_shape *s) {
  size_t bytes = (size_t)tt_shape_count(s) * tt_dtype_size(t);
  const void **data = malloc((n_args + 1) * sizeof *data);
  void *out = malloc(bytes + 1);
  ir_graph one = *g;                                 /* a view of g with one more row, in a block of its own */
  ir_node **blocks = malloc((g->n_nodes / IR_BLOCK + 1) * sizeof *blocks), *spare = NULL;
  ir_ref r = 0;
  if (data && out && blocks) {
    memcpy(blocks, g->blocks, (g->n_nodes + IR_BLOCK - 1) / IR_BLOCK * sizeof *blocks);
    if (g->n_nodes % IR_BLOCK == 0) blocks[g->n_nodes / IR_BLOCK] = spare = calloc(IR_BLOCK, sizeof *spare);
  }
  if (!data || !out || !blocks || (g->n_nodes % IR_BLOCK == 0 && !spare)) tt_fail(&g->error, TT_NO_MEMORY, "error: no memory for folding %s\n  at @%s\n  fix: make the model smaller", ir_ops[op].name, g->name);
  else {
    one.blocks = blocks;
    ir_node *n = ir_at(&one, one.n_nodes);
    *n = (ir_node){.op = (uint16_t)op, .dtype = (uint8_t)t, .rank = (uint8_t)s->rank, .n_args = n_args, .n_words = n_words, .args = args, .words = words, .place = IR_UNPLACED};
    memcpy(n->dim, s->dim, (size_t)s->rank * sizeof *n->dim);
    for (uint32_t i = 0; i < n_args; i++) data[i] = g->blobs[ir_int(ir_at(g, args[i]), "value")].data;
    if (ir_eval_node(&one, one.n_nodes++, data, out, &g->error) == TT_OK) r = ir_const(g, t, *s, out);    /* its row overwrites n */
  }
  free(data), free(out), free(blocks), free(spare);
  return r;
}

bool ir_fold_constants(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, tt_dtype t, const tt_shape *s, ir_ref *result) {
  uint8_t kind = ir_ops[op].kind;
  if (!n_args || kind == IR_LEAF || kind == IR_CONTROL || kind == IR_EFFECT || kind == IR_COMPOSITE) return false;

  bool splats = true, constant = true;
  int64_t work = tt_shape_count(s);
  for (uint32_t i = 0; i < n_args; i++) {
    const ir_node *a = ir_at(g, args[i]);
    tt_shape shape = ir_shape(g, args[i]);
    splats &= splat_of(g, args[i]) != 0;
    constant &= a->op == IR_const;
    work = tt_shape_count(&shape) > MAX_WORK ? INT64_MAX / 2 : work + tt_shape_count(&shape);
  }

  /* Every element of the result is one number. */
  bool moves = op == IR_reshape || op == IR_permute || op == IR_slice || op == IR_reverse || op == IR_unfold || op == IR_broadcast;
  if (splats && (kind == IR_ELEMENTWISE || moves)) {
    ir_ref scalars[3] = {0}, one;
    for (uint32_t i = 0; i < n_args; i++) scalars[i] = splat_of(g, args[i]);
    if (op == IR_broadcast && scalars[0] == args[0]) return false;
    one = moves ? scalars[0] : evaluate(g, op, scalars, n_args, words, n_words, t, &(tt_shape){0});
    *result = one && s->rank ? ir_broadcast(g, one, *s, NULL) : one;
    return true;
  }
  if (!constant || op == IR_broadcast || tt_shape_count(s) > MAX_RESULT || work > MAX_WORK) return false;
  *result = evaluate(g, op, args, n_args, words, n_words, t, s);
  return true;
}
