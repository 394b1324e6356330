/* scan_grad.c: the gradient of a scan is a scan in the other direction.
 *
 *     h, y = scan(h0, x, w)        step: h' = f(h, x, w), y = g(h, x, w)
 *
 * Its step carries dL/dh, is given dL/dy of its time, and gives dL/dx of its time. The step and its reverse are made in one graph first: what the reverse
 * reads of the forward rows is cut there. Carries, and rows that compute, are kept: the forward body returns them too, so they stand stacked when the
 * reverse comes to them. Movement is done again, and so is what follows from `w` alone.
 *
 * What `w` gets is a sum over all steps. Where a step's part is a product or a sum of values of that step (through additions and movement), these values are
 * stacked, and the sum over all steps is one product or sum behind the scan:
 *
 *     dw = sum over t of matmul(h[t]^T, dz[t])        gives        matmul(h: [T*N,H]^T, dz: [T*N,K])
 *
 * Any other part is added up in a carry of its own. All of it is rows, so a gradient has a gradient. */
#include "passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COTANGENT = 1, NEEDS = 2, KEPT = 4, STACKED = 8, STEPS = 16, RESULT = 32 };
/* Of a row: depends on a cotangent; the reverse body has it; and gets it from the forward one; it is returned by the reverse body; depends on the step; of the forward body alone. */

typedef struct {
  ir_graph *g;                       /* outside */
  const ir_node *n;
  ir_scan_attrs a;
  const ir_graph *body;
  const ir_ref *results;
  const bool *want;
  ir_ref *d;
  ir_graph *j;                       /* the step and its reverse */
  uint32_t n_leaves, n_forward;      /* rows of j before the reverse */
  ir_ref *leaf, *next, *out;         /* in j: of each argument, carry, output */
  bool *varies;                      /* carry: it depends on what is asked for */
  ir_ref *d_next, *d_out;            /* cotangents, 0: none */
  ir_ref *gradient;                  /* in j, of each leaf */
  unsigned char *mark;
  bool *sums;                        /* argument: its gradient is made behind the scan */
  ir_ref *kept; uint32_t n_kept;     /* rows of j that the forward body returns besides */
  ir_ref *stacked; uint32_t n_stacked;
  uint32_t *at;                      /* of a row of j: its number as an output of the forward or the reverse body */
  ir_ref *reverse;                   /* arguments of the reverse scan */
  uint32_t n_reverse;
  ir_scan_attrs ra;
} job;

static bool real(const ir_graph *g, ir_ref r) { return r && tt_dtype_in(ir_at(g, r)->dtype, TT_REAL); }

static bool no_memory(job *x) {
  tt_fail(&x->g->error, TT_NO_MEMORY, "error: no memory to differentiate a scan\n  at @%s\n  fix: free memory", x->g->name);
  return false;
}

static ir_ref zeros_of(ir_graph *g, const ir_graph *of, ir_ref like) { return ir_full(g, ir_at(of, like)->dtype, ir_shape(of, like), 0); }

/* ---- the step, and its reverse behind it ---- */

static bool is_leaf(const ir_node *n) { return n->op == IR_input || n->op == IR_param; }

static ir_ref input_like(ir_graph *to, const ir_graph *from, ir_ref r, const char *prefix, const char *name) {
  char text[300];
  snprintf(text, sizeof text, "%s%.200s", prefix, name);
  for (int i = 2; ir_find(to, text); i++) snprintf(text, sizeof text, "%s%.200s.%d", prefix, name, i);
  return ir_input(to, text, (tt_dtype)ir_at(from, r)->dtype, ir_shape(from, r));
}

static bool copy_body(job *x) {
  const ir_graph *f = x->body;
  ir_ref *map = calloc(f->n_nodes, sizeof *map);
  bool *live = ir_live(f), ok = map && live;
  uint32_t i = 0;
  for (ir_ref r = 1; ok && r < f->n_nodes && !x->j->error.status; r++) {
    const ir_node *n = ir_at(f, r);
    if (n->op == IR_assign || (!is_leaf(n) && !live[r])) continue;
    if (is_leaf(n)) x->leaf[i++] = map[r] = ir_input(x->j, ir_str(n, "name"), (tt_dtype)n->dtype, ir_shape(f, r));
    else map[r] = ir_rebuild(f, x->j, r, map);
  }
  for (uint32_t k = 0; ok && k < x->a.carries; k++) x->next[k] = map[ir_next_value(f, ir_leaf(f, k))];
  for (uint32_t k = 0; ok && k < f->n_outputs; k++) x->out[k] = map[f->outputs[k].value];
  free(map), free(live);
  return ok || no_memory(x);
}

