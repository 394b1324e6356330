/* trace_test.c: what tracing gives: rows with their origins, parameters with their names and first values, gradients, training. */
#include "evaluate.h"
#include "frontend/models/models.h"

#line 1 "two_layers.c"
static tt_val two_layers(tt_val x, void *arg) {
  (void)arg;
  x = tt_relu(tt_linear(x, "fc1", 3));
  return tt_linear(x, "fc2", 2, .no_bias = true);
}
#line 100 "trace_test.c"

static ir_graph *finish(tt_trace *t) {
  tt_error err = {0};
  ir_graph *g = NULL;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  tt_trace_free(t);
  return g;
}

static void same_after_parsing(const ir_graph *g) {
  tt_error err = {0};
  char *text = ir_print(g);
  ir_graph *back = ir_parse(text, strlen(text), "printed", &err);
  cr_assert_not_null(back, "%s", err.message);
  char *again = ir_print(back);
  cr_expect_str_eq(again, text);
  free(again);
  free(text);
  ir_graph_free(back);
}

static int origin_length(const ir_graph *g, ir_ref r) {
  int n = 0;
  for (uint32_t o = ir_at(g, r)->origin; o; o = g->origins[o].next) n++;
  return n;
}

/* The user's line is first, the layer's own line follows; the scope is the layer's. */
Test(trace, origins) {
  tt_trace *t = tt_trace_new("two", false);
  tt_output(t, "y", two_layers(tt_input(t, "x", TT_F32, TT_SHAPE(5, 4)), NULL));
  ir_graph *g = finish(t);
  int products = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    const ir_origin *o = &g->origins[n->origin];
    if (n->op == IR_relu) {
      cr_expect_str_eq(o->file, "two_layers.c");
      cr_expect_eq(o->line, 3);
      cr_expect_null(o->scope);
      cr_expect_eq(origin_length(g, r), 1);
    }
    if (n->op != IR_matmul) continue;
    cr_expect_str_eq(o->file, "two_layers.c");
    cr_expect_eq(o->line, products ? 4 : 3);
    cr_expect_str_eq(o->scope, products ? "fc2" : "fc1");
    cr_expect_eq(origin_length(g, r), 2);
    cr_expect_str_eq(g->origins[o->next].file, "linear.c");
    products++;
  }
  cr_expect_eq(products, 2);
  same_after_parsing(g);
  ir_graph_free(g);
}

static const char *const resnet_names[] = {
    "0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.conv1.weight", "3.bn1.weight", "3.bn2.running_var",
    "6.conv1.weight", "6.short.0.weight", "6.short.1.weight", "6.short.1.running_mean", "9.short.0.weight", "11.bn2.bias", "14.weight", "14.bias"};

static ir_graph *traced(const char *name, bool training) {
  const model_info *m = model_find(name);
  model_config c = {10};
  tt_trace *t = tt_trace_new(name, training);
  tt_val x = m->context ? tt_input(t, "x", TT_I32, TT_SHAPE(2, 24)) : tt_input(t, "x", TT_F32, TT_SHAPE(2, 3, 32, 32)), out = m->function(x, &c);
  if (m->sample) tt_output(t, "made", out);
  else {
    tt_val y = tt_input(t, "y", TT_I32, m->context ? TT_SHAPE(2, 24) : m->pixels ? TT_SHAPE(2, 32, 32) : TT_SHAPE(2));
    tt_output(t, "loss", m->context ? tt_cross_entropy(tt_reshape(out, TT_SHAPE(-1, 10)), tt_flatten(y, 0)) : tt_cross_entropy(out, y));
  }
  return finish(t);
}

static int count_op(const ir_graph *g, ir_op op) {
  int n = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) n += ir_at(g, r)->op == op;
  return n;
}

