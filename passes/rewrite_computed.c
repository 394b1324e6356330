/* rewrite_computed.c: the rules that text cannot say, because they compute shapes, axes and types. They are asked after those of
 * rules.def, and hold to the same: exact but for the sign of a zero, and nothing dearer than the row that was asked for.
 *
 *     permute(permute(%x, perm=[1,2,0]), perm=[2,1,0])            permute(%x, perm=[0,2,1])
 *     mul(broadcast(%a, dims=[1]), broadcast(%b, dims=[1]))       broadcast(mul(%a, %b), dims=[1])
 *     sum(broadcast(%a : f32[3]) : f32[8,3], axes=[0])            mul(%a, 8)
 *     sum(select(eq(broadcast(%i), iota), %x, 0), axes=[1])       gather(%x, %i, axis=1)
 *     cast(cast(%x : f32, f64), f32)                              %x
 *     max_pool(relu(%x), size=[2,2])                              relu(max_pool(%x, size=[2,2])) */
#include "passes.h"

#include <math.h>
#include <string.h>

/* What a row is when it is asked for: not a row yet, but its attributes can be looked up. */
typedef struct { ir_graph *g; ir_op op; const ir_ref *args; uint32_t n_args; ir_node asked; tt_dtype dtype; tt_shape shape; } request;

static bool same_ints(const int64_t *a, const int64_t *b, int n) { return !n || !memcmp(a, b, (size_t)n * sizeof *a); }

/* The rank-0 row that every element of r is, or 0. */
static ir_ref uniform(ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  if (n->rank == 0) return r;
  if (n->op == IR_broadcast) return ir_at(g, n->args[0])->rank == 0 ? n->args[0] : 0;
  double v;
  if (n->op != IR_const || !ir_is_splat(g, r, &v) || (n->dtype >= TT_I32 && n->dtype <= TT_U64 && fabs(v) > 0x1p52)) return 0;
  return ir_like(g, r, v);
}

static ir_ref everywhere(request *q, ir_ref scalar) { return ir_broadcast_to(q->g, scalar, q->shape); }

/* Movement of what is everywhere the same. A pad must pad with that too. */
static ir_ref move_uniform(request *q) {
  if (tt_shape_count(&q->shape) == 0) return 0;
  if (q->op == IR_broadcast && ir_at(q->g, q->args[0])->rank == 0) return 0;       /* is it already */
  ir_ref first = uniform(q->g, q->args[0]);
  for (uint32_t i = 1; i < q->n_args && first; i++)
    if (uniform(q->g, q->args[i]) != first) return 0;
  return first ? everywhere(q, first) : 0;
}

/* Movement that moves nothing. */
static bool moves_nothing(request *q) {
  const ir_node *x = ir_at(q->g, q->args[0]), *n = &q->asked;
  tt_shape from = ir_shape(q->g, q->args[0]);
  int count;
  switch (q->op) {
  case IR_reshape: return tt_shape_equal(&from, &q->shape);
  case IR_broadcast: return tt_shape_equal(&from, &q->shape);
  case IR_permute: {
    const int64_t *perm = ir_ints(n, "perm", &count);
    for (int i = 0; i < count; i++)
      if (perm[i] != i) return false;
    return true;
  }
  case IR_slice: {
    const int64_t *start = ir_ints(n, "start", NULL), *stop = ir_ints(n, "stop", NULL), *step = ir_ints(n, "step", NULL);
    for (int i = 0; i < x->rank; i++)
      if (start[i] != 0 || stop[i] != x->dim[i] || (step[i] != 1 && x->dim[i] > 1)) return false;
    return true;
  }
  case IR_pad: {
    const int64_t *lo = ir_ints(n, "lo", NULL), *hi = ir_ints(n, "hi", NULL), *interior = ir_ints(n, "interior", NULL);
    for (int i = 0; i < x->rank; i++)
      if (lo[i] || hi[i] || (interior[i] && x->dim[i] > 1)) return false;
    return true;
  }
  case IR_reverse: {
    const int64_t *axes = ir_ints(n, "axes", &count);
    for (int i = 0; i < count; i++)
      if (x->dim[axes[i]] != 1) return false;
    return true;
  }
  case IR_concat: return q->n_args == 1;
  case IR_cast:
  case IR_bitcast: return x->dtype == q->dtype;
  default: return false;
  }
}

