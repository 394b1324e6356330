/* grad.c: reverse-mode differentiation as rows of the same graph. pass_vjp walks the rows between y and wrt from the last to the
 * first (row numbers are a topological order), adds up what each row's readers ask of it, and writes what that row asks of its
 * operands: for an elementwise row the text of ops.def, for the others a function vjp_NAME here. All of it is ordinary rows, so
 * derivatives have derivatives.
 *
 *     %y = mul(%a, %b)              %g: dL/dy          gives   mul(%g, %b) for %a, mul(%g, %a) for %b
 *     %s = sum(%x, axes=[1])                           gives   broadcast(%g) for %x
 *     %c = conv(%x, %w, ...)                           gives   two convs, of reversed weights and of permuted operands
 *
 * A composite is differentiated through its decomposition, but for softmax, log_softmax, batch norm and max_pool, which know better. */
#include "passes.h"

#include <stdlib.h>
#include <string.h>

/* What a row of y = op(args) and dL/dy = g have to say: d[i] is what argument i gets, 0 for nothing. Only wanted ones are asked for. */
typedef struct { ir_graph *g; ir_ref y, ct; const ir_node *n; const ir_ref *args; const bool *want; ir_ref *d; const ir_ref *results; } vjp;   /* results: of a scan, dL/d of each */

static ir_ref zeros(ir_graph *g, ir_ref like) { return ir_full(g, ir_at(g, like)->dtype, ir_shape(g, like), 0); }
static bool is_real(const ir_graph *g, ir_ref r) { return tt_dtype_in(ir_at(g, r)->dtype, TT_REAL); }

/* ---- elementwise rows with types of their own ---- */

static void vjp_none(vjp *v) {}

static void vjp_select(vjp *v) {
  ir_ref zero = ir_like(v->g, v->ct, 0);
  if (v->want[1]) v->d[1] = ir_select(v->g, v->args[0], v->ct, zero);
  if (v->want[2]) v->d[2] = ir_select(v->g, v->args[0], zero, v->ct);
}

static void vjp_cast(vjp *v) { v->d[0] = ir_cast(v->g, v->ct, ir_at(v->g, v->args[0])->dtype); }

/* ---- movement ---- */

static void vjp_reshape(vjp *v) { v->d[0] = ir_reshape(v->g, v->ct, ir_shape(v->g, v->args[0])); }

static void vjp_permute(vjp *v) {
  int inverse[TT_MAX_RANK];
  const int64_t *perm = ir_ints(v->n, "perm", NULL);
  for (int i = 0; i < v->n->rank; i++) inverse[perm[i]] = i;
  v->d[0] = ir_permute(v->g, v->ct, inverse);
}

static void vjp_broadcast(vjp *v) {
  tt_shape from = ir_shape(v->g, v->args[0]);
  bool same[TT_MAX_RANK] = {false};
  int axes[TT_MAX_RANK], n = 0;
  const int64_t *dims = ir_ints(v->n, "dims", NULL);
  for (int i = 0; i < from.rank; i++) same[dims[i]] = from.dim[i] == v->n->dim[dims[i]];
  for (int i = 0; i < v->n->rank; i++)
    if (!same[i]) axes[n++] = i;
  v->d[0] = ir_reshape(v->g, n ? ir_reduce(v->g, IR_sum, v->ct, axes, n, false) : v->ct, from);
}

static void vjp_slice(vjp *v) {
  const int64_t *start = ir_ints(v->n, "start", NULL), *step = ir_ints(v->n, "step", NULL);
  tt_shape from = ir_shape(v->g, v->args[0]), to = ir_shape(v->g, v->y);
  int64_t hi[TT_MAX_RANK], interior[TT_MAX_RANK];
  if (tt_shape_count(&to) == 0) return;
  for (int i = 0; i < from.rank; i++) {
    interior[i] = step[i] - 1;
    hi[i] = from.dim[i] - (start[i] + (to.dim[i] - 1) * step[i] + 1);
  }
  v->d[0] = ir_pad(v->g, v->ct, ir_like(v->g, v->ct, 0), start, hi, interior);
}

static void vjp_pad(vjp *v) {
  ir_graph *g = v->g;
  const int64_t *lo = ir_ints(v->n, "lo", NULL), *hi = ir_ints(v->n, "hi", NULL), *interior = ir_ints(v->n, "interior", NULL);
  tt_shape from = ir_shape(g, v->args[0]);
  int64_t stop[TT_MAX_RANK], step[TT_MAX_RANK];
  for (int i = 0; i < from.rank; i++) {
    step[i] = interior[i] + 1;
    stop[i] = from.dim[i] ? lo[i] + (from.dim[i] - 1) * step[i] + 1 : lo[i];
  }
  if (v->want[0]) v->d[0] = ir_slice(g, v->ct, lo, stop, step);
  if (v->want[1]) {      /* through a mask: a difference of sums would cancel */
    ir_ref inside = ir_pad(g, ir_full(g, TT_BOOL, from, 1), ir_scalar(g, TT_BOOL, 0), lo, hi, interior);
    v->d[1] = ir_reduce(g, IR_sum, ir_select(g, inside, ir_like(g, v->ct, 0), v->ct), NULL, 0, false);
  }
}

