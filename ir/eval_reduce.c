/* eval_reduce.c: sum prod amax amin argmax argmin cumsum fold: many elements go into one.
 *
 * The argument is walked once in row-major order, so each result takes its elements in that order. Sums and products of
 * reals are made in double and rounded once; integers wrap. */
#include "eval.h"

/* Where element `index` of the argument goes in the result: strides that are 0 along reduced axes. */
static void result_strides(const ev_call *c, int64_t *stride) {
  const ir_node *x = ev_arg(c, 0);
  int n;
  const int64_t *axes = ir_ints(c->n, "axes", &n);
  bool reduced[TT_MAX_RANK] = {0};
  for (int i = 0; i < n; i++) reduced[axes[i]] = true;
  int64_t s = 1;
  for (int i = x->rank - 1; i >= 0; i--) {
    stride[i] = reduced[i] ? 0 : s;
    if (!reduced[i]) s *= x->dim[i];
  }
}

/* The identity of an op, as a wide number of the type. */
static void identity(ir_op op, tt_dtype t, void *wide) {
  if (op == IR_sum || op == IR_prod) {
    double d = op == IR_prod;
    uint64_t u = op == IR_prod;
    memcpy(wide, ev_class_of(t) == EV_REAL ? (void *)&d : (void *)&u, 8);
    return;
  }
  uint64_t stored = 0;                 /* room for one element: the infinity saturates to the type's limit */
  ir_store_double(t, &stored, 0, op == IR_amin ? INFINITY : t == TT_BOOL ? 0 : -INFINITY);
  ev_widen(t, &stored, 0, 1, wide);
}

/* acc[where(i)] = op(acc[where(i)], x[i]) for all i. */
#define WALK(step)                                                                                             \
  do {                                                                                                         \
    const W *x = data;                                                                                         \
    W *acc = result;                                                                                           \
    do {                                                                                                       \
      W *y = acc;                                                                                              \
      for (int i = 0; i < outer; i++) y += index[i] * stride[i];                                               \
      for (int64_t i = 0; i < length; i++, x++, y += inner) step;                                              \
    } while (ev_next(outer, shape->dim, index));                                                               \
  } while (0)

static tt_status reduce(const ev_call *c) {
  const ir_node *shape = ev_arg(c, 0);
  int outer = shape->rank ? shape->rank - 1 : 0;
  int64_t stride[TT_MAX_RANK] = {0}, index[TT_MAX_RANK] = {0}, n = ev_count(c->n), length = shape->rank ? shape->dim[outer] : 1;
  result_strides(c, stride);
  int64_t inner = shape->rank ? stride[outer] : 0;
  ev_class cls = ev_class_of(c->n->dtype);
  void *data = ev_wide_arg(c, 0), *result = data ? ev_scratch(c, n) : NULL;
  if (!result) { free(data); return TT_NO_MEMORY; }
  for (int64_t i = 0; i < n; i++) identity(c->n->op, c->n->dtype, (char *)result + 8 * i);
  if (ev_count(shape)) {
    switch (c->n->op) {
      case IR_sum: EV_FOR_SUMS(cls, WALK(*y += *x);); break;
      case IR_prod: EV_FOR_SUMS(cls, WALK(*y *= *x);); break;
      case IR_amax: EV_BY_CLASS(cls, WALK(*y = EV_CALL(max, *y, *x));); break;
      default: EV_BY_CLASS(cls, WALK(*y = EV_CALL(min, *y, *x));); break;
    }
  }
  ev_narrow(c->n->dtype, result, n, c->out, 0);
  free(data);
  free(result);
  return TT_OK;
}
tt_status eval_sum(const ev_call *c) { return reduce(c); }
tt_status eval_prod(const ev_call *c) { return reduce(c); }
tt_status eval_amax(const ev_call *c) { return reduce(c); }
tt_status eval_amin(const ev_call *c) { return reduce(c); }

/* An argument seen as [outer, length, inner] around one axis. */
typedef struct { int64_t outer, length, inner; } around;
static around split_at(const ir_node *x, int64_t axis) {
  return (around){ev_product(x->dim, 0, (int)axis), x->dim[axis], ev_product(x->dim, (int)axis + 1, x->rank)};
}

static tt_status arg_extreme(const ev_call *c, bool largest) {
  const ir_node *shape = ev_arg(c, 0);
  around a = split_at(shape, ir_int(c->n, "axis"));
  int64_t *out = c->out;
  void *data = ev_wide_arg(c, 0);
  if (!data) return TT_NO_MEMORY;
  EV_BY_CLASS(ev_class_of(shape->dtype),
    for (int64_t o = 0; o < a.outer; o++)
      for (int64_t i = 0; i < a.inner; i++) {
        const W *x = (const W *)data + o * a.length * a.inner + i;
        int64_t best = 0;
        for (int64_t k = 1; k < a.length; k++) {
          W v = x[k * a.inner], b = x[best * a.inner];
          if (b == b && (v != v || (largest ? v > b : v < b))) best = k;      /* NaN wins, as in amax and amin */
        }
        out[o * a.inner + i] = best;
      });
  free(data);
  return TT_OK;
}
tt_status eval_argmax(const ev_call *c) { return arg_extreme(c, true); }
tt_status eval_argmin(const ev_call *c) { return arg_extreme(c, false); }

tt_status eval_cumsum(const ev_call *c) {
  around a = split_at(c->n, ir_int(c->n, "axis"));
  bool exclusive = ir_int(c->n, "exclusive"), reversed = ir_int(c->n, "reversed");
  void *data = ev_wide_arg(c, 0);
  if (!data) return TT_NO_MEMORY;
  EV_FOR_SUMS(ev_class_of(c->n->dtype),
    for (int64_t o = 0; o < a.outer; o++)
      for (int64_t i = 0; i < a.inner; i++) {
        W *x = (W *)data + o * a.length * a.inner + i, total = 0;
        for (int64_t j = 0; j < a.length; j++) {
          W *at = x + (reversed ? a.length - 1 - j : j) * a.inner, before = total;
          total += *at;
          *at = exclusive ? before : total;
        }
      });
  ev_narrow(c->n->dtype, data, ev_count(c->n), c->out, 0);
  free(data);
  return TT_OK;
}

/* x [outer, windows, inner, size] -> y [outer, length, inner], y[o,j,i] = sum over windows w and k in order of k with
 * w*stride + k*dilation = j. */
tt_status eval_fold(const ev_call *c) {
  const ir_node *x = ev_arg(c, 0);
  int64_t axis = ir_int(c->n, "axis"), stride = ir_int(c->n, "stride"), dilation = ir_int(c->n, "dilation");
  int64_t windows = x->dim[axis], size = x->dim[x->rank - 1];
  around a = split_at(c->n, axis);
  void *data = ev_wide_arg(c, 0), *result = data ? ev_scratch(c, ev_count(c->n)) : NULL;
  if (!result) { free(data); return TT_NO_MEMORY; }
  EV_FOR_SUMS(ev_class_of(c->n->dtype),
    W *y = result;
    for (int64_t o = 0; o < a.outer; o++)
      for (int64_t j = 0; j < a.length; j++)
        for (int64_t i = 0; i < a.inner; i++, y++)
          for (int64_t k = 0; k < size; k++) {
            int64_t from = j - k * dilation;
            if (from >= 0 && from % stride == 0 && from / stride < windows) *y += ((const W *)data)[((o * windows + from / stride) * a.inner + i) * size + k];
          });
  ev_narrow(c->n->dtype, result, ev_count(c->n), c->out, 0);
  free(data);
  free(result);
  return TT_OK;
}
