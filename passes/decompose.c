/* decompose.c: what composites are made of. Each is a function over the builder that users trace with, so it is general in rank,
 * axes and types, and differentiates like anything else.
 *
 *     softmax(%x, axis=1)   gives   %m = amax(%x, axes=[1]), %e = exp(sub(%x, broadcast(%m))), div(%e, broadcast(sum(%e, axes=[1])))
 *
 * f16 and bf16 go through f32 where sums are taken. The pass also writes a conv that pads or dilates its input as a pad and a
 * plain conv, and drops stop_gradient, so that no later pass meets them. */
#include "passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- sums and statistics in a type that can hold them ---- */

static ir_ref widen(ir_graph *g, ir_ref x) {
  tt_dtype t = (tt_dtype)(x ? ir_at(g, x)->dtype : TT_F32);
  return t == TT_F16 || t == TT_BF16 ? ir_cast(g, x, TT_F32) : x;
}
static ir_ref back(ir_graph *g, ir_ref y, ir_ref like) { return ir_cast(g, y, (tt_dtype)ir_at(g, like)->dtype); }

static ir_ref add(ir_graph *g, ir_ref a, ir_ref b) { return ir_ew2(g, IR_add, a, b); }
static ir_ref sub(ir_graph *g, ir_ref a, ir_ref b) { return ir_ew2(g, IR_sub, a, b); }
static ir_ref mul(ir_graph *g, ir_ref a, ir_ref b) { return ir_ew2(g, IR_mul, a, b); }
static ir_ref times(ir_graph *g, ir_ref a, double c) { return ir_ew2(g, IR_mul, a, ir_like(g, a, c)); }
static ir_ref plus(ir_graph *g, ir_ref a, double c) { return ir_ew2(g, IR_add, a, ir_like(g, a, c)); }

/* The shift by the maximum changes nothing but rounding, so no derivative goes through it. */
static ir_ref shifted(ir_graph *g, ir_ref x, int axis) { return sub(g, x, ir_stop_gradient(g, ir_reduce(g, IR_amax, x, &axis, 1, true))); }

static ir_ref decompose_softmax(ir_graph *g, const ir_node *n) {
  int axis = (int)ir_int(n, "axis");
  ir_ref e = ir_ew1(g, IR_exp, shifted(g, widen(g, n->args[0]), axis));
  return back(g, ir_ew2(g, IR_div, e, ir_reduce(g, IR_sum, e, &axis, 1, true)), n->args[0]);
}

static ir_ref decompose_log_softmax(ir_graph *g, const ir_node *n) {
  int axis = (int)ir_int(n, "axis");
  ir_ref s = shifted(g, widen(g, n->args[0]), axis);
  ir_ref sum = ir_reduce(g, IR_sum, ir_ew1(g, IR_exp, s), &axis, 1, true);
  return back(g, sub(g, s, ir_ew1(g, IR_log, sum)), n->args[0]);
}

/* x P(X <= x) for a normal X: x (1 + erf(x / sqrt 2)) / 2. Its tanh form x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) is x sigmoid(2u), which
 * loses no digits where 1 + tanh u cancels. */
static ir_ref decompose_gelu(ir_graph *g, const ir_node *n) {
  ir_ref x = n->args[0];
  if (ir_int(n, "tanh")) return mul(g, x, ir_ew1(g, IR_sigmoid, mul(g, x, plus(g, times(g, mul(g, x, x), 1.5957691216057307 * 0.044715), 1.5957691216057307))));
  return mul(g, times(g, x, 0.5), plus(g, ir_ew1(g, IR_erf, times(g, x, 0.70710678118654752)), 1));
}

static ir_ref decompose_silu(ir_graph *g, const ir_node *n) { return mul(g, n->args[0], ir_ew1(g, IR_sigmoid, n->args[0])); }

/* The variance in a second pass over x - mean: the difference of two large sums would cancel. */
static ir_ref decompose_layer_norm(ir_graph *g, const ir_node *n) {
  int rank = ir_at(g, n->args[0])->rank, count = (int)ir_int(n, "axes"), axes[TT_MAX_RANK];
  for (int i = 0; i < count; i++) axes[i] = rank - count + i;
  ir_ref x = widen(g, n->args[0]);
  ir_ref centered = sub(g, x, ir_mean(g, x, axes, count, true));
  ir_ref variance = ir_mean(g, mul(g, centered, centered), axes, count, true);
  ir_ref y = mul(g, centered, ir_ew1(g, IR_rsqrt, plus(g, variance, ir_float(n, "eps"))));
  return back(g, add(g, mul(g, y, widen(g, n->args[1])), widen(g, n->args[2])), n->args[0]);
}

