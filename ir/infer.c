/* infer.c: type and shape of a row from its operands and attributes, for every op of the table, and the message of every
 * mistake that a user can make in one: what, where, and a fix that fits the numbers at hand.
 *
 * infer_NAME(c) reads c->args and attributes, sets c->t and c->s, and returns false after c's mistake is recorded. */
#include "ir.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
  ir_graph *g;
  ir_node row;            /* op, attributes, operands: for ir_int and friends */
  tt_dtype t;
  tt_shape s;
} ctx;

#define FAIL(FIX, ...) return ir_mistake(c->g, (ir_op)c->row.op, c->row.args, c->row.n_args, FIX, __VA_ARGS__) != 0
#define TEXT(...) text((char[300]){0}, __VA_ARGS__)
TT_PRINTF(2, 3) static const char *text(char *to, const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(to, 300, format, list);
  va_end(list);
  return to;
}
#define LL(x) ((long long)(x))
#define NAME(i) ir_label(c->g, c->row.args[i], (char[80]){0}, 80)
#define SHAPE(s) shape_text((char[160]){0}, s)

static const char *shape_text(char *to, const tt_shape *s) {
  tt_type_text(TT_F32, s, to, 160);
  return to + strlen("f32");
}

static const ir_node *arg(const ctx *c, int i) { return ir_at(c->g, c->row.args[i]); }
static tt_shape arg_shape(const ctx *c, int i) { return ir_shape(c->g, c->row.args[i]); }
static const char *type_name(const ctx *c, int i) { return tt_dtype_name(arg(c, i)->dtype); }

static const char *set_text(char *to, int set) {
  to[0] = 0;
  for (int t = 0; t < TT_N_DTYPES; t++)
    if (tt_dtype_in((tt_dtype)t, set)) strcat(strcat(to, *to ? " " : ""), tt_dtype_name((tt_dtype)t));
  return to;
}

/* TT_F32 as it stands in a program. */
static const char *type_constant(char *to, tt_dtype t) {
  snprintf(to, 12, "TT_%s", tt_dtype_name(t));
  for (char *p = to + 3; *p; p++) *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
  return to;
}
#define CONSTANT(t) type_constant((char[12]){0}, t)

/* The element type of argument i is in the set. */
static bool takes(ctx *c, int i, int set) {
  if (tt_dtype_in(arg(c, i)->dtype, set)) return true;
  tt_dtype better = set & 1 << TT_F32 ? TT_F32 : set & 1 << TT_I64 ? TT_I64 : set & 1 << TT_U64 ? TT_U64 : TT_BOOL;
  FAIL(better == TT_BOOL ? TEXT("compare it, say %s != 0", NAME(i)) : TEXT("cast it, say tt_cast(%s, %s)", NAME(i) + 1, CONSTANT(better)),
       "%s of type %s; it takes %s", NAME(i), type_name(c, i), set_text((char[100]){0}, set));
}

/* Arguments i and j have one element type. */
static bool one_type(ctx *c, int i, int j) {
  if (arg(c, i)->dtype == arg(c, j)->dtype) return true;
  FAIL(TEXT("cast one of them, say tt_cast(%s, %s)", NAME(j) + 1, CONSTANT(arg(c, i)->dtype)), "types differ, %s and %s", type_name(c, i), type_name(c, j));
}

static bool one_shape(ctx *c, int i, int j) {
  tt_shape a = arg_shape(c, i), b = arg_shape(c, j);
  if (tt_shape_equal(&a, &b)) return true;
  FAIL(tt_shape_count(&a) == tt_shape_count(&b) ? TEXT("both have %lld elements: reshape %s to %s", LL(tt_shape_count(&a)), NAME(j), SHAPE(&a))
                                                : TEXT("broadcast the smaller one, or make both %s", SHAPE(&a)),
       "shapes differ, %s and %s", SHAPE(&a), SHAPE(&b));
}

/* u64[] or i64[rank] as scalars and starts want it. */
static bool is_exactly(ctx *c, int i, tt_dtype t, int rank, int64_t dim, const char *role) {
  const ir_node *n = arg(c, i);
  if (n->dtype == t && n->rank == rank && (rank == 0 || n->dim[0] == dim)) return true;
  tt_shape is = arg_shape(c, i), want = {.rank = rank, .dim = {dim}};
  FAIL(n->dtype == t ? TEXT("reshape %s to %s", NAME(i), SHAPE(&want)) : TEXT("pass a %s%s", tt_dtype_name(t), SHAPE(&want)), "%s %s is %s%s, not %s%s", role, NAME(i),
       type_name(c, i), SHAPE(&is), tt_dtype_name(t), SHAPE(&want));
}

static bool axis_in(ctx *c, int64_t axis, int rank) {
  if (axis >= 0 && axis < rank) return true;
  if (rank == 0) FAIL("give it a value that has axes", "axis %lld of a scalar", LL(axis));
  FAIL(TEXT("axes go from %d to %d", -rank, rank - 1), "axis %lld of a value that has %d", LL(axis), rank);
}

/* Axes are ascending, each once, all in range. */
static bool axes_in(ctx *c, const int64_t *axes, int n, int rank) {
  for (int i = 0; i < n; i++) {
    if (!axis_in(c, axes[i], rank)) return false;
    if (i && axes[i] == axes[i - 1]) FAIL("name each axis once", "axis %lld is named twice", LL(axes[i]));
    if (i && axes[i] < axes[i - 1]) FAIL("sort them", "axes are not in ascending order");
  }
  return true;
}

static bool flag(ctx *c, const char *name) {
  int64_t v = ir_int(&c->row, name);
  if (v == 0 || v == 1) return true;
  FAIL("pass 0 or 1", "%s is %lld", name, LL(v));
}