/* Which carries depend on what is asked for, perhaps by way of others. */
static bool find_varying(job *x) {
  bool *depends = calloc(x->j->n_nodes, sizeof *depends), again = true;
  if (!depends) return no_memory(x);
  for (uint32_t k = 0; k < x->a.carries; k++) x->varies[k] = x->want[k] && real(x->j, x->leaf[k]);
  while (again) {
    again = false;
    for (uint32_t i = 0; i < x->n_leaves; i++) depends[x->leaf[i]] = i < x->a.carries ? x->varies[i] : x->want[i];
    for (ir_ref r = 1; r < x->j->n_nodes; r++) {
      const ir_node *n = ir_at(x->j, r);
      for (uint32_t i = 0; i < n->n_args && real(x->j, r); i++) depends[r] |= depends[n->args[i]];
    }
    for (uint32_t k = 0; k < x->a.carries; k++)
      if (!x->varies[k] && real(x->j, x->leaf[k]) && depends[x->next[k]]) x->varies[k] = again = true;
  }
  free(depends);
  return true;
}

static bool reverse_step(job *x) {
  uint32_t n_ys = 0, n_wrt = 0, n = x->n_leaves + x->body->n_outputs + 1;
  ir_ref *ys = calloc(4 * (size_t)n, sizeof *ys), *cts = ys + n, *wrt = ys + 2 * n, *got = ys + 3 * n;
  char number[24];
  if (!ys) return no_memory(x);
  x->n_forward = x->j->n_nodes;
  for (uint32_t k = 0; k < x->a.carries; k++)
    if (x->varies[k]) ys[n_ys] = x->next[k], cts[n_ys++] = x->d_next[k] = input_like(x->j, x->j, x->leaf[k], "d.", ir_at(x->j, x->leaf[k])->name);
  for (uint32_t k = 0; k < x->body->n_outputs; k++) {
    if (!x->results[x->a.carries + k] || !real(x->j, x->out[k])) continue;
    const char *name = x->body->outputs[k].name;
    snprintf(number, sizeof number, "out%u", k);
    ys[n_ys] = x->out[k], cts[n_ys++] = x->d_out[k] = input_like(x->j, x->j, x->out[k], "d.", name ? name : number);
  }
  for (uint32_t i = 0; i < x->n_leaves; i++)
    if (i < x->a.carries ? x->varies[i] : x->want[i]) wrt[n_wrt++] = x->leaf[i];
  bool ok = !x->j->error.status && (!n_ys || pass_vjp_of(x->j, ys, cts, (int)n_ys, wrt, (int)n_wrt, got));
  n_wrt = 0;
  for (uint32_t i = 0; ok && i < x->n_leaves; i++)
    if (i < x->a.carries ? x->varies[i] : x->want[i]) {
      x->gradient[i] = got[n_wrt] ? got[n_wrt] : zeros_of(x->j, x->j, x->leaf[i]);
      n_wrt++;
    }
  free(ys);
  return ok && !x->j->error.status;
}

/* What depends on cotangents and on the step at all. */
static bool mark_rows(job *x) {
  size_t n = x->j->n_nodes;
  x->mark = calloc(n, 1), x->at = calloc(n, sizeof *x->at), x->kept = calloc(n, sizeof *x->kept), x->stacked = calloc(n, sizeof *x->stacked);
  if (!x->mark || !x->at || !x->kept || !x->stacked) return no_memory(x);
  for (uint32_t i = 0; i < x->a.carries + x->a.xs; i++) x->mark[x->leaf[i]] |= STEPS;
  for (uint32_t k = 0; k < x->a.carries; k++)
    if (x->d_next[k]) x->mark[x->d_next[k]] |= COTANGENT | STEPS;
  for (uint32_t k = 0; k < x->body->n_outputs; k++)
    if (x->d_out[k]) x->mark[x->d_out[k]] |= COTANGENT | STEPS;
  for (ir_ref r = 1; r < n; r++)
    for (uint32_t i = 0; i < ir_at(x->j, r)->n_args; i++) x->mark[r] |= x->mark[ir_at(x->j, r)->args[i]] & (COTANGENT | STEPS);
  return true;
}

