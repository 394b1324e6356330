/* trim.c: computes only what is read. Of each row the box of elements that anybody reads is found, from the results down, and where that is clearly
 * less than the row, the row is made of that size: slices sink into what makes the value that they are taken from, through any number of rows.
 * Along an axis a box has the same places of every period: where [4,64] are one axis of 256, the last of the 64 are the last of each period of 64.
 *
 *     %h = matmul(%x, %w) : f32[4,64,512]                     %t = slice(%x, start=[0,63,0], ...) : f32[4,1,128]
 *     %y = softmax(%h)                                gives   %h = matmul(%t, %w) : f32[4,1,512]
 *     %z = slice(%y, start=[0,63,0], ...)                     %z = softmax(%h)
 *
 * A row that several read is made of the smallest box that has all that they want. Axes that are summed, sorted or windowed are always whole. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

typedef struct { int64_t lo, hi, period; } range;      /* i with lo <= i % period < hi; the period divides the axis */
typedef struct { range at[TT_MAX_RANK]; } box;
typedef struct { const ir_graph *in; ir_graph *out; box *made; bool *wanted; ir_ref *map; } trimmer;

static range all_of(int64_t dim) { return (range){0, dim, dim}; }
static bool is_all(range r) { return r.lo == 0 && r.hi == r.period; }
static bool same(range a, range b) { return a.lo == b.lo && a.hi == b.hi && a.period == b.period; }

static box whole(const ir_graph *g, ir_ref r) {
  box b = {{{0}}};
  for (int i = 0; i < ir_at(g, r)->rank; i++) b.at[i] = all_of(ir_at(g, r)->dim[i]);
  return b;
}

static int64_t length(range r, int64_t dim) { return r.period ? dim / r.period * (r.hi - r.lo) : 0; }

static tt_shape shape_of(const ir_node *n, const box *b) {
  tt_shape s = {.rank = n->rank};
  for (int i = 0; i < s.rank; i++) s.dim[i] = length(b->at[i], n->dim[i]);
  return s;
}

/* The argument's part for a part of a reshape: groups of axes with equal products. uncut: result axes of which all is needed; may be NULL. */
static void through_reshape(const ir_node *n, const ir_node *a, const box *b, box *to, bool *uncut) {
  for (int j = 0, m = 0; j < n->rank || m < a->rank;) {
    int j0 = j, m0 = m, cut = -1, cuts = 0;
    int64_t p = 1, q = 1;
    do {
      if (j < n->rank && (p <= q || m == a->rank)) p *= n->dim[j++];
      else q *= a->dim[m++];
    } while (p != q);
    for (int i = j0; i < j; i++)
      if (!is_all(b->at[i])) cut = i, cuts++;
    if (!cuts) continue;
    int64_t inner = 1;
    for (int i = cut + 1; i < j; i++) inner *= n->dim[i];
    range r = {b->at[cut].lo * inner, b->at[cut].hi * inner, b->at[cut].period * inner};      /* of the group as one axis */
    bool done = false;
    inner = 1;
    for (int i = m - 1; i >= m0 && cuts == 1 && !done; inner *= a->dim[i--])
      if (a->dim[i] * inner % r.period == 0 && r.lo % inner == 0 && r.hi % inner == 0 && r.period % inner == 0)
        to->at[i] = (range){r.lo / inner, r.hi / inner, r.period / inner}, done = true;
    for (int i = j0; i < j && uncut; i++) uncut[i] = !done;
  }
}

/* The part of an argument's axis that stands from `before` on; false: nothing of it is in r. */
static bool cut_out(range *to, range r, int64_t before) {
  to->lo = r.lo > before ? r.lo - before : 0;
  if (r.hi - before < to->hi) to->hi = r.hi - before;
  return to->lo < to->hi;
}

