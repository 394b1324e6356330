/* lower_pull.c: rows of a kernel of the graph as expressions of a kernel of loops. Code is pulled: a result is asked for at an
 * index vector, asks its arguments at theirs, and so down to loads of the rows that the kernel reads from outside. Movement rows
 * only change the index; where they leave their argument (pad, concat, gather) the loads below get a guard.
 *
 *     pull(add(%x, broadcast(%b, dims=[1])), [i, j])  =  add(load x[i*128 + j], load b[j])
 *
 * Rows that loops compute (reductions, a contraction) are hooked: they have a value at one index, a local. */
#include <stdlib.h>
#include <string.h>

#include "lower.h"

typedef struct { ir_ref row; int buffer; } binding;
typedef struct { lp_ref index[TT_MAX_RANK], value; } hook;
typedef struct { ir_ref row; lp_ref guard, index[TT_MAX_RANK], value; } memo;

struct lower_state {
  ir_ref first, last;
  binding *reads, *results; int n_reads, n_results, cap_reads, cap_results;
  hook **hooks;                       /* by row - first */
  uint8_t *found;                     /* lower_push: 1: not on the way */
  memo *memos; uint32_t n_memos, cap_memos;     /* hash: open addressing, row 0 is free */
  lp_ref guard;                       /* of what is being pulled */
  bool failed;
};

void lower_fail(lower_ctx *lx, const char *what, ir_ref r) {
  lx->state->failed = true;
  const ir_node *n = ir_at(lx->g, r);
  tt_fail(lx->err, TT_INTERNAL, "lower: kernel %s: %s\n  at row %u, %s\n  fix: this is a mistake of the compiler; please report it", lx->g->kernels[lx->region].name, what,
          r, ir_ops[n->op].name);
}

static void no_memory(lower_ctx *lx) {
  lx->state->failed = true;
  tt_fail(lx->err, TT_NO_MEMORY, "lower: kernel %s: no memory\n  fix: compile a smaller model", lx->g->kernels[lx->region].name);
}

bool lower_failed(const lower_ctx *lx) { return lx->state->failed; }
bool lower_inside(const lower_ctx *lx, ir_ref r) { return ir_at(lx->g, r)->region == lx->region; }
ir_ref lower_first(const lower_ctx *lx) { return lx->state->first; }
ir_ref lower_last(const lower_ctx *lx) { return lx->state->last; }

static bool bind(binding **list, int *n, int *cap, ir_ref row) {
  for (int i = 0; i < *n; i++)
    if ((*list)[i].row == row) return true;
  if (*n == *cap) {
    int more = *cap ? 2 * *cap : 8;
    binding *p = realloc(*list, (size_t)more * sizeof *p);
    if (!p) return false;
    *list = p;
    *cap = more;
  }
  (*list)[(*n)++] = (binding){row, 0};
  return true;
}

static bool find_arguments(lower_ctx *lx) {
  struct lower_state *st = lx->state;
  const ir_graph *g = lx->g;
  bool *is_result = calloc(st->last - st->first + 1, sizeof *is_result);
  bool ok = is_result;
  for (ir_ref r = st->first; ok && r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    bool inside = n->region == lx->region;
    for (uint32_t i = 0; ok && i < n->n_args; i++) {
      bool arg_inside = lower_inside(lx, n->args[i]);
      if (inside && !arg_inside) ok = bind(&st->reads, &st->n_reads, &st->cap_reads, n->args[i]);
      if (!inside && arg_inside) is_result[n->args[i] - st->first] = true;
    }
  }
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (ok && lower_inside(lx, g->outputs[i].value)) is_result[g->outputs[i].value - st->first] = true;
  for (ir_ref r = st->first; ok && r <= st->last; r++)
    if (is_result[r - st->first]) ok = bind(&st->results, &st->n_results, &st->cap_results, r);
  free(is_result);
  return ok;
}

