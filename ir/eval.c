/* eval.c: from a graph and the data of its inputs to the data of every row, op by op in plain C.
 *
 * It is what the meaning of a program is judged by: constant folding uses it, the interpreter runs it, and every
 * test of generated code compares with it. Here are the walk, the leaves, and the conversions between
 * the types' storage and wide numbers (eval.h); the other ops are in eval_elementwise.c (EW rows, select, casts),
 * eval_movement.c, eval_reduce.c, eval_contraction.c and eval_index.c. */
#include "eval.h"
#include <stdio.h>

/* ---- storage to wide and back */

#define READ_F32(v) ((double)(v))
#define READ_F64(v) (v)
#define READ_F16(v) ((double)tt_f16_to_f32(v))
#define READ_BF16(v) ((double)tt_bf16_to_f32(v))
#define READ_BOOL(v) ((uint64_t)((v) != 0))
#define WRITE_F32(v) ((float)(v))
#define WRITE_F64(v) (v)
#define WRITE_F16(v) (tt_f32_to_f16((float)(v)))
#define WRITE_BF16(v) (tt_f32_to_bf16((float)(v)))
#define WRITE_BOOL(v) ((v) != 0)
#define READ_I8(v) ((int64_t)(v))
#define READ_I16(v) ((int64_t)(v))
#define READ_I32(v) ((int64_t)(v))
#define READ_I64(v) ((int64_t)(v))
#define READ_U8(v) ((uint64_t)(v))
#define READ_U16(v) ((uint64_t)(v))
#define READ_U32(v) ((uint64_t)(v))
#define READ_U64(v) ((uint64_t)(v))
#define WRITE_I8(v) ((int8_t)(v))
#define WRITE_I16(v) ((int16_t)(v))
#define WRITE_I32(v) ((int32_t)(v))
#define WRITE_I64(v) ((int64_t)(v))
#define WRITE_U8(v) ((uint8_t)(v))
#define WRITE_U16(v) ((uint16_t)(v))
#define WRITE_U32(v) ((uint32_t)(v))
#define WRITE_U64(v) ((uint64_t)(v))
#define WIDE_REAL double
#define WIDE_SINT int64_t
#define WIDE_UINT uint64_t
#define WIDE_BOOLEAN uint64_t

void ev_widen(tt_dtype t, const void *from, int64_t begin, int64_t n, void *wide) {
  switch (t) {
#define DTYPE(NAME, text, ctype, bytes, cls)                                     \
  case TT_##NAME: {                                                              \
    const ctype *x = (const ctype *)from + begin;                                \
    WIDE_##cls *w = wide;                                                        \
    for (int64_t i = 0; i < n; i++) w[i] = READ_##NAME(x[i]);                    \
  } break;
#include "types.def"
#undef DTYPE
    case TT_N_DTYPES: break;
  }
}

void ev_narrow(tt_dtype t, const void *wide, int64_t n, void *to, int64_t begin) {
  switch (t) {
#define DTYPE(NAME, text, ctype, bytes, cls)                                     \
  case TT_##NAME: {                                                              \
    const WIDE_##cls *w = wide;                                                  \
    ctype *y = (ctype *)to + begin;                                              \
    for (int64_t i = 0; i < n; i++) y[i] = WRITE_##NAME(w[i]);                   \
  } break;
#include "types.def"
#undef DTYPE
    case TT_N_DTYPES: break;
  }
}

void *ev_scratch(const ev_call *c, int64_t n) {
  void *p = calloc(n > 0 ? (size_t)n : 1, 8);
  if (!p) tt_fail(c->err, TT_NO_MEMORY, "no memory to evaluate %s: %lld numbers\n  fix: use smaller tensors", ir_ops[c->n->op].name, (long long)n);
  return p;
}

void *ev_wide_arg(const ev_call *c, uint32_t i) {
  const ir_node *a = ev_arg(c, i);
  int64_t n = ev_count(a);
  void *w = ev_scratch(c, n);
  if (w && n) ev_widen(a->dtype, c->args[i], 0, n, w);
  return w;
}

