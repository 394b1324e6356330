/* model_test.c: models as a program's author uses them: compiled, stepped, predicted with, saved, loaded, trained. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/models/models.h"
#include "ir/ir.h"

static tt_val small(tt_val x, void *arg) {
  (void)arg;
  x = tt_flatten(tt_max_pool2d(tt_relu(tt_batch_norm(tt_conv2d(x, "conv", 5, 3, .padding = 1), "bn")), 2), 1);
  return tt_linear(tt_dropout(x, 0.1), "fc", 3);
}

static tt_val wider(tt_val x, void *arg) {
  (void)arg;
  return tt_linear(tt_flatten(x, 1), "fc", 3);
}

static tt_model *new_model(tt_model_fn *f, const char *backend) {
  tt_error err = {0};
  tt_model *m = tt_model_new(f, NULL, &(tt_model_options){.seed = 3, .backend = backend, .n_threads = 2}, &err);
  cr_assert_not_null(m, "%s", err.message);
  return m;
}

static tt_tensor *images(int64_t n) {
  tt_error err = {0};
  tt_tensor *x = tt_tensor_new(TT_F32, &TT_SHAPE(n, 1, 6, 6), &err);
  cr_assert_not_null(x, "%s", err.message);
  float *v = tt_tensor_data(x);
  for (int64_t i = 0; i < n * 36; i++) v[i] = (float)sin(0.37 * (double)i + (double)(i / 36 % 3));
  return x;
}

static tt_tensor *predict(tt_model *m, tt_tensor *x) {
  tt_error err = {0};
  tt_tensor *y = tt_predict(m, x, &err);
  cr_assert_not_null(y, "%s", err.message);
  return y;
}

static double distance(const tt_tensor *a, const tt_tensor *b) {
  tt_shape s = tt_tensor_shape(a), q = tt_tensor_shape(b);
  cr_assert(tt_shape_equal(&s, &q));
  double d = 0;
  for (int64_t i = 0; i < s.dim[0]; i++)
    for (int64_t k = 0; k < s.dim[1]; k++) d = fmax(d, fabs(tt_tensor_at(a, (int64_t[]){i, k}) - tt_tensor_at(b, (int64_t[]){i, k})));
  return d;
}

/* An input of the program, bound to a tensor of its own: its data. */
static void *bound_input(rt_instance *run, const rt_program *p, const char *name) {
  tt_error err = {0};
  int slot = rt_slot_find(p, name);
  cr_assert_geq(slot, 0, "the program has no input %s", name);
  tt_tensor *x = tt_tensor_new(p->slots[slot].dtype, &p->slots[slot].shape, &err);
  cr_assert_eq(rt_bind(run, name, x, &err), TT_OK, "%s", err.message);
  void *data = tt_tensor_data(x);
  tt_tensor_free(x);          /* the instance keeps it */
  return data;
}

typedef struct { tt_model *m; rt_program *p; rt_instance *run; int64_t *at; } stepper;

/* A compiled step on one batch of nine images. */
static stepper new_stepper(const char *backend, tt_compile_options o, double lr) {
  tt_error err = {0};
  stepper s = {.m = new_model(small, backend)};
  o.train = true;
  cr_assert_eq(tt_model_compile(s.m, TT_F32, &TT_SHAPE(9, 1, 6, 6), true, &o, &s.p, &err), TT_OK, "%s", err.message);
  s.run = rt_instance_new(s.p, tt_model_team(s.m, &err), &err);
  cr_assert_not_null(s.run, "%s", err.message);
  cr_assert_eq(rt_params_bind(tt_model_params(s.m), s.run, &err), TT_OK, "%s", err.message);
  tt_tensor *x = images(9);
  cr_assert_eq(rt_bind(s.run, "x", x, &err), TT_OK, "%s", err.message);
  tt_tensor_free(x);
  int32_t *y = bound_input(s.run, s.p, "y");
  for (int i = 0; i < 9; i++) y[i] = i % 3;
  *(double *)bound_input(s.run, s.p, "lr") = lr;
  *(uint64_t *)bound_input(s.run, s.p, "seed") = 5;
  s.at = bound_input(s.run, s.p, "step");
  return s;
}

static float step(stepper *s, int64_t i) {
  tt_error err = {0};
  *s->at = i;
  cr_assert_eq(rt_run(s->run, &err), TT_OK, "%s", err.message);
  return *(float *)tt_tensor_data(rt_bound(s->run, "loss"));
}

static const float *param(stepper *s, const char *name) {
  rt_param *p = rt_params_find(tt_model_params(s->m), name);
  cr_assert_not_null(p, "no parameter %s", name);
  return tt_tensor_data(p->tensor);
}

static void free_stepper(stepper *s) {
  rt_instance_free(s->run);
  rt_program_free(s->p);
  tt_model_free(s->m);
}

/* Ten steps on one batch; the losses. */
static void steps(const char *backend, const char *optimizer, const char *hyper, double lr, double *losses) {
  stepper s = new_stepper(backend, (tt_compile_options){.optimizer = optimizer, .hyper = hyper}, lr);
  for (int64_t i = 0; i < 10; i++) {
    losses[i] = step(&s, i);
    cr_expect_leq(*(int64_t *)tt_tensor_data(rt_bound(s.run, "correct")), 9);
  }
  rt_param *state = rt_params_find(tt_model_params(s.m), !strcmp(optimizer, "sgd") ? "fc.weight.momentum_buffer" : "fc.weight.exp_avg");
  cr_assert_not_null(state);
  cr_expect(state->optimizer_state && !state->trainable);
  cr_expect(!rt_params_find(tt_model_params(s.m), "bn.running_mean")->trainable);
  cr_expect(rt_params_find(tt_model_params(s.m), "conv.weight")->trainable);
  free_stepper(&s);
}

