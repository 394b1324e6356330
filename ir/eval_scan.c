/* eval_scan.c: a scan, step by step: its body is evaluated as a graph of its own, on element t of xs, on what the carries have become, and on the rest.
 *
 *     h1[0], y[0] = body(h0, x[0], w)      h1[1], y[1] = body(h1[0], x[1], w)      ...      results: the last h1; all of y, stacked */
#include "eval.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const ir_graph *body;
  ir_scan_attrs a;
  ir_ref *leaves;                    /* of each argument */
  const void *const *args;
  void **carries;                    /* the present values */
  void *const *outs;
} scan;

static size_t bytes_of(const ir_graph *g, ir_ref r) { return (size_t)ev_count(ir_at(g, r)) * tt_dtype_size(ir_at(g, r)->dtype); }

static tt_status step(scan *s, int64_t t, uint32_t n_args, void **values, tt_error *err) {
  const ir_graph *g = s->body;
  for (uint32_t i = 0; i < n_args; i++)
    values[s->leaves[i]] = i < s->a.carries ? s->carries[i] : i < s->a.carries + s->a.xs ? (char *)(uintptr_t)s->args[i] + (size_t)t * bytes_of(g, s->leaves[i]) : (void *)(uintptr_t)s->args[i];
  tt_status status = ir_eval(g, values, err);
  for (uint32_t i = 0; !status && i < g->n_outputs; i++) {
    void *out = s->outs[s->a.carries + i];
    ir_ref value = g->outputs[i].value;
    if (out) memcpy((char *)out + (size_t)t * bytes_of(g, value), values[value], bytes_of(g, value));
  }
  for (uint32_t i = 0; !status && i < g->n_effects; i++)       /* its value is a row of its own, made before any carry changes */
    for (uint32_t k = 0; k < s->a.carries; k++)
      if (s->leaves[k] == ir_at(g, g->effects[i])->args[0]) memcpy(s->carries[k], values[g->effects[i]], bytes_of(g, s->leaves[k]));
  return status;
}

tt_status ir_eval_scan(const ir_graph *g, const ir_node *n, const void *const *args, void *const *outs, tt_error *err) {
  scan s = {.body = ir_scan_body(g, n), .a = ir_scan_of(n), .args = args, .outs = outs};
  s.leaves = calloc(n->n_args + 1, sizeof *s.leaves), s.carries = calloc((size_t)s.a.carries + 1, sizeof *s.carries);
  bool ok = s.leaves && s.carries;
  for (uint32_t i = 0; ok && i < n->n_args; i++) {
    s.leaves[i] = ir_leaf(s.body, i);
    if (i >= s.a.carries) continue;
    size_t bytes = bytes_of(s.body, s.leaves[i]);
    if ((ok = (s.carries[i] = malloc(bytes + 1)) != NULL)) memcpy(s.carries[i], args[i], bytes);
  }
  tt_status status = ok ? TT_OK : tt_fail(err, TT_NO_MEMORY, "no memory for the carries of a scan in @%s", g->name);
  for (int64_t k = 0; !status && k < s.a.length; k++) {
    void **values = calloc(s.body->n_nodes, sizeof *values);
    status = values ? step(&s, s.a.reversed ? s.a.length - 1 - k : k, n->n_args, values, err) : tt_fail(err, TT_NO_MEMORY, "no memory for a step of a scan in @%s", g->name);
    ir_values_free(s.body, values);
  }
  for (int64_t i = 0; !status && i < s.a.carries; i++)
    if (outs[i]) memcpy(outs[i], s.carries[i], bytes_of(s.body, s.leaves[i]));
  for (int64_t i = 0; s.carries && i < s.a.carries; i++) free(s.carries[i]);
  free(s.leaves), free(s.carries);
  return status;
}

tt_status eval_scan(const ev_call *c) {
  size_t results = (size_t)ir_scan_of(c->n).carries + ir_scan_body(c->g, c->n)->n_outputs;
  void **outs = calloc(results + 1, sizeof *outs);
  if (!outs) return tt_fail(c->err, TT_NO_MEMORY, "no memory for a scan of @%s", c->g->name);
  outs[ir_scan_of(c->n).result] = c->out;
  tt_status status = ir_eval_scan(c->g, c->n, c->args, outs, c->err);
  free(outs);
  return status;
}
