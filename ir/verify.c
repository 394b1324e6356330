/* verify.c: everything that ir_emit promises, checked again on a finished graph, and what later passes promise: kernels are
 * runs of rows, a param's next value is computed in its place only when nobody reads the old one afterwards, and rows that live at
 * the same time do not share bytes of the arena. A message says which pass made the graph and which row is wrong. */
#include "ir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const ir_graph *g;
  const char *stage;
  tt_error *err;
  bool *live;
  uint32_t *first, *last;     /* of each row: the position of the kernel (or lone row) that computes it, and of the last that reads it */
} ctx;

#define BAD(r, ...) return bad(c, r, __VA_ARGS__)
TT_PRINTF(3, 4) static bool bad(ctx *c, ir_ref r, const char *format, ...) {
  char what[600], label[100];
  va_list list;
  va_start(list, format);
  vsnprintf(what, sizeof what, format, list);
  va_end(list);
  tt_fail(c->err, TT_INTERNAL, "error: the graph @%s is wrong after %s: %s\n  at row %" PRIu32 ", %s = %s(...)\n  fix: this is a bug of the compiler; please report it with the graph's text", c->g->name, c->stage, what, r,
          ir_label(c->g, r, label, sizeof label), ir_at(c->g, r)->op < IR_N_OPS ? ir_ops[ir_at(c->g, r)->op].name : "?");
  return false;
}

static bool rows(ctx *c) {
  const ir_graph *g = c->g;
  ir_graph *view = malloc(sizeof *view);           /* infer records mistakes in its graph: in this copy */
  if (!view) return tt_fail(c->err, TT_NO_MEMORY, "error: no memory to verify @%s\n  at %s\n  fix: free memory", g->name, c->stage), false;
  memcpy(view, g, sizeof *view);
  view->error.status = TT_OK;
  bool ok = true;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    tt_dtype t;
    tt_shape s, have = ir_shape(g, r);
    if (n->op == IR_poison || n->op >= IR_N_OPS) { ok = bad(c, r, "there is no op %d", n->op); break; }
    int arity = ir_ops[n->op].arity;
    if (arity < 0 ? n->n_args < 1 : n->n_args != (uint32_t)arity) ok = bad(c, r, "%" PRIu32 " operands", n->n_args);
    for (uint32_t i = 0; ok && i < n->n_args; i++) {
      if (n->args[i] == 0 || n->args[i] >= r) ok = bad(c, r, "operand %" PRIu32 " is row %" PRIu32 ", which does not stand before it", i, n->args[i]);
      else if (ir_at(g, n->args[i])->op == IR_assign) ok = bad(c, r, "operand %" PRIu32 " is an assign", i);
    }
    if (ok && !ir_words_ok(g, (ir_op)n->op, n->words, n->n_words)) ok = bad(c, r, "its attributes are not those of the op");
    if (ok && (n->region >= g->n_kernels || n->origin >= g->n_origins)) ok = bad(c, r, "kernel %" PRIu32 " of %" PRIu32 ", origin %" PRIu32 " of %" PRIu32, n->region, g->n_kernels, n->origin, g->n_origins);
    if (!ok) break;
    view->at_origin = n->origin;
    if (!ir_infer(view, (ir_op)n->op, n->args, n->n_args, n->words, n->n_words, &t, &s)) ok = bad(c, r, "%s", view->error.message);
    else if (t != n->dtype || !tt_shape_equal(&s, &have)) {
      char a[200], b[200];
      ok = bad(c, r, "it says %s, its operands give %s", tt_type_text((tt_dtype)n->dtype, &have, a, sizeof a), tt_type_text(t, &s, b, sizeof b));
    }
  }
  free(view);
  return ok;
}

static bool outputs_and_effects(ctx *c) {
  const ir_graph *g = c->g;
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (!g->outputs[i].value || g->outputs[i].value >= g->n_nodes) BAD(0, "output %" PRIu32 " is row %" PRIu32, i, g->outputs[i].value);
  for (ir_ref r = 1; r < g->n_nodes; r++) n += ir_at(g, r)->op == IR_assign;
  if (n != g->n_effects) BAD(0, "%" PRIu32 " assigns, %" PRIu32 " effects", n, g->n_effects);
  for (uint32_t i = 0; i < g->n_effects; i++) {
    ir_ref r = g->effects[i];
    if (!r || r >= g->n_nodes || ir_at(g, r)->op != IR_assign) BAD(0, "effect %" PRIu32 " is row %" PRIu32 ", which is no assign", i, r);
    for (uint32_t k = 0; k < i; k++)
      if (g->effects[k] == r) BAD(r, "effects %" PRIu32 " and %" PRIu32 " are one assign", k, i);
      else if (ir_at(g, g->effects[k])->args[0] == ir_at(g, r)->args[0]) BAD(r, "its param has two next values");
  }
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *a = ir_at(g, r);
    if (a->op != IR_input && a->op != IR_param) continue;
    if (ir_find(g, ir_str(a, "name")) != r) BAD(r, "another row has its name");
  }
  return true;
}

static bool kernels(ctx *c) {
  const ir_graph *g = c->g;
  bool *seen = calloc(g->n_kernels, sizeof *seen), ok = seen;
  if (!seen) tt_fail(c->err, TT_NO_MEMORY, "error: no memory to verify @%s\n  at %s\n  fix: free memory", g->name, c->stage);
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (!n->region) continue;
    if (n->region != ir_at(g, r - 1)->region && seen[n->region]) ok = bad(c, r, "kernel @%s is not one run of rows", g->kernels[n->region].name);
    else if (n->op == IR_input || n->op == IR_param || n->op == IR_assign) ok = bad(c, r, "%s inside of kernel @%s", ir_ops[n->op].name, g->kernels[n->region].name);
    else if (n->op == IR_const && !ir_is_splat(g, r, NULL)) ok = bad(c, r, "a constant of several values inside of kernel @%s", g->kernels[n->region].name);
    seen[n->region] = true;
  }
  free(seen);
  return ok;
}

