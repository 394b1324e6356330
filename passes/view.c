/* view.c: movement rows as strides. A view starts as the dense data of a row; each movement row above it changes sizes, strides and the
 * offset. Reshape may cut a piece in two or join two that lie side by side; where it cannot, the row is not a view.
 *
 *     x: f32[6,4]                     axis 0: 6*4        axis 1: 4*1
 *     permute(x, [1,0])               axis 0: 4*1        axis 1: 6*4
 *     reshape(that, [2,2,6])          axis 0: 2*2        axis 1: 2*1        axis 2: 6*4 */
#include "form.h"

#include <string.h>

static void add(view *v, int64_t size, int64_t stride, int axis) {
  if (size == 1) return;
  v->piece[v->n].size = size;
  v->piece[v->n].stride = stride;
  v->piece[v->n++].axis = axis;
}

view view_dense(tt_shape s) {
  view v = {.rank = s.rank};
  int64_t stride[TT_MAX_RANK], step = 1;
  for (int i = s.rank - 1; i >= 0; i--) stride[i] = step, step *= s.dim[i];
  for (int i = 0; i < s.rank; i++) {
    v.dim[i] = s.dim[i];
    add(&v, s.dim[i], stride[i], i);
  }
  return v;
}

/* Joins neighbours that count on from each other; across axes when asked. */
static void join(view *v, bool across) {
  int n = 0;
  for (int i = 0; i < v->n; i++) {
    bool side_by_side = n && (across || v->piece[n - 1].axis == v->piece[i].axis)
                     && v->piece[n - 1].stride == v->piece[i].size * v->piece[i].stride;
    if (side_by_side) {
      v->piece[n - 1].size *= v->piece[i].size;
      v->piece[n - 1].stride = v->piece[i].stride;
    } else v->piece[n++] = v->piece[i];
  }
  v->n = n;
}

static bool reshape(view *v, const ir_node *r) {
  for (int i = 0; i < v->rank; i++)
    if (v->dim[i] == 0) return false;
  view from = *v, back = {.rank = r->rank, .offset = v->offset};      /* back: pieces from the last to the first */
  join(&from, true);
  for (int axis = r->rank - 1; axis >= 0; axis--) {
    back.dim[axis] = r->dim[axis];
    for (int64_t need = r->dim[axis]; need > 1;) {
      if (!from.n || back.n == VIEW_PIECES) return false;
      int64_t size = from.piece[from.n - 1].size, stride = from.piece[from.n - 1].stride;
      if (need % size == 0) {
        add(&back, size, stride, axis);
        need /= size;
        from.n--;
      } else if (size % need == 0) {
        add(&back, need, stride, axis);
        from.piece[from.n - 1].size = size / need;
        from.piece[from.n - 1].stride = stride * need;
        need = 1;
      } else return false;
    }
  }
  *v = back;
  for (int i = 0; i < v->n; i++) v->piece[i] = back.piece[back.n - 1 - i];
  join(v, false);
  return true;
}

/* Axis i of the new view is axis from[i] of the old one (-1: a new axis), with size dim[i]. */
static bool take_axes(view *v, const int *from, int rank, const int64_t *dim) {
  view to = {.rank = rank, .offset = v->offset};
  for (int i = 0; i < rank; i++) {
    to.dim[i] = dim[i];
    if (from[i] < 0 || v->dim[from[i]] != dim[i]) {
      if (to.n == VIEW_PIECES) return false;
      add(&to, dim[i], 0, i);
      continue;
    }
    for (int k = 0; k < v->n; k++)
      if (v->piece[k].axis == from[i]) {
        if (to.n == VIEW_PIECES) return false;
        add(&to, v->piece[k].size, v->piece[k].stride, i);
      }
  }
  *v = to;
  return true;
}

static bool slice(view *v, const ir_node *r) {
  int count;
  const int64_t *start = ir_ints(r, "start", &count), *step = ir_ints(r, "step", &count);
  view to = {.rank = v->rank, .offset = v->offset};
  for (int i = 0; i < v->rank; i++) {
    int first = -1, pieces = 0;
    for (int k = 0; k < v->n; k++)
      if (v->piece[k].axis == i) {
        if (!pieces++) first = k;
      }
    to.dim[i] = r->dim[i];
    if (r->dim[i] == v->dim[i]) {
      for (int k = 0; k < pieces; k++) add(&to, v->piece[first + k].size, v->piece[first + k].stride, i);
    } else if (pieces == 1) {
      to.offset += start[i] * v->piece[first].stride;
      add(&to, r->dim[i], step[i] * v->piece[first].stride, i);
    } else return false;
  }
  *v = to;
  return true;
}

bool view_apply(view *v, const ir_node *r) {
  int count, from[TT_MAX_RANK];
  switch (r->op) {
  case IR_reshape: return reshape(v, r);
  case IR_slice: return slice(v, r);
  case IR_permute: {
    const int64_t *perm = ir_ints(r, "perm", &count);
    for (int i = 0; i < r->rank; i++) from[i] = (int)perm[i];
    return take_axes(v, from, r->rank, r->dim);
  }
  case IR_broadcast: {
    const int64_t *dims = ir_ints(r, "dims", &count);
    for (int i = 0; i < r->rank; i++) from[i] = -1;
    for (int i = 0; i < count; i++) from[dims[i]] = i;
    return take_axes(v, from, r->rank, r->dim);
  }
  case IR_reverse: {
    const int64_t *axes = ir_ints(r, "axes", &count);
    for (int k = 0; k < v->n; k++)
      for (int i = 0; i < count; i++)
        if (v->piece[k].axis == axes[i]) {
          v->offset += (v->piece[k].size - 1) * v->piece[k].stride;
          v->piece[k].stride = -v->piece[k].stride;
        }
    return true;
  }
  default: return false;
  }
}

bool view_equal(const view *a, const view *b) {
  if (a->rank != b->rank || a->n != b->n || a->offset != b->offset) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  for (int i = 0; i < a->n; i++)
    if (a->piece[i].size != b->piece[i].size || a->piece[i].stride != b->piece[i].stride || a->piece[i].axis != b->piece[i].axis) return false;
  return true;
}

bool view_strided(const view *v) {
  for (int i = 0; i < v->rank; i++)
    if (v->dim[i] == 0) return false;
  for (int i = 1; i < v->n; i++)
    if (v->piece[i].axis == v->piece[i - 1].axis) return false;
  return true;
}