/* The part of argument k that box b of row r needs; false: nothing of it. */
static bool needs(const ir_graph *g, ir_ref r, uint32_t k, const box *b, box *to) {
  const ir_node *n = ir_at(g, r), *a = ir_at(g, n->args[k]);
  *to = whole(g, n->args[k]);
#define TAKE(to_axis, axis) (to->at[to_axis] = b->at[axis])
  if (ir_ops[n->op].kind == IR_ELEMENTWISE) return *to = *b, true;
  switch (n->op) {
  case IR_broadcast:
    for (int i = 0; i < a->rank; i++)
      if (a->dim[i] != 1) TAKE(i, ir_ints(n, "dims", NULL)[i]);
    return true;
  case IR_permute:
    for (int i = 0; i < n->rank; i++) TAKE(ir_ints(n, "perm", NULL)[i], i);
    return true;
  case IR_reshape: return through_reshape(n, a, b, to, NULL), true;
  case IR_slice:
    for (int i = 0; i < n->rank; i++) {
      int64_t start = ir_ints(n, "start", NULL)[i], step = ir_ints(n, "step", NULL)[i];
      if (n->dim[i] == a->dim[i]) TAKE(i, i);
      else to->at[i] = (range){start + b->at[i].lo * step, start + (b->at[i].hi - 1) * step + 1, a->dim[i]};
    }
    return true;
  case IR_pad:
    if (k == 1) return true;
    for (int i = 0; i < n->rank; i++) {
      int64_t lo = ir_ints(n, "lo", NULL)[i];
      if (n->dim[i] == a->dim[i]) TAKE(i, i);
      else if (!ir_ints(n, "interior", NULL)[i] && !cut_out(&to->at[i], b->at[i], lo)) return false;
    }
    return true;
  case IR_concat: {
    int axis = (int)ir_int(n, "axis");
    int64_t before = 0;
    for (uint32_t j = 0; j < k; j++) before += ir_at(g, n->args[j])->dim[axis];
    *to = *b;
    to->at[axis] = all_of(a->dim[axis]);
    return cut_out(&to->at[axis], b->at[axis], before);
  }
  case IR_reverse: {
    int count;
    const int64_t *axes = ir_ints(n, "axes", &count);
    *to = *b;
    for (int i = 0; i < count; i++) {
      range *x = &to->at[axes[i]];
      *x = (range){x->period - x->hi, x->period - x->lo, x->period};
    }
    return true;
  }
  case IR_gather: case IR_cumsum:
    for (int i = 0; i < n->rank; i++)
      if ((n->op == IR_gather && k == 1) || i != ir_int(n, "axis")) TAKE(i, i);
    return true;
  case IR_unfold: {
    int axis = (int)ir_int(n, "axis");
    for (int i = 0; i < a->rank; i++) TAKE(i, i);
    to->at[axis] = (range){b->at[axis].lo * ir_int(n, "stride"), (b->at[axis].hi - 1) * ir_int(n, "stride") + (n->dim[a->rank] - 1) * ir_int(n, "dilation") + 1, a->dim[axis]};
    return true;
  }
  case IR_matmul: {
    int last = n->rank - 1, own = k ? last : last - 1, t = ir_int(n, k ? "tb" : "ta");
    if (ir_int(n, "split") > 1) return true;
    for (int i = 0; i < last - 1; i++) TAKE(i, i);
    TAKE(k ? (t ? last - 1 : last) : (t ? last : last - 1), own);
    return true;
  }
  case IR_conv:
    if (ir_int(n, "split") > 1) return true;
    if (k == 0) TAKE(0, 0), TAKE(1, 1);
    else TAKE(0, 1), TAKE(1, 2);
    return true;
  default:
    if (form_is_reduction((ir_op)n->op)) {
      int count = 1, kept = 0;
      bool arg = n->op == IR_argmax || n->op == IR_argmin, gone[TT_MAX_RANK] = {false};
      const int64_t *axes = arg ? NULL : ir_ints(n, "axes", &count);
      for (int i = 0; i < count; i++) gone[arg ? ir_int(n, "axis") : axes[i]] = true;
      for (int i = 0; i < a->rank; i++)
        if (!gone[i]) TAKE(i, kept), kept++;
    }
    return true;
  }
#undef TAKE
}

