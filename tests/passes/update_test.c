/* update_test.c: each optimizer of optim.def, as rows run by the interpreter, against a plain loop of PyTorch's formulas, over some
 * steps and all of its options; clipping, groups, types, and the mistakes one can make in the options. */
#include "passes/passes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 6, STEPS = 100, F32_STEPS = 7 };       /* f32 drifts from f64 behind those */

/* ---- a function to train, and its state between calls ---- */

/* loss = sum(sin(a.w) x) + sum(b.w b.w) / 2, a.w: N of type t, b.w: rank 0. */
static ir_graph *function(tt_dtype t) {
  ir_graph *g = ir_graph_new("f");
  g->rules = rewrite_rules;
  tt_shape s = {1, {N}};
  ir_ref x = ir_input(g, "x", t, s), a = ir_param(g, "a.w", t, s, true), b = ir_param(g, "b.w", t, (tt_shape){0}, true);
  ir_ref loss = ir_ew2(g, IR_add, ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, ir_ew1(g, IR_sin, a), x), NULL, 0, false), ir_ew2(g, IR_mul, ir_like(g, b, 0.5), ir_ew2(g, IR_mul, b, b)));
  ir_output_add(g, "loss", loss);
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  return g;
}

static ir_graph *trained(ir_graph *f, const pass_options *options) {
  tt_error err = {0};
  ir_graph *out;
  cr_assert_eq(pass_run(f, &out, NULL, "tidy", options, NULL, NULL, &err), TT_OK, "%s", err.message);
  return out;
}

typedef struct { const char *name; tt_dtype type; int64_t n; void *data; } slot;
typedef struct { const ir_graph *g; slot slots[32]; int n; } machine;

static machine start(const ir_graph *g) {
  machine m = {.g = g};
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_param && n->op != IR_input) continue;
    tt_shape s = ir_shape(g, r);
    m.slots[m.n++] = (slot){ir_str(n, "name"), (tt_dtype)n->dtype, tt_shape_count(&s), calloc((size_t)tt_shape_count(&s) + 1, 8)};
  }
  return m;
}

static slot *find(machine *m, const char *name) {
  for (int i = 0; i < m->n; i++)
    if (!strcmp(m->slots[i].name, name)) return &m->slots[i];
  return NULL;
}
static void set(machine *m, const char *name, int64_t i, double v) {
  slot *s = find(m, name);
  if (s) ir_store_double(s->type, s->data, i, v);
}
static double get(machine *m, const char *name, int64_t i) {
  slot *s = find(m, name);
  cr_assert_not_null(s, "there is no %s", name);
  return ir_load_double(s->type, s->data, i);
}
static void stop(machine *m) {
  for (int i = 0; i < m->n; i++) free(m->slots[i].data);
}

/* One call: the values of outputs called grad.a.w and grad.b.w, and every assign done. */
static void step(machine *m, double *grad_a, double *grad_b) {
  const ir_graph *g = m->g;
  void **values = calloc(g->n_nodes, sizeof *values);
  tt_error err = {0};
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (ir_at(g, r)->op == IR_param || ir_at(g, r)->op == IR_input) values[r] = find(m, ir_str(ir_at(g, r), "name"))->data;
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    const ir_output *o = &g->outputs[i];
    tt_dtype t = (tt_dtype)ir_at(g, o->value)->dtype;
    if (!strcmp(o->name, "grad.a.w"))
      for (int k = 0; k < N; k++) grad_a[k] = ir_load_double(t, values[o->value], k);
    if (!strcmp(o->name, "grad.b.w")) *grad_b = ir_load_double(t, values[o->value], 0);
  }
  void *next[16];
  for (uint32_t i = 0; i < g->n_effects; i++) {          /* all values first: assigns take effect together */
    const ir_node *n = ir_at(g, g->effects[i]);
    slot *s = find(m, ir_str(ir_at(g, n->args[0]), "name"));
    size_t bytes = (size_t)s->n * tt_dtype_size(s->type);
    next[i] = malloc(bytes);
    memcpy(next[i], values[n->args[1]], bytes);
  }
  for (uint32_t i = 0; i < g->n_effects; i++) {
    slot *s = find(m, ir_str(ir_at(g, ir_at(g, g->effects[i])->args[0]), "name"));
    memcpy(s->data, next[i], (size_t)s->n * tt_dtype_size(s->type));
    free(next[i]);
  }
  ir_values_free(g, values);
}

