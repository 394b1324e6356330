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
#include <string.h>

#include "lower.h"

enum { MAX_AXES = 16, A = 0, B = 1, C = 2 };

typedef struct {
  int64_t extent;
  bool summed;
  bool affine[3];               /* in the address of a, b and the result */
  int64_t stride[3];
} axis;

typedef struct {
  lower_ctx *lx;
  const ir_graph *g;
  ir_ref row;                   /* the matmul or conv */
  axis axes[MAX_AXES];
  int n_axes;
  tt_dtype acc_type;
  const cg_cpu *cpu;

  /* what was chosen */
  int vec, scalar_op, vector_op;                            /* axis; A or B */
  int batch[MAX_AXES], n_batch;                             /* axes that both operands have */
  int outer[MAX_AXES], n_outer;                             /* of the scalar operand, looped one by one */
  int rows[MAX_AXES], n_rows;                               /* of the scalar operand, tiled together */
  int sum[MAX_AXES], n_sum;                                 /* outermost first */
  int64_t lanes, tile, n_rows_all, n_outer_all;
  bool pack, staged, inside;                                /* staged: partial tiles in scratch, then an epilogue loop; inside: panels are the inner loop */
  int64_t k_blocks;                                         /* cuts of sum[0] */
  int64_t chunk, n_chunks;                                  /* of outer when n_outer_all > 1, else of row tiles */
  int panel_buffer, stage_buffer;
} contraction;

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

static lp_ref operand(const contraction *c, lower_ctx *lx, int which, const lp_ref *at) {
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
    lp_ref e = operand(c, lx, which, at);
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

static bool depends(const axis *x, int which) { return x->extent != 1 && !(x->affine[which] && x->stride[which] == 0); }

/* ---- choosing ---- */

static int64_t magnitude(const axis *x, int which) {
  int64_t s = x->stride[which];
  return !x->affine[which] ? INT64_MAX : s < 0 ? -s : s;
}

/* Sorts axis numbers by falling stride in `which`, then in `then`. */
static void sort_axes(const contraction *c, int *list, int n, int which, int then) {
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0; j--) {
      const axis *p = &c->axes[list[j - 1]], *q = &c->axes[list[j]];
      int64_t dp = magnitude(p, which), dq = magnitude(q, which);
      if (dp > dq || (dp == dq && magnitude(p, then) >= magnitude(q, then))) break;
      int t = list[j];
      list[j] = list[j - 1], list[j - 1] = t;
    }
}

static int64_t nearest_divisor(int64_t n, int64_t wanted) {         /* the smallest divisor >= wanted, or n */
  for (int64_t d = wanted < 1 ? 1 : wanted; d < n && d < 4 * wanted + 4; d++)
    if (n % d == 0) return d;
  return n;
}

static void choose_vector_axis(contraction *c, int64_t machine_lanes) {
  int64_t best = -1;
  c->vec = -1;
  for (int i = 0; i < c->n_axes; i++) {
    const axis *x = &c->axes[i];
    bool in_a = depends(x, A), in_b = depends(x, B);
    if (x->summed || in_a == in_b || x->extent < 2) continue;
    int which = in_a ? A : B;
    int64_t fill = x->extent < machine_lanes ? x->extent * 8 / machine_lanes : 8;      /* of 8: how full a vector gets */
    int64_t score = fill * 100 + (x->affine[which] && x->stride[which] == 1 ? 300 : 0) + (x->affine[C] && x->stride[C] == 1 ? 200 : 0) +
                    (which == B ? 1 : 0) + (x->extent >= 4 * machine_lanes ? 20 : 0);
    if (score > best) best = score, c->vec = i, c->vector_op = which, c->scalar_op = !which;
  }
}

/* Rows that fit beside nv vectors of accumulators each, with nv for the panel and one for the broadcast. */
static int64_t rows_that_fit(const cg_cpu *cpu, int64_t nv) {
  int64_t rows = (cpu->n_registers - 1 - nv) / nv;
  return rows < 1 ? 1 : rows > 14 ? 14 : rows;
}