static void vjp_concat(vjp *v) {
  int axis = (int)ir_int(v->n, "axis");
  int64_t at = 0;
  for (uint32_t i = 0; i < v->n->n_args; i++) {
    int64_t dim = ir_at(v->g, v->args[i])->dim[axis];
    if (v->want[i]) v->d[i] = ir_slice_axis(v->g, v->ct, axis, at, at + dim, 1);
    at += dim;
  }
}

static void vjp_reverse(vjp *v) {
  int n, axes[TT_MAX_RANK];
  const int64_t *a = ir_ints(v->n, "axes", &n);
  for (int i = 0; i < n; i++) axes[i] = (int)a[i];
  v->d[0] = ir_reverse(v->g, v->ct, axes, n);
}

static void vjp_unfold(vjp *v) {
  int axis = (int)ir_int(v->n, "axis");
  v->d[0] = ir_fold(v->g, v->ct, axis, ir_at(v->g, v->args[0])->dim[axis], ir_int(v->n, "stride"), ir_int(v->n, "dilation"));
}

static void vjp_fold(vjp *v) {
  int axis = (int)ir_int(v->n, "axis");
  const ir_node *x = ir_at(v->g, v->args[0]);          /* [.. windows .. , size] */
  int64_t windows = x->dim[axis], size = x->dim[x->rank - 1], stride = ir_int(v->n, "stride"), dilation = ir_int(v->n, "dilation");
  if (windows == 0 || size == 0) return;
  ir_ref covered = ir_slice_axis(v->g, v->ct, axis, 0, (windows - 1) * stride + (size - 1) * dilation + 1, 1);
  v->d[0] = ir_unfold(v->g, covered, axis, size, stride, dilation);
}

/* ---- reductions ---- */

/* r, the result of row n's reduction of x, back in the shape of x. */
static ir_ref spread(vjp *v, ir_ref r, const int64_t *reduced, int n_reduced) {
  tt_shape s = ir_shape(v->g, v->args[0]);
  bool gone[TT_MAX_RANK] = {false};
  int dims[TT_MAX_RANK], n = 0;
  for (int i = 0; i < n_reduced; i++) gone[reduced[i]] = true;
  for (int i = 0; i < s.rank; i++)
    if (!gone[i]) dims[n++] = i;
  return ir_broadcast(v->g, r, s, dims);
}

static void vjp_sum(vjp *v) {
  int n;
  const int64_t *axes = ir_ints(v->n, "axes", &n);
  v->d[0] = spread(v, v->ct, axes, n);
}

/* dy/dx_i is the product of all others, which is right with any number of zeros: [P,n,n] with the diagonal set to 1. */
static void vjp_prod(vjp *v) {
  ir_graph *g = v->g;
  int n, perm[TT_MAX_RANK], back[TT_MAX_RANK], kept = 0;
  const int64_t *axes = ir_ints(v->n, "axes", &n);
  tt_shape s = ir_shape(g, v->args[0]);
  bool gone[TT_MAX_RANK] = {false};
  int64_t size = 1;
  for (int i = 0; i < n; i++) gone[axes[i]] = true, size *= s.dim[axes[i]];
  for (int i = 0; i < s.rank; i++)
    if (!gone[i]) perm[kept++] = i;
  for (int i = 0, k = kept; i < s.rank; i++)
    if (gone[i]) perm[k++] = i;
  for (int i = 0; i < s.rank; i++) back[perm[i]] = i;
  if (size == 0) return;
  int64_t rows = tt_shape_count(&s) / size;
  tt_shape flat = {2, {rows, size}}, square = {3, {rows, size, size}};
  ir_ref moved = ir_permute(g, v->args[0], perm);
  ir_ref x = ir_broadcast(g, ir_reshape(g, moved, flat), square, (int[]){0, 2});
  ir_ref diagonal = ir_ew2(g, IR_eq, ir_iota(g, TT_I32, square, 1), ir_iota(g, TT_I32, square, 2));
  ir_ref others = ir_reduce(g, IR_prod, ir_select(g, diagonal, ir_like(g, x, 1), x), (int[]){2}, 1, false);
  ir_ref d = ir_permute(g, ir_reshape(g, others, ir_shape(g, moved)), back);
  v->d[0] = ir_ew2(g, IR_mul, d, spread(v, v->ct, axes, n));
}

/* Evenly among the equals. */
static void vjp_amax(vjp *v) {
  ir_graph *g = v->g;
  int n, axes[TT_MAX_RANK];
  const int64_t *a = ir_ints(v->n, "axes", &n);
  for (int i = 0; i < n; i++) axes[i] = (int)a[i];
  ir_ref hit = ir_ew2(g, IR_eq, v->args[0], spread(v, v->y, a, n));
  ir_ref hits = ir_reduce(g, IR_sum, ir_cast(g, hit, v->n->dtype), axes, n, false);
  ir_ref share = spread(v, ir_ew2(g, IR_div, v->ct, hits), a, n);
  v->d[0] = ir_select(g, hit, share, ir_like(g, share, 0));
}

