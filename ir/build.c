/* build.c: typed constructors over ir_emit. They encode attributes, count negative axes from the end, and write NumPy's implicit
 * broadcasts as rows; whether the result makes sense is infer.c's to say. A poisoned operand gives poison. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

/* Attributes being encoded. 6 lists of 8 with their counts and a few numbers are the most that a row of ops.def has. */
typedef struct { int64_t w[64]; uint32_t n; } words;
static void put(words *w, int64_t v) { w->w[w->n++] = v; }
static void put_list(words *w, const int64_t *v, int n) {
  put(w, n);
  for (int i = 0; i < n; i++) put(w, v[i]);
}
static void put_all(words *w, int n, int64_t v) {
  put(w, n);
  for (int i = 0; i < n; i++) put(w, v);
}
static void put_double(words *w, double v) {
  int64_t bits;
  memcpy(&bits, &v, sizeof bits);
  put(w, bits);
}
static void put_text(ir_graph *g, words *w, const char *text) { put(w, (int64_t)(intptr_t)ir_intern(g, text ? text : "")); }

#define EMIT(op, w, ...) emit(g, op, (const ir_ref[]){__VA_ARGS__}, sizeof((const ir_ref[]){__VA_ARGS__}) / sizeof(ir_ref), w)
static ir_ref emit(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const words *w) { return ir_emit(g, op, args, n_args, w ? w->w : NULL, w ? w->n : 0); }

static int rank(const ir_graph *g, ir_ref a) { return ir_at(g, a)->rank; }
/* -1 is the last axis. What is out of range stays so, for the message. */
static int64_t axis_of(int64_t axis, int n) { return axis < 0 && axis + n >= 0 ? axis + n : axis; }

/* ---- leaves ---- */

static void put_type(words *w, tt_dtype t, const tt_shape *s) { put(w, t), put_list(w, s->dim, s->rank); }

ir_ref ir_input(ir_graph *g, const char *name, tt_dtype t, tt_shape s) {
  words w = {0};
  put_type(&w, t, &s), put_text(g, &w, name);
  return ir_emit(g, IR_input, NULL, 0, w.w, w.n);
}

ir_ref ir_param(ir_graph *g, const char *name, tt_dtype t, tt_shape s, bool trainable) {
  words w = {0};
  put_type(&w, t, &s), put_text(g, &w, name), put(&w, trainable);
  return ir_emit(g, IR_param, NULL, 0, w.w, w.n);
}

ir_ref ir_const(ir_graph *g, tt_dtype t, tt_shape s, const void *data) {
  words w = {0};
  int64_t n = tt_shape_count(&s);
  if (n < 0 || n > INT64_MAX / 16) return tt_bug(g, "a constant of %lld elements", (long long)n);
  int64_t blob = ir_blob_add(g, data, (size_t)n * tt_dtype_size(t));
  if (blob < 0) return 0;
  put_type(&w, t, &s), put(&w, blob);
  return ir_emit(g, IR_const, NULL, 0, w.w, w.n);
}

ir_ref ir_scalar(ir_graph *g, tt_dtype t, double value) {
  int64_t room = 0;
  ir_store_double(t, &room, 0, value);
  return ir_const(g, t, (tt_shape){0}, &room);
}

ir_ref ir_scalar_int(ir_graph *g, tt_dtype t, int64_t value) {
  if (tt_dtype_in(t, TT_REAL)) return ir_scalar(g, t, (double)value);
  if (t == TT_BOOL) value = value != 0;
  return ir_const(g, t, (tt_shape){0}, &value);               /* little-endian: the low bytes come first */
}

ir_ref ir_full(ir_graph *g, tt_dtype t, tt_shape s, double value) { return ir_broadcast(g, ir_scalar(g, t, value), s, NULL); }
ir_ref ir_like(ir_graph *g, ir_ref x, double value) { return x ? ir_scalar(g, (tt_dtype)ir_at(g, x)->dtype, value) : 0; }