bool ev_next(int rank, const int64_t *dim, int64_t *index) {
  for (int i = rank - 1; i >= 0; i--) {
    if (++index[i] < dim[i]) return true;
    index[i] = 0;
  }
  return false;
}

double ir_load_double(tt_dtype t, const void *p, int64_t i) {
  union { double d; int64_t s; uint64_t u; } w;
  ev_widen(t, p, i, 1, &w);
  ev_class cls = ev_class_of(t);
  return cls == EV_REAL ? w.d : cls == EV_SINT ? (double)w.s : (double)w.u;
}

void ir_store_double(tt_dtype t, void *p, int64_t i, double v) {
  union { double d; int64_t s; uint64_t u; } w = {.d = v};
  int bits = t == TT_BOOL ? 1 : 8 * (int)tt_dtype_size(t);
  double limit = ldexp(1, tt_dtype_in(t, TT_SINT) ? bits - 1 : bits);       /* the first number that is too large */
  if (t == TT_BOOL) w.u = v != 0;
  else if (tt_dtype_in(t, TT_SINT)) {
    int64_t most = (int64_t)(UINT64_MAX >> (65 - bits));
    w.s = v != v ? 0 : v >= limit ? most : v < -limit ? -most - 1 : (int64_t)v;
  }
  else if (tt_dtype_in(t, TT_UINT)) w.u = v != v ? 0 : v >= limit ? UINT64_MAX >> (64 - bits) : v <= 0 ? 0 : (uint64_t)v;
  ev_narrow(t, &w, 1, p, i);
}

/* ---- leaves and assign */

static tt_status not_here(const ev_call *c) {
  return tt_fail(c->err, TT_INVALID, "%s(%s) has no value of its own\n  fix: its data is the caller's to give, in values[]",
                 ir_ops[c->n->op].name, ir_str(c->n, "name"));
}
tt_status eval_input(const ev_call *c) { return not_here(c); }
tt_status eval_param(const ev_call *c) { return not_here(c); }

tt_status eval_const(const ev_call *c) {
  const ir_blob *blob = &c->g->blobs[ir_int(c->n, "value")];
  memcpy(c->out, blob->data, blob->bytes);
  return TT_OK;
}

tt_status eval_iota(const ev_call *c) {
  int axis = (int)ir_int(c->n, "axis");
  int64_t inner = ev_product(c->n->dim, axis + 1, c->n->rank), length = c->n->dim[axis], n = ev_count(c->n);
  for (int64_t i = 0; i < n; i++) {
    int64_t v = i / inner % length;
    double d = (double)v;
    ev_narrow(c->n->dtype, tt_dtype_in(c->n->dtype, TT_REAL) ? (const void *)&d : &v, 1, c->out, i);
  }
  return TT_OK;
}

tt_status eval_random(const ev_call *c) {
  uint64_t seed = *(const uint64_t *)c->args[0], step = *(const uint64_t *)c->args[1];
  uint32_t stream = (uint32_t)ir_int(c->n, "stream");
  uint16_t *out = c->out;
  for (int64_t i = 0, n = ev_count(c->n); i < n; i++) out[i] = tt_random_half(seed, step, stream, (uint64_t)i);
  return TT_OK;
}

/* The value that the parameter takes when the run is over. */
tt_status eval_assign(const ev_call *c) {
  memcpy(c->out, c->args[1], (size_t)ev_count(c->n) * tt_dtype_size(c->n->dtype));
  return TT_OK;
}

/* ---- the walk */

static ev_fn *const functions[IR_N_OPS] = {
#define EW(name, ...) [IR_##name] = eval_##name,
#define OP(name, ...) [IR_##name] = eval_##name,
#include "ops.def"
};

/* A result without elements needs no work; so every eval_ function has at least one element to make. */
tt_status ir_eval_node(const ir_graph *g, ir_ref r, const void *const *args, void *out, tt_error *err) {
  const ir_node *n = ir_at(g, r);
  if (functions[n->op]) return ev_count(n) ? functions[n->op](&(ev_call){g, n, args, out, err}) : TT_OK;
  const ir_origin *at = &g->origins[n->origin];
  return tt_fail(err, TT_INVALID, "%s is a composite and has no evaluation of its own: decompose first\n"
                 "  at row %u%s%s (%s:%d)\n  fix: run the pass `decompose` on the graph",
                 ir_ops[n->op].name, r, n->name ? " %" : "", n->name ? n->name : "", n->origin ? at->file : "?", n->origin ? at->line : 0);
}

