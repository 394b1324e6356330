/* check.h: what the tests of fuse, schedule, memory and layout share: nets, random graphs, numbers for their inputs, and comparing what
 * two graphs compute. */
#ifndef TT_TESTS_PASSES_CHECK_H
#define TT_TESTS_PASSES_CHECK_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passes/passes.h"

#define S(...) ((tt_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

static uint64_t next_random(uint64_t *s) {
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  uint64_t x = *s ^ *s >> 29;
  return (x * 0x9E3779B97F4A7C15u) >> 16;
}
__attribute__((unused)) static int pick(uint64_t *s, int n) { return (int)(next_random(s) % (uint64_t)n); }

/* ---- numbers ---- */

/* Values of all rows; inputs and params get numbers that depend on their names only. */
static void **run(const ir_graph *g) {
  void **values = calloc(g->n_nodes, sizeof *values);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_input && n->op != IR_param) continue;
    const char *name = ir_str(n, "name");
    uint64_t seed = 17;
    for (const char *c = name; *c; c++) seed = seed * 131 + (unsigned char)*c;
    tt_shape s = ir_shape(g, r);
    int64_t count = tt_shape_count(&s);
    values[r] = calloc((size_t)count + 1, tt_dtype_size((tt_dtype)n->dtype));
    for (int64_t i = 0; i < count; i++) {
      double v = (double)(next_random(&seed) % 2001) / 1000 - 1;
      if (!strcmp(name, "lr")) v = 0.1;
      else if (!strcmp(name, "step")) v = 3;
      else if (n->dtype == TT_BOOL) v = v > 0;
      else if (!tt_dtype_in((tt_dtype)n->dtype, TT_REAL)) v = floor((v + 1) * 2);
      ir_store_double((tt_dtype)n->dtype, values[r], i, v);
    }
  }
  tt_error err = {0};
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
  return values;
}

static void release(const ir_graph *g, void **values) {
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (ir_at(g, r)->op == IR_input || ir_at(g, r)->op == IR_param) free(values[r]), values[r] = NULL;
  ir_values_free(g, values);
}

static void expect_close(const ir_graph *g, ir_ref a, const void *x, const void *y, double tolerance, const char *what) {
  tt_dtype t = (tt_dtype)ir_at(g, a)->dtype;
  tt_shape s = ir_shape(g, a);
  double largest = 1;
  for (int64_t i = 0; i < tt_shape_count(&s); i++)
    if (isfinite(ir_load_double(t, x, i))) largest = fmax(largest, fabs(ir_load_double(t, x, i)));
  for (int64_t i = 0; i < tt_shape_count(&s); i++) {
    double p = ir_load_double(t, x, i), q = ir_load_double(t, y, i);
    bool same = p == q || (isnan(p) && isnan(q)) || fabs(p - q) <= tolerance * largest;
    cr_assert(same, "%s: element %lld is %g, not %g", what, (long long)i, q, p);
  }
}

/* Both graphs give the same outputs and next values of params. */
__attribute__((unused)) static void expect_same(const ir_graph *a, const ir_graph *b, double tolerance, const char *what) {
  void **x = run(a), **y = run(b);
  cr_assert_eq(a->n_outputs, b->n_outputs);
  cr_assert_eq(a->n_effects, b->n_effects);
  for (uint32_t i = 0; i < a->n_outputs; i++) {
    tt_shape s = ir_shape(a, a->outputs[i].value), t = ir_shape(b, b->outputs[i].value);
    cr_assert(tt_shape_equal(&s, &t));
    expect_close(a, a->outputs[i].value, x[a->outputs[i].value], y[b->outputs[i].value], tolerance, what);
  }
  for (uint32_t i = 0; i < a->n_effects; i++) {
    ir_ref p = ir_at(a, a->effects[i])->args[1], q = ir_at(b, b->effects[i])->args[1];
    expect_close(a, p, x[p], y[q], tolerance, what);
  }
  release(a, x), release(b, y);
}

static ir_graph *passes(const ir_graph *in, const char *names, const pass_options *options) {
  ir_graph *out;
  tt_error err = {0};
  cr_assert_eq(pass_run(in, &out, names, NULL, options, NULL, NULL, &err), TT_OK, "%s: %s", names ? names : "pipeline", err.message);
  return out;
}

/* ---- nets ---- */