/* v [C] in the shape of x [N,C,*D]. */
static ir_ref channels(ir_graph *g, ir_ref v, ir_ref x) { return ir_broadcast(g, v, ir_shape(g, x), (int[]){1}); }

/* Mean and variance of each channel of x [N,C,*D]. Few elements are gone over twice. Many are read once: sums of x - k and its square,
 * where k is an element in the middle; the squares cancel only as far as k is from the mean, which is a few deviations. Images have a k of
 * their own and are then put together (Chan, Golub & LeVeque 1979), so that one odd pixel cannot spoil more than its image's part. */
static void statistics(ir_graph *g, ir_ref x, ir_ref *mean, ir_ref *var) {
  *mean = *var = 0;
  if (!x) return;
  tt_shape s = ir_shape(g, x), flat = {.rank = 0};
  int64_t start[TT_MAX_RANK], stop[TT_MAX_RANK], step[TT_MAX_RANK], each = 1;
  int axes[TT_MAX_RANK], n = 0, dims[TT_MAX_RANK];
  for (int i = 2; i < s.rank; i++) each *= s.dim[i];
  bool few = each * s.dim[0] <= 1024, images = !few && each >= 32 && s.dim[0] > 1;
  double count = 1, parts = images ? (double)s.dim[0] : 1;
  for (int i = 0; i < s.rank; i++) {
    bool kept = i == 1 || (images && i == 0);
    start[i] = kept ? 0 : s.dim[i] / 2, stop[i] = kept ? s.dim[i] : start[i] + 1, step[i] = 1;
    if (!kept) axes[n++] = i, count *= (double)s.dim[i];
    else dims[flat.rank] = i, flat.dim[flat.rank++] = s.dim[i];
  }
  if (few) {
    *mean = ir_mean(g, x, axes, n, false);
    ir_ref d = sub(g, x, channels(g, *mean, x));
    *var = ir_mean(g, mul(g, d, d), axes, n, false);
    return;
  }
  ir_ref k = ir_stop_gradient(g, ir_reshape(g, ir_slice(g, x, start, stop, step), flat));
  ir_ref d = sub(g, x, ir_broadcast(g, k, s, dims));
  ir_ref sum = ir_reduce(g, IR_sum, d, axes, n, false), squares = ir_reduce(g, IR_sum, mul(g, d, d), axes, n, false);
  ir_ref shift = times(g, sum, 1 / count);                                       /* from k to the mean */
  ir_ref m = add(g, k, shift), m2 = ir_ew2(g, IR_max, sub(g, squares, mul(g, sum, shift)), ir_like(g, squares, 0));
  if (images) {
    ir_ref all = times(g, ir_reduce(g, IR_sum, m, (int[]){0}, 1, false), 1 / parts);
    ir_ref off = sub(g, m, ir_broadcast(g, all, flat, (int[]){1}));
    m2 = ir_reduce(g, IR_sum, add(g, m2, times(g, mul(g, off, off), count)), (int[]){0}, 1, false);
    m = all;
  }
  *mean = m, *var = times(g, m2, 1 / (count * parts));
}

static ir_ref decompose_batch_mean(ir_graph *g, const ir_node *n) {
  ir_ref mean, var;
  statistics(g, widen(g, n->args[0]), &mean, &var);
  return back(g, mean, n->args[0]);
}
static ir_ref decompose_batch_var(ir_graph *g, const ir_node *n) {
  ir_ref mean, var;
  statistics(g, widen(g, n->args[0]), &mean, &var);
  return back(g, var, n->args[0]);
}
static ir_ref decompose_batch_norm(ir_graph *g, const ir_node *n) {
  ir_ref x = widen(g, n->args[0]), mean, var;
  statistics(g, x, &mean, &var);
  ir_ref scale = mul(g, ir_ew1(g, IR_rsqrt, plus(g, var, ir_float(n, "eps"))), widen(g, n->args[1]));     /* a channel's factors first */
  ir_ref y = mul(g, sub(g, x, channels(g, mean, x)), channels(g, scale, x));
  return back(g, add(g, y, channels(g, widen(g, n->args[2]), x)), n->args[0]);
}

/* Kept where 16 random bits, as a number of [0,1), are at least p, which is rounded to as many. */
static ir_ref decompose_dropout(ir_graph *g, const ir_node *n) {
  ir_ref x = n->args[0];
  double p = ir_float(n, "p"), least = rint(p * 0x1p16);
  if (p <= 0) return x;
  if (least >= 0x1p16) return ir_full(g, (tt_dtype)ir_at(g, x)->dtype, ir_shape(g, x), 0);
  ir_ref bits = ir_random(g, n->args[1], n->args[2], ir_shape(g, x), ir_int(n, "stream"));
  ir_ref keep = ir_ew2(g, IR_ge, bits, ir_like(g, bits, least));
  return ir_select(g, keep, times(g, x, 1 / (1 - p)), ir_like(g, x, 0));
}