/* What a program made of its parameters alone is made again when they have changed, however that came about: predictions are those of an instance
 * that has never run. */
static void expect_fresh(stepper *s, tt_tensor *x, float *before, const char *after) {
  tt_error err = {0};
  rt_program *p;
  cr_assert_eq(tt_model_compile(s->m, TT_F32, &TT_SHAPE(9, 1, 6, 6), false, NULL, &p, &err), TT_OK, "%s", err.message);
  cr_assert_gt(p->n_once, 0, "nothing is computed once");
  cr_assert_lt(p->n_once, p->n_steps);
  rt_instance *run = rt_instance_new(p, tt_model_team(s->m, &err), &err);
  cr_assert(run && rt_params_bind(tt_model_params(s->m), run, &err) == TT_OK && rt_bind(run, "x", x, &err) == TT_OK && rt_run(run, &err) == TT_OK, "%s", err.message);
  tt_tensor *y = predict(s->m, x), *again = predict(s->m, x);
  cr_expect_arr_eq(rt_tensor_read(y), rt_tensor_read(rt_bound(run, "logits")), 27 * sizeof(float), "stale after %s", after);
  cr_expect_arr_eq(rt_tensor_read(y), rt_tensor_read(again), 27 * sizeof(float), "another result at the second call after %s", after);
  cr_expect(memcmp(rt_tensor_read(y), before, 27 * sizeof(float)) != 0, "%s changed nothing", after);
  memcpy(before, rt_tensor_read(y), 27 * sizeof(float));
  tt_tensor_free(y), tt_tensor_free(again);
  rt_instance_free(run);
  rt_program_free(p);
}

Test(model, predicts_with_the_parameters_of_now) {
  stepper s = new_stepper("jit", (tt_compile_options){.optimizer = "sgd"}, 0.1);
  tt_tensor *x = images(9);
  float seen[27] = {0};
  char path[] = "/tmp/tt_fresh_XXXXXX";
  tt_error err = {0};
  int file = mkstemp(path);
  cr_assert_geq(file, 0);
  close(file);
  expect_fresh(&s, x, seen, "the first call");
  cr_assert_eq(tt_model_save(s.m, path, &err), TT_OK, "%s", err.message);
  for (int64_t i = 0; i < 3; i++) step(&s, i), expect_fresh(&s, x, seen, "a training step");
  cr_assert_eq(tt_model_load(s.m, path, &err), TT_OK, "%s", err.message);
  expect_fresh(&s, x, seen, "loading weights");
  float *w = tt_tensor_data(rt_params_find(tt_model_params(s.m), "conv.weight")->tensor);
  w[0] += 1;
  expect_fresh(&s, x, seen, "a write");
  w[0] += 1;                                             /* through a pointer got before the last run */
  tt_tensor_changed(rt_params_find(tt_model_params(s.m), "conv.weight")->tensor);
  expect_fresh(&s, x, seen, "a write that was told");
  tt_tensor *bn = tt_tensor_from(TT_F32, &TT_SHAPE(5), (float[]){2, 3, 4, 5, 6}, &err);
  cr_assert_eq(tt_tensor_copy(rt_params_find(tt_model_params(s.m), "bn.weight")->tensor, bn, &err), TT_OK);
  expect_fresh(&s, x, seen, "a copy");
  tt_tensor_free(bn), tt_tensor_free(x);
  unlink(path);
  free_stepper(&s);
}

/* A group without an optimizer stays as it is; another has its own. */
/* tt_loss takes the place of labels: there is no y; what it is called with adds up, is the loss to the last digits, and is what training makes less. */
static tt_val rebuilds(tt_val x, void *arg) {
  tt_val flat = tt_flatten(x, 1), y = tt_linear(tt_linear(flat, "down", 6), "up", tt_dim(flat, 1));
  tt_loss(tt_mse(y, flat, TT_MEAN));
  tt_loss(tt_mul(tt_mean(tt_square(y), TT_ALL, false), 0.01));
  return y;
}
Test(model, own_loss) {
  tt_error err = {0};
  tt_model *m = new_model(rebuilds, "jit");
  rt_program *p;
  cr_assert_eq(tt_model_compile(m, TT_F32, &TT_SHAPE(9, 1, 6, 6), TT_LABELS, &(tt_compile_options){.train = true}, &p, &err), TT_OK, "%s", err.message);
  cr_assert(rt_slot_find(p, "y") < 0 && rt_slot_find(p, "correct") < 0);
  rt_instance *run = rt_instance_new(p, tt_model_team(m, &err), &err);
  cr_assert_eq(rt_params_bind(tt_model_params(m), run, &err), TT_OK, "%s", err.message);
  tt_tensor *x = images(9), *y = predict(m, x);
  const float *want = tt_tensor_data(x), *got = tt_tensor_data(y);
  double loss = 0;
  for (int i = 0; i < 9 * 36; i++) loss += (pow((double)got[i] - (double)want[i], 2) + 0.01 * pow((double)got[i], 2)) / (9 * 36);
  cr_assert_eq(rt_bind(run, "x", x, &err), TT_OK, "%s", err.message);
  *(double *)bound_input(run, p, "lr") = 0.5;
  for (int i = 0; i < 60; i++) {
    cr_assert_eq(rt_run(run, &err), TT_OK, "%s", err.message);
    double now = (double)*(float *)tt_tensor_data(rt_bound(run, "loss"));
    if (i == 0) cr_expect_float_eq(now, loss, 1e-5 * loss, "the loss is %g, not %g", now, loss);
    if (i == 59) cr_expect_lt(now, 0.8 * loss, "from %g to %g", loss, now);
  }
  tt_tensor_free(x), tt_tensor_free(y);
  rt_instance_free(run), rt_program_free(p), tt_model_free(m);
}