static void add_buffers(lower_ctx *lx) {
  struct lower_state *st = lx->state;
  for (int i = 0; i < st->n_reads + st->n_results; i++) {
    binding *b = i < st->n_reads ? &st->reads[i] : &st->results[i - st->n_reads];
    const ir_node *n = ir_at(lx->g, b->row);
    tt_shape s = ir_shape(lx->g, b->row);
    b->buffer = lp_buffer_add(lx->k, n->name ? n->name : "x", n->dtype, tt_shape_count(&s), i >= st->n_reads, false);
  }
}

static lower_ctx *context(const ir_graph *g, uint32_t region, lp_kernel *k, const cg_cpu *cpu, tt_error *err) {
  lower_ctx *lx = malloc(sizeof *lx);
  struct lower_state *st = calloc(1, sizeof *st);
  if (!lx || !st) {
    tt_fail(err, TT_NO_MEMORY, "lower: no memory");
    free(lx);
    free(st);
    return NULL;
  }
  *lx = (lower_ctx){g, region, k, cpu, err, st};
  return lx;
}

static bool allocate(lower_ctx *lx) {
  struct lower_state *st = lx->state;
  size_t n = st->last - st->first + 1;
  st->hooks = calloc(n, sizeof *st->hooks);
  st->found = calloc(n, 1);
  st->cap_memos = 256;
  st->memos = calloc(st->cap_memos, sizeof *st->memos);
  if (st->hooks && st->found && st->memos) return true;
  no_memory(lx);
  return false;
}

lower_ctx *lower_begin(const ir_graph *g, uint32_t region, lp_kernel *k, const cg_cpu *cpu, tt_error *err) {
  lower_ctx *lx = context(g, region, k, cpu, err);
  if (!lx) return NULL;
  struct lower_state *st = lx->state;
  st->first = g->kernels[region].first, st->last = g->kernels[region].last;
  if (!st->first) tt_fail(err, TT_INTERNAL, "lower: kernel %s has no rows", g->kernels[region].name);
  if (!st->first || !allocate(lx) || !find_arguments(lx)) {
    if (st->first) no_memory(lx);
    lower_end(lx);
    return NULL;
  }
  add_buffers(lx);
  return lx;
}

lower_ctx *lower_fork(const lower_ctx *from, lp_kernel *k) {
  lower_ctx *lx = context(from->g, from->region, k, from->cpu, from->err);
  if (!lx) return NULL;
  struct lower_state *st = lx->state, *old = from->state;
  st->first = old->first, st->last = old->last;
  bool ok = allocate(lx);
  for (int i = 0; ok && i < old->n_reads; i++) ok = bind(&st->reads, &st->n_reads, &st->cap_reads, old->reads[i].row);
  for (int i = 0; ok && i < old->n_results; i++) ok = bind(&st->results, &st->n_results, &st->cap_results, old->results[i].row);
  if (!ok) {
    no_memory(lx);
    lower_end(lx);
    return NULL;
  }
  add_buffers(lx);
  return lx;
}

void lower_end(lower_ctx *lx) {
  if (!lx) return;
  struct lower_state *st = lx->state;
  free(st->reads);
  free(st->results);
  if (st->hooks)
    for (ir_ref r = st->first; r <= st->last; r++) free(st->hooks[r - st->first]);
  free(st->hooks);
  free(st->found);
  free(st->memos);
  free(st);
  free(lx);
}

bool lower_arguments(lower_ctx *lx, ir_ref *rows, int max_rows) {
  struct lower_state *st = lx->state;
  int n = st->n_reads + st->n_results;
  if (n > max_rows) {
    tt_fail(lx->err, TT_UNSUPPORTED, "kernel %s has %d arguments, more than %d\n  fix: leave out the pass fuse (skip=fuse)", lx->g->kernels[lx->region].name, n, max_rows);
    return false;
  }
  for (int i = 0; i < n; i++) rows[i] = i < st->n_reads ? st->reads[i].row : st->results[i - st->n_reads].row;
  return !st->failed && lp_check(lx->k, lx->err);
}