/* All live results of the scan of row r. */
static tt_status eval_results(const ir_graph *g, ir_ref r, const bool *live, bool *done, const void *const *args, void **values, tt_error *err) {
  const ir_node *n = ir_at(g, r);
  size_t results = (size_t)ir_scan_of(n).carries + ir_scan_body(g, n)->n_outputs;
  void **outs = calloc(results + 1, sizeof *outs);
  tt_status status = outs ? TT_OK : tt_fail(err, TT_NO_MEMORY, "no memory to evaluate @%s", g->name);
  for (ir_ref m = r; !status && m < g->n_nodes; m++) {
    if (!live[m] || !ir_same_scan(g, r, m)) continue;
    const ir_node *x = ir_at(g, m);
    void **out = &outs[ir_scan_of(x).result];
    if (!(values[m] = malloc((size_t)ev_count(x) * tt_dtype_size(x->dtype) + 1))) status = tt_fail(err, TT_NO_MEMORY, "no memory for the results of a scan in @%s", g->name);
    if (*out) continue;                              /* in a text two rows may be one result */
    *out = values[m], done[m] = true;
  }
  if (!status) status = ir_eval_scan(g, n, args, outs, err);
  for (ir_ref m = r; !status && m < g->n_nodes; m++)
    if (live[m] && ir_same_scan(g, r, m) && !done[m]) {
      memcpy(values[m], outs[ir_scan_of(ir_at(g, m)).result], (size_t)ev_count(ir_at(g, m)) * tt_dtype_size(ir_at(g, m)->dtype));
      done[m] = true;
    }
  free(outs);
  return status;
}

tt_status ir_eval(const ir_graph *g, void **values, tt_error *err) {
  if (g->error.status) return tt_fail(err, g->error.status, "%s", g->error.message);
  bool *live = ir_live(g);
  const void **args = NULL;
  uint32_t cap = 0;
  bool *done = g->n_functions ? calloc(g->n_nodes, sizeof *done) : NULL;      /* results of scans, which are made all at once */
  tt_status status = live && (done || !g->n_functions) ? TT_OK : tt_fail(err, TT_NO_MEMORY, "no memory to evaluate @%s", g->name);
  for (ir_ref r = 1; !status && r < g->n_nodes; r++) {
    if (!live[r] || (done && done[r])) continue;
    const ir_node *n = ir_at(g, r);
    size_t bytes = (size_t)ev_count(n) * tt_dtype_size(n->dtype);
    if (n->op == IR_input || n->op == IR_param) {
      if (!values[r] && bytes)
        status = tt_fail(err, TT_INVALID, "%s %%%s has no data\n  fix: set values[%u] before the call", ir_ops[n->op].name, ir_str(n, "name"), r);
      continue;
    }
    if (n->n_args > cap) {
      const void **more = realloc(args, n->n_args * sizeof *args);
      if (!more) { status = tt_fail(err, TT_NO_MEMORY, "no memory to evaluate @%s", g->name); break; }
      args = more;
      cap = n->n_args;
    }
    for (uint32_t i = 0; i < n->n_args; i++) args[i] = values[n->args[i]];
    if (n->op == IR_scan) {
      status = eval_results(g, r, live, done, args, values, err);
      continue;
    }
    if (!(values[r] = malloc(bytes ? bytes : 1))) {
      status = tt_fail(err, TT_NO_MEMORY, "no memory for the result of %s: %zu bytes\n  fix: use smaller tensors", ir_ops[n->op].name, bytes);
      break;
    }
    status = ir_eval_node(g, r, args, values[r], err);
  }
  free(args);
  free(live);
  free(done);
  return status;
}

void ir_values_free(const ir_graph *g, void **values) {
  if (!values) return;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    int op = ir_at(g, r)->op;
    if (op != IR_input && op != IR_param) free(values[r]);
  }
  free(values);
}