/* ---- sums over steps ---- */

/* Is row r there for every step, stacked, or can be? Values that follow from the rest alone are not. */
static bool has_stack(const job *x, ir_ref r) { return x->mark[r] & STEPS; }

/* Is it stacked anyway? */
static bool is_stacked(const job *x, ir_ref r) {
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->leaf[i] == r) return true;
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->gradient[i] == r) return true;
  return x->mark[r] & (STACKED | KEPT);
}

static void stack(job *x, ir_ref r) {
  unsigned char how = x->mark[r] & COTANGENT ? STACKED : KEPT;
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->leaf[i] == r) return;
  for (uint32_t k = 0; k < x->body->n_outputs; k++)
    if (x->d_out[k] == r) return;
  if (x->mark[r] & how) return;
  x->mark[r] |= how;
  if (how == STACKED) x->at[r] = x->n_stacked, x->stacked[x->n_stacked++] = r;
  else x->at[r] = x->n_kept, x->kept[x->n_kept++] = r;
}

/* The stack of row r outside, when both scans stand there. */
static ir_ref stack_of(job *x, ir_ref r) {
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->leaf[i] == r) return x->n->args[i];
  for (uint32_t k = 0; k < x->body->n_outputs; k++)
    if (x->d_out[k] == r) return x->results[x->a.carries + k];
  ir_scan_attrs a = x->mark[r] & COTANGENT ? x->ra : x->a;
  a.result = a.carries + x->at[r] + (x->mark[r] & COTANGENT ? 0 : x->body->n_outputs);
  return x->mark[r] & COTANGENT ? ir_scan(x->g, x->reverse, x->n_reverse, a) : ir_scan(x->g, x->n->args, x->n->n_args, a);
}

/* [T,*,a,b] as [*,T*a,b] or, summed along the last axis, [*,a,T*b]. */
static ir_ref join_steps(ir_graph *g, ir_ref s, bool last) {
  tt_shape shape = ir_shape(g, s);
  int rank = shape.rank, perm[TT_MAX_RANK] = {0}, at = rank - (last ? 1 : 2);
  for (int i = 0; i < rank; i++) perm[i] = i < at - 1 ? i + 1 : i == at - 1 ? 0 : i;
  s = ir_permute(g, s, perm);
  tt_shape to = {.rank = rank - 1};
  for (int i = 0; i < rank - 1; i++) to.dim[i] = i < at - 1 ? shape.dim[i + 1] : i == at - 1 ? shape.dim[0] * shape.dim[at] : shape.dim[i + 1];
  return ir_reshape(g, s, to);
}

typedef enum { CAN, MARK, BUILD } phase;

/* The sum over all steps of row r of the reverse. CAN: gives 1 where it can be made behind the scan. */
static ir_ref over_steps(job *x, ir_ref r, phase p) {
  const ir_node *n = ir_at(x->j, r);
  ir_graph *g = x->g;
  ir_ref part[2] = {0};
  if (!(x->mark[r] & COTANGENT)) return 0;
  switch (n->op) {
  case IR_add: case IR_sub: case IR_neg:
    for (uint32_t i = 0; i < n->n_args; i++)
      if (!(part[i] = over_steps(x, n->args[i], p)) && p != MARK) return 0;
    if (p != BUILD) return 1;
    return n->op == IR_neg ? ir_ew1(g, IR_neg, part[0]) : ir_ew2(g, (ir_op)n->op, part[0], part[1]);
  case IR_matmul: {
    bool ta = ir_int(n, "ta"), tb = ir_int(n, "tb");
    if (ir_int(n, "split") > 1 || n->rank == TT_MAX_RANK || !has_stack(x, n->args[0]) || !has_stack(x, n->args[1])) return 0;
    if (p == MARK) stack(x, n->args[0]), stack(x, n->args[1]);
    if (p != BUILD) return 1;
    return ir_matmul(g, join_steps(g, stack_of(x, n->args[0]), !ta), join_steps(g, stack_of(x, n->args[1]), tb), ta, tb, 1);
  }
  case IR_sum: {
    int count, axes[TT_MAX_RANK] = {0};
    const int64_t *list = ir_ints(n, "axes", &count);
    if (ir_at(x->j, n->args[0])->rank == TT_MAX_RANK || !is_stacked(x, n->args[0])) return 0;
    if (p == MARK) stack(x, n->args[0]);
    if (p != BUILD) return 1;
    for (int i = 0; i < count; i++) axes[i + 1] = (int)list[i] + 1;
    return ir_reduce(g, IR_sum, stack_of(x, n->args[0]), axes, count + 1, false);
  }
  case IR_reshape: case IR_permute: case IR_slice: case IR_reverse: case IR_broadcast:
    if (!(part[0] = over_steps(x, n->args[0], p)) || p != BUILD) return part[0];
    return ir_emit(g, (ir_op)n->op, part, 1, n->words, n->n_words);
  case IR_pad: {
    double zero = 1;
    if (!ir_is_splat(x->j, n->args[1], &zero) || zero != 0 || !(part[0] = over_steps(x, n->args[0], p)) || p != BUILD) return zero != 0 ? 0 : part[0];
    return ir_pad(g, part[0], ir_like(g, part[0], 0), ir_ints(n, "lo", NULL), ir_ints(n, "hi", NULL), ir_ints(n, "interior", NULL));
  }
  default: return 0;
  }
}

