/* prepack.c: weights that stay what they are from one call to the next, in the order in which a register tile reads them.
 *
 *     %y = matmul(%x, %w, tb=1) : [M,N]     gives     %p = stop_gradient(permute(reshape(%w))) : [P,K,L]      P panels of L columns; a copy, which is made once
 *                                                     %z = matmul(broadcast(%x), %p) : [P,M,L]                (freeze.c) where it depends on params alone
 *                                                     %y = reshape(permute(%z)) : [M,N]
 *
 * and so for a convolution: its output channels are cut into P groups, which all read the same image. A panel is two vectors wide, the width of the tile
 * that keeps the multiply-adds busiest (contract_choose.c); narrow results are one panel. Sizes that whole vectors do not divide are one panel of all
 * columns, which is still contiguous along them. A few rows times a matrix whose columns stand in memory one after the other are dot products, and need
 * no copy, and convolutions with short sums (window.c) pack their few weights themselves. Not done where the model's parameters change in every call. */
#include "form.h"

#include <stdlib.h>

enum { FEW_ROWS = 4 };

/* Columns of a panel, for vectors of v numbers. Rows that tiles do not divide evenly read one panel of all columns. */
static int64_t panel_of(int64_t columns, int64_t rows, int64_t v) {
  return columns <= 2 * v || rows % 4 ? columns : columns % (2 * v) == 0 ? 2 * v : columns % v == 0 ? v : columns;
}

static int64_t vector_of(const pass_options *o, tt_dtype t) {
  int64_t size = t == TT_F16 || t == TT_BF16 ? 4 : (int64_t)tt_dtype_size(t), v = (o->vector_bytes >= 16 ? o->vector_bytes : 32) / size;
  return v < 2 ? 2 : v;
}

/* y = matmul(x, w) with w [K,N] or, transposed, [N,K]. */
static ir_ref product(ir_graph *g, ir_ref x, ir_ref w, const ir_node *n, int64_t v) {
  bool ta = ir_int(n, "ta"), tb = ir_int(n, "tb");
  int64_t split = ir_int(n, "split");
  tt_shape sx = ir_shape(g, x), sw = ir_shape(g, w);
  int64_t N = sw.dim[!tb], K = sw.dim[tb], M = sx.dim[ta], L = panel_of(N, M, v), P = N / L;
  ir_ref p = tb ? ir_permute(g, ir_reshape(g, w, (tt_shape){.rank = 3, .dim = {P, L, K}}), (int[]){0, 2, 1})
                : ir_permute(g, ir_reshape(g, w, (tt_shape){.rank = 3, .dim = {K, P, L}}), (int[]){1, 0, 2});
  p = ir_stop_gradient(g, p);
  if (P == 1) return ir_matmul(g, x, ir_reshape(g, p, (tt_shape){.rank = 2, .dim = {K, N}}), ta, false, split);
  ir_ref all = ir_broadcast(g, x, (tt_shape){.rank = 3, .dim = {P, sx.dim[0], sx.dim[1]}}, (int[]){1, 2});
  ir_ref y = ir_matmul(g, all, p, ta, false, split);
  if (split > 1) return ir_reshape(g, ir_permute(g, y, (int[]){0, 2, 1, 3}), (tt_shape){.rank = 3, .dim = {split, M, N}});
  return ir_reshape(g, ir_permute(g, y, (int[]){1, 0, 2}), (tt_shape){.rank = 2, .dim = {M, N}});
}

/* y = conv(x, w) : [N,1,O,*D] with w [1,O,C,*K]: as [N,P,L,*D] with w [P,L,C,*K], which stands as [P,*K,C,L]. */
static ir_ref convolution(ir_graph *g, ir_ref x, ir_ref w, const ir_node *n, int64_t v) {
  tt_shape sx = ir_shape(g, x), s = ir_shape(g, w);
  int D = s.rank - 3, to[TT_MAX_RANK] = {0}, back[TT_MAX_RANK] = {0}, same[TT_MAX_RANK];
  int64_t L = panel_of(s.dim[1], n->dim[n->rank - 1], v), P = s.dim[1] / L;
  ir_conv_attrs a = {.split = ir_int(n, "split")};
  for (int i = 0; i < D; i++) a.stride[i] = ir_ints(n, "stride", NULL)[i], a.dilation[i] = ir_ints(n, "dilation", NULL)[i];
  s.dim[0] = P, s.dim[1] = L;
  for (int i = 0; i < D; i++) to[1 + i] = 3 + i;
  to[1 + D] = 2, to[2 + D] = 1;
  for (int i = 0; i < s.rank; i++) back[to[i]] = i;
  ir_ref p = ir_stop_gradient(g, ir_permute(g, ir_reshape(g, w, s), to));
  if (P > 1) {
    for (int i = 0; i < sx.rank; i++) same[i] = i;
    sx.dim[1] = P;
    x = ir_broadcast(g, x, sx, same);
  }
  ir_ref y = ir_conv(g, x, ir_permute(g, p, back), &a);
  tt_shape all = {.rank = n->rank};
  for (int i = 0; i < n->rank; i++) all.dim[i] = n->dim[i];
  return P > 1 ? ir_reshape(g, y, all) : y;
}

static bool wants(const ir_graph *g, ir_ref r, const bool *fixed, int64_t v) {
  const ir_node *n = ir_at(g, r);
  pass_window window;
  if (n->op != IR_matmul && n->op != IR_conv) return false;
  const ir_node *x = ir_at(g, n->args[0]), *w = ir_at(g, n->args[1]);
  tt_shape s = ir_shape(g, n->args[1]), sx = ir_shape(g, n->args[0]);
  if (fixed[n->args[0]] || !fixed[n->args[1]] || !tt_shape_count(&s) || !tt_shape_count(&sx)) return false;
  if (n->op == IR_matmul) {
    int64_t columns = n->dim[n->rank - 1];
    bool stands = !ir_int(n, "tb") && panel_of(columns, n->dim[n->rank - 2], v) == columns;
    return w->rank == 2 && x->rank == 2 && x->dim[ir_int(n, "ta") != 0] >= FEW_ROWS && !stands;
  }
  int64_t pixels = n->dim[0];
  for (int i = n->rank - (w->rank - 3); i < n->rank; i++) pixels *= n->dim[i];
  for (int i = 0; i < w->rank - 3; i++)
    if (ir_ints(n, "lo", NULL)[i] || ir_ints(n, "hi", NULL)[i] || ir_ints(n, "x_dilation", NULL)[i] != 1) return false;
  return w->dim[0] == 1 && pixels >= FEW_ROWS && !pass_window_of(g, r, &window);
}

tt_status pass_prepack(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in), *fixed = pass_fixed_rows(in, options);
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  bool ok = live && fixed && map;
  for (ir_ref r = 1; ok && r < in->n_nodes && !out->error.status; r++) {
    if (!live[r]) continue;
    const ir_node *n = ir_at(in, r);
    int64_t v = vector_of(options, (tt_dtype)n->dtype);
    if (!wants(in, r, fixed, v)) {
      map[r] = ir_rebuild(in, out, r, map);
      continue;
    }
    out->at_origin = ir_origin_copy(out, in, n->origin);
    map[r] = n->op == IR_matmul ? product(out, map[n->args[0]], map[n->args[1]], n, v) : convolution(out, map[n->args[0]], map[n->args[1]], n, v);
    out->at_origin = 0;
  }
  if (ok) ir_finish(in, out, map);
  free(live), free(fixed), free(map);
  if (!ok) return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass prepack\n  fix: free memory", in->n_nodes);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