/* Movement of movement of the same kind: one of it. */
static ir_ref move_twice(request *q) {
  const ir_node *inner = ir_at(q->g, q->args[0]), *n = &q->asked;
  if (inner->op != q->op) return 0;
  ir_ref x = inner->args[0];
  int rank = ir_at(q->g, x)->rank, count;
  int64_t a[TT_MAX_RANK] = {0}, b[TT_MAX_RANK] = {0}, c[TT_MAX_RANK] = {0};
  int axes[TT_MAX_RANK];
  switch (q->op) {
  case IR_reshape: return ir_reshape(q->g, x, q->shape);
  case IR_permute: {
    const int64_t *first = ir_ints(inner, "perm", NULL), *then = ir_ints(n, "perm", NULL);
    for (int i = 0; i < rank; i++) axes[i] = (int)first[then[i]];
    return ir_permute(q->g, x, axes);
  }
  case IR_broadcast: {
    const int64_t *first = ir_ints(inner, "dims", NULL), *then = ir_ints(n, "dims", NULL);
    for (int i = 0; i < rank; i++) axes[i] = (int)then[first[i]];
    return ir_broadcast(q->g, x, q->shape, axes);
  }
  case IR_slice: {
    const int64_t *start = ir_ints(inner, "start", NULL), *step = ir_ints(inner, "step", NULL);
    const int64_t *start2 = ir_ints(n, "start", NULL), *step2 = ir_ints(n, "step", NULL);
    for (int i = 0; i < rank; i++) {
      int64_t dim = ir_at(q->g, x)->dim[i];
      c[i] = step[i] * step2[i];
      a[i] = q->shape.dim[i] ? start[i] + start2[i] * step[i] : 0;
      b[i] = q->shape.dim[i] ? a[i] + (q->shape.dim[i] - 1) * c[i] + 1 : 0;
      if (b[i] > dim) return 0;
    }
    return ir_slice(q->g, x, a, b, c);
  }
  case IR_pad: {
    if (inner->args[1] != q->args[1]) return 0;
    const int64_t *lo = ir_ints(inner, "lo", NULL), *hi = ir_ints(inner, "hi", NULL), *interior = ir_ints(inner, "interior", NULL);
    const int64_t *lo2 = ir_ints(n, "lo", NULL), *hi2 = ir_ints(n, "hi", NULL), *interior2 = ir_ints(n, "interior", NULL);
    for (int i = 0; i < rank; i++) {
      if (interior2[i]) return 0;
      a[i] = lo[i] + lo2[i], b[i] = hi[i] + hi2[i], c[i] = interior[i];
    }
    return ir_pad(q->g, x, q->args[1], a, b, c);
  }
  case IR_reverse: {
    const int64_t *first, *then;
    bool flip[TT_MAX_RANK] = {false};
    int m = 0;
    first = ir_ints(inner, "axes", &count);
    for (int i = 0; i < count; i++) flip[first[i]] ^= true;
    then = ir_ints(n, "axes", &count);
    for (int i = 0; i < count; i++) flip[then[i]] ^= true;
    for (int i = 0; i < rank; i++)
      if (flip[i]) axes[m++] = i;
    return m ? ir_reverse(q->g, x, axes, m) : x;
  }
  default: return 0;
  }
}

