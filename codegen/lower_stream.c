/* lower_stream.c: what a loop kernel does about memory: which results go past the caches, and which rows are asked for early.
 *
 * A kernel that goes over a row several times waits for memory in the first pass and computes in the others. There it asks for the
 * next row, a line each vector.
 *
 * Which results go to memory past the caches. A plain store first reads the line that it writes; where the
 * line will have left the caches before anybody reads it, that read and the later write are both for nothing (measured: 1.6 times
 * faster copies from 16 MiB on, and half the speed where the result would still have been in L3). So what counts is how much memory is
 * touched from this kernel to the first that reads the result; a result that nobody reads (an output) waits for a whole run.
 *
 * A result written over what is in the caches anyway (in place) is never streamed. Of two kernels that are alike one may be followed by its
 * reader and the other not, so this is a part of what makes them alike (kernels.c). */
#include <stdlib.h>
#include <string.h>

#include "lower_loop.h"

enum { L3_SHARE = 16 << 20, LEAST = 1 << 20 };      /* what of L3 is ours beside the other users of a machine; small results are not looked at */

static int64_t bytes_of(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return tt_shape_count(&s) * (int64_t)tt_dtype_size(ir_at(g, r)->dtype);
}

/* Bytes that kernels touch from row `from` on until one that reads r is done, or to the end. A buffer counts once a kernel. */
static int64_t touched(const ir_graph *g, ir_ref from, ir_ref r, int64_t enough) {
  uint32_t *counted = calloc(g->n_nodes, sizeof *counted), reader = 0;      /* by row: the kernel that it was last counted for */
  int64_t bytes = 0;
  for (ir_ref u = from; counted && u < g->n_nodes && bytes < enough; u++) {
    const ir_node *n = ir_at(g, u);
    if (!n->region) continue;
    if (reader && n->region != reader) break;
    for (uint32_t i = 0; i < n->n_args; i++) {
      ir_ref a = n->args[i];
      if (ir_at(g, a)->region == n->region) continue;
      if (a == r) reader = n->region;
      if (counted[a] != n->region) bytes += bytes_of(g, a);
      counted[a] = n->region;
    }
  }
  free(counted);
  return bytes;
}

static void mark_live(const lp_kernel *k, lp_ref e, bool *seen) {
  if (!e || seen[e]) return;
  seen[e] = true;
  for (int i = 0; i < 3; i++) mark_live(k, k->exprs[e].a[i], seen);
}

uint8_t lower_streams_of(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref r) {
  int64_t share = cpu->l3 / 2 < L3_SHARE ? cpu->l3 / 2 : L3_SHARE, own = bytes_of(g, r);
  uint32_t n;
  static const char *const names[2] = {"inplace", "reuse"};
  if (own < LEAST) return 0;
  for (int i = 0; i < 2; i++) {
    const int64_t *v = ir_kernel_get(g, region, names[i], &n);
    for (uint32_t j = 0; v && j + 1 < n; j += 2)
      if (v[j] == (int64_t)r) return 0;
  }
  bool output = false, read = false;
  for (uint32_t i = 0; i < g->n_outputs; i++) output |= g->outputs[i].value == r;
  for (uint32_t i = 0; i < g->n_effects; i++) output |= ir_at(g, g->effects[i])->args[1] == r;
  for (ir_ref u = g->kernels[region].last + 1; u < g->n_nodes && !read; u++)
    for (uint32_t i = 0; i < ir_at(g, u)->n_args; i++) read |= ir_at(g, u)->args[i] == r && ir_at(g, u)->region;
  int64_t bytes = own + touched(g, read ? g->kernels[region].first : 1, r, share);
  if (bytes < share) return 0;
  return output ? LP_CHECK : LP_STREAM;       /* what the user binds may stand anywhere */
}

uint8_t lower_streams(const lower_ctx *lx, ir_ref r) { return lower_streams_of(lx->g, lx->region, lx->cpu, r); }

static void stream_stores(lp_stmt *s, int buffer, uint8_t stream) {
  for (; s; s = s->next) {
    if (s->kind == LS_STORE && s->buffer == buffer) s->stream = stream;
    stream_stores(s->body, buffer, stream);
  }
}

void lower_stream_stores(lower_ctx *lx) {
  for (int i = 0; i < lower_n_results(lx); i++) {
    uint8_t stream = lower_streams(lx, lower_result(lx, i));
    if (stream) stream_stores(lx->k->body, lower_result_buffer(lx, i), stream);
  }
}

/* In the pass with the most work behind the first: what the first pass loads, one row on. */
void nest_prefetch(loop_nest *ln) {
  lp_kernel *k = ln->k;
  int at = 1;
  if (ln->n_passes < 2) return;
  for (int i = 2; i < ln->n_passes; i++)
    if (ln->passes[i].work > ln->passes[at].work) at = i;
  int64_t length = ln->groups[ln->vec].extent;
  int var = ln->groups[ln->vec].var;
  lp_stmt *first = ln->passes[0].loop->body, **to = &ln->passes[at].loop->body;
  bool *seen = calloc(k->n_exprs, sizeof *seen);
  for (lp_stmt *s = first; seen && s; s = s->next) mark_live(k, s->value, seen);
  uint32_t end = k->n_exprs;
  for (uint32_t e = 1; seen && e < end; e++) {
    lp_expr x = k->exprs[e];
    int64_t by, bytes;
    if (!seen[e] || x.kind != LX_LOAD || k->buffers[x.imm].scratch || !lp_affine(k, x.a[0], var, &by) || by != 1) continue;
    bytes = (int64_t)tt_dtype_size(k->buffers[x.imm].dtype);
    bool moves = lp_affine(k, x.a[0], 0, &by) && by != 0, is_long = k->buffers[x.imm].count * bytes > ln->lx->cpu->l2, fits = length * bytes <= ln->lx->cpu->l1d / 4;
    if (!moves || !is_long || !fits) continue;
    lp_stmt *s = lp_stmt_new(k, LS_PREFETCH);
    s->buffer = (int)x.imm, s->index = lp_add(k, x.a[0], lp_int(k, length)), s->next = *to;
    *to = s;
    to = &s->next;
  }
  free(seen);
}
