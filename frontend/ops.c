/* ops.c: elementwise ops and reductions on symbolic values. What is a row of ir/ops.def is emitted as it is; what is an elementwise
 * formula is a row of functions.def; what is left is written here over the builder of ir.h. */
#include "frontend.h"

tt_operand tt_operand_of(tt_val v) { return (tt_operand){.val = v}; }
tt_operand tt_operand_number(double v) { return (tt_operand){.number = v, .is_number = true}; }

/* -- Values from nothing ------------------------------------------------------------------------------------------------ */

tt_val tt_constant_at(tt_here here, tt_trace *t, tt_dtype dtype, tt_shape shape, const void *data) {
  __attribute__((cleanup(trace_close))) tt_call call = trace_open_empty("constant", here, t);
  if (!call.g) DONE(0);
  DONE(ir_const(call.g, dtype, shape, data));
}

tt_val tt_scalar_at(tt_here here, tt_val like, double value) {
  OPEN("scalar", here, like);
  DONE(ir_like(g, like.ref, value));
}

tt_val tt_full_at(tt_here here, tt_val like, tt_shape shape, double value) {
  OPEN("full", here, like);
  DONE(ir_full(g, tt_dtype_of(like), shape, value));
}

tt_val tt_arange_at(tt_here here, tt_trace *t, tt_dtype dtype, int64_t n) {
  __attribute__((cleanup(trace_close))) tt_call call = trace_open_empty("arange", here, t);
  if (!call.g) DONE(0);
  if (n < 0) WRONG("ask for 0 or more", "a count of %lld", (long long)n);
  DONE(ir_iota(call.g, dtype, TT_SHAPE(n), 0));
}

/* -- One value ---------------------------------------------------------------------------------------------------------- */

static tt_val unary(tt_here here, const char *name, ir_op op, tt_val x) {
  OPEN(name, here, x);
  if (!tt_dtype_in(tt_dtype_of(x), ir_ops[op].takes))
    WRONG(tt_dtype_of(x) == TT_BOOL ? "use tt_cast, or tt_not and tt_where for conditions" : "use tt_cast to change its type",
          "it takes no %s", tt_dtype_name(tt_dtype_of(x)));
  DONE(ir_ew1(g, op, x.ref));
}
#define UNARY(name) tt_val tt_##name##_at(tt_here here, tt_val x) { return unary(here, #name, IR_##name, x); }
UNARY(neg) UNARY(abs) UNARY(sign) UNARY(exp) UNARY(expm1) UNARY(log) UNARY(log1p) UNARY(sqrt) UNARY(rsqrt) UNARY(sin) UNARY(cos)
UNARY(tan) UNARY(atan) UNARY(tanh) UNARY(erf) UNARY(floor) UNARY(ceil) UNARY(round) UNARY(not) UNARY(relu) UNARY(sigmoid)

static tt_val function(tt_here here, const char *name, const char *text, tt_val x, const char *p, double pv, const char *q, double qv) {
  OPEN(name, here, x);
  return trace_text(&call, text, (const char *const[]){"x", p, q}, (const tt_val[]){x, {0}, {0}}, (const double[]){0, pv, qv}, 3);
}
#define F1(name, text) tt_val tt_##name##_at(tt_here here, tt_val x) { return function(here, #name, text, x, "", 0, "", 0); }
#include "functions.def"

#define P1(name, p) tt_val tt_##name##_at(tt_here here, tt_val x, double p) { return name##_row(here, x, p, 0); }
#define P2(name, p, q) tt_val tt_##name##_at(tt_here here, tt_val x, double p, double q) { return name##_row(here, x, p, q); }
#define F1P(name, p, q, text) static tt_val name##_row(tt_here here, tt_val x, double pv, double qv) { return function(here, #name, text, x, #p, pv, #q, qv); }
#include "functions.def"
P1(elu, alpha) P1(leaky_relu, slope) P2(softplus, beta, threshold) P2(hardtanh, low, high)