static void choose_sums(job *x) {
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->gradient[i] && has_stack(x, x->gradient[i])) stack(x, x->gradient[i]);
  for (int round = 0; round < 2; round++)              /* sums of what products have stacked come second */
    for (uint32_t i = (uint32_t)(x->a.carries + x->a.xs); i < x->n_leaves; i++) {
      if (!x->gradient[i] || x->sums[i] || !(x->sums[i] = over_steps(x, x->gradient[i], CAN) != 0)) continue;
      over_steps(x, x->gradient[i], MARK);
    }
}

/* ---- where the reverse body gets its rows ---- */

static void need(job *x, ir_ref r) { x->mark[r] |= NEEDS; }

static void choose_kept(job *x) {
  for (uint32_t i = 0; i < x->n_leaves; i++)
    if (x->gradient[i] && !x->sums[i]) need(x, x->gradient[i]);
  for (uint32_t i = 0; i < x->n_stacked; i++) need(x, x->stacked[i]);
  for (ir_ref r = x->j->n_nodes - 1; r > 0; r--) {
    const ir_node *n = ir_at(x->j, r);
    if (!(x->mark[r] & NEEDS)) continue;
    bool carry = false;
    for (uint32_t k = 0; k < x->a.carries; k++) carry |= x->leaf[k] == r;
    bool again = ir_ops[n->op].kind == IR_MOVEMENT && n->op != IR_fold;
    bool computes = !is_leaf(n) && !again && (r < x->n_forward || n->op == IR_scan) && (x->mark[r] & (STEPS | COTANGENT)) == STEPS;
    if (carry || computes) stack(x, r);
    if (x->mark[r] & KEPT) continue;
    for (uint32_t i = 0; i < n->n_args; i++) need(x, n->args[i]);
  }
}

/* ---- the bodies ---- */

