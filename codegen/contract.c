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
 * A convolution of a dilated x (the input gradient of a strided one) is a sum over few of the taps, other ones for every residue of the output's
 * position: each residue is a contraction of its own with its own tasks, so that no zero is multiplied.
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

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* The phases of conv n as numbers in one count, 1 for a matmul. */
static int64_t count_phases(const ir_node *n) {
  int64_t all = 1;
  int count = 0;
  if (n->op != IR_conv) return 1;
  const int64_t *stride = ir_ints(n, "stride", &count), *x_dilation = ir_ints(n, "x_dilation", &count);
  for (int i = 0; i < count; i++) all *= x_dilation[i] / gcd(stride[i], x_dilation[i]);
  return all;
}

/* Output p reads x at (p*stride + k*dilation - lo) / x_dilation where that is whole: p = first mod period, k = w_first mod w_step. */
static void choose_phase(contraction *c, int64_t phase) {
  const ir_node *n = ir_at(c->g, c->row), *w = ir_at(c->g, n->args[1]);
  int count = 0;
  if (n->op != IR_conv) return;
  const int64_t *stride = ir_ints(n, "stride", &count), *lo = ir_ints(n, "lo", &count), *dilation = ir_ints(n, "dilation", &count), *x_dilation = ir_ints(n, "x_dilation", &count);
  for (int i = count - 1; i >= 0; i--) {
    int64_t d = x_dilation[i], period = d / gcd(stride[i], d), w_step = d / gcd(dilation[i], d), first = phase % period, tap = 0;
    phase /= period;
    while (tap < w_step && (first * stride[i] + tap * dilation[i] - lo[i]) % d != 0) tap++;
    int64_t kernel = w->dim[3 + i], outputs = n->dim[n->rank - count + i], from = tap < w_step ? (first * stride[i] + tap * dilation[i] - lo[i]) / d : 0;
    c->space[i] = (spatial){.period = period, .first = first, .step = period * stride[i] / d, .tap_step = w_step * dilation[i] / d, .x_first = from, .w_step = w_step, .w_first = tap,
                            .outputs = outputs > first ? (outputs - first + period - 1) / period : 0, .taps = tap < w_step && kernel > tap ? (kernel - tap + w_step - 1) / w_step : 0};
  }
}