static void vjp_cumsum(vjp *v) {
  v->d[0] = ir_cumsum(v->g, v->ct, (int)ir_int(v->n, "axis"), ir_int(v->n, "exclusive"), !ir_int(v->n, "reversed"));
}

/* ---- contractions ---- */

static void matmul_gradient(ir_graph *g, ir_ref a, ir_ref b, ir_ref ct, bool ta, bool tb, const bool *want, ir_ref *d) {
  if (want[0]) d[0] = ta ? ir_matmul(g, b, ct, tb, true, 1) : ir_matmul(g, ct, b, false, !tb, 1);
  if (want[1]) d[1] = tb ? ir_matmul(g, ct, a, true, ta, 1) : ir_matmul(g, a, ct, !ta, false, 1);
}

/* An axis padded by lo and hi, where less than nothing crops. step: elements stand that far apart, so that only some of them can
 * be cropped, and zeros between them become padding. Gives the elements to keep; false when none is left. */
static bool crop(int64_t dim, int64_t step, int64_t *lo, int64_t *hi, int64_t *first, int64_t *stop) {
  int64_t from = *lo < 0 ? -*lo : 0, end = (dim - 1) * step + 1 + (*hi < 0 ? *hi : 0);     /* of the dilated axis: what stays */
  *first = (from + step - 1) / step;
  *stop = end <= 0 ? 0 : (end - 1) / step + 1;
  if (*stop <= *first) return false;
  if (*lo < 0) *lo = *first * step - from;
  if (*hi < 0) *hi = end - ((*stop - 1) * step + 1);
  return true;
}

/* conv of a whose padding may be negative; 0 when none of a is seen. */
static ir_ref cropped_conv(ir_graph *g, ir_ref a, ir_ref w, ir_conv_attrs *c, int n_spatial) {
  for (int i = 0; i < n_spatial; i++) {
    int64_t first, stop, dim = ir_at(g, a)->dim[3 + i];
    if (!crop(dim, c->x_dilation[i], &c->lo[i], &c->hi[i], &first, &stop)) return 0;
    if (first > 0 || stop < dim) a = ir_slice_axis(g, a, 3 + i, first, stop, 1);
  }
  return ir_conv(g, a, w, c);
}

/* y[n,g,o,p] = sum over c, k of X[n,g,c,p*stride+k*dilation] w[g,o,c,k], X being x with x_dilation and padding.
 * For x: the dilated g is convolved with the reversed weights, C and O swapped; only the positions of x are computed, by a
 * stride of x_dilation. For w: x is convolved with g, N and C swapped, so that the old dilation is the stride. */
static void conv_gradient(ir_graph *g, ir_ref x, ir_ref w, ir_ref ct, const ir_node *n, const bool *want, ir_ref *d) {
  int D = ir_at(g, x)->rank - 3;
  const int64_t *stride = ir_ints(n, "stride", NULL), *lo = ir_ints(n, "lo", NULL), *dilation = ir_ints(n, "dilation", NULL), *x_dilation = ir_ints(n, "x_dilation", NULL);
  tt_shape sx = ir_shape(g, x), sw = ir_shape(g, w), sy = ir_shape(g, ct);
  if (!tt_shape_count(&sx) || !tt_shape_count(&sw) || !tt_shape_count(&sy)) return;
  int swap01[TT_MAX_RANK], swap12[TT_MAX_RANK], to_front[TT_MAX_RANK], spatial[3];
  for (int i = 0; i < D + 3; i++) swap01[i] = swap12[i] = to_front[i] = i;
  swap01[0] = 1, swap01[1] = 2, swap01[2] = 0;            /* [C,G,O] -> [G,O,C] */
  to_front[0] = 2, to_front[1] = 1, to_front[2] = 0;      /* [N,G,C] -> [C,G,N] */
  swap12[1] = 2, swap12[2] = 1;                           /* [G,O,C] -> [G,C,O] */
  ir_conv_attrs cx = {.split = 1}, cw = {.split = 1};
  for (int i = 0; i < D; i++) {
    spatial[i] = 3 + i;
    int64_t in = sx.dim[3 + i], k = sw.dim[3 + i], out = sy.dim[3 + i];
    int64_t reach = (k - 1) * dilation[i], covered = (out - 1) * stride[i] + 1;
    cx.stride[i] = x_dilation[i], cx.dilation[i] = dilation[i], cx.x_dilation[i] = stride[i];
    cx.lo[i] = reach - lo[i];
    cx.hi[i] = lo[i] + (in - 1) * x_dilation[i] + 1 - covered;
    cw.stride[i] = dilation[i], cw.dilation[i] = stride[i], cw.x_dilation[i] = x_dilation[i];
    cw.lo[i] = lo[i];
    cw.hi[i] = reach + covered - lo[i] - ((in - 1) * x_dilation[i] + 1);
  }
  if (want[0]) d[0] = cropped_conv(g, ct, ir_reverse(g, ir_permute(g, w, swap12), spatial, D), &cx, D);
  if (want[1]) {
    int n_to_last[TT_MAX_RANK];                           /* g [N,G,O] -> [G,O,N] */
    memcpy(n_to_last, swap01, sizeof n_to_last);
    ir_ref r = cropped_conv(g, ir_permute(g, x, to_front), ir_permute(g, ct, n_to_last), &cw, D);
    d[1] = r ? ir_permute(g, r, swap01) : 0;
  }
}