/* Numbers from N(0, 1): those of the same formula here, other ones at each call of the trace, and as spread as they should be. */
static tt_val noise(tt_val x, void *arg) {
  tt_val both[2] = {tt_randn(x, tt_shape_of(x))};
  both[1] = tt_randn(x, tt_shape_of(x));
  return tt_stack(both, 2, 0);
}
static double word(int64_t stream, uint64_t i) { return (tt_random_half(0, 0, (uint64_t)stream, i) * 65536.0 + tt_random_half(0, 0, (uint64_t)stream + 1, i) + 0.5) / 4294967296.0; }
Test(model, normal_numbers) {
  tt_error err = {0};
  enum { N = 40000 };
  for (int jit = 0; jit < 2; jit++) {
    tt_model *m = new_model(noise, jit ? "jit" : "interp");
    tt_tensor *x = tt_tensor_new(TT_F64, &TT_SHAPE(N), &err), *y = tt_predict(m, x, &err);
    cr_assert(y, "%s", err.message);
    const double *v = tt_tensor_data(y);
    double sum[5] = {0};
    for (uint64_t i = 0; i < N; i++) {
      for (int call = 0; call < 2; call++) {
        double want = sqrt(-2 * log(word(4 * call, i))) * cos(2 * 3.14159265358979323846 * word(4 * call + 2, i)), got = v[(uint64_t)call * N + i];
        cr_assert_lt(fabs(got - want), 1e-12, "number %d of call %d is %g, not %g", (int)i, call, got, want);
      }
      for (int k = 1; k < 5; k++) sum[k] += pow(v[i], k) / N;
    }
    cr_expect(fabs(sum[1]) < 0.02 && fabs(sum[2] - 1) < 0.03 && fabs(sum[3]) < 0.06 && fabs(sum[4] - 3) < 0.25, "moments %g %g %g %g", sum[1], sum[2], sum[3], sum[4]);
    tt_tensor_free(x), tt_tensor_free(y), tt_model_free(m);
  }
}

Test(model, groups_of_parameters) {
  stepper s = new_stepper("interp", (tt_compile_options){.optimizer = "sgd", .groups = {{"conv", NULL, NULL}, {"fc", "adam", "beta1=0.5"}}}, 0.05);
  float conv = param(&s, "conv.weight")[0], bn = param(&s, "bn.weight")[0], fc = param(&s, "fc.weight")[0];
  step(&s, 0);
  cr_expect_eq(param(&s, "conv.weight")[0], conv);
  cr_expect_neq(param(&s, "bn.weight")[0], bn);
  cr_expect(fabsf(fabsf(param(&s, "fc.weight")[0] - fc) - 0.05f) < 1e-3f, "the first step of adam is lr");
  cr_expect_not_null(rt_params_find(tt_model_params(s.m), "fc.weight.exp_avg"));
  cr_expect_null(rt_params_find(tt_model_params(s.m), "bn.weight.exp_avg"));
  free_stepper(&s);
}