/* ---- PyTorch's formulas ---- */

typedef enum { SGD_, ADAM_, RMSPROP_, ADAGRAD_, LION_, ADADELTA_, ADAMAX_, NADAM_, RADAM_ } kind;
typedef struct { kind kind; double momentum, dampening, weight_decay, beta1, beta2, eps, lr_scale, lr_decay; bool nesterov, amsgrad, decoupled, centered; } formula;
typedef struct { double p, buf, m, v, vmax, product; } element;

static void reference(const formula *f, element *e, double g, double lr, int t) {
  lr *= f->lr_scale ? f->lr_scale : 1;
  if (f->decoupled) e->p *= 1 - lr * f->weight_decay;
  else g += f->weight_decay * e->p;
  if (f->kind == RMSPROP_) {
    e->v = f->beta2 * e->v + (1 - f->beta2) * g * g;
    e->m = f->beta2 * e->m + (1 - f->beta2) * g;
    e->buf = f->momentum * e->buf + g / (sqrt(f->centered ? e->v - e->m * e->m : e->v) + f->eps);
    e->p -= lr * e->buf;
    return;
  }
  if (f->kind == ADAGRAD_) {
    e->v += g * g;
    e->p -= lr / (1 + (t - 1) * f->lr_decay) * g / (sqrt(e->v) + f->eps);
    return;
  }
  if (f->kind == LION_) {
    double u = f->beta1 * e->m + (1 - f->beta1) * g;
    e->p -= lr * ((u > 0) - (u < 0));
    e->m = f->beta2 * e->m + (1 - f->beta2) * g;
    return;
  }
  if (f->kind == ADADELTA_) {
    e->v = f->beta2 * e->v + (1 - f->beta2) * g * g;
    double delta = sqrt(e->m + f->eps) / sqrt(e->v + f->eps) * g;
    e->m = f->beta2 * e->m + (1 - f->beta2) * delta * delta;
    e->p -= lr * delta;
    return;
  }
  if (f->kind == ADAMAX_) {
    e->m = f->beta1 * e->m + (1 - f->beta1) * g;
    e->v = fmax(f->beta2 * e->v, fabs(g) + f->eps);
    e->p -= lr / (1 - pow(f->beta1, t)) * e->m / e->v;
    return;
  }
  if (f->kind == NADAM_) {
    double mu = f->beta1 * (1 - 0.5 * pow(0.96, t * f->momentum)), next = f->beta1 * (1 - 0.5 * pow(0.96, (t + 1) * f->momentum));
    e->product = (t == 1 ? 1 : e->product) * mu;
    e->m = f->beta1 * e->m + (1 - f->beta1) * g;
    e->v = f->beta2 * e->v + (1 - f->beta2) * g * g;
    double root = sqrt(e->v / (1 - pow(f->beta2, t))) + f->eps;
    e->p -= lr * ((1 - mu) / (1 - e->product) * g + next / (1 - e->product * next) * e->m) / root;
    return;
  }
  if (f->kind == RADAM_) {
    e->m = f->beta1 * e->m + (1 - f->beta1) * g;
    e->v = f->beta2 * e->v + (1 - f->beta2) * g * g;
    double last = 2 / (1 - f->beta2) - 1, correction = 1 - pow(f->beta2, t), rho = last - 2 * t * pow(f->beta2, t) / correction, m = e->m / (1 - pow(f->beta1, t));
    double rect = rho > 5 ? sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho)) : 0;
    e->p -= lr * m * (rho > 5 ? rect * sqrt(correction) / (sqrt(e->v) + f->eps) : 1);
    return;
  }
  if (f->kind == SGD_) {
    if (f->momentum != 0) {
      e->buf = t == 1 ? g : f->momentum * e->buf + (1 - f->dampening) * g;
      g = f->nesterov ? g + f->momentum * e->buf : e->buf;
    }
    e->p -= lr * g;
    return;
  }
  e->m += (1 - f->beta1) * (g - e->m);
  e->v = f->beta2 * e->v + (1 - f->beta2) * g * g;
  e->vmax = fmax(e->vmax, e->v);
  double denominator = sqrt(f->amsgrad ? e->vmax : e->v) / sqrt(1 - pow(f->beta2, t)) + f->eps;
  e->p -= lr / (1 - pow(f->beta1, t)) * e->m / denominator;
}