/* The parts of a split sum are cut equal: each has its slices of both operands and of g; their gradients stand one after the other. */
static void vjp_contraction(vjp *v) {
  ir_graph *g = v->g;
  bool matmul = v->n->op == IR_matmul;
  int rank = ir_at(g, v->args[0])->rank;
  bool ta = matmul && ir_int(v->n, "ta"), tb = matmul && ir_int(v->n, "tb");
  int axis[2] = {matmul ? rank - (ta ? 2 : 1) : 2, matmul ? rank - (tb ? 1 : 2) : 2};
  int64_t split = ir_int(v->n, "split"), length = ir_at(g, v->args[0])->dim[axis[0]];
  if (split <= 1) {
    if (matmul) matmul_gradient(g, v->args[0], v->args[1], v->ct, ta, tb, v->want, v->d);
    else conv_gradient(g, v->args[0], v->args[1], v->ct, v->n, v->want, v->d);
    return;
  }
  tt_shape one = ir_shape(g, v->ct);
  for (int i = 1; i < one.rank; i++) one.dim[i - 1] = one.dim[i];
  one.rank--;
  ir_ref *parts = calloc(2 * (size_t)split, sizeof *parts);
  if (!parts) {
    tt_fail(&g->error, TT_NO_MEMORY, "error: no memory to differentiate\n  at a sum of %lld parts\n  fix: free memory", (long long)split);
    return;
  }
  for (int64_t s = 0; s < split && !g->error.status; s++) {
    ir_ref x[2], d[2] = {0};
    for (int k = 0; k < 2; k++) x[k] = ir_slice_axis(g, v->args[k], axis[k], s * (length / split), (s + 1) * (length / split), 1);
    ir_ref ct = ir_reshape(g, ir_slice_axis(g, v->ct, 0, s, s + 1, 1), one);
    if (matmul) matmul_gradient(g, x[0], x[1], ct, ta, tb, v->want, d);
    else conv_gradient(g, x[0], x[1], ct, v->n, v->want, d);
    for (int k = 0; k < 2; k++) parts[k * split + s] = d[k] ? d[k] : zeros(g, x[k]);
  }
  for (int k = 0; k < 2; k++)
    if (v->want[k]) v->d[k] = ir_concat(g, parts + k * split, (int)split, axis[k]);
  free(parts);
}

/* ---- index ---- */

/* One index along the axis: its gradient is a comparison, which fuses; more of them may meet and are added up. */
static void vjp_gather(vjp *v) {
  int axis = (int)ir_int(v->n, "axis");
  if (v->n->dim[axis] == 1) {
    tt_shape s = ir_shape(v->g, v->args[0]);
    ir_ref i = v->args[1];
    if (tt_dtype_size((tt_dtype)ir_at(v->g, i)->dtype) < 4) i = ir_cast(v->g, i, TT_I32);
    ir_ref hit = ir_ew2(v->g, IR_eq, ir_iota(v->g, (tt_dtype)ir_at(v->g, i)->dtype, s, axis), ir_broadcast_to(v->g, i, s));
    v->d[0] = ir_select(v->g, hit, ir_broadcast_to(v->g, v->ct, s), ir_like(v->g, v->ct, 0));
    return;
  }
  v->d[0] = ir_scatter_add(v->g, zeros(v->g, v->args[0]), v->args[1], v->ct, (int)ir_int(v->n, "axis"));
}

static void vjp_scatter_add(vjp *v) {
  if (v->want[0]) v->d[0] = v->ct;
  if (v->want[2]) v->d[2] = ir_gather(v->g, v->ct, v->args[1], (int)ir_int(v->n, "axis"));
}

static void vjp_dynamic_slice(vjp *v) {
  v->d[0] = ir_dynamic_update_slice(v->g, zeros(v->g, v->args[0]), v->ct, v->args[1]);
}

static void vjp_dynamic_update_slice(vjp *v) {
  if (v->want[0]) v->d[0] = ir_dynamic_update_slice(v->g, v->ct, zeros(v->g, v->args[1]), v->args[2]);
  if (v->want[1]) v->d[1] = ir_dynamic_slice(v->g, v->ct, v->args[2], ir_shape(v->g, v->args[1]).dim);
}

/* ---- composites ---- */

static bool reverse_mode(ir_graph *g, const ir_ref *ys, const ir_ref *cts, int n_ys, const ir_ref *wrt, int n, bool partial, ir_ref *gradients);

static ir_ref row_sum(ir_graph *g, ir_ref x, int axis) { return ir_reduce(g, IR_sum, x, &axis, 1, true); }

static void vjp_softmax(vjp *v) {          /* y (g - sum(g y)) */
  ir_ref gy = row_sum(v->g, ir_ew2(v->g, IR_mul, v->ct, v->y), (int)ir_int(v->n, "axis"));
  v->d[0] = ir_ew2(v->g, IR_mul, v->y, ir_ew2(v->g, IR_sub, v->ct, gy));
}

