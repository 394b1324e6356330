/* conv.c: convolution in one to three dimensions and pooling. Groups are an axis of their own in the graph:
 * x [N,C,*D] becomes [N,G,C/G,*D], the weight [O,C/G,*K] becomes [G,O/G,C/G,*K], and the result [N,G,O/G,*OD] goes back. Transposed
 * convolution, the adjoint of a convolution in its image, is an ordinary one of the image with stride - 1 zeros between its elements, by the
 * weights reversed and with in and out exchanged. No zero is multiplied: the pass decompose cuts it into its phases. */
#include "../frontend.h"

static int64_t or_one(int64_t v) { return v ? v : 1; }

/* A count of at least 1 that arithmetic on sizes can bear. */
static bool sane(int64_t v) { return v >= 1 && v <= INT32_MAX; }

/* The option of each axis. */
static void each(int64_t *to, int n, int64_t all, const int64_t by_axis[3]) {
  bool own = by_axis[0] || by_axis[1] || by_axis[2];
  for (int i = 0; i < n; i++) to[i] = own ? by_axis[i] : all;
}

static tt_val convolve(tt_call *c, tt_val x, tt_val w, tt_val b, int n, const tt_conv_options *o) {
  ir_graph *g = c->g;
  int64_t groups = or_one(o->groups), channels = tt_dim(x, 1), out = tt_dim(w, 0), padding[3];
  ir_conv_attrs a = {.split = 1};
  if (tt_dtype_of(x) != tt_dtype_of(w))
    return trace_wrong(c, "use tt_cast: both must be of one type", "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(x)),
                       tt_dtype_name(tt_dtype_of(w)));
  each(a.stride, n, or_one(o->stride), o->strides);
  each(a.dilation, n, or_one(o->dilation), o->dilations);
  each(padding, n, o->padding, o->paddings);
  if (groups < 1 || channels % groups || out % groups)
    return trace_wrong(c, "both must be multiples of the number of groups", "%lld groups do not divide %lld channels into %lld", (long long)groups,
                       (long long)channels, (long long)out);
  if (tt_dim(w, 1) != channels / groups)
    return trace_wrong(c, "the weight is [out, channels / groups, ...]", "x has %lld channels in %lld groups, but the weight takes %lld",
                       (long long)channels, (long long)groups, (long long)tt_dim(w, 1));
  if (trace_is(b) && (tt_rank(b) != 1 || tt_dim(b, 0) != out || tt_dtype_of(b) != tt_dtype_of(x)))
    return trace_wrong(c, "give one bias an output channel", "the bias must be [%lld] of x's type", (long long)out);
  tt_shape xs = TT_SHAPE(tt_dim(x, 0), groups, channels / groups), ws = TT_SHAPE(groups, out / groups, channels / groups),
      s = TT_SHAPE(tt_dim(x, 0), out), bs = TT_SHAPE(1, out);
  for (int i = 0; i < n; i++) {
    int64_t size = tt_dim(x, i + 2), k = tt_dim(w, i + 2), span;
    if (!sane(a.stride[i]) || !sane(a.dilation[i]))
      return trace_wrong(c, "strides and dilations count from 1", "stride %lld, dilation %lld", (long long)a.stride[i], (long long)a.dilation[i]);
    if (!sane(padding[i] + 1)) return trace_wrong(c, "use tt_pad with negative numbers to cut off", "the padding is %lld", (long long)padding[i]);
    if (!sane(k)) return trace_wrong(c, "give a kernel of at least 1", "the kernel has the size %lld", (long long)k);
    span = a.dilation[i] * (k - 1) + 1;
    if (span > size + 2 * padding[i])
      return trace_wrong(c, "pad more, or use a smaller kernel or dilation", "a window of %lld does not fit the size %lld with padding %lld",
                         (long long)span, (long long)size, (long long)padding[i]);
    a.lo[i] = a.hi[i] = padding[i];
    xs.dim[xs.rank++] = size;
    ws.dim[ws.rank++] = k;
    s.dim[s.rank++] = (size + 2 * padding[i] - span) / a.stride[i] + 1;
    bs.dim[bs.rank++] = 1;
  }
  ir_ref y = ir_conv(g, ir_reshape(g, x.ref, xs), ir_reshape(g, w.ref, ws), &a);
  if (y) y = ir_reshape(g, y, s);
  if (y && trace_is(b)) y = ir_ew2(g, IR_add, y, ir_reshape(g, b.ref, bs));
  return (tt_val){c->t, y};
}