tt_val tt_clamp_at(tt_here here, tt_val x, double low, double high) {
  OPEN("clamp", here, x);
  if (low > high) WRONG("give the lower bound first", "the bounds are %g and %g", low, high);
  return clamp_row(here, x, low, high);
}

tt_val tt_cast_at(tt_here here, tt_val x, tt_dtype dtype) {
  OPEN("cast", here, x);
  DONE(ir_cast(g, x.ref, dtype));
}

tt_val tt_bitcast_at(tt_here here, tt_val x, tt_dtype dtype) {
  OPEN("bitcast", here, x);
  if (tt_dtype_size(dtype) != tt_dtype_size(tt_dtype_of(x)))
    WRONG("choose a type of as many bytes, or tt_cast", "%s is not as wide as %s", tt_dtype_name(dtype), tt_dtype_name(tt_dtype_of(x)));
  DONE(ir_bitcast(g, x.ref, dtype));
}

tt_val tt_stop_gradient_at(tt_here here, tt_val x) {
  OPEN("stop_gradient", here, x);
  DONE(ir_stop_gradient(g, x.ref));
}

/* -- Activations that are no formula ------------------------------------------------------------------------------------ */

#define REAL_ONLY(x) \
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x)))

tt_val tt_gelu_at(tt_here here, tt_val x, bool tanh) {
  OPEN("gelu", here, x);
  REAL_ONLY(x);
  DONE(ir_gelu(g, x.ref, tanh));
}

tt_val tt_silu_at(tt_here here, tt_val x) {
  OPEN("silu", here, x);
  REAL_ONLY(x);
  DONE(ir_silu(g, x.ref));
}

tt_val tt_softmax_at(tt_here here, tt_val x, int axis) {
  OPEN("softmax", here, x);
  REAL_ONLY(x);
  AXIS(i, axis, x);
  DONE(ir_softmax(g, IR_softmax, x.ref, i));
}

tt_val tt_log_softmax_at(tt_here here, tt_val x, int axis) {
  OPEN("log_softmax", here, x);
  REAL_ONLY(x);
  AXIS(i, axis, x);
  DONE(ir_softmax(g, IR_log_softmax, x.ref, i));
}

tt_val tt_glu_at(tt_here here, tt_val x, int axis) {
  OPEN("glu", here, x);
  REAL_ONLY(x);
  AXIS(i, axis, x);
  int64_t n = tt_dim(x, i);
  if (n % 2) WRONG("give an axis of even size", "axis %d has the odd size %lld", i, (long long)n);
  ir_ref a = ir_slice_axis(g, x.ref, i, 0, n / 2, 1), b = ir_slice_axis(g, x.ref, i, n / 2, n, 1);
  DONE(ir_ew2(g, IR_mul, a, ir_ew1(g, IR_sigmoid, b)));
}

