/* products.c: matmul by PyTorch's rules for vectors and batches, and einsum of one or two operands, both as reshapes and permutes
 * around one matmul row. */
#include "frontend.h"

static tt_shape with_matrix(tt_shape batch, int64_t rows, int64_t columns) {
  batch.dim[batch.rank++] = rows;
  batch.dim[batch.rank++] = columns;
  return batch;
}

tt_val tt_matmul_at(tt_here here, tt_val a, tt_val b) {
  OPEN("matmul", here, a, b);
  tt_shape p = tt_shape_of(a), q = tt_shape_of(b), batch;
  if (tt_dtype_of(a) != tt_dtype_of(b))
    WRONG("use tt_cast on one of them", "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(a)), tt_dtype_name(tt_dtype_of(b)));
  if (!tt_dtype_in(tt_dtype_of(a), TT_NUM)) WRONG("use tt_cast to make them f32", "it takes no %s", tt_dtype_name(tt_dtype_of(a)));
  if (!p.rank || !q.rank) WRONG("use tt_mul to scale by a number", "a scalar is no matrix");
  bool left = p.rank == 1, right = q.rank == 1;
  if (left) p = TT_SHAPE(1, p.dim[0]);
  if (right) q = TT_SHAPE(q.dim[0], 1);
  int64_t m = p.dim[p.rank - 2], k = p.dim[p.rank - 1], k2 = q.dim[q.rank - 2], n = q.dim[q.rank - 1];
  if (k != k2) {
    if (n == k && q.rank == 2 && !right)
      WRONG("the second looks transposed; pass tt_transpose(b, 0, 1), or use tt_f_linear", "inner sizes differ, %lld and %lld", (long long)k,
            (long long)k2);
    WRONG("the last axis of the first must be as long as the last but one of the second", "inner sizes differ, %lld and %lld", (long long)k,
          (long long)k2);
  }
  tt_shape pb = p, qb = q;
  pb.rank -= 2, qb.rank -= 2;
  if (!trace_broadcasts(&pb, &qb, &batch)) WRONG("leading axes must be equal, or 1", "the batches do not broadcast");
  ir_ref x = ir_reshape(g, a.ref, p), y = ir_reshape(g, b.ref, q), r;
  if (qb.rank == 0 && pb.rank) {          /* one matrix for all: the batch's rows are rows */
    r = ir_matmul(g, ir_reshape(g, x, TT_SHAPE(tt_shape_count(&pb) * m, k)), y, false, false, 1);
    if (r) r = ir_reshape(g, r, with_matrix(batch, m, n));
  } else {
    x = ir_broadcast_to(g, x, with_matrix(batch, m, k));
    y = ir_broadcast_to(g, y, with_matrix(batch, k, n));
    r = x && y ? ir_matmul(g, x, y, false, false, 1) : 0;
  }
  tt_shape out = batch;
  if (!left) out.dim[out.rank++] = m;
  if (!right) out.dim[out.rank++] = n;
  DONE(r && (left || right) ? ir_reshape(g, r, out) : r);
}

/* -- einsum -------------------------------------------------------------------------------------------------------------- */

typedef struct { char label[TT_MAX_RANK + 1]; tt_val v; } operand;        /* one letter an axis */

static int find(const char *labels, char c) {
  const char *at = strchr(labels, c);
  return at ? (int)(at - labels) : -1;
}

static void append(char *labels, char c) {
  size_t n = strlen(labels);
  labels[n] = c;
  labels[n + 1] = 0;
}

/* "ij,jk->ik" into the labels of n operands and of the result; without "->" the result has the letters that occur once, in
 * alphabetical order. */
static bool parse(tt_call *c, const char *equation, operand *in, int n, char *out) {
  int k = 0, length = 0, count[128] = {0};
  const char *p = equation;
  for (; *p && *p != '-'; p++) {
    if (*p == ' ') continue;
    bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
    if (*p == ',' && k + 1 < n) k++, length = 0;
    else if (letter && length < TT_MAX_RANK) in[k].label[length++] = *p, count[(int)*p]++;
    else return trace_wrong(c, *p == '.' ? "write the leading axes as letters" : "write one letter an axis and a comma between operands",
                            "cannot read \"%s\" at \"%s\" with %d operands", equation, p, n), false;
  }
  int used = 0;
  if (k + 1 != n) return trace_wrong(c, "name the axes of every operand", "\"%s\" names %d operands, but %d are given", equation, k + 1, n), false;
  if (!*p) {
    for (int l = 0; l < 128 && used < TT_MAX_RANK; l++)
      if (count[l] == 1) out[used++] = (char)l;
    return true;
  }
  if (*++p != '>') return trace_wrong(c, "write -> before the result's axes", "cannot read \"%s\"", equation), false;
  for (p++; *p; p++) {
    if (*p == ' ') continue;
    if ((unsigned char)*p > 127 || !count[(int)*p] || find(out, *p) >= 0 || used == TT_MAX_RANK)
      return trace_wrong(c, "name each axis of the result once, and only axes of the operands", "\"%s\": the result cannot have \"%c\" there",
                         equation, *p), false;
    out[used++] = *p;
  }
  return true;
}

/* Takes diagonals of letters that stand twice, and sums away those that neither the result nor the other operand has. */
static void reduce_own(tt_here here, operand *x, const char *keep1, const char *keep2) {
  for (int i = 0; x->label[i]; i++)
    for (int k = i + 1; x->label[k]; k++)
      if (x->label[i] == x->label[k]) {
        char l = x->label[i];
        x->v = tt_diagonal_at(here, x->v, 0, i, k);
        memmove(x->label + k, x->label + k + 1, strlen(x->label + k));
        memmove(x->label + i, x->label + i + 1, strlen(x->label + i));
        append(x->label, l);
        i = -1;
        break;
      }
  tt_ints axes = {0};
  char left[TT_MAX_RANK + 1] = {0};
  int n = 0;
  for (int i = 0; x->label[i]; i++)
    if (find(keep1, x->label[i]) >= 0 || find(keep2, x->label[i]) >= 0) left[n++] = x->label[i];
    else axes.v[axes.n++] = i;
  if (axes.n) x->v = tt_sum_at(here, x->v, axes, false);
  memcpy(x->label, left, sizeof left);
}

static tt_val in_order(tt_here here, const operand *x, const char *order) {
  tt_ints axes = {0};
  for (; *order; order++) axes.v[axes.n++] = find(x->label, *order);
  return tt_permute_at(here, x->v, axes);
}

static int64_t size_of(const operand *x, const char *labels) {
  int64_t n = 1;
  for (; *labels; labels++) n *= tt_dim(x->v, find(x->label, *labels));
  return n;
}

tt_val tt_einsum_at(tt_here here, const char *equation, const tt_val *xs, int n) {
  if (n < 1) return (tt_val){0};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("einsum", here, xs, n);
  if (!call.g) DONE(0);
  if (n > 2) WRONG("multiply them two by two", "%d operands", n);
  operand in[2] = {{.v = xs[0]}, {.v = n == 2 ? xs[1] : xs[0]}};
  char out[TT_MAX_RANK + 1] = {0};
  if (!parse(&call, equation, in, n, out)) DONE(0);
  if (n == 2 && tt_dtype_of(xs[0]) != tt_dtype_of(xs[1]))
    WRONG("use tt_cast on one of them", "element types differ, %s and %s", tt_dtype_name(tt_dtype_of(xs[0])), tt_dtype_name(tt_dtype_of(xs[1])));
  int64_t size[128];
  memset(size, -1, sizeof size);
  for (int k = 0; k < n; k++) {
    if ((int)strlen(in[k].label) != tt_rank(xs[k]))
      WRONG("write one letter an axis", "\"%s\" gives operand %d %d axes, but its rank is %d", equation, k + 1, (int)strlen(in[k].label),
            tt_rank(xs[k]));
    for (int i = 0; in[k].label[i]; i++) {
      int64_t *s = &size[(int)in[k].label[i]];
      if (*s >= 0 && *s != tt_dim(xs[k], i))
        WRONG("axes of one letter must be equally long", "the axis \"%c\" is %lld long in one place and %lld in another", in[k].label[i],
              (long long)*s, (long long)tt_dim(xs[k], i));
      *s = tt_dim(xs[k], i);
    }
  }
  if (n == 1) {
    reduce_own(here, &in[0], out, "");
    return in_order(here, &in[0], out);
  }
  char second[TT_MAX_RANK + 1];
  memcpy(second, in[1].label, sizeof second);
  reduce_own(here, &in[0], out, second);
  reduce_own(here, &in[1], out, in[0].label);
  /* batch: in both and the result; inner: in both only; rows and columns: in one. */
  char batch[TT_MAX_RANK + 1] = {0}, inner[TT_MAX_RANK + 1] = {0}, rows[TT_MAX_RANK + 1] = {0}, columns[TT_MAX_RANK + 1] = {0},
      order[3 * TT_MAX_RANK + 1];
  for (const char *l = in[0].label; *l; l++) append(find(in[1].label, *l) < 0 ? rows : find(out, *l) < 0 ? inner : batch, *l);
  for (const char *l = in[1].label; *l; l++)
    if (find(in[0].label, *l) < 0) append(columns, *l);
  int64_t nb = size_of(&in[0], batch), nk = size_of(&in[0], inner), nm = size_of(&in[0], rows), nn = size_of(&in[1], columns);
  snprintf(order, sizeof order, "%s%s%s", batch, rows, inner);
  tt_val a = tt_reshape_at(here, in_order(here, &in[0], order), *batch ? TT_SHAPE(nb, nm, nk) : TT_SHAPE(nm, nk));
  snprintf(order, sizeof order, "%s%s%s", batch, inner, columns);
  tt_val b = tt_reshape_at(here, in_order(here, &in[1], order), *batch ? TT_SHAPE(nb, nk, nn) : TT_SHAPE(nk, nn));
  snprintf(order, sizeof order, "%s%s%s", batch, rows, columns);
  if (strlen(order) > TT_MAX_RANK) WRONG("merge axes first", "the result has more than %d axes", TT_MAX_RANK);
  operand y = {.v = tt_matmul_at(here, a, b)};
  tt_shape s = {0};
  for (const char *l = order; *l; l++) s.dim[s.rank++] = size[(int)*l];
  memcpy(y.label, order, strlen(order) + 1);
  y.v = tt_reshape_at(here, y.v, s);
  return in_order(here, &y, out);
}
