/* movement.c: ops that move elements and compute nothing: shapes, slices, pads, joins, and what follows from them. Indices are
 * checked here, against shapes that are known, and rows of reshape, permute, broadcast, slice, pad, concat, reverse and unfold come out. */
#include "frontend.h"

static tt_shape replaced(tt_val x, int axis, int64_t size) {
  tt_shape s = tt_shape_of(x);
  s.dim[axis] = size;
  return s;
}

/* s with a dimension put in before axis. */
static tt_shape inserted(tt_shape s, int axis, int64_t size) {
  for (int i = s.rank++; i > axis; i--) s.dim[i] = s.dim[i - 1];
  s.dim[axis] = size;
  return s;
}

#define ROOM_FOR_AXIS(x) \
  if (tt_rank(x) >= TT_MAX_RANK) WRONG("reshape it to fewer axes first", "a result of rank %d is more than %d", tt_rank(x) + 1, TT_MAX_RANK)

tt_val tt_reshape_at(tt_here here, tt_val x, tt_shape shape) {
  OPEN("reshape", here, x);
  tt_shape from = tt_shape_of(x);
  int64_t have = tt_shape_count(&from), known = 1;
  int open = -1;
  char text[120];
  for (int i = 0; i < shape.rank; i++) {
    if (shape.dim[i] == -1 && open < 0) open = i;
    else if (shape.dim[i] < 0) WRONG("at most one dimension may be -1", "dimension %d is %lld", i, (long long)shape.dim[i]);
    else if (__builtin_mul_overflow(known, shape.dim[i], &known)) WRONG("make it smaller", "the shape has too many elements to count");
  }
  if (open >= 0 ? known == 0 || have % known : known != have)
    WRONG("the number of elements must stay; one dimension may be -1", "%lld elements do not fit %s", (long long)have,
          tt_type_text(tt_dtype_of(x), &shape, text, sizeof text));
  if (open >= 0) shape.dim[open] = have / known;
  DONE(ir_reshape(g, x.ref, shape));
}

tt_val tt_flatten_at(tt_here here, tt_val x, int start_axis) {
  OPEN("flatten", here, x);
  tt_shape s = tt_shape_of(x);
  if (!s.rank) DONE(ir_reshape(g, x.ref, TT_SHAPE(1)));
  AXIS(first, start_axis, x);
  tt_shape tail = {.rank = s.rank - first};
  for (int i = 0; i < tail.rank; i++) tail.dim[i] = s.dim[first + i];
  s.dim[first] = tt_shape_count(&tail);
  s.rank = first + 1;
  DONE(ir_reshape(g, x.ref, s));
}

tt_val tt_permute_at(tt_here here, tt_val x, tt_ints axes) {
  OPEN("permute", here, x);
  int perm[TT_MAX_RANK];
  if (axes.n != tt_rank(x)) WRONG("name every axis once", "%d axes are named, but the rank is %d", axes.n, tt_rank(x));
  if (!axes.n) DONE(x.ref);
  if (trace_axes(&call, x, axes, perm) < 0) DONE(0);
  DONE(ir_permute(g, x.ref, perm));
}

tt_val tt_transpose_at(tt_here here, tt_val x, int axis0, int axis1) {
  OPEN("transpose", here, x);
  AXIS(i, axis0, x);
  AXIS(k, axis1, x);
  DONE(ir_transpose(g, x.ref, i, k));
}

tt_val tt_unsqueeze_at(tt_here here, tt_val x, int axis) {
  OPEN("unsqueeze", here, x);
  ROOM_FOR_AXIS(x);
  int i;
  if (!trace_axis(&call, axis, tt_rank(x) + 1, &i)) DONE(0);
  DONE(ir_expand_dims(g, x.ref, i));
}

tt_val tt_squeeze_at(tt_here here, tt_val x, int axis) {
  OPEN("squeeze", here, x);
  AXIS(i, axis, x);
  if (tt_dim(x, i) != 1) WRONG("use tt_select to take one element of it", "axis %d has the size %lld, not 1", i, (long long)tt_dim(x, i));
  tt_shape s = tt_shape_of(x);
  for (int k = i; k + 1 < s.rank; k++) s.dim[k] = s.dim[k + 1];
  s.rank--;
  DONE(ir_reshape(g, x.ref, s));
}