static bool at_least(ctx *c, const char *name, int64_t v, int64_t least) {
  if (v >= least) return true;
  FAIL(TEXT("%s must be %lld or more", name, LL(least)), "%s is %lld", name, LL(v));
}

/* The list `name` has n entries, each at least `least`. */
static bool list_of(ctx *c, const char *name, int n, int64_t least, const int64_t **values) {
  int count;
  *values = ir_ints(&c->row, name, &count);
  if (count != n) FAIL(TEXT("give %d", n), "%s has %d numbers for %d axes", name, count, n);
  for (int i = 0; i < n; i++)
    if ((*values)[i] < least) FAIL(TEXT("each must be %lld or more", LL(least)), "%s[%d] is %lld", name, i, LL((*values)[i]));
  return true;
}

static bool like(ctx *c, int i) { return c->t = arg(c, i)->dtype, c->s = arg_shape(c, i), true; }

/* v = a*b + d, or false. */
static bool size_of(int64_t *v, int64_t a, int64_t b, int64_t d) { return !__builtin_mul_overflow(a, b, v) && !__builtin_add_overflow(*v, d, v); }

/* Number of windows over `length` elements; the window must fit. */
static bool windows(ctx *c, int64_t length, int64_t size, int64_t stride, int64_t dilation, int axis, int64_t *n) {
  int64_t extent;
  if (!size_of(&extent, size - 1, dilation, 1) || extent > length)
    FAIL("make the window smaller, or pad more", "a window of %lld elements, dilation %lld, does not fit into the %lld of axis %d", LL(size), LL(dilation), LL(length), axis);
  return *n = (length - extent) / stride + 1, true;
}

/* ---- leaves ---- */

static bool leaf(ctx *c) {
  int rank;
  const int64_t *dims = ir_ints(&c->row, "shape", &rank);
  c->t = (tt_dtype)ir_int(&c->row, "dtype");
  c->s = (tt_shape){.rank = rank};
  for (int i = 0; i < rank; i++) {
    c->s.dim[i] = dims[i];
    if (dims[i] < 0) FAIL("give sizes of 0 or more", "dimension %d is %lld", i, LL(dims[i]));
  }
  int set = ir_ops[c->row.op].takes;
  if (!tt_dtype_in(c->t, set)) FAIL(TEXT("use one of: %s", set_text((char[100]){0}, set)), "element type %s", tt_dtype_name(c->t));
  return true;
}

static bool named_leaf(ctx *c) {
  if (!leaf(c)) return false;
  if (!*ir_str(&c->row, "name")) FAIL("give it a name", "it has no name");
  return true;
}

static bool infer_input(ctx *c) { return named_leaf(c); }

static bool infer_param(ctx *c) {
  if (!named_leaf(c) || !flag(c, "trainable")) return false;
  if (ir_int(&c->row, "trainable") && !tt_dtype_in(c->t, TT_REAL))
    FAIL("make it f32, or declare it as state, which is not trained", "%s of type %s can not be trained: it has no gradient", ir_str(&c->row, "name"), tt_dtype_name(c->t));
  return true;
}

static bool infer_const(ctx *c) {
  if (!leaf(c)) return false;
  size_t bytes = c->g->blobs[ir_int(&c->row, "value")].bytes;
  int64_t n = tt_shape_count(&c->s);
  if (bytes / tt_dtype_size(c->t) != (size_t)n || bytes % tt_dtype_size(c->t)) FAIL(TEXT("give %lld elements", LL(n)), "%zu bytes of data for %s%s", bytes, tt_dtype_name(c->t), SHAPE(&c->s));
  return true;
}

static bool infer_iota(ctx *c) { return leaf(c) && axis_in(c, ir_int(&c->row, "axis"), c->s.rank); }

static bool infer_random(ctx *c) {
  int rank;
  const int64_t *dims, stream = ir_int(&c->row, "stream");
  if (!is_exactly(c, 0, TT_U64, 0, 0, "seed") || !is_exactly(c, 1, TT_U64, 0, 0, "step")) return false;
  ir_ints(&c->row, "shape", &rank);
  if (!list_of(c, "shape", rank, 0, &dims)) return false;
  if (stream < 0 || stream > UINT32_MAX) FAIL("take a number from 0 to 4294967295", "stream is %lld", LL(stream));
  c->t = TT_U16;
  c->s.rank = rank;
  memcpy(c->s.dim, dims, (size_t)rank * sizeof *dims);
  return true;
}

/* ---- elementwise ---- */

static bool elementwise(ctx *c) {
  const ir_op_info *info = &ir_ops[c->row.op];
  for (int i = 1; i < info->arity; i++)
    if (!one_type(c, 0, i)) return false;
  if (!takes(c, 0, info->takes)) return false;
  for (int i = 1; i < info->arity; i++)
    if (!one_shape(c, 0, i)) return false;
  like(c, 0);
  if (info->gives_bool) c->t = TT_BOOL;
  return true;
}

static bool infer_select(ctx *c) { return takes(c, 0, TT_BOOLEAN) && one_type(c, 1, 2) && one_shape(c, 1, 2) && one_shape(c, 1, 0) && like(c, 1); }
static bool infer_cast(ctx *c) { return like(c, 0), c->t = (tt_dtype)ir_int(&c->row, "dtype"), true; }
static bool infer_stop_gradient(ctx *c) { return like(c, 0); }