/* w [I, O/g, *k] -> [g, O/g, I/g, *k], reversed along k. */
static ir_ref turned(ir_graph *g, tt_val w, int64_t groups, int n) {
  tt_shape s = TT_SHAPE(groups, tt_dim(w, 0) / groups, tt_dim(w, 1));
  int perm[TT_MAX_RANK] = {0, 2, 1}, axes[3];
  for (int i = 0; i < n; i++) s.dim[s.rank++] = tt_dim(w, i + 2), perm[i + 3] = axes[i] = i + 3;
  ir_ref r = ir_permute(g, ir_reshape(g, w.ref, s), perm);
  return r ? ir_reverse(g, r, axes, n) : 0;
}

static tt_val transposed(tt_call *c, tt_val x, tt_val w, tt_val b, int n, const tt_conv_options *o) {
  ir_graph *g = c->g;
  int64_t groups = or_one(o->groups), channels = tt_dim(x, 1), padding[3], extra[3], crop[3];
  ir_conv_attrs a = {.split = 1};
  if (tt_dtype_of(x) != tt_dtype_of(w))
    return trace_wrong(c, "use tt_cast: both must be of one type", "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(x)), tt_dtype_name(tt_dtype_of(w)));
  each(a.x_dilation, n, or_one(o->stride), o->strides);
  each(a.dilation, n, or_one(o->dilation), o->dilations);
  each(padding, n, o->padding, o->paddings);
  each(extra, n, o->output_padding, o->output_paddings);
  if (groups < 1 || channels % groups)
    return trace_wrong(c, "the channels must be a multiple of the number of groups", "%lld groups do not divide %lld channels", (long long)groups, (long long)channels);
  if (tt_dim(w, 0) != channels)
    return trace_wrong(c, "the weight is [in, out / groups, ...]", "x has %lld channels, but the weight takes %lld", (long long)channels, (long long)tt_dim(w, 0));
  int64_t out = tt_dim(w, 1) * groups;
  if (trace_is(b) && (tt_rank(b) != 1 || tt_dim(b, 0) != out || tt_dtype_of(b) != tt_dtype_of(x)))
    return trace_wrong(c, "give one bias an output channel", "the bias must be [%lld] of x's type", (long long)out);
  tt_shape xs = TT_SHAPE(tt_dim(x, 0), groups, channels / groups), s = TT_SHAPE(tt_dim(x, 0), out), bs = TT_SHAPE(1, out);
  for (int i = 0; i < n; i++) {
    int64_t size = tt_dim(x, i + 2), k = tt_dim(w, i + 2);
    a.stride[i] = 1;
    if (!sane(a.x_dilation[i]) || !sane(a.dilation[i]))
      return trace_wrong(c, "strides and dilations count from 1", "stride %lld, dilation %lld", (long long)a.x_dilation[i], (long long)a.dilation[i]);
    if (!sane(size) || !sane(k)) return trace_wrong(c, "give sizes of at least 1", "a kernel of %lld on an axis of %lld", (long long)k, (long long)size);
    if (!sane(padding[i] + 1)) return trace_wrong(c, "give 0 or more", "the padding is %lld", (long long)padding[i]);
    if (extra[i] < 0 || (extra[i] >= a.x_dilation[i] && extra[i] >= a.dilation[i]))
      return trace_wrong(c, "it chooses between the sizes that stride or dilation leave open", "the output padding %lld is not less than the stride %lld or the dilation %lld",
                         (long long)extra[i], (long long)a.x_dilation[i], (long long)a.dilation[i]);
    int64_t whole = (size - 1) * a.x_dilation[i] + a.dilation[i] * (k - 1) + 1, length = whole - 2 * padding[i] + extra[i], room = a.dilation[i] * (k - 1) - padding[i];
    if (length < 1) return trace_wrong(c, "pad less", "a padding of %lld leaves nothing of %lld", (long long)padding[i], (long long)whole);
    /* A padding larger than the kernel's reach cuts results off, which a convolution cannot: the slice below does. */
    crop[i] = room < 0 ? -room : 0;
    a.lo[i] = room < 0 ? 0 : room, a.hi[i] = room + extra[i] < 0 ? 0 : room + extra[i];
    xs.dim[xs.rank++] = size, s.dim[s.rank++] = length, bs.dim[bs.rank++] = 1;
  }
  ir_ref y = ir_conv(g, ir_reshape(g, x.ref, xs), turned(g, w, groups, n), &a);
  for (int i = 0; i < n && y; i++)
    if (ir_shape(g, y).dim[i + 3] != s.dim[i + 2]) y = ir_slice_axis(g, y, i + 3, crop[i], crop[i] + s.dim[i + 2], 1);
  if (y) y = ir_reshape(g, y, s);
  if (y && trace_is(b)) y = ir_ew2(g, IR_add, y, ir_reshape(g, b.ref, bs));
  return (tt_val){c->t, y};
}

typedef tt_val convolution(tt_call *c, tt_val x, tt_val w, tt_val b, int n, const tt_conv_options *o);

/* Either with weights given, in as many dimensions as they have. */
static tt_val functional(tt_here here, const char *op, convolution *run, const char *layout, tt_val x, tt_val w, tt_val b, const tt_conv_options *o) {
  tt_val args[3] = {x, w, b};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open(op, here, args, trace_is(b) ? 3 : 2);
  if (!call.g) DONE(0);
  int n = tt_rank(w) - 2;
  if (n < 1 || n > 3 || tt_rank(x) != n + 2) WRONG(layout, "ranks %d and %d", tt_rank(x), tt_rank(w));
  return run(&call, x, w, b, n, o);
}

tt_val tt_f_conv_at(tt_here here, tt_val x, tt_val w, tt_val b, tt_conv_options o) {
  return functional(here, "conv", convolve, "give x [N, C, *D] and w [out, C / groups, *K] with 1 to 3 spatial axes", x, w, b, &o);
}
tt_val tt_f_conv_transpose_at(tt_here here, tt_val x, tt_val w, tt_val b, tt_conv_options o) {
  return functional(here, "conv_transpose", transposed, "give x [N, C, *D] and w [C, out / groups, *K] with 1 to 3 spatial axes", x, w, b, &o);
}

/* The layer of either: a weight [out, channels/groups, *k], or [channels, out/groups, *k] of the transposed one, and a bias. */
static tt_val layer(tt_here here, tt_val x, const char *op, int n_spatial, const char *name, int64_t out, int64_t kernel, tt_conv_options o, bool transposes) {
  OPEN(op, here, x);
  static const char *const layout[] = {"give [N, C, W]", "give images as [N, C, H, W]", "give [N, C, D, H, W]"};
  if (tt_rank(x) != n_spatial + 2) WRONG(layout[n_spatial - 1], "%s takes rank %d, not %d", name, n_spatial + 2, tt_rank(x));
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL))
    WRONG("use tt_cast to make it f32", "%s takes real numbers, not %s", name, tt_dtype_name(tt_dtype_of(x)));
  int64_t groups = or_one(o.groups), channels = tt_dim(x, 1), k[3], fan_in;
  each(k, n_spatial, kernel, o.kernels);
  if (!sane(out)) WRONG("give at least one channel, and not more than memory holds", "%s makes %lld channels", name, (long long)out);
  if (groups < 1 || channels % groups || out % groups)
    WRONG("both must be multiples of the number of groups", "%lld groups do not divide %lld channels into %lld", (long long)groups,
          (long long)channels, (long long)out);
  tt_shape s = transposes ? TT_SHAPE(channels, out / groups) : TT_SHAPE(out, channels / groups);
  fan_in = s.dim[1];
  for (int i = 0; i < n_spatial; i++) {
    if (!sane(k[i])) WRONG("give a kernel of at least 1", "%s has a kernel of %lld", name, (long long)k[i]);
    s.dim[s.rank++] = k[i];
    fan_in *= k[i];
  }
  if (fan_in < 1 || channels < 1) WRONG("give at least one channel", "%s has no input channels", name);
  double bound = 1 / sqrt((double)fan_in);
  if (o.weight.kind == TT_INIT_DEFAULT) o.weight = tt_init_kaiming_uniform(sqrt(5));
  if (o.bias.kind == TT_INIT_DEFAULT) o.bias = tt_init_uniform(-bound, bound);
  tt_scope_push(x, name);
  tt_val w = tt_param(x, "weight", s, o.weight), b = {0}, y = {x.trace, 0};
  if (!o.no_bias) b = tt_param(x, "bias", TT_SHAPE(out), o.bias);
  if (w.ref && (o.no_bias || b.ref)) y = (transposes ? transposed : convolve)(&call, x, w, b, n_spatial, &o);
  tt_scope_pop(x);
  return y;
}