static ir_ref linear(ir_graph *g, ir_ref x, const char *name, int64_t out) {
  char w[40], b[40];
  snprintf(w, sizeof w, "%s.w", name), snprintf(b, sizeof b, "%s.b", name);
  int64_t in = ir_at(g, x)->dim[ir_at(g, x)->rank - 1];
  return ir_ew2(g, IR_add, ir_matmul(g, x, ir_param(g, w, TT_F32, S(out, in), true), false, true, 1), ir_param(g, b, TT_F32, S(out), true));
}

static ir_ref cross_entropy(ir_graph *g, ir_ref logits, ir_ref labels) {
  tt_shape s = ir_shape(g, logits);
  ir_ref hot = ir_ew2(g, IR_eq, ir_iota(g, TT_I32, s, 1), ir_broadcast(g, labels, s, (int[]){0}));
  ir_ref picked = ir_select(g, hot, ir_softmax(g, IR_log_softmax, logits, 1), ir_like(g, logits, 0));
  return ir_ew1(g, IR_neg, ir_mean(g, ir_reduce(g, IR_sum, picked, (int[]){1}, 1, false), NULL, 0, false));
}

static ir_graph *mlp(int64_t batch, int64_t in, int64_t hidden, int64_t classes) {
  ir_graph *g = ir_graph_new("mlp");
  ir_ref x = ir_input(g, "x", TT_F32, S(batch, in)), y = ir_input(g, "y", TT_I32, S(batch));
  ir_ref h = ir_ew1(g, IR_relu, linear(g, x, "fc1", hidden));
  h = ir_ew1(g, IR_relu, linear(g, h, "fc2", hidden));
  ir_output_add(g, "loss", cross_entropy(g, linear(g, h, "fc3", classes), y));
  return g;
}

static ir_ref conv(ir_graph *g, ir_ref x, const char *name, int64_t out, int64_t k, int64_t stride, int64_t pad) {
  tt_shape s = ir_shape(g, x);
  ir_conv_attrs a = {.stride = {stride, stride}, .lo = {pad, pad}, .hi = {pad, pad}};
  ir_ref y = ir_conv(g, ir_reshape(g, x, S(s.dim[0], 1, s.dim[1], s.dim[2], s.dim[3])), ir_reshape(g, ir_param(g, name, TT_F32, S(out, s.dim[1], k, k), true), S(1, out, s.dim[1], k, k)), &a);
  tt_shape t = ir_shape(g, y);
  return ir_reshape(g, y, S(t.dim[0], t.dim[2], t.dim[3], t.dim[4]));
}


static ir_ref batch_norm(ir_graph *g, ir_ref x, const char *name) {
  char w[40], b[40], m[40];
  snprintf(w, sizeof w, "%s.w", name), snprintf(b, sizeof b, "%s.b", name), snprintf(m, sizeof m, "%s.mean", name);
  tt_shape s = ir_shape(g, x);
  ir_ref running = ir_param(g, m, TT_F32, S(s.dim[1]), false), mean = ir_batch_mean(g, x);
  ir_assign(g, running, ir_ew2(g, IR_add, ir_ew2(g, IR_mul, running, ir_like(g, running, 0.9)), ir_ew2(g, IR_mul, mean, ir_like(g, mean, 0.1))));
  return ir_batch_norm(g, x, ir_param(g, w, TT_F32, S(s.dim[1]), true), ir_param(g, b, TT_F32, S(s.dim[1]), true), 1e-5);
}

static ir_graph *cnn(int64_t batch, int64_t size, int64_t channels, bool overlap) {
  ir_graph *g = ir_graph_new("cnn");
  ir_ref x = ir_input(g, "x", TT_F32, S(batch, 3, size, size)), y = ir_input(g, "y", TT_I32, S(batch));
  ir_ref h = ir_ew1(g, IR_relu, batch_norm(g, conv(g, x, "conv1", channels, 3, 1, 1), "bn1"));
  ir_ref skip = h;
  h = ir_ew1(g, IR_relu, batch_norm(g, conv(g, h, "conv2", channels, 3, 1, 1), "bn2"));
  h = ir_ew2(g, IR_add, h, skip);
  int64_t k = overlap ? 3 : 2;
  h = ir_pool(g, IR_max_pool, h, 2, (int64_t[]){k, k}, (int64_t[]){2, 2}, (int64_t[]){0, 0}, (int64_t[]){0, 0}, NULL, false);
  h = ir_ew1(g, IR_relu, conv(g, h, "conv3", channels * 2, 3, 2, 1));
  tt_shape s = ir_shape(g, h);
  h = ir_reshape(g, h, S(batch, s.dim[1] * s.dim[2] * s.dim[3]));
  ir_output_add(g, "loss", cross_entropy(g, linear(g, h, "fc", 10), y));
  return g;
}