static bool infer_bitcast(ctx *c) {
  tt_dtype from = arg(c, 0)->dtype, to = (tt_dtype)ir_int(&c->row, "dtype");
  if (tt_dtype_size(from) != tt_dtype_size(to)) FAIL(TEXT("cast converts values: tt_cast(%s, %s)", NAME(0) + 1, CONSTANT(to)), "%s and %s differ in width", tt_dtype_name(from), tt_dtype_name(to));
  if (to == TT_BOOL && from != TT_BOOL) FAIL(TEXT("compare it, say %s != 0", NAME(0)), "a bool is 0 or 1, and the bits of %s are not", tt_dtype_name(from));
  return like(c, 0), c->t = to, true;
}

/* ---- movement ---- */

static bool infer_reshape(ctx *c) {
  int rank;
  const int64_t *dims;
  ir_ints(&c->row, "shape", &rank);
  if (!list_of(c, "shape", rank, 0, &dims)) return false;
  tt_shape from = arg_shape(c, 0);
  c->t = arg(c, 0)->dtype;
  c->s.rank = rank;
  memcpy(c->s.dim, dims, (size_t)rank * sizeof *dims);
  int64_t n = tt_shape_count(&from), m = tt_shape_count(&c->s);
  if (n != m) FAIL(TEXT("sizes must multiply to %lld; one of them may be -1", LL(n)), "%s has %lld elements, %s has %lld", SHAPE(&from), LL(n), SHAPE(&c->s), LL(m));
  return true;
}

static bool infer_permute(ctx *c) {
  const int64_t *perm;
  tt_shape a = arg_shape(c, 0);
  if (!list_of(c, "perm", a.rank, INT64_MIN, &perm)) return false;
  unsigned seen = 0;
  c->t = arg(c, 0)->dtype;
  c->s.rank = a.rank;
  for (int i = 0; i < a.rank; i++) {
    if (!axis_in(c, perm[i], a.rank)) return false;
    if (seen >> perm[i] & 1) FAIL(TEXT("name each of 0 to %d once", a.rank - 1), "axis %lld is named twice", LL(perm[i]));
    seen |= 1u << perm[i];
    c->s.dim[i] = a.dim[perm[i]];
  }
  return true;
}

static bool infer_broadcast(ctx *c) {
  int rank;
  const int64_t *dims, *shape;
  tt_shape a = arg_shape(c, 0);
  ir_ints(&c->row, "shape", &rank);
  if (!list_of(c, "shape", rank, 0, &shape) || !list_of(c, "dims", a.rank, INT64_MIN, &dims) || !axes_in(c, dims, a.rank, rank)) return false;
  c->t = arg(c, 0)->dtype;
  c->s.rank = rank;
  memcpy(c->s.dim, shape, (size_t)rank * sizeof *shape);
  for (int i = 0; i < a.rank; i++)
    if (a.dim[i] != 1 && a.dim[i] != shape[dims[i]])
      FAIL(TEXT("axes that are to be repeated must be 1: reshape %s, or choose another axis", NAME(0)), "axis %d has %lld elements, axis %lld of %s has %lld", i, LL(a.dim[i]), LL(dims[i]), SHAPE(&c->s), LL(shape[dims[i]]));
  return true;
}

static bool infer_slice(ctx *c) {
  const int64_t *start, *stop, *step;
  like(c, 0);
  if (!list_of(c, "start", c->s.rank, INT64_MIN, &start) || !list_of(c, "stop", c->s.rank, INT64_MIN, &stop) || !list_of(c, "step", c->s.rank, 1, &step)) return false;
  for (int i = 0; i < c->s.rank; i++) {
    if (start[i] < 0 || stop[i] < start[i] || stop[i] > c->s.dim[i])
      FAIL(TEXT("0 <= start <= stop <= %lld on this axis", LL(c->s.dim[i])), "%lld to %lld of the %lld elements of axis %d", LL(start[i]), LL(stop[i]), LL(c->s.dim[i]), i);
    int64_t d = stop[i] - start[i];
    c->s.dim[i] = d / step[i] + (d % step[i] != 0);
  }
  return true;
}

static bool infer_pad(ctx *c) {
  const int64_t *lo, *hi, *interior;
  if (!one_type(c, 0, 1) || !is_exactly(c, 1, arg(c, 0)->dtype, 0, 0, "the value to pad with")) return false;
  like(c, 0);
  if (!list_of(c, "lo", c->s.rank, 0, &lo) || !list_of(c, "hi", c->s.rank, 0, &hi) || !list_of(c, "interior", c->s.rank, 0, &interior)) return false;
  for (int i = 0; i < c->s.rank; i++) {
    int64_t d = c->s.dim[i], *r = &c->s.dim[i];
    if (!size_of(r, d ? d - 1 : 0, interior[i], d) || !size_of(r, *r, 1, lo[i]) || !size_of(r, *r, 1, hi[i])) FAIL("pad less", "axis %d becomes too long to count", i);
  }
  return true;
}

static bool infer_concat(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis");
  like(c, 0);
  if (!axis_in(c, axis, c->s.rank)) return false;
  for (uint32_t k = 1; k < c->row.n_args; k++) {
    tt_shape a = arg_shape(c, 0), b = arg_shape(c, (int)k), d = b;
    if (!one_type(c, 0, (int)k)) return false;
    if (b.rank == a.rank) d.dim[axis] = a.dim[axis];
    if (!tt_shape_equal(&a, &d)) FAIL(TEXT("shapes must be equal but at axis %lld", LL(axis)), "%s is %s, %s is %s", NAME(0), SHAPE(&a), NAME((int)k), SHAPE(&b));
    if (!size_of(&c->s.dim[axis], c->s.dim[axis], 1, b.dim[axis])) FAIL("join less", "axis %lld becomes too long to count", LL(axis));
  }
  return true;
}