/* Axes in the order of the result's dimensions (so the first rank(row) are them), then the summed ones. */
static void list_axes(contraction *c) {
  const ir_node *n = ir_at(c->g, c->row), *a = ir_at(c->g, n->args[0]), *b = ir_at(c->g, n->args[1]);
  int64_t split = ir_int(n, "split");
  int spatial_from = n->op == IR_matmul ? n->rank : n->rank - (b->rank - 3);
  for (int i = 0; i < n->rank; i++) add_axis(c, i < spatial_from ? n->dim[i] : c->space[i - spatial_from].outputs, false);
  if (split < 1) split = 1;
  if (n->op == IR_matmul) {
    int64_t k = a->dim[a->rank - (ir_int(n, "ta") ? 2 : 1)];
    add_axis(c, k / split, true);
  } else {
    add_axis(c, a->dim[2] / split, true);
    for (int i = 3; i < b->rank; i++) add_axis(c, c->space[i - 3].taps, true);
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
  const spatial *s = c->space;
  index[0] = out[which == B ? 1 : 0], index[1] = out[which == B ? 2 : 1], index[2] = lp_add(k, part, at[n->rank]);
  for (int i = 0; i < x->rank - 3; i++) {
    lp_ref tap = at[n->rank + 1 + i];
    if (which == B) index[3 + i] = lp_add(k, lp_mul(k, tap, s[i].w_step), lp_int(k, s[i].w_first));
    else index[3 + i] = lp_add(k, lp_add(k, lp_mul(k, out[3 + i], s[i].step), lp_mul(k, tap, s[i].tap_step)), lp_int(k, s[i].x_first));
  }
}

void con_result_at(const contraction *c, lp_kernel *k, const lp_ref *at, lp_ref *index) {
  const ir_node *n = ir_at(c->g, c->row);
  int D = n->op == IR_matmul ? 0 : ir_at(c->g, n->args[1])->rank - 3;
  for (int i = 0; i < n->rank; i++) index[i] = at[i];
  for (int i = 0; i < D; i++) index[n->rank - D + i] = lp_add(k, lp_mul(k, at[n->rank - D + i], c->space[i].period), lp_int(k, c->space[i].first));
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
    e = e ? con_load(k, e) : 0;
    address[which] = e && k->exprs[e].kind == LX_LOAD ? k->exprs[e].a[0] : 0;
  }
  lp_ref from[TT_MAX_RANK], to[TT_MAX_RANK];
  ir_ref result = lower_result(lx, 0);
  con_result_at(c, k, at, from);
  if (lower_push(lx, c->row, result, from, to)) address[C] = lower_linear(lx, result, to);
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

int64_t con_nearest_divisor(int64_t n, int64_t wanted) {         /* the smallest divisor >= wanted, or n */
  for (int64_t d = wanted < 1 ? 1 : wanted; d < n && d < 4 * wanted + 4; d++)
    if (n % d == 0) return d;
  return n;
}

/* One phase, all but its statements. */
static bool plan(contraction *c) {
  list_axes(c);
  for (int i = 0; i < ir_at(c->g, c->row)->rank; i++)
    if (c->axes[i].extent == 0) return true;           /* no results: no tasks */
  if (!measure_strides(c)) return false;
  if (con_weights(c, false)) {
    c->weights = true, c->n_tasks = con_weights_tasks(c);
    return !c->lx->err->status;
  }
  if (!con_choose(c)) return false;
  if ((c->pairs = con_pairs(c))) return true;
  bool reads_rows = c->vec >= 0 && c->pack && c->n_rows_all * c->n_outer_all < 4 && c->n_sum &&
                    con_magnitude(&c->axes[c->sum[c->n_sum - 1]], A) <= 1 && con_magnitude(&c->axes[c->sum[c->n_sum - 1]], B) <= 1;
  c->dots = c->vec < 0 || reads_rows;
  if (reads_rows) {                                     /* few rows of a matrix that stands transposed: read it as it stands, once for all of them */
    c->n_batch = c->n_rows = 0;
    for (int i = 0; i < c->n_axes; i++)
      if (!c->axes[i].summed && c->axes[i].extent > 1) *(con_depends(&c->axes[i], c->vector_op) ? &c->batch[c->n_batch++] : &c->rows[c->n_rows++]) = i;
    c->n_rows_all *= c->n_outer_all;
  }
  if (c->dots) c->lanes = (c->n_rows_all > 1 ? 1 : 2) * c->cpu->vector_bytes / (int64_t)tt_dtype_size(c->acc_type);
  con_count_tasks(c);
  return true;
}

lp_kernel *cg_lower_contract(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, int max_rows, tt_error *err) {
  lp_kernel *k = lp_new(g->kernels[region].name, 0);
  lower_ctx *lx = k ? lower_begin(g, region, k, cpu, err) : NULL;
  contraction phase[MAX_PHASES] = {{.lx = lx, .g = g, .cpu = cpu}};
  bool ok = lx != NULL;
  int64_t n_phases = 1;
  if (ok) {
    for (ir_ref r = lower_first(lx); r <= lower_last(lx); r++)
      if (ir_at(g, r)->region == region && ir_ops[ir_at(g, r)->op].kind == IR_CONTRACTION) phase[0].row = r;
    ir_ref row = phase[0].row;
    if (row) n_phases = count_phases(ir_at(g, row));
    if (!row || n_phases > MAX_PHASES) {
      if (!row) tt_fail(err, TT_INVALID, "error: kernel %s is planned as a contraction, but has no matmul or conv\n  at its plan, kind=1\n  fix: let the schedule pass plan it", g->kernels[region].name);
      else tt_fail(err, TT_INVALID, "error: the conv of kernel %s dilates x so that its results fall into %lld phases, more than %d\n  at x_dilation\n  fix: let the decompose pass write x_dilation as a pad", g->kernels[region].name,
                   (long long)n_phases, MAX_PHASES);
      lower_end(lx), lp_free(k);
      return NULL;
    }
    tt_dtype t = ir_at(g, row)->dtype;
    phase[0].acc_type = t == TT_F16 || t == TT_BF16 ? TT_F32 : t;
  }
  bool attention = ok && ir_is_attention((ir_op)ir_at(g, phase[0].row)->op);
  if (attention) con_attention(lx, phase[0].row);
  bool winograd = ok && ir_at(g, phase[0].row)->op == IR_winograd;
  if (winograd) con_winograd(lx, phase[0].row);
  for (int64_t i = n_phases - 1; ok && !winograd && !attention && i >= 0; i--) {
    phase[i] = phase[0];
    choose_phase(&phase[i], i);
  }
  bool special = winograd || attention || (ok && con_window(lx, phase[0].row, phase, (int)n_phases));
  for (int64_t i = 0; ok && !special && i < n_phases; i++) {
    ok = plan(&phase[i]);
    k->tasks += phase[i].n_tasks;
  }
  int64_t done = 0;
  for (int64_t i = 0; ok && !special && i < n_phases; i++) {
    contraction *c = &phase[i];
    lp_cursor *end = &(lp_cursor){&k->body};
    while (*end->tail) end->tail = &(*end->tail)->next;
    if (!c->n_tasks) continue;
    c->body = *end, c->task = lp_var(k, 0);
    if (c->n_tasks < k->tasks) {
      for (int side = 0; side < 2; side++) {            /* if task >= done: if task < done + n_tasks */
        lp_stmt *s = lp_append(k, &c->body, LS_IF);
        s->guard = lp_op(k, side ? IR_lt : IR_ge, TT_BOOL, lp_var(k, 0), lp_int(k, side ? done + c->n_tasks : done), 0);
        c->body.tail = &s->body;
      }
      int64_t back = (c->n_tasks - done % c->n_tasks) % c->n_tasks;                      /* -done, and never negative */
      c->task = lp_mod(k, lp_add(k, lp_var(k, 0), lp_int(k, back)), c->n_tasks);        /* task - done, and its range is known */
    }
    done += c->n_tasks;
    if (c->weights) con_weights_build(c);
    else if (c->pairs) con_pairs_build(c);
    else if (c->dots) con_dot_products(c);
    else con_register_tiles(c);
  }
  if (ok && !attention) lower_stream_stores(lx);
  if (ok) lp_unroll(k);
  ok = ok && lower_arguments(lx, rows, max_rows);
  if (lx) lower_end(lx);
  if (!ok) {
    lp_free(k);
    return NULL;
  }
  return k;
}