bool ir_is_splat(const ir_graph *g, ir_ref r, double *value) {
  while (ir_at(g, r)->op == IR_broadcast) r = ir_at(g, r)->args[0];
  const ir_node *n = ir_at(g, r);
  if (n->op != IR_const) return false;
  const ir_blob *b = &g->blobs[ir_int(n, "value")];
  size_t size = tt_dtype_size((tt_dtype)n->dtype);
  if (b->bytes < size || memcmp(b->data, (const char *)b->data + size, b->bytes - size)) return false;
  if (value) *value = ir_load_double((tt_dtype)n->dtype, b->data, 0);
  return true;
}

ir_ref ir_iota(ir_graph *g, tt_dtype t, tt_shape s, int axis) {
  words w = {0};
  put_type(&w, t, &s), put(&w, axis_of(axis, s.rank));
  return ir_emit(g, IR_iota, NULL, 0, w.w, w.n);
}

ir_ref ir_random(ir_graph *g, ir_ref seed, ir_ref step, tt_shape s, int64_t stream) {
  words w = {0};
  put_list(&w, s.dim, s.rank), put(&w, stream);
  return EMIT(IR_random, &w, seed, step);
}

/* ---- elementwise ---- */

/* NumPy's common shape of n values: aligned at the last axis, 1 repeats. */
static bool common_shape(ir_graph *g, ir_op op, const ir_ref *args, int n, tt_shape *s) {
  *s = (tt_shape){0};
  for (int k = 0; k < n; k++)
    if (rank(g, args[k]) > s->rank) s->rank = rank(g, args[k]);
  for (int i = 0; i < s->rank; i++) {                        /* i: axis from the end */
    int64_t d = 1;
    for (int k = 0; k < n; k++) {
      const ir_node *a = ir_at(g, args[k]);
      int64_t e = i < a->rank ? a->dim[a->rank - 1 - i] : 1;
      if (e == 1 || e == d) continue;
      if (d != 1) {
        ir_mistake(g, op, args, (uint32_t)n, "sizes must be equal or 1, counted from the last axis: reshape one of them, or make the sizes equal",
                   "shapes do not broadcast, %lld and %lld at axis %d", (long long)d, (long long)e, -1 - i);
        return false;
      }
      d = e;
    }
    s->dim[s->rank - 1 - i] = d;
  }
  return true;
}

static ir_ref broadcasting(ir_graph *g, ir_op op, const ir_ref *args, int n, const ir_ref *same_type, int n_same) {
  tt_shape s;
  ir_ref to[3] = {0};
  for (int i = 0; i < n; i++)
    if (!args[i]) return ir_emit(g, op, args, (uint32_t)n, NULL, 0);
  for (int i = 1; i < n_same; i++)                           /* types first: the message then shows the values as written */
    if (ir_at(g, same_type[i])->dtype != ir_at(g, same_type[0])->dtype) return ir_emit(g, op, args, (uint32_t)n, NULL, 0);
  if (!common_shape(g, op, args, n, &s)) return 0;
  for (int i = 0; i < n; i++) to[i] = ir_broadcast_to(g, args[i], s);
  return ir_emit(g, op, to, (uint32_t)n, NULL, 0);
}

ir_ref ir_ew1(ir_graph *g, ir_op op, ir_ref a) { return EMIT(op, NULL, a); }
ir_ref ir_ew2(ir_graph *g, ir_op op, ir_ref a, ir_ref b) { return broadcasting(g, op, (const ir_ref[]){a, b}, 2, (const ir_ref[]){a, b}, 2); }
ir_ref ir_select(ir_graph *g, ir_ref c, ir_ref a, ir_ref b) { return broadcasting(g, IR_select, (const ir_ref[]){c, a, b}, 3, (const ir_ref[]){a, b}, 2); }
ir_ref ir_stop_gradient(ir_graph *g, ir_ref a) { return EMIT(IR_stop_gradient, NULL, a); }

static ir_ref convert(ir_graph *g, ir_op op, ir_ref a, tt_dtype t) {
  words w = {0};
  if (a && ir_at(g, a)->dtype == t) return a;
  put(&w, t);
  return EMIT(op, &w, a);
}
ir_ref ir_cast(ir_graph *g, ir_ref a, tt_dtype t) { return convert(g, IR_cast, a, t); }
ir_ref ir_bitcast(ir_graph *g, ir_ref a, tt_dtype t) { return convert(g, IR_bitcast, a, t); }