/* The box that row r is made of, when b is wanted of it: axes that it can't be cut along are whole. */
static box makes(const ir_graph *g, ir_ref r, const box *b) {
  const ir_node *n = ir_at(g, r), *a = n->n_args ? ir_at(g, n->args[0]) : NULL;
  box all = whole(g, r), c = *b;
  bool uncut[TT_MAX_RANK] = {false}, fixed = !a || ((n->op == IR_matmul || n->op == IR_conv) && ir_int(n, "split") > 1);
  for (int i = 0; i < n->rank; i++) {                   /* movement along an axis keeps to intervals of it */
    bool moves = n->op == IR_slice || n->op == IR_pad ? n->dim[i] != a->dim[i] : (n->op == IR_concat || n->op == IR_unfold) && i == ir_int(n, "axis");
    uncut[i] = moves && c.at[i].period != n->dim[i];
  }
  switch (n->op) {
  case IR_reshape: {
    box none = all;
    through_reshape(n, a, b, &none, uncut);
    break;
  }
  case IR_pad:
    for (int i = 0; i < n->rank; i++) uncut[i] |= ir_ints(n, "interior", NULL)[i] != 0;
    break;
  case IR_cumsum: uncut[ir_int(n, "axis")] = true; break;
  case IR_unfold: uncut[n->rank - 1] = true; break;
  case IR_conv:
    for (int i = 3; i < n->rank; i++) uncut[i] = true;
    break;
  case IR_broadcast: case IR_permute: case IR_slice: case IR_concat: case IR_reverse: case IR_gather: case IR_matmul: break;
  default: fixed |= ir_ops[n->op].kind != IR_ELEMENTWISE && !form_is_reduction((ir_op)n->op);
  }
  for (int i = 0; i < n->rank; i++)
    if (uncut[i]) c.at[i] = all.at[i];
  tt_shape part = shape_of(n, &c), full = ir_shape(g, r);
  return fixed || (double)tt_shape_count(&part) > 0.75 * (double)tt_shape_count(&full) ? all : c;
}

static void want(trimmer *t, ir_ref r, const box *b) {
  for (int i = 0; i < ir_at(t->in, r)->rank; i++) {
    range *m = &t->made[r].at[i], w = b->at[i];
    if (!t->wanted[r]) *m = w;
    else if (m->period != w.period) *m = all_of(ir_at(t->in, r)->dim[i]);
    else *m = (range){m->lo < w.lo ? m->lo : w.lo, m->hi > w.hi ? m->hi : w.hi, m->period};
  }
  t->wanted[r] = true;
}

/* Box b of row r of the old graph, of which the new one has made a box that has it all. */
static ir_ref part(const trimmer *t, ir_ref r, const box *b) {
  const ir_node *n = ir_at(t->in, r);
  const box *m = &t->made[r];
  tt_shape s = shape_of(n, m);
  ir_ref x = t->map[r];
  for (int i = 0; i < n->rank; i++) {
    range from = m->at[i], to = b->at[i];
    if (same(from, to)) continue;
    if (from.period != to.period) from = (range){0, to.period, to.period};              /* it is all there */
    tt_shape three = {3, {1, from.hi - from.lo, 1}};
    for (int k = 0; k < i; k++) three.dim[0] *= s.dim[k];
    for (int k = i + 1; k < n->rank; k++) three.dim[2] *= s.dim[k];
    s.dim[i] = length(to, n->dim[i]);
    if (to.period == n->dim[i]) {
      x = ir_slice_axis(t->out, x, i, to.lo - from.lo, to.hi - from.lo, 1);
      continue;
    }
    three.dim[0] *= n->dim[i] / to.period;
    x = ir_reshape(t->out, ir_slice_axis(t->out, ir_reshape(t->out, x, three), 1, to.lo - from.lo, to.hi - from.lo, 1), s);
  }
  return x;
}