/* The forward body, which returns the kept rows too, in place of the one there was: its other results are what they were. */
static bool grow_forward(job *x) {
  const ir_graph *j = x->j;
  if (!x->n_kept) return true;
  ir_graph *f = ir_graph_new(x->body->name);
  ir_ref *map = calloc(j->n_nodes, sizeof *map);
  bool *wanted = calloc(j->n_nodes, sizeof *wanted), ok = f && map && wanted;
  if (ok) {
    f->rules = j->rules;
    for (uint32_t k = 0; k < x->a.carries; k++) wanted[x->next[k]] = true;
    for (uint32_t k = 0; k < x->body->n_outputs; k++) wanted[x->out[k]] = true;
    for (uint32_t k = 0; k < x->n_kept; k++) wanted[x->kept[k]] = true;
    for (ir_ref r = j->n_nodes - 1; r > 0; r--)
      for (uint32_t i = 0; wanted[r] && i < ir_at(j, r)->n_args; i++) wanted[ir_at(j, r)->args[i]] = true;
    for (uint32_t i = 0; i < x->n_leaves; i++) {
      const char *name = ir_str(ir_at(j, x->leaf[i]), "name");
      tt_dtype t = (tt_dtype)ir_at(j, x->leaf[i])->dtype;
      map[x->leaf[i]] = i < x->a.carries ? ir_param(f, name, t, ir_shape(j, x->leaf[i]), false) : ir_input(f, name, t, ir_shape(j, x->leaf[i]));
    }
    for (ir_ref r = 1; r < j->n_nodes && !f->error.status; r++)
      if (wanted[r] && !map[r]) map[r] = ir_rebuild(j, f, r, map);
    for (uint32_t k = 0; k < x->a.carries && !f->error.status; k++) ir_assign(f, map[x->leaf[k]], map[x->next[k]]);
    for (uint32_t k = 0; k < x->body->n_outputs && !f->error.status; k++) ir_output_add(f, x->body->outputs[k].name, map[x->out[k]]);
    for (uint32_t k = 0; k < x->n_kept && !f->error.status; k++) ir_output_add(f, NULL, map[x->kept[k]]);
    if (f->error.status) tt_fail(&x->g->error, f->error.status, "%s", f->error.message);
  } else no_memory(x);
  free(map), free(wanted);
  if (!ok || x->g->error.status) return ir_graph_free(f), false;
  ir_graph *before = x->g->functions[x->a.body];
  f->holders = 1, f->called = true;
  x->g->functions[x->a.body] = f;
  if (f->depth >= x->g->depth) x->g->depth = f->depth + 1;
  ir_graph_free(before);
  return true;
}

static bool push(job *x, ir_ref outside) {
  x->reverse[x->n_reverse++] = outside;
  return outside != 0;
}

/* The reverse body and the scan of it. */
static bool make_reverse(job *x) {
  const ir_graph *j = x->j;
  char name[100];
  snprintf(name, sizeof name, "%.80s.grad", x->body->name);
  ir_graph *b = ir_graph_new(name);
  ir_ref *map = calloc(j->n_nodes, sizeof *map), *sum = calloc((size_t)x->n_leaves + 1, sizeof *sum);
  bool ok = b && map && sum && (x->reverse = calloc(2 * (size_t)x->n_leaves + x->body->n_outputs + x->n_kept + 2, sizeof *x->reverse));
  if (!ok) return ir_graph_free(b), free(map), free(sum), no_memory(x);
  b->rules = j->rules;
  x->ra = (ir_scan_attrs){.length = x->a.length, .reversed = !x->a.reversed};
  for (uint32_t k = 0; k < x->a.carries; k++) {        /* dL/d of the carries */
    if (!x->varies[k]) continue;
    map[x->d_next[k]] = ir_param(b, ir_str(ir_at(j, x->d_next[k]), "name"), (tt_dtype)ir_at(j, x->d_next[k])->dtype, ir_shape(j, x->d_next[k]), false);
    push(x, x->results[k] ? x->results[k] : zeros_of(x->g, j, x->leaf[k]));
    x->ra.carries++;
  }
  for (uint32_t i = (uint32_t)(x->a.carries + x->a.xs); i < x->n_leaves; i++) {      /* sums over steps that stay in here */
    if (!x->gradient[i] || x->sums[i]) continue;
    char text[300];
    snprintf(text, sizeof text, "sum.%.200s", ir_str(ir_at(j, x->leaf[i]), "name"));
    sum[i] = ir_param(b, text, (tt_dtype)ir_at(j, x->leaf[i])->dtype, ir_shape(j, x->leaf[i]), false);
    push(x, zeros_of(x->g, j, x->leaf[i]));
    x->ra.carries++;
  }
#define INPUT(r, outside) map[r] = input_like(b, j, r, "", ir_at(j, r)->op == IR_input ? ir_str(ir_at(j, r), "name") : ir_at(j, r)->name ? ir_at(j, r)->name : "kept"), push(x, outside)
  for (uint32_t k = 0; k < x->body->n_outputs; k++)
    if (x->d_out[k] && (x->mark[x->d_out[k]] & NEEDS)) INPUT(x->d_out[k], x->results[x->a.carries + k]), x->ra.xs++;
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (x->mark[x->leaf[i]] & NEEDS) INPUT(x->leaf[i], x->n->args[i]), x->ra.xs++;
  for (uint32_t k = 0; k < x->n_kept; k++)
    if (x->mark[x->kept[k]] & NEEDS) INPUT(x->kept[k], stack_of(x, x->kept[k])), x->ra.xs++;
  for (uint32_t i = (uint32_t)(x->a.carries + x->a.xs); i < x->n_leaves; i++)
    if (x->mark[x->leaf[i]] & NEEDS) INPUT(x->leaf[i], x->n->args[i]);
#undef INPUT
  for (ir_ref r = 1; r < j->n_nodes && !b->error.status; r++)
    if ((x->mark[r] & NEEDS) && !map[r]) map[r] = ir_rebuild(j, b, r, map);
  for (uint32_t k = 0; k < x->a.carries && !b->error.status; k++)
    if (x->varies[k]) ir_assign(b, map[x->d_next[k]], map[x->gradient[k]]);
  for (uint32_t i = 0; i < x->n_leaves && !b->error.status; i++)
    if (sum[i]) ir_assign(b, sum[i], ir_ew2(b, IR_add, sum[i], map[x->gradient[i]]));
  for (uint32_t k = 0; k < x->n_stacked && !b->error.status; k++) ir_output_add(b, NULL, map[x->stacked[k]]);
  if (b->error.status) tt_fail(&x->g->error, b->error.status, "%s", b->error.message);
  free(map), free(sum);
  if (x->g->error.status || (x->ra.body = ir_function_add(x->g, b)) < 0) return ir_graph_free(b), false;
  return true;
}