static void vjp_log_softmax(vjp *v) {      /* g - exp(y) sum(g); exp(y) is softmax(x) */
  ir_ref sum = row_sum(v->g, v->ct, (int)ir_int(v->n, "axis"));
  ir_ref p = ir_softmax(v->g, IR_softmax, v->args[0], (int)ir_int(v->n, "axis"));
  v->d[0] = ir_ew2(v->g, IR_sub, v->ct, ir_ew2(v->g, IR_mul, p, sum));
}

static void through(vjp *v, ir_ref made) {
  ir_ref wrt[8], d[8];
  int at[8], n = 0;
  for (uint32_t i = 0; i < v->n->n_args && i < 8; i++) {
    bool again = false;                                    /* an operand that stands twice gets all of it once */
    for (uint32_t k = 0; k < i; k++) again |= v->args[k] == v->args[i];
    if (v->want[i] && !again) wrt[n] = v->args[i], at[n++] = (int)i;
  }
  if (!made || !reverse_mode(v->g, &made, &v->ct, 1, wrt, n, true, d)) return;
  for (int i = 0; i < n; i++) v->d[at[i]] = d[i];
}

static void vjp_max_pool(vjp *v) { through(v, pass_max_pool_by_choice(v->g, v->args[0], v->n)); }

static void vjp_composite(vjp *v) { through(v, pass_decompose_row(v->g, v->n->op, v->args, v->n->words)); }

/* Batch norm's derivatives are written so that they need x and dy twice, once for the two sums of a channel and once to apply them. */
static ir_ref channels(ir_graph *g, ir_ref v, ir_ref x) { return ir_broadcast(g, v, ir_shape(g, x), (int[]){1}); }
static int all_but_channels(const ir_graph *g, ir_ref x, int *axes, double *count) {
  const ir_node *n = ir_at(g, x);
  int k = 0;
  *count = 1;
  for (int i = 0; i < n->rank; i++)
    if (i != 1) axes[k++] = i, *count *= (double)n->dim[i];
  return k;
}
static ir_ref real32(ir_graph *g, ir_ref x) {
  tt_dtype t = (tt_dtype)(x ? ir_at(g, x)->dtype : TT_F32);
  return t == TT_F16 || t == TT_BF16 ? ir_cast(g, x, TT_F32) : x;
}
static ir_ref scaled(ir_graph *g, ir_ref x, double by) { return ir_ew2(g, IR_mul, x, ir_like(g, x, by)); }

static void vjp_batch_mean(vjp *v) {
  int axes[TT_MAX_RANK];
  double count;
  all_but_channels(v->g, v->args[0], axes, &count);
  if (count > 0) v->d[0] = channels(v->g, scaled(v->g, v->ct, 1 / count), v->args[0]);
}

static void vjp_batch_var(vjp *v) {        /* 2 (x - mean) / count */
  ir_graph *g = v->g;
  int axes[TT_MAX_RANK];
  double count;
  all_but_channels(g, v->args[0], axes, &count);
  if (!(count > 0)) return;
  ir_ref x = real32(g, v->args[0]), off = ir_ew2(g, IR_sub, x, channels(g, ir_batch_mean(g, x), x));
  ir_ref d = ir_ew2(g, IR_mul, channels(g, scaled(g, real32(g, v->ct), 2 / count), x), off);
  v->d[0] = ir_cast(g, d, (tt_dtype)v->n->dtype);
}

/* r = 1 / sqrt(var + eps), h = (x - mean) r: w gets sum(g h), b sum(g), x gets w r (g - mean(g) - h mean(g h)). */
static void vjp_batch_norm(vjp *v) {
  ir_graph *g = v->g;
  tt_dtype type = (tt_dtype)v->n->dtype;
  int axes[TT_MAX_RANK];
  double count;
  int n = all_but_channels(g, v->args[0], axes, &count);
  if (!(count > 0)) return;
  ir_ref x = real32(g, v->args[0]), w = real32(g, v->args[1]), ct = real32(g, v->ct), mean = ir_batch_mean(g, x), var = ir_batch_var(g, x);
  ir_ref r = ir_ew1(g, IR_rsqrt, ir_ew2(g, IR_add, var, ir_like(g, var, ir_float(v->n, "eps"))));
  ir_ref off = ir_ew2(g, IR_sub, x, channels(g, mean, x));
  ir_ref sum = ir_reduce(g, IR_sum, ct, axes, n, false), along = ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, ct, off), axes, n, false);
  if (v->want[1]) v->d[1] = ir_cast(g, ir_ew2(g, IR_mul, along, r), type);
  if (v->want[2]) v->d[2] = ir_cast(g, sum, type);
  if (!v->want[0]) return;
  ir_ref scale = ir_ew2(g, IR_mul, r, w), slope = ir_ew2(g, IR_mul, scale, ir_ew2(g, IR_mul, ir_ew2(g, IR_mul, r, r), scaled(g, along, 1 / count)));
  ir_ref level = ir_ew2(g, IR_mul, scale, scaled(g, sum, 1 / count));
  ir_ref part = ir_ew2(g, IR_add, ir_ew2(g, IR_mul, off, channels(g, slope, x)), channels(g, level, x));
  v->d[0] = ir_cast(g, ir_ew2(g, IR_sub, ir_ew2(g, IR_mul, ct, channels(g, scale, x)), part), type);
}