tt_val tt_f_prelu_at(tt_here here, tt_val x, tt_val w) {
  OPEN("prelu", here, x, w);
  tt_shape s = {.rank = tt_rank(x)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = i == 1 ? tt_dim(w, 0) : 1;
  if (tt_rank(w) != 1 || (tt_dim(w, 0) != 1 && (s.rank < 2 || tt_dim(w, 0) != tt_dim(x, 1))))
    WRONG("give one slope, or one a channel", "the slopes must be [1] or [channels]");
  ir_ref slope = tt_dim(w, 0) == 1 ? ir_reshape(g, w.ref, TT_SCALAR) : ir_reshape(g, w.ref, s);
  return trace_text(&call, "select(gt(x, 0), x, mul(w, x))", (const char *const[]){"x", "w"}, (const tt_val[]){x, {x.trace, slope}}, NULL, 2);
}

tt_val tt_f_swiglu_at(tt_here here, tt_val x, tt_val w, tt_val v, tt_val o) {
  OPEN("swiglu", here, x, w, v, o);
  tt_val none = {0}, gate = tt_silu_at(here, tt_f_linear_at(here, x, w, none));
  return tt_f_linear_at(here, tt_mul_at(here, tt_operand_of(gate), tt_operand_of(tt_f_linear_at(here, x, v, none))), o, none);
}

/* -- Two values --------------------------------------------------------------------------------------------------------- */

/* Two operands of one type, numbers made values; broadcasting itself is the builder's. */
static bool operands(tt_call *c, tt_operand a, tt_operand b, tt_val *x, tt_val *y) {
  if (!c->g) return false;
  *x = a.is_number ? (tt_val){c->t, ir_like(c->g, b.val.ref, a.number)} : a.val;
  *y = b.is_number ? (tt_val){c->t, ir_like(c->g, a.val.ref, b.number)} : b.val;
  tt_shape s, p = tt_shape_of(*x), q = tt_shape_of(*y);
  if (tt_dtype_of(*x) != tt_dtype_of(*y)) {
    char fix[100];
    snprintf(fix, sizeof fix, "use tt_cast on one of them, as tt_cast(b, %s)", tt_dtype_name(tt_dtype_of(*x)));
    trace_wrong(c, fix, "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(*x)), tt_dtype_name(tt_dtype_of(*y)));
    return false;
  }
  if (!trace_broadcasts(&p, &q, &s)) {
    trace_wrong(c, "sizes must be equal, or 1, from the last axis on; tt_reshape or tt_unsqueeze one of them", "the shapes do not broadcast");
    return false;
  }
  return true;
}

static tt_call open_binary(const char *name, tt_here here, tt_operand a, tt_operand b) {
  tt_val v[2];
  int n = 0;
  if (!a.is_number) v[n++] = a.val;
  if (!b.is_number) v[n++] = b.val;
  return trace_open(name, here, v, n);
}
#define OPEN2(name, a, b) \
  __attribute__((cleanup(trace_close))) tt_call call = open_binary(name, here, a, b); \
  tt_val x, y; \
  if (!operands(&call, a, b, &x, &y)) DONE(0)

static tt_val binary(tt_here here, const char *name, ir_op op, tt_operand a, tt_operand b) {
  OPEN2(name, a, b);
  if (!tt_dtype_in(tt_dtype_of(x), ir_ops[op].takes)) WRONG("use tt_cast to change their type", "it takes no %s", tt_dtype_name(tt_dtype_of(x)));
  DONE(ir_ew2(call.g, op, x.ref, y.ref));
}
#define BINARY(name, op) tt_val tt_##name##_at(tt_here here, tt_operand a, tt_operand b) { return binary(here, #name, IR_##op, a, b); }
BINARY(add, add) BINARY(sub, sub) BINARY(mul, mul) BINARY(div, div) BINARY(fmod, fmod) BINARY(pow, pow) BINARY(atan2, atan2)
BINARY(maximum, max) BINARY(minimum, min) BINARY(and, and) BINARY(or, or) BINARY(xor, xor)
BINARY(eq, eq) BINARY(ne, ne) BINARY(lt, lt) BINARY(le, le) BINARY(gt, gt) BINARY(ge, ge)

static tt_val function2(tt_here here, const char *name, const char *text, tt_operand a, tt_operand b) {
  OPEN2(name, a, b);
  return trace_text(&call, text, (const char *const[]){"a", "b"}, (const tt_val[]){x, y}, NULL, 2);
}
#define F2(name, text) tt_val tt_##name##_at(tt_here here, tt_operand a, tt_operand b) { return function2(here, #name, text, a, b); }
#include "functions.def"

tt_val tt_where_at(tt_here here, tt_val condition, tt_operand a, tt_operand b) {
  OPEN("where", here, condition);
  tt_call both = open_binary("where", here, a, b);
  tt_val x = {0}, y = {0};
  bool good = a.is_number && b.is_number ? false : operands(&both, a, b, &x, &y);
  trace_close(&both);
  if (a.is_number && b.is_number) WRONG("make one of them a value with tt_scalar", "both branches are numbers, which have no type");
  if (!good) DONE(0);
  if (tt_dtype_of(condition) != TT_BOOL)
    WRONG("compare it with something: tt_gt(x, 0)", "the condition is %s, not bool", tt_dtype_name(tt_dtype_of(condition)));
  tt_shape s, p = tt_shape_of(x), q = tt_shape_of(y), c = tt_shape_of(condition);
  trace_broadcasts(&p, &q, &s);
  if (!trace_broadcasts(&s, &c, &s)) WRONG("sizes must be equal, or 1, from the last axis on", "the condition does not broadcast with the branches");
  DONE(ir_select(g, condition.ref, x.ref, y.ref));
}

/* -- Reductions --------------------------------------------------------------------------------------------------------- */

#define AXES(x) \
  int axis[TT_MAX_RANK], n = trace_axes(&call, x, axes, axis); \
  if (n < 0) DONE(0)

static ir_ref reduce(ir_graph *g, ir_op op, ir_ref x, const int *axis, int n, bool keep) { return n ? ir_reduce(g, op, x, axis, n, keep) : x; }

static tt_val reduction(tt_here here, const char *name, ir_op op, tt_val x, tt_ints axes, bool keepdim) {
  OPEN(name, here, x);
  if (!tt_dtype_in(tt_dtype_of(x), ir_ops[op].takes)) WRONG("use tt_cast: to i64 to count", "it takes no %s", tt_dtype_name(tt_dtype_of(x)));
  AXES(x);
  DONE(reduce(g, op, x.ref, axis, n, keepdim));
}
#define REDUCTION(name) tt_val tt_##name##_at(tt_here here, tt_val x, tt_ints axes, bool keepdim) { return reduction(here, #name, IR_##name, x, axes, keepdim); }
REDUCTION(sum) REDUCTION(prod) REDUCTION(amax) REDUCTION(amin)

static int64_t count_of(tt_val x, const int *axis, int n) {
  int64_t count = 1;
  for (int i = 0; i < n; i++) count *= tt_dim(x, axis[i]);
  return count;
}

tt_val tt_mean_at(tt_here here, tt_val x, tt_ints axes, bool keepdim) {
  OPEN("mean", here, x);
  REAL_ONLY(x);
  AXES(x);
  DONE(n ? ir_mean(g, x.ref, axis, n, keepdim) : x.ref);
}

/* sum((x - mean)^2) / (count - correction): two passes, as one is not accurate when the mean is large. */
static ir_ref variance(ir_graph *g, tt_val x, const int *axis, int n, int64_t correction, bool keepdim) {
  ir_ref d = ir_ew2(g, IR_sub, x.ref, n ? ir_mean(g, x.ref, axis, n, true) : x.ref);
  int64_t count = count_of(x, axis, n) - correction;
  return ir_ew2(g, IR_div, reduce(g, IR_sum, ir_ew2(g, IR_mul, d, d), axis, n, keepdim), ir_like(g, x.ref, count > 0 ? (double)count : 0));
}

tt_val tt_var_at(tt_here here, tt_val x, tt_ints axes, int64_t correction, bool keepdim) {
  OPEN("var", here, x);
  REAL_ONLY(x);
  AXES(x);
  DONE(variance(g, x, axis, n, correction, keepdim));
}

tt_val tt_std_at(tt_here here, tt_val x, tt_ints axes, int64_t correction, bool keepdim) {
  OPEN("std", here, x);
  REAL_ONLY(x);
  AXES(x);
  DONE(ir_ew1(g, IR_sqrt, variance(g, x, axis, n, correction, keepdim)));
}

/* The maximum is a shift that cancels, so it has no gradient; an infinite one is not subtracted from itself. */
tt_val tt_logsumexp_at(tt_here here, tt_val x, tt_ints axes, bool keepdim) {
  OPEN("logsumexp", here, x);
  REAL_ONLY(x);
  AXES(x);
  ir_ref top = ir_stop_gradient(g, reduce(g, IR_amax, x.ref, axis, n, true));
  ir_ref finite = ir_ew2(g, IR_lt, ir_ew1(g, IR_abs, top), ir_like(g, top, INFINITY));
  ir_ref shift = ir_select(g, finite, top, ir_like(g, top, 0));
  ir_ref sum = reduce(g, IR_sum, ir_ew1(g, IR_exp, ir_ew2(g, IR_sub, x.ref, shift)), axis, n, true);
  ir_ref y = ir_ew2(g, IR_add, ir_ew1(g, IR_log, sum), shift);
  if (!keepdim) {
    tt_shape s = {.rank = 0};
    for (int i = 0; i < tt_rank(x); i++) {
      bool gone = false;
      for (int k = 0; k < n; k++) gone |= axis[k] == i;
      if (!gone) s.dim[s.rank++] = tt_dim(x, i);
    }
    y = ir_reshape(g, y, s);
  }
  DONE(y);
}

/* The 2-norm of zeros has the gradient 0, as in PyTorch. */
tt_val tt_vector_norm_at(tt_here here, tt_val x, double ord, tt_ints axes, bool keepdim) {
  OPEN("vector_norm", here, x);
  REAL_ONLY(x);
  AXES(x);
  ir_ref a = ir_ew1(g, IR_abs, x.ref);
  if (isinf(ord)) DONE(reduce(g, ord > 0 ? IR_amax : IR_amin, a, axis, n, keepdim));
  if (ord == 1) DONE(reduce(g, IR_sum, a, axis, n, keepdim));
  if (ord == 0) DONE(reduce(g, IR_sum, ir_cast(g, ir_ew2(g, IR_ne, x.ref, ir_like(g, x.ref, 0)), tt_dtype_of(x)), axis, n, keepdim));
  tt_val sum = {x.trace, reduce(g, IR_sum, ord == 2 ? ir_ew2(g, IR_mul, x.ref, x.ref) : ir_ew2(g, IR_pow, a, ir_like(g, a, ord)), axis, n, keepdim)};
  if (!sum.ref) DONE(0);
  return trace_text(&call, ord == 2 ? "select(eq(s, 0), 0, sqrt(select(eq(s, 0), 1, s)))" : "select(eq(s, 0), 0, pow(select(eq(s, 0), 1, s), p))",
                    (const char *const[]){"s", "p"}, (const tt_val[]){sum, {0}}, (const double[]){0, 1 / ord}, 2);
}

static tt_val arg(tt_here here, const char *name, ir_op op, tt_val x, int axis, bool keepdim) {
  OPEN(name, here, x);
  AXIS(i, axis, x);
  if (!tt_dim(x, i)) WRONG("give an axis of at least one element", "axis %d is empty", i);
  ir_ref r = ir_arg(g, op, x.ref, i);
  DONE(keepdim && r ? ir_expand_dims(g, r, i) : r);
}
tt_val tt_argmax_at(tt_here here, tt_val x, int axis, bool keepdim) { return arg(here, "argmax", IR_argmax, x, axis, keepdim); }
tt_val tt_argmin_at(tt_here here, tt_val x, int axis, bool keepdim) { return arg(here, "argmin", IR_argmin, x, axis, keepdim); }

tt_val tt_cumsum_at(tt_here here, tt_val x, int axis) {
  OPEN("cumsum", here, x);
  AXIS(i, axis, x);
  DONE(ir_cumsum(g, x.ref, i, false, false));
}

/* Doubling (Hillis & Steele 1986): after the step of distance d, element i is the product of the 2d elements up to i. Its gradient needs
 * no division, so that zeros are nothing special. */
tt_val tt_cumprod_at(tt_here here, tt_val x, int axis) {
  OPEN("cumprod", here, x);
  AXIS(i, axis, x);
  ir_ref y = x.ref;
  for (int64_t d = 1; d < tt_dim(x, i) && y; d *= 2) {
    int64_t lo[TT_MAX_RANK] = {0}, zero[TT_MAX_RANK] = {0};
    lo[i] = d;
    ir_ref shifted = ir_pad(g, ir_slice_axis(g, y, i, 0, tt_dim(x, i) - d, 1), ir_like(g, y, 1), lo, zero, zero);
    y = shifted ? ir_ew2(g, IR_mul, y, shifted) : 0;
  }
  DONE(y);
}
