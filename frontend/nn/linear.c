/* linear.c: the linear layer, activations with weights, and what training drops. */
#include "../frontend.h"

tt_val tt_f_linear_at(tt_here here, tt_val x, tt_val w, tt_val b) {
  tt_val args[3] = {x, w, b};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("linear", here, args, trace_is(b) ? 3 : 2);
  if (!call.g) DONE(0);
  ir_graph *g = call.g;
  if (tt_rank(x) < 1 || tt_rank(w) != 2) WRONG("give x [..., in] and w [out, in]", "ranks %d and %d", tt_rank(x), tt_rank(w));
  if (tt_dtype_of(x) != tt_dtype_of(w) || (trace_is(b) && tt_dtype_of(x) != tt_dtype_of(b)))
    WRONG("use tt_cast: all three must be of one type", "element types differ");
  int64_t in = tt_dim(x, -1), out = tt_dim(w, 0);
  if (in != tt_dim(w, 1))
    WRONG(in == out ? "the weight is [out, in]; this one looks transposed" : "make them agree; images need tt_flatten(x, 1) first",
          "x has %lld features, but the weight takes %lld", (long long)in, (long long)tt_dim(w, 1));
  if (trace_is(b) && (tt_rank(b) != 1 || tt_dim(b, 0) != out)) WRONG("give one bias an output", "the bias must be [%lld]", (long long)out);
  tt_shape s = tt_shape_of(x), lead = s, rows = TT_SHAPE(1, in);
  lead.rank--;
  rows.dim[0] = tt_shape_count(&lead);
  s.dim[s.rank - 1] = out;
  ir_ref y = ir_matmul(g, ir_reshape(g, x.ref, rows), w.ref, false, true, 1);
  if (y && trace_is(b)) y = ir_ew2(g, IR_add, y, b.ref);
  DONE(y ? ir_reshape(g, y, s) : 0);
}

tt_val tt_linear_at(tt_here here, tt_val x, const char *name, int64_t out, tt_linear_options o) {
  OPEN("linear", here, x);
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL))
    WRONG("use tt_cast to make it f32", "%s takes real numbers, not %s", name, tt_dtype_name(tt_dtype_of(x)));
  if (tt_rank(x) < 1) WRONG("give [..., in]", "%s cannot take a scalar", name);
  if (out < 1) WRONG("give the number of outputs", "%s has %lld outputs", name, (long long)out);
  int64_t in = tt_dim(x, -1);
  if (in < 1) WRONG("give at least one feature", "%s has %lld inputs", name, (long long)in);
  double bound = 1 / sqrt((double)in);
  if (o.weight.kind == TT_INIT_DEFAULT) o.weight = tt_init_kaiming_uniform(sqrt(5));
  if (o.bias.kind == TT_INIT_DEFAULT) o.bias = tt_init_uniform(-bound, bound);
  tt_scope_push(x, name);
  tt_val w = tt_param(x, "weight", TT_SHAPE(out, in), o.weight), b = {0};
  if (!o.no_bias) b = tt_param(x, "bias", TT_SHAPE(out), o.bias);
  tt_val y = tt_f_linear(x, w, b);
  tt_scope_pop(x);
  return y;
}

tt_val tt_dropout_at(tt_here here, tt_val x, double p) {
  OPEN("dropout", here, x);
  if (!(p >= 0 && p <= 1)) WRONG("give the share that is dropped, from 0 to 1", "the probability is %g", p);
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x)));
  if (!tt_is_training(x) || p == 0) DONE(x.ref);
  if (p == 1) DONE(ir_ew2(g, IR_mul, x.ref, ir_like(g, x.ref, 0)));
  ir_ref seed = trace_scalar_input(x.trace, "seed", TT_U64), step = trace_scalar_input(x.trace, "step", TT_I64);
  DONE(ir_dropout(g, x.ref, seed, ir_cast(g, step, TT_U64), p, x.trace->n_streams++));
}

/* Of two random words a number in (0, 1], 2^-33 at least. */
static ir_ref uniform(ir_graph *g, tt_val like, ir_ref seed, ir_ref step, tt_shape s) {
  tt_dtype t = tt_dtype_of(like);
  ir_ref high = ir_cast(g, ir_random(g, seed, step, s, like.trace->n_streams++), t), low = ir_cast(g, ir_random(g, seed, step, s, like.trace->n_streams++), t);
  ir_ref word = ir_ew2(g, IR_add, ir_ew2(g, IR_mul, high, ir_like(g, high, 65536)), ir_ew2(g, IR_add, low, ir_like(g, low, 0.5)));
  return ir_ew2(g, IR_mul, word, ir_like(g, word, 0x1p-32));
}

tt_val tt_randn_at(tt_here here, tt_val like, tt_shape s) {
  OPEN("randn", here, like);
  if (!tt_dtype_in(tt_dtype_of(like), TT_REAL)) WRONG("give a value of real numbers", "it makes numbers of its argument's type, which is %s", tt_dtype_name(tt_dtype_of(like)));
  for (int i = 0; i < s.rank; i++)
    if (s.dim[i] < 0) WRONG("shapes are fixed when tracing; give the size", "dimension %d is %lld", i, (long long)s.dim[i]);
  ir_ref seed = trace_scalar_input(like.trace, "seed", TT_U64), step = ir_cast(g, trace_scalar_input(like.trace, "step", TT_I64), TT_U64);
  tt_val u = {like.trace, uniform(g, like, seed, step, s)};
  tt_val angle = {like.trace, uniform(g, like, seed, step, s)};
  return tt_mul(tt_sqrt(tt_mul(tt_log(u), -2)), tt_cos(tt_mul(angle, 6.283185307179586)));
}

/* One number a sample that is 0 or 1 / (1 - p). */
tt_val tt_drop_path_at(tt_here here, tt_val x, double p) {
  OPEN("drop_path", here, x);
  if (tt_rank(x) < 1) WRONG("give [N, ...]", "a scalar has no samples");
  if (!tt_is_training(x) && p >= 0 && p <= 1) DONE(x.ref);
  tt_shape s = {.rank = tt_rank(x)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = i ? 1 : tt_dim(x, 0);
  return tt_mul(x, tt_dropout_at(here, tt_full(x, s, 1), p));
}

tt_val tt_prelu_at(tt_here here, tt_val x, const char *name, int64_t slopes) {
  OPEN("prelu", here, x);
  if (slopes < 1) WRONG("give 1, or the number of channels", "%s has %lld slopes", name, (long long)slopes);
  tt_scope_push(x, name);
  tt_val y = tt_f_prelu(x, tt_param(x, "weight", TT_SHAPE(slopes), tt_init_constant(0.25)));
  tt_scope_pop(x);
  return y;
}

tt_val tt_swiglu_at(tt_here here, tt_val x, const char *name, int64_t hidden) {
  OPEN("swiglu", here, x);
  tt_scope_push(x, name);
  tt_val h = tt_mul(tt_silu(tt_linear(x, "gate_proj", hidden, .no_bias = true)), tt_linear(x, "up_proj", hidden, .no_bias = true));
  tt_val y = tt_linear(h, "down_proj", tt_dim(x, -1), .no_bias = true);
  tt_scope_pop(x);
  return y;
}
