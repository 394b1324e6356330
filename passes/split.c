/* split.c: cuts sums that are long and have few results, so that they are computed in parallel. A cut is a divisor of an axis, so the
 * parts are equal; it depends on shape and type only, so the order of additions, and with it every bit, is the same on any team.
 *
 *     %s = sum(%x, axes=[0,1,2]) : f32[16]       of f32[64,32,32,16]
 *     gives  %p = sum(%x, axes=[1,2]) : f32[64,16], %s = sum(%p, axes=[0]) : f32[16] */
#include "form.h"

#include <string.h>

enum { TASKS = 64, PACKED_TASKS = 16, MAX_CUT = 32 };      /* weights that are packed once leave tasks of few rows nothing to do but their own */
static const int64_t LONG_SUM = 65536;             /* elements */
static const double LEAST_WORK = 1e6;              /* multiplications and additions of a part */
enum { FEW_ROWS = 4, MOST_STREAMS = 8 };
static const double STREAM = 512 << 10;            /* bytes of a matrix that one part of the sum of so few rows reads */
enum { PARTS = 16 };                               /* of a weight's gradient */
static const double SUMS = 1e6;                    /* its results in all parts */

/* The largest divisor of n that is at most `most`. */
static int64_t divisor(int64_t n, int64_t most) {
  for (int64_t d = most < n ? most : n; d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

int64_t pass_split_contraction(const ir_graph *g, ir_ref r, const bool *fixed) {
  const ir_node *n = ir_at(g, r), *a = ir_at(g, n->args[0]), *b = ir_at(g, n->args[1]);
  bool conv = n->op == IR_conv;
  bool narrow = n->dtype == TT_F16 || n->dtype == TT_BF16;            /* parts would be rounded */
  if (ir_int(n, "split") > 1 || n->rank == TT_MAX_RANK || narrow) return 1;
  pass_window w;
  bool window = pass_window_of(g, r, &w);
  if (window && w.sums) return divisor(a->dim[2], MAX_CUT);      /* all weights at once, for some of the images */
  int64_t k = conv ? a->dim[2] : a->dim[a->rank - (ir_int(n, "ta") ? 2 : 1)], rows = 1, lanes, summed = k;
  if (conv) {
    rows = n->dim[0] * n->dim[1], lanes = n->dim[2];
    for (int i = 3; i < n->rank; i++) rows *= n->dim[i], summed *= b->dim[i];
  } else {
    for (int i = 0; i < n->rank - 1; i++) rows *= n->dim[i];
    lanes = n->dim[n->rank - 1];
  }
  int64_t tiles = (rows + 7) / 8 * ((lanes + 31) / 32);              /* of 8 x 32, as registers hold */
  double work = 2.0 * (double)rows * (double)lanes * (double)summed;
  bool packed = fixed[n->args[0]] || fixed[n->args[1]];
  int64_t tasks = packed ? PACKED_TASKS : TASKS;
  if (tiles <= 0 || k < 2) return 1;
  /* A weight's gradient: parts of the images, each with sums of its own for all results, which go to memory and back. */
  if (!packed && conv && n->rank == 5 && n->dim[1] == 1 && ((window && w.weights) || n->dim[0] >= 8) && lanes >= 8) {
    double results = (double)rows * (double)lanes, read = (double)summed * (double)(n->dim[0] + n->dim[2]);
    int64_t parts = results * PARTS < SUMS ? PARTS : (int64_t)(SUMS / results) + 1;
    if ((double)parts * 8 * LEAST_WORK > work) parts = (int64_t)(work / 8 / LEAST_WORK);
    if ((double)parts * 4 * results > read) parts = (int64_t)(read / 4 / results);
    if (summed >= 4 * rows / n->dim[0]) return parts > 1 ? divisor(k, parts) : 1;
  }
  /* Few rows times a large matrix: a part reads some of its rows from end to end, which memory likes better than some columns of all. */
  if (!packed && !conv && rows <= FEW_ROWS && b->rank == 2 && !ir_int(n, "tb")) {
    double parts = (double)k * (double)lanes * (double)tt_dtype_size(n->dtype) / STREAM;
    return parts < 2 ? 1 : divisor(k, parts < MOST_STREAMS ? (int64_t)parts : MOST_STREAMS);
  }
  if (!conv && rows < FEW_ROWS && ir_int(n, "tb") && lanes >= tasks) return 1;         /* dot products, each from end to end of a row */
  if (tiles >= tasks) return 1;
  int64_t most = tasks / tiles < MAX_CUT ? tasks / tiles : MAX_CUT;
  if ((double)most * LEAST_WORK > work) most = (int64_t)(work / LEAST_WORK);
  return most > 1 ? divisor(k, most) : 1;
}

enum { FEW_COLUMNS = 64, MANY_COLUMNS = 128, FEW_DOWN = 256, LEAST_DOWN = 16, LEAST_BLOCKS = 8 };      /* of sums down the rows of a matrix: columns (of those that are cut for it), rows, rows of a block, blocks */

static bool takes_parts(tt_dtype t) { return t != TT_F16 && t != TT_BF16; }      /* others would be rounded once more */

/* Blocks of rows whose sums the kernel that goes over these rows can take along the way (form.c); 1: leave it whole. */
static int64_t blocks_down(const tt_shape *s, const bool *gone, tt_dtype type, int *first_kept) {
  int64_t rows = 1, columns = 1;
  int m = 0;
  while (m < s->rank && gone[m]) rows *= s->dim[m++];
  *first_kept = m;
  for (int i = m; i < s->rank; i++) {
    if (gone[i]) return 1;
    columns *= s->dim[i];
  }
  if (rows < FEW_DOWN || columns < MANY_COLUMNS || s->rank - m + 2 > TT_MAX_RANK || !takes_parts(type)) return 1;
  int64_t blocks = divisor(rows, rows / LEAST_DOWN < TASKS ? rows / LEAST_DOWN : TASKS);
  return blocks < LEAST_BLOCKS ? 1 : blocks;
}

bool pass_down_of(const ir_graph *g, ir_ref r, bool through, pass_down *d) {
  const ir_node *n = ir_at(g, r), *x = n->op == IR_sum ? ir_at(g, n->args[0]) : NULL;
  int n_axes;
  const int64_t *axes = x ? ir_ints(n, "axes", &n_axes) : NULL;
  if (!x || x->rank < 3 || n_axes < 1 || !takes_parts((tt_dtype)n->dtype)) return false;
  *d = (pass_down){.base = n->args[0], .n_lead = 1 + n_axes, .blocks = x->dim[0], .rows = 1, .columns = 1};
  for (int i = 1; i < x->rank; i++) *(i <= n_axes ? &d->rows : &d->columns) *= x->dim[i];
  for (int i = 0; i < n_axes; i++)
    if (axes[i] != i + 1) return false;
  if (d->blocks < LEAST_BLOCKS || d->rows < LEAST_DOWN || d->columns < FEW_COLUMNS) return false;
  if (!through || n_axes > 1 || x->op != IR_reshape) return true;      /* a cut stands on a reshape of its own */
  const ir_node *base = ir_at(g, x->args[0]);
  int64_t rows = 1;
  int n_lead = 0;
  while (n_lead < base->rank && rows < d->blocks * d->rows) rows *= base->dim[n_lead++];
  if (rows == d->blocks * d->rows) d->base = x->args[0], d->n_lead = n_lead;
  return true;
}

ir_ref pass_split_reduce(ir_graph *g, ir_op op, ir_ref x, const int *axes, int n) {
  if (!x) return 0;
  tt_shape s = ir_shape(g, x);
  int64_t count = tt_shape_count(&s), results = 1;
  bool gone[TT_MAX_RANK] = {false};
  for (int i = 0; i < n; i++) gone[axes[i]] = true;
  for (int i = 0; i < s.rank; i++) results *= gone[i] ? 1 : s.dim[i];
  int64_t units = s.rank && !gone[s.rank - 1] ? (results + 15) / 16 : results;      /* what threads can share: vectors, or single results */
  tt_dtype type = (tt_dtype)ir_at(g, x)->dtype;
  int kept;
  int64_t blocks = op == IR_sum && count >= LONG_SUM ? blocks_down(&s, gone, type, &kept) : 1;
  bool cut = blocks > 1 || ((op == IR_sum || op == IR_amax || op == IR_amin) && n > 0 && count >= LONG_SUM && units < TASKS / 2 && takes_parts(type));
  if (!cut) return ir_reduce(g, op, x, axes, n, false);

  /* The outermost summed axis is kept when it is about as long as wanted; else its neighbours join it and it is cut in two. */
  int first = 0, last;
  while (!gone[first]) first++;
  last = first;
  int64_t length = s.dim[first];
  while (length < TASKS / 2 && last + 1 < s.rank && gone[last + 1]) length *= s.dim[++last];
  int64_t parts = last == first && length <= 2 * TASKS ? length : divisor(length, TASKS);
  if (blocks > 1) {
    tt_shape t = {.rank = 2, .dim = {blocks, count / results / blocks}};
    for (int i = kept; i < s.rank; i++) t.dim[t.rank++] = s.dim[i];
    x = ir_reshape(g, x, t);
    memset(gone, 0, sizeof gone);
    gone[0] = gone[1] = true;
    first = 0, s = t;
  } else if (parts < 8) {
    return ir_reduce(g, op, x, axes, n, false);
  } else if (last != first || parts != length) {
    tt_shape t = {.rank = first};
    bool summed[TT_MAX_RANK] = {false};
    if (s.rank - (last - first) + 1 > TT_MAX_RANK) return ir_reduce(g, op, x, axes, n, false);
    memcpy(t.dim, s.dim, (size_t)first * sizeof *t.dim);
    t.dim[t.rank++] = parts;
    summed[t.rank] = true, t.dim[t.rank++] = length / parts;
    for (int i = last + 1; i < s.rank; i++) summed[t.rank] = gone[i], t.dim[t.rank++] = s.dim[i];
    x = ir_reshape(g, x, t);
    memcpy(gone, summed, sizeof gone);
    gone[first] = true;
    s = t;
  }
  int inner[TT_MAX_RANK], n_inner = 0, before = 0;
  for (int i = 0; i < s.rank; i++)
    if (i != first && gone[i]) inner[n_inner++] = i;
  for (int i = 0; i < first; i++) before += !gone[i];
  if (!n_inner) return ir_reduce(g, op, x, axes, n, false);
  ir_ref part = ir_reduce(g, op, x, inner, n_inner, false);
  ir_ref (*rules)(ir_graph *, ir_op, const ir_ref *, uint32_t, const int64_t *, uint32_t) = g->rules;
  g->rules = NULL;                                  /* one of them joins sums of sums */
  ir_ref y = ir_reduce(g, op, part, &before, 1, false);
  g->rules = rules;
  return y;
}