/* ---- movement ---- */

ir_ref ir_reshape(ir_graph *g, ir_ref a, tt_shape s) {
  words w = {0};
  tt_shape from = ir_shape(g, a);
  int64_t n = tt_shape_count(&from);
  int unknown = -1;
  for (int i = 0; a && i < s.rank; i++) {
    if (s.dim[i] != -1) continue;
    if (unknown >= 0) return ir_mistake(g, IR_reshape, &a, 1, "leave one size open, at most", "sizes %d and %d are both -1", unknown, i);
    unknown = i;
  }
  if (unknown >= 0) {
    s.dim[unknown] = 1;
    int64_t rest = tt_shape_count(&s);
    if (rest == 0 || n % rest) return ir_mistake(g, IR_reshape, &a, 1, "the given sizes must divide the number of elements", "%lld elements are no multiple of the %lld of the given sizes", (long long)n, (long long)rest);
    s.dim[unknown] = n / rest;
  }
  if (a && tt_shape_equal(&from, &s)) return a;
  put_list(&w, s.dim, s.rank);
  return EMIT(IR_reshape, &w, a);
}

ir_ref ir_permute(ir_graph *g, ir_ref a, const int *perm) {
  words w = {0};
  bool same = true;
  put(&w, rank(g, a));
  for (int i = 0; i < rank(g, a); i++) put(&w, axis_of(perm[i], rank(g, a))), same &= w.w[1 + i] == i;
  return same && a ? a : EMIT(IR_permute, &w, a);
}

ir_ref ir_transpose(ir_graph *g, ir_ref a, int axis0, int axis1) {
  int perm[TT_MAX_RANK], n = rank(g, a), x = (int)axis_of(axis0, n), y = (int)axis_of(axis1, n);
  if (!a) return EMIT(IR_permute, &(words){.n = 1}, a);
  for (int i = 0; i < n; i++) perm[i] = i;
  if (x < 0 || x >= n || y < 0 || y >= n) {                  /* a perm that holds the wrong axis gets its message from infer */
    if (n) perm[0] = x < 0 || x >= n ? x : y;
    else return ir_mistake(g, IR_permute, &a, 1, "give it a value that has axes", "axes %d and %d of a scalar", axis0, axis1);
  } else perm[x] = y, perm[y] = x;
  return ir_permute(g, a, perm);
}

ir_ref ir_broadcast(ir_graph *g, ir_ref a, tt_shape s, const int *dims) {
  words w = {0};
  tt_shape from = ir_shape(g, a);
  if (a && tt_shape_equal(&from, &s)) return a;
  put_list(&w, s.dim, s.rank), put(&w, from.rank);
  for (int i = 0; i < from.rank; i++) put(&w, axis_of(dims[i], s.rank));
  return EMIT(IR_broadcast, &w, a);
}

ir_ref ir_broadcast_to(ir_graph *g, ir_ref a, tt_shape s) {
  int dims[TT_MAX_RANK], n = rank(g, a);
  if (a && n > s.rank) return ir_mistake(g, IR_broadcast, &a, 1, "reshape it first, or broadcast to more axes", "%d axes do not fit into %d", n, s.rank);
  for (int i = 0; i < n; i++) dims[i] = s.rank - n + i;
  return ir_broadcast(g, a, s, dims);
}

ir_ref ir_expand_dims(ir_graph *g, ir_ref a, int axis) {
  tt_shape s = ir_shape(g, a);
  int64_t at = axis_of(axis, s.rank + 1);
  if (a && (at < 0 || at > s.rank || s.rank == TT_MAX_RANK))
    return ir_mistake(g, IR_reshape, &a, 1, s.rank == TT_MAX_RANK ? "reshape it to fewer axes first" : "the new axis may stand before, between or after those there are", "a new axis %d of a value that has %d axes", axis, s.rank);
  if (a) {
    memmove(s.dim + at + 1, s.dim + at, (size_t)(s.rank++ - at) * sizeof *s.dim);
    s.dim[at] = 1;
  }
  return ir_reshape(g, a, s);
}

