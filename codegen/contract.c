/* contract.c: a matmul or a convolution with its views and its epilogue, as loops around a register tile.
 *
 * Both ops are one form: a sum, over summed axes k, of a[...] * b[...], whose addresses are (nearly always) affine in the axes
 * once the views in front of the operands have been folded into strides. So matmul in all transpositions, convolution and both of
 * its gradients differ only in a table of axes, and one nest serves them:
 *
 *     task = (batch, chunk of rows, panel)          a panel: `lanes` places of the vectorized axis
 *       [pack the vectorized operand's panel into scratch, in the order of the summed loops]
 *       for each tile of T rows of the chunk
 *         acc[T] = 0                                T x lanes accumulators live in registers
 *         for k...: v = panel[k]; for i < T: acc[i] += s[row i, k] * v
 *         epilogue, store
 *
 * Which axis is vectorized is chosen by its strides: one of b (or of a, the roles are then swapped) that is contiguous in its operand
 * and in the result; when none is contiguous, the panel is packed. Rows are the axes of the other operand. Few rows get more lanes.
 * A long sum is cut into blocks so that a panel stays in L2; partial tiles then live in scratch. An epilogue with costly functions
 * runs as a loop over the tile, not unrolled, for the sake of compile time. Without a usable vector axis (a row times a matrix whose
 * rows are contiguous) each result is a dot product along the summed axis. Nothing here depends on the number of threads. */
#include <stdlib.h>
#include "contract.h"

/* ---- the form: axes, and where an operand or the result is read at given axes ---- */

static void add_axis(contraction *c, int64_t extent, bool summed) { c->axes[c->n_axes++] = (axis){.extent = extent, .summed = summed}; }

/* Axes in the order of the result's dimensions (so the first rank(row) are them), then the summed ones. */
static void list_axes(contraction *c) {
  const ir_node *n = ir_at(c->g, c->row), *a = ir_at(c->g, n->args[0]), *b = ir_at(c->g, n->args[1]);
  int64_t split = ir_int(n, "split");
  for (int i = 0; i < n->rank; i++) add_axis(c, n->dim[i], false);
  if (split < 1) split = 1;
  if (n->op == IR_matmul) {
    int64_t k = a->dim[a->rank - (ir_int(n, "ta") ? 2 : 1)];
    add_axis(c, k / split, true);
  } else {
    add_axis(c, a->dim[2] / split, true);
    for (int i = 3; i < b->rank; i++) add_axis(c, b->dim[i], true);
  }
}

/* Index vector of operand `which` (A, B) at the axes' values. */
static void operand_index(const contraction *c, lp_kernel *k, int which, const lp_ref *at, lp_ref *index) {
  const ir_node *n = ir_at(c->g, c->row), *x = ir_at(c->g, n->args[which]);
  bool split = ir_int(n, "split") > 1;
  const lp_ref *out = at + split;                     /* the result's own dimensions */
  lp_ref part = split ? lp_mul(k, at[0], c->axes[n->rank].extent) : lp_int(k, 0);
  if (n->op == IR_matmul) {
    int batch = x->rank - 2;
    bool transposed = ir_int(n, which == A ? "ta" : "tb");
    lp_ref sum = lp_add(k, part, at[n->rank]), own = out[batch + which];
    for (int i = 0; i < batch; i++) index[i] = out[i];
    bool sum_last = (which == A) != transposed;
    index[batch + sum_last] = sum;
    index[batch + !sum_last] = own;
    return;
  }
  int count;
  const int64_t *stride = ir_ints(n, "stride", &count), *dilation = ir_ints(n, "dilation", &count);
  lp_ref channel = lp_add(k, part, at[n->rank]);
  if (which == B) {
    index[0] = out[1], index[1] = out[2], index[2] = channel;
    for (int i = 0; i < count; i++) index[3 + i] = at[n->rank + 1 + i];
    return;
  }
  index[0] = out[0], index[1] = out[1], index[2] = channel;
  for (int i = 0; i < count; i++)
    index[3 + i] = lp_add(k, lp_mul(k, out[3 + i], stride[i]), lp_mul(k, at[n->rank + 1 + i], dilation[i]));
}

lp_ref con_operand(const contraction *c, lower_ctx *lx, int which, const lp_ref *at) {
  lp_ref index[TT_MAX_RANK];
  operand_index(c, lx->k, which, at, index);
  return lower_pull(lx, ir_at(c->g, c->row)->args[which], index);
}