static void choose_tile(contraction *c, int64_t machine_lanes) {
  int64_t extent = c->axes[c->vec].extent, best = -1;
  for (int64_t nv = 1; nv <= 8; nv *= 2) {             /* powers of two: LLVM widens other vectors to the next one */
    int64_t rows = rows_that_fit(c->cpu, nv), lanes = nv * machine_lanes;
    if (nv > 1 && lanes / 2 >= extent) break;
    if (rows > c->n_rows_all) rows = c->n_rows_all;
    int64_t tiles = (c->n_rows_all + rows - 1) / rows;
    rows = (c->n_rows_all + tiles - 1) / tiles;                                       /* balanced */
    int64_t panels = (extent + lanes - 1) / lanes;
    int64_t used = 1000 * extent / (panels * lanes);                                  /* lanes that do work, of 1000 */
    int64_t speed = rows * nv >= 8 ? 1000 : 125 * rows * nv;                          /* 8 chains hide the latency of a multiply-add */
    int64_t loads = 1000 * 2 * rows * nv / (2 * rows * nv + (rows + nv) / 2);         /* fewer loads an fma */
    int64_t score = used * speed / 1000 * loads / 1000;
    if (score > best + best / 50) best = score, c->lanes = lanes, c->tile = rows;
  }
}

static bool costly(const ir_graph *g, uint32_t region) {
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (ir_at(g, r)->region == region && pass_op_cost((ir_op)ir_at(g, r)->op) >= PASS_COSTLY) return true;
  return false;
}

static void choose(contraction *c) {
  int64_t machine_lanes = c->cpu->vector_bytes / (int64_t)tt_dtype_size(c->acc_type);
  if (machine_lanes < 2) machine_lanes = 2;
  choose_vector_axis(c, machine_lanes);
  for (int i = 0; i < c->n_axes; i++)
    if (c->axes[i].summed) c->sum[c->n_sum++] = i;
  if (c->vec < 0) {                                    /* no vector axis: every other axis is a batch */
    c->vector_op = B, c->scalar_op = A;
    for (int i = 0; i < c->n_axes; i++)
      if (!c->axes[i].summed) c->batch[c->n_batch++] = i;
  } else {
    for (int i = 0; i < c->n_axes; i++) {
      const axis *x = &c->axes[i];
      if (x->summed || i == c->vec) continue;
      if (x->extent == 1) continue;                    /* its index is 0 */
      if (depends(x, c->vector_op)) c->batch[c->n_batch++] = i;
      else c->outer[c->n_outer++] = i;
    }
  }
  sort_axes(c, c->sum, c->n_sum, c->scalar_op, c->vector_op);
  sort_axes(c, c->outer, c->n_outer, c->scalar_op, C);
  /* The innermost axis alone makes the rows when it is long enough, else all of them together. */
  int first = c->n_outer;
  int64_t fit = rows_that_fit(c->cpu, 2);
  if (c->n_outer) {
    first = c->n_outer - 1;
    if (c->axes[c->outer[first]].extent < (fit < 6 ? fit : 6)) first = 0;
  }
  c->n_rows_all = c->n_outer_all = 1;
  for (int i = first; i < c->n_outer; i++) c->rows[c->n_rows++] = c->outer[i], c->n_rows_all *= c->axes[c->outer[i]].extent;
  c->n_outer = first;
  for (int i = 0; i < c->n_outer; i++) c->n_outer_all *= c->axes[c->outer[i]].extent;
  if (c->vec < 0) {
    c->lanes = 4 * machine_lanes, c->tile = 1, c->chunk = c->n_chunks = 1, c->k_blocks = 1;
    return;
  }
  choose_tile(c, machine_lanes);

  const axis *v = &c->axes[c->vec];
  int64_t sum_all = 1, rows = c->n_rows_all * c->n_outer_all, bytes = (int64_t)tt_dtype_size(c->acc_type);
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  bool unit = v->affine[c->vector_op] && v->stride[c->vector_op] == 1;
  /* A short sum with several results is bound by what the epilogue reads and writes: go along its rows, all panels staying in L2 meanwhile. */
  bool slow = costly(c->g, c->lx->region);
  c->inside = unit && !slow && lower_n_results(c->lx) > 1 && sum_all <= 256 && v->extent > c->lanes && sum_all * v->extent * bytes <= c->cpu->l2;
  /* Copying a panel costs two cycles a step, which some tens of rows pay back when the steps through the operand are long: they miss the TLB, and
   * multiples of a power of two fall into the same sets of L1. */
  int64_t step = c->n_sum ? magnitude(&c->axes[c->sum[c->n_sum - 1]], c->vector_op) * bytes : 0;
  c->pack = !unit || (!c->inside && rows >= 32 && sum_all >= 64 && (sum_all > 1024 || step >= 1024));
  c->k_blocks = 1;
  if (c->pack && sum_all * c->lanes * bytes > c->cpu->l2 / 8) {       /* L2 holds the panel's block and what the rows read beside it */
    int64_t outermost = c->axes[c->sum[0]].extent, most = c->cpu->l2 / 8 / (sum_all / outermost * c->lanes * bytes);
    int64_t cut = nearest_divisor(outermost, most < 1 ? outermost : (outermost + most - 1) / most);
    if (outermost / cut >= 16 || c->n_sum > 1) c->k_blocks = cut;
  }
  c->staged = c->k_blocks > 1 || slow;

  /* A chunk is at least enough rows to pay for packing, whose steps may each miss the caches, and enough work to be worth a task. */
  int64_t enough = c->pack ? 256 : 64, work = 2 * sum_all * c->lanes;
  if (c->inside) enough = 2 * c->tile;
  while (enough * work < 1000000 && enough < rows && !c->inside) enough *= 2;
  if (c->n_outer_all > 1) {
    c->chunk = nearest_divisor(c->n_outer_all, (enough + c->n_rows_all - 1) / c->n_rows_all);
    c->n_chunks = c->n_outer_all / c->chunk;
  } else {
    int64_t tiles = (c->n_rows_all + c->tile - 1) / c->tile;
    c->chunk = (enough + c->tile - 1) / c->tile;
    if (c->chunk >= tiles) c->chunk = tiles;
    c->n_chunks = (tiles + c->chunk - 1) / c->chunk;
    c->chunk = (tiles + c->n_chunks - 1) / c->n_chunks;
    c->n_chunks = (tiles + c->chunk - 1) / c->chunk;
  }
}