static ir_graph *transformer(int64_t batch, int64_t t, int64_t d, int64_t heads) {
  ir_graph *g = ir_graph_new("block");
  ir_ref x = ir_input(g, "x", TT_F32, S(batch, t, d));
  ir_ref w = ir_param(g, "ln.w", TT_F32, S(d), true), b = ir_param(g, "ln.b", TT_F32, S(d), true);
  ir_ref h = ir_reshape(g, ir_layer_norm(g, x, w, b, 1, 1e-5), S(batch * t, d)), qkv[3];
  const char *names[3] = {"q", "k", "v"};
  for (int i = 0; i < 3; i++)
    qkv[i] = ir_permute(g, ir_reshape(g, linear(g, h, names[i], d), S(batch, t, heads, d / heads)), (int[]){0, 2, 1, 3});
  ir_ref scores = ir_matmul(g, qkv[0], qkv[1], false, true, 1);
  ir_ref p = ir_softmax(g, IR_softmax, ir_ew2(g, IR_mul, scores, ir_like(g, scores, 0.3)), 3);
  ir_ref seed = ir_input(g, "seed", TT_U64, S()), step = ir_input(g, "step", TT_I64, (tt_shape){0});
  p = ir_dropout(g, p, seed, ir_cast(g, step, TT_U64), 0.1, 1);
  ir_ref o = ir_reshape(g, ir_permute(g, ir_matmul(g, p, qkv[2], false, false, 1), (int[]){0, 2, 1, 3}), S(batch * t, d));
  ir_ref y = ir_ew2(g, IR_add, linear(g, o, "o", d), ir_reshape(g, x, S(batch * t, d)));
  y = linear(g, ir_gelu(g, linear(g, y, "up", 4 * d), true), "down", d);
  ir_output_add(g, "loss", ir_mean(g, ir_ew2(g, IR_mul, y, y), NULL, 0, false));
  return g;
}

/* ---- random graphs ---- */