/* cast(cast(x)) is one cast when the type between holds every value of x, and the last step does not see which type it comes from. */
static ir_ref cast_twice(request *q) {
  const ir_node *inner = ir_at(q->g, q->args[0]);
  if (inner->op != IR_cast) return 0;
  tt_dtype from = ir_at(q->g, inner->args[0])->dtype, mid = inner->dtype;
  int digits[TT_N_DTYPES] = {[TT_F32] = 24, [TT_F64] = 53, [TT_F16] = 11, [TT_BF16] = 8};
  int bits = (int)tt_dtype_size(from) * 8, mid_bits = (int)tt_dtype_size(mid) * 8;
  bool exact;
  if (from == TT_BOOL || from == mid) exact = true;
  else if (mid == TT_BOOL) exact = false;
  else if (tt_dtype_in(from, TT_REAL)) exact = mid == TT_F64 || (mid == TT_F32 && from != TT_F64);
  else if (tt_dtype_in(mid, TT_REAL)) exact = digits[mid] >= bits - tt_dtype_in(from, TT_SINT);
  else exact = tt_dtype_in(from, TT_UINT) ? mid_bits > bits || (mid_bits == bits && tt_dtype_in(mid, TT_UINT)) : mid_bits >= bits && tt_dtype_in(mid, TT_SINT);
  /* integers wrap into a narrower integer where reals saturate */
  bool seen = from != TT_BOOL && tt_dtype_in(from, TT_INT) && tt_dtype_in(mid, TT_REAL) && tt_dtype_in(q->dtype, TT_INT);
  return exact && !seen ? ir_cast(q->g, inner->args[0], q->dtype) : 0;
}

/* Elementwise rows of broadcasts of one kind (and numbers) are broadcasts of the smaller elementwise row. */
static ir_ref hoist_broadcast(request *q) {
  ir_graph *g = q->g;
  const ir_node *model = NULL;
  for (uint32_t i = 0; i < q->n_args; i++) {
    const ir_node *a = ir_at(g, q->args[i]);
    if (a->op == IR_broadcast && (!model || ir_at(g, model->args[0])->rank == 0)) model = a;
  }
  if (!model) return 0;
  tt_shape small = ir_shape(g, model->args[0]);
  if (tt_shape_count(&small) >= tt_shape_count(&q->shape)) return 0;
  int n_dims;
  const int64_t *dims = ir_ints(model, "dims", &n_dims);
  ir_ref args[3];
  for (uint32_t i = 0; i < q->n_args; i++) {
    const ir_node *a = ir_at(g, q->args[i]);
    ir_ref u = uniform(g, q->args[i]);
    tt_shape s = a->op == IR_broadcast ? ir_shape(g, a->args[0]) : q->shape;
    if (u) args[i] = ir_broadcast_to(g, u, small);
    else if (a->op == IR_broadcast && tt_shape_equal(&s, &small) && same_ints(ir_ints(a, "dims", NULL), dims, n_dims)) args[i] = a->args[0];
    else return 0;
  }
  int d[TT_MAX_RANK];
  for (int i = 0; i < n_dims; i++) d[i] = (int)dims[i];
  ir_ref r = ir_emit(g, q->op, args, q->n_args, q->asked.words, q->asked.n_words);
  return r ? ir_broadcast(g, r, q->shape, d) : 0;
}

/* x / c is x * (1/c) when c is a power of two whose inverse is exact. */
static ir_ref divide_by_power(request *q) {
  double c, limit = q->dtype == TT_F64 ? 0x1p1000 : q->dtype == TT_F16 ? 0x1p13 : 0x1p100;
  int e;
  if (q->op != IR_div || !tt_dtype_in(q->dtype, TT_REAL) || !ir_is_splat(q->g, q->args[1], &c)) return 0;
  if (fabs(frexp(c, &e)) != 0.5 || fabs(c) > limit || fabs(c) < 1 / limit || c == 1 || c == -1) return 0;
  return ir_ew2(q->g, IR_mul, q->args[0], ir_like(q->g, q->args[0], 1 / c));
}

/* Row r, a broadcast that is the same all along axis, with a dimension of 1 there; 0: it is none. */
static ir_ref without_axis(ir_graph *g, ir_ref r, int axis) {
  const ir_node *n = ir_at(g, r);
  tt_shape s = ir_shape(g, r);
  int n_dims, d[TT_MAX_RANK];
  if (n->op != IR_broadcast) return 0;
  const int64_t *dims = ir_ints(n, "dims", &n_dims);
  for (int i = 0; i < n_dims; i++) {
    d[i] = (int)dims[i];
    if (d[i] == axis && ir_at(g, n->args[0])->dim[i] != 1) return 0;
  }
  s.dim[axis] = 1;
  return ir_broadcast(g, n->args[0], s, d);
}

/* A sum over a row of which one entry is chosen is that entry:
 *
 *     sum(select(eq(broadcast(%label), iota), %x, 0), axes=[1])        gather(%x, %label, axis=1)
 *
 * and of what is the same all along the row, itself where the label is one of its entries. */