/* Both side by side. clip: what the gradients are clipped to, 0 for not. fa, fb: the formula of a.w and of b.w, NULL for frozen. */
static void side_by_side(const char *what, tt_dtype t, const pass_options *given, const formula *fa, const formula *fb, double tolerance) {
  pass_options options = *given;
  options.train = options.gradients = true;
  ir_graph *f = function(t), *g = trained(f, &options);
  machine m = start(g);
  element a[N] = {0}, b = {0};
  for (int i = 0; i < N; i++) set(&m, "a.w", i, 0.3 * i - 0.7), a[i].p = get(&m, "a.w", i);
  set(&m, "b.w", 0, 1.25), b.p = get(&m, "b.w", 0);
  for (int s = 0; s < (t == TT_F64 ? STEPS : F32_STEPS); s++) {
    double ga[N] = {0}, gb = 0, lr = 0.1 / (1 + s);
    set(&m, "lr", 0, lr), set(&m, "step", 0, s);
    for (int i = 0; i < N; i++) set(&m, "x", i, s == 2 ? 0 : 2.0 / (1 + s) - 0.1 * i * s);
    step(&m, ga, &gb);
    if (options.clip_norm > 0) {
      double sum = fb ? gb * gb : 0;
      for (int i = 0; i < N && fa; i++) sum += ga[i] * ga[i];
      double factor = fmin(1, options.clip_norm / (sqrt(sum) + 1e-6));
      for (int i = 0; i < N; i++) ga[i] *= factor;
      gb *= factor;
    }
    for (int i = 0; i < N && fa; i++) reference(fa, &a[i], ga[i], lr, s + 1);
    if (fb) reference(fb, &b, gb, lr, s + 1);
    for (int i = 0; i < N; i++)
      cr_expect(fabs(get(&m, "a.w", i) - a[i].p) <= tolerance * (1 + fabs(a[i].p)), "%s, step %d: a.w[%d] is %.15g, not %.15g", what, s, i, get(&m, "a.w", i), a[i].p);
    cr_expect(fabs(get(&m, "b.w", 0) - b.p) <= tolerance * (1 + fabs(b.p)), "%s, step %d: b.w is %.15g, not %.15g", what, s, get(&m, "b.w", 0), b.p);
  }
  stop(&m), ir_graph_free(g), ir_graph_free(f);
}