/* PyTorch's names, for its files to be read: torch.nn.Sequential of He et al.'s blocks. */
Test(trace, names_are_pytorchs) {
  ir_graph *g = traced("resnet20", true);
  for (size_t i = 0; i < sizeof resnet_names / sizeof *resnet_names; i++) cr_expect_neq(ir_find(g, resnet_names[i]), 0, "%s is missing", resnet_names[i]);
  cr_expect_eq(ir_find(g, "3.short.0.weight"), 0);
  cr_expect_eq(count_op(g, IR_param), 21 + 21 * 4 + 2);          /* convolutions, their norms, linear */
  cr_expect_eq(g->n_effects, 21 * 2);
  ir_graph_free(g);
  g = traced("resnet20", false);
  cr_expect_eq(g->n_effects, 0);
  ir_graph_free(g);
}

Test(trace, models_parse_back) {
  for (const model_info *m = model_table; m->name; m++)
    for (int training = 0; training < 2; training++) {
      ir_graph *g = traced(m->name, training);
      tt_error err = {0};
      cr_expect_eq(ir_verify(g, "trace", &err), TT_OK, "%s", err.message);
      same_after_parsing(g);
      ir_graph_free(g);
    }
}

Test(trace, mlp_shapes) {
  ir_graph *g = traced("mlp", true);
  tt_shape s = ir_shape(g, ir_find(g, "0.weight"));
  cr_expect_eq(s.dim[0], 512);
  cr_expect_eq(s.dim[1], 3 * 32 * 32);
  cr_expect_eq(count_op(g, IR_matmul), 3);
  cr_expect_eq(count_op(g, IR_log_softmax), 1);
  ir_graph_free(g);
}

static tt_val halved(tt_val x, void *arg) { return tt_mul(tt_linear(x, "inner", 6), *(double *)arg); }

/* Every kind of layer as data: numbers count all layers, those without parameters too. */
Test(trace, sequential_layers) {
  double half = 0.5;
  tt_trace *t = tt_trace_new("all", true);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(4, 3, 16, 16));
  tt_scope_push(x, "net");
  tt_val y = tt_sequential(x,
    TT_CONV2D(8, 3, .padding = 1, .groups = 1), TT_BATCH_NORM, TT_GELU, TT_MAX_POOL2D(2), TT_AVG_POOL2D(2, .stride = 1), TT_ADAPTIVE_AVG_POOL2D(2),
    TT_FLATTEN, TT_LAYER_NORM(1, .eps = 1e-3), TT_LINEAR(12, .no_bias = true), TT_SIGMOID, TT_DROPOUT(0.2), TT_SELF_ATTENTION(6), TT_TANH,
    TT_FUNCTION(halved, &half), TT_RELU, TT_SOFTMAX);
  tt_scope_pop(x);
  tt_shape s = tt_shape_of(y);
  cr_expect(tt_shape_equal(&s, &TT_SHAPE(4, 6)));
  tt_output(t, "y", y);
  ir_graph *g = finish(t);
  static const char *const names[] = {"net.0.weight", "net.0.bias", "net.1.running_var", "net.7.weight", "net.8.weight", "net.11.q.weight", "net.11.out.bias", "net.13.inner.weight", "seed", "step"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) cr_expect_neq(ir_find(g, names[i]), 0, "%s is missing", names[i]);
  cr_expect_eq(ir_find(g, "net.8.bias"), 0);
  cr_expect_eq(count_op(g, IR_dropout), 1);
  same_after_parsing(g);
  ir_graph_free(g);
}

/* -- Gradients ---------------------------------------------------------------------------------------------------------- */

enum { N_W = 12 };

/* tanh(x w')^2 summed, as a function of w [4,3], with its gradient and the gradient of the gradient's sum of squares. */
static results at_weights(const double *w) {
  tt_trace *t = tt_trace_new("f", true);
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(5, 3)), v = tt_param(x, "w", TT_SHAPE(4, 3), tt_init_zeros()), none = {0}, g, gg;
  tt_val y = tt_sum(tt_square(tt_softmax(tt_tanh(tt_f_linear(x, v, none)), 1)), TT_ALL, false);
  tt_grad(y, &v, 1, &g);
  tt_val q = tt_sum(tt_square(g), TT_ALL, false);
  tt_grad(q, &v, 1, &gg);
  tt_output(t, "y", y);
  tt_output(t, "g", g);
  tt_output(t, "q", q);
  tt_output(t, "gg", gg);
  return evaluate(t, (const given[]){{"w", w}}, 1);
}