/* Positions in which the program runs: a kernel's rows share one. */
static bool lifetimes(ctx *c) {
  const ir_graph *g = c->g;
  c->first = calloc(g->n_nodes, sizeof *c->first);
  c->last = calloc(g->n_nodes, sizeof *c->last);
  c->live = ir_live(g);
  if (!c->first || !c->last || !c->live) return tt_fail(c->err, TT_NO_MEMORY, "error: no memory to verify @%s\n  at %s\n  fix: free memory", g->name, c->stage), false;
  uint32_t at = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (!n->region || n->region != ir_at(g, r - 1)->region) at++;
    c->first[r] = c->last[r] = at;
    for (uint32_t i = 0; c->live[r] && n->op != IR_assign && i < n->n_args; i++) c->last[n->args[i]] = at;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) c->last[g->outputs[i].value] = UINT32_MAX;
  for (uint32_t i = 0; i < g->n_effects; i++) c->last[ir_at(g, g->effects[i])->args[1]] = UINT32_MAX;
  return true;
}

/* Plan entry "inplace" of a kernel: pairs (value, param): the value is computed in the param's own memory. */
static bool in_place(ctx *c) {
  const ir_graph *g = c->g;
  for (uint32_t k = 1; k < g->n_kernels; k++) {
    uint32_t n;
    const int64_t *pairs = ir_kernel_get(g, k, "inplace", &n);
    if (n % 2) BAD(0, "kernel @%s: inplace is not a list of pairs", g->kernels[k].name);
    for (uint32_t i = 0; i < n; i += 2) {
      int64_t value = pairs[i], param = pairs[i + 1];
      bool assigned = false;
      for (uint32_t e = 0; e < g->n_effects; e++) assigned |= ir_at(g, g->effects[e])->args[0] == param && ir_at(g, g->effects[e])->args[1] == value;
      if (!assigned) BAD(value > 0 && value < g->n_nodes ? (ir_ref)value : 0, "kernel @%s computes it in place of row %" PRId64 ", to which it is not assigned", g->kernels[k].name, param);
      if (ir_at(g, (ir_ref)value)->region != k) BAD((ir_ref)value, "it is in place by the plan of kernel @%s, which does not compute it", g->kernels[k].name);
      if (c->last[param] > c->first[value]) BAD((ir_ref)param, "it is read after its next value was computed in its place");
    }
  }
  return true;
}

typedef struct { ir_ref row; int64_t from, to; } placed;
static int by_offset(const void *a, const void *b) { const placed *x = a, *y = b; return x->from != y->from ? (x->from > y->from) - (x->from < y->from) : (x->row > y->row) - (x->row < y->row); }

/* Two rows with common bytes may meet in one kernel only when one ends where the other starts, at the same offset. */
static bool places(ctx *c) {
  const ir_graph *g = c->g;
  placed *list = malloc(g->n_nodes * sizeof *list);
  if (!list) return tt_fail(c->err, TT_NO_MEMORY, "error: no memory to verify @%s\n  at %s\n  fix: free memory", g->name, c->stage), false;
  uint32_t n = 0;
  bool ok = true;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *a = ir_at(g, r);
    tt_shape s = ir_shape(g, r);
    int64_t bytes = tt_shape_count(&s) * (int64_t)tt_dtype_size((tt_dtype)a->dtype);
    if (a->place == IR_UNPLACED) continue;
    if (a->place < 0 || a->place > g->arena_bytes || bytes > g->arena_bytes - a->place) ok = bad(c, r, "%" PRId64 " bytes at %" PRId64 " of an arena of %" PRId64, bytes, a->place, g->arena_bytes);
    else if (a->op == IR_input || a->op == IR_param || a->op == IR_assign) ok = bad(c, r, "%s in the arena", ir_ops[a->op].name);
    else if (bytes && c->live[r]) list[n++] = (placed){r, a->place, a->place + bytes};
  }
  if (ok) qsort(list, n, sizeof *list, by_offset);
  for (uint32_t i = 0; ok && i < n; i++)
    for (uint32_t k = i + 1; ok && k < n && list[k].from < list[i].to; k++) {
      ir_ref a = list[i].row, b = list[k].row;
      if (c->first[a] > c->first[b]) { ir_ref t = a; a = b; b = t; }
      bool handed_over = c->last[a] == c->first[b] && c->first[a] < c->first[b] && list[i].from == list[k].from;
      char label[100];
      if (c->last[a] >= c->first[b] && !handed_over) ok = bad(c, b, "it shares bytes of the arena with %s, which is still in use", ir_label(g, a, label, sizeof label));
    }
  free(list);
  return ok;
}

tt_status ir_verify(const ir_graph *g, const char *stage, tt_error *err) {
  tt_error ignored = {0};
  ctx c = {.g = g, .stage = stage ? stage : "building", .err = err ? err : &ignored};
  if (g->error.status) return tt_fail(c.err, g->error.status, "%s", g->error.message);
  if (ir_at(g, 0)->op != IR_poison) bad(&c, 0, "row 0 is not poison");
  else if (rows(&c) && outputs_and_effects(&c) && kernels(&c) && lifetimes(&c) && in_place(&c)) places(&c);
  free(c.live), free(c.first), free(c.last);
  return c.err->status;
}
