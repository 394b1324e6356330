/* memory.c: gives every value that a kernel makes for another one its place in one arena.
 *
 * Kernels run in the order of their rows, so a value lives from the kernel that makes it to the last that reads it. A kernel may write
 * a result over an argument that it is the last to read, if it reads each element of it only where it writes (form_in_place): the two
 * then are one buffer. place.c finds the offsets. Outputs have memory of their own. The value of an assign is computed in the param's memory
 * where nobody reads the old value later: it is unplaced and the kernel's plan says so.
 *
 * A value that a kernel marked once=1 makes for one that is not (freeze.c) lives always: its bytes are nobody else's.
 *
 * What a scan's body makes for itself has an arena too, which is the same bytes in every step: a buffer of the kernel.
 *
 *     inplace = [value, param, ...]      results that are written into a param
 *     steps = offset                     of the arena of the scan's body
 *     reuse = [value, argument, ...]     results that are written over an argument in the arena */
#include "form.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const ir_graph *g;
  group *groups;
  int n, n_buffers;
  int *maker, *last;               /* of each row: its kernel, the last kernel that reads it */
  int *of;                         /* its buffer, -1: none */
  ir_ref *over;                    /* the param or arena row in whose place it is written */
  int *steps;                      /* of each kernel: the buffer for what a scan's steps keep, -1: none */
  place_buffer *buffers;
} plan;

void place_lives(const ir_graph *g, const group *groups, int n, int *maker, int *last) {
  for (ir_ref r = 0; r < g->n_nodes; r++) maker[r] = last[r] = -1;
  for (int k = 0; k < n; k++)
    for (int i = 0; i < groups[k].n; i++) {
      const ir_node *r = ir_at(g, groups[k].rows[i]);
      maker[groups[k].rows[i]] = k;
      for (uint32_t j = 0; j < r->n_args; j++) last[r->args[j]] = k;
    }
}

static bool start(plan *p) {
  const ir_graph *g = p->g;
  if (!(p->groups = groups_of(g, &p->n))) return false;
  p->maker = malloc(g->n_nodes * sizeof *p->maker), p->last = malloc(g->n_nodes * sizeof *p->last), p->of = malloc(g->n_nodes * sizeof *p->of);
  p->over = calloc(g->n_nodes, sizeof *p->over), p->buffers = calloc(2 * (size_t)g->n_nodes, sizeof *p->buffers);
  p->steps = malloc(((size_t)p->n + 1) * sizeof *p->steps);
  if (!p->maker || !p->last || !p->of || !p->over || !p->buffers || !p->steps) return false;
  for (ir_ref r = 0; r < g->n_nodes; r++) p->of[r] = -1;
  place_lives(g, p->groups, p->n, p->maker, p->last);
  return true;
}

bool place_kept(const ir_graph *g, const group *groups, const int *maker, const int *last, ir_ref r) {
  return maker[r] >= 0 && last[r] >= 0 && pass_is_once(g, groups[maker[r]].region) && !pass_is_once(g, groups[last[r]].region);
}

void place_params(const ir_graph *g, const group *groups, int n, const int *maker, int *last, const bool *is_output, ir_ref *over) {
  for (uint32_t i = 0; i < g->n_effects; i++) {
    ir_ref param = ir_at(g, g->effects[i])->args[0], value = ir_at(g, g->effects[i])->args[1];
    int k = maker[value];
    if (k < 0) continue;                                /* a leaf */
    const group *x = &groups[k];
    bool fits = !is_output[value] && !is_output[param] && !over[value] && last[param] <= k && form_in_place(g, x->rows, x->n, x->result, value, param);
    if (fits) over[value] = param;
    else last[value] = n;                               /* copied when all is done */
  }
}

/* An arena row that dies in kernel k and that value may be written over; 0: none. */
static ir_ref dying(const plan *p, int k, ir_ref value) {
  const group *x = &p->groups[k];
  for (int i = 0; i < x->n; i++)
    for (uint32_t j = 0; j < ir_at(p->g, x->rows[i])->n_args; j++) {
      ir_ref a = ir_at(p->g, x->rows[i])->args[j];
      if (p->of[a] < 0 || p->maker[a] == k || p->buffers[p->of[a]].last != k || pass_bytes(p->g, a) != pass_bytes(p->g, value)) continue;
      if (form_in_place(p->g, x->rows, x->n, x->result, value, a)) return a;
    }
  return 0;
}