ir_ref ir_slice(ir_graph *g, ir_ref a, const int64_t *start, const int64_t *stop, const int64_t *step) {
  words w = {0};
  int n = rank(g, a);
  bool all = a != 0;
  for (int i = 0; i < n; i++) all &= start[i] == 0 && stop[i] == ir_at(g, a)->dim[i] && (!step || step[i] == 1);
  if (all) return a;
  put_list(&w, start, n), put_list(&w, stop, n);
  if (step) put_list(&w, step, n);
  else put_all(&w, n, 1);
  return EMIT(IR_slice, &w, a);
}

/* start and stop below 0 count from the end. */
ir_ref ir_slice_axis(ir_graph *g, ir_ref a, int axis, int64_t start, int64_t stop, int64_t step) {
  int64_t from[TT_MAX_RANK] = {0}, to[TT_MAX_RANK], by[TT_MAX_RANK], at = axis_of(axis, rank(g, a));
  if (a && (at < 0 || at >= rank(g, a))) return ir_mistake(g, IR_slice, &a, 1, "axes count from 0, or from the end: -1 is the last", "axis %d of a value that has %d", axis, rank(g, a));
  for (int i = 0; i < rank(g, a); i++) to[i] = ir_at(g, a)->dim[i], by[i] = 1;
  if (a) {
    int64_t d = to[at];
    from[at] = start < 0 ? start + d : start;
    to[at] = stop < 0 ? stop + d : stop;
    by[at] = step;
  }
  return ir_slice(g, a, from, to, by);
}

ir_ref ir_pad(ir_graph *g, ir_ref a, ir_ref value, const int64_t *lo, const int64_t *hi, const int64_t *interior) {
  words w = {0};
  int n = rank(g, a);
  put_list(&w, lo, n), put_list(&w, hi, n);
  if (interior) put_list(&w, interior, n);
  else put_all(&w, n, 0);
  return EMIT(IR_pad, &w, a, value);
}

ir_ref ir_concat(ir_graph *g, const ir_ref *xs, int n, int axis) {
  words w = {0};
  if (n < 1) return ir_mistake(g, IR_concat, NULL, 0, "give it one or more", "there is nothing to join");
  put(&w, axis_of(axis, rank(g, xs[0])));
  return emit(g, IR_concat, xs, (uint32_t)n, &w);
}

static int compare(const void *a, const void *b) { int64_t x = *(const int64_t *)a, y = *(const int64_t *)b; return (x > y) - (x < y); }

/* Axes as the table wants them: from the front, ascending. */
static void put_axes(words *w, const int *axes, int n, int of) {
  put(w, n);
  for (int i = 0; i < n; i++) put(w, axis_of(axes[i], of));
  qsort(w->w + w->n - n, (size_t)n, sizeof *w->w, compare);
}

ir_ref ir_reverse(ir_graph *g, ir_ref a, const int *axes, int n) {
  words w = {0};
  if (n > TT_MAX_RANK) return ir_mistake(g, IR_reverse, &a, 1, "name each axis once", "%d axes", n);
  put_axes(&w, axes, n, rank(g, a));
  return EMIT(IR_reverse, &w, a);
}

ir_ref ir_unfold(ir_graph *g, ir_ref a, int axis, int64_t size, int64_t stride, int64_t dilation) {
  words w = {.w = {axis_of(axis, rank(g, a)), size, stride, dilation}, .n = 4};
  return EMIT(IR_unfold, &w, a);
}

ir_ref ir_fold(ir_graph *g, ir_ref a, int axis, int64_t length, int64_t stride, int64_t dilation) {
  words w = {.w = {axis_of(axis, rank(g, a) - 1), length, stride, dilation}, .n = 4};
  return EMIT(IR_fold, &w, a);
}

/* ---- reductions ---- */