static bool infer_reverse(ctx *c) {
  int n;
  const int64_t *axes = ir_ints(&c->row, "axes", &n);
  return like(c, 0) && axes_in(c, axes, n, c->s.rank);
}

static bool window_attrs(ctx *c) {
  return at_least(c, "stride", ir_int(&c->row, "stride"), 1) && at_least(c, "dilation", ir_int(&c->row, "dilation"), 1);
}

static bool infer_unfold(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis"), size = ir_int(&c->row, "size");
  like(c, 0);
  if (!axis_in(c, axis, c->s.rank) || !at_least(c, "size", size, 1) || !window_attrs(c)) return false;
  if (c->s.rank == TT_MAX_RANK) FAIL("reshape it to fewer axes first", "the windows would be axis %d, and a value has at most %d", c->s.rank + 1, TT_MAX_RANK);
  c->s.dim[c->s.rank++] = size;
  return windows(c, c->s.dim[axis], size, ir_int(&c->row, "stride"), ir_int(&c->row, "dilation"), (int)axis, &c->s.dim[axis]);
}

static bool infer_fold(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis"), length = ir_int(&c->row, "length"), n;
  like(c, 0);
  if (c->s.rank < 2) FAIL("pass what unfold gave: its last axis is the window", "%s has %d axes; it takes windows", NAME(0), c->s.rank);
  if (!takes(c, 0, ir_ops[IR_fold].takes) || !axis_in(c, axis, c->s.rank - 1) || !at_least(c, "length", length, 0) || !window_attrs(c)) return false;
  int64_t size = c->s.dim[--c->s.rank];
  if (!at_least(c, "the size of the last axis", size, 1) || !windows(c, length, size, ir_int(&c->row, "stride"), ir_int(&c->row, "dilation"), (int)axis, &n)) return false;
  if (n != c->s.dim[axis]) FAIL("pass what unfold took: its length, stride and dilation", "%lld elements have %lld windows, axis %lld has %lld", LL(length), LL(n), LL(axis), LL(c->s.dim[axis]));
  return c->s.dim[axis] = length, true;
}

/* ---- reductions ---- */

static bool reduction(ctx *c) {
  int n, rank = 0;
  const int64_t *axes = ir_ints(&c->row, "axes", &n);
  tt_shape a = arg_shape(c, 0);
  if (!takes(c, 0, ir_ops[c->row.op].takes) || !axes_in(c, axes, n, a.rank)) return false;
  c->t = arg(c, 0)->dtype;
  for (int i = 0, k = 0; i < a.rank; i++)
    if (k < n && axes[k] == i) k++;
    else c->s.dim[rank++] = a.dim[i];
  return c->s.rank = rank, true;
}
static bool infer_sum(ctx *c) { return reduction(c); }
static bool infer_prod(ctx *c) { return reduction(c); }
static bool infer_amax(ctx *c) { return reduction(c); }
static bool infer_amin(ctx *c) { return reduction(c); }

static bool arg_reduction(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis");
  like(c, 0);
  if (!axis_in(c, axis, c->s.rank)) return false;
  if (!c->s.dim[axis]) FAIL("give it at least one element there", "axis %lld is empty: there is no such element", LL(axis));
  for (int i = (int)axis; i + 1 < c->s.rank; i++) c->s.dim[i] = c->s.dim[i + 1];
  c->s.rank--;
  return c->t = TT_I64, true;
}
static bool infer_argmax(ctx *c) { return arg_reduction(c); }
static bool infer_argmin(ctx *c) { return arg_reduction(c); }

static bool infer_cumsum(ctx *c) {
  return takes(c, 0, ir_ops[IR_cumsum].takes) && like(c, 0) && axis_in(c, ir_int(&c->row, "axis"), c->s.rank) && flag(c, "exclusive") && flag(c, "reversed");
}

/* ---- contractions ---- */

/* A first axis of S partial sums, when S > 1; S divides the summed size. */
static bool split(ctx *c, int64_t summed) {
  int64_t parts = ir_int(&c->row, "split");
  if (!at_least(c, "split", parts, 1)) return false;
  if (parts == 1) return true;
  if (summed % parts) FAIL("take a divisor", "split=%lld does not divide the %lld elements summed over", LL(parts), LL(summed));
  if (c->s.rank == TT_MAX_RANK) FAIL("reshape it to fewer axes first", "the partial sums would be axis %d", c->s.rank + 1);
  memmove(c->s.dim + 1, c->s.dim, (size_t)c->s.rank++ * sizeof *c->s.dim);
  return c->s.dim[0] = parts, true;
}