/* ---- pooling: windows as a view, then a reduction over them ---- */

/* x [N,C,*D], padded with `value`, as [N,C,*OD,*K]. Windows that touch each other exactly are a reshape. */
static ir_ref windows(ir_graph *g, ir_ref x, const ir_node *n, ir_ref value) {
  int D = ir_at(g, x)->rank - 2;
  bool dilates = n->op == IR_max_pool, side_by_side = true;
  const int64_t *size = ir_ints(n, "size", NULL), *stride = ir_ints(n, "stride", NULL), *dilation = dilates ? ir_ints(n, "dilation", NULL) : NULL;
  int64_t lo[TT_MAX_RANK] = {0}, hi[TT_MAX_RANK] = {0}, none[TT_MAX_RANK] = {0};
  for (int i = 0; i < D; i++) {
    lo[2 + i] = ir_ints(n, "lo", NULL)[i], hi[2 + i] = ir_ints(n, "hi", NULL)[i];
    side_by_side &= stride[i] == size[i] && (!dilates || dilation[i] == 1 || size[i] == 1);
  }
  x = ir_pad(g, x, value, lo, hi, none);
  if (!side_by_side) {
    for (int i = 0; i < D; i++) x = ir_unfold(g, x, 2 + i, size[i], stride[i], dilates ? dilation[i] : 1);
    return x;
  }
  if (!x) return 0;
  tt_shape s = {2, {ir_at(g, x)->dim[0], ir_at(g, x)->dim[1]}};
  int perm[TT_MAX_RANK] = {0, 1};
  for (int i = 0; i < D; i++) {
    int64_t count = ir_at(g, x)->dim[2 + i] / size[i];
    x = ir_slice_axis(g, x, 2 + i, 0, count * size[i], 1);
    perm[2 + i] = s.rank, perm[2 + D + i] = s.rank + 1;
    s.dim[s.rank++] = count, s.dim[s.rank++] = size[i];
  }
  return ir_permute(g, ir_reshape(g, x, s), perm);
}

static int window_axes(const ir_graph *g, ir_ref windowed, int *axes) {
  int D = (ir_at(g, windowed)->rank - 2) / 2;
  for (int i = 0; i < D; i++) axes[i] = 2 + D + i;
  return D;
}

static ir_ref lowest(ir_graph *g, ir_ref x) {
  tt_dtype t = (tt_dtype)ir_at(g, x)->dtype;
  if (tt_dtype_in(t, TT_REAL)) return ir_scalar(g, t, -INFINITY);
  return ir_scalar_int(g, t, tt_dtype_in(t, TT_SINT) ? (int64_t)(UINT64_MAX << (8 * tt_dtype_size(t) - 1)) : 0);
}

static ir_ref decompose_max_pool(ir_graph *g, const ir_node *n) {
  int axes[3];
  ir_ref x = windows(g, n->args[0], n, lowest(g, n->args[0]));
  return x ? ir_reduce(g, IR_amax, x, axes, window_axes(g, x, axes), false) : 0;
}

/* The first place of a window where its maximum stands, or its first NaN, comes from the same pass as the maximum: the least number
 * of an element that equals it. Numbers have the type of x while they are compared, and are kept in a byte. */
ir_ref pass_max_pool_by_choice(ir_graph *g, ir_ref arg, const ir_node *n) {
  int axes[3], dims[TT_MAX_RANK];
  ir_ref x = windows(g, arg, n, lowest(g, arg));
  if (!x) return 0;
  int D = window_axes(g, x, axes);
  tt_shape s = ir_shape(g, x), window = {.rank = D}, all = {.rank = 1, .dim = {1}};
  for (int i = 0; i < 2 + D; i++) dims[i] = i;
  for (int i = 0; i < D; i++) window.dim[i] = s.dim[2 + D + i], all.dim[0] *= window.dim[i];
  tt_dtype type = (tt_dtype)ir_at(g, arg)->dtype, number = type == TT_F32 || type == TT_F64 ? type : TT_I32, kept = all.dim[0] < 127 ? TT_I8 : TT_I32;
  ir_ref each = ir_broadcast(g, ir_reshape(g, ir_iota(g, number, all, 0), window), s, axes);     /* the number of an element in its window */
  ir_ref kept_each = ir_broadcast(g, ir_reshape(g, ir_iota(g, kept, all, 0), window), s, axes);
  ir_ref best = ir_broadcast(g, ir_reduce(g, IR_amax, x, axes, D, false), s, dims);
  ir_ref hit = ir_ew2(g, IR_eq, x, best);
  if (tt_dtype_in(type, TT_REAL)) hit = ir_ew2(g, IR_or, hit, ir_ew2(g, IR_ne, x, x));
  ir_ref first = ir_reduce(g, IR_amin, ir_select(g, hit, each, ir_like(g, each, (double)all.dim[0])), axes, D, false);
  ir_ref is_first = ir_ew2(g, IR_eq, kept_each, ir_broadcast(g, ir_cast(g, first, kept), s, dims));
  return ir_reduce(g, IR_sum, ir_select(g, is_first, x, ir_like(g, x, 0)), axes, D, false);
}