/* ---- building ---- */

/* Values of a list of axes from one number that counts through them, the last fastest. */
static void unflatten(contraction *c, const int *list, int n, lp_ref flat, lp_ref *at) {
  for (int i = n - 1; i >= 0; i--) {
    int64_t e = c->axes[list[i]].extent;
    at[list[i]] = i ? lp_mod(c->lx->k, flat, e) : flat;
    flat = i ? lp_div(c->lx->k, flat, e) : flat;
  }
}

static lp_ref as_acc(contraction *c, lp_ref e) {
  lp_kernel *k = c->lx->k;
  return k->exprs[e].dtype == c->acc_type ? e : lp_op(k, IR_cast, c->acc_type, e, 0, 0);
}

static lp_ref multiply_add(contraction *c, lp_ref a, lp_ref b, lp_ref sum) {
  lp_kernel *k = c->lx->k;
  if (!tt_dtype_in(c->acc_type, TT_REAL)) return lp_op(k, IR_add, c->acc_type, lp_op(k, IR_mul, c->acc_type, a, b, 0), sum, 0);
  return lp_fma(k, a, b, sum);
}

/* Loops over the summed axes, merged where both operands allow it; block < 0: no cut. at gets their values; *flat counts steps
 * within the block. */
static lp_cursor sum_loops(contraction *c, lp_cursor at_cursor, lp_ref block, lp_ref *at, lp_ref *flat) {
  lp_kernel *k = c->lx->k;
  *flat = lp_int(k, 0);
  for (int i = 0; i < c->n_sum;) {
    int j = i + 1;
    int64_t extent = c->axes[c->sum[i]].extent;
    if (i == 0 && c->k_blocks > 1) extent /= c->k_blocks;
    else
      for (; j < c->n_sum; j++) {
        const axis *p = &c->axes[c->sum[j - 1]], *q = &c->axes[c->sum[j]];
        bool s = p->affine[c->scalar_op] && q->affine[c->scalar_op] && p->stride[c->scalar_op] == q->extent * q->stride[c->scalar_op];
        bool v = c->pack || (p->affine[c->vector_op] && q->affine[c->vector_op] && p->stride[c->vector_op] == q->extent * q->stride[c->vector_op]);
        if (!s || !v) break;
        extent *= q->extent;
      }
    int var = lp_var_add(k, "k", extent);
    lp_cursor inside;
    lp_for(k, &at_cursor, var, 0, extent, 0, &inside);
    at_cursor = inside;
    lp_ref value = lp_var(k, var);
    *flat = lp_add(k, lp_mul(k, *flat, extent), value);
    if (i == 0 && c->k_blocks > 1) value = lp_add(k, lp_mul(k, block, extent), value);
    unflatten(c, c->sum + i, j - i, value, at);
    i = j;
  }
  return at_cursor;
}