#define SGD .lr_scale = 1
#define ADAM .kind = ADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8
static const struct { const char *optimizer, *hyper; formula f; const char *states; } rows[] = {
    {"sgd", NULL, {SGD}, ""},
    {"sgd", "weight_decay=0.1", {SGD, .weight_decay = 0.1}, ""},
    {"sgd", "momentum=0.9", {SGD, .momentum = 0.9}, "momentum_buffer"},
    {"sgd", "momentum=0.9, dampening=0.3, weight_decay=5e-2", {SGD, .momentum = 0.9, .dampening = 0.3, .weight_decay = 0.05}, "momentum_buffer"},
    {"sgd", "momentum=0.8,nesterov=true", {SGD, .momentum = 0.8, .nesterov = true}, "momentum_buffer"},
    {"sgd", "momentum=0.8, nesterov=1, weight_decay=0.1, lr_scale=0.5", {.lr_scale = 0.5, .momentum = 0.8, .nesterov = true, .weight_decay = 0.1}, "momentum_buffer"},
    {"adam", "", {ADAM}, "exp_avg exp_avg_sq"},
    {"adam", "weight_decay=0.1, beta1=0.8, beta2=0.95, eps=1e-3", {.kind = ADAM_, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1}, "exp_avg exp_avg_sq"},
    {"adam", "amsgrad=true, beta2=0.5", {.kind = ADAM_, .beta1 = 0.9, .beta2 = 0.5, .eps = 1e-8, .amsgrad = true}, "exp_avg exp_avg_sq max_exp_avg_sq"},
    {"adamw", NULL, {ADAM, .decoupled = true, .weight_decay = 0.01}, "exp_avg exp_avg_sq"},
    {"adamw", "weight_decay=0", {ADAM}, "exp_avg exp_avg_sq"},
    {"adamw", "weight_decay=0.3, amsgrad=1, beta2=0.5, lr_scale=2", {.kind = ADAM_, .beta1 = 0.9, .beta2 = 0.5, .eps = 1e-8, .amsgrad = true, .decoupled = true, .weight_decay = 0.3, .lr_scale = 2}, "exp_avg exp_avg_sq max_exp_avg_sq"},
    {"rmsprop", NULL, {.kind = RMSPROP_, .beta2 = 0.99, .eps = 1e-8}, "square_avg"},
    {"rmsprop", "alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.7, centered=1", {.kind = RMSPROP_, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.1, .momentum = 0.7, .centered = true}, "square_avg grad_avg momentum_buffer"},
    {"adagrad", NULL, {.kind = ADAGRAD_, .eps = 1e-10}, "sum"},
    {"adagrad", "lr_decay=0.2, weight_decay=0.1", {.kind = ADAGRAD_, .eps = 1e-10, .lr_decay = 0.2, .weight_decay = 0.1}, "sum"},
    {"lion", NULL, {.kind = LION_, .beta1 = 0.9, .beta2 = 0.99}, "exp_avg"},
    {"lion", "beta1=0.8, beta2=0.9, weight_decay=0.2", {.kind = LION_, .beta1 = 0.8, .beta2 = 0.9, .decoupled = true, .weight_decay = 0.2}, "exp_avg"},
    {"adadelta", NULL, {.kind = ADADELTA_, .beta2 = 0.9, .eps = 1e-6}, "square_avg acc_delta"},
    {"adadelta", "rho=0.7, eps=1e-3, weight_decay=0.1", {.kind = ADADELTA_, .beta2 = 0.7, .eps = 1e-3, .weight_decay = 0.1}, "square_avg acc_delta"},
    {"adamax", NULL, {.kind = ADAMAX_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}, "exp_avg exp_inf"},
    {"adamax", "beta1=0.8, beta2=0.7, eps=1e-3, weight_decay=0.1", {.kind = ADAMAX_, .beta1 = 0.8, .beta2 = 0.7, .eps = 1e-3, .weight_decay = 0.1}, "exp_avg exp_inf"},
    {"nadam", NULL, {.kind = NADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum = 0.004}, "exp_avg exp_avg_sq mu_product"},
    {"nadam", "weight_decay=0.1, momentum_decay=0.1", {.kind = NADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum = 0.1, .weight_decay = 0.1}, "exp_avg exp_avg_sq mu_product"},
    {"nadam", "weight_decay=0.1, decoupled_weight_decay=true", {.kind = NADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum = 0.004, .weight_decay = 0.1, .decoupled = true}, "exp_avg exp_avg_sq mu_product"},
    {"radam", NULL, {.kind = RADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}, "exp_avg exp_avg_sq"},                /* its steps 1 to 5 and those behind */
    {"radam", "weight_decay=0.1", {.kind = RADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1}, "exp_avg exp_avg_sq"},
    {"radam", "weight_decay=0.1, decoupled_weight_decay=1", {.kind = RADAM_, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .decoupled = true}, "exp_avg exp_avg_sq"},
};
static const char *const elsewhere[] = {"lamb", "muon"};       /* of a tensor as a whole: their own tests */
enum { ROWS = sizeof rows / sizeof rows[0] };

