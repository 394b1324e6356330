/* compare.c: losses that compare embeddings with each other or a model with another, and the focal loss: each is an expression of public ops. */
#include "../frontend.h"

static tt_val reduced(tt_val each, tt_reduction r) {
  if (r == TT_NONE) return each;
  tt_val sum = tt_sum(each, TT_ALL, false);
  tt_shape s = tt_shape_of(each);
  double count = r == TT_SUM ? 1 : r == TT_BATCHMEAN ? (double)tt_dim(each, 0) : (double)tt_shape_count(&s);
  return count == 1 ? sum : tt_div(sum, count);
}

static bool pairs(const tt_call *c, tt_val a, tt_val b) {
  tt_shape s = tt_shape_of(a), q = tt_shape_of(b);
  if (s.rank == 2 && tt_shape_equal(&s, &q) && tt_dtype_of(a) == tt_dtype_of(b) && tt_dtype_in(tt_dtype_of(a), TT_REAL)) return true;
  trace_wrong(c, "give two values [N, D] of one real type", "the embeddings do not fit each other");
  return false;
}

/* (1 - p)^gamma, p = exp(log_p): 0 where p is 1, without a power of 0, whose gradient may be infinite. */
static tt_val modulation(tt_val log_p, double gamma) {
  if (gamma == 0) return tt_scalar(log_p, 1);
  tt_val rest = tt_neg(tt_expm1(log_p)), some = tt_gt(rest, 0);
  return tt_where(some, tt_pow(tt_where(some, rest, 1), gamma), 0);
}

tt_val tt_focal_at(tt_here here, tt_val x, tt_val y, double alpha, double gamma, tt_reduction r) {
  OPEN("focal", here, x, y);
  if (!(gamma >= 0)) WRONG("2 is usual", "gamma is %g", gamma);
  if (tt_dtype_in(tt_dtype_of(y), TT_INT)) {
    tt_val nll = tt_cross_entropy(x, y, .reduction = TT_NONE);
    tt_val each = tt_mul(modulation(tt_neg(nll), gamma), nll);
    return reduced(alpha >= 0 ? tt_mul(each, alpha) : each, r);
  }
  tt_shape s = tt_shape_of(x), q = tt_shape_of(y);
  if (!tt_shape_equal(&s, &q) || tt_dtype_of(x) != tt_dtype_of(y) || !tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("give integer labels, or probabilities of x's shape and type", "the targets do not fit");
  tt_val yes = tt_mul(modulation(tt_log_sigmoid(x), gamma), tt_mul(y, tt_log_sigmoid(x)));
  tt_val no = tt_mul(modulation(tt_log_sigmoid(tt_neg(x)), gamma), tt_mul(tt_sub(1, y), tt_log_sigmoid(tt_neg(x))));
  if (alpha >= 0) yes = tt_mul(yes, alpha), no = tt_mul(no, 1 - alpha);
  return reduced(tt_neg(tt_add(yes, no)), r);
}

tt_val tt_contrastive_at(tt_here here, tt_val a, tt_val b, tt_val y, double margin, tt_reduction r) {
  OPEN("contrastive", here, a, b, y);
  if (!pairs(&call, a, b)) DONE(0);
  if (tt_rank(y) != 1 || tt_dim(y, 0) != tt_dim(a, 0)) WRONG("give one label a pair, 1 or 0", "y must be [%lld]", (long long)tt_dim(a, 0));
  y = tt_cast(y, tt_dtype_of(a));
  tt_val square = tt_sum(tt_square(tt_sub(a, b)), TT_AXES(1), false);
  tt_val apart = tt_square(tt_relu(tt_sub(margin, tt_vector_norm(tt_sub(a, b), 2, TT_AXES(1), false))));
  return reduced(tt_mul(0.5, tt_add(tt_mul(y, square), tt_mul(tt_sub(1, y), apart))), r);
}

/* Rows of length 1; a row of zeros stays one. */
static tt_val unit(tt_val a) { return tt_mul(a, tt_rsqrt(tt_maximum(tt_sum(tt_square(a), TT_AXES(1), true), 1e-24))); }

/* The mean cross entropy of rows, of which row i has its entry right[i] as the right one. */
static tt_val among(tt_val logits, int64_t shift) {
  int64_t n = tt_dim(logits, 0);
  tt_val own = tt_arange(logits.trace, TT_I64, n);
  return tt_cross_entropy(logits, shift ? tt_roll(own, TT_INTS(shift), TT_AXES(0)) : own);
}

tt_val tt_info_nce_at(tt_here here, tt_val a, tt_val b, double temperature, bool symmetric) {
  OPEN("info_nce", here, a, b);
  if (!pairs(&call, a, b)) DONE(0);
  if (!(temperature > 0)) WRONG("0.07 is usual", "the temperature is %g", temperature);
  tt_val logits = tt_div(tt_matmul(unit(a), tt_transpose(unit(b), 0, 1)), temperature);
  tt_val of_a = among(logits, 0);
  return symmetric ? tt_mul(0.5, tt_add(of_a, among(tt_transpose(logits, 0, 1), 0))) : of_a;
}

tt_val tt_nt_xent_at(tt_here here, tt_val a, tt_val b, double temperature) {
  OPEN("nt_xent", here, a, b);
  if (!pairs(&call, a, b)) DONE(0);
  if (!(temperature > 0)) WRONG("0.5 is usual", "the temperature is %g", temperature);
  tt_val both[2] = {unit(a), unit(b)}, rows = tt_concat(both, 2, 0);
  int64_t n = tt_dim(rows, 0);
  tt_val index = tt_arange(call.t, TT_I64, n), itself = tt_eq(tt_unsqueeze(index, 1), index);                  /* no row is among its own others */
  tt_val logits = tt_where(itself, tt_dtype_of(a) == TT_F16 ? -6e4 : -1e30, tt_div(tt_matmul(rows, tt_transpose(rows, 0, 1)), temperature));
  return among(logits, n / 2);
}

tt_val tt_distillation_at(tt_here here, tt_val student, tt_val teacher, double temperature, tt_reduction r) {
  OPEN("distillation", here, student, teacher);
  tt_shape s = tt_shape_of(student), q = tt_shape_of(teacher);
  if (s.rank < 2 || !tt_shape_equal(&s, &q) || tt_dtype_of(student) != tt_dtype_of(teacher) || !tt_dtype_in(tt_dtype_of(student), TT_REAL))
    WRONG("give two values [N, C, ...] of one real type", "the logits do not fit each other");
  if (!(temperature > 0)) WRONG("2 to 4 are usual", "the temperature is %g", temperature);
  tt_val want = tt_log_softmax(tt_div(tt_stop_gradient(teacher), temperature), 1), have = tt_log_softmax(tt_div(student, temperature), 1);
  tt_val each = tt_sum(tt_mul(tt_exp(want), tt_sub(want, have)), TT_AXES(1), false);
  return reduced(tt_mul(each, temperature * temperature), r);
}
