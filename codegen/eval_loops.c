/* eval_loops.c: lp_eval, kernels of loops run in plain C, one element at a time. It is what code and transformations of loops
 * are checked against, so it checks too: every access against the size of its buffer, also those of a branch of a select that
 * is not taken (machine code makes them as well). What an op means is asked of ir/eval, by a graph of one row. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "loops.h"

typedef union { uint64_t bits; double d; float f; int64_t i; uint8_t b; uint64_t u; } cell;       /* one element, in the form of its type's storage */

typedef struct {
  const lp_kernel *k;
  tt_error *err;
  bool failed;
  char **buffers;
  cell *values; uint32_t *stamps, stamp;      /* of expressions; valid in the statement numbered `stamp` */
  cell *locals; int *local_at;                /* elements of local i start at local_at[i] */
  int64_t *vars;
  ir_graph row;                               /* rows 1..3: arguments, 4: the op */
  ir_node nodes[IR_BLOCK];
  ir_node *block;
} machine;

static cell fail(machine *m, const char *what, int64_t number) {
  if (!m->failed)
    tt_fail(m->err, TT_INTERNAL, "loops: kernel %s: %s (%" PRId64 ")\n  at task %" PRId64 "\n  fix: this is a mistake of the compiler; please report it",
            m->k->name, what, number, m->vars[0]);
  m->failed = true;
  return (cell){0};
}

static cell constant(const lp_expr *x) {
  cell c = {.i = x->imm};
  if (x->dtype != TT_F16 && x->dtype != TT_BF16) return c;
  float f = c.f;
  c.bits = x->dtype == TT_F16 ? tt_f32_to_f16(f).bits : tt_f32_to_bf16(f).bits;
  return c;
}

static cell apply(machine *m, ir_op op, tt_dtype result, int n, const tt_dtype *types, const cell *args) {
  static const ir_ref refs[3] = {1, 2, 3};
  const void *data[3];
  cell out = {0};
  for (int i = 0; i < n; i++) {
    m->nodes[1 + i].dtype = types[i];
    data[i] = &args[i];
  }
  ir_node *row = &m->nodes[4];                /* all of rank 0 */
  row->op = op, row->dtype = result, row->n_args = (uint32_t)n, row->args = refs;
  if (!m->failed && ir_eval_node(&m->row, 4, data, &out, m->err) != TT_OK) m->failed = true;
  return out;
}

static cell eval(machine *m, lp_ref e);

static cell load(machine *m, const lp_expr *x) {
  const lp_buffer *b = &m->k->buffers[x->imm];
  if (x->a[1] && !eval(m, x->a[1]).b) return x->a[2] ? eval(m, x->a[2]) : (cell){0};
  int64_t i = eval(m, x->a[0]).i;
  if (i < 0 || i >= b->count) return fail(m, "a load outside of its buffer, at element", i);
  cell c = {0};
  size_t size = tt_dtype_size(b->dtype);
  memcpy(&c, m->buffers[x->imm] + (size_t)i * size, size);
  return c;
}

static cell *element(machine *m, int local, lp_ref index) {
  int64_t i = index ? eval(m, index).i : 0;
  if (i < 0 || i >= m->k->locals[local].count) {
    fail(m, "an index outside of a local", i);
    i = 0;
  }
  return &m->locals[m->local_at[local] + i];
}

static cell fused(machine *m, const lp_expr *x) {
  cell a = eval(m, x->a[0]), b = eval(m, x->a[1]), c = eval(m, x->a[2]);
  if (x->dtype == TT_F64) return (cell){.d = fma(a.d, b.d, c.d)};
  if (x->dtype == TT_F32) {
    cell y = {0};
    y.f = fmaf(a.f, b.f, c.f);
    return y;
  }
  double y = fma(ir_load_double(x->dtype, &a, 0), ir_load_double(x->dtype, &b, 0), ir_load_double(x->dtype, &c, 0));
  cell r = {0};
  ir_store_double(x->dtype, &r, 0, y);
  return r;
}

static float half(uint64_t pair, int i) { return tt_bf16_to_f32((tt_bf16){(uint16_t)(pair >> 16 * i)}); }

static float dot(uint64_t x, uint64_t y, float sum) { return fmaf(half(x, 1), half(y, 1), fmaf(half(x, 0), half(y, 0), sum)); }

static cell eval(machine *m, lp_ref e) {
  if (m->stamps[e] == m->stamp) return m->values[e];
  const lp_expr *x = &m->k->exprs[e];
  cell c = {0}, args[3];
  tt_dtype types[3];
  int n = 0;
  switch (x->kind) {
  case LX_CONST: c = constant(x); break;
  case LX_VAR: c.i = m->vars[x->imm]; break;
  case LX_LOCAL: c = *element(m, (int)x->imm, x->a[0]); break;
  case LX_LOAD: c = load(m, x); break;
  case LX_FMA: c = fused(m, x); break;
  case LX_DOT:
    args[0] = eval(m, x->a[0]), args[1] = eval(m, x->a[1]);
    c.f = dot(args[0].u, args[1].u, eval(m, x->a[2]).f);
    break;
  case LX_PHILOX: c.u = tt_random_half(eval(m, x->a[0]).u, eval(m, x->a[1]).u, (uint32_t)x->imm, eval(m, x->a[2]).u); break;
  case LX_OP:
    for (; n < 3 && x->a[n]; n++) {
      args[n] = eval(m, x->a[n]);
      types[n] = m->k->exprs[x->a[n]].dtype;
    }
    c = apply(m, x->op, x->dtype, n, types, args);
    break;
  default: fail(m, "no such expression", e);
  }
  m->stamps[e] = m->stamp;
  return m->values[e] = c;
}