static bool infer_matmul(ctx *c) {
  tt_shape a = arg_shape(c, 0), b = arg_shape(c, 1);
  if (!one_type(c, 0, 1) || !takes(c, 0, ir_ops[IR_matmul].takes) || !flag(c, "ta") || !flag(c, "tb")) return false;
  bool ta = ir_int(&c->row, "ta"), tb = ir_int(&c->row, "tb");
  for (int i = 0; i < 2; i++)
    if (arg_shape(c, i).rank < 2) FAIL(TEXT("reshape %s to a matrix of one row or one column", NAME(i)), "%s has %d axes, a matrix has 2", NAME(i), arg_shape(c, i).rank);
  if (a.rank != b.rank) FAIL("give both the same leading axes: reshape, or broadcast one of them", "%d axes and %d", a.rank, b.rank);
  int r = a.rank;
  for (int i = 0; i < r - 2; i++)
    if (a.dim[i] != b.dim[i]) FAIL("leading axes are a batch: make them equal", "batch sizes of axis %d differ, %lld and %lld", i, LL(a.dim[i]), LL(b.dim[i]));
  int64_t m = a.dim[r - 2 + ta], k = a.dim[r - 1 - ta], k2 = b.dim[r - 2 + tb], n = b.dim[r - 1 - tb];
  if (k != k2) {
    if (k == n) FAIL(TEXT("%s looks transposed; pass tt_transpose(%s, %d, %d)", NAME(1), NAME(1) + 1, r - 2, r - 1), "inner sizes differ, %lld and %lld", LL(k), LL(k2));
    if (m == k2) FAIL(TEXT("%s looks transposed; pass tt_transpose(%s, %d, %d)", NAME(0), NAME(0) + 1, r - 2, r - 1), "inner sizes differ, %lld and %lld", LL(k), LL(k2));
    FAIL(TEXT("make %s take %lld rows, or %s give %lld columns", NAME(1), LL(k), NAME(0), LL(k2)), "inner sizes differ, %lld and %lld", LL(k), LL(k2));
  }
  c->t = arg(c, 0)->dtype;
  c->s = a;
  c->s.dim[r - 2] = m;
  c->s.dim[r - 1] = n;
  return split(c, k);
}

static bool infer_conv(ctx *c) {
  tt_shape x = arg_shape(c, 0), w = arg_shape(c, 1);
  const int64_t *stride, *lo, *hi, *dilation, *x_dilation;
  int n = x.rank - 3;
  if (!one_type(c, 0, 1) || !takes(c, 0, ir_ops[IR_conv].takes)) return false;
  if (n < 1 || n > 3) FAIL("reshape it to [N, groups, C, ...]", "%s has %d axes; it takes [N, groups, C] and 1 to 3 spatial ones", NAME(0), x.rank);
  if (w.rank != x.rank) FAIL("weights are [groups, O, C, ...] with one size for each spatial axis", "%s has %d axes and %s has %d", NAME(0), x.rank, NAME(1), w.rank);
  if (x.dim[1] != w.dim[0]) FAIL("make them equal", "%lld groups of channels in %s, %lld in %s", LL(x.dim[1]), NAME(0), LL(w.dim[0]), NAME(1));
  if (x.dim[2] != w.dim[2]) FAIL(TEXT("make the weights take %lld channels", LL(x.dim[2])), "channels differ, %lld in %s and %lld in %s", LL(x.dim[2]), NAME(0), LL(w.dim[2]), NAME(1));
  if (!list_of(c, "stride", n, 1, &stride) || !list_of(c, "lo", n, 0, &lo) || !list_of(c, "hi", n, 0, &hi) || !list_of(c, "dilation", n, 1, &dilation)
      || !list_of(c, "x_dilation", n, 1, &x_dilation)) return false;
  c->t = arg(c, 0)->dtype;
  c->s = (tt_shape){.rank = x.rank, .dim = {x.dim[0], x.dim[1], w.dim[1]}};
  for (int i = 0; i < n; i++) {
    int64_t d = x.dim[3 + i], k = w.dim[3 + i];
    if (!at_least(c, TEXT("the size of the weights' axis %d", 3 + i), k, 1)) return false;
    if (d && !size_of(&d, d - 1, x_dilation[i], 1)) FAIL("dilate less", "axis %d becomes too long to count", 3 + i);
    if (!size_of(&d, d, 1, lo[i]) || !size_of(&d, d, 1, hi[i])) FAIL("pad less", "axis %d becomes too long to count", 3 + i);
    if (!windows(c, d, k, stride[i], dilation[i], 3 + i, &c->s.dim[3 + i])) return false;
  }
  int64_t tile = ir_int(&c->row, "winograd");
  if (tile != 0 && tile != 4) FAIL("take 0 or 4", "winograd=%lld", LL(tile));
  return split(c, x.dim[2]);
}

static bool infer_winograd(ctx *c) {
  tt_shape x = arg_shape(c, 0), u = arg_shape(c, 1);
  const int64_t *size;
  int64_t tile = ir_int(&c->row, "tile"), a = tile + 2;
  if (!one_type(c, 0, 1) || !takes(c, 0, ir_ops[IR_winograd].takes) || !list_of(c, "size", 3, 0, &size)) return false;
  if (tile != 2 && tile != 4) FAIL("take 2 or 4", "tile=%lld", LL(tile));
  if (x.rank != 5 || x.dim[1] != 1) FAIL("reshape it to [N, 1, C, X, Y]", "%s is %s", NAME(0), SHAPE(&x));
  if (u.rank != 4 || u.dim[1] != a * a || u.dim[2] != x.dim[2]) FAIL(TEXT("make it [P, %lld, %lld, L]", LL(a * a), LL(x.dim[2])), "%s is %s", NAME(1), SHAPE(&u));
  if (size[0] > u.dim[0] * u.dim[3]) FAIL("give it more panels", "%s has %lld output channels, size asks for %lld", NAME(1), LL(u.dim[0] * u.dim[3]), LL(size[0]));
  for (int i = 1; i < 3; i++) {
    int64_t tiles = size[i] / tile + (size[i] % tile != 0);
    if (x.dim[2 + i] < 2 || x.dim[2 + i] - 2 != tiles * tile) FAIL("pad it to whole tiles and 2 more", "axis %d of %s is %lld long, which is not that of %lld results in tiles of %lld", 2 + i, NAME(0), LL(x.dim[2 + i]), LL(size[i]), LL(tile));
  }
  c->t = arg(c, 0)->dtype;
  c->s = (tt_shape){.rank = 5, .dim = {x.dim[0], 1, size[0], size[1], size[2]}};
  return true;
}

