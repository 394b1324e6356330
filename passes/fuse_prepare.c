/* fuse_prepare.c: what fuse is given: the graph without what is dead, in which fewer values have to be kept.
 *
 * gt(%x, 0) asks relu(%x) where that exists, so that %x need not be kept for the backward pass. And where a convolution reads %y padded,
 * the others read it there too, so that %y itself is never written and the padding is done by the kernel that computes it:
 *
 *     %y = sub(%a, %b) : [64,32,32,16]              %y = sub(%a, %b)
 *     %p = pad(%y, 0) : [64,34,34,16]      gives    %p = pad(%y, 0) : [64,34,34,16]
 *     %c = conv(%p, %w)                             %c = conv(%p, %w)
 *     %z = conv(%x, %y)                             %s = slice(%p, start=[0,1,1,0], ...) : [64,32,32,16]
 *                                                   %z = conv(%x, %s)
 *
 * Not where %y is stored by a contraction's kernel, which cannot pad, nor where the padding is much of the whole.
 *
 * So also where the result of attention is read permuted, heads beside each other, and by its derivative as it is: it is stored permuted, once, and the
 * derivative reads it there. */
#include "form.h"

#include <stdlib.h>

enum { MAX_VIEWS = 8 };              /* reshapes between a value and its pad */

static double count(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (double)tt_shape_count(&s);
}

/* Is r, as far up as nobody else reads on the way, made from a contraction that only it reads? */
static bool is_epilogue(const ir_graph *g, ir_ref r, const uint32_t *uses) {
  const ir_node *n = ir_at(g, r);
  for (uint32_t k = 0; k < n->n_args; k++) {
    ir_ref a = n->args[k];
    const ir_node *x = ir_at(g, a);
    if (uses[a] != 1 || count(g, a) != count(g, r)) continue;
    if (x->op == IR_conv || x->op == IR_winograd || x->op == IR_matmul) return true;
    if ((ir_ops[x->op].kind == IR_ELEMENTWISE || x->op == IR_reshape || x->op == IR_permute) && is_epilogue(g, a, uses)) return true;
  }
  return false;
}

/* The value that pad p pads, seen through the reshapes between them (nearest to p first); 0: it has to be stored anyway. */
static ir_ref padded_value(const ir_graph *g, ir_ref p, const bool *kept, const uint32_t *uses, ir_ref *views, int *n_views) {
  const ir_node *n = ir_at(g, p);
  const int64_t *interior = ir_ints(n, "interior", NULL);
  double zero = 1;
  ir_ref y = n->args[0];
  for (int i = 0; i < n->rank; i++)
    if (interior[i]) return 0;
  bool shared = false, stored = false;
  *n_views = 0;
  for (; ir_at(g, y)->op == IR_reshape && *n_views < MAX_VIEWS; y = ir_at(g, y)->args[0]) {
    shared |= uses[y] > 1, stored |= kept[y];
    views[(*n_views)++] = y;
  }
  shared |= uses[y] > 1, stored |= kept[y];
  bool good = ir_is_splat(g, n->args[1], &zero) && zero == 0 && ir_ops[ir_at(g, y)->op].kind == IR_ELEMENTWISE && shared && !stored;
  return good && count(g, p) <= 2 * count(g, y) && !is_epilogue(g, y, uses) ? y : 0;
}

/* For each value its pad that a convolution reads; 0: none. */
static void find_pads(const ir_graph *g, const bool *live, const bool *kept, const uint32_t *uses, ir_ref *pad_of) {
  ir_ref views[MAX_VIEWS];
  int n;
  for (ir_ref r = 1; r < g->n_nodes; r++)
    for (int k = 0; live[r] && (ir_at(g, r)->op == IR_conv || ir_at(g, r)->op == IR_winograd) && k < 2; k++) {
      ir_ref base = form_operand_base(g, r, k, false), y = ir_at(g, base)->op == IR_pad ? padded_value(g, base, kept, uses, views, &n) : 0;
      if (y && !pad_of[y]) pad_of[y] = base;
    }
}

/* For each result of attention that has other readers too, the permute that reads it; 0: none. */
static void find_turned(const ir_graph *g, const bool *live, const bool *kept, const uint32_t *uses, ir_ref *turned) {
  for (ir_ref r = g->n_nodes - 1; r > 0; r--) {
    const ir_node *n = ir_at(g, r);
    if (live[r] && n->op == IR_permute && ir_is_attention((ir_op)ir_at(g, n->args[0])->op) && uses[n->args[0]] > 1 && !kept[n->args[0]]) turned[n->args[0]] = r;
  }
}