static void tiles(machine *m, const lp_stmt *s) {
  const lp_tiles *x = s->tiles;
  int64_t c = eval(m, s->index).i, a = eval(m, s->value).i, b = eval(m, s->guard).i;
  const lp_buffer *all = m->k->buffers;
  bool inside = a >= 0 && b >= 0 && c >= 0 && a + (x->rows - 1) * x->a_stride + x->pairs <= all[x->a].count && b + (x->pairs - 1) * x->b_stride + x->lanes <= all[x->b].count &&
                c + (x->rows - 1) * x->c_stride + x->lanes <= all[x->c].count;
  if (!inside) fail(m, "tiles outside of their buffers, from element", c);
  for (int64_t i = 0; i < x->rows && !m->failed; i++)
    for (int64_t j = 0; j < x->lanes; j++) {
      float *to = (float *)(void *)m->buffers[x->c] + c + i * x->c_stride + j, sum = x->add ? *to : 0;
      const uint32_t *xs = (const uint32_t *)(const void *)m->buffers[x->a] + a + i * x->a_stride, *ys = (const uint32_t *)(const void *)m->buffers[x->b] + b + j;
      for (int64_t p = 0; p < x->pairs; p++) sum = dot(xs[p], ys[p * x->b_stride], sum);
      *to = sum;
    }
}

static void run(machine *m, const lp_stmt *s) {
  for (; s && !m->failed; s = s->next) {
    m->stamp++;
    cell *to, v, args[2];
    switch (s->kind) {
    case LS_FOR:
      for (int64_t i = s->begin; i < s->end && !m->failed; i += s->step) {
        m->vars[s->var] = i;
        run(m, s->body);
      }
      break;
    case LS_LOCAL:
      v = eval(m, s->value);
      for (int i = 0; i < m->k->locals[s->local].count; i++) m->locals[m->local_at[s->local] + i] = v;
      break;
    case LS_SET:
      v = eval(m, s->value);
      *element(m, s->local, s->index) = v;
      break;
    case LS_REDUCE: {
      tt_dtype t = m->k->locals[s->local].dtype, types[2] = {t, t};
      to = element(m, s->local, s->index);
      args[0] = *to;
      args[1] = eval(m, s->value);
      *to = apply(m, s->op, t, 2, types, args);
      break;
    }
    case LS_STORE: {
      if (s->guard && !eval(m, s->guard).b) break;
      const lp_buffer *b = &m->k->buffers[s->buffer];
      int64_t i = eval(m, s->index).i;
      v = eval(m, s->value);
      if (i < 0 || i >= b->count) fail(m, "a store outside of its buffer, at element", i);
      size_t size = tt_dtype_size(b->dtype);
      if (!m->failed) memcpy(m->buffers[s->buffer] + (size_t)i * size, &v, size);
      break;
    }
    case LS_TILES: tiles(m, s); break;
    case LS_PREFETCH: break;
    case LS_IF:
      if (eval(m, s->guard).b) run(m, s->body);
      break;
    default: fail(m, "no such statement", s->kind);
    }
  }
}

tt_status lp_eval(const lp_kernel *k, void *const *buffers, int64_t begin, int64_t end, tt_error *err) {
  if (!lp_check(k, err)) return TT_INTERNAL;
  machine *m = calloc(1, sizeof *m);
  size_t n_cells = 1, scratch_bytes = lp_scratch_bytes(k);
  for (int i = 0; i < k->n_locals; i++) n_cells += (size_t)k->locals[i].count;
  char **all = calloc((size_t)k->n_buffers + 1, sizeof *all), *scratch = malloc(scratch_bytes + 1);
  cell *values = calloc(k->n_exprs, sizeof *values), *locals = calloc(n_cells, sizeof *locals);
  uint32_t *stamps = calloc(k->n_exprs, sizeof *stamps);
  int *local_at = calloc((size_t)k->n_locals + 1, sizeof *local_at);
  int64_t *vars = calloc((size_t)k->n_vars, sizeof *vars);
  tt_status status = TT_NO_MEMORY;
  if (!m || !all || !scratch || !values || !locals || !stamps || !local_at || !vars) {
    tt_fail(err, TT_NO_MEMORY, "loops: kernel %s: no memory to evaluate it", k->name);
  } else {
    memset(scratch, 0xa5, scratch_bytes + 1);
    size_t at = 0;
    for (int i = 0; i < k->n_buffers; i++) {
      all[i] = k->buffers[i].again ? all[k->buffers[i].again - 1] : k->buffers[i].scratch ? scratch + at : buffers[i];
      if (k->buffers[i].scratch && !k->buffers[i].again) at += ((size_t)k->buffers[i].count * tt_dtype_size(k->buffers[i].dtype) + 63) & ~(size_t)63;
    }
    for (int i = 0, n = 0; i < k->n_locals; n += k->locals[i++].count) local_at[i] = n;
    *m = (machine){.k = k, .err = err, .buffers = all, .values = values, .stamps = stamps, .locals = locals, .local_at = local_at, .vars = vars};
    m->block = m->nodes;
    m->row.blocks = &m->block;
    m->row.n_nodes = 5;
    for (int64_t t = begin; t < end && !m->failed; t++) {
      m->vars[k->begin] = begin, m->vars[0] = t;
      run(m, k->body);
    }
    status = m->failed ? TT_INTERNAL : TT_OK;
  }
  free(m);
  free(all);
  free(scratch);
  free(values);
  free(locals);
  free(stamps);
  free(local_at);
  free(vars);
  return status;
}