static ir_ref sum_of_one(request *q) {
  ir_graph *g = q->g;
  const ir_node *s = ir_at(g, q->args[0]);
  double zero;
  if (q->op != IR_sum || s->op != IR_select || !ir_is_splat(g, s->args[2], &zero) || zero != 0) return 0;
  const ir_node *hit = ir_at(g, s->args[0]);
  for (int k = 0; hit->op == IR_eq && k < 2; k++) {
    const ir_node *number = ir_at(g, hit->args[k]);
    if (number->op != IR_iota || (number->dtype != TT_I32 && number->dtype != TT_I64)) continue;
    int axis = (int)ir_int(number, "axis"), count, rest[TT_MAX_RANK], m = 0;
    int64_t dim = s->dim[axis];
    const int64_t *axes = ir_ints(&q->asked, "axes", &count);
    bool summed = false;
    for (int i = 0; i < count; i++) {
      summed |= axes[i] == axis;
      if (axes[i] != axis) rest[m++] = (int)axes[i] - (axes[i] > axis);
    }
    ir_ref label = summed && dim > 1 && dim <= INT32_MAX ? without_axis(g, hit->args[1 - k], axis) : 0, value = s->args[1], y;
    if (!label) continue;
    ir_ref same = without_axis(g, value, axis);
    if (same) {
      ir_ref inside = ir_ew2(g, IR_and, ir_ew2(g, IR_ge, label, ir_like(g, label, 0)), ir_ew2(g, IR_lt, label, ir_like(g, label, (double)dim)));
      y = ir_select(g, inside, same, ir_like(g, same, 0));
    } else y = ir_gather(g, value, label, axis);
    tt_shape to = ir_shape(g, y);
    for (int i = axis; i + 1 < to.rank; i++) to.dim[i] = to.dim[i + 1];
    to.rank--;
    y = ir_reshape(g, y, to);
    return m ? ir_reduce(g, IR_sum, y, rest, m, false) : y;
  }
  return 0;
}

/* sum of sum; sum of a broadcast, which is a product; reductions over nothing. */
static ir_ref reduce(request *q) {
  ir_graph *g = q->g;
  ir_ref x = q->args[0];
  const ir_node *n = ir_at(g, x);
  int count, m = 0, axes[TT_MAX_RANK];
  const int64_t *a = ir_ints(&q->asked, "axes", &count);
  if (count == 0) return x;
  bool reduced[TT_MAX_RANK] = {false};
  for (int i = 0; i < count; i++) reduced[a[i]] = true;
  ir_ref one = sum_of_one(q);
  if (one) return one;
  if (n->op == q->op) {                                    /* axes of the inner argument, both kinds */
    bool inner[TT_MAX_RANK] = {false};
    int n_inner, kept = 0, rank = ir_at(g, n->args[0])->rank;
    const int64_t *b = ir_ints(n, "axes", &n_inner);
    for (int i = 0; i < n_inner; i++) inner[b[i]] = true;
    for (int i = 0; i < rank; i++) {
      bool in = inner[i] || reduced[kept];
      kept += !inner[i];
      if (in) axes[m++] = i;
    }
    return ir_reduce(g, q->op, n->args[0], axes, m, false);
  }
  if (n->op != IR_broadcast || tt_shape_count(&q->shape) == 0) return 0;
  /* axes that the broadcast made and that are reduced now: never made */
  int n_dims, d[TT_MAX_RANK];
  const int64_t *dims = ir_ints(n, "dims", &n_dims);
  bool made[TT_MAX_RANK] = {false};
  int64_t times = 1;
  for (int i = 0; i < n->rank; i++) made[i] = true;
  for (int i = 0; i < n_dims; i++) made[dims[i]] = false;
  tt_shape s = {0};
  int at[TT_MAX_RANK], any = 0;
  for (int i = 0; i < n->rank; i++) {
    if (made[i] && reduced[i]) {
      times *= n->dim[i], any++;
      continue;
    }
    if (reduced[i]) axes[m++] = s.rank;
    at[i] = s.rank;
    s.dim[s.rank++] = n->dim[i];
  }
  int64_t counts = q->dtype == TT_F16 ? 1 << 11 : q->dtype == TT_BF16 ? 1 << 8 : 1 << 24;      /* exact up to here */
  if (!any || times == 0 || q->op == IR_prod || (tt_dtype_in(q->dtype, TT_REAL) && times > counts)) return 0;
  for (int i = 0; i < n_dims; i++) d[i] = at[dims[i]];
  ir_ref r = ir_broadcast(g, n->args[0], s, d);
  if (m) r = ir_reduce(g, q->op, r, axes, m, false);
  return q->op == IR_sum ? ir_ew2(g, IR_mul, r, ir_scalar_int(g, q->dtype, times)) : r;
}