/* Strides of every axis in both operands and in the first result, found by asking the addresses themselves. */
static bool measure_strides(contraction *c) {
  lp_kernel *k = lp_new("axes", 1);
  lower_ctx *lx = k ? lower_begin(c->g, c->lx->region, k, c->cpu, c->lx->err) : NULL;
  if (!lx) {
    lp_free(k);
    return false;
  }
  lp_ref at[MAX_AXES], address[3] = {0};
  int var[MAX_AXES];
  for (int i = 0; i < c->n_axes; i++) {
    var[i] = lp_var_add(k, "x", c->axes[i].extent > 0 ? c->axes[i].extent : 1);
    at[i] = c->axes[i].extent == 1 ? lp_int(k, 0) : lp_var(k, var[i]);
  }
  for (int which = A; which <= B; which++) {
    lp_ref e = con_operand(c, lx, which, at);
    address[which] = e && k->exprs[e].kind == LX_LOAD ? k->exprs[e].a[0] : 0;
  }
  lp_ref to[TT_MAX_RANK];
  ir_ref result = lower_result(lx, 0);
  if (lower_push(lx, c->row, result, at, to)) address[C] = lower_linear(lx, result, to);
  for (int i = 0; i < c->n_axes; i++)
    for (int which = A; which <= C; which++) {
      axis *x = &c->axes[i];
      if (which == C && x->summed) continue;
      x->affine[which] = x->extent == 1 || (address[which] && lp_affine(k, address[which], var[i], &x->stride[which]));
      if (x->extent == 1) x->stride[which] = 0;
    }
  bool ok = address[A] && address[B] && address[C];
  lower_end(lx);
  lp_free(k);
  if (!ok) tt_fail(c->lx->err, TT_INTERNAL, "contract: an operand of kernel %s is not a view", c->g->kernels[c->lx->region].name);
  return ok;
}

bool con_depends(const axis *x, int which) { return x->extent != 1 && !(x->affine[which] && x->stride[which] == 0); }

int64_t con_magnitude(const axis *x, int which) {
  int64_t s = x->stride[which];
  return !x->affine[which] ? INT64_MAX : s < 0 ? -s : s;
}

/* Sorts axis numbers by falling stride in `which`, then in `then`. */
int64_t con_nearest_divisor(int64_t n, int64_t wanted) {         /* the smallest divisor >= wanted, or n */
  for (int64_t d = wanted < 1 ? 1 : wanted; d < n && d < 4 * wanted + 4; d++)
    if (n % d == 0) return d;
  return n;
}

lp_kernel *cg_lower_contract(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, int max_rows, tt_error *err) {
  lp_kernel *k = lp_new(g->kernels[region].name, 0);
  lower_ctx *lx = k ? lower_begin(g, region, k, cpu, err) : NULL;
  contraction c = {.lx = lx, .g = g, .cpu = cpu};
  bool ok = lx != NULL;
  if (ok) {
    for (ir_ref r = 1; r < g->n_nodes; r++)
      if (ir_at(g, r)->region == region && (ir_at(g, r)->op == IR_matmul || ir_at(g, r)->op == IR_conv)) c.row = r;
    if (!c.row) {
      tt_fail(err, TT_INVALID, "error: kernel %s is planned as a contraction, but has no matmul or conv\n  at its plan, kind=1\n  fix: let the schedule pass plan it", g->kernels[region].name);
      lower_end(lx), lp_free(k);
      return NULL;
    }
    tt_dtype t = ir_at(g, c.row)->dtype;
    c.acc_type = t == TT_F16 || t == TT_BF16 ? TT_F32 : t;
    list_axes(&c);
    ok = measure_strides(&c);
  }
  if (ok) {
    tt_shape shape = ir_shape(g, c.row);
    if (tt_shape_count(&shape) > 0) {
      con_choose(&c);
      bool reads_rows = c.vec >= 0 && c.pack && c.n_rows_all * c.n_outer_all < 4 && c.n_sum &&
                        con_magnitude(&c.axes[c.sum[c.n_sum - 1]], A) <= 1 && con_magnitude(&c.axes[c.sum[c.n_sum - 1]], B) <= 1;
      if (reads_rows) {                               /* few rows of a matrix that stands transposed: read it as it stands */
        c.n_batch = 0, c.lanes = 4 * cpu->vector_bytes / (int64_t)tt_dtype_size(c.acc_type);
        for (int i = 0; i < c.n_axes; i++)
          if (!c.axes[i].summed) c.batch[c.n_batch++] = i;
      }
      if (c.vec < 0 || reads_rows) con_dot_products(&c);
      else con_register_tiles(&c);
      lp_unroll(k);
    }
    ok = lower_arguments(lx, rows, max_rows);
  }
  if (lx) lower_end(lx);
  if (!ok) {
    lp_free(k);
    return NULL;
  }
  return k;
}