/* With clipping, lr = 1 and sgd, all parameters together move by the bound. */
Test(model, clipping) {
  static const char *const names[] = {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias"};
  static const int counts[] = {45, 5, 5, 5, 135, 3};
  stepper s = new_stepper("interp", (tt_compile_options){.clip_norm = 0.01, .gradients = true}, 1);
  float before[6][135];
  double moved = 0, norm = 0;
  for (int i = 0; i < 6; i++) memcpy(before[i], param(&s, names[i]), sizeof(float) * (size_t)counts[i]);
  step(&s, 0);
  for (int i = 0; i < 6; i++) {
    char name[64];
    snprintf(name, sizeof name, "grad.%s", names[i]);
    tt_tensor *g = rt_bound(s.run, name);
    cr_assert_not_null(g, "no output %s", name);
    for (int k = 0; k < counts[i]; k++) moved += pow(param(&s, names[i])[k] - before[i][k], 2), norm += pow(((float *)tt_tensor_data(g))[k], 2);
  }
  cr_expect(fabs(sqrt(moved) - 0.01) < 1e-4, "moved by %g", sqrt(moved));
  cr_expect_gt(sqrt(norm), 0.0099);
  free_stepper(&s);
}

Test(model, steps_in_the_interpreter) {
  double losses[10];
  steps("interp", "sgd", "momentum=0.9", 0.1, losses);
  cr_expect(losses[9] < 0.7 * losses[0], "from %g to %g", losses[0], losses[9]);
}

Test(model, jit_follows_the_interpreter) {
  double a[10], b[10];
  steps("interp", "adam", NULL, 0.01, a);
  steps("jit", "adam", NULL, 0.01, b);
  for (int i = 0; i < 10; i++) cr_expect(fabs(a[i] - b[i]) < 2e-3 * (1 + fabs(a[i])), "step %d: %.7g and %.7g", i, a[i], b[i]);
}

Test(model, predictions_of_both_backends) {
  tt_model *a = new_model(small, "interp"), *b = new_model(small, NULL);
  for (int64_t n = 1; n < 4; n++) {
    tt_tensor *x = images(n), *p = predict(a, x), *q = predict(b, x);
    cr_expect(distance(p, q) < 1e-5, "they differ by %g", distance(p, q));
    tt_tensor_free(x), tt_tensor_free(p), tt_tensor_free(q);
  }
  tt_model_free(a), tt_model_free(b);
}

/* A row's prediction does not depend on the batch it is in. */
Test(model, batches_of_any_size) {
  tt_error err = {0};
  tt_model *m = new_model(small, "interp");
  tt_tensor *x = images(20), *all = predict(m, x);
  for (int64_t n = 1; n <= 19; n++) {
    tt_tensor *part = tt_tensor_slice(x, 0, 0, n, 1, &err), *y = predict(m, part), *want = tt_tensor_slice(all, 0, 0, n, 1, &err);
    cr_expect_lt(distance(y, want), 1e-6);
    tt_tensor_free(part), tt_tensor_free(y), tt_tensor_free(want);
  }
  tt_tensor_free(x), tt_tensor_free(all);
  tt_model_free(m);
}

static void temporary(char *path, size_t size, const char *name) { snprintf(path, size, "%s/%s.%d.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name, (int)getpid()); }

/* Mixed precision: what the interpreter means by it the JIT does, on weights that stay f32; f32 and six bf16 products are elsewhere and as near as rounding. */
Test(model, products_of_bf16) {
  tt_error err = {0};
  tt_tensor *x = images(9), *y[4];
  static const tt_model_options how[] = {{.seed = 3, .backend = "interp", .products = "bf16"}, {.seed = 3, .products = "bf16"}, {.seed = 3}, {.seed = 3, .products = "bf16x6"}};
  for (int i = 0; i < 4; i++) {
    tt_model *m = tt_model_new(wider, NULL, &how[i], &err);       /* nothing before its product, whose rounding a last bit could turn */
    y[i] = predict(m, x);
    cr_expect_eq(tt_tensor_dtype(y[i]), TT_F32);
    cr_expect_eq(tt_tensor_dtype(rt_params_find(tt_model_params(m), "fc.weight")->tensor), TT_F32);
    tt_model_free(m);
  }
  cr_expect(distance(y[0], y[1]) < 1e-5, "interpreter and JIT are %g apart", distance(y[0], y[1]));
  cr_expect(distance(y[1], y[2]) > 1e-5 && distance(y[1], y[2]) < 0.05, "bf16 is %g from f32", distance(y[1], y[2]));
  cr_expect(distance(y[2], y[3]) < 1e-5, "bf16x6 is %g from f32", distance(y[2], y[3]));
  tt_model *m = tt_model_new(small, NULL, &(tt_model_options){.products = "f8"}, &err);
  cr_expect_null(tt_predict(m, x, &err));
  cr_expect(err.status == TT_INVALID && strstr(err.message, "bf16x6"), "%s", err.message);
  for (int i = 0; i < 4; i++) tt_tensor_free(y[i]);
  tt_tensor_free(x), tt_model_free(m);
}

Test(model, saved_and_loaded) {
  char path[300];
  tt_error err = {0};
  temporary(path, sizeof path, "tt_model_test");
  tt_model *a = new_model(small, "interp"), *before = tt_model_new(small, NULL, &(tt_model_options){.seed = 9, .backend = "interp"}, &err), *after = tt_model_new(small, NULL, &(tt_model_options){.seed = 9, .backend = "interp"}, &err);
  cr_expect_eq(tt_model_save(a, path, &err), TT_INVALID);
  err = (tt_error){0};
  tt_tensor *x = images(5), *want = predict(a, x), *other = predict(after, x);
  cr_expect_gt(distance(want, other), 1e-3);
  cr_assert_eq(tt_model_save(a, path, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_model_load(before, path, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_model_load(after, path, &err), TT_OK, "%s", err.message);
  tt_tensor *p = predict(before, x), *q = predict(after, x);
  cr_expect_eq(distance(p, want), 0);
  cr_expect_eq(distance(q, want), 0);
  tt_tensor_free(p), tt_tensor_free(q), tt_tensor_free(other), tt_tensor_free(want);

  tt_model *wrong = new_model(wider, "interp");          /* the same name in another shape */
  cr_assert_eq(tt_model_load(wrong, path, &err), TT_OK, "%s", err.message);
  cr_expect_null(tt_predict(wrong, x, &err));
  cr_expect(strstr(err.message, "\"fc.weight\" is f32[3,45] in the weights, but the model has f32[3,36]"), "%s", err.message);
  err = (tt_error){0};
  cr_expect_neq(tt_model_load(after, "/nowhere/at.all", &err), TT_OK);
  unlink(path);
  tt_tensor_free(x);
  tt_model_free(a), tt_model_free(before), tt_model_free(after), tt_model_free(wrong);
}

Test(model, missing_weight) {
  char path[300];
  tt_error err = {0};
  temporary(path, sizeof path, "tt_model_missing");
  tt_tensor *w = tt_tensor_new(TT_F32, &TT_SHAPE(3, 36), &err), *x = images(1);
  cr_assert_eq(tt_safetensors_save(path, &(tt_named_tensor){"fc.weight", w}, 1, NULL, 0, &err), TT_OK, "%s", err.message);
  tt_model *m = new_model(wider, "interp");
  cr_assert_eq(tt_model_load(m, path, &err), TT_OK, "%s", err.message);
  cr_expect_null(tt_predict(m, x, &err));
  cr_expect(strstr(err.message, "no tensor \"fc.bias\"") && strstr(err.message, "\n  at ") && strstr(err.message, "\n  fix: "), "%s", err.message);
  unlink(path);
  tt_tensor_free(w), tt_tensor_free(x);
  tt_model_free(m);
}

Test(model, another_size_of_input) {
  tt_error err = {0};
  tt_model *m = new_model(wider, "interp");
  tt_tensor *x = images(1), *y = predict(m, x), *big = tt_tensor_new(TT_F32, &TT_SHAPE(1, 1, 7, 7), &err);
  cr_expect_null(tt_predict(m, big, &err));
  cr_expect(strstr(err.message, "the parameter \"fc.weight\" is f32[3,49] here, but the model has it as f32[3,36]"), "%s", err.message);
  tt_tensor_free(x), tt_tensor_free(y), tt_tensor_free(big);
  tt_model_free(m);
}

Test(model, wrong_words) {
  tt_error err = {0};
  tt_model *m = tt_model_new(wider, NULL, &(tt_model_options){.backend = "gpu"}, &err);
  tt_tensor *x = images(1);
  cr_expect_null(tt_predict(m, x, &err));
  cr_expect(strstr(err.message, "there is no backend \"gpu\""), "%s", err.message);
  err = (tt_error){0};
  cr_expect_eq(tt_train(m, &(tt_train_options){.epochs = 1}, NULL, &err), TT_INVALID);
  cr_expect(strstr(err.message, "no data to train on"), "%s", err.message);
  tt_tensor_free(x);
  tt_model_free(m);
}

/* The first step of a model of the table on made-up images: loss and gradients. */
static stepper first_step(const model_info *info, model_config *c, const char *backend) {
  tt_error err = {0};
  stepper s = {.m = tt_model_new(info->function, c, &(tt_model_options){.name = info->name, .seed = 2, .backend = backend, .n_threads = 2}, &err)};
  cr_assert_not_null(s.m, "%s", err.message);
  tt_compile_options o = {.train = true, .gradients = true, .optimizer = info->optimizer, .hyper = info->hyper};
  tt_shape shape = info->context ? TT_SHAPE(4, 24) : TT_SHAPE(4, 3, 16, 16);
  cr_assert_eq(tt_model_compile(s.m, info->context ? TT_I32 : TT_F32, &shape, model_labels(info), &o, &s.p, &err), TT_OK, "%s", err.message);
  s.run = rt_instance_new(s.p, tt_model_team(s.m, &err), &err);
  cr_assert_not_null(s.run, "%s", err.message);
  cr_assert_eq(rt_params_bind(tt_model_params(s.m), s.run, &err), TT_OK, "%s", err.message);
  void *x = bound_input(s.run, s.p, "x");
  for (int i = 0; i < tt_shape_count(&shape); i++)
    if (info->context) ((int32_t *)x)[i] = (i * 7 + i / 24) % 10;
    else ((float *)x)[i] = (float)sin(0.37 * i + i % 5);
  int32_t *y = info->sample ? NULL : bound_input(s.run, s.p, "y");
  for (int i = 0; y && i < (info->context ? 4 * 24 : info->pixels ? 4 * 16 * 16 : 4); i++) y[i] = i % 10;
  *(double *)bound_input(s.run, s.p, "lr") = 0.01;
  if (rt_slot_find(s.p, "step") >= 0) bound_input(s.run, s.p, "step");
  if (rt_slot_find(s.p, "seed") >= 0) bound_input(s.run, s.p, "seed");
  cr_assert_eq(rt_run(s.run, &err), TT_OK, "%s", err.message);
  return s;
}

/* In f32. Of mobilenet's 200 000 corners of relu6 two fall the other way here, in channels 33 and 909 of block16.expand, which moves all that is before them: its gradients are compared
 * by the length of their difference (4% at most here), and number by number in f64 (models_test). */
Test(model, every_model_in_the_jit) {
  for (const model_info *info = model_table; info->name; info++) {
    if (info->context > 256) continue;       /* gpt2 is gpt with larger numbers */
    bool corners = !strcmp(info->name, "mobilenet");
    model_config c = {10};
    stepper a = first_step(info, &c, "interp"), b = first_step(info, &c, "jit");
    int compared = 0;
    for (uint32_t i = 0; i < a.p->n_slots; i++) {
      const rt_slot *slot = &a.p->slots[i];
      if (slot->kind != RT_OUTPUT || slot->dtype != TT_F32) continue;
      const float *p = tt_tensor_data(rt_bound(a.run, slot->name)), *q = tt_tensor_data(rt_bound(b.run, slot->name));
      double largest = 0, off = 0, length = 0, apart = 0;
      for (int64_t k = 0; k < tt_shape_count(&slot->shape); k++) {
        double d = (double)p[k] - q[k];
        largest = fmax(largest, fabs(p[k])), off = fmax(off, fabs(d)), length += (double)p[k] * p[k], apart += d * d;
      }
      if (corners) cr_expect(sqrt(apart) <= 0.1 * (sqrt(length) + 1e-3), "%s: %s is off by %g of %g", info->name, slot->name, sqrt(apart), sqrt(length));
      else cr_expect(off <= 2e-4 * (largest + 1e-3), "%s: %s is off by %g of %g", info->name, slot->name, off, largest);
      compared++;
    }
    cr_expect_gt(compared, 5);
    free_stepper(&a), free_stepper(&b);
  }
}

static tt_val classes10(tt_val x, void *arg) {
  (void)arg;
  return tt_linear(tt_relu(tt_linear(tt_flatten(x, 1), "fc1", 24)), "fc2", 10);
}

static void train(const char *backend) {
  tt_error err = {0};
  tt_fit_result r, again;
  tt_model *m = tt_model_new(classes10, NULL, &(tt_model_options){.seed = 1, .backend = backend}, &err);
  cr_assert_not_null(m);
  tt_train_options o = {.data = "shapes:640", .epochs = 2, .batch = 32, .lr = 0.02, .hyper = "momentum=0.9", .schedule = "cosine", .warmup = 5, .seed = 4};
  cr_expect_neq(tt_train(m, &(tt_train_options){.data = "nothing:at-all", .epochs = 1}, NULL, &err), TT_OK);
  cr_expect(strstr(err.message, "\n  fix: "), "%s", err.message);
  err = (tt_error){0};
  cr_assert_eq(tt_train(m, &o, &r, &err), TT_OK, "%s", err.message);
  cr_expect_eq(r.steps, 40);
  cr_assert_eq(tt_train(m, &o, &again, &err), TT_OK, "%s", err.message);
  cr_expect(again.loss < r.loss, "the loss went from %g to %g", r.loss, again.loss);
  tt_dataset *test = tt_dataset_open("shapes:640", false, &err);
  tt_eval_result e;
  cr_assert_eq(tt_test(m, test, 0, NULL, &e, &err), TT_OK, "%s", err.message);
  cr_expect_eq(e.samples, test->n);
  cr_expect(fabs(e.accuracy - again.test_accuracy) < 1e-12, "%g and %g", e.accuracy, again.test_accuracy);
  tt_dataset_free(test);
  tt_model_free(m);
}

Test(model, trains_in_the_interpreter) { train("interp"); }
Test(model, trains_in_the_jit) { train("jit"); }

/* -- Metrics of a data set ----------------------------------------------------------------------------------------------- */

static int label_comes_later(const float *v, int64_t n, int64_t label) {
  int before = 0;
  for (int64_t c = 0; c < n; c++) before += v[c] > v[label] || (v[c] == v[label] && c < label);
  return before;
}

/* What tt_metrics must say of labels that have been seen one by one. */
typedef struct { double top1, top5, nll; int64_t n, classes, confusion[64 * 64]; } expected;
static void see(expected *e, const float *v, int64_t label) {
  double sum = 0;
  int64_t best = 0, before = label_comes_later(v, e->classes, label);
  for (int64_t c = 0; c < e->classes; c++) sum += exp(v[c]), best = v[c] > v[best] ? c : best;
  e->top1 += before == 0, e->top5 += before < 5, e->nll += log(sum) - v[label], e->confusion[label * e->classes + best]++, e->n++;
}
static void equal_to(const expected *e, const tt_metrics *m, const char *what) {
  int64_t classes;
  const int64_t *confusion = tt_metrics_confusion(m, &classes);
  cr_assert(e->n > 0 && confusion && classes == e->classes, "%s", what);
  cr_expect(tt_metrics_value(m, "top1") == e->top1 / (double)e->n && tt_metrics_value(m, "top5") == e->top5 / (double)e->n, "%s: %g, %g", what, tt_metrics_value(m, "top1"), tt_metrics_value(m, "top5"));
  cr_expect(fabs(tt_metrics_value(m, "perplexity") / exp(e->nll / (double)e->n) - 1) < 1e-6, "%s: %g", what, tt_metrics_value(m, "perplexity"));
  cr_expect(!memcmp(confusion, e->confusion, sizeof *confusion * (size_t)(classes * classes)), "%s", what);
}

/* The last of its three batches of 50 is not full. */
Test(model, metrics_of_images_count_each_once) {
  tt_error err = {0};
  tt_fit_result r;
  tt_eval_result e;
  static expected want;
  tt_metrics *m = tt_metrics_new("top1,top5, perplexity ,confusion", &err), *again = tt_metrics_new("top5", &err);
  tt_model *net = tt_model_new(classes10, NULL, &(tt_model_options){.seed = 1}, &err);
  cr_assert(m && again && isnan(tt_metrics_value(m, "top1")) && isnan(tt_metrics_value(NULL, "top1")), "%s", err.message);
  cr_assert_eq(tt_train(net, &(tt_train_options){.data = "shapes:640", .epochs = 3, .batch = 50, .lr = 0.05, .hyper = "momentum=0.9", .metrics = m}, &r, &err), TT_OK, "%s", err.message);
  tt_dataset *test = tt_dataset_open("shapes:640", false, &err);
  tt_loader *l = tt_loader_new(test, &(tt_loader_options){.batch = 50, .n_threads = 1}, &err);
  want = (expected){.classes = 10};
  for (int b = 0; b < 3; b++) {
    tt_batch batch;
    cr_assert_eq(tt_loader_next(l, &batch, &err), TT_OK);
    tt_tensor *y = tt_predict(net, batch.x, &err);
    for (int64_t i = 0; i < batch.count; i++) see(&want, (const float *)rt_tensor_read(y) + 10 * i, ((const int32_t *)rt_tensor_read(batch.y))[i]);
    tt_tensor_free(y);
  }
  cr_assert_eq(want.n, 128);
  equal_to(&want, m, "images, tt_train");
  cr_expect(tt_metrics_value(m, "top1") == r.test_accuracy && fabs(log(tt_metrics_value(m, "perplexity")) - r.test_loss) < 1e-9);
  cr_assert_eq(tt_test(net, test, 7, again, &e, &err), TT_OK, "%s", err.message);
  cr_expect(tt_metrics_value(again, "top5") == tt_metrics_value(m, "top5") && isnan(tt_metrics_value(again, "top1")));
  tt_loader_free(l), tt_dataset_free(test), tt_metrics_free(m), tt_metrics_free(again), tt_model_free(net);
}

/* A text of which a part is to be guessed: labels of -1 count for nothing. */
Test(model, metrics_of_a_text_leave_out_what_is_not_asked) {
  tt_error err = {0};
  static expected want;
  const model_info *info = model_find("charlstm");
  tt_tokenizer *tokenizer = NULL;
  tt_dataset *train = NULL, *test = NULL;
  cr_assert_eq(tt_text_open("sentences:150", &(tt_text_options){.context = 32, .masked = 0.3}, &tokenizer, &train, &test, &err), TT_OK, "%s", err.message);
  model_config arg = {.classes = test->n_classes};
  tt_model *net = tt_model_new(info->function, &arg, NULL, &err);
  tt_metrics *m = tt_metrics_new("confusion,perplexity,top5,top1", &err);
  tt_eval_result e;
  cr_assert_eq(tt_test(net, test, 3, m, &e, &err), TT_OK, "%s", err.message);
  tt_loader *l = tt_loader_new(test, &(tt_loader_options){.batch = 3, .n_threads = 1}, &err);
  want = (expected){.classes = test->n_classes};
  for (int64_t b = 0; b < tt_loader_batches(l); b++) {
    tt_batch batch;
    cr_assert_eq(tt_loader_next(l, &batch, &err), TT_OK);
    tt_tensor *y = tt_predict(net, batch.x, &err);
    const int32_t *labels = rt_tensor_read(batch.y);
    for (int64_t i = 0; i < batch.count * 32; i++)
      if (labels[i] >= 0) see(&want, (const float *)rt_tensor_read(y) + want.classes * i, labels[i]);
    tt_tensor_free(y);
  }
  cr_expect_lt(want.n, test->n * 20);
  equal_to(&want, m, "text");
  cr_expect(fabs(log(tt_metrics_value(m, "perplexity")) - e.loss) < 1e-5, "%g and %g", tt_metrics_value(m, "perplexity"), e.loss);
  tt_loader_free(l), tt_dataset_free(train), tt_dataset_free(test), tt_tokenizer_free(tokenizer), tt_metrics_free(m), tt_model_free(net);
}

/* Of equal scores the first comes first, as in tt_topk_correct; NaN is no right answer; names and sizes that are wrong are said. */
Test(model, metrics_of_ties_and_nan) {
  tt_error err = {0};
  tt_metrics *m = tt_metrics_new("top1,top5,confusion", &err);
  static const double scores[][6] = {{1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1}, {0, NAN, 0, 9, 0, 0}, {0, NAN, 0, 9, 0, 0}};
  static const int64_t labels[] = {0, 5, 1, 3};
  for (int round = 0; round < 2; round++) {                    /* each evaluation begins anew */
    cr_assert_eq(rt_metrics_begin(m, 6, &err), TT_OK);
    for (int i = 0; i < 4; i++) {
      memcpy(rt_metrics_scores(m), scores[i], sizeof scores[i]);
      rt_metrics_add(m, labels[i]);
    }
    int64_t n, all = 0;
    const int64_t *c = tt_metrics_confusion(m, &n);
    for (int64_t i = 0; i < n * n; i++) all += c[i];
    cr_expect(tt_metrics_value(m, "top1") == 0.25 && tt_metrics_value(m, "top5") == 0.5, "%g, %g", tt_metrics_value(m, "top1"), tt_metrics_value(m, "top5"));
    cr_expect(n == 6 && all == 4 && c[0] == 1 && c[5 * 6] == 1 && c[6 + 1] == 1 && c[3 * 6 + 1] == 1);
  }
  cr_expect_eq(rt_metrics_begin(m, 3, &err), TT_INVALID);
  cr_expect(strstr(err.message, "top5 wants 5 classes, but the model has 3"), "%s", err.message);
  cr_expect_eq(rt_metrics_begin(m, 5000, &err), TT_INVALID);
  tt_metrics_free(m);
  for (int i = 0; i < 5; i++) {
    err = (tt_error){0};
    cr_expect_null(tt_metrics_new((const char *[]){"", "top2", "top1,", "top1 top5", "top1,,top5"}[i], &err));
    cr_expect(strstr(err.message, "fix: name some of top1, top5, perplexity, confusion"), "%s", err.message);
  }
}

static tt_val normed(tt_val x, void *arg) {
  (void)arg;
  return tt_linear(tt_relu(tt_batch_norm(tt_linear(tt_flatten(x, 1), "fc1", 24), "bn")), "fc2", 10);
}

/* Training that stops after 25 of 40 steps and goes on in another process's place gives the same bits. */
static void resumes(tt_train_options o) {
  char dir[300];
  tt_error err = {0};
  temporary(dir, sizeof dir, "tt_model_resume");
  o.data = "shapes:640", o.epochs = 2, o.batch = 32, o.lr = 0.02, o.seed = 4;
  tt_train_options first = o, rest = o;
  first.checkpoint = rest.checkpoint = dir;
  first.max_steps = 25;
  rest.resume = true;
  const tt_model_options with = {.seed = 1, .backend = "jit"};
  tt_model *whole = tt_model_new(normed, NULL, &with, &err), *a = tt_model_new(normed, NULL, &with, &err), *b = tt_model_new(normed, NULL, &with, &err);
  cr_assert_eq(tt_train(whole, &o, NULL, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_train(a, &first, NULL, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_train(b, &rest, NULL, &err), TT_OK, "%s", err.message);
  for (int i = 0; i < rt_params_count(tt_model_params(whole)); i++) {
    rt_param *p = rt_params_at(tt_model_params(whole), i), *q = rt_params_find(tt_model_params(b), p->name);
    tt_shape shape = tt_tensor_shape(p->tensor);
    cr_assert_not_null(q);
    cr_expect(!memcmp(tt_tensor_data(p->tensor), tt_tensor_data(q->tensor), (size_t)tt_shape_count(&shape) * sizeof(float)), "%s differs", p->name);
  }
  rest.lr = 0.03;          /* not the run that was begun */
  cr_expect_neq(tt_train(b, &rest, NULL, &err), TT_OK);
  cr_expect(strstr(err.message, "\n  fix: "), "%s", err.message);
  char command[400];
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  cr_expect_eq(system(command), 0);
  tt_model_free(whole), tt_model_free(a), tt_model_free(b);
}

Test(model, resumed_training) {
  resumes((tt_train_options){.optimizer = "adam"});
  resumes((tt_train_options){.optimizer = "adamw", .ema = 0.9, .no_decay_norm_bias = true, .schedule = "plateau", .gamma = 0.5, .threshold = 0.9});
  resumes((tt_train_options){.optimizer = "muon", .ema = 0.9, .groups = {{"ndim!=2", "adamw", "lr_scale=0.1"}}, .warmup = 30});
}

/* What is tested, saved and left are the running means; a checkpoint has both. */
Test(model, running_means_are_tested_and_saved) {
  tt_error err = {0};
  tt_fit_result r, plain;
  tt_model *m = tt_model_new(normed, NULL, &(tt_model_options){.seed = 1}, &err), *raw = tt_model_new(normed, NULL, &(tt_model_options){.seed = 1}, &err);
  tt_train_options o = {.data = "shapes:640", .epochs = 2, .batch = 32, .lr = 0.05, .seed = 4, .max_steps = 33};
  cr_assert_eq(tt_train(raw, &o, &plain, &err), TT_OK, "%s", err.message);
  o.ema = 0.9;
  cr_assert_eq(tt_train(m, &o, &r, &err), TT_OK, "%s", err.message);
  cr_expect(fabs(r.loss - plain.loss) < 1e-5 && fabs(r.test_loss - plain.test_loss) > 1e-3, "training goes by the weights themselves, tests by their means: %.9g, %.9g and %.9g, %.9g", r.loss, plain.loss, r.test_loss, plain.test_loss);
  int means = 0;
  for (int i = 0; i < rt_params_count(tt_model_params(raw)); i++) {
    rt_param *p = rt_params_at(tt_model_params(raw), i), *q = rt_params_find(tt_model_params(m), p->name);
    char name[100];
    snprintf(name, sizeof name, "%s.ema", p->name);
    rt_param *mean = rt_params_find(tt_model_params(m), name);
    tt_shape shape = tt_tensor_shape(p->tensor);
    size_t bytes = (size_t)tt_shape_count(&shape) * sizeof(float);
    cr_assert_not_null(mean, "no %s", name);
    cr_expect(!memcmp(rt_tensor_read(mean->tensor), rt_tensor_read(q->tensor), bytes) && memcmp(rt_tensor_read(p->tensor), rt_tensor_read(q->tensor), bytes), "%s", name);
    means++;
  }
  cr_expect_eq(means, 8);
  tt_dataset *test = tt_dataset_open("shapes:640", false, &err);
  tt_eval_result e;
  cr_assert_eq(tt_test(m, test, 32, NULL, &e, &err), TT_OK, "%s", err.message);
  cr_expect(e.loss == r.test_loss && e.accuracy == r.test_accuracy);
  /* Who loads the checkpoint has the means too, unless the weights themselves are asked for; before the first step there are no means. */
  char dir[300], path[400], command[400];
  temporary(dir, sizeof dir, "tt_model_means");
  snprintf(path, sizeof path, "%s/checkpoint.safetensors", dir), snprintf(command, sizeof command, "rm -rf '%s'", dir);
  o.checkpoint = dir;
  for (int64_t steps = 33; steps > 0; steps -= 32) {
    tt_model *trained = tt_model_new(normed, NULL, &(tt_model_options){.seed = 1}, &err), *of_checkpoint = tt_model_new(normed, NULL, NULL, &err), *themselves = tt_model_new(normed, NULL, &(tt_model_options){.no_ema = true}, &err);
    o.max_steps = steps == 1 ? 1 : 33, o.stop = steps == 1 ? &(volatile int){1} : NULL;
    cr_assert_eq(tt_train(trained, &o, &r, &err), steps == 1 ? TT_INTERRUPTED : TT_OK, "%s", err.message);
    err = (tt_error){0};
    tt_eval_result of_means, of_weights;
    cr_assert(tt_model_load(of_checkpoint, path, &err) == TT_OK && tt_model_load(themselves, path, &err) == TT_OK, "%s", err.message);
    cr_assert(tt_test(of_checkpoint, test, 32, NULL, &of_means, &err) == TT_OK && tt_test(themselves, test, 32, NULL, &of_weights, &err) == TT_OK, "%s", err.message);
    if (steps > 1) cr_expect(of_means.loss == e.loss && fabs(of_weights.loss - plain.test_loss) < 1e-5 && of_weights.loss != e.loss, "%.9g and %.9g, %.9g and %.9g", of_means.loss, e.loss, of_weights.loss, plain.test_loss);
    else cr_expect(of_means.loss == of_weights.loss && isfinite(of_means.loss));
    tt_model_free(trained), tt_model_free(of_checkpoint), tt_model_free(themselves);
    cr_expect_eq(system(command), 0);
  }
  o.checkpoint = NULL, o.stop = NULL;
  tt_dataset_free(test);
  o.ema = 1;
  cr_expect_eq(tt_train(m, &o, &r, &err), TT_INVALID);
  cr_expect(strstr(err.message, "give ema a number below 1"), "%s", err.message);
  tt_model_free(m), tt_model_free(raw);
}