/* r = 1 / sqrt(var + eps), c = x - mean: w gets sum(g c r) and b sum(g) over the rows, x gets r (g w - mean(g w) - c r^2 mean(g w c)): all in one go over
 * a row that is held in cache. */
static void vjp_layer_norm(vjp *v) {
  ir_graph *g = v->g;
  tt_dtype type = (tt_dtype)v->n->dtype;
  ir_ref x = real32(g, v->args[0]), w = real32(g, v->args[1]), ct = real32(g, v->ct);
  if (!x || !w || !ct) return;
  tt_shape s = ir_shape(g, x);
  int axes[TT_MAX_RANK], lead[TT_MAX_RANK], dims[TT_MAX_RANK], n = (int)ir_int(v->n, "axes"), m = s.rank - n;
  for (int i = 0; i < n; i++) axes[i] = dims[i] = m + i;
  for (int i = 0; i < m; i++) lead[i] = i;
  ir_ref c = ir_ew2(g, IR_sub, x, ir_mean(g, x, axes, n, true)), var = ir_mean(g, ir_ew2(g, IR_mul, c, c), axes, n, true);
  ir_ref r = ir_ew1(g, IR_rsqrt, ir_ew2(g, IR_add, var, ir_like(g, var, ir_float(v->n, "eps"))));
  ir_ref along = ir_ew2(g, IR_mul, ct, ir_ew2(g, IR_mul, c, r));
  if (v->want[1]) v->d[1] = ir_cast(g, m ? ir_reduce(g, IR_sum, along, lead, m, false) : along, type);
  if (v->want[2]) v->d[2] = ir_cast(g, m ? ir_reduce(g, IR_sum, ct, lead, m, false) : ct, type);
  if (!v->want[0]) return;
  ir_ref gw = ir_ew2(g, IR_mul, ct, ir_broadcast(g, w, s, dims)), slope = ir_ew2(g, IR_mul, ir_ew2(g, IR_mul, r, r), ir_mean(g, ir_ew2(g, IR_mul, gw, c), axes, n, true));
  ir_ref part = ir_ew2(g, IR_add, ir_mean(g, gw, axes, n, true), ir_ew2(g, IR_mul, c, slope));
  v->d[0] = ir_cast(g, ir_ew2(g, IR_mul, r, ir_ew2(g, IR_sub, gw, part)), type);
}

static void vjp_scan(vjp *v) { pass_scan_gradient(v->g, v->n, v->results, v->want, v->d); }

static void vjp_winograd(vjp *v) { through(v, pass_winograd_by_steps(v->g, v->args[0], v->args[1], v->n)); }

static void through_naive(vjp *v) {
  ir_attention_options o = ir_attention_of(v->n);
  through(v, pass_attention_naive(v->g, (ir_op)v->n->op, v->args, &o));
}

/* Scores are made again from their logarithmic sums (Dao et al. 2022). The derivative by an added mask is as large as all scores, so nothing is saved there. */
static void vjp_attention(vjp *v) {
  ir_attention_options o = ir_attention_of(v->n);
  if (o.mask && v->want[3]) {
    through_naive(v);
    return;
  }
  int last = v->n->rank - 1;
  ir_ref args[6] = {v->args[0], v->args[1], v->args[2], v->ct};
  args[4] = ir_attention(v->g, IR_attention_lse, v->args, &o);
  args[5] = ir_cast(v->g, ir_reduce(v->g, IR_sum, ir_ew2(v->g, IR_mul, v->y, v->ct), &last, 1, false), (tt_dtype)v->n->dtype);
  for (int i = 0; i < 3; i++)
    if (v->want[i]) v->d[i] = ir_attention(v->g, (ir_op)(IR_attention_dq + i), args, &o);
}

#define vjp_attention_lse through_naive
#define vjp_attention_dq through_naive
#define vjp_attention_dk through_naive
#define vjp_attention_dv through_naive
#define vjp_argmax vjp_none
#define vjp_argmin vjp_none
#define vjp_argsort vjp_none
#define vjp_bitcast vjp_none
#define vjp_stop_gradient vjp_none
#define vjp_input vjp_none
#define vjp_param vjp_none
#define vjp_const vjp_none
#define vjp_iota vjp_none
#define vjp_random vjp_none
#define vjp_assign vjp_none
#define vjp_amin vjp_amax
#define vjp_matmul vjp_contraction
#define vjp_conv vjp_contraction
#define vjp_gelu vjp_composite
#define vjp_silu vjp_composite
#define vjp_dropout vjp_composite
#define vjp_avg_pool vjp_composite

static void (*const vjp_table[IR_N_OPS])(vjp *) = {
#define OP(name, ...) [IR_##name] = vjp_##name,
#define COMPOSITE(name, ...) [IR_##name] = vjp_##name,
#include "../ir/ops.def"
};

static void vjp_elementwise(vjp *v) {
  pass_binding names[] = {{"g", v->ct, false, 0}, {"y", v->y, false, 0}, {"a", v->args[0], false, 0}, {"b", v->n->n_args > 1 ? v->args[1] : 0, false, 0},
                          {"c", v->n->n_args > 2 ? v->args[2] : 0, false, 0}};
  for (uint32_t i = 0; i < v->n->n_args; i++) {
    const char *text = ir_ops[v->n->op].gradients[i];
    if (v->want[i] && text && strcmp(text, "0")) v->d[i] = pass_build_text(v->g, text, names, 5);
  }
}