tt_val tt_conv_at(tt_here here, tt_val x, const char *op, int n_spatial, const char *name, int64_t out, int64_t kernel, tt_conv_options o) {
  return layer(here, x, op, n_spatial, name, out, kernel, o, false);
}
tt_val tt_conv_transpose_at(tt_here here, tt_val x, const char *op, int n_spatial, const char *name, int64_t out, int64_t kernel, tt_conv_options o) {
  return layer(here, x, op, n_spatial, name, out, kernel, o, true);
}

/* -- Pooling ------------------------------------------------------------------------------------------------------------- */

/* The padding at the end of an axis, such that the windows are those of PyTorch: rounded up in ceil mode, but the last one begins
 * inside of x or its left padding. -1: no window fits. */
static int64_t pool_end(int64_t size, int64_t span, int64_t stride, int64_t padding, bool ceil_mode) {
  int64_t room = size + 2 * padding - span;
  if (room < 0) return -1;
  int64_t windows = (ceil_mode ? (room + stride - 1) / stride : room / stride) + 1;
  if (ceil_mode && (windows - 1) * stride >= size + padding) windows--;
  int64_t end = (windows - 1) * stride + span - size - padding;
  return end > padding ? end : padding;
}

static tt_val pool(tt_here here, const char *name, ir_op op, tt_val x, int64_t size, const tt_pool_options *o) {
  OPEN(name, here, x);
  int64_t stride = o->stride ? o->stride : size, dilation = or_one(o->dilation), p = o->padding;
  if (tt_rank(x) != 4) WRONG("give images as [N, C, H, W]", "it takes rank 4, not %d", tt_rank(x));
  if (!sane(size) || !sane(stride) || !sane(dilation))
    WRONG("sizes, strides and dilations count from 1", "size %lld, stride %lld, dilation %lld", (long long)size, (long long)stride,
          (long long)dilation);
  int64_t span = dilation * (size - 1) + 1;
  if (p < 0 || p > size / 2)
    WRONG("a padding is at most half of the size", "the padding %lld does not go with the size %lld", (long long)p, (long long)size);
  if (op == IR_avg_pool && !tt_dtype_in(tt_dtype_of(x), TT_REAL))
    WRONG("use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x)));
  if (op == IR_avg_pool && dilation != 1) WRONG("leave it out", "averages have no dilation");
  int64_t lo[4] = {0, 0, p, p}, hi[4] = {0}, zero[4] = {0};
  bool uneven = false;
  for (int i = 2; i < 4; i++) {
    hi[i] = pool_end(tt_dim(x, i), span, stride, p, o->ceil_mode);
    if (hi[i] < 0)
      WRONG("pad more, or use a smaller window", "a window of %lld does not fit the size %lld with padding %lld", (long long)span,
            (long long)tt_dim(x, i), (long long)p);
    uneven |= hi[i] > p;
  }
  ir_ref y = x.ref;
  bool count_pad = !o->no_count_include_pad;
  if (op == IR_avg_pool && count_pad && uneven) {         /* the padding counts, but what ceil mode adds to it does not */
    int64_t even[4] = {0, 0, p, p};
    y = ir_pad(g, y, ir_like(g, y, 0), even, even, zero);
    lo[2] = lo[3] = 0, hi[2] -= p, hi[3] -= p, count_pad = false;
  }
  DONE(ir_pool(g, op, y, 2, (int64_t[]){size, size}, (int64_t[]){stride, stride}, lo + 2, hi + 2, (int64_t[]){dilation, dilation}, count_pad));
}

tt_val tt_max_pool2d_at(tt_here here, tt_val x, int64_t size, tt_pool_options o) { return pool(here, "max_pool2d", IR_max_pool, x, size, &o); }
tt_val tt_avg_pool2d_at(tt_here here, tt_val x, int64_t size, tt_pool_options o) { return pool(here, "avg_pool2d", IR_avg_pool, x, size, &o); }