ir_ref ir_reduce(ir_graph *g, ir_op op, ir_ref a, const int *axes, int n, bool keep) {
  words w = {0};
  int all[TT_MAX_RANK];
  tt_shape s = ir_shape(g, a);
  if (!axes) {
    for (n = 0; n < s.rank; n++) all[n] = n;
    axes = all;
  }
  if (a && n > TT_MAX_RANK) return ir_mistake(g, op, &a, 1, "name each axis once", "%d axes", n);
  if (a && n == 0 && tt_dtype_in((tt_dtype)ir_at(g, a)->dtype, ir_ops[op].takes)) return a;
  put_axes(&w, axes, a ? n : 0, s.rank);
  ir_ref r = EMIT(op, &w, a);
  if (!keep || !r) return r;
  for (int i = 0; i < n; i++) s.dim[w.w[1 + i]] = 1;
  return ir_reshape(g, r, s);
}

ir_ref ir_mean(ir_graph *g, ir_ref a, const int *axes, int n, bool keep) {
  tt_shape s = ir_shape(g, a);
  ir_ref sum = ir_reduce(g, IR_sum, a, axes, n, keep);
  if (!sum) return 0;
  int64_t count = 1;
  if (!axes) count = tt_shape_count(&s);
  else for (int i = 0; i < n; i++) count *= s.dim[axis_of(axes[i], s.rank)];
  return ir_ew2(g, IR_div, sum, ir_scalar_int(g, (tt_dtype)ir_at(g, a)->dtype, count));
}

static ir_ref along(ir_graph *g, ir_op op, ir_ref a, int axis) { return EMIT(op, (&(words){.w = {axis_of(axis, rank(g, a))}, .n = 1}), a); }
ir_ref ir_arg(ir_graph *g, ir_op op, ir_ref a, int axis) { return along(g, op, a, axis); }

ir_ref ir_cumsum(ir_graph *g, ir_ref a, int axis, bool exclusive, bool reversed) {
  words w = {.w = {axis_of(axis, rank(g, a)), exclusive, reversed}, .n = 3};
  return EMIT(IR_cumsum, &w, a);
}

/* ---- contractions ---- */

ir_ref ir_matmul(ir_graph *g, ir_ref a, ir_ref b, bool ta, bool tb, int64_t split) {
  words w = {.w = {ta, tb, split ? split : 1}, .n = 3};
  return EMIT(IR_matmul, &w, a, b);
}

ir_ref ir_conv(ir_graph *g, ir_ref x, ir_ref w, const ir_conv_attrs *attrs) {
  words to = {0};
  ir_conv_attrs c = attrs ? *attrs : (ir_conv_attrs){0};
  int n = rank(g, x) - 3;
  n = n < 0 ? 0 : n > 3 ? 3 : n;                             /* infer says what is wrong with other ranks */
  for (int i = 0; i < 3; i++) {
    if (!c.stride[i]) c.stride[i] = 1;
    if (!c.dilation[i]) c.dilation[i] = 1;
    if (!c.x_dilation[i]) c.x_dilation[i] = 1;
  }
  put_list(&to, c.stride, n), put_list(&to, c.lo, n), put_list(&to, c.hi, n), put_list(&to, c.dilation, n), put_list(&to, c.x_dilation, n);
  put(&to, c.split ? c.split : 1), put(&to, c.winograd);
  return EMIT(IR_conv, &to, x, w);
}

ir_ref ir_winograd(ir_graph *g, ir_ref x, ir_ref u, int64_t tile, const int64_t *size) {
  words to = {0};
  put(&to, tile), put_list(&to, size, 3);
  return EMIT(IR_winograd, &to, x, u);
}

ir_attention_options ir_attention_of(const ir_node *n) {
  int at = ir_attention_first((ir_op)n->op);
  ir_attention_options o = {.scale = ir_float(n, "scale"), .causal = ir_int(n, "causal")};
  if (ir_int(n, "mask")) o.mask = n->args[at++];
  if (ir_int(n, "length")) o.length = n->args[at];
  return o;
}

ir_ref ir_attention(ir_graph *g, ir_op op, const ir_ref *args, const ir_attention_options *o) {
  words w = {0};
  ir_ref all[8];
  int n = ir_attention_first(op);
  memcpy(all, args, (size_t)n * sizeof *all);
  if (o->mask) all[n++] = o->mask;
  if (o->length) all[n++] = o->length;
  put_double(&w, o->scale), put(&w, o->causal), put(&w, o->mask != 0), put(&w, o->length != 0);
  return ir_emit(g, op, all, (uint32_t)n, w.w, w.n);
}

