/* attention.c: attention and its derivatives in primitives, with all scores in memory: what types without a kernel run, and what derivatives
 * of derivatives go through.
 *
 *     s = matmul(q * scale, k') masked with -inf     p = exp(s - lse)     y = matmul(p, v)
 *     ds = p (matmul(dy, v') - delta) * scale        dq = matmul(ds, k)   dk = matmul(ds', q)   dv = matmul(p', dy)
 *
 * Heads of q that share one of k and v stand below each other, as more rows of one product: [*,H,T,D] is [*,G,H/G*T,D], so nothing is repeated,
 * and the derivatives by k and v are their sums. */
#include "passes.h"

#include <float.h>
#include <math.h>

typedef struct {
  ir_graph *g;
  tt_dtype type, wide;               /* of the arguments; of scores */
  tt_shape stacked, rows;            /* [*,G,H/G*T,S] and without its last axis */
  tt_shape all;                      /* [*,H,T,S] */
} naive;

static ir_ref mul(ir_graph *g, ir_ref a, ir_ref b) { return ir_ew2(g, IR_mul, a, b); }

/* x [*,H,T,n] as [*,G,H/G*T,n] */
static ir_ref stack(const naive *a, ir_ref x) {
  tt_shape s = a->stacked;
  if (!x) return 0;
  s.dim[s.rank - 1] = ir_at(a->g, x)->dim[s.rank - 1];
  return ir_reshape(a->g, x, s);
}

/* x, a mask or the like that broadcasts to [*,H,T,S], stacked. */
static ir_ref spread(const naive *a, ir_ref x) { return ir_reshape(a->g, ir_broadcast_to(a->g, x, a->all), a->stacked); }

/* Scores, stacked and wide, -inf where something is not to be seen. */
static ir_ref scores(const naive *a, ir_ref q, ir_ref k, const ir_attention_options *o) {
  ir_graph *g = a->g;
  int r = a->all.rank;
  ir_ref s = ir_matmul(g, stack(a, mul(g, q, ir_like(g, q, o->scale))), k, false, true, 1);
  if (!s) return 0;
  s = ir_cast(g, s, a->wide);
  ir_ref allowed = 0, none = ir_scalar(g, a->wide, -INFINITY);
  tt_shape square = {.rank = 2, .dim = {a->all.dim[r - 2], a->all.dim[r - 1]}};
  ir_ref row = ir_iota(g, TT_I64, square, 0), column = ir_iota(g, TT_I64, square, 1), live = o->length;
  if (live) {
    live = ir_ew2(g, IR_min, ir_ew2(g, IR_max, live, ir_scalar_int(g, TT_I64, 0)), ir_scalar_int(g, TT_I64, square.dim[1]));
    if (o->causal) row = ir_ew2(g, IR_add, row, ir_ew2(g, IR_sub, live, ir_scalar_int(g, TT_I64, square.dim[0])));
    allowed = ir_ew2(g, IR_lt, column, live);
  }
  if (o->causal) {
    ir_ref seen = ir_ew2(g, IR_le, column, row);
    allowed = allowed ? ir_ew2(g, IR_and, allowed, seen) : seen;
  }
  if (o->mask && ir_at(g, o->mask)->dtype == TT_BOOL) s = ir_select(g, spread(a, o->mask), s, none);
  else if (o->mask) s = ir_ew2(g, IR_add, s, spread(a, ir_cast(g, o->mask, a->wide)));
  return allowed ? ir_select(g, spread(a, allowed), s, none) : s;
}

/* x of [*,G,H/G*T] along the last axis too. */
static ir_ref along(const naive *a, ir_ref x) {
  int dims[TT_MAX_RANK];
  for (int i = 0; i < TT_MAX_RANK; i++) dims[i] = i;
  return ir_broadcast(a->g, x, a->stacked, dims);
}

ir_ref pass_attention_naive(ir_graph *g, ir_op op, const ir_ref *args, const ir_attention_options *o) {
  for (int i = 0; i < ir_attention_first(op); i++)
    if (!args[i]) return 0;
  const ir_node *q = ir_at(g, args[0]), *k = ir_at(g, args[1]);
  int r = q->rank, last = r - 1;
  naive n = {.g = g, .type = (tt_dtype)q->dtype, .wide = q->dtype == TT_F64 ? TT_F64 : TT_F32, .all = ir_shape(g, args[0])}, *a = &n;
  n.all.dim[last] = k->dim[r - 2];
  n.stacked = n.all;
  if (r > 2 && k->dim[r - 3]) n.stacked.dim[r - 3] = k->dim[r - 3], n.stacked.dim[r - 2] *= n.all.dim[r - 3] / k->dim[r - 3];
  n.rows = n.stacked, n.rows.rank--;
  tt_shape heads = n.all, result = ir_shape(g, args[0]);
  heads.rank--;
  ir_ref s = scores(a, args[0], args[1], o);
  if (!s) return 0;
  if (op == IR_attention || op == IR_attention_lse) {
    /* The shift by the maximum changes nothing but rounding, so no derivative goes through it. A row of -inf keeps away from inf - inf, and its sum from 0. */
    ir_ref largest = ir_stop_gradient(g, ir_ew2(g, IR_max, ir_reduce(g, IR_amax, s, &last, 1, false), ir_scalar(g, a->wide, -FLT_MAX)));
    ir_ref p = ir_ew1(g, IR_exp, ir_ew2(g, IR_sub, s, along(a, largest))), sum = ir_reduce(g, IR_sum, p, &last, 1, false);
    sum = ir_select(g, ir_ew2(g, IR_lt, sum, ir_like(g, sum, 0.5)), ir_like(g, sum, 1), sum);
    if (op == IR_attention_lse) return ir_reshape(g, ir_cast(g, ir_ew2(g, IR_add, largest, ir_ew1(g, IR_log, sum)), a->type), heads);
    p = ir_cast(g, ir_ew2(g, IR_div, p, along(a, sum)), a->type);
    result.dim[last] = ir_at(g, args[2])->dim[last];
    return ir_reshape(g, ir_matmul(g, p, args[2], false, false, 1), result);
  }
  ir_ref lse = ir_ew2(g, IR_max, ir_cast(g, args[4], a->wide), ir_scalar(g, a->wide, -FLT_MAX));
  ir_ref p = ir_ew1(g, IR_exp, ir_ew2(g, IR_sub, s, along(a, ir_reshape(g, lse, n.rows)))), dy = stack(a, args[3]);
  if (op == IR_attention_dv) return ir_matmul(g, ir_cast(g, p, a->type), dy, true, false, 1);
  ir_ref dp = ir_cast(g, ir_matmul(g, dy, args[2], false, true, 1), a->wide), delta = along(a, ir_reshape(g, ir_cast(g, args[5], a->wide), n.rows));
  ir_ref ds = mul(g, mul(g, p, ir_ew2(g, IR_sub, dp, delta)), ir_scalar(g, a->wide, o->scale));
  ds = ir_cast(g, ds, a->type);
  if (op == IR_attention_dk) return ir_matmul(g, ds, stack(a, args[0]), true, false, 1);
  return ir_reshape(g, ir_matmul(g, ds, args[1], false, false, 1), result);
}