/* Row r, of the size of its box: 0 where it is made as it was, of whole arguments. */
static ir_ref smaller(const trimmer *t, ir_ref r) {
  const ir_node *n = ir_at(t->in, r);
  ir_graph *g = t->out;
  const box *b = &t->made[r];
  box all = whole(t->in, r), need;
  bool cut = memcmp(&all, b, sizeof all) != 0;
  for (uint32_t k = 0; k < n->n_args; k++) {
    box w = whole(t->in, n->args[k]);
    cut |= memcmp(&w, &t->made[n->args[k]], sizeof w) != 0;
  }
  if (!cut || n->op == IR_assign) return 0;
  tt_shape s = shape_of(n, b);
  ir_ref few[8], *args = n->n_args <= 8 ? few : malloc(n->n_args * sizeof *args), y = 0;
  uint32_t m = 0;
  if (!args) return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory for a row of @%s\n  at %u operands\n  fix: free memory", t->in->name, n->n_args), 0;
  for (uint32_t k = 0; k < n->n_args; k++)
    if (needs(t->in, r, k, b, &need)) args[m++] = part(t, n->args[k], &need);
  int64_t lo[TT_MAX_RANK] = {0}, hi[TT_MAX_RANK];
  int list[TT_MAX_RANK], count = 0;
  switch (n->op) {
  case IR_broadcast:
    for (int i = 0; i < ir_at(t->in, n->args[0])->rank; i++) list[i] = (int)ir_ints(n, "dims", NULL)[i];
    y = ir_broadcast(g, args[0], s, list);
    break;
  case IR_reshape: y = ir_reshape(g, args[0], s); break;
  case IR_slice:
    for (int i = 0; i < n->rank; i++) hi[i] = ir_at(g, args[0])->dim[i];
    y = ir_slice(g, args[0], lo, hi, ir_ints(n, "step", NULL));
    break;
  case IR_concat: y = m == 1 ? args[0] : ir_concat(g, args, (int)m, (int)ir_int(n, "axis")); break;
  case IR_pad:
    if (m < 2) {                                       /* of the padding alone */
      y = ir_broadcast_to(g, args[0], s);
      break;
    }
    needs(t->in, r, 0, b, &need);
    for (int i = 0; i < n->rank; i++) {
      int64_t inside = (ir_at(g, args[0])->dim[i] - 1) * (ir_ints(n, "interior", NULL)[i] + 1) + 1;
      bool moves = n->dim[i] != ir_at(t->in, n->args[0])->dim[i];
      lo[i] = moves ? need.at[i].lo + ir_ints(n, "lo", NULL)[i] - b->at[i].lo : 0, hi[i] = s.dim[i] - lo[i] - inside;
    }
    y = ir_pad(g, args[0], args[1], lo, hi, ir_ints(n, "interior", NULL));
    break;
  case IR_reverse: case IR_permute: {
    const int64_t *axes = ir_ints(n, n->op == IR_permute ? "perm" : "axes", &count);
    for (int i = 0; i < count; i++) list[i] = (int)axes[i];
    y = n->op == IR_permute ? ir_permute(g, args[0], list) : ir_reverse(g, args[0], list, count);
    break;
  }
  default: y = ir_emit(g, (ir_op)n->op, args, m, n->words, n->n_words);      /* what its attributes say holds for a part too */
  }
  if (y) ir_name(g, y, n->name);
  if (args != few) free(args);
  return y;
}

tt_status pass_trim(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in);
  trimmer t = {in, out, calloc(in->n_nodes, sizeof *t.made), calloc(in->n_nodes, sizeof *t.wanted), calloc(in->n_nodes, sizeof *t.map)};
  bool ok = live && t.made && t.wanted && t.map;
  for (uint32_t i = 0; ok && i < in->n_outputs; i++) {
    box all = whole(in, in->outputs[i].value);
    want(&t, in->outputs[i].value, &all);
  }
  for (ir_ref r = in->n_nodes - 1; ok && r > 0; r--) {
    const ir_node *n = ir_at(in, r);
    if (!live[r] || (!t.wanted[r] && n->n_args && n->op != IR_assign)) continue;
    tt_shape s = ir_shape(in, r);
    bool as_is = !t.wanted[r] || tt_shape_count(&s) == 0;
    t.made[r] = as_is ? whole(in, r) : makes(in, r, &t.made[r]);
    for (uint32_t k = 0; k < n->n_args; k++) {
      box b = whole(in, n->args[k]);
      if (as_is || needs(in, r, k, &t.made[r], &b)) want(&t, n->args[k], &b);
    }
  }
  for (ir_ref r = 1; ok && r < in->n_nodes && !out->error.status; r++) {
    const ir_node *n = ir_at(in, r);
    if (!live[r] || (!t.wanted[r] && n->n_args && n->op != IR_assign)) continue;
    out->at_origin = ir_origin_copy(out, in, n->origin);
    t.map[r] = smaller(&t, r);
    out->at_origin = 0;
    if (!t.map[r] && !out->error.status) t.map[r] = ir_rebuild(in, out, r, t.map);
  }
  if (ok) ir_finish(in, out, t.map);
  else tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass trim\n  fix: free memory", in->n_nodes);
  free(live), free(t.made), free(t.wanted), free(t.map);
  if (!ok) return TT_NO_MEMORY;
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