/* All values before the first store: a result may stand where something that the epilogue reads stood. */
static void store_results(contraction *c, lp_cursor *at_cursor, const lp_ref *at, lp_ref value) {
  enum { MOST = 16 };
  lower_ctx *lx = c->lx;
  const ir_node *n = ir_at(c->g, c->row);
  int count = lower_n_results(lx);
  lp_ref index[MOST], values[MOST];
  if (lx->k->exprs[value].dtype != n->dtype) value = lp_op(lx->k, IR_cast, n->dtype, value, 0, 0);
  lower_hook(lx, c->row, at, value);
  if (count > MOST) {
    tt_fail(lx->err, TT_INTERNAL, "contract: kernel %s has %d results, more than %d", c->g->kernels[lx->region].name, count, MOST);
    return;
  }
  for (int i = 0; i < count; i++) {
    lp_ref to[TT_MAX_RANK];
    if (!lower_push(lx, c->row, lower_result(lx, i), at, to)) return;      /* lower_push has failed the kernel */
    index[i] = lower_linear(lx, lower_result(lx, i), to);
    values[i] = lower_pull(lx, lower_result(lx, i), to);
    if (count == 1) break;
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_LOCAL);
    s->local = lp_local_add(lx->k, "y", lx->k->exprs[values[i]].dtype, 1), s->value = values[i];
    values[i] = lp_get(lx->k, s->local, 0);
  }
  for (int i = 0; i < count; i++) {
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_STORE);
    s->buffer = lower_result_buffer(lx, i), s->index = index[i], s->value = values[i];
  }
}

typedef struct { lp_ref panel, first_row, block; lp_ref at[MAX_AXES]; lp_ref stage_row; int64_t width; } tile_place;

/* One tile of `rows` rows at row number first_row. */
static void tile(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES];
  memcpy(at, place->at, sizeof at);
  int lane_var = lp_var_add(k, "l", place->width);
  lp_cursor inside;
  lp_for(k, at_cursor, lane_var, 0, place->width, (int)c->lanes, &inside);
  lp_ref lane = lp_var(k, lane_var);
  at[c->vec] = lp_add(k, lp_mul(k, place->panel, c->lanes), lane);

  int acc = lp_local_add(k, "acc", c->acc_type, (int)rows);
  lp_stmt *s = lp_append(k, &inside, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  if (c->k_blocks > 1)
    for (int64_t i = 0; i < rows; i++) {
      s = lp_append(k, &inside, LS_SET);
      s->local = acc, s->index = lp_int(k, i);
      s->value = lp_load(k, c->stage_buffer, lp_add(k, lp_mul(k, lp_add(k, place->stage_row, lp_int(k, i)), c->lanes), lane), 0, 0);
    }
  lp_ref flat;
  lp_cursor body = sum_loops(c, inside, place->block, at, &flat);
  int v = lp_local_add(k, "v", c->acc_type, 1);
  s = lp_append(k, &body, LS_LOCAL);
  s->local = v;
  s->value = as_acc(c, c->pack ? lp_load(k, c->panel_buffer, lp_add(k, lp_mul(k, flat, c->lanes), lane), 0, 0) : operand(c, c->lx, c->vector_op, at));
  for (int64_t i = 0; i < rows; i++) {
    unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = multiply_add(c, as_acc(c, operand(c, c->lx, c->scalar_op, at)), lp_get(k, v, 0), lp_get(k, acc, lp_int(k, i)));
  }
  /* After the loops: sum_loops has left `inside` at its end only when it made none. */
  while (*inside.tail) inside.tail = &(*inside.tail)->next;
  for (int64_t i = 0; i < rows; i++) {
    lp_ref value = lp_get(k, acc, lp_int(k, i));
    if (c->staged) {
      s = lp_append(k, &inside, LS_STORE);
      s->buffer = c->stage_buffer;
      s->index = lp_add(k, lp_mul(k, lp_add(k, place->stage_row, lp_int(k, i)), c->lanes), lane);
      s->value = value;
    } else {
      unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
      store_results(c, &inside, at, value);
    }
  }
}