Test(update, as_pytorch) {
  for (const optim_info *o = optim_table; o->name; o++) {
    bool tested = false;
    for (int i = 0; i < ROWS; i++) tested |= !strcmp(rows[i].optimizer, o->name);
    for (int i = 0; i < 2; i++) tested |= !strcmp(elsewhere[i], o->name);
    cr_expect(tested, "%s of optim.def has no row here", o->name);
  }
  for (int i = 0; i < ROWS; i++) {
    char what[200];
    snprintf(what, sizeof what, "%s(%s)", rows[i].optimizer, rows[i].hyper ? rows[i].hyper : "");
    pass_options options = {.optimizer = rows[i].optimizer, .hyper = rows[i].hyper};
    side_by_side(what, TT_F64, &options, &rows[i].f, &rows[i].f, 1e-11);
    side_by_side(what, TT_F32, &options, &rows[i].f, &rows[i].f, 3e-5);
    options.clip_norm = 1.5;
    side_by_side(what, TT_F64, &options, &rows[i].f, &rows[i].f, 1e-11);
  }
}

Test(update, groups) {
  formula sgd = {SGD}, adam = {ADAM, .weight_decay = 0.1};
  pass_options options = {.optimizer = "sgd", .groups = {{"b", "adam", "weight_decay=0.1"}}, .n_groups = 1};
  side_by_side("a by sgd, b by adam", TT_F64, &options, &sgd, &adam, 1e-11);
  options.clip_norm = 0.7;
  side_by_side("both, clipped together", TT_F64, &options, &sgd, &adam, 1e-11);
  options.groups[0].optimizer = NULL;
  side_by_side("b frozen", TT_F64, &options, &sgd, NULL, 1e-11);
  options = (pass_options){.groups = {{"a.", "sgd", "lr_scale=0"}}, .n_groups = 1};
  sgd.lr_scale = 1e-300;
  side_by_side("only a, and that not much", TT_F64, &options, &sgd, NULL, 1e-11);
}

/* Patterns: components, *, axes; the first that fits. */
Test(update, patterns_of_groups) {
  static const struct { const char *pattern, *name; int n_axes; bool fits; } cases[] = {
      {"fc1", "fc1.weight", 2, true}, {"fc1", "fc10.weight", 2, false}, {"", "a", 0, true}, {"*.bias", "blocks.0.bias", 1, true}, {"*.bias", "blocks.0.biases", 1, false},
      {"blocks.*.ln*", "blocks.0.ln1.weight", 1, true}, {"blocks.*.ln*", "head.ln1", 1, false}, {"*a*b", "xaab", 1, true}, {"*a*b", "xaabc", 1, false}, {"*", "x", 3, true},
      {"ndim<2", "a", 1, true}, {"ndim<2", "a", 2, false}, {"ndim<=2", "a", 2, true}, {"ndim=2", "a", 2, true}, {"ndim==2", "a", 2, true}, {"ndim==2", "a", 3, false},
      {"ndim!=2", "a", 4, true}, {"ndim!=2", "a", 2, false}, {"ndim>=2", "a", 2, true}, {"ndim>2", "a", 2, false}, {"ndim>2", "a", 3, true}, {"ndims", "ndims.weight", 2, true}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pass_options o = {.groups = {{cases[i].pattern}, {"*"}}, .n_groups = 2};
    cr_expect_eq(pass_group(&o, cases[i].name, cases[i].n_axes) == 0, cases[i].fits, "%s of %s with %d axes", cases[i].pattern, cases[i].name, cases[i].n_axes);
    cr_expect_eq(pass_groups_check(&o, NULL), TT_OK);
  }
  static const char *const wrong[] = {"ndim<", "ndim<x", "ndim!2", "ndim<2x", "ndim<-1", "ndim=>2", "ndim<<<2"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) cr_expect_eq(pass_groups_check(&(pass_options){.groups = {{wrong[i]}}, .n_groups = 1}, NULL), TT_INVALID, "%s", wrong[i]);
}