tt_val tt_broadcast_to_at(tt_here here, tt_val x, tt_shape shape) {
  OPEN("broadcast_to", here, x);
  tt_shape from = tt_shape_of(x), s;
  char text[120];
  if (from.rank > shape.rank || !trace_broadcasts(&from, &shape, &s) || !tt_shape_equal(&s, &shape))
    WRONG("sizes must be equal, or 1 in x, from the last axis on", "it does not broadcast to %s",
          tt_type_text(tt_dtype_of(x), &shape, text, sizeof text));
  DONE(ir_broadcast_to(g, x.ref, shape));
}

/* Python's rule: negative counts from the end, what is outside is clipped. */
static int64_t clip(int64_t i, int64_t n) {
  if (i < 0) i += n;
  return i < 0 ? 0 : i > n ? n : i;
}

tt_val tt_slice_at(tt_here here, tt_val x, int axis, int64_t start, int64_t stop, int64_t step) {
  OPEN("slice", here, x);
  AXIS(i, axis, x);
  if (step < 1) WRONG("use tt_flip to go backward", "the step is %lld", (long long)step);
  int64_t n = tt_dim(x, i), a = clip(start, n), b = clip(stop, n);
  DONE(ir_slice_axis(g, x.ref, i, a, b < a ? a : b, step));
}

tt_val tt_select_at(tt_here here, tt_val x, int axis, int64_t index) {
  OPEN("select", here, x);
  AXIS(i, axis, x);
  int64_t n = tt_dim(x, i), at = index < 0 ? index + n : index;
  if (at < 0 || at >= n)
    WRONG("count from 0, or from the end with negative numbers", "index %lld is outside of axis %d of size %lld", (long long)index, i, (long long)n);
  return tt_squeeze_at(here, (tt_val){x.trace, ir_slice_axis(g, x.ref, i, at, at + 1, 1)}, i);
}

/* One axis extended by copies of its ends (replicate), by what a mirror there shows (reflect), or by its other end (circular). */
static ir_ref pad_axis(ir_graph *g, tt_val x, int i, int64_t lo, int64_t hi, tt_pad_mode mode) {
  ir_ref part[3];
  int64_t n = tt_dim(x, i);
  int count = 0;
  if (lo && mode == TT_PAD_REPLICATE) part[count++] = ir_broadcast_to(g, ir_slice_axis(g, x.ref, i, 0, 1, 1), replaced(x, i, lo));
  if (lo && mode == TT_PAD_REFLECT) part[count++] = ir_reverse(g, ir_slice_axis(g, x.ref, i, 1, lo + 1, 1), &i, 1);
  if (lo && mode == TT_PAD_CIRCULAR) part[count++] = ir_slice_axis(g, x.ref, i, n - lo, n, 1);
  part[count++] = x.ref;
  if (hi && mode == TT_PAD_CIRCULAR) part[count++] = ir_slice_axis(g, x.ref, i, 0, hi, 1);
  if (hi && mode == TT_PAD_REPLICATE) part[count++] = ir_broadcast_to(g, ir_slice_axis(g, x.ref, i, n - 1, n, 1), replaced(x, i, hi));
  if (hi && mode == TT_PAD_REFLECT) part[count++] = ir_reverse(g, ir_slice_axis(g, x.ref, i, n - 1 - hi, n - 1, 1), &i, 1);
  return count == 1 ? x.ref : ir_concat(g, part, count, i);
}

