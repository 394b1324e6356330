/* norm.c: normalization. All are (x - mean) / sqrt(var + eps) * weight + bias over some axes; layer_norm and batch_norm are rows of
 * the graph, the others are written out, so that fusion sees their statistics and the one pass that uses them. */
#include "../frontend.h"

static bool real(tt_call *c, tt_val x) {
  if (tt_dtype_in(tt_dtype_of(x), TT_REAL)) return true;
  trace_wrong(c, "use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x)));
  return false;
}

/* v [C], given or not, must go with x's channels. */
static bool per_channel(tt_call *c, tt_val x, tt_val v, const char *what) {
  if (!trace_is(v) || (tt_rank(v) == 1 && tt_dim(v, 0) == tt_dim(x, 1) && tt_dtype_of(v) == tt_dtype_of(x))) return true;
  if (v.ref) trace_wrong(c, "give one number a channel, of x's type", "the %s must be [%lld]", what, (long long)tt_dim(x, 1));
  return false;
}

/* v [C] as [1,C,1,...] of x's rank. */
static ir_ref channel(ir_graph *g, tt_val x, ir_ref v) {
  tt_shape s = {.rank = tt_rank(x)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = i == 1 ? tt_dim(x, 1) : 1;
  return ir_reshape(g, v, s);
}

static ir_ref inverse(ir_graph *g, ir_ref var, double eps) { return ir_ew1(g, IR_rsqrt, ir_ew2(g, IR_add, var, ir_like(g, var, eps))); }

/* (x - mean) * rsqrt(var + eps) * w + b as x * scale + shift: both follow from parameters alone, so inference computes them once. mean and var
 * broadcast with x, w and b are [C] or not given. */
static ir_ref scaled(ir_graph *g, tt_val x, ir_ref mean, ir_ref var, double eps, tt_val w, tt_val b) {
  ir_ref scale = inverse(g, var, eps);
  if (trace_is(w)) scale = ir_ew2(g, IR_mul, scale, channel(g, x, w.ref));
  ir_ref down = ir_ew2(g, IR_mul, mean, scale), y = ir_ew2(g, IR_mul, x.ref, scale);
  return trace_is(b) ? ir_ew2(g, IR_add, y, ir_ew2(g, IR_sub, channel(g, x, b.ref), down)) : ir_ew2(g, IR_sub, y, down);
}

static ir_ref mean_square(ir_graph *g, ir_ref d, const int *axes, int n) { return ir_mean(g, ir_ew2(g, IR_mul, d, d), axes, n, true); }

static tt_val batch_norm(tt_call *c, tt_val x, tt_val w, tt_val b, tt_val mean, tt_val var, bool training, double momentum, double eps,
                         tt_val *new_mean, tt_val *new_var) {
  ir_graph *g = c->g;
  tt_val bad = {c->t, 0};
  if (!real(c, x)) return bad;
  if (tt_rank(x) < 2) return trace_wrong(c, "give [N, C, ...]", "it takes rank 2 or more, not %d", tt_rank(x));
  if (!per_channel(c, x, w, "weight") || !per_channel(c, x, b, "bias")) return bad;
  if (!per_channel(c, x, mean, "mean") || !per_channel(c, x, var, "variance")) return bad;
  if (!training) return (tt_val){c->t, scaled(g, x, channel(g, x, mean.ref), channel(g, x, var.ref), eps, w, b)};
  double count = 1;
  for (int i = 0; i < tt_rank(x); i++) count *= i == 1 ? 1 : (double)tt_dim(x, i);
  if (count < 2) return trace_wrong(c, "train with a larger batch", "one value a channel has no variance");
  tt_shape channels = TT_SHAPE(tt_dim(x, 1));
  ir_ref m = ir_batch_mean(g, x.ref), v = ir_batch_var(g, x.ref);
  if (!m || !v) return bad;
  const char *names[] = {"old", "new", "m", "keep"}, *text = "add(mul(keep, old), mul(m, new))";
  if (new_mean) *new_mean = trace_text(c, text, names, (const tt_val[]){mean, {c->t, m}, {0}, {0}}, (const double[]){0, 0, momentum, 1 - momentum}, 4);
  if (new_var) *new_var = trace_text(c, text, names, (const tt_val[]){var, {c->t, v}, {0}, {0}},
                                     (const double[]){0, 0, momentum * count / (count - 1), 1 - momentum}, 4);
  ir_ref gain = trace_is(w) ? w.ref : ir_full(g, tt_dtype_of(x), channels, 1), level = trace_is(b) ? b.ref : ir_full(g, tt_dtype_of(x), channels, 0);
  return (tt_val){c->t, ir_batch_norm(g, x.ref, gain, level, eps)};
}

tt_val tt_f_batch_norm_at(tt_here here, tt_val x, tt_val w, tt_val b, tt_val mean, tt_val var, bool training, double momentum, double eps,
                          tt_val *new_mean, tt_val *new_var) {
  OPEN("batch_norm", here, x, mean, var);
  if (new_mean) *new_mean = mean;
  if (new_var) *new_var = var;
  return batch_norm(&call, x, w, b, mean, var, training, momentum, eps, new_mean, new_var);
}

tt_val tt_batch_norm_at(tt_here here, tt_val x, const char *name, tt_norm_options o) {
  OPEN("batch_norm", here, x);
  if (tt_rank(x) < 2) WRONG("give [N, C, ...]", "%s takes rank 2 or more, not %d", name, tt_rank(x));
  if (!real(&call, x)) DONE(0);
  tt_shape s = TT_SHAPE(tt_dim(x, 1));
  double eps = o.eps ? o.eps : 1e-5, momentum = o.momentum ? o.momentum : 0.1;
  bool training = tt_is_training(x);
  tt_val w = {0}, b = {0}, new_mean, new_var;
  tt_scope_push(x, name);
  if (!o.no_affine) w = tt_param(x, "weight", s, tt_init_ones()), b = tt_param(x, "bias", s, tt_init_zeros());
  tt_val mean = tt_state(x, "running_mean", s, tt_init_zeros()), var = tt_state(x, "running_var", s, tt_init_ones());
  tt_val y = {x.trace, 0};
  if (mean.ref && var.ref) y = batch_norm(&call, x, w, b, mean, var, training, momentum, eps, &new_mean, &new_var);
  if (y.ref && training) {
    tt_assign(mean, new_mean);
    tt_assign(var, new_var);
  }
  tt_scope_pop(x);
  return y;
}

/* The last n axes of x as a shape; false: the error is recorded. */
static bool last_axes(tt_call *c, tt_val x, int n, tt_shape *s) {
  if (!real(c, x)) return false;
  if (n < 1 || n > tt_rank(x)) {
    trace_wrong(c, "normalize over 1 up to all axes", "cannot normalize over %d of %d axes", n, tt_rank(x));
    return false;
  }
  s->rank = n;
  for (int i = 0; i < n; i++) s->dim[i] = tt_dim(x, tt_rank(x) - n + i);
  return true;
}

static bool of_shape(tt_call *c, tt_val v, tt_val x, const tt_shape *s, const char *what) {
  tt_shape have = tt_shape_of(v);
  char text[120];
  if (!trace_is(v) || (tt_shape_equal(&have, s) && tt_dtype_of(v) == tt_dtype_of(x))) return true;
  if (v.ref) trace_wrong(c, "give it the shape of the axes that are normalized", "the %s must be %s", what,
                         tt_type_text(tt_dtype_of(x), s, text, sizeof text));
  return false;
}

tt_val tt_f_layer_norm_at(tt_here here, tt_val x, tt_val w, tt_val b, int n_axes, double eps) {
  OPEN("layer_norm", here, x);
  tt_shape s;
  if (!last_axes(&call, x, n_axes, &s) || !of_shape(&call, w, x, &s, "weight") || !of_shape(&call, b, x, &s, "bias")) DONE(0);
  ir_ref gain = trace_is(w) ? w.ref : ir_full(g, tt_dtype_of(x), s, 1), shift = trace_is(b) ? b.ref : ir_full(g, tt_dtype_of(x), s, 0);
  DONE(ir_layer_norm(g, x.ref, gain, shift, n_axes, eps));
}

tt_val tt_layer_norm_at(tt_here here, tt_val x, const char *name, int n_axes, tt_norm_options o) {
  OPEN("layer_norm", here, x);
  tt_shape s;
  if (!last_axes(&call, x, n_axes, &s)) DONE(0);
  tt_val w = {0}, b = {0};
  tt_scope_push(x, name);
  if (!o.no_affine) w = tt_param(x, "weight", s, tt_init_ones()), b = tt_param(x, "bias", s, tt_init_zeros());
  tt_val y = tt_f_layer_norm(x, w, b, n_axes, o.eps ? o.eps : 1e-5);
  tt_scope_pop(x);
  return y;
}

tt_val tt_f_group_norm_at(tt_here here, tt_val x, tt_val w, tt_val b, int64_t groups, double eps) {
  OPEN("group_norm", here, x);
  if (!real(&call, x)) DONE(0);
  if (tt_rank(x) < 2) WRONG("give [N, C, ...]", "it takes rank 2 or more, not %d", tt_rank(x));
  if (groups < 1 || tt_dim(x, 1) % groups)
    WRONG("the channels must be a multiple of it", "%lld groups do not divide %lld channels", (long long)groups, (long long)tt_dim(x, 1));
  if (!per_channel(&call, x, w, "weight") || !per_channel(&call, x, b, "bias")) DONE(0);
  tt_shape s = tt_shape_of(x), rows = TT_SHAPE(s.dim[0] * groups, 1);
  rows.dim[1] = tt_shape_count(&s) / (rows.dim[0] ? rows.dim[0] : 1);
  tt_val flat = {x.trace, ir_reshape(g, x.ref, rows)};
  int last = 1;
  ir_ref mean = ir_mean(g, flat.ref, &last, 1, true), var = mean_square(g, ir_ew2(g, IR_sub, flat.ref, mean), &last, 1);
  ir_ref y = ir_ew2(g, IR_mul, ir_ew2(g, IR_sub, flat.ref, mean), inverse(g, var, eps));
  if (y) y = ir_reshape(g, y, s);
  if (y && trace_is(w)) y = ir_ew2(g, IR_mul, y, channel(g, x, w.ref));
  DONE(y && trace_is(b) ? ir_ew2(g, IR_add, y, channel(g, x, b.ref)) : y);
}

tt_val tt_f_instance_norm_at(tt_here here, tt_val x, tt_val w, tt_val b, double eps) {
  OPEN("instance_norm", here, x);
  return tt_f_group_norm_at(here, x, w, b, tt_dim(x, 1), eps);
}

/* The layers of both: weights [C]. groups 0: one a channel. */
static tt_val per_group(tt_here here, const char *op, tt_val x, const char *name, int64_t groups, tt_norm_options o) {
  OPEN(op, here, x);
  if (tt_rank(x) < 2) WRONG("give [N, C, ...]", "%s takes rank 2 or more, not %d", name, tt_rank(x));
  tt_val w = {0}, b = {0};
  tt_shape s = TT_SHAPE(tt_dim(x, 1));
  tt_scope_push(x, name);
  if (!o.no_affine) w = tt_param(x, "weight", s, tt_init_ones()), b = tt_param(x, "bias", s, tt_init_zeros());
  tt_val y = tt_f_group_norm_at(here, x, w, b, groups ? groups : s.dim[0], o.eps ? o.eps : 1e-5);
  tt_scope_pop(x);
  return y;
}

tt_val tt_group_norm_at(tt_here here, tt_val x, const char *name, int64_t groups, tt_norm_options o) {
  return per_group(here, "group_norm", x, name, groups ? groups : -1, o);
}
tt_val tt_instance_norm_at(tt_here here, tt_val x, const char *name, tt_norm_options o) { return per_group(here, "instance_norm", x, name, 0, o); }

tt_val tt_f_rms_norm_at(tt_here here, tt_val x, tt_val w, int n_axes, double eps) {
  OPEN("rms_norm", here, x);
  tt_shape s;
  if (!last_axes(&call, x, n_axes, &s) || !of_shape(&call, w, x, &s, "weight")) DONE(0);
  int axes[TT_MAX_RANK];
  for (int i = 0; i < n_axes; i++) axes[i] = tt_rank(x) - n_axes + i;
  ir_ref ms = mean_square(g, x.ref, axes, n_axes);
  ir_ref y = ir_ew2(g, IR_mul, x.ref, ir_ew1(g, IR_rsqrt, ir_ew2(g, IR_add, ms, ir_like(g, ms, eps))));
  DONE(trace_is(w) ? ir_ew2(g, IR_mul, y, w.ref) : y);
}

tt_val tt_rms_norm_at(tt_here here, tt_val x, const char *name, int n_axes, tt_norm_options o) {
  OPEN("rms_norm", here, x);
  tt_shape s;
  if (!last_axes(&call, x, n_axes, &s)) DONE(0);
  tt_val w = {0};
  tt_scope_push(x, name);
  if (!o.no_affine) w = tt_param(x, "weight", s, tt_init_ones());
  tt_val y = tt_f_rms_norm(x, w, n_axes, o.eps ? o.eps : 1e-6);
  tt_scope_pop(x);
  return y;
}
