/* index.c: ops whose indices are values: gather and scatter, one-hot rows, sorting. */
#include "frontend.h"

#define INTEGER(v) \
  if (!tt_dtype_in(tt_dtype_of(v), TT_INT)) WRONG("use tt_cast to make it i64", "the index is %s, not an integer", tt_dtype_name(tt_dtype_of(v)))

/* x cut to the index's sizes in all axes but one: what torch.gather reads. 0 when the index is larger. */
static ir_ref cut_to(ir_graph *g, tt_val x, tt_val index, int axis) {
  ir_ref y = x.ref;
  for (int i = 0; i < tt_rank(x); i++) {
    if (i == axis || tt_dim(x, i) == tt_dim(index, i)) continue;
    if (tt_dim(x, i) < tt_dim(index, i)) return 0;
    y = ir_slice_axis(g, y, i, 0, tt_dim(index, i), 1);
  }
  return y;
}

tt_val tt_gather_at(tt_here here, tt_val x, int axis, tt_val index) {
  OPEN("gather", here, x, index);
  AXIS(i, axis, x);
  INTEGER(index);
  if (tt_rank(index) != tt_rank(x))
    WRONG("give an index of x's rank; tt_index_select takes a list", "ranks differ, %d and %d", tt_rank(x), tt_rank(index));
  ir_ref y = cut_to(g, x, index, i);
  if (!y) WRONG("broadcast x first", "the index is larger than x outside of axis %d", i);
  DONE(ir_gather(g, y, ir_cast(g, index.ref, TT_I64), i));
}