tt_val tt_pad_at(tt_here here, tt_val x, tt_ints pads, tt_pad_mode mode, double value) {
  OPEN("pad", here, x);
  int rank = tt_rank(x);
  int64_t lo[TT_MAX_RANK] = {0}, hi[TT_MAX_RANK] = {0}, interior[TT_MAX_RANK] = {0};
  if (pads.n % 2 || pads.n > 2 * rank)
    WRONG("give lo, hi of the last axis, then of the one before, ...", "%d numbers do not go with rank %d", pads.n, rank);
  if (mode < TT_PAD_CONSTANT || mode > TT_PAD_CIRCULAR) WRONG("use TT_PAD_CONSTANT, TT_PAD_REPLICATE, TT_PAD_REFLECT or TT_PAD_CIRCULAR", "there is no mode %d", (int)mode);
  tt_val y = x;
  for (int k = 0; k < pads.n / 2 && y.ref; k++) {
    int i = rank - 1 - k;
    int64_t a = pads.v[2 * k], b = pads.v[2 * k + 1], n = tt_dim(x, i);
    if (mode == TT_PAD_CONSTANT) {
      if (n + (a < 0 ? a : 0) + (b < 0 ? b : 0) < 0)
        WRONG("cut off less", "axis %d of size %lld cannot lose %lld", i, (long long)n, (long long)-((a < 0 ? a : 0) + (b < 0 ? b : 0)));
      if (a < 0 || b < 0) y.ref = ir_slice_axis(g, y.ref, i, a < 0 ? -a : 0, b < 0 ? n + b : n, 1);
      lo[i] = a > 0 ? a : 0;
      hi[i] = b > 0 ? b : 0;
      continue;
    }
    if (a < 0 || b < 0) WRONG("use tt_slice to cut off", "the padding of axis %d is negative", i);
    if (mode == TT_PAD_REFLECT && (a >= n || b >= n))
      WRONG("pad by less than the size", "axis %d of size %lld cannot be reflected by %lld", i, (long long)n, (long long)(a > b ? a : b));
    if (mode == TT_PAD_CIRCULAR && (a > n || b > n))
      WRONG("pad by at most the size", "axis %d of size %lld cannot be wrapped around by %lld", i, (long long)n, (long long)(a > b ? a : b));
    if (mode == TT_PAD_REPLICATE && n == 0 && (a || b)) WRONG("give an axis of at least one element", "axis %d is empty", i);
    y.ref = pad_axis(g, y, i, a, b, mode);
  }
  DONE(mode == TT_PAD_CONSTANT && y.ref ? ir_pad(g, y.ref, ir_like(g, x.ref, value), lo, hi, interior) : y.ref);
}

tt_val tt_concat_at(tt_here here, const tt_val *xs, int n, int axis) {
  if (n < 1) return (tt_val){0};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("concat", here, xs, n);
  if (!call.g) DONE(0);
  AXIS(i, axis, xs[0]);
  ir_ref *parts = malloc(sizeof *parts * (size_t)n), r = 0;
  for (int k = 0; k < n && parts; k++) {
    tt_shape s = replaced(xs[k], i < tt_rank(xs[k]) ? i : 0, tt_dim(xs[0], i)), want = tt_shape_of(xs[0]);
    parts[k] = xs[k].ref;
    if (tt_rank(xs[k]) != want.rank || !tt_shape_equal(&s, &want) || tt_dtype_of(xs[k]) != tt_dtype_of(xs[0])) {
      free(parts);
      WRONG("all must agree in type, and in size but along the axis", "argument %d does not go with the first along axis %d", k + 1, i);
    }
  }
  if (!parts) tt_fail(&call.g->error, TT_NO_MEMORY, "error: concat: no memory for %d arguments\n  at the trace\n  fix: join fewer", n);
  else r = ir_concat(call.g, parts, n, i);
  free(parts);
  DONE(r);
}

tt_val tt_stack_at(tt_here here, const tt_val *xs, int n, int axis) {
  if (n < 1) return (tt_val){0};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("stack", here, xs, n);
  if (!call.g) DONE(0);
  ROOM_FOR_AXIS(xs[0]);
  int i;
  if (!trace_axis(&call, axis, tt_rank(xs[0]) + 1, &i)) DONE(0);
  tt_val *wide = malloc(sizeof *wide * (size_t)n), r = {call.t, 0};
  if (!wide) tt_fail(&call.g->error, TT_NO_MEMORY, "error: stack: no memory for %d arguments\n  at the trace\n  fix: join fewer", n);
  for (int k = 0; k < n && wide; k++) {
    bool room = tt_rank(xs[k]) < TT_MAX_RANK && i <= tt_rank(xs[k]);
    wide[k] = (tt_val){call.t, room ? ir_expand_dims(call.g, xs[k].ref, i) : xs[k].ref};
  }
  if (wide) r = tt_concat_at(here, wide, n, i);
  free(wide);
  return r;
}