/* Bytes that the steps of kernel k's scan need: those of the body that this pass has made of the one in p->g. */
static int64_t steps_bytes(const plan *p, const ir_graph *out, int k) {
  const ir_node *first = ir_at(p->g, p->groups[k].rows[0]);
  if (first->op != IR_scan) return 0;
  const ir_graph *body = ir_scan_body(p->g, first);
  for (uint32_t i = 0; i < out->n_replaced; i++)
    if (out->replaced[i][0] == body) { body = out->replaced[i][1]; break; }
  return (body->arena_bytes + 63) & ~(int64_t)63;
}

static void make_buffers(plan *p, const ir_graph *out, const bool *is_output) {
  for (int k = 0; k < p->n; k++) {
    int64_t bytes = steps_bytes(p, out, k);
    p->steps[k] = bytes ? p->n_buffers : -1;
    if (bytes) p->buffers[p->n_buffers++] = (place_buffer){.bytes = bytes, .offset = -1, .first = k, .last = k};
    for (int i = 0; i < p->groups[k].n; i++) {
      ir_ref r = p->groups[k].rows[i];
      if (!p->groups[k].result[i] || is_output[r] || p->over[r]) continue;
      bool kept = place_kept(p->g, p->groups, p->maker, p->last, r);
      int last = kept ? p->n : p->last[r] > k ? p->last[r] : k;
      ir_ref a = kept ? 0 : dying(p, k, r);
      if (a) {
        p->over[r] = a;
        p->of[r] = p->of[a];
        p->buffers[p->of[a]].last = last;
        continue;
      }
      p->of[r] = p->n_buffers;
      p->buffers[p->n_buffers++] = (place_buffer){.bytes = (pass_bytes(p->g, r) + 63) & ~(int64_t)63, .offset = -1, .first = kept ? 0 : k, .last = last};
    }
  }
}

/* The graph again, with places and the pairs of each kernel. */
static bool emit(const plan *p, ir_graph *out) {
  const ir_graph *in = p->g;
  bool *live = ir_live(in), plain = out->plain;
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  int64_t *pairs = malloc(in->n_nodes * 2 * sizeof *pairs);
  bool ok = live && map && pairs;
  out->plain = true;
  for (uint32_t k = 1; ok && k < in->n_kernels; k++) {
    uint32_t kernel = ir_kernel_add(out, in->kernels[k].name);
    for (uint32_t i = 0; i < in->kernels[k].n_plan; i++)
      ir_kernel_plan(out, kernel, in->kernels[k].plan[i].name, in->kernels[k].plan[i].values, in->kernels[k].plan[i].n);
  }
  for (ir_ref r = 1; ok && r < in->n_nodes && !out->error.status; r++) {
    if (!live[r]) continue;
    out->at_region = ir_at(in, r)->region;
    map[r] = ir_rebuild(in, out, r, map);
    if (p->of[r] >= 0) ir_at(out, map[r])->place = p->buffers[p->of[r]].offset;
  }
  out->at_region = 0;
  for (int k = 0; ok && k < p->n && !out->error.status; k++) {
    static const char *const names[2] = {"inplace", "reuse"};
    for (int kind = 0; kind < 2; kind++) {
      uint32_t n = 0;
      for (int i = 0; i < p->groups[k].n; i++) {
        ir_ref r = p->groups[k].rows[i];
        if (p->over[r] && kind == (p->of[r] >= 0)) pairs[n++] = map[r], pairs[n++] = map[p->over[r]];
      }
      if (n) ir_kernel_plan(out, p->groups[k].region, names[kind], pairs, n);
    }
    if (p->steps[k] >= 0) ir_kernel_plan(out, p->groups[k].region, "steps", &p->buffers[p->steps[k]].offset, 1);
  }
  if (ok && !out->error.status) ir_finish(in, out, map);
  out->plain = plain;
  free(live), free(map), free(pairs);
  return ok;
}

tt_status pass_memory(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  plan p = {.g = in};
  bool *is_output = calloc(in->n_nodes, sizeof *is_output), ok = is_output && start(&p);
  if (ok) {
    for (uint32_t i = 0; i < in->n_outputs; i++) is_output[in->outputs[i].value] = true;
    place_params(in, p.groups, p.n, p.maker, p.last, is_output, p.over);
    make_buffers(&p, out, is_output);
    ok = (out->arena_bytes = place_buffers(p.buffers, p.n_buffers)) >= 0 && emit(&p, out);
  }
  groups_free(p.groups, p.n);
  free(p.maker), free(p.last), free(p.of), free(p.over), free(p.steps), free(p.buffers), free(is_output);
  if (!ok) return tt_fail(err, TT_NO_MEMORY, "error: no memory to place the values of @%s\n  at %u rows\n  fix: free memory", in->name, in->n_nodes);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