/* Rows of small shapes from all kinds of ops; every value that nobody reads is an output, a few are assigned. */
static ir_graph *random_graph(uint64_t seed, int n_rows) {
  ir_graph *g = ir_graph_new("random");
  uint64_t s = seed * 2654435761u + 99;
  ir_ref rows[200];
  int n = 0;
  char name[20];
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "x%d", i);
    tt_shape shape = {.rank = pick(&s, 4)};
    for (int k = 0; k < shape.rank; k++) shape.dim[k] = 1 + pick(&s, 4);
    rows[n++] = i % 2 ? ir_param(g, name, TT_F32, shape, true) : ir_input(g, name, TT_F32, shape);
  }
  while (n < n_rows) {
    ir_ref a = rows[pick(&s, 3) ? n - 1 - pick(&s, n < 6 ? n : 6) : pick(&s, n)], r = 0;
    const ir_node *x = ir_at(g, a);
    tt_shape t = ir_shape(g, a);
    int rank = x->rank, axis = rank ? pick(&s, rank) : 0;
    bool small = tt_shape_count(&t) < 600;
    switch (pick(&s, 26)) {
    case 0: r = ir_ew1(g, IR_exp, ir_ew1(g, IR_tanh, a)); break;
    case 1: r = ir_ew1(g, IR_relu, a); break;
    case 2: r = ir_ew2(g, IR_mul, a, ir_like(g, a, 0.5)); break;
    case 3: case 4: case 5: {
      for (int tries = 0; tries < 12 && !r; tries++) {   /* two values of one shape, or one that broadcasts */
        ir_ref b = rows[pick(&s, n)];
        tt_shape u = ir_shape(g, b);
        bool fits = u.rank <= t.rank;
        for (int k = 0; fits && k < u.rank; k++) fits = u.dim[u.rank - 1 - k] == 1 || u.dim[u.rank - 1 - k] == t.dim[t.rank - 1 - k];
        if (fits) r = ir_ew2(g, pick(&s, 2) ? IR_add : IR_max, a, b);
      }
      break;
    }
    case 6: if (rank) r = ir_reduce(g, IR_sum, a, &axis, 1, pick(&s, 2)); break;
    case 7: if (rank) r = ir_reduce(g, IR_amax, a, &axis, 1, pick(&s, 2)); break;
    case 8: r = ir_mean(g, a, NULL, 0, false); break;
    case 9: if (rank) r = ir_ew2(g, IR_sub, a, ir_reduce(g, IR_amax, a, &axis, 1, true)); break;
    case 10: if (rank) r = ir_softmax(g, IR_softmax, a, axis); break;
    case 11: if (rank > 1) r = ir_transpose(g, a, axis, pick(&s, rank)); break;
    case 12: r = ir_reshape(g, a, S(tt_shape_count(&t))); break;
    case 13: if (rank < 5 && small) r = ir_broadcast(g, a, rank == 0 ? S(3) : rank == 1 ? S(2, t.dim[0]) : rank == 2 ? S(t.dim[0], 2, t.dim[1]) : t, rank == 0 ? (int[]){0} : rank == 1 ? (int[]){1} : rank == 2 ? (int[]){0, 2} : (int[]){0, 1, 2, 3, 4}); break;
    case 14: if (rank && t.dim[axis] > 1) r = ir_slice_axis(g, a, axis, 1, t.dim[axis], 1 + pick(&s, 2)); break;
    case 15: if (rank && small) {
      int64_t lo[8] = {0}, hi[8] = {0}, in[8] = {0};
      lo[axis] = pick(&s, 2), hi[axis] = 1, in[axis] = pick(&s, 2);
      r = ir_pad(g, a, ir_like(g, a, 0.25), lo, hi, in);
    } break;
    case 16: if (rank && small) r = ir_concat(g, (ir_ref[]){a, ir_ew1(g, IR_neg, a)}, 2, axis); break;
    case 17: if (rank) r = ir_reverse(g, a, &axis, 1); break;
    case 18: if (rank && rank < 5 && t.dim[axis] > 1 && small) r = ir_unfold(g, a, axis, 2, 1, 1); break;
    case 19: if (rank > 1 && axis < rank - 1) r = ir_fold(g, a, axis, (t.dim[axis] - 1) * 2 + t.dim[rank - 1], 2, 1); break;
    case 20: if (rank) r = ir_cumsum(g, a, axis, pick(&s, 2), pick(&s, 2)); break;
    case 21: if (rank) {
      ir_ref i = ir_argsort(g, a, axis, pick(&s, 2));
      r = pick(&s, 2) ? ir_gather(g, a, i, axis) : ir_scatter_add(g, a, i, ir_ew1(g, IR_sin, a), axis);
    } break;
    case 22: if (rank) r = ir_cast(g, ir_arg(g, IR_argmax, a, axis), TT_F32); break;
    case 23: case 24:
      if (rank >= 2) {
        ir_ref b = pick(&s, 2) ? a : ir_ew1(g, IR_sin, a);
        r = ir_matmul(g, a, pick(&s, 2) ? ir_transpose(g, b, rank - 2, rank - 1) : b, b == a, false, 1);
        if (!r) { g->error.status = TT_OK; r = ir_matmul(g, a, a, false, true, 1); }
      }
      break;
    case 25: if (rank) {
      ir_ref zeros = ir_full(g, TT_I64, S(rank), 0);
      r = ir_dynamic_update_slice(g, a, ir_slice_axis(g, a, axis, 0, 1, 1), zeros);
    } break;
    }
    if (!r) continue;
    cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
    if (ir_at(g, r)->rank > 5) continue;
    if (ir_at(g, r)->dtype == TT_F32) rows[n++] = r;
  }
  bool *read = calloc(g->n_nodes, sizeof *read);
  for (ir_ref r = 1; r < g->n_nodes; r++)
    for (uint32_t k = 0; k < ir_at(g, r)->n_args; k++) read[ir_at(g, r)->args[k]] = true;
  for (int i = 0; i < n; i++)
    if (!read[rows[i]] || i % 9 == 0) {
      snprintf(name, sizeof name, "y%d", i);
      ir_output_add(g, name, rows[i]);
    }
  for (int p = 1; p < 4; p += 2) {      /* the params get some value of their shape, maybe each other */
    tt_shape want = ir_shape(g, rows[p]);
    for (int i = n - 1; i > 0; i--) {
      tt_shape have = ir_shape(g, rows[i]);
      if (i != p && tt_shape_equal(&want, &have)) {
        ir_assign(g, rows[p], rows[i]);
        break;
      }
    }
  }
  free(read);
  return g;
}

static const pass_options options_of_test = {.vector_bytes = 32, .n_registers = 16};

#endif