/* The same for one panel, or for all of them. */
static void tile_panels(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows) {
  if (!c->inside) {
    tile(c, at_cursor, place, rows);
    return;
  }
  lp_kernel *k = c->lx->k;
  int64_t extent = c->axes[c->vec].extent, full = extent / c->lanes, rest = extent % c->lanes;
  tile_place here = *place;
  lp_cursor inside;
  int var = lp_var_add(k, "p", full);
  lp_for(k, at_cursor, var, 0, full, 0, &inside);
  here.panel = lp_var(k, var), here.width = c->lanes;
  tile(c, &inside, &here, rows);
  if (!rest) return;
  here.panel = lp_int(k, full), here.width = rest;
  tile(c, at_cursor, &here, rows);
}

/* n tiles of `rows` rows from row number `from` on (of the chunk's tiles when the rows are chunked). */
static void tiles(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref from, int64_t n, int64_t rows, lp_ref stage_from) {
  if (n <= 0) return;
  lp_kernel *k = c->lx->k;
  lp_cursor inside = *at_cursor;
  lp_ref t = lp_int(k, 0);
  if (n > 1) {
    int var = lp_var_add(k, "t", n);
    lp_for(k, at_cursor, var, 0, n, 0, &inside);
    t = lp_var(k, var);
  }
  place.first_row = lp_add(k, from, lp_mul(k, t, rows));
  place.stage_row = lp_add(k, stage_from, lp_mul(k, t, rows));
  tile_panels(c, &inside, &place, rows);
  if (n == 1) *at_cursor = inside;
}

static void pack_panel(contraction *c, lp_cursor *at_cursor, const tile_place *place) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], flat;
  memcpy(at, place->at, sizeof at);
  for (int i = 0; i < c->n_rows; i++) at[c->rows[i]] = lp_int(k, 0);        /* the vectorized operand has none of these */
  for (int i = 0; i < c->n_outer; i++) at[c->outer[i]] = lp_int(k, 0);
  lp_cursor body = sum_loops(c, *at_cursor, place->block, at, &flat);
  const axis *v = &c->axes[c->vec];
  bool unit = v->affine[c->vector_op] && v->stride[c->vector_op] == 1;
  int var = lp_var_add(k, "l", place->width);
  lp_cursor inside;
  lp_stmt *loop = lp_for(k, &body, var, 0, place->width, unit ? (int)c->lanes : 0, &inside);
  loop->unroll = !unit;
  at[c->vec] = lp_add(k, lp_mul(k, place->panel, c->lanes), lp_var(k, var));
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  s->buffer = c->panel_buffer;
  s->index = lp_add(k, lp_mul(k, flat, c->lanes), lp_var(k, var));
  s->value = operand(c, c->lx, c->vector_op, at);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* All rows of one panel of `width` <= lanes places. */