int lower_n_results(const lower_ctx *lx) { return lx->state->n_results; }
ir_ref lower_result(const lower_ctx *lx, int i) { return lx->state->results[i].row; }
int lower_result_buffer(const lower_ctx *lx, int i) { return lx->state->results[i].buffer; }

/* ---- what was pulled already ---- */

static uint32_t memo_slot(const struct lower_state *st, ir_ref r, lp_ref guard, const lp_ref *index, int rank) {
  uint64_t h = r * 0x9e3779b97f4a7c15u + guard;
  for (int i = 0; i < rank; i++) h = (h ^ h >> 31 ^ index[i]) * 0xbf58476d1ce4e5b9u;
  uint32_t at = (uint32_t)(h ^ h >> 32) & (st->cap_memos - 1);
  for (; st->memos[at].row; at = (at + 1) & (st->cap_memos - 1)) {
    const memo *m = &st->memos[at];
    if (m->row == r && m->guard == guard && !memcmp(m->index, index, (size_t)rank * sizeof *index)) break;
  }
  return at;
}

static void memo_add(lower_ctx *lx, ir_ref r, const lp_ref *index, int rank, lp_ref value) {
  struct lower_state *st = lx->state;
  if (2 * st->n_memos >= st->cap_memos) {
    struct lower_state old = *st;
    st->memos = calloc((size_t)st->cap_memos * 2, sizeof *st->memos);
    if (!st->memos) {
      st->memos = old.memos;
      no_memory(lx);
      return;
    }
    st->cap_memos *= 2;
    for (uint32_t i = 0; i < old.cap_memos; i++) {
      const memo *m = &old.memos[i];
      if (m->row) st->memos[memo_slot(st, m->row, m->guard, m->index, ir_at(lx->g, m->row)->rank)] = *m;
    }
    free(old.memos);
  }
  memo *m = &st->memos[memo_slot(st, r, st->guard, index, rank)];
  if (!m->row) st->n_memos++;
  *m = (memo){.row = r, .guard = st->guard, .value = value};
  for (int i = 0; i < rank; i++) m->index[i] = index[i];
}

void lower_forget(lower_ctx *lx) {
  if (lx->state->n_memos) memset(lx->state->memos, 0, lx->state->cap_memos * sizeof *lx->state->memos);
  lx->state->n_memos = 0;
}

/* Index of row n with zeros where its dimension is 1, so that equal places are equal indices. */
static void tidy(lower_ctx *lx, const ir_node *n, const lp_ref *index, lp_ref *at) {
  for (int i = 0; i < n->rank; i++) at[i] = n->dim[i] == 1 ? lp_int(lx->k, 0) : index[i];
}

void lower_hook(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref value) {
  hook **h = &lx->state->hooks[r - lx->state->first];
  if (!*h && !(*h = malloc(sizeof **h))) {
    no_memory(lx);
    return;
  }
  tidy(lx, ir_at(lx->g, r), index, (*h)->index);
  (*h)->value = value;
  lower_forget(lx);
}

bool lower_pulled_at(lower_ctx *lx, ir_ref r, const lp_ref *index) {
  lp_ref at[TT_MAX_RANK];
  tidy(lx, ir_at(lx->g, r), index, at);
  return lx->state->memos[memo_slot(lx->state, r, 0, at, ir_at(lx->g, r)->rank)].row;
}

void lower_unhook(lower_ctx *lx) {
  struct lower_state *st = lx->state;
  for (ir_ref r = st->first; r <= st->last; r++) {
    free(st->hooks[r - st->first]);
    st->hooks[r - st->first] = NULL;
  }
  lower_forget(lx);
}

/* ---- indices ---- */

lp_ref lower_linear(lower_ctx *lx, ir_ref r, const lp_ref *index) {
  const ir_node *n = ir_at(lx->g, r);
  lp_ref e = lp_int(lx->k, 0);
  int64_t stride = 1;
  for (int i = n->rank - 1; i >= 0; i--) {
    if (n->dim[i] != 1) e = lp_add(lx->k, e, lp_mul(lx->k, index[i], stride));
    stride *= n->dim[i];
  }
  return e;
}