/* ---- the walk ---- */

/* dL/d of every result of the scan that row r is one of, malloc'ed; NULL where none has any, or where a result that stands before r is still to come:
 * a scan is differentiated once, at its first row, when all readers of all its results have been. */
static ir_ref *scan_results(ir_graph *g, ir_ref r, ir_ref last, const unsigned char *mark, const ir_ref *sum) {
  const ir_node *n = ir_at(g, r);
  for (ir_ref m = 1; m < r; m++)
    if ((mark[m] & 3) == 3 && ir_same_scan(g, m, r)) return NULL;           /* needed, and depends on what is asked for */
  ir_ref *results = calloc((size_t)ir_scan_of(n).carries + ir_scan_body(g, n)->n_outputs + 1, sizeof *results);
  bool any = false;
  if (!results) return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory to differentiate\n  at a scan of @%s\n  fix: free memory", g->name), NULL;
  for (ir_ref m = r; m <= last; m++)
    if (sum[m] && ir_same_scan(g, m, r)) results[ir_scan_of(ir_at(g, m)).result] = sum[m], any = true;
  if (any) return results;
  free(results);
  return NULL;
}

/* The gradients of the sum of all ys[i] * cts[i]. partial: each of wrt is a variable of its own, even where one is made from another; else paths through
 * others count. A gradient that nothing adds to is 0 in gradients. */
static bool reverse_mode(ir_graph *g, const ir_ref *ys, const ir_ref *cts, int n_ys, const ir_ref *wrt, int n, bool partial, ir_ref *gradients) {
  ir_ref y = 0;
  for (int i = 0; i < n_ys; i++) y = ys[i] > y ? ys[i] : y;
  uint32_t rows = y + 1;
  enum { NEEDED = 1, DEPENDS = 2, WRT = 4 };
  unsigned char *mark = calloc(rows, 1);
  ir_ref *sum = calloc(rows, sizeof *sum);
  uint32_t at_origin = g->at_origin;
  if (!mark || !sum) {
    free(mark), free(sum);
    return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory to differentiate\n  at %u rows of @%s\n  fix: free memory", rows, g->name), false;
  }
  ir_ref first = y;
  for (int i = 0; i < n; i++)
    if (wrt[i] <= y) {
      mark[wrt[i]] |= WRT | DEPENDS;
      if (wrt[i] < first) first = wrt[i];
    }
  for (int i = 0; i < n_ys; i++) mark[ys[i]] |= NEEDED;
  for (ir_ref r = y; r >= first && r; r--) {
    const ir_node *node = ir_at(g, r);
    if (!(mark[r] & NEEDED) || (partial && (mark[r] & WRT))) continue;
    for (uint32_t i = 0; i < node->n_args; i++) mark[node->args[i]] |= NEEDED;
  }
  for (ir_ref r = first; r <= y; r++) {
    const ir_node *node = ir_at(g, r);
    if (!(mark[r] & NEEDED) || (mark[r] & DEPENDS) || !is_real(g, r)) continue;
    for (uint32_t i = 0; i < node->n_args; i++)
      if (mark[node->args[i]] & DEPENDS) mark[r] |= DEPENDS;
  }
  for (int i = 0; i < n_ys; i++) sum[ys[i]] = sum[ys[i]] ? ir_ew2(g, IR_add, sum[ys[i]], cts[i]) : cts[i];
  for (ir_ref r = y; r >= first && r && !g->error.status; r--) {
    const ir_node *node = ir_at(g, r);
    bool scan = node->op == IR_scan && (mark[r] & NEEDED);
    if (!(sum[r] || scan) || !(mark[r] & DEPENDS) || (partial && (mark[r] & WRT)) || !node->n_args) continue;
    ir_ref *results = scan ? scan_results(g, r, y, mark, sum) : NULL;
    if (scan && !results) continue;
    bool few[8], *want = node->n_args <= 8 ? few : malloc(node->n_args * sizeof *want), any = false;
    ir_ref few_d[8] = {0}, *d = node->n_args <= 8 ? few_d : calloc(node->n_args, sizeof *d);
    if (!want || !d) tt_fail(&g->error, TT_NO_MEMORY, "error: no memory to differentiate\n  at a row of %u operands\n  fix: free memory", node->n_args);
    for (uint32_t i = 0; i < node->n_args && want && d; i++) any |= want[i] = (mark[node->args[i]] & DEPENDS) && is_real(g, node->args[i]);
    if (any) {
      vjp v = {g, r, sum[r], node, node->args, want, d, results};
      g->at_origin = node->origin;
      if (ir_ops[node->op].ew) vjp_elementwise(&v);
      else vjp_table[node->op](&v);
      for (uint32_t i = 0; i < node->n_args && !g->error.status; i++) {
        ir_ref a = node->args[i];
        if (want[i] && d[i]) sum[a] = sum[a] ? ir_ew2(g, IR_add, sum[a], d[i]) : d[i];
      }
    }
    if (want != few) free(want);
    if (d != few_d) free(d);
    free(results);
  }
  for (int i = 0; i < n; i++) gradients[i] = wrt[i] <= y ? sum[wrt[i]] : 0;
  g->at_origin = at_origin;
  free(mark), free(sum);
  return g->error.status == TT_OK;
}

