/* walk.c: what passes share: which rows are needed, making a row again in another graph, and copies of whole graphs. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

/* Operands stand before their row, so one walk backward is enough. A function's leaves are what scans give it, read or not. */
bool *ir_live(const ir_graph *g) {
  bool *live = calloc(g->n_nodes, sizeof *live);
  if (!live) return NULL;
  for (uint32_t i = 0; i < g->n_outputs; i++) live[g->outputs[i].value] = true;
  for (uint32_t i = 0; i < g->n_effects; i++) live[g->effects[i]] = true;
  for (ir_ref r = g->n_nodes - 1; r > 0; r--) {
    live[r] |= g->called && (ir_at(g, r)->op == IR_input || ir_at(g, r)->op == IR_param);
    for (uint32_t i = 0; live[r] && i < ir_at(g, r)->n_args; i++) live[ir_at(g, r)->args[i]] = true;
  }
  return live;
}

uint32_t *ir_use_counts(const ir_graph *g, const bool *live) {
  uint32_t *uses = calloc(g->n_nodes, sizeof *uses);
  if (!uses) return NULL;
  for (ir_ref r = 1; r < g->n_nodes; r++)
    for (uint32_t i = 0; live[r] && i < ir_at(g, r)->n_args; i++) uses[ir_at(g, r)->args[i]]++;
  for (uint32_t i = 0; i < g->n_outputs; i++) uses[g->outputs[i].value]++;
  return uses;
}

/* Attributes of n for the graph `out`: texts are interned and blobs copied there. */
static const int64_t *words_for(const ir_graph *in, ir_graph *out, const ir_node *n) {
  const int64_t *w = n->words;
  if (n->op != IR_input && n->op != IR_param && n->op != IR_const && n->op != IR_scan) return w;     /* the ops that have a text, a blob or a function */
  int64_t *copy = malloc((n->n_words + 1) * sizeof *copy), *at = copy;
  if (!copy) return tt_fail(&out->error, TT_NO_MEMORY, "error: no memory for a row of @%s", out->name), NULL;
  memcpy(copy, w, n->n_words * sizeof *copy);
  for (int i = 0; i < 8 && ir_ops[n->op].attrs[i].kind != IR_ATTR_END; i++) {
    uint8_t kind = ir_ops[n->op].attrs[i].kind;
    if (kind == IR_ATTR_STR) *at = (int64_t)(intptr_t)ir_intern(out, (const char *)(intptr_t)*at);
    if (kind == IR_ATTR_DATA && (*at = ir_blob_add(out, in->blobs[*at].data, in->blobs[*at].bytes)) < 0) return free(copy), NULL;
    if (kind == IR_ATTR_FUNC && (*at = ir_function_add(out, in->functions[*at])) < 0) return free(copy), NULL;
    at += kind == IR_ATTR_INTS ? 1 + *at : 1;
  }
  return copy;
}

ir_ref ir_rebuild(const ir_graph *in, ir_graph *out, ir_ref r, const ir_ref *map) {
  const ir_node *n = ir_at(in, r);
  ir_ref few[8], *args = n->n_args <= 8 ? few : malloc(n->n_args * sizeof *args), result = 0;
  const int64_t *words = args ? words_for(in, out, n) : NULL;
  if (args && (words || !n->n_words)) {
    for (uint32_t i = 0; i < n->n_args; i++) args[i] = map[n->args[i]];
    uint32_t at = out->at_origin;
    out->at_origin = ir_origin_copy(out, in, n->origin);
    result = ir_emit(out, (ir_op)n->op, args, n->n_args, words, n->n_words);
    out->at_origin = at;
    ir_name(out, result, n->name);
  } else tt_fail(&out->error, TT_NO_MEMORY, "error: no memory for a row of @%s", out->name);
  if (words != n->words) free((void *)words);
  if (args != few) free(args);
  return result;
}

void ir_finish(const ir_graph *in, ir_graph *out, const ir_ref *map) {
  out->called = in->called;
  out->name = ir_intern(out, in->name);
  for (uint32_t i = 0; i < in->n_outputs; i++) ir_output_add(out, in->outputs[i].name, map[in->outputs[i].value]);
  /* The effects are in `out` since their rows were made; here they get the order that they had, new ones after them. */
  uint32_t n = 0;
  for (uint32_t i = 0; i < in->n_effects; i++)
    for (uint32_t k = n; k < out->n_effects; k++)
      if (out->effects[k] == map[in->effects[i]]) {
        ir_ref r = out->effects[k];
        memmove(out->effects + n + 1, out->effects + n, (k - n) * sizeof *out->effects);
        out->effects[n++] = r;
        break;
      }
}

ir_scan_attrs ir_scan_of(const ir_node *n) { return (ir_scan_attrs){n->words[0], n->words[1], n->words[2], n->words[3], n->words[4], n->words[5]}; }
ir_graph *ir_scan_body(const ir_graph *g, const ir_node *n) { return g->functions[n->words[0]]; }

bool ir_same_scan(const ir_graph *g, ir_ref a, ir_ref b) {
  const ir_node *x = ir_at(g, a), *y = ir_at(g, b);
  return x->op == IR_scan && y->op == IR_scan && x->n_args == y->n_args && !memcmp(x->args, y->args, x->n_args * sizeof *x->args) && !memcmp(x->words, y->words, (x->n_words - 1) * sizeof *x->words);
}

bool ir_same_attention(const ir_graph *g, ir_ref a, ir_ref b) {
  const ir_node *x = ir_at(g, a), *y = ir_at(g, b);
  if (!ir_is_attention((ir_op)x->op) || !ir_is_attention((ir_op)y->op) || ir_attention_first((ir_op)x->op) != ir_attention_first((ir_op)y->op)) return false;
  return x->n_args == y->n_args && !memcmp(x->args, y->args, x->n_args * sizeof *x->args) && x->n_words == y->n_words && !memcmp(x->words, y->words, x->n_words * sizeof *x->words);
}

ir_ref ir_leaf(const ir_graph *g, uint32_t i) {
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if ((ir_at(g, r)->op == IR_input || ir_at(g, r)->op == IR_param) && !i--) return r;
  return 0;
}

ir_ref ir_next_value(const ir_graph *g, ir_ref param) {
  for (uint32_t i = 0; i < g->n_effects; i++)
    if (ir_at(g, g->effects[i])->args[0] == param) return ir_at(g, g->effects[i])->args[1];
  return 0;
}

ir_graph *ir_clone(const ir_graph *g) {
  ir_graph *to = ir_graph_new(g->name);
  ir_ref *map = malloc(g->n_nodes * sizeof *map);
  bool ok = to && map;
  for (uint32_t k = 1; ok && k < g->n_kernels; k++) {
    ok = ir_kernel_add(to, g->kernels[k].name) == k;
    for (uint32_t i = 0; ok && i < g->kernels[k].n_plan; i++) ir_kernel_plan(to, k, g->kernels[k].plan[i].name, g->kernels[k].plan[i].values, g->kernels[k].plan[i].n);
  }
  if (ok) {
    map[0] = 0;
    to->plain = true;
    for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
      to->at_region = ir_at(g, r)->region;
      ok = (map[r] = ir_rebuild(g, to, r, map)) == r;
      if (ok) ir_at(to, r)->place = ir_at(g, r)->place;
    }
    to->at_region = 0;
  }
  if (ok) {
    ir_finish(g, to, map);
    to->plain = g->plain;
    to->rules = g->rules;
    to->arena_bytes = g->arena_bytes;
    ok = to->error.status == TT_OK;
  }
  free(map);
  if (!ok) return ir_graph_free(to), NULL;
  return to;
}
