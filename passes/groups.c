/* groups.c: puts groups of rows in order and writes them out as kernels. A row may stand in several groups: each makes it again, and
 * only the group in which it is a result gives it to the others. */
#include "form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tt_status no_memory(const ir_graph *g, tt_error *err) {
  return tt_fail(err, TT_NO_MEMORY, "error: no memory for the kernels of @%s\n  at %u rows\n  fix: free memory or make the model smaller", g->name, g->n_nodes);
}

void groups_free(group *groups, int n) {
  for (int i = 0; groups && i < n; i++) free(groups[i].rows), free(groups[i].result);
  free(groups);
}

group *groups_of(const ir_graph *g, int *n) {
  group *groups = calloc(g->n_kernels + 1, sizeof *groups);
  int *at = calloc(g->n_kernels + 1, sizeof *at);      /* 1 + group of a region */
  bool ok = groups && at;
  *n = 0;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    uint32_t region = ir_at(g, r)->region;
    if (!region) continue;
    if (!at[region]) {
      int rows = 0;
      while (r + (ir_ref)rows < g->n_nodes && ir_at(g, r + (ir_ref)rows)->region == region) rows++;
      at[region] = ++*n;
      groups[*n - 1] = (group){.rows = calloc((size_t)rows, sizeof(ir_ref)), .result = calloc((size_t)rows, 1), .key = r, .region = region};
      ok = groups[*n - 1].rows && groups[*n - 1].result;
    }
    group *x = &groups[at[region] - 1];
    if (ok) x->rows[x->n++] = r;
  }
  for (ir_ref r = 1; ok && r < g->n_nodes; r++)
    for (uint32_t k = 0; k < ir_at(g, r)->n_args; k++) {
      ir_ref a = ir_at(g, r)->args[k];
      uint32_t region = ir_at(g, a)->region;
      if (region && region != ir_at(g, r)->region) groups[at[region] - 1].result[a - groups[at[region] - 1].rows[0]] = true;
    }
  for (uint32_t i = 0; ok && i < g->n_outputs; i++) {
    ir_ref a = g->outputs[i].value;
    uint32_t region = ir_at(g, a)->region;
    if (region) groups[at[region] - 1].result[a - groups[at[region] - 1].rows[0]] = true;
  }
  free(at);
  if (ok) return groups;
  groups_free(groups, *n);
  return NULL;
}

/* A heap of group numbers, the smallest key first. */
static bool before(const group *g, int a, int b) { return g[a].key != g[b].key ? g[a].key < g[b].key : a < b; }
static void heap_push(const group *g, int *heap, int *n, int x) {
  int i = (*n)++;
  for (; i && before(g, x, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = x;
}
static int heap_pop(const group *g, int *heap, int *n) {
  int top = heap[0], x = heap[--*n], i = 0;
  for (int c; (c = 2 * i + 1) < *n; i = c) {
    if (c + 1 < *n && before(g, heap[c + 1], heap[c])) c++;
    if (!before(g, heap[c], x)) break;
    heap[i] = heap[c];
  }
  heap[i] = x;
  return top;
}

bool groups_order(const group *groups, int n, const int (*edges)[2], int n_edges, int *order) {
  int *waits = calloc((size_t)n + 1, sizeof *waits), *first = calloc((size_t)n + 2, sizeof *first), *heap = calloc((size_t)n + 1, sizeof *heap);
  int *then = calloc((size_t)n_edges + 1, sizeof *then), size = 0, done = 0;
  if (waits && first && heap && then) {
    for (int e = 0; e < n_edges; e++) waits[edges[e][1]]++, first[edges[e][0] + 1]++;
    for (int i = 0; i < n; i++) first[i + 1] += first[i];
    int *fill = heap;                                 /* used before the heap is */
    memcpy(fill, first, (size_t)n * sizeof *fill);
    for (int e = 0; e < n_edges; e++) then[fill[edges[e][0]]++] = edges[e][1];
    for (int i = 0; i < n; i++)
      if (!waits[i]) heap_push(groups, heap, &size, i);
    while (size) {
      int i = heap_pop(groups, heap, &size);
      order[done++] = i;
      for (int e = first[i]; e < first[i + 1]; e++)
        if (!--waits[then[e]]) heap_push(groups, heap, &size, then[e]);
    }
  }
  free(waits), free(first), free(heap), free(then);
  return done == n;
}

/* "k3_conv_add_relu": the ops that say most. */
static void kernel_name(const ir_graph *g, const group *x, int number, char *name, size_t size) {
  size_t at = (size_t)snprintf(name, size, "k%d", number);
  int shown = 0, last = 0;
  for (int pass = 0; pass < 2 && shown < 3; pass++)   /* first what is no movement */
    for (int i = 0; i < x->n && shown < 3 && at < size; i++) {
      int op = ir_at(g, x->rows[i])->op, kind = ir_ops[op].kind;
      bool plain = kind == IR_MOVEMENT || kind == IR_LEAF || op == IR_cast || op == IR_stop_gradient;
      if (op == last || op == IR_const || plain != (pass == 1) || (pass && shown)) continue;
      bool winograd = op == IR_conv && ir_int(ir_at(g, x->rows[i]), "winograd");
      at += (size_t)snprintf(name + at, size - at, "_%s", winograd ? "winograd" : ir_ops[op].name);
      shown++, last = op;
    }
}

tt_status groups_emit(const ir_graph *in, ir_graph *out, const group *groups, int n, const int *order, group_plan *plan, void *user, tt_error *err) {
  bool *live = ir_live(in), plain = out->plain;
  ir_ref *map = calloc(in->n_nodes, sizeof *map), *saved = calloc(in->n_nodes, sizeof *saved);
  if (!live || !map || !saved) {
    free(live), free(map), free(saved);
    return no_memory(in, err);
  }
  out->plain = true;
  for (int consts = 0; consts < 2; consts++)          /* inputs and params first, as the text form has them: plans name rows by number */
    for (ir_ref r = 1; r < in->n_nodes; r++)
      if (live[r] && form_is_leaf(in, r) && (ir_at(in, r)->op == IR_const) == (consts == 1)) map[r] = ir_rebuild(in, out, r, map);
  for (int k = 0; k < n && !out->error.status; k++) {
    const group *x = &groups[order[k]];
    char name[64];
    kernel_name(in, x, k, name, sizeof name);
    uint32_t region = out->at_region = ir_kernel_add(out, name);
    for (int i = 0; i < x->n; i++) saved[i] = map[x->rows[i]];
    for (int i = 0; i < x->n; i++) map[x->rows[i]] = ir_rebuild(in, out, x->rows[i], map);
    if (plan) plan(user, x, in, out, region);
    for (int i = 0; i < x->n; i++)
      if (!x->result[i]) map[x->rows[i]] = saved[i];
  }
  out->at_region = 0;
  for (uint32_t i = 0; i < in->n_effects && !out->error.status; i++) map[in->effects[i]] = ir_rebuild(in, out, in->effects[i], map);
  if (!out->error.status) ir_finish(in, out, map);
  out->plain = plain;
  free(live), free(map), free(saved);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