static void split(tt_call *c, tt_val x, int n, int axis, tt_val *out) {
  int i;
  if (!trace_axis(c, axis, tt_rank(x), &i)) return;
  int64_t size = tt_dim(x, i);
  if (n < 1 || size % n) {
    trace_wrong(c, "the parts must be equal; use tt_slice for others", "axis %d of size %lld does not fall into %d parts", i, (long long)size, n);
    return;
  }
  for (int k = 0; k < n; k++) out[k].ref = ir_slice_axis(c->g, x.ref, i, k * (size / n), (k + 1) * (size / n), 1);
}

void tt_split_at(tt_here here, tt_val x, int n, int axis, tt_val *out) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("split", here, &x, 1);
  for (int k = 0; k < n; k++) out[k] = (tt_val){c.t, 0};
  if (c.g) split(&c, x, n, axis, out);
}

tt_val tt_flip_at(tt_here here, tt_val x, tt_ints axes) {
  OPEN("flip", here, x);
  int axis[TT_MAX_RANK], n = trace_axes(&call, x, axes, axis);
  if (n < 0) DONE(0);
  DONE(n ? ir_reverse(g, x.ref, axis, n) : x.ref);
}

tt_val tt_roll_at(tt_here here, tt_val x, tt_ints shifts, tt_ints axes) {
  OPEN("roll", here, x);
  if (shifts.n != axes.n) WRONG("give one shift an axis", "%d shifts for %d axes", shifts.n, axes.n);
  ir_ref y = x.ref;
  for (int k = 0; k < axes.n && y; k++) {
    AXIS(i, (int)axes.v[k], x);
    int64_t n = tt_dim(x, i), by = n ? (shifts.v[k] % n + n) % n : 0;
    if (by) y = ir_concat(g, (ir_ref[]){ir_slice_axis(g, y, i, n - by, n, 1), ir_slice_axis(g, y, i, 0, n - by, 1)}, 2, i);
  }
  DONE(y);
}

/* x repeated along an axis: as a whole when outer is set, else each element. */
static tt_val repeat_axis(tt_val x, int i, int64_t n, bool outer) {
  tt_shape s = tt_shape_of(x), wide = inserted(s, outer ? i : i + 1, n);
  ir_ref r = ir_expand_dims(x.trace->g, x.ref, outer ? i : i + 1);
  s.dim[i] *= n;
  if (r) r = ir_broadcast_to(x.trace->g, r, wide);
  return (tt_val){x.trace, r ? ir_reshape(x.trace->g, r, s) : 0};
}

tt_val tt_repeat_at(tt_here here, tt_val x, tt_ints repeats) {
  OPEN("repeat", here, x);
  tt_shape s = tt_shape_of(x);
  if (repeats.n < s.rank || repeats.n > TT_MAX_RANK) WRONG("give one number an axis", "%d numbers for rank %d", repeats.n, s.rank);
  while (s.rank < repeats.n) s = inserted(s, 0, 1);
  tt_val y = {x.trace, ir_reshape(g, x.ref, s)};
  for (int i = 0; i < repeats.n && y.ref; i++) {
    if (repeats.v[i] < 0 || repeats.v[i] > INT32_MAX)
      WRONG("give numbers of at least 0, within reason", "axis %d is to be repeated %lld times", i, (long long)repeats.v[i]);
    if (repeats.v[i] == 1) continue;
    if (tt_dim(y, i) == 1) y.ref = ir_broadcast_to(g, y.ref, replaced(y, i, repeats.v[i]));
    else if (tt_rank(y) == TT_MAX_RANK) WRONG("reshape it to fewer axes first", "rank %d has no room", TT_MAX_RANK);
    else y = repeat_axis(y, i, repeats.v[i], true);
  }
  return y;
}

tt_val tt_repeat_interleave_at(tt_here here, tt_val x, int64_t repeats, int axis) {
  OPEN("repeat_interleave", here, x);
  ROOM_FOR_AXIS(x);
  AXIS(i, axis, x);
  if (repeats < 0 || repeats > INT32_MAX) WRONG("give a number of at least 0, within reason", "%lld repeats", (long long)repeats);
  return repeat_axis(x, i, repeats, false);
}