/* Dimensions are taken in the smallest groups of equal products, so that what a reshape leaves alone stays as it is. */
void lower_reshape_index(lp_kernel *k, int from_rank, const int64_t *from, const lp_ref *index, int to_rank, const int64_t *to, lp_ref *to_index) {
  lp_ref zero = lp_int(k, 0);
  for (int j = 0; j < to_rank; j++) to_index[j] = zero;
  for (int i = 0; i < from_rank; i++)
    if (from[i] == 0) return;
  for (int i = 0, j = 0;;) {
    while (i < from_rank && from[i] == 1) i++;
    while (j < to_rank && to[j] == 1) j++;
    if (i == from_rank || j == to_rank) return;
    int64_t a = from[i], b = to[j];
    lp_ref e = index[i++];
    int first = j++;
    while (a != b) {
      if (a < b) {
        if (from[i] != 1) e = lp_add(k, lp_mul(k, e, from[i]), index[i]);
        a *= from[i++];
      } else {
        b *= to[j++];
      }
    }
    for (int d = j - 1; d > first; d--) {
      if (to[d] == 1) continue;
      to_index[d] = lp_mod(k, e, to[d]);
      e = lp_div(k, e, to[d]);
    }
    to_index[first] = e;
  }
}

/* ---- pulling ---- */

static lp_ref load_constant(lower_ctx *lx, ir_ref r) {
  const ir_node *n = ir_at(lx->g, r);
  const ir_blob *blob = &lx->g->blobs[ir_int(n, "value")];
  const unsigned char *p = blob->data;
  size_t size = tt_dtype_size(n->dtype);
  if (blob->bytes < size) return lp_const(lx->k, n->dtype, 0);
  if (memcmp(p, p + size, blob->bytes - size)) lower_fail(lx, "a constant in it is neither a scalar nor all equal", r);
  int64_t bits = 0;
  float f;
  switch (n->dtype) {
  case TT_F16: f = tt_f16_to_f32(*(const tt_f16 *)p); memcpy(&bits, &f, 4); break;
  case TT_BF16: f = tt_bf16_to_f32(*(const tt_bf16 *)p); memcpy(&bits, &f, 4); break;
  case TT_I8: bits = *(const int8_t *)p; break;
  case TT_I16: bits = *(const int16_t *)p; break;
  case TT_I32: bits = *(const int32_t *)p; break;
  case TT_BOOL: bits = *p != 0; break;
  default: memcpy(&bits, p, size);
  }
  return lp_const_bits(lx->k, n->dtype, bits);
}

static lp_ref both(lp_kernel *k, lp_ref a, lp_ref b) { return !a ? b : !b ? a : lp_op(k, IR_and, TT_BOOL, a, b, 0); }

/* Row r where guard holds, else `otherwise` (0: zero). Loads below are made under the guard. */
lp_ref lower_pull_if(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref guard, lp_ref otherwise) {
  lp_kernel *k = lx->k;
  tt_dtype t = ir_at(lx->g, r)->dtype;
  const lp_expr *x = &k->exprs[guard];
  if (!guard || (x->kind == LX_CONST && x->imm)) return lower_pull(lx, r, index);
  if (!otherwise) otherwise = lp_const(k, t, 0);
  if (x->kind == LX_CONST) return otherwise;
  lp_ref outer = lx->state->guard;
  lx->state->guard = both(k, outer, guard);
  lp_ref value = lower_pull(lx, r, index), all = lx->state->guard;
  lx->state->guard = outer;
  lp_expr v = k->exprs[value];
  if (v.kind == LX_LOAD && v.a[1] == all && !v.a[2]) return lp_load(k, (int)v.imm, v.a[0], v.a[1], otherwise);
  return lp_op(k, IR_select, t, guard, value, otherwise);
}

static lp_ref compare(lower_ctx *lx, ir_op op, lp_ref a, lp_ref b) { return lp_op(lx->k, op, TT_BOOL, a, b, 0); }

