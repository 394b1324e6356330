/* metric.c: what is measured of a batch, as values of the graph. */
#include "../frontend.h"

/* x [N,C,*D] and integer labels [N,*D]: made [N*D,C] and i64 [N*D]. */
static bool rows_of(const tt_call *c, tt_val *x, tt_val *y) {
  tt_shape s = tt_shape_of(*x), want = s, have = tt_shape_of(*y);
  for (int i = 1; i + 1 < s.rank; i++) want.dim[i] = s.dim[i + 1];
  want.rank--;
  if (s.rank < 2 || !tt_shape_equal(&want, &have) || !tt_dtype_in(tt_dtype_of(*y), TT_INT)) {
    trace_wrong(c, "give scores [N, C, ...] and integer labels [N, ...]", "the shapes or types do not fit");
    return false;
  }
  tt_ints order = {.n = s.rank};
  for (int i = 0; i < s.rank; i++) order.v[i] = i == 0 ? 0 : i + 1 < s.rank ? i + 1 : 1;
  if (s.rank > 2) *x = tt_permute(*x, order);
  int64_t rows = tt_shape_count(&have);
  *x = tt_reshape(*x, TT_SHAPE(rows, s.dim[1]));
  *y = tt_cast(tt_reshape(*y, TT_SHAPE(rows)), TT_I64);
  return true;
}

/* A label's place among the scores is how many are larger, or equal and before it. */
tt_val tt_topk_correct_at(tt_here here, tt_val x, tt_val y, int64_t k) {
  OPEN("topk_correct", here, x, y);
  if (!rows_of(&call, &x, &y)) DONE(0);
  if (k < 1 || k > tt_dim(x, 1)) WRONG("give 1 up to the number of classes", "cannot look at the best %lld of %lld", (long long)k, (long long)tt_dim(x, 1));
  tt_val label = tt_unsqueeze(y, 1), own = tt_gather(x, 1, label), c = tt_arange(call.t, TT_I64, tt_dim(x, 1));
  tt_val before = tt_or(tt_not(tt_le(x, own)), tt_and(tt_eq(x, own), tt_lt(c, label)));           /* a NaN is before all, in either place */
  tt_val place = tt_sum(tt_cast(before, TT_I64), TT_AXES(1), false);
  tt_val is_class = tt_and(tt_ge(y, 0), tt_lt(y, (double)tt_dim(x, 1)));
  return tt_sum(tt_cast(tt_and(is_class, tt_lt(place, (double)k)), TT_I64), TT_ALL, false);
}

tt_val tt_accuracy_at(tt_here here, tt_val x, tt_val y, int64_t k) {
  OPEN("accuracy", here, x, y);
  tt_dtype t = tt_dtype_of(x);
  tt_shape s = tt_shape_of(y);
  tt_val right = tt_topk_correct_at(here, x, y, k);
  if (!tt_dtype_in(t, TT_REAL)) WRONG("use tt_cast to make the scores f32", "it takes real numbers, not %s", tt_dtype_name(t));
  return tt_div(tt_cast(right, t), (double)tt_shape_count(&s));
}

tt_val tt_confusion_matrix_at(tt_here here, tt_val x, tt_val y) {
  OPEN("confusion_matrix", here, x, y);
  if (!rows_of(&call, &x, &y)) DONE(0);
  int64_t classes = tt_dim(x, 1), rows = tt_dim(x, 0);
  tt_val at = tt_add(tt_mul(y, (double)classes), tt_argmax(x, 1, false));                         /* what is no class must not fall into another row */
  at = tt_where(tt_and(tt_ge(y, 0), tt_lt(y, (double)classes)), at, -1);
  tt_val zero = tt_cast(tt_full(at, TT_SHAPE(classes * classes), 0), TT_I64), one = tt_full(at, TT_SHAPE(rows), 1);
  return tt_reshape(tt_scatter_add(zero, 0, at, one), TT_SHAPE(classes, classes));
}

tt_val tt_perplexity_at(tt_here here, tt_val x, tt_val y) {
  OPEN("perplexity", here, x, y);
  return tt_exp(tt_cross_entropy(x, y));
}