/* q [*,H,T,D], k [*,G,S,D], v [*,G,S,E], for derivatives dy [*,H,T,E], lse and delta [*,H,T]; then mask and length. */
static bool attention(ctx *c) {
  ir_op op = (ir_op)c->row.op;
  int first = ir_attention_first(op);
  if (!flag(c, "causal") || !flag(c, "mask") || !flag(c, "length")) return false;
  bool mask = ir_int(&c->row, "mask"), length = ir_int(&c->row, "length");
  uint32_t wanted = (uint32_t)(first + mask + length);
  if (c->row.n_args != wanted) FAIL(TEXT("give %u", wanted), "%u operands", c->row.n_args);
  tt_shape q = arg_shape(c, 0), k = arg_shape(c, 1), v = arg_shape(c, 2), rows = q;
  int r = q.rank;
  if (!takes(c, 0, ir_ops[op].takes) || !one_type(c, 0, 1) || !one_type(c, 0, 2)) return false;
  if (r < 2 || k.rank != r || v.rank != r) FAIL("give q [*,H,T,D], k [*,G,S,D], v [*,G,S,E]", "q is %s, k %s and v %s", SHAPE(&q), SHAPE(&k), SHAPE(&v));
  if (q.dim[r - 1] != k.dim[r - 1]) FAIL("make them equal", "rows of q have %lld numbers, those of k %lld", LL(q.dim[r - 1]), LL(k.dim[r - 1]));
  if (k.dim[r - 2] != v.dim[r - 2]) FAIL("make them equal", "k has %lld rows and v %lld", LL(k.dim[r - 2]), LL(v.dim[r - 2]));
  for (int i = 0; i < r - 2; i++) {
    bool shared = i == r - 3 && k.dim[i] > 0 && q.dim[i] % k.dim[i] == 0;
    if (k.dim[i] != v.dim[i] || (q.dim[i] != k.dim[i] && !shared))
      FAIL(i == r - 3 ? "the heads of q are a multiple of those of k and v" : "leading axes must be equal", "axis %d is %lld, %lld and %lld", i, LL(q.dim[i]), LL(k.dim[i]), LL(v.dim[i]));
  }
  rows.rank--;
  if (first == 6) {
    tt_shape dy = arg_shape(c, 3), want = q;
    want.dim[r - 1] = v.dim[r - 1];
    if (!one_type(c, 0, 3) || !one_type(c, 0, 4) || !one_type(c, 0, 5)) return false;
    if (!tt_shape_equal(&dy, &want)) FAIL(TEXT("make it %s", SHAPE(&want)), "dy is %s", SHAPE(&dy));
    for (int i = 4; i < 6; i++) {
      tt_shape s = arg_shape(c, i);
      if (!tt_shape_equal(&s, &rows)) FAIL(TEXT("make it %s", SHAPE(&rows)), "%s is %s", NAME(i), SHAPE(&s));
    }
  }
  if (mask) {
    tt_shape m = arg_shape(c, first), all = q;
    all.dim[r - 1] = k.dim[r - 2];
    bool fits = m.rank == r;
    for (int i = 0; fits && i < r; i++) fits = m.dim[i] == 1 || m.dim[i] == all.dim[i];
    if (!fits) FAIL(TEXT("make it %s, or axes of it 1", SHAPE(&all)), "the mask is %s", SHAPE(&m));
    if (arg(c, first)->dtype != TT_BOOL && !one_type(c, 0, first)) return false;
  }
  if (length && !is_exactly(c, first + mask, TT_I64, 0, 0, "length")) return false;
  c->t = arg(c, 0)->dtype;
  c->s = op == IR_attention_lse ? rows : op == IR_attention_dk ? k : op == IR_attention_dv ? v : q;
  if (op == IR_attention) c->s.dim[r - 1] = v.dim[r - 1];
  return true;
}
static bool infer_attention(ctx *c) { return attention(c); }
static bool infer_attention_lse(ctx *c) { return attention(c); }
static bool infer_attention_dq(ctx *c) { return attention(c); }
static bool infer_attention_dk(ctx *c) { return attention(c); }
static bool infer_attention_dv(ctx *c) { return attention(c); }

/* ---- index ---- */

/* Argument k is argument 0 with another size at the axis. */
static bool equal_but_at(ctx *c, int k, int64_t axis) {
  tt_shape x = arg_shape(c, 0), i = arg_shape(c, k), d = i;
  if (i.rank == x.rank) d.dim[axis] = x.dim[axis];
  if (tt_shape_equal(&x, &d)) return true;
  FAIL(TEXT("broadcast %s: shapes must be equal but at axis %lld", NAME(k), LL(axis)), "%s is %s, %s is %s", NAME(0), SHAPE(&x), NAME(k), SHAPE(&i));
}

static bool infer_gather(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis");
  return axis_in(c, axis, arg(c, 0)->rank) && takes(c, 1, TT_INT) && equal_but_at(c, 1, axis) && like(c, 1) && (c->t = arg(c, 0)->dtype, true);
}

static bool infer_scatter_add(ctx *c) {
  int64_t axis = ir_int(&c->row, "axis");
  return takes(c, 0, ir_ops[IR_scatter_add].takes) && axis_in(c, axis, arg(c, 0)->rank) && takes(c, 1, TT_INT) && one_type(c, 0, 2) && one_shape(c, 2, 1) && equal_but_at(c, 2, axis)
      && like(c, 0);
}

static bool infer_argsort(ctx *c) {
  return like(c, 0) && axis_in(c, ir_int(&c->row, "axis"), c->s.rank) && flag(c, "descending") && (c->t = TT_I64, true);
}