tt_val tt_scatter_add_at(tt_here here, tt_val x, int axis, tt_val index, tt_val src) {
  OPEN("scatter_add", here, x, index, src);
  AXIS(i, axis, x);
  INTEGER(index);
  if (tt_rank(index) != tt_rank(x) || tt_rank(src) != tt_rank(x)) WRONG("give all three one rank", "ranks differ");
  if (tt_dtype_of(x) != tt_dtype_of(src))
    WRONG("use tt_cast on src", "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(x)), tt_dtype_name(tt_dtype_of(src)));
  for (int k = 0; k < tt_rank(x); k++)
    if (tt_dim(index, k) > tt_dim(src, k) || (k != i && tt_dim(index, k) != tt_dim(x, k)))
      WRONG("index must not exceed src, and equal x but along the axis", "sizes do not fit in axis %d", k);
  tt_val part = {x.trace, src.ref};
  part.ref = cut_to(g, src, index, -1);
  DONE(ir_scatter_add(g, x.ref, ir_cast(g, index.ref, TT_I64), part.ref, i));
}

tt_val tt_index_select_at(tt_here here, tt_val x, int axis, tt_val index) {
  OPEN("index_select", here, x, index);
  AXIS(i, axis, x);
  INTEGER(index);
  if (tt_rank(index) != 1) WRONG("flatten it, or use tt_gather", "the index has rank %d, not 1", tt_rank(index));
  tt_shape s = tt_shape_of(x), list = {.rank = s.rank};
  s.dim[i] = tt_dim(index, 0);
  for (int k = 0; k < s.rank; k++) list.dim[k] = k == i ? s.dim[i] : 1;
  ir_ref wide = ir_broadcast_to(g, ir_reshape(g, ir_cast(g, index.ref, TT_I64), list), s);
  DONE(wide ? ir_gather(g, x.ref, wide, i) : 0);
}

/* i64[rank]: start on the axis, 0 on the others. */
static ir_ref starts(tt_call *c, tt_val x, int axis, tt_val start) {
  int rank = tt_rank(x);
  int64_t here[TT_MAX_RANK] = {0};
  here[axis] = 1;
  tt_val on = tt_constant(c->t, TT_I64, TT_SHAPE(rank), here);
  return tt_mul(on, tt_cast(start, TT_I64)).ref;
}

tt_val tt_dynamic_slice_at(tt_here here, tt_val x, int axis, tt_val start, int64_t size) {
  OPEN("dynamic_slice", here, x, start);
  AXIS(i, axis, x);
  INTEGER(start);
  if (tt_rank(start) != 0) WRONG("give one integer, of rank 0", "the start has rank %d", tt_rank(start));
  if (size < 0 || size > tt_dim(x, i)) WRONG("take at most what there is", "%lld entries of an axis of %lld", (long long)size, (long long)tt_dim(x, i));
  int64_t sizes[TT_MAX_RANK];
  for (int k = 0; k < tt_rank(x); k++) sizes[k] = k == i ? size : tt_dim(x, k);
  DONE(ir_dynamic_slice(g, x.ref, starts(&call, x, i, start), sizes));
}

tt_val tt_dynamic_update_slice_at(tt_here here, tt_val x, int axis, tt_val start, tt_val u) {
  OPEN("dynamic_update_slice", here, x, start, u);
  AXIS(i, axis, x);
  INTEGER(start);
  if (tt_rank(start) != 0) WRONG("give one integer, of rank 0", "the start has rank %d", tt_rank(start));
  bool fits = tt_rank(u) == tt_rank(x) && tt_dtype_of(u) == tt_dtype_of(x);
  for (int k = 0; fits && k < tt_rank(x); k++) fits = k == i ? tt_dim(u, k) <= tt_dim(x, k) : tt_dim(u, k) == tt_dim(x, k);
  if (!fits) WRONG("give u of x's type and shape, shorter along the axis at most", "the shapes do not fit");
  DONE(ir_dynamic_update_slice(g, x.ref, u.ref, starts(&call, x, i, start)));
}

tt_val tt_one_hot_at(tt_here here, tt_val index, int64_t classes, tt_dtype dtype) {
  OPEN("one_hot", here, index);
  INTEGER(index);
  tt_shape s = tt_shape_of(index);
  if (s.rank == TT_MAX_RANK) WRONG("flatten the index first", "rank %d has no room", s.rank);
  if (classes < 1) WRONG("give the number of classes", "%lld classes", (long long)classes);
  s.dim[s.rank++] = classes;
  ir_ref hot = ir_ew2(g, IR_eq, ir_expand_dims(g, ir_cast(g, index.ref, TT_I64), s.rank - 1), ir_iota(g, TT_I64, s, s.rank - 1));
  DONE(hot ? ir_cast(g, hot, dtype) : 0);
}

tt_val tt_argsort_at(tt_here here, tt_val x, int axis, bool descending) {
  OPEN("argsort", here, x);
  AXIS(i, axis, x);
  DONE(ir_argsort(g, x.ref, i, descending));
}

/* The first k of the sorted axis (all for k < 0). */
static void sorted(tt_call *c, tt_val x, int axis, bool descending, int64_t k, tt_val *values, tt_val *indices) {
  int i;
  if (!trace_axis(c, axis, tt_rank(x), &i)) return;
  if (k > tt_dim(x, i)) {
    trace_wrong(c, "ask for fewer", "k is %lld, but axis %d has the size %lld", (long long)k, i, (long long)tt_dim(x, i));
    return;
  }
  ir_ref order = ir_argsort(c->g, x.ref, i, descending);
  if (k >= 0 && order) order = ir_slice_axis(c->g, order, i, 0, k, 1);
  if (values) values->ref = order ? ir_gather(c->g, x.ref, order, i) : 0;
  if (indices) indices->ref = order;
}

void tt_sort_at(tt_here here, tt_val x, int axis, bool descending, tt_val *values, tt_val *indices) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("sort", here, &x, 1);
  if (values) *values = (tt_val){c.t, 0};
  if (indices) *indices = (tt_val){c.t, 0};
  if (c.g) sorted(&c, x, axis, descending, -1, values, indices);
}

void tt_topk_at(tt_here here, tt_val x, int64_t k, int axis, bool largest, tt_val *values, tt_val *indices) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("topk", here, &x, 1);
  if (values) *values = (tt_val){c.t, 0};
  if (indices) *indices = (tt_val){c.t, 0};
  if (!c.g) return;
  if (k < 1) trace_wrong(&c, "ask for at least 1", "k is %lld", (long long)k);
  else sorted(&c, x, axis, largest, k, values, indices);
}