Test(update, vectors_need_not_decay) {
  formula plain = {ADAM}, decays = {ADAM, .decoupled = true, .weight_decay = 0.01};
  pass_options options = {.optimizer = "adamw"};
  side_by_side("both decay", TT_F64, &options, &decays, &decays, 1e-11);
  options.no_decay_norm_bias = true;
  side_by_side("neither does: both have less than two axes", TT_F64, &options, &plain, &plain, 1e-11);
  options = (pass_options){.optimizer = "adamw", .groups = {{"ndim<1", "adamw", "weight_decay=0"}, {"ndim>7", NULL, NULL}}, .n_groups = 2};
  side_by_side("the scalar does not", TT_F64, &options, &decays, &plain, 1e-11);
}

/* NAME.ema of parameters and of what the function assigns itself. */
Test(update, running_means) {
  pass_options options = {.train = true, .optimizer = "sgd", .ema = 0.75};
  ir_graph *f = function(TT_F64);
  ir_ref seen = ir_param(f, "seen", TT_F64, (tt_shape){0}, false), count = ir_param(f, "count", TT_I64, (tt_shape){0}, false);
  ir_assign(f, seen, ir_ew2(f, IR_add, seen, ir_find(f, "b.w")));
  ir_assign(f, count, ir_ew2(f, IR_add, count, ir_scalar_int(f, TT_I64, 1)));
  ir_graph *g = trained(f, &options);
  cr_expect(!ir_find(g, "count.ema"));
  machine m = start(g);
  double mean[N + 2], ga[N], gb;
  set(&m, "b.w", 0, 3), set(&m, "lr", 0, 0.1);
  for (int t = 0; t < 9; t++) {
    set(&m, "step", 0, t);
    for (int i = 0; i < N; i++) set(&m, "x", i, cos(2.0 * t + i));
    step(&m, ga, &gb);
    for (int i = 0; i < N + 2; i++) {
      double now = i < N ? get(&m, "a.w", i) : get(&m, i == N ? "b.w" : "seen", 0), got = i < N ? get(&m, "a.w.ema", i) : get(&m, i == N ? "b.w.ema" : "seen.ema", 0);
      mean[i] = t == 0 ? now : 0.75 * mean[i] + 0.25 * now;
      cr_expect_float_eq(got, mean[i], 1e-13, "step %d: the mean of element %d is %.15g, not %.15g", t, i, got, mean[i]);
    }
  }
  stop(&m), ir_graph_free(g), ir_graph_free(f);
}

Test(update, makes_what_it_needs_and_no_more) {
  for (int i = 0; i < ROWS; i++) {
    pass_options options = {.train = true, .optimizer = rows[i].optimizer, .hyper = rows[i].hyper};
    ir_graph *f = function(TT_F32), *g = trained(f, &options);
    int states = 0, wanted = 0;
    for (ir_ref r = 1; r < g->n_nodes; r++) {
      const ir_node *n = ir_at(g, r);
      if (n->op != IR_param || ir_int(n, "trainable")) continue;
      const char *name = strrchr(ir_str(n, "name"), '.') + 1;
      cr_expect(strstr(rows[i].states, name), "%s(%s) has the state %s", rows[i].optimizer, rows[i].hyper, name);
      cr_expect_eq(n->dtype, strcmp(name, "mu_product") ? TT_F32 : TT_F64);
      states++;
    }
    for (const char *p = rows[i].states; *p; p += strcspn(p, " "), p += *p == ' ') wanted++;
    cr_expect_eq(states, 2 * wanted, "%s(%s) has %d states", rows[i].optimizer, rows[i].hyper, states);
    cr_expect_eq((int)g->n_effects, 2 + 2 * wanted);
    cr_expect_eq(g->n_outputs, 1, "gradients are not outputs unless asked for");
    cr_expect(ir_find(g, "lr") && ir_at(g, ir_find(g, "lr"))->dtype == TT_F64);
    cr_expect_eq(ir_find(g, "step") != 0, rows[i].f.kind == ADAM_ || rows[i].f.kind >= ADAMAX_ || rows[i].f.dampening != 0 || rows[i].f.lr_decay != 0, "a step that nobody reads is not an input");
    ir_graph_free(g), ir_graph_free(f);
  }
}

