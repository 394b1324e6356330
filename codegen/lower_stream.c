/* lower_stream.c: what a loop kernel does about memory: which results go past the caches, and which rows are asked for early.
 *
 * One core reads memory only as fast as it has lines on their way. The CPU's own prefetching asks for few of each stream, and a kernel that computes much
 * with each element sees few loads ahead. So a kernel that goes over a row several times asks, in the pass with the most work, for the rows that come
 * AHEAD bytes later (one row later was 1.1 to 1.5 times slower with rows of 1 KiB to 4 KiB, and rows longer than a quarter of L1 are not for L1 alone);
 * one that goes over a single array once, for what comes FLAT_AHEAD bytes later (dropout 1.4 times, gelu 1.1 times faster).
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

enum { AHEAD = 12 << 10, FLAT_AHEAD = 4 << 10, MOST_LOADS = 16 };      /* bytes on their way */

/* The long loads along var of the statements from `first` on. */
static int long_loads(const loop_nest *ln, const lp_stmt *first, int var, lp_ref *loads) {
  const lp_kernel *k = ln->k;
  bool *seen = calloc(k->n_exprs, sizeof *seen);
  int n = 0;
  for (const lp_stmt *s = first; seen && s; s = s->next) mark_live(k, s->value, seen);
  for (uint32_t e = 1; seen && e < k->n_exprs; e++) {
    lp_expr x = k->exprs[e];
    int64_t by, bytes;
    if (!seen[e] || x.kind != LX_LOAD || k->buffers[x.imm].scratch || !lp_affine(k, x.a[0], var, &by) || by != 1) continue;
    bytes = (int64_t)tt_dtype_size(k->buffers[x.imm].dtype);
    bool moves = lp_affine(k, x.a[0], 0, &by) && by != 0, is_long = k->buffers[x.imm].count * bytes > ln->lx->cpu->l2;
    if (moves && is_long && n < MOST_LOADS) loads[n++] = e;
  }
  free(seen);
  return n;
}

static void prefetch(loop_nest *ln, lp_stmt **to, lp_ref load, int64_t distance, bool to_l2) {
  lp_stmt *s = lp_stmt_new(ln->k, LS_PREFETCH);
  s->buffer = (int)ln->k->exprs[load].imm, s->index = lp_add(ln->k, ln->k->exprs[load].a[0], lp_int(ln->k, distance)), s->next = *to;
  if (to_l2) s->op = 2;
  *to = s;
}

void nest_prefetch(loop_nest *ln) {
  int at = 1;
  lp_ref loads[MOST_LOADS];
  if (ln->n_passes < 2) return;
  for (int i = 2; i < ln->n_passes; i++)
    if (ln->passes[i].work > ln->passes[at].work) at = i;
  int n = long_loads(ln, ln->passes[0].loop->body, ln->groups[ln->vec].var, loads);
  int64_t length = ln->groups[ln->vec].extent;
  for (int i = n - 1; i >= 0; i--) {
    int64_t row = length * (int64_t)tt_dtype_size(ln->k->buffers[ln->k->exprs[loads[i]].imm].dtype), rows = AHEAD / n / row;
    if (rows < 1) rows = 1;
    if (row <= ln->lx->cpu->l2 / 8 / n) prefetch(ln, &ln->passes[at].loop->body, loads[i], rows * length, n * rows * row > ln->lx->cpu->l1d / 2);
  }
}

void nest_prefetch_flat(loop_nest *ln, lp_stmt **body) {
  lp_ref loads[MOST_LOADS];
  if (ln->n_stages || ln->across >= 0 || ln->gathers || !*body || ln->k->exprs[ln->lane].kind != LX_VAR) return;
  /* One load: several bring as many streams of the CPU's own prefetching, and were slower with this (measured: sums of two arrays, by a quarter). */
  if (long_loads(ln, *body, (int)ln->k->exprs[ln->lane].imm, loads) != 1) return;
  prefetch(ln, body, loads[0], FLAT_AHEAD / (int64_t)tt_dtype_size(ln->k->buffers[ln->k->exprs[loads[0]].imm].dtype), false);
}