Test(trace, gradients_of_first_and_second_order) {
  double w[N_W], h = 1e-5;
  for (int i = 0; i < N_W; i++) w[i] = pattern("w", i);
  results at = at_weights(w);
  for (int i = 0; i < N_W; i++) {
    double keep = w[i];
    w[i] = keep + h;
    results up = at_weights(w);
    w[i] = keep - h;
    results down = at_weights(w);
    w[i] = keep;
    expect_near(output(&at, "g")->values[i], (output(&up, "y")->values[0] - output(&down, "y")->values[0]) / (2 * h), 1e-8, "first order");
    expect_near(output(&at, "gg")->values[i], (output(&up, "q")->values[0] - output(&down, "q")->values[0]) / (2 * h), 1e-8, "second order");
    results_free(&up);
    results_free(&down);
  }
  results_free(&at);
}

Test(trace, stop_gradient_and_independence) {
  tt_trace *t = tt_trace_new("f", true);
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(3)), z = tt_input(t, "z", TT_F64, TT_SHAPE(2)), wrt[] = {x, z}, g[2];
  tt_val y = tt_sum(tt_mul(x, tt_stop_gradient(x)), TT_ALL, false);
  tt_grad(y, wrt, 2, g);
  tt_output(t, "gx", g[0]);
  tt_output(t, "gz", g[1]);
  results r = evaluate(t, (const given[]){{"x", (double[]){1, -2, 3}}}, 1);
  expect_near(output(&r, "gx")->values[1], -2, 0, "only one factor counts");
  cr_expect_eq(output(&r, "gz")->count, 2);
  expect_near(output(&r, "gz")->values[0], 0, 0, "what the loss does not depend on");
  results_free(&r);
}

/* A step of descent by hand: assigns carry the new weights, which go in again. */
Test(trace, mlp_trains_in_the_interpreter) {
  double w1[8 * 4], w2[3 * 8], x[16 * 4], y[16], losses[30];
  for (int i = 0; i < 8 * 4; i++) w1[i] = pattern("w1", i);
  for (int i = 0; i < 3 * 8; i++) w2[i] = pattern("w2", i);
  for (int i = 0; i < 16 * 4; i++) x[i] = pattern("x", i);
  for (int i = 0; i < 16; i++) y[i] = x[4 * i] > 0.3 ? 2 : x[4 * i + 1] > 0 ? 1 : 0;
  for (int step = 0; step < 30; step++) {
    tt_trace *t = tt_trace_new("mlp", true);
    tt_val in = tt_input(t, "x", TT_F64, TT_SHAPE(16, 4)), labels = tt_input(t, "y", TT_I32, TT_SHAPE(16)), w[2], g[2], none = {0};
    w[0] = tt_param(in, "w1", TT_SHAPE(8, 4), tt_init_zeros());
    w[1] = tt_param(in, "w2", TT_SHAPE(3, 8), tt_init_zeros());
    tt_val loss = tt_cross_entropy(tt_f_linear(tt_relu(tt_f_linear(in, w[0], none)), w[1], none), labels);
    tt_grad(loss, w, 2, g);
    for (int i = 0; i < 2; i++) tt_assign(w[i], tt_sub(w[i], tt_mul(g[i], 0.5)));
    tt_output(t, "loss", loss);
    results r = evaluate(t, (const given[]){{"w1", w1}, {"w2", w2}, {"x", x}, {"y", y}}, 4);
    losses[step] = output(&r, "loss")->values[0];
    memcpy(w1, output(&r, "next.w1")->values, sizeof w1);
    memcpy(w2, output(&r, "next.w2")->values, sizeof w2);
    results_free(&r);
  }
  cr_expect(losses[29] < 0.5 * losses[0], "the loss went from %g to %g", losses[0], losses[29]);
}

