/* eval_index.c: rows whose places come from data: gather, scatter_add, argsort, dynamic_slice, dynamic_update_slice. */
#include "eval.h"

/* x[.., length, ..] -> y[.., n, ..] by an index of y's shape; an index outside of 0..length-1 gives 0. */
tt_status eval_gather(const ev_call *c) {
  const ir_node *x = ev_arg(c, 0);
  int axis = (int)ir_int(c->n, "axis");
  int64_t length = x->dim[axis], n = c->n->dim[axis], inner = ev_product(x->dim, axis + 1, x->rank), count = ev_count(c->n);
  size_t size = tt_dtype_size(x->dtype);
  int64_t *index = ev_wide_arg(c, 1);            /* a u64 that does not fit is negative, so outside */
  if (!index) return TT_NO_MEMORY;
  for (int64_t p = 0; p < count; p++) {
    char *y = (char *)c->out + (size_t)p * size;
    int64_t at = index[p];
    if (at < 0 || at >= length) memset(y, 0, size);
    else memcpy(y, (const char *)c->args[0] + (size_t)((p / (n * inner) * length + at) * inner + p % inner) * size, size);
  }
  free(index);
  return TT_OK;
}

tt_status eval_scatter_add(const ev_call *c) {
  const ir_node *src = ev_arg(c, 2);
  int axis = (int)ir_int(c->n, "axis");
  int64_t length = c->n->dim[axis], n = src->dim[axis], inner = ev_product(c->n->dim, axis + 1, c->n->rank), count = ev_count(src);
  void *y = ev_wide_arg(c, 0), *from = y ? ev_wide_arg(c, 2) : NULL;
  int64_t *index = from ? ev_wide_arg(c, 1) : NULL;
  if (index) {
    EV_FOR_SUMS(ev_class_of(c->n->dtype),
      for (int64_t p = 0; p < count; p++)
        if (index[p] >= 0 && index[p] < length) ((W *)y)[(p / (n * inner) * length + index[p]) * inner + p % inner] += ((const W *)from)[p];);
    ev_narrow(c->n->dtype, y, ev_count(c->n), c->out, 0);
  }
  tt_status status = index ? TT_OK : TT_NO_MEMORY;
  free(y);
  free(from);
  free(index);
  return status;
}

/* Bottom-up merge sort of a line of numbers: stable, and NaN is the largest. from and to: room for n positions each;
 * the sorted positions are in the one returned. */
static int64_t *sort_line(ev_class cls, const void *line, int64_t step, int64_t n, bool descending, int64_t *from, int64_t *to) {
  for (int64_t i = 0; i < n; i++) from[i] = i;
  for (int64_t width = 1; width < n; width *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * width) {
      int64_t middle = begin + width < n ? begin + width : n, end = middle + width < n ? middle + width : n, i = begin, j = middle;
      EV_BY_CLASS(cls,
        const W *x = line;
        for (int64_t k = begin; k < end; k++) {
          bool right = i == middle;
          if (!right && j < end) {
            W a = x[from[i] * step], b = x[from[j] * step];
            right = descending ? EV_CALL(above, b, a) : EV_CALL(above, a, b);
          }
          to[k] = right ? from[j++] : from[i++];
        });
    }
    int64_t *swap = from;
    from = to;
    to = swap;
  }
  return from;
}

tt_status eval_argsort(const ev_call *c) {
  const ir_node *x = ev_arg(c, 0);
  int axis = (int)ir_int(c->n, "axis");
  bool descending = ir_int(c->n, "descending");
  int64_t n = x->dim[axis], outer = ev_product(x->dim, 0, axis), inner = ev_product(x->dim, axis + 1, x->rank), *out = c->out;
  void *data = ev_wide_arg(c, 0);
  int64_t *room = data ? ev_scratch(c, 2 * n) : NULL;
  if (room)
    for (int64_t o = 0; o < outer; o++)
      for (int64_t i = 0; i < inner; i++) {
        const int64_t *sorted = sort_line(ev_class_of(x->dtype), (const uint64_t *)data + o * n * inner + i, inner, n, descending, room, room + n);
        for (int64_t k = 0; k < n; k++) out[(o * n + k) * inner + i] = sorted[k];
      }
  tt_status status = room ? TT_OK : TT_NO_MEMORY;
  free(data);
  free(room);
  return status;
}

/* Copies the box of `part` at `start` (clamped so that it fits) between `whole` and dense `box`; into: from box to whole. */
static void copy_box(const ir_node *whole, const ir_node *part, const int64_t *start, char *data, char *box, bool into) {
  int rank = part->rank, outer = rank ? rank - 1 : 0;
  size_t size = tt_dtype_size(whole->dtype);
  int64_t index[TT_MAX_RANK] = {0}, row = rank ? part->dim[outer] : 1;
  if (!ev_count(part)) return;
  do {
    int64_t at = 0;
    for (int i = 0; i < rank; i++) at = at * whole->dim[i] + index[i] + ev_clamp(start[i], 0, whole->dim[i] - part->dim[i]);
    char *place = data + (size_t)at * size;
    memcpy(into ? place : box, into ? box : place, (size_t)row * size);
    box += (size_t)row * size;
  } while (ev_next(outer, part->dim, index));
}

tt_status eval_dynamic_slice(const ev_call *c) {
  copy_box(ev_arg(c, 0), c->n, c->args[1], (char *)c->args[0], c->out, false);
  return TT_OK;
}

tt_status eval_dynamic_update_slice(const ev_call *c) {
  memcpy(c->out, c->args[0], (size_t)ev_count(c->n) * tt_dtype_size(c->n->dtype));
  copy_box(c->n, ev_arg(c, 1), c->args[2], c->out, (char *)c->args[1], true);
  return TT_OK;
}