/* With both axes last and made one, the diagonal is a slice of step columns + 1. */
tt_val tt_diagonal_at(tt_here here, tt_val x, int64_t offset, int axis1, int axis2) {
  OPEN("diagonal", here, x);
  AXIS(i, axis1, x);
  AXIS(k, axis2, x);
  if (i == k) WRONG("name two axes", "both axes are %d", i);
  int perm[TT_MAX_RANK], n = 0;
  for (int a = 0; a < tt_rank(x); a++)
    if (a != i && a != k) perm[n++] = a;
  perm[n++] = i;
  perm[n++] = k;
  int64_t rows = tt_dim(x, i), columns = tt_dim(x, k), row = offset < 0 ? -offset : 0, column = offset > 0 ? offset : 0;
  int64_t length = rows - row < columns - column ? rows - row : columns - column;
  if (length < 0) length = 0;
  tt_val y = tt_flatten_at(here, (tt_val){x.trace, ir_permute(g, x.ref, perm)}, n - 2);
  int64_t start = length ? row * columns + column : 0;
  return tt_slice_at(here, y, n - 2, start, length ? start + (length - 1) * (columns + 1) + 1 : start, columns + 1);
}

static tt_val triangle(tt_here here, const char *name, tt_val x, int64_t diagonal, ir_op op) {
  OPEN(name, here, x);
  int rank = tt_rank(x);
  if (rank < 2) WRONG("give [..., rows, columns]", "rank %d is no matrix", rank);
  tt_shape s = TT_SHAPE(tt_dim(x, -2), tt_dim(x, -1));
  ir_ref row = ir_ew2(g, IR_add, ir_iota(g, TT_I64, s, 0), ir_scalar_int(g, TT_I64, diagonal)), column = ir_iota(g, TT_I64, s, 1);
  DONE(ir_select(g, ir_ew2(g, op, column, row), x.ref, ir_like(g, x.ref, 0)));
}
tt_val tt_tril_at(tt_here here, tt_val x, int64_t diagonal) { return triangle(here, "tril", x, diagonal, IR_le); }
tt_val tt_triu_at(tt_here here, tt_val x, int64_t diagonal) { return triangle(here, "triu", x, diagonal, IR_ge); }

tt_val tt_unfold_at(tt_here here, tt_val x, int axis, int64_t size, int64_t step) {
  OPEN("unfold", here, x);
  ROOM_FOR_AXIS(x);
  AXIS(i, axis, x);
  if (size < 1 || step < 1 || size > tt_dim(x, i))
    WRONG("windows must fit, and steps be at least 1", "windows of %lld, step %lld, on axis %d of size %lld", (long long)size, (long long)step, i,
          (long long)tt_dim(x, i));
  DONE(ir_unfold(g, x.ref, i, size, step, 1));
}

tt_val tt_pixel_shuffle_at(tt_here here, tt_val x, int64_t factor) {
  OPEN("pixel_shuffle", here, x);
  if (tt_rank(x) != 4 || factor < 1 || factor > INT16_MAX || tt_dim(x, 1) % (factor * factor))
    WRONG("give [N, C*f*f, H, W]", "a factor of %lld needs rank 4 and a multiple of its square in channels", (long long)factor);
  int64_t f = factor, n = tt_dim(x, 0), c = tt_dim(x, 1) / (f * f), h = tt_dim(x, 2), w = tt_dim(x, 3);
  ir_ref r = ir_reshape(g, x.ref, TT_SHAPE(n, c, f, f, h, w));
  if (r) r = ir_permute(g, r, (const int[]){0, 1, 4, 2, 5, 3});
  DONE(r ? ir_reshape(g, r, TT_SHAPE(n, c, h * f, w * f)) : 0);
}

tt_val tt_pixel_unshuffle_at(tt_here here, tt_val x, int64_t factor) {
  OPEN("pixel_unshuffle", here, x);
  if (tt_rank(x) != 4 || factor < 1 || factor > INT16_MAX || tt_dim(x, 2) % factor || tt_dim(x, 3) % factor)
    WRONG("give [N, C, H*f, W*f]", "a factor of %lld needs rank 4 and multiples of it in height and width", (long long)factor);
  int64_t f = factor, n = tt_dim(x, 0), c = tt_dim(x, 1), h = tt_dim(x, 2) / f, w = tt_dim(x, 3) / f;
  ir_ref r = ir_reshape(g, x.ref, TT_SHAPE(n, c, h, f, w, f));
  if (r) r = ir_permute(g, r, (const int[]){0, 1, 3, 5, 2, 4});
  DONE(r ? ir_reshape(g, r, TT_SHAPE(n, c * f * f, h, w)) : 0);
}