/* -- First values ------------------------------------------------------------------------------------------------------- */

static void fill(tt_init init, const char *name, uint64_t seed, tt_shape s, double *out) {
  tt_error err = {0};
  cr_assert_eq(tt_init_fill(init, name, seed, TT_F64, &s, out, &err), TT_OK, "%s", err.message);
}

static void moments(const double *v, int n, double *mean, double *std, double *largest) {
  *mean = *std = *largest = 0;
  for (int i = 0; i < n; i++) *mean += v[i] / n;
  for (int i = 0; i < n; i++) *std += (v[i] - *mean) * (v[i] - *mean) / n, *largest = fmax(*largest, fabs(v[i]));
  *std = sqrt(*std);
}

Test(init, distributions) {
  enum { OUT = 64, IN = 16, K = 9, N = OUT * IN * K };
  static double v[N];
  tt_shape s = TT_SHAPE(OUT, IN, 3, 3);
  double in = IN * K, out = OUT * K, mean, std, largest;
  const struct { tt_init init; double mean, std, bound; } cases[] = {
      {tt_init_uniform(-2, 4), 1, 6 / sqrt(12), 4}, {tt_init_normal(1, 3), 1, 3, 20},
      {tt_init_xavier_uniform(1), 0, sqrt(2 / (in + out)), sqrt(6 / (in + out))}, {tt_init_xavier_normal(2), 0, 2 * sqrt(2 / (in + out)), 1},
      {tt_init_kaiming_uniform(sqrt(5)), 0, 1 / sqrt(3 * in), 1 / sqrt(in)}, {tt_init_kaiming_normal(0), 0, sqrt(2 / in), 1},
      {tt_init_constant(0.5), 0.5, 0, 0.5}, {tt_init_ones(), 1, 0, 1}, {tt_init_zeros(), 0, 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fill(cases[i].init, "conv.weight", 7, s, v);
    moments(v, N, &mean, &std, &largest);
    cr_expect(fabs(mean - cases[i].mean) <= 5 * cases[i].std / sqrt(N) + 1e-12, "case %zu has the mean %g", i, mean);
    cr_expect(fabs(std - cases[i].std) <= 0.03 * cases[i].std + 1e-12, "case %zu has the deviation %g, not %g", i, std, cases[i].std);
    cr_expect(largest <= cases[i].bound, "case %zu reaches %g, over %g", i, largest, cases[i].bound);
  }
}

Test(init, names_and_seeds) {
  double a[8], b[8], c[8], d[4], e[8], own[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  fill(tt_init_normal(0, 1), "a", 1, TT_SHAPE(8), a);
  fill(tt_init_normal(0, 1), "b", 1, TT_SHAPE(8), b);
  fill(tt_init_normal(0, 1), "a", 2, TT_SHAPE(8), c);
  fill(tt_init_normal(0, 1), "a", 1, TT_SHAPE(4), d);
  fill(tt_init_data(own), "a", 1, TT_SHAPE(8), e);
  cr_expect(memcmp(a, b, sizeof a) && memcmp(a, c, sizeof a), "name and seed change the values");
  cr_expect(!memcmp(a, d, sizeof d), "element i depends on i alone");
  cr_expect_eq(e[7], 8);
}

Test(trace, frozen_and_state) {
  tt_trace *t = tt_trace_new("f", true);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(2));
  tt_val y = tt_add(tt_param(x, "a", TT_SHAPE(2), tt_init_zeros()), tt_add(tt_param_frozen(x, "b", TT_SHAPE(2), tt_init_zeros()), tt_state(x, "c", TT_SHAPE(2), tt_init_zeros())));
  tt_output(t, "y", y);
  ir_graph *g = finish(t);
  cr_expect_eq(ir_int(ir_at(g, ir_find(g, "a")), "trainable"), 1);
  cr_expect_eq(ir_int(ir_at(g, ir_find(g, "b")), "trainable"), 0);
  cr_expect_eq(ir_int(ir_at(g, ir_find(g, "c")), "trainable"), 0);
  ir_graph_free(g);
}
