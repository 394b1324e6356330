/* scans.c: what a scan's body need not do in every step, and need not give, goes.
 *
 *     func @f(state %h, %x, %w) -> ... {                        func @f(state %h, %x, %p) -> ... {
 *       %p = stop_gradient(permute(%w))                           %z = matmul(%h, %p)
 *       %z = matmul(%h, %p)                         gives         ...
 *       ...                                                     }
 *     }                                                         %p = stop_gradient(permute(%w))
 *     %y = scan(%h0, %x, %w, body=@f, ...)                      %y = scan(%h0, %x, %p, body=@f, ...)
 *
 * A result that nobody reads is not returned, a carry that nothing depends on is not carried, and one that never changes is an argument like the rest. What
 * follows from the rest of the arguments alone is computed before the scan, but for movement and numbers, which cost nothing where they stand; a result that is
 * the same in every step is no result of the scan. */
#include "form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const ir_graph *in;
  ir_graph *out;
  ir_ref *map;                       /* of each row of in */
  const ir_node *n;                  /* the scan at hand */
  ir_scan_attrs a;
  const ir_graph *f;                 /* its body */
  bool *used, *fixed, *needed;       /* result: somebody reads it; row of f: the same in every step; somebody reads it */
  bool *kept, *given;                /* carry: it is one; result: the new scan gives it */
  ir_ref *outside, *inside;          /* row of f: its value before the scan; in the new body */
  ir_graph *b;                       /* the new body */
  ir_ref *leaves;                    /* of f, by argument */
  ir_ref *args; uint32_t n_args;
} job;

static bool is_leaf(const ir_node *n) { return n->op == IR_input || n->op == IR_param; }

static void mark_needed(job *x, ir_ref r) {
  if (x->needed[r]) return;
  x->needed[r] = true;
  for (ir_ref q = r; q > 0; q--)
    for (uint32_t i = 0; x->needed[q] && i < ir_at(x->f, q)->n_args; i++) x->needed[ir_at(x->f, q)->args[i]] = true;
}

/* Which carries and rows are needed, and which are the same in every step. */
static void look_through(job *x) {
  const ir_graph *f = x->f;
  for (uint32_t k = 0; k < f->n_outputs; k++)
    if (x->used[x->a.carries + k]) mark_needed(x, f->outputs[k].value);
  for (bool again = true; again;) {
    again = false;
    for (uint32_t k = 0; k < x->a.carries; k++) {
      ir_ref next = ir_next_value(f, x->leaves[k]);
      if (x->kept[k] || next == x->leaves[k] || !(x->used[k] || x->needed[x->leaves[k]])) continue;
      mark_needed(x, next);
      x->kept[k] = again = true;
    }
  }
  for (uint32_t i = 0; i < x->n->n_args; i++) x->fixed[x->leaves[i]] = i < x->a.carries ? !x->kept[i] : i >= x->a.carries + x->a.xs;
  for (ir_ref r = 1; r < f->n_nodes; r++) {
    const ir_node *n = ir_at(f, r);
    if (is_leaf(n) || n->op == IR_assign) continue;
    x->fixed[r] = true;
    for (uint32_t i = 0; i < n->n_args; i++) x->fixed[r] &= x->fixed[n->args[i]];
  }
  for (uint32_t k = 0; k < x->a.carries; k++) x->given[k] = x->kept[k];
  for (uint32_t k = 0; k < f->n_outputs; k++) x->given[x->a.carries + k] = x->used[x->a.carries + k] && !x->fixed[f->outputs[k].value];
}

/* A row that is the same in every step, made before the scan. Rows before r are asked for first. */
static ir_ref make_outside(job *x, ir_ref r) {
  if (x->outside[r]) return x->outside[r];
  bool *want = calloc(r + 1, sizeof *want);
  if (!want) return tt_fail(&x->out->error, TT_NO_MEMORY, "error: no memory for the scans of @%s", x->in->name), 0;
  want[r] = true;
  for (ir_ref q = r; q > 0; q--)
    for (uint32_t i = 0; want[q] && !x->outside[q] && i < ir_at(x->f, q)->n_args; i++) want[ir_at(x->f, q)->args[i]] = true;
  for (ir_ref q = 1; q <= r && !x->out->error.status; q++)
    if (want[q] && !x->outside[q]) x->outside[q] = ir_rebuild(x->f, x->out, q, x->outside);
  free(want);
  return x->outside[r];
}