/* An operand of matmul whose last two axes are swapped stands transposed instead. */
static ir_ref transposed_operand(request *q) {
  bool t[2] = {ir_int(&q->asked, "ta"), ir_int(&q->asked, "tb")};
  ir_ref args[2];
  bool any = false;
  for (int k = 0; k < 2; k++) {
    const ir_node *a = ir_at(q->g, q->args[k]);
    args[k] = q->args[k];
    if (a->op != IR_permute) continue;
    const int64_t *perm = ir_ints(a, "perm", NULL);
    bool swaps = perm[a->rank - 1] == a->rank - 2 && perm[a->rank - 2] == a->rank - 1;
    for (int i = 0; i < a->rank - 2; i++) swaps &= perm[i] == i;
    if (swaps) args[k] = a->args[0], t[k] ^= true, any = true;
  }
  return any ? ir_matmul(q->g, args[0], args[1], t[0], t[1], ir_int(&q->asked, "split")) : 0;
}

/* The largest of relus is the relu of the largest, which is computed once a window. Not where a window may lie in the padding alone. */
static ir_ref pool_before_relu(request *q) {
  const ir_node *x = ir_at(q->g, q->args[0]), *n = &q->asked;
  if (x->op != IR_relu) return 0;
  int D;
  const int64_t *size = ir_ints(n, "size", &D), *lo = ir_ints(n, "lo", NULL), *hi = ir_ints(n, "hi", NULL), *dilation = ir_ints(n, "dilation", NULL);
  for (int i = 0; i < D; i++)
    if ((lo[i] || hi[i]) && (dilation[i] > 1 || lo[i] >= size[i] || hi[i] >= size[i])) return 0;
  return ir_ew1(q->g, IR_relu, ir_pool(q->g, IR_max_pool, x->args[0], D, size, ir_ints(n, "stride", NULL), lo, hi, dilation, false));
}

static ir_ref computed(request *q) {
  ir_ref r;
  switch (ir_ops[q->op].kind) {
  case IR_MOVEMENT:
    if (moves_nothing(q)) return q->args[0];
    if (q->op != IR_fold && (r = move_uniform(q))) return r;
    return move_twice(q);
  case IR_ELEMENTWISE:
    if ((q->op == IR_cast || q->op == IR_bitcast) && moves_nothing(q)) return q->args[0];
    if (q->op == IR_cast && (r = cast_twice(q))) return r;
    if ((r = divide_by_power(q))) return r;
    return hoist_broadcast(q);
  case IR_REDUCTION:
    return q->op == IR_sum || q->op == IR_prod || q->op == IR_amax || q->op == IR_amin ? reduce(q) : 0;
  case IR_CONTRACTION:
    return q->op == IR_matmul ? transposed_operand(q) : 0;
  case IR_COMPOSITE:
    return pool_before_relu(q);
  default:
    return 0;
  }
}

ir_ref rewrite_computed(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words) {
  uint8_t kind = ir_ops[op].kind;
  if (kind == IR_LEAF || (kind == IR_COMPOSITE && op != IR_max_pool) || kind == IR_INDEX || kind == IR_CONTROL) return 0;
  request q = {.g = g, .op = op, .args = args, .n_args = n_args, .asked = {.op = (uint16_t)op, .args = args, .n_args = n_args, .words = words, .n_words = n_words}};
  return ir_infer(g, op, args, n_args, words, n_words, &q.dtype, &q.shape) ? computed(&q) : 0;
}