/* Makes the permute of y, which is map[y] so far; from now on y is read there. */
static void turn_at_once(const ir_graph *in, ir_graph *g, ir_ref y, ir_ref permute, ir_ref *map) {
  const int64_t *perm = ir_ints(ir_at(in, permute), "perm", NULL);
  int back[TT_MAX_RANK];
  for (int i = 0; i < ir_at(in, y)->rank; i++) back[perm[i]] = i;
  map[permute] = ir_rebuild(in, g, permute, map);
  g->at_origin = ir_origin_copy(g, in, ir_at(in, y)->origin);
  map[y] = ir_permute(g, map[permute], back);
  g->at_origin = 0;
}

/* Makes the pad of y, which is map[y] so far; from now on y and the views between them are read there. */
static void pad_at_once(const ir_graph *in, ir_graph *g, ir_ref y, ir_ref pad, const bool *kept, const uint32_t *uses, ir_ref *map) {
  ir_ref views[MAX_VIEWS], x = map[y];
  int n;
  const ir_node *p = ir_at(in, pad);
  padded_value(in, pad, kept, uses, views, &n);
  const int64_t *lo = ir_ints(p, "lo", NULL);
  int64_t stop[TT_MAX_RANK], step[TT_MAX_RANK];
  g->at_origin = ir_origin_copy(g, in, p->origin);
  for (int i = n - 1; i >= 0; i--) x = ir_reshape(g, x, ir_shape(in, views[i]));
  ir_ref args[2] = {x, ir_scalar(g, (tt_dtype)p->dtype, 0)};
  map[pad] = x = ir_emit(g, IR_pad, args, 2, p->words, p->n_words);
  for (int i = 0; i < p->rank; i++) stop[i] = lo[i] + ir_at(in, p->args[0])->dim[i], step[i] = 1;
  x = ir_slice(g, x, lo, stop, step);
  for (int i = 0; i < n; i++) {
    map[views[i]] = x;
    x = ir_reshape(g, x, ir_shape(in, ir_at(in, views[i])->args[0]));
  }
  map[y] = x;
  g->at_origin = 0;
}

ir_graph *fuse_prepare(const ir_graph *in, tt_error *err) {
  ir_graph *g = ir_graph_new(in->name);
  bool *live = ir_live(in), *kept = calloc(in->n_nodes, sizeof *kept);
  uint32_t *uses = live ? ir_use_counts(in, live) : NULL;
  ir_ref *map = calloc(in->n_nodes, sizeof *map), *relu = calloc(in->n_nodes, sizeof *relu), *pad_of = calloc(in->n_nodes, sizeof *pad_of), *turned = calloc(in->n_nodes, sizeof *turned);
  bool ok = g && live && kept && uses && map && relu && pad_of && turned;
  if (ok) {
    g->plain = true;
    for (uint32_t i = 0; i < in->n_outputs; i++) kept[in->outputs[i].value] = true;
    for (uint32_t i = 0; i < in->n_effects; i++) kept[ir_at(in, in->effects[i])->args[1]] = true;
    find_pads(in, live, kept, uses, pad_of);
    find_turned(in, live, kept, uses, turned);
  }
  for (ir_ref r = 1; ok && r < in->n_nodes && !g->error.status; r++) {
    if (!live[r] || map[r]) continue;
    const ir_node *n = ir_at(in, r);
    double zero = 1;
    ir_ref x = n->n_args ? n->args[0] : 0, before = map[x];
    if (n->op == IR_gt && relu[x] && ir_is_splat(in, n->args[1], &zero) && zero == 0) map[x] = relu[x];
    map[r] = ir_rebuild(in, g, r, map);
    for (ir_ref m = r + 1; n->op == IR_scan && m < in->n_nodes; m++)        /* all results of a scan stand side by side */
      if (live[m] && ir_same_scan(in, r, m)) map[m] = ir_rebuild(in, g, m, map);
    map[x] = before;
    if (turned[r]) turn_at_once(in, g, r, turned[r], map);
    if (pad_of[r]) pad_at_once(in, g, r, pad_of[r], kept, uses, map);
    if (n->op == IR_relu) relu[x] = map[r];
  }
  if (ok) ir_finish(in, g, map);
  free(live), free(kept), free(uses), free(map), free(relu), free(pad_of), free(turned);
  if (ok && !g->error.status) return g;
  if (ok) tt_fail(err, g->error.status, "%s", g->error.message);
  else tt_fail(err, TT_NO_MEMORY, "error: no memory to fuse @%s\n  at %u rows\n  fix: free memory", in->name, in->n_nodes);
  ir_graph_free(g);
  return NULL;
}