/* What the arguments get. */
static void give(job *x) {
  ir_scan_attrs a = x->ra;
  a.result = 0;
  for (uint32_t k = 0; k < x->a.carries; k++) {
    if (!x->varies[k]) continue;
    if (x->want[k]) x->d[k] = ir_scan(x->g, x->reverse, x->n_reverse, a);
    a.result++;
  }
  for (uint32_t i = (uint32_t)x->a.carries; i < x->n_leaves; i++) {
    ir_ref d = x->gradient[i];
    if (!d) continue;
    if (i >= x->a.carries + x->a.xs && x->sums[i]) x->d[i] = over_steps(x, d, BUILD);
    else if (i >= x->a.carries + x->a.xs) x->d[i] = ir_scan(x->g, x->reverse, x->n_reverse, a), a.result++;
    else if (has_stack(x, d)) x->d[i] = stack_of(x, d);
    else x->d[i] = ir_broadcast_to(x->g, zeros_of(x->g, x->j, d), ir_shape(x->g, x->n->args[i]));      /* nothing depends on it */
  }
}

void pass_scan_gradient(ir_graph *g, const ir_node *n, const ir_ref *results, const bool *want, ir_ref *d) {
  job x = {.g = g, .n = n, .a = ir_scan_of(n), .body = ir_scan_body(g, n), .results = results, .want = want, .d = d, .n_leaves = n->n_args};
  size_t leaves = n->n_args + 1u, outs = x.body->n_outputs + 1u;
  ir_graph *body = ir_scan_body(g, n);
  body->holders++;                                     /* it is read to the end, though grow_forward puts another in its place */
  x.j = ir_graph_new(body->name);
  x.leaf = calloc(leaves, sizeof *x.leaf), x.next = calloc(leaves, sizeof *x.next), x.out = calloc(outs, sizeof *x.out), x.varies = calloc(leaves, sizeof *x.varies);
  x.d_next = calloc(leaves, sizeof *x.d_next), x.d_out = calloc(outs, sizeof *x.d_out), x.gradient = calloc(leaves, sizeof *x.gradient), x.sums = calloc(leaves, sizeof *x.sums);
  if (!x.j || !x.leaf || !x.next || !x.out || !x.varies || !x.d_next || !x.d_out || !x.gradient || !x.sums) no_memory(&x);
  else {
    x.j->rules = g->rules;
    if (copy_body(&x) && find_varying(&x) && reverse_step(&x) && mark_rows(&x)) {
      choose_sums(&x);
      choose_kept(&x);
      if (grow_forward(&x) && make_reverse(&x)) give(&x);
    }
    if (x.j->error.status) tt_fail(&g->error, x.j->error.status, "%s", x.j->error.message);
  }
  ir_graph_free(x.j), ir_graph_free(body);
  free(x.leaf), free(x.next), free(x.out), free(x.varies), free(x.d_next), free(x.d_out), free(x.gradient), free(x.sums);
  free(x.mark), free(x.at), free(x.kept), free(x.stacked), free(x.reverse);
}