bool pass_vjp_of(ir_graph *g, const ir_ref *ys, const ir_ref *cts, int n_ys, const ir_ref *wrt, int n, ir_ref *gradients) {
  return reverse_mode(g, ys, cts, n_ys, wrt, n, true, gradients);
}

bool pass_vjp(ir_graph *g, ir_ref y, ir_ref cotangent, const ir_ref *wrt, int n, ir_ref *gradients) {
  for (int i = 0; i < n; i++) gradients[i] = 0;
  if (!y || g->error.status) return false;
  if (!is_real(g, y) || (!cotangent && ir_at(g, y)->rank != 0)) {
    char type[120];
    tt_shape s = ir_shape(g, y);
    tt_fail(&g->error, TT_INVALID, "error: cannot differentiate a value of type %s\n  at row %u (%s) of @%s\n  fix: %s",
            tt_type_text(ir_at(g, y)->dtype, &s, type, sizeof type), y, ir_ops[ir_at(g, y)->op].name, g->name,
            is_real(g, y) ? "reduce it to a scalar first, by a mean or a sum" : "differentiate a real number: cast it first");
    return false;
  }
  for (int i = 0; i < n; i++)
    if (!wrt[i]) return false;
  if (!cotangent) cotangent = ir_like(g, y, 1);
  if (!reverse_mode(g, &y, &cotangent, 1, wrt, n, false, gradients)) return false;
  for (int i = 0; i < n; i++)
    if (!gradients[i]) gradients[i] = zeros(g, wrt[i]);
  return g->error.status == TT_OK;
}

tt_status pass_grad(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  tt_status status = pass_copy(in, out, err);
  if (status != TT_OK || !options->train || (status = pass_groups_check(options, err)) != TT_OK) return status;
  ir_ref loss = out->n_outputs ? out->outputs[0].value : 0;
  if (!loss || ir_at(out, loss)->rank != 0 || !is_real(out, loss)) {
    char type[120] = "nothing";
    tt_shape s = loss ? ir_shape(out, loss) : (tt_shape){0};
    if (loss) tt_type_text(ir_at(out, loss)->dtype, &s, type, sizeof type);
    return tt_fail(err, TT_INVALID, "error: the first output of @%s is %s, but training needs a loss\n  at the outputs of @%s\n  fix: return a real scalar first, the mean of a loss say", in->name, type, in->name);
  }
  for (uint32_t i = 0; i < out->n_outputs; i++)
    if (out->outputs[i].name && !strncmp(out->outputs[i].name, "grad.", 5))
      return tt_fail(err, TT_INVALID, "error: an output of @%s is called %s, but training gives gradients such names\n  at the outputs of @%s\n  fix: name it otherwise", in->name, out->outputs[i].name, in->name);
  ir_ref *wrt = calloc(2 * (size_t)out->n_nodes, sizeof *wrt);
  if (!wrt) return tt_fail(err, TT_NO_MEMORY, "error: no memory to differentiate\n  at %u rows of @%s\n  fix: free memory", out->n_nodes, in->name);
  ir_ref *gradients = wrt + out->n_nodes;
  int n = 0;
  uint32_t matched = 0;
  for (ir_ref r = 1; r < out->n_nodes; r++) {
    const ir_node *p = ir_at(out, r);
    if (p->op != IR_param || !ir_int(p, "trainable") || !is_real(out, r)) continue;
    int group = pass_group(options, ir_str(p, "name"), p->rank);
    if (group >= 0) matched |= 1u << group;
    if (group < 0 || options->groups[group].optimizer) wrt[n++] = r;
  }
  for (int i = 0; i < options->n_groups; i++)
    if (!(matched >> i & 1) && strncmp(options->groups[i].pattern, "ndim", 4)) {        /* a name that nothing has is a mistake, a number of axes is not */
      free(wrt);
      return tt_fail(err, TT_INVALID, "error: no trained parameter of @%s is in the group \"%s\"\n  at the parameter groups\n  fix: name a parameter or a layer as it is called in the model's file of weights", in->name, options->groups[i].pattern);
    }
  ir_ref one = ir_like(out, loss, 1);
  reverse_mode(out, &loss, &one, 1, wrt, n, false, gradients);
  for (int i = 0; i < n && !out->error.status; i++) {
    if (!gradients[i]) continue;                 /* the loss does not see it: it is not trained */
    char name[300];
    const char *param = ir_str(ir_at(out, wrt[i]), "name");
    if (strlen(param) + 6 > sizeof name) {
      tt_fail(&out->error, TT_INVALID, "error: a name of %zu characters\n  at param %.40s...\n  fix: use at most 290", strlen(param), param);
      break;
    }
    memcpy(name, "grad.", 5), strcpy(name + 5, param);
    ir_output_add(out, name, gradients[i]);
    ir_name(out, gradients[i], name);
  }
  free(wrt);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