static lp_ref pull_pad(lower_ctx *lx, const ir_node *n, const lp_ref *index) {
  lp_kernel *k = lx->k;
  const ir_node *x = ir_at(lx->g, n->args[0]);
  int count;
  const int64_t *lo = ir_ints(n, "lo", &count), *interior = ir_ints(n, "interior", &count);
  lp_ref at[TT_MAX_RANK], guard = 0;
  for (int i = 0; i < n->rank; i++) {
    int64_t step = interior[i] + 1, shift = (lo[i] + step - 1) / step;           /* keeps what is divided >= 0 */
    lp_ref e = lp_add(k, index[i], lp_int(k, shift * step - lo[i]));
    if (step > 1) guard = both(k, guard, compare(lx, IR_eq, lp_mod(k, e, step), lp_int(k, 0)));
    at[i] = lp_add(k, lp_div(k, e, step), lp_int(k, -shift));
    guard = both(k, guard, compare(lx, IR_ge, at[i], lp_int(k, 0)));
    guard = both(k, guard, compare(lx, IR_lt, at[i], lp_int(k, x->dim[i])));
  }
  lp_ref value = lower_pull(lx, n->args[1], NULL);
  return lower_pull_if(lx, n->args[0], at, guard, value);
}

static lp_ref pull_concat(lower_ctx *lx, const ir_node *n, const lp_ref *index) {
  lp_kernel *k = lx->k;
  int axis = (int)ir_int(n, "axis");
  lp_ref at[TT_MAX_RANK], result = 0;
  for (int i = 0; i < n->rank; i++) at[i] = index[i];
  int64_t end = n->dim[axis];
  for (uint32_t j = n->n_args; j-- > 0;) {                  /* from the last: each select decides between it and all after */
    int64_t size = ir_at(lx->g, n->args[j])->dim[axis], begin = end - size;
    lp_ref below = compare(lx, IR_lt, index[axis], lp_int(k, end)), above = compare(lx, IR_ge, index[axis], lp_int(k, begin));
    end = begin;
    if (size == 0) continue;
    at[axis] = lp_add(k, index[axis], lp_int(k, -begin));
    lp_ref guard = both(k, below, above);
    if (k->exprs[guard].kind == LX_CONST && !k->exprs[guard].imm) continue;
    result = lower_pull_if(lx, n->args[j], at, guard, result);
  }
  return result ? result : lp_const(k, n->dtype, 0);
}

static lp_ref as_index(lower_ctx *lx, lp_ref e) { return lp_op(lx->k, IR_cast, TT_I64, e, 0, 0); }

static lp_ref pull_gather(lower_ctx *lx, const ir_node *n, const lp_ref *index) {
  lp_kernel *k = lx->k;
  int axis = (int)ir_int(n, "axis");
  lp_ref at[TT_MAX_RANK], from = as_index(lx, lower_pull(lx, n->args[1], index));
  for (int i = 0; i < n->rank; i++) at[i] = i == axis ? from : index[i];
  lp_ref guard = both(k, compare(lx, IR_ge, from, lp_int(k, 0)), compare(lx, IR_lt, from, lp_int(k, ir_at(lx->g, n->args[0])->dim[axis])));
  return lower_pull_if(lx, n->args[0], at, guard, 0);
}

/* Entry i of a dynamic start, clamped so that `size` of `dim` fit. */
static lp_ref start_of(lower_ctx *lx, ir_ref start, int i, int64_t size, int64_t dim) {
  lp_kernel *k = lx->k;
  lp_ref at = lp_int(k, i);
  if (size >= dim) return lp_int(k, 0);
  lp_ref e = as_index(lx, lower_pull(lx, start, &at));
  e = lp_op(k, IR_max, TT_I64, e, lp_int(k, 0), 0);
  return lp_op(k, IR_min, TT_I64, e, lp_int(k, dim - size), 0);
}

void lower_update_index(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref *to) {
  const ir_node *n = ir_at(lx->g, r), *u = ir_at(lx->g, n->args[1]);
  for (int i = 0; i < n->rank; i++) to[i] = lp_add(lx->k, index[i], start_of(lx, n->args[2], i, u->dim[i], n->dim[i]));
}

