/* eval_movement.c: rows that only say where elements come from.
 *
 * All of them are one loop over a shape that copies from one strided place to another: permute, broadcast, slice, reverse
 * and unfold read with strides, pad and concat write with strides. Strides and offsets are in bytes. */
#include "eval.h"

typedef struct { int rank; int64_t dim[TT_MAX_RANK], to[TT_MAX_RANK], from[TT_MAX_RANK]; } copy_plan;

#define COPY_ROW(bytes) for (int64_t i = 0; i < n; i++) memcpy(to + i * ts, from + i * fs, bytes)

static void copy(const copy_plan *p, size_t size, char *to, const char *from) {
  if (!ev_product(p->dim, 0, p->rank)) return;
  int outer = p->rank ? p->rank - 1 : 0;
  int64_t n = p->rank ? p->dim[outer] : 1, ts = p->rank ? p->to[outer] : 0, fs = p->rank ? p->from[outer] : 0, index[TT_MAX_RANK] = {0};
  const char *from0 = from;
  char *to0 = to;
  do {
    int64_t t = 0, f = 0;
    for (int i = 0; i < outer; i++) t += index[i] * p->to[i], f += index[i] * p->from[i];
    to = to0 + t, from = from0 + f;
    switch (size) {
      case 1: COPY_ROW(1); break;
      case 2: COPY_ROW(2); break;
      case 4: COPY_ROW(4); break;
      default: COPY_ROW(8); break;
    }
  } while (ev_next(outer, p->dim, index));
}

static void dense_strides(const ev_call *c, const ir_node *n, int64_t *stride) {
  int64_t s = (int64_t)tt_dtype_size(c->n->dtype);
  for (int i = n->rank - 1; i >= 0; i--) stride[i] = s, s *= n->dim[i];
}

/* The plan that fills the result; `from` is left to the caller. */
static copy_plan plan_of_result(const ev_call *c) {
  copy_plan p = {.rank = c->n->rank};
  memcpy(p.dim, c->n->dim, sizeof p.dim);
  dense_strides(c, c->n, p.to);
  return p;
}

/* The plan that reads all of argument i; `to` is left to the caller. */
static copy_plan plan_of_arg(const ev_call *c, uint32_t i) {
  const ir_node *x = ev_arg(c, i);
  copy_plan p = {.rank = x->rank};
  memcpy(p.dim, x->dim, sizeof p.dim);
  dense_strides(c, x, p.from);
  return p;
}

static tt_status run(const ev_call *c, const copy_plan *p, int64_t to, uint32_t arg, int64_t from) {
  if (ev_product(p->dim, 0, p->rank)) copy(p, tt_dtype_size(c->n->dtype), (char *)c->out + to, (const char *)c->args[arg] + from);
  return TT_OK;
}

tt_status eval_reshape(const ev_call *c) {
  memcpy(c->out, c->args[0], (size_t)ev_count(c->n) * tt_dtype_size(c->n->dtype));
  return TT_OK;
}

tt_status eval_permute(const ev_call *c) {
  int n;
  const int64_t *perm = ir_ints(c->n, "perm", &n);
  copy_plan p = plan_of_result(c);
  int64_t stride[TT_MAX_RANK];
  dense_strides(c, ev_arg(c, 0), stride);
  for (int i = 0; i < n; i++) p.from[i] = stride[perm[i]];
  return run(c, &p, 0, 0, 0);
}

tt_status eval_broadcast(const ev_call *c) {
  int n;
  const int64_t *dims = ir_ints(c->n, "dims", &n);
  const ir_node *x = ev_arg(c, 0);
  copy_plan p = plan_of_result(c);
  int64_t stride[TT_MAX_RANK];
  dense_strides(c, x, stride);
  for (int i = 0; i < n; i++) p.from[dims[i]] = x->dim[i] == 1 ? 0 : stride[i];
  return run(c, &p, 0, 0, 0);
}

tt_status eval_slice(const ev_call *c) {
  int n;
  const int64_t *start = ir_ints(c->n, "start", &n), *step = ir_ints(c->n, "step", &n);
  copy_plan p = plan_of_result(c);
  int64_t stride[TT_MAX_RANK], at = 0;
  dense_strides(c, ev_arg(c, 0), stride);
  for (int i = 0; i < n; i++) p.from[i] = stride[i] * step[i], at += stride[i] * start[i];
  return run(c, &p, 0, 0, at);
}

tt_status eval_pad(const ev_call *c) {
  int n;
  const int64_t *lo = ir_ints(c->n, "lo", &n), *interior = ir_ints(c->n, "interior", &n);
  copy_plan fill = plan_of_result(c), p = plan_of_arg(c, 0);
  int64_t at = 0;
  for (int i = 0; i < n; i++) p.to[i] = fill.to[i] * (interior[i] + 1), at += fill.to[i] * lo[i];
  run(c, &fill, 0, 1, 0);
  return run(c, &p, at, 0, 0);
}

tt_status eval_concat(const ev_call *c) {
  int64_t axis = ir_int(c->n, "axis"), at = 0;
  copy_plan whole = plan_of_result(c);
  for (uint32_t i = 0; i < c->n->n_args; i++) {
    copy_plan p = plan_of_arg(c, i);
    memcpy(p.to, whole.to, sizeof p.to);
    run(c, &p, at, i, 0);
    at += p.dim[axis] * p.to[axis];
  }
  return TT_OK;
}

tt_status eval_reverse(const ev_call *c) {
  int n;
  const int64_t *axes = ir_ints(c->n, "axes", &n);
  copy_plan p = plan_of_result(c);
  int64_t at = 0;
  memcpy(p.from, p.to, sizeof p.from);
  for (int i = 0; i < n; i++) at += (p.dim[axes[i]] - 1) * p.to[axes[i]], p.from[axes[i]] = -p.to[axes[i]];
  return run(c, &p, 0, 0, at);
}

tt_status eval_unfold(const ev_call *c) {
  int64_t axis = ir_int(c->n, "axis"), stride = ir_int(c->n, "stride"), dilation = ir_int(c->n, "dilation");
  copy_plan p = plan_of_result(c);
  dense_strides(c, ev_arg(c, 0), p.from);
  p.from[p.rank - 1] = p.from[axis] * dilation;
  p.from[axis] *= stride;
  return run(c, &p, 0, 0, 0);
}