/* Does it stay in the body although it is the same in every step? */
static bool stays(const ir_node *n) { return (ir_ops[n->op].kind == IR_MOVEMENT && n->op != IR_fold) || n->op == IR_const || n->op == IR_iota; }

/* A new leaf of the body for a value from outside. */
static void argument(job *x, ir_ref r, ir_ref from, bool state) {
  const ir_node *n = ir_at(x->f, r);
  char name[300], number[24];
  snprintf(number, sizeof number, "v%u", r);
  snprintf(name, sizeof name, "%.250s", is_leaf(n) ? ir_str(n, "name") : n->name ? n->name : number);
  for (int i = 2; ir_find(x->b, name); i++) snprintf(name, sizeof name, "%.250s.%d", is_leaf(n) ? ir_str(n, "name") : n->name ? n->name : number, i);
  x->inside[r] = state ? ir_param(x->b, name, (tt_dtype)n->dtype, ir_shape(x->f, r), false) : ir_input(x->b, name, (tt_dtype)n->dtype, ir_shape(x->f, r));
  x->args[x->n_args++] = from;
}

static void make_body(job *x) {
  const ir_graph *f = x->f;
  uint32_t carries = 0, xs = 0;
  bool *in = calloc(f->n_nodes, sizeof *in);           /* the new body has the row, or its value as an argument */
  if (!in) { tt_fail(&x->out->error, TT_NO_MEMORY, "error: no memory for the scans of @%s", x->in->name); return; }
  for (uint32_t k = 0; k < f->n_outputs; k++) in[f->outputs[k].value] |= x->given[x->a.carries + k];
  for (uint32_t k = 0; k < x->a.carries; k++) in[ir_next_value(f, x->leaves[k])] |= x->kept[k];
#define MOVES_OUT(r) (x->fixed[r] && !is_leaf(ir_at(f, r)) && !stays(ir_at(f, r)))
  for (ir_ref r = f->n_nodes - 1; r > 0; r--)
    for (uint32_t i = 0; in[r] && !MOVES_OUT(r) && i < ir_at(f, r)->n_args; i++) in[ir_at(f, r)->args[i]] = true;
  for (uint32_t k = 0; k < x->a.carries; k++)
    if (x->kept[k]) argument(x, x->leaves[k], x->map[x->n->args[k]], true), carries++;
  for (uint32_t i = (uint32_t)x->a.carries; i < x->a.carries + x->a.xs; i++)
    if (in[x->leaves[i]]) argument(x, x->leaves[i], x->map[x->n->args[i]], false), xs++;
  for (ir_ref r = 1; r < f->n_nodes && !x->b->error.status && !x->out->error.status; r++) {
    if (!in[r] || x->inside[r]) continue;
    if (is_leaf(ir_at(f, r)) || MOVES_OUT(r)) argument(x, r, make_outside(x, r), false);
    else x->inside[r] = ir_rebuild(f, x->b, r, x->inside);
  }
#undef MOVES_OUT
  for (uint32_t k = 0; k < x->a.carries && !x->b->error.status; k++)
    if (x->kept[k]) ir_assign(x->b, x->inside[x->leaves[k]], x->inside[ir_next_value(f, x->leaves[k])]);
  for (uint32_t k = 0; k < f->n_outputs && !x->b->error.status; k++)
    if (x->given[x->a.carries + k]) ir_output_add(x->b, f->outputs[k].name, x->inside[f->outputs[k].value]);
  if (x->b->error.status) tt_fail(&x->out->error, x->b->error.status, "%s", x->b->error.message);
  x->a.carries = carries, x->a.xs = xs;
  free(in);
}

/* Output k, which is the same in every step. */
static ir_ref repeated(job *x, uint32_t k) {
  ir_ref once = make_outside(x, x->f->outputs[k].value);
  if (!once) return 0;
  tt_shape s = ir_shape(x->out, once);
  int dims[TT_MAX_RANK];
  for (int i = 0; i < s.rank; i++) dims[i] = i + 1;
  memmove(s.dim + 1, s.dim, (size_t)s.rank++ * sizeof *s.dim);
  s.dim[0] = x->a.length;
  return ir_broadcast(x->out, once, s, dims);
}