Test(update, mistakes) {
  static const struct { const char *optimizer, *hyper, *says; } wrong[] = {
      {"sdg", NULL, "use one of sgd, adam, adamw, rmsprop, adagrad, lion"},
      {"sgd", "momentun=0.9", "sgd has no hyperparameter momentun"},
      {"sgd", "momentun=0.9", "lr_scale=1, momentum=0, dampening=0"},
      {"adam", "beta1", "write it as beta1=0.1"},
      {"adam", "eps=tiny", "eps of adam is not a number"},
      {"adam", "eps=1,5", "adam has no hyperparameter 5"},
      {"adam", "exp_avg=1", "adam has no hyperparameter exp_avg"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    pass_options options = {.train = true, .optimizer = wrong[i].optimizer, .hyper = wrong[i].hyper};
    ir_graph *f = function(TT_F32), *g;
    tt_error err = {0};
    cr_expect_eq(pass_run(f, &g, NULL, "update", &options, NULL, NULL, &err), TT_INVALID);
    cr_expect_null(g);
    cr_expect(strstr(err.message, wrong[i].says), "%s", err.message);
    cr_expect(strstr(err.message, "error: ") == err.message && strstr(err.message, "\n  at ") && strstr(err.message, "\n  fix: "), "%s", err.message);
    ir_graph_free(f);
  }
  ir_graph *f = ir_graph_new("f"), *g;
  tt_error err = {0};
  ir_ref lr = ir_input(f, "lr", TT_F32, (tt_shape){0}), w = ir_param(f, "w", TT_F32, (tt_shape){0}, true);
  ir_output_add(f, "loss", ir_ew2(f, IR_mul, lr, w));
  pass_options options = {.train = true, .optimizer = "sgd"};
  cr_expect_eq(pass_run(f, &g, NULL, "update", &options, NULL, NULL, &err), TT_INVALID);
  cr_expect(strstr(err.message, "lr is taken by an input of type f32[]"), "%s", err.message);
  ir_graph_free(f);
}

/* LAMB's norms are of a parameter as a whole: over 100 steps, a vector and a scalar. */
Test(update, lamb) {
  for (int decayed = 0; decayed < 2; decayed++) {
    double decay = decayed ? 0.01 : 0;
    pass_options options = {.train = true, .gradients = true, .optimizer = "lamb", .hyper = decayed ? NULL : "weight_decay=0"};
    ir_graph *f = function(TT_F64), *g = trained(f, &options);
    machine m = start(g);
    double p[N + 1], mean[N + 1] = {0}, square[N + 1] = {0}, ga[N + 1];
    for (int i = 0; i < N; i++) set(&m, "a.w", i, p[i] = i == 0 ? 0 : 0.3 * i - 0.7);
    set(&m, "b.w", 0, p[N] = 0);                                /* norm 0: it is trusted fully */
    for (int t = 1; t <= STEPS; t++) {
      double lr = 0.05;
      set(&m, "lr", 0, lr), set(&m, "step", 0, t - 1);
      for (int i = 0; i < N; i++) set(&m, "x", i, sin(3.0 * t + i));
      step(&m, ga, &ga[N]);
      for (int part = 0; part < 2; part++) {
        int from = part ? N : 0, to = part ? N + 1 : N;
        double r[N + 1], of_p = 0, of_r = 0;
        for (int i = from; i < to; i++) {
          mean[i] = 0.9 * mean[i] + 0.1 * ga[i], square[i] = 0.999 * square[i] + 0.001 * ga[i] * ga[i];
          r[i] = mean[i] / (1 - pow(0.9, t)) / (sqrt(square[i] / (1 - pow(0.999, t))) + 1e-6) + decay * p[i];
          of_p += p[i] * p[i], of_r += r[i] * r[i];
        }
        double trust = of_p > 0 && of_r > 0 ? sqrt(of_p) / sqrt(of_r) : 1;
        for (int i = from; i < to; i++) p[i] -= lr * trust * r[i];
      }
      for (int i = 0; i <= N; i++) {
        double got = i < N ? get(&m, "a.w", i) : get(&m, "b.w", 0);
        cr_assert(fabs(got - p[i]) <= 1e-9 * (1 + fabs(p[i])), "step %d: element %d is %.15g, not %.15g", t, i, got, p[i]);
      }
    }
    stop(&m), ir_graph_free(g), ir_graph_free(f);
  }
}

Test(update, muon_wants_matrices) {
  pass_options options = {.train = true, .optimizer = "muon"};
  ir_graph *f = function(TT_F32), *g;
  tt_error err = {0};
  cr_expect_eq(pass_run(f, &g, NULL, "update", &options, NULL, NULL, &err), TT_INVALID);
  cr_expect(strstr(err.message, "error: muon updates matrices, and a.w has 1 axes") && strstr(err.message, "\n  fix: "), "%s", err.message);
  ir_graph_free(f);
}

/* ---- the runner ---- */

typedef struct { char seen[300]; double total; } record;
static void watch(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  record *r = user;
  strcat(strcat(r->seen, *r->seen ? " " : ""), pass);
  r->total += milliseconds;
  cr_expect(g->n_nodes > 1);
}

Test(pipeline, runs_lists_and_says_what_is_wrong) {
  ir_graph *f = function(TT_F64), *g;
  pass_options options = {.train = true, .optimizer = "sgd", .skip = "simplify"};
  record r = {0};
  tt_error err = {0};
  cr_assert_eq(pass_run(f, &g, NULL, "decompose", &options, watch, &r, &err), TT_OK, "%s", err.message);
  cr_expect_str_eq(r.seen, "trace grad update decompose");
  cr_expect_geq(r.total, 0);
  ir_graph_free(g);
  r = (record){0}, options.skip = NULL;
  cr_assert_eq(pass_run(f, &g, "tidy, simplify", NULL, &options, watch, &r, &err), TT_OK, "%s", err.message);
  cr_expect_str_eq(r.seen, "trace tidy simplify");
  ir_graph_free(g);
  cr_assert_eq(pass_run(f, &g, "", NULL, &options, NULL, NULL, &err), TT_OK, "%s", err.message);
  cr_expect(g && g != f && g->n_nodes == f->n_nodes);
  ir_graph_free(g);

  static const struct { const char *names, *last, *skip, *says; } wrong[] = {
      {"simplify,fuze", NULL, NULL, "\"fuze\" is not a pass"}, {NULL, "end", NULL, "use one of simplify, grad, update"}, {NULL, NULL, "grad", "some of simplify, tidy"}, {NULL, NULL, "x", "\"x\" is not a pass that can be left out"}};
  for (int i = 0; i < 4; i++) {
    err = (tt_error){0}, options.skip = wrong[i].skip;
    cr_expect_eq(pass_run(f, &g, wrong[i].names, wrong[i].last, &options, NULL, NULL, &err), TT_INVALID);
    cr_expect_null(g);
    cr_expect(strstr(err.message, wrong[i].says), "%s", err.message);
  }
  ir_graph_free(f);
}