/* Elements of x in each window, [*OD], as numbers of x's type. */
static ir_ref real_counts(ir_graph *g, ir_ref x, const ir_node *n) {
  int D = ir_at(g, x)->rank - 2;
  const int64_t *size = ir_ints(n, "size", NULL), *stride = ir_ints(n, "stride", NULL), *lo = ir_ints(n, "lo", NULL), *hi = ir_ints(n, "hi", NULL);
  ir_ref all = ir_like(g, x, 1);
  for (int i = 0; i < D; i++) {
    int64_t dim = ir_at(g, x)->dim[2 + i], out = (dim + lo[i] + hi[i] - size[i]) / stride[i] + 1;
    tt_shape s = {1, {out}};
    for (int k = i + 1; k < D; k++) s.dim[s.rank++] = 1;
    double *counts = malloc((size_t)out * sizeof *counts + 1);
    if (!counts) return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory for the counts of avg_pool\n  at axis %d of %lld windows\n  fix: free memory", 2 + i, (long long)out), 0;
    for (int64_t o = 0; o < out; o++) {
      int64_t from = o * stride[i] - lo[i], to = from + size[i];
      if (from < 0) from = 0;
      if (to > dim) to = dim;
      counts[o] = to > from ? (double)(to - from) : 1;           /* a window with no element of x: 0 / 1 */
    }
    all = mul(g, all, ir_cast(g, ir_const(g, TT_F64, s, counts), (tt_dtype)ir_at(g, x)->dtype));
    free(counts);
  }
  return all;
}

static ir_ref decompose_avg_pool(ir_graph *g, const ir_node *n) {
  int axes[3];
  ir_ref arg = widen(g, n->args[0]), x = windows(g, arg, n, ir_like(g, arg, 0));
  if (!x) return 0;
  double area = 1;
  int D = window_axes(g, x, axes);
  for (int i = 0; i < D; i++) area *= (double)ir_ints(n, "size", NULL)[i];
  ir_ref sum = ir_reduce(g, IR_sum, x, axes, D, false);
  return back(g, ir_ew2(g, IR_div, sum, ir_int(n, "count_pad") ? ir_like(g, arg, area) : real_counts(g, arg, n)), n->args[0]);
}

ir_ref pass_decompose_row(ir_graph *g, ir_op op, const ir_ref *args, const int64_t *words) {
  static ir_ref (*const table[IR_N_OPS])(ir_graph *, const ir_node *) = {
#define COMPOSITE(name, ...) [IR_##name] = decompose_##name,
#include "../ir/ops.def"
  };
  ir_node n = {.op = (uint16_t)op, .args = args, .n_args = (uint32_t)ir_ops[op].arity, .words = words};
  return table[op] ? table[op](g, &n) : tt_bug(g, "%s is not a composite", ir_ops[op].name);
}

/* ---- the pass ---- */

/* x padded with zeros; below a permute, so that the pads of a conv and of its gradient are one, and the permute is the conv's to read. */
ir_ref pass_padded(ir_graph *g, ir_ref x, const int64_t *lo, const int64_t *hi, const int64_t *between) {
  const ir_node *n = ir_at(g, x);
  if (n->op != IR_permute) return ir_pad(g, x, ir_like(g, x, 0), lo, hi, between);
  int64_t inner[3][TT_MAX_RANK];
  int perm[TT_MAX_RANK];
  for (int i = 0; i < n->rank; i++) {
    int from = perm[i] = (int)ir_ints(n, "perm", NULL)[i];
    inner[0][from] = lo[i], inner[1][from] = hi[i], inner[2][from] = between[i];
  }
  return ir_permute(g, ir_pad(g, n->args[0], ir_like(g, x, 0), inner[0], inner[1], inner[2]), perm);
}