/* ---- index ---- */

ir_ref ir_gather(ir_graph *g, ir_ref x, ir_ref index, int axis) {
  words w = {.w = {axis_of(axis, rank(g, x))}, .n = 1};
  return EMIT(IR_gather, &w, x, index);
}

ir_ref ir_scatter_add(ir_graph *g, ir_ref x, ir_ref index, ir_ref src, int axis) {
  words w = {.w = {axis_of(axis, rank(g, x))}, .n = 1};
  return EMIT(IR_scatter_add, &w, x, index, src);
}

ir_ref ir_argsort(ir_graph *g, ir_ref x, int axis, bool descending) {
  words w = {.w = {axis_of(axis, rank(g, x)), descending}, .n = 2};
  return EMIT(IR_argsort, &w, x);
}

ir_ref ir_dynamic_slice(ir_graph *g, ir_ref x, ir_ref start, const int64_t *sizes) {
  words w = {0};
  put_list(&w, sizes, rank(g, x));
  return EMIT(IR_dynamic_slice, &w, x, start);
}

ir_ref ir_dynamic_update_slice(ir_graph *g, ir_ref x, ir_ref u, ir_ref start) { return EMIT(IR_dynamic_update_slice, NULL, x, u, start); }

ir_ref ir_scan(ir_graph *g, const ir_ref *args, uint32_t n_args, ir_scan_attrs a) {
  const words w = {.w = {a.body, a.carries, a.xs, a.length, a.reversed, a.result}, .n = 6};
  return emit(g, IR_scan, args, n_args, &w);
}

/* ---- effect, composites ---- */

ir_ref ir_assign(ir_graph *g, ir_ref param, ir_ref value) { return EMIT(IR_assign, NULL, param, value); }
ir_ref ir_softmax(ir_graph *g, ir_op op, ir_ref x, int axis) { return along(g, op, x, axis); }
ir_ref ir_silu(ir_graph *g, ir_ref x) { return EMIT(IR_silu, NULL, x); }

ir_ref ir_gelu(ir_graph *g, ir_ref x, bool tanh) {
  words w = {.w = {tanh}, .n = 1};
  return EMIT(IR_gelu, &w, x);
}

ir_ref ir_layer_norm(ir_graph *g, ir_ref x, ir_ref w, ir_ref b, int axes, double eps) {
  words to = {0};
  put(&to, axes), put_double(&to, eps);
  return EMIT(IR_layer_norm, &to, x, w, b);
}

ir_ref ir_batch_mean(ir_graph *g, ir_ref x) { return EMIT(IR_batch_mean, NULL, x); }
ir_ref ir_batch_var(ir_graph *g, ir_ref x) { return EMIT(IR_batch_var, NULL, x); }

ir_ref ir_batch_norm(ir_graph *g, ir_ref x, ir_ref w, ir_ref b, double eps) {
  words to = {0};
  put_double(&to, eps);
  return EMIT(IR_batch_norm, &to, x, w, b);
}

ir_ref ir_dropout(ir_graph *g, ir_ref x, ir_ref seed, ir_ref step, double p, int64_t stream) {
  words w = {0};
  put_double(&w, p), put(&w, stream);
  return EMIT(IR_dropout, &w, x, seed, step);
}

ir_ref ir_pool(ir_graph *g, ir_op op, ir_ref x, int n, const int64_t *size, const int64_t *stride, const int64_t *lo, const int64_t *hi, const int64_t *dilation, bool count_pad) {
  words w = {0};
  if (n < 1 || n > 3) return ir_mistake(g, op, &x, 1, "pool over 1 to 3 axes", "%d spatial axes", n);
  put_list(&w, size, n), put_list(&w, stride, n), put_list(&w, lo, n), put_list(&w, hi, n);
  if (op == IR_avg_pool) put(&w, count_pad);
  else if (dilation) put_list(&w, dilation, n);
  else put_all(&w, n, 1);
  return EMIT(op, &w, x);
}