static lp_ref pull_update(lower_ctx *lx, const ir_node *n, const lp_ref *index) {
  lp_kernel *k = lx->k;
  const ir_node *u = ir_at(lx->g, n->args[1]);
  lp_ref at[TT_MAX_RANK], guard = 0;
  for (int i = 0; i < n->rank; i++) {
    lp_ref start = start_of(lx, n->args[2], i, u->dim[i], n->dim[i]);
    at[i] = lp_op(k, IR_sub, TT_I64, index[i], start, 0);
    guard = both(k, guard, compare(lx, IR_ge, at[i], lp_int(k, 0)));
    guard = both(k, guard, compare(lx, IR_lt, at[i], lp_int(k, u->dim[i])));
  }
  return lower_pull_if(lx, n->args[1], at, guard, lower_pull(lx, n->args[0], index));
}

static lp_ref pull_row(lower_ctx *lx, ir_ref r, const lp_ref *index) {
  lp_kernel *k = lx->k;
  const ir_node *n = ir_at(lx->g, r), *x = n->n_args ? ir_at(lx->g, n->args[0]) : NULL;
  lp_ref at[TT_MAX_RANK] = {0}, a[3] = {0};
  int count;
  if (ir_ops[n->op].ew || n->op == IR_select || n->op == IR_cast || n->op == IR_bitcast || n->op == IR_stop_gradient) {
    for (uint32_t i = 0; i < n->n_args; i++) a[i] = lower_pull(lx, n->args[i], index);
    return lp_op(k, n->op, n->dtype, a[0], a[1], a[2]);
  }
  switch (n->op) {
  case IR_const: return load_constant(lx, r);
  case IR_iota: return lp_op(k, IR_cast, n->dtype, index[ir_int(n, "axis")], 0, 0);
  case IR_random: return lp_philox(k, lower_pull(lx, n->args[0], NULL), lower_pull(lx, n->args[1], NULL), lower_linear(lx, r, index), ir_int(n, "stream"));
  case IR_reshape:
    lower_reshape_index(k, n->rank, n->dim, index, x->rank, x->dim, at);
    break;
  case IR_permute: {
    const int64_t *perm = ir_ints(n, "perm", &count);
    for (int i = 0; i < n->rank; i++) at[perm[i]] = index[i];
    break;
  }
  case IR_broadcast: {
    const int64_t *dims = ir_ints(n, "dims", &count);
    for (int i = 0; i < x->rank; i++) at[i] = x->dim[i] == 1 ? lp_int(k, 0) : index[dims[i]];
    break;
  }
  case IR_slice: {
    const int64_t *start = ir_ints(n, "start", &count), *step = ir_ints(n, "step", &count);
    for (int i = 0; i < n->rank; i++) at[i] = lp_add(k, lp_mul(k, index[i], step[i]), lp_int(k, start[i]));
    break;
  }
  case IR_reverse: {
    const int64_t *axes = ir_ints(n, "axes", &count);
    for (int i = 0; i < n->rank; i++) at[i] = index[i];
    for (int i = 0; i < count; i++) at[axes[i]] = lp_add(k, lp_mul(k, index[axes[i]], -1), lp_int(k, n->dim[axes[i]] - 1));
    break;
  }
  case IR_unfold: {
    int64_t axis = ir_int(n, "axis");
    for (int i = 0; i < x->rank; i++) at[i] = index[i];
    at[axis] = lp_add(k, lp_mul(k, index[axis], ir_int(n, "stride")), lp_mul(k, index[x->rank], ir_int(n, "dilation")));
    break;
  }
  case IR_pad: return pull_pad(lx, n, index);
  case IR_concat: return pull_concat(lx, n, index);
  case IR_gather: return pull_gather(lx, n, index);
  case IR_dynamic_slice:
    for (int i = 0; i < n->rank; i++) at[i] = lp_add(k, index[i], start_of(lx, n->args[1], i, n->dim[i], x->dim[i]));
    break;
  case IR_dynamic_update_slice: return pull_update(lx, n, index);
  default:
    lower_fail(lx, "it is read where it has no value", r);
    return lp_const(k, n->dtype, 0);
  }
  return lower_pull(lx, n->args[0], at);
}