/* conv with padding -> pad, conv; 0 when it is plain already. What stays is padding of less than x_dilation, which no output reads; an x dilated so
 * that outputs fall into many phases (codegen/contract.c makes a contraction of each) is written out by the pad. */
static ir_ref plain_conv(ir_graph *g, const ir_node *n, ir_ref x, ir_ref w) {
  enum { MAX_PHASES = 16 };
  int D = ir_at(g, x)->rank - 3;
  const int64_t *stride = ir_ints(n, "stride", NULL), *lo = ir_ints(n, "lo", NULL), *hi = ir_ints(n, "hi", NULL), *x_dilation = ir_ints(n, "x_dilation", NULL);
  int64_t before[TT_MAX_RANK] = {0}, after[TT_MAX_RANK] = {0}, between[TT_MAX_RANK] = {0}, phases = 1;
  ir_conv_attrs a = {.split = ir_int(n, "split"), .winograd = ir_int(n, "winograd")};
  bool plain = true;
  for (int i = 0; i < D; i++) {
    int64_t d = x_dilation[i], rest = stride[i];
    while (rest) { int64_t t = d % rest; d = rest, rest = t; }        /* gcd(stride, x_dilation) */
    bool keep = phases * (x_dilation[i] / d) <= MAX_PHASES && ir_at(g, x)->dim[3 + i] > 0;
    if (keep) phases *= x_dilation[i] / d;
    a.stride[i] = stride[i], a.dilation[i] = ir_ints(n, "dilation", NULL)[i], a.x_dilation[i] = keep ? x_dilation[i] : 1;
    between[3 + i] = keep ? 0 : x_dilation[i] - 1;
    before[3 + i] = lo[i] / a.x_dilation[i], after[3 + i] = hi[i] / a.x_dilation[i];
    a.lo[i] = lo[i] % a.x_dilation[i], a.hi[i] = hi[i] % a.x_dilation[i];
    plain &= !before[3 + i] && !after[3 + i] && !between[3 + i];
  }
  return plain ? 0 : ir_conv(g, pass_padded(g, x, before, after, between), w, &a);
}

/* The rules while this pass runs, with and without those of rules.def. */
static ir_ref drop_stops(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words) {
  return op == IR_stop_gradient ? args[0] : 0;
}
static ir_ref drop_stops_and_rewrite(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words) {
  return op == IR_stop_gradient ? args[0] : rewrite_rules(g, op, args, n_args, words, n_words);
}

/* Attention that has no kernel, in primitives; 0: it stays. */
static ir_ref plain_attention(ir_graph *g, const ir_node *n, const ir_ref *map) {
  tt_shape q = ir_shape(g, map[n->args[0]]), k = ir_shape(g, map[n->args[1]]), y = ir_shape(g, map[n->args[2]]);
  if (n->dtype == TT_F32 && tt_shape_count(&q) && tt_shape_count(&k) && tt_shape_count(&y)) return 0;
  ir_ref args[8] = {0};
  for (uint32_t i = 0; i < n->n_args; i++) args[i] = map[n->args[i]];
  ir_attention_options o = ir_attention_of(&(ir_node){.op = n->op, .args = args, .n_args = n->n_args, .words = n->words});
  return pass_attention_naive(g, (ir_op)n->op, args, &o);
}

tt_status pass_decompose(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in);
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  if (!live || !map) {
    free(live), free(map);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass decompose\n  fix: free memory", in->n_nodes);
  }
  ir_ref (*rules)(ir_graph *, ir_op, const ir_ref *, uint32_t, const int64_t *, uint32_t) = out->rules;
  out->rules = rules ? drop_stops_and_rewrite : drop_stops;
  for (ir_ref r = 1; r < in->n_nodes && !out->error.status; r++) {
    if (!live[r]) continue;
    const ir_node *n = ir_at(in, r);
    ir_ref args[3] = {0};
    for (uint32_t i = 0; i < n->n_args && i < 3; i++) args[i] = map[n->args[i]];
    if (ir_ops[n->op].kind == IR_COMPOSITE || n->op == IR_conv || ir_is_attention((ir_op)n->op)) {
      out->at_origin = ir_origin_copy(out, in, n->origin);
      map[r] = ir_is_attention((ir_op)n->op) ? plain_attention(out, n, map) : n->op == IR_conv ? plain_conv(out, n, args[0], args[1]) : pass_decompose_row(out, (ir_op)n->op, args, n->words);
      out->at_origin = 0;
    }
    if (!map[r]) map[r] = ir_rebuild(in, out, r, map);
  }
  out->rules = rules;
  ir_finish(in, out, map);
  free(live), free(map);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