/* Leaf i of the body is argument i, without its first axis where that is an axis of steps. */
static bool infer_scan(ctx *c) {
  const ir_graph *body = ir_scan_body(c->g, &c->row);
  ir_scan_attrs a = ir_scan_of(&c->row);
  if (a.carries < 0 || a.xs < 0 || a.length < 0 || a.carries > c->row.n_args || a.xs > c->row.n_args - a.carries)
    FAIL("give the carries, then xs, then the rest", "%lld carries and %lld xs of %lld steps, but %u arguments", LL(a.carries), LL(a.xs), LL(a.length), c->row.n_args);
  if (body->depth >= IR_MAX_DEPTH) FAIL("unroll the innermost loop", "scans stand in each other more than %d deep", IR_MAX_DEPTH);
  if (!flag(c, "reversed")) return false;
  uint32_t i = 0;
  for (ir_ref r = 1; r < body->n_nodes; r++) {
    const ir_node *leaf = ir_at(body, r);
    if (leaf->op != IR_input && leaf->op != IR_param) continue;
    if (i >= c->row.n_args) FAIL("give an argument for each of them", "@%s has more than %u leaves", body->name, i);
    tt_shape want = ir_shape(body, r), have = arg_shape(c, (int)i);
    char need[160];
    if ((leaf->op == IR_param) != (i < a.carries)) FAIL("let it have the carries first, as states, then inputs", "leaf %u of @%s is %s", i, body->name, leaf->op == IR_param ? "a state" : "an input");
    if (i >= a.carries && i < a.carries + a.xs) {
      if (want.rank == TT_MAX_RANK) FAIL("scan over values of fewer axes", "leaf %u of @%s has %d axes, and its steps need another", i, body->name, want.rank);
      memmove(want.dim + 1, want.dim, (size_t)want.rank * sizeof *want.dim);
      want.dim[0] = a.length, want.rank++;
    }
    if (leaf->dtype != arg(c, (int)i)->dtype || !tt_shape_equal(&want, &have)) FAIL(TEXT("give %s", tt_type_text((tt_dtype)leaf->dtype, &want, need, sizeof need)), "argument %u does not fit what @%s takes", i, body->name);
    if (leaf->op == IR_param && !ir_next_value(body, r)) FAIL("assign it", "@%s gives carry %u no next value", body->name, i);
    i++;
  }
  if (i != c->row.n_args) FAIL("leave out what the body does not take", "@%s has %u leaves, but there are %u arguments", body->name, i, c->row.n_args);
  if (a.result < 0 || a.result >= a.carries + (int64_t)body->n_outputs) FAIL("name one that there is", "@%s gives %lld results, not one of number %lld", body->name, LL(a.carries) + body->n_outputs, LL(a.result));
  ir_ref from = a.result < a.carries ? ir_leaf(body, (uint32_t)a.result) : body->outputs[a.result - a.carries].value;
  c->t = (tt_dtype)ir_at(body, from)->dtype;
  c->s = ir_shape(body, from);
  if (a.result < a.carries) return true;
  if (c->s.rank == TT_MAX_RANK) FAIL("return values of fewer axes", "output %lld of @%s has %d axes, and its steps need another", LL(a.result - a.carries), body->name, c->s.rank);
  memmove(c->s.dim + 1, c->s.dim, (size_t)c->s.rank * sizeof *c->s.dim);
  c->s.dim[0] = a.length, c->s.rank++;
  return true;
}

static bool infer_dynamic_slice(ctx *c) {
  const int64_t *sizes;
  like(c, 0);
  if (!is_exactly(c, 1, TT_I64, 1, c->s.rank, "start") || !list_of(c, "sizes", c->s.rank, 0, &sizes)) return false;
  for (int i = 0; i < c->s.rank; i++) {
    if (sizes[i] > c->s.dim[i]) FAIL(TEXT("take at most %lld", LL(c->s.dim[i])), "sizes[%d] is %lld, axis %d has %lld elements", i, LL(sizes[i]), i, LL(c->s.dim[i]));
    c->s.dim[i] = sizes[i];
  }
  return true;
}

static bool infer_dynamic_update_slice(ctx *c) {
  const ir_node *u = arg(c, 1);
  like(c, 0);
  if (!one_type(c, 0, 1) || !is_exactly(c, 2, TT_I64, 1, c->s.rank, "start")) return false;
  if (u->rank != c->s.rank) FAIL(TEXT("reshape %s to %d axes", NAME(1), c->s.rank), "%s has %d axes, %s has %d", NAME(0), c->s.rank, NAME(1), u->rank);
  for (int i = 0; i < c->s.rank; i++)
    if (u->dim[i] > c->s.dim[i]) FAIL(TEXT("take at most %lld", LL(c->s.dim[i])), "axis %d of %s has %lld elements, of %s %lld", i, NAME(1), LL(u->dim[i]), NAME(0), LL(c->s.dim[i]));
  return true;
}

static bool infer_assign(ctx *c) {
  if (arg(c, 0)->op != IR_param) FAIL("declare it as state", "%s is not a param", NAME(0));
  return one_type(c, 0, 1) && one_shape(c, 0, 1) && like(c, 0);
}

/* ---- composites ---- */

static bool real(ctx *c) { return takes(c, 0, ir_ops[c->row.op].takes) && like(c, 0); }
static bool infer_softmax(ctx *c) { return real(c) && axis_in(c, ir_int(&c->row, "axis"), c->s.rank); }
static bool infer_log_softmax(ctx *c) { return infer_softmax(c); }
static bool infer_gelu(ctx *c) { return real(c) && flag(c, "tanh"); }
static bool infer_silu(ctx *c) { return real(c); }