static void panel(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref chunk) {
  lp_kernel *k = c->lx->k;
  bool outer = c->n_outer_all > 1;
  int64_t all_tiles = (c->n_rows_all + c->tile - 1) / c->tile;
  int64_t stage_rows = outer ? c->chunk * c->n_rows_all : c->chunk * c->tile;
  lp_cursor body = *at_cursor;
  place.block = lp_int(k, 0);
  if (c->k_blocks > 1) {
    int zero = lp_var_add(k, "z", stage_rows * c->lanes), block = lp_var_add(k, "kb", c->k_blocks);
    lp_cursor inside;
    lp_for(k, at_cursor, zero, 0, stage_rows * c->lanes, (int)c->lanes, &inside);
    lp_stmt *s = lp_append(k, &inside, LS_STORE);
    s->buffer = c->stage_buffer, s->index = lp_var(k, zero), s->value = lp_const(k, c->acc_type, 0);
    lp_for(k, at_cursor, block, 0, c->k_blocks, 0, &body);
    place.block = lp_var(k, block);
  }
  if (c->pack) pack_panel(c, &body, &place);

  lp_cursor loop = body;
  if (outer) {
    int var = lp_var_add(k, "o", c->chunk);
    lp_ref o = lp_int(k, 0);
    if (c->chunk > 1) {
      lp_for(k, &body, var, 0, c->chunk, 0, &loop);
      o = lp_var(k, var);
    }
    unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, chunk, c->chunk), o), place.at);
    int64_t low = all_tiles * c->tile - c->n_rows_all, high = all_tiles - low;     /* balanced: `low` tiles have a row less */
    lp_ref stage = lp_mul(k, o, c->n_rows_all);
    tiles(c, &loop, place, lp_int(k, 0), high, c->tile, stage);
    lp_ref at_low = lp_int(k, high * c->tile);
    tiles(c, &loop, place, at_low, low, c->tile - 1, lp_add(k, stage, at_low));
  } else if (c->n_chunks == 1) {
    int64_t low = all_tiles * c->tile - c->n_rows_all, high = all_tiles - low;
    tiles(c, &loop, place, lp_int(k, 0), high, c->tile, lp_int(k, 0));
    tiles(c, &loop, place, lp_int(k, high * c->tile), low, c->tile - 1, lp_int(k, high * c->tile));
  } else {
    int64_t full = c->n_rows_all / c->tile, rest = c->n_rows_all % c->tile;
    int var = lp_var_add(k, "t", c->chunk);
    lp_for(k, &loop, var, 0, c->chunk, 0, &loop);
    lp_ref t = lp_add(k, lp_mul(k, chunk, c->chunk), lp_var(k, var));
    lp_ref row = lp_mul(k, t, c->tile), stage = lp_mul(k, lp_var(k, var), c->tile);
    bool uneven = full % c->chunk != 0;
    for (int part = 0; part < (rest ? 2 : 1); part++) {
      lp_cursor inside = loop;
      if (uneven || rest) {
        lp_stmt *s = lp_append(k, &loop, LS_IF);
        s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, t, lp_int(k, full), 0);
        inside.tail = &s->body;
      }
      place.first_row = row, place.stage_row = stage;
      tile_panels(c, &inside, &place, part ? rest : c->tile);
      if (!uneven && !rest) loop = inside;
    }
  }
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
  if (!c->staged) return;

  /* The epilogue: once over the chunk's rows. */
  int var = lp_var_add(k, "r", stage_rows), lane_var = lp_var_add(k, "l", place.width);
  lp_cursor inside;
  lp_for(k, at_cursor, var, 0, stage_rows, 0, &inside);
  lp_ref r = lp_var(k, var);
  if (outer) {
    unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, chunk, c->chunk), lp_div(k, r, c->n_rows_all)), place.at);
    unflatten(c, c->rows, c->n_rows, lp_mod(k, r, c->n_rows_all), place.at);
  } else {
    lp_ref row = lp_add(k, lp_mul(k, chunk, c->chunk * c->tile), r);
    if (c->n_chunks * stage_rows > c->n_rows_all) {
      lp_stmt *s = lp_append(k, &inside, LS_IF);
      s->guard = lp_op(k, IR_lt, TT_BOOL, row, lp_int(k, c->n_rows_all), 0);
      inside.tail = &s->body;
    }
    unflatten(c, c->rows, c->n_rows, row, place.at);
  }
  lp_cursor lanes;
  lp_for(k, &inside, lane_var, 0, place.width, (int)c->lanes, &lanes);
  place.at[c->vec] = lp_add(k, lp_mul(k, place.panel, c->lanes), lp_var(k, lane_var));
  store_results(c, &lanes, place.at, lp_load(k, c->stage_buffer, lp_add(k, lp_mul(k, r, c->lanes), lp_var(k, lane_var)), 0, 0));
}

