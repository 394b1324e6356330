/* place.c: offsets in one arena for buffers whose lives are known.
 *
 * Buffers are placed one after another, each into the tightest gap that is free all its life. What comes out depends on the order, so a
 * few are tried: by size, by size times life, by life, by birth. Where the best of them is above the bound (the most bytes that are alive
 * at once), the buffers that stick out at the top are moved to the front of the order, and all is placed again: they were late, and found
 * the room near the bottom cut up. That is repeated while it helps, within a fixed amount of work. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

int64_t pass_bytes(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return tt_shape_count(&s) * (int64_t)tt_dtype_size((tt_dtype)ir_at(g, r)->dtype);
}

int64_t place_bound(const place_buffer *b, int n, int *at) {
  int end = 0;
  for (int i = 0; i < n; i++) end = b[i].last > end ? b[i].last : end;
  int64_t *change = calloc((size_t)end + 2, sizeof *change), now = 0, most = 0;
  if (!change) return -1;
  for (int i = 0; i < n; i++) change[b[i].first] += b[i].bytes, change[b[i].last + 1] -= b[i].bytes;
  *at = 0;
  for (int k = 0; k <= end; k++)
    if ((now += change[k]) > most) most = now, *at = k;
  free(change);
  return most;
}

static int by_first(const place_buffer *x, const place_buffer *y) { return x->first != y->first ? (x->first > y->first) - (x->first < y->first) : (x > y) - (x < y); }
static int larger_first(const void *a, const void *b) {
  const place_buffer *x = *(place_buffer *const *)a, *y = *(place_buffer *const *)b;
  return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : by_first(x, y);
}
static int longer_first(const void *a, const void *b) {
  const place_buffer *x = *(place_buffer *const *)a, *y = *(place_buffer *const *)b;
  int p = x->last - x->first, q = y->last - y->first;
  return p != q ? (p < q) - (p > q) : larger_first(a, b);
}
static int heavier_first(const void *a, const void *b) {
  const place_buffer *x = *(place_buffer *const *)a, *y = *(place_buffer *const *)b;
  double p = (double)x->bytes * (x->last - x->first + 1), q = (double)y->bytes * (y->last - y->first + 1);
  return p != q ? (p < q) - (p > q) : by_first(x, y);
}
static int earlier_first(const void *a, const void *b) { return by_first(*(place_buffer *const *)a, *(place_buffer *const *)b); }

/* Offsets for buffers taken in this order; the bytes of the arena. placed: room for as many pointers. */
static int64_t place_in_order(place_buffer **list, int n, place_buffer **placed) {
  int64_t peak = 0;
  for (int i = 0; i < n; i++) {                          /* placed: by offset */
    place_buffer *b = list[i];
    int64_t end = 0, best = -1, tightest = INT64_MAX;
    for (int k = 0; k < i; k++) {
      const place_buffer *o = placed[k];
      if (o->last < b->first || o->first > b->last) continue;
      int64_t gap = o->offset - end;
      if (gap >= b->bytes && gap < tightest) best = end, tightest = gap;
      if (o->offset + o->bytes > end) end = o->offset + o->bytes;
    }
    b->offset = best >= 0 ? best : end;
    if (b->offset + b->bytes > peak) peak = b->offset + b->bytes;
    int at = i;
    for (; at > 0 && placed[at - 1]->offset > b->offset; at--) placed[at] = placed[at - 1];
    placed[at] = b;
  }
  return peak;
}

/* Those that end above `bound` to the front, the others behind them in the order they have. */
static void front(place_buffer **list, int n, int64_t bound, place_buffer **moved) {
  int m = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < n; i++)
      if ((list[i]->offset + list[i]->bytes > bound) == (pass == 0)) moved[m++] = list[i];
  memcpy(list, moved, (size_t)n * sizeof *list);
}

int64_t place_buffers(place_buffer *b, int n) {
  static int (*const orders[])(const void *, const void *) = {larger_first, heavier_first, longer_first, earlier_first};
  enum { ORDERS = 4, WORK = 20000000 };                  /* pairs of buffers looked at by repairs */
  size_t size = ((size_t)n + 1) * sizeof(place_buffer *);
  place_buffer **list = malloc(size), **placed = malloc(size), **kept = malloc(size);
  int peak_at;
  int64_t bound = place_bound(b, n, &peak_at), best = list && placed && kept && bound >= 0 ? INT64_MAX : -1;
  int repairs = n ? (int)(WORK / ORDERS / ((int64_t)n * n)) : 0;
  for (int o = 0; o < ORDERS && best >= 0 && best > bound; o++) {
    for (int i = 0; i < n; i++) list[i] = &b[i];
    qsort(list, (size_t)n, sizeof *list, orders[o]);
    for (int k = 0; k <= (repairs < 40 ? repairs : 40) && best > bound; k++) {
      if (k) front(list, n, bound, placed);
      int64_t bytes = place_in_order(list, n, placed);
      if (bytes < best) best = bytes, memcpy(kept, list, size - sizeof *kept);
    }
  }
  if (best >= 0) best = place_in_order(kept, n, placed);
  free(list), free(placed), free(kept);
  return best;
}