static bool infer_layer_norm(ctx *c) {
  int64_t axes = ir_int(&c->row, "axes");
  double eps = ir_float(&c->row, "eps");
  if (!real(c)) return false;
  if (axes < 1 || axes > c->s.rank) FAIL(TEXT("normalize over the last 1 to %d", c->s.rank), "%lld axes of a value that has %d", LL(axes), c->s.rank);
  if (!(eps >= 0)) FAIL("1e-5 is usual", "eps is %g", eps);
  tt_shape tail = {.rank = (int)axes};
  for (int i = 0; i < tail.rank; i++) tail.dim[i] = c->s.dim[c->s.rank - tail.rank + i];
  for (int k = 1; k < 3; k++) {
    tt_shape w = arg_shape(c, k);
    if (!one_type(c, 0, k)) return false;
    if (!tt_shape_equal(&w, &tail)) FAIL(TEXT("make it %s", SHAPE(&tail)), "%s %s is %s, the axes normalized over are %s", k == 1 ? "weight" : "bias", NAME(k), SHAPE(&w), SHAPE(&tail));
  }
  return true;
}

static bool batch_of(ctx *c) {
  if (!real(c)) return false;
  if (c->s.rank < 2) FAIL("give [N, C, ...]", "%s has %d axes", NAME(0), c->s.rank);
  return true;
}
static bool infer_batch_mean(ctx *c) { return batch_of(c) && (c->s = (tt_shape){1, {c->s.dim[1]}}, true); }
static bool infer_batch_var(ctx *c) { return infer_batch_mean(c); }
static bool infer_batch_norm(ctx *c) {
  double eps = ir_float(&c->row, "eps");
  if (!batch_of(c)) return false;
  if (!(eps >= 0)) FAIL("1e-5 is usual", "eps is %g", eps);
  tt_shape channels = {1, {c->s.dim[1]}};
  for (int k = 1; k < 3; k++) {
    tt_shape w = arg_shape(c, k);
    if (!one_type(c, 0, k)) return false;
    if (!tt_shape_equal(&w, &channels)) FAIL(TEXT("make it %s", SHAPE(&channels)), "%s %s is %s, the channels are %s", k == 1 ? "weight" : "bias", NAME(k), SHAPE(&w), SHAPE(&channels));
  }
  return true;
}

static bool infer_dropout(ctx *c) {
  double p = ir_float(&c->row, "p");
  int64_t stream = ir_int(&c->row, "stream");
  if (!real(c) || !is_exactly(c, 1, TT_U64, 0, 0, "seed") || !is_exactly(c, 2, TT_U64, 0, 0, "step")) return false;
  if (!(p >= 0 && p < 1)) FAIL("take 0 <= p < 1", "p is %g", p);
  if (stream < 0 || stream > UINT32_MAX) FAIL("take a number from 0 to 4294967295", "stream is %lld", LL(stream));
  return true;
}

static bool pool(ctx *c, bool dilated) {
  const int64_t *size, *stride, *lo, *hi, *dilation = NULL;
  if (!real(c)) return false;
  int n = c->s.rank - 2;
  if (n < 1 || n > 3) FAIL("reshape it to [N, C, ...]", "%s has %d axes; it takes [N, C] and 1 to 3 spatial ones", NAME(0), c->s.rank);
  if (!list_of(c, "size", n, 1, &size) || !list_of(c, "stride", n, 1, &stride) || !list_of(c, "lo", n, 0, &lo) || !list_of(c, "hi", n, 0, &hi) || (dilated && !list_of(c, "dilation", n, 1, &dilation)))
    return false;
  for (int i = 0; i < n; i++) {
    int64_t extent, d = c->s.dim[2 + i];
    if (!size_of(&extent, size[i] - 1, dilated ? dilation[i] : 1, 1) || extent > INT64_MAX / 4) FAIL("make it smaller", "the window of axis %d is too long to count", 2 + i);
    if (lo[i] >= extent || hi[i] >= extent) FAIL("pad less than the window's size, so that every window has an element", "padding %lld and %lld of a window of %lld", LL(lo[i]), LL(hi[i]), LL(extent));
    if (!size_of(&d, d, 1, lo[i] + hi[i])) FAIL("pad less", "axis %d becomes too long to count", 2 + i);
    if (!windows(c, d, size[i], stride[i], dilated ? dilation[i] : 1, 2 + i, &c->s.dim[2 + i])) return false;
  }
  return true;
}
static bool infer_max_pool(ctx *c) { return pool(c, true); }
static bool infer_avg_pool(ctx *c) { return pool(c, false) && flag(c, "count_pad"); }

bool ir_infer(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, tt_dtype *dtype, tt_shape *shape) {
  static bool (*const table[IR_N_OPS])(ctx *) = {
#define EW(NAME, ...) [IR_##NAME] = elementwise,
#define OP(NAME, ...) [IR_##NAME] = infer_##NAME,
#define COMPOSITE(NAME, ...) [IR_##NAME] = infer_##NAME,
#include "ops.def"
  };
  ctx context = {.g = g, .row = {.op = (uint16_t)op, .args = args, .n_args = n_args, .words = words, .n_words = n_words}}, *c = &context;
  if (!table[op](c)) return false;
  int64_t bytes = tt_shape_count(&c->s);
  if (bytes == INT64_MAX || __builtin_mul_overflow(bytes, (int64_t)tt_dtype_size(c->t), &bytes)) FAIL("make it smaller", "a result of %s has too many elements to count", SHAPE(&c->s));
  *dtype = c->t;
  *shape = c->s;
  return true;
}