/* Every result a dot product along the innermost summed axis. */
static void dot_products(contraction *c) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES];
  lp_cursor body = {&k->body};
  int64_t all = 1, per_task = 1, sum_all = 1;
  for (int i = 0; i < c->n_batch; i++) all *= c->axes[c->batch[i]].extent;
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  while (per_task * sum_all < 16384 && per_task < all) per_task *= 2;
  per_task = nearest_divisor(all, per_task);
  k->tasks = all / per_task;
  for (int i = 0; i < c->n_axes; i++) at[i] = lp_int(k, 0);
  int var = lp_var_add(k, "i", per_task);
  lp_for(k, &body, var, 0, per_task, 0, &body);
  unflatten(c, c->batch, c->n_batch, lp_add(k, lp_mul(k, lp_var(k, 0), per_task), lp_var(k, var)), at);
  int acc = lp_local_add(k, "acc", c->acc_type, 1);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  lp_cursor inside = body;
  for (int i = 0; i < c->n_sum; i++) {
    int64_t extent = c->axes[c->sum[i]].extent;
    int kv = lp_var_add(k, "k", extent);
    lp_for(k, &inside, kv, 0, extent, i == c->n_sum - 1 ? (int)c->lanes : 0, &inside);
    at[c->sum[i]] = lp_var(k, kv);
  }
  s = lp_append(k, &inside, LS_REDUCE);
  s->local = acc, s->op = IR_add;
  s->value = lp_op(k, IR_mul, c->acc_type, as_acc(c, operand(c, c->lx, A, at)), as_acc(c, operand(c, c->lx, B, at)), 0);
  while (*body.tail) body.tail = &(*body.tail)->next;
  store_results(c, &body, at, lp_get(k, acc, 0));
}

static void register_tiles(contraction *c) {
  lp_kernel *k = c->lx->k;
  int64_t extent = c->axes[c->vec].extent, full = extent / c->lanes, rest = extent % c->lanes, batches = 1, sum_all = 1;
  for (int i = 0; i < c->n_batch; i++) batches *= c->axes[c->batch[i]].extent;
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  int64_t panels = c->inside ? 1 : full + (rest > 0);
  k->tasks = batches * c->n_chunks * panels;
  if (c->pack) c->panel_buffer = lp_buffer_add(k, "panel", ir_at(c->g, ir_at(c->g, c->row)->args[c->vector_op])->dtype, sum_all / c->k_blocks * c->lanes, true, true);
  if (c->staged) {
    int64_t stage_rows = c->n_outer_all > 1 ? c->chunk * c->n_rows_all : c->chunk * c->tile;
    c->stage_buffer = lp_buffer_add(k, "stage", c->acc_type, stage_rows * c->lanes, true, true);
  }
  lp_ref task = lp_var(k, 0), chunk = lp_mod(k, lp_div(k, task, panels), c->n_chunks);
  tile_place place = {.panel = lp_mod(k, task, panels)};
  for (int i = 0; i < c->n_axes; i++) place.at[i] = lp_int(k, 0);
  unflatten(c, c->batch, c->n_batch, lp_div(k, task, panels * c->n_chunks), place.at);
  lp_cursor body = {&k->body};
  if (c->inside) {
    panel(c, &body, place, chunk);
    return;
  }
  for (int part = 0; part < 2; part++) {
    place.width = part ? rest : c->lanes;
    if (part ? !rest : !full) continue;
    lp_cursor inside = body;
    if (full && rest) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, place.panel, lp_int(k, full), 0);
      inside.tail = &s->body;
    }
    tile_place here = place;
    if (part || !rest) here.panel = full && part ? lp_int(k, full) : panels == 1 ? lp_int(k, 0) : place.panel;
    else here.panel = lp_mod(k, place.panel, full);    /* itself, but its range says that the lanes stay inside of the axis */
    panel(c, &inside, here, chunk);
  }
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
      choose(&c);
      bool reads_rows = c.vec >= 0 && c.pack && c.n_rows_all * c.n_outer_all < 4 && c.n_sum &&
                        magnitude(&c.axes[c.sum[c.n_sum - 1]], A) <= 1 && magnitude(&c.axes[c.sum[c.n_sum - 1]], B) <= 1;
      if (reads_rows) {                               /* few rows of a matrix that stands transposed: read it as it stands */
        c.n_batch = 0, c.lanes = 4 * cpu->vector_bytes / (int64_t)tt_dtype_size(c.acc_type);
        for (int i = 0; i < c.n_axes; i++)
          if (!c.axes[i].summed) c.batch[c.n_batch++] = i;
      }
      if (c.vec < 0 || reads_rows) dot_products(&c);
      else register_tiles(&c);
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