/* All live results of the scan of row r. */
static bool scan(job *x, ir_ref r, const bool *live) {
  const ir_graph *in = x->in;
  x->n = ir_at(in, r), x->a = ir_scan_of(x->n);
  ir_graph *body = ir_scan_body(in, x->n);
  for (uint32_t i = 0; i < x->out->n_replaced; i++)
    if (x->out->replaced[i][0] == body) { body = x->out->replaced[i][1]; break; }
  x->f = body;
  size_t rows = x->f->n_nodes, results = (size_t)x->a.carries + x->f->n_outputs;
  int64_t carries = x->a.carries;
  x->used = calloc(results + 1, sizeof *x->used), x->kept = calloc(results + 1, sizeof *x->kept), x->given = calloc(results + 1, sizeof *x->given);
  x->fixed = calloc(rows, sizeof *x->fixed), x->needed = calloc(rows, sizeof *x->needed);
  x->outside = calloc(rows, sizeof *x->outside), x->inside = calloc(rows, sizeof *x->inside);
  x->leaves = calloc(x->n->n_args + 1u, sizeof *x->leaves), x->args = calloc(rows, sizeof *x->args), x->n_args = 0;
  x->b = ir_graph_new(x->f->name);
  bool ok = x->used && x->kept && x->given && x->fixed && x->needed && x->outside && x->inside && x->leaves && x->args && x->b;
  if (ok) {
    for (ir_ref m = r; m < in->n_nodes; m++)
      if (live[m] && ir_same_scan(in, r, m)) x->used[ir_scan_of(ir_at(in, m)).result] = true;
    uint32_t n = 0;
    for (ir_ref q = 1; q < rows; q++)
      if (is_leaf(ir_at(x->f, q))) {
        x->outside[q] = x->map[x->n->args[n]];
        x->leaves[n++] = q;
      }
    look_through(x);
    make_body(x);
    int64_t number = x->out->error.status || !x->n_args ? -1 : ir_function_add(x->out, x->b);
    for (ir_ref m = r; m < in->n_nodes && !x->out->error.status; m++) {
      if (!live[m] || !ir_same_scan(in, r, m)) continue;
      int64_t result = ir_scan_of(ir_at(in, m)).result, at = 0;
      if (!x->given[result]) {                         /* it never changes */
        x->map[m] = result < carries ? x->map[x->n->args[result]] : repeated(x, (uint32_t)(result - carries));
        continue;
      }
      for (int64_t k = 0; k < result; k++) at += x->given[k];
      if (number < 0) {
        tt_fail(&x->out->error, TT_NO_MEMORY, "error: no memory for the scans of @%s\n  at pass scans\n  fix: free memory", in->name);
        break;
      }
      x->a.body = number, x->a.result = at;
      x->out->at_origin = ir_origin_copy(x->out, in, ir_at(in, m)->origin);
      x->map[m] = ir_scan(x->out, x->args, x->n_args, x->a);
      x->out->at_origin = 0;
      ir_name(x->out, x->map[m], ir_at(in, m)->name);
    }
  } else tt_fail(&x->out->error, TT_NO_MEMORY, "error: no memory for the scans of @%s\n  at pass scans\n  fix: free memory", in->name);
  if (x->b && !x->b->holders) ir_graph_free(x->b);
  free(x->used), free(x->kept), free(x->given), free(x->fixed), free(x->needed), free(x->outside), free(x->inside), free(x->leaves), free(x->args);
  return ok;
}

tt_status pass_scans(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in);
  job x = {.in = in, .out = out, .map = calloc(in->n_nodes, sizeof *x.map)};
  bool ok = live && x.map;
  for (ir_ref r = 1; ok && r < in->n_nodes && !out->error.status; r++) {
    if (!live[r] || x.map[r]) continue;
    if (ir_at(in, r)->op == IR_scan) ok = scan(&x, r, live);
    else x.map[r] = ir_rebuild(in, out, r, x.map);
  }
  if (ok && !out->error.status) ir_finish(in, out, x.map);
  free(live), free(x.map);
  if (!ok) return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass scans\n  fix: free memory", in->n_nodes);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