lp_ref lower_pull(lower_ctx *lx, ir_ref r, const lp_ref *index) {
  struct lower_state *st = lx->state;
  const ir_node *n = ir_at(lx->g, r);
  if (n->region != lx->region) {
    for (int i = 0; i < st->n_reads; i++)
      if (st->reads[i].row == r) return lp_load(lx->k, st->reads[i].buffer, lower_linear(lx, r, index), st->guard, 0);
    lower_fail(lx, "a row from outside that it does not read", r);
    return lp_const(lx->k, n->dtype, 0);
  }
  lp_ref at[TT_MAX_RANK];
  tidy(lx, n, index, at);
  const hook *h = st->hooks[r - st->first];
  if (h) {                            /* what is only kept may be wanted elsewhere too: a gather picks from the row */
    bool there = !n->rank || !memcmp(h->index, at, (size_t)n->rank * sizeof *at), only_kept = ir_ops[n->op].kind == IR_ELEMENTWISE || ir_ops[n->op].kind == IR_MOVEMENT;
    if (!there && !(only_kept && n->op != IR_fold)) lower_fail(lx, "it is read at another index than it is computed at", r);
    if (there || lx->state->failed) return h->value;
  }
  const memo *m = &st->memos[memo_slot(st, r, st->guard, at, n->rank)];
  if (m->row) return m->value;
  lp_ref value = pull_row(lx, r, at);
  memo_add(lx, r, at, n->rank, value);
  return value;
}

/* ---- pushing ---- */

static bool push(lower_ctx *lx, ir_ref from, ir_ref to, const lp_ref *from_index, lp_ref *to_index) {
  struct lower_state *st = lx->state;
  const ir_node *n = ir_at(lx->g, to);
  if (to == from) {
    for (int i = 0; i < n->rank; i++) to_index[i] = from_index[i];
    return true;
  }
  if (n->region != lx->region || to < from || st->found[to - st->first]) return false;
  bool same = ir_ops[n->op].kind == IR_ELEMENTWISE;
  if (!same && n->op != IR_permute && n->op != IR_reshape) return st->found[to - st->first] = 1, false;
  for (uint32_t i = 0; i < n->n_args; i++) {
    lp_ref at[TT_MAX_RANK];
    int count;
    const ir_node *x = ir_at(lx->g, n->args[i]);
    if (!push(lx, from, n->args[i], from_index, at)) continue;
    if (n->op == IR_reshape) {
      lower_reshape_index(lx->k, x->rank, x->dim, at, n->rank, n->dim, to_index);
    } else if (n->op == IR_permute) {
      const int64_t *perm = ir_ints(n, "perm", &count);
      for (int d = 0; d < n->rank; d++) to_index[d] = at[perm[d]];
    } else {
      for (int d = 0; d < n->rank; d++) to_index[d] = at[d];
    }
    return true;
  }
  st->found[to - st->first] = 1;
  return false;
}

bool lower_leads(lower_ctx *lx, ir_ref from, ir_ref to) {
  lp_ref from_index[TT_MAX_RANK], to_index[TT_MAX_RANK];
  for (int i = 0; i < TT_MAX_RANK; i++) from_index[i] = lp_int(lx->k, 0);
  memset(lx->state->found, 0, lx->state->last - lx->state->first + 1);
  return push(lx, from, to, from_index, to_index);
}

bool lower_push(lower_ctx *lx, ir_ref from, ir_ref to, const lp_ref *from_index, lp_ref *to_index) {
  memset(lx->state->found, 0, lx->state->last - lx->state->first + 1);
  if (push(lx, from, to, from_index, to_index)) return true;
  lower_fail(lx, "a result is not the contraction's by elementwise, permute and reshape rows alone", to);
  return false;
}
