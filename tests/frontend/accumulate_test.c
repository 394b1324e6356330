/* accumulate_test.c: N batches summed into one update are the batch N times as large: to rounding in f64, for several optimizers and with
 * clipping; through tt_train with the same images in the same order, resumed from a checkpoint to the same bits; a warning where statistics
 * are taken batch by batch. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/models/models.h"

static tt_val net(tt_val x, void *arg) {
  x = tt_max_pool2d(tt_relu(tt_conv2d(x, "c1", 6, 3, .padding = 1)), 2);
  return tt_linear(tt_tanh(tt_linear(tt_flatten(x, 1), "fc1", 12)), "fc2", 10);
}

static void fill(tt_tensor *t, int64_t first) {
  tt_shape s = tt_tensor_shape(t);
  int64_t n = tt_shape_count(&s);
  for (int64_t k = 0; k < n; k++) {
    if (tt_tensor_dtype(t) == TT_F64) ((double *)tt_tensor_data(t))[k] = (double)(((first * n / s.dim[0] + k) * 7919) % 1000) / 500 - 1;
    if (tt_tensor_dtype(t) == TT_I32) ((int32_t *)tt_tensor_data(t))[k] = (int32_t)((first + k) * 3 % 10);
  }
}

static void set(rt_instance *x, const char *name, double number, tt_error *err) {
  int i = rt_slot_find(rt_instance_program(x), name);
  if (i < 0) return;
  tt_tensor *t = tt_tensor_new(rt_instance_program(x)->slots[i].dtype, &(tt_shape){0}, err);
  if (tt_tensor_dtype(t) == TT_F64) *(double *)tt_tensor_data(t) = number;
  else *(int64_t *)tt_tensor_data(t) = (int64_t)number;
  cr_assert_eq(rt_bind(x, name, t, err), TT_OK, "%s", err->message);
  tt_tensor_free(t);
}

/* A model after 3 updates over `images` images each, `n` batches an update. */
static tt_model *updated(const tt_compile_options *options, int64_t images, int n, const char *backend) {
  tt_error err = {0};
  tt_model *m = tt_model_new(net, NULL, &(tt_model_options){.seed = 5, .n_threads = 2, .backend = backend}, &err);
  tt_shape s = TT_SHAPE(images / n, 2, 8, 8);
  rt_program *p[2] = {NULL, NULL};
  rt_instance *x[2] = {NULL, NULL};
  tt_compile_options o = *options;
  o.train = true, o.accumulate = n;
  for (int i = 0; i < (n > 1 ? 2 : 1); i++) {
    o.collect = i == 1;
    cr_assert_eq(tt_model_compile(m, TT_F64, &s, true, &o, &p[i], &err), TT_OK, "%s", err.message);
    x[i] = rt_instance_new_over(p[i], tt_model_team(m, &err), i ? x[0] : NULL, &err);
    cr_assert(x[i] && rt_params_bind(tt_model_params(m), x[i], &err) == TT_OK, "%s", err.message);
  }
  for (int batch = 0; batch < 3 * n; batch++) {
    rt_instance *r = x[(batch + 1) % n != 0];
    int64_t first = batch * s.dim[0];
    tt_tensor *image = tt_tensor_new(TT_F64, &s, &err), *label = tt_tensor_new(TT_I32, &TT_SHAPE(s.dim[0]), &err);
    fill(image, first), fill(label, first);
    cr_assert(rt_bind(r, "x", image, &err) == TT_OK && rt_bind(r, "y", label, &err) == TT_OK, "%s", err.message);
    set(r, "lr", 0.05, &err), set(r, "step", batch, &err);
    cr_assert_eq(rt_run(r, &err), TT_OK, "%s", err.message);
    tt_tensor_free(image), tt_tensor_free(label);
  }
  for (int i = 1; i >= 0; i--) rt_instance_free(x[i]), rt_program_free(p[i]);
  return m;
}

static double difference(tt_model *a, tt_model *b) {
  double most = 0;
  rt_params *p = tt_model_params(a), *q = tt_model_params(b);
  for (int i = 0; i < rt_params_count(p); i++) {
    rt_param *x = rt_params_at(p, i), *y = rt_params_find(q, x->name);
    cr_assert(y, "%s", x->name);
    tt_shape s = tt_tensor_shape(x->tensor);
    for (int64_t k = 0; k < tt_shape_count(&s); k++) {
      double u = tt_tensor_dtype(x->tensor) == TT_F64 ? ((double *)tt_tensor_data(x->tensor))[k] : (double)((float *)tt_tensor_data(x->tensor))[k];
      double v = tt_tensor_dtype(y->tensor) == TT_F64 ? ((double *)tt_tensor_data(y->tensor))[k] : (double)((float *)tt_tensor_data(y->tensor))[k];
      cr_assert(isfinite(u) && isfinite(v));
      most = fmax(most, fabs(u - v));
    }
  }
  return most;
}

Test(accumulate, equals_the_large_batch_in_f64) {
  static const tt_compile_options cases[] = {
    {.optimizer = "sgd", .hyper = "momentum=0.9, weight_decay=1e-3"}, {.optimizer = "sgd", .clip_norm = 0.2}, {.optimizer = "adamw"}, {.optimizer = "adam", .clip_norm = 0.1},
    {.optimizer = "sgd", .groups = {{"fc1", NULL, NULL}, {"c1", "adam", NULL}}}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_model *large = updated(&cases[i], 24, 1, "jit");
    for (int n = 2; n <= 6; n += i ? 4 : 1) {
      if (n == 5) continue;
      tt_model *small = updated(&cases[i], 24, n, n == 3 ? "interp" : "jit");
      double d = difference(large, small);
      cr_expect_leq(d, 1e-10, "case %zu, %d batches: %g", i, n, d);
      tt_model_free(small);
    }
    tt_model_free(large);
  }
}

static tt_model *trained(tt_model_fn *f, tt_train_options o, tt_fit_result *r) {
  static model_config c = {.classes = 10};
  tt_error err = {0};
  tt_model *m = tt_model_new(f, &c, &(tt_model_options){.seed = 5, .n_threads = 2}, &err);
  o.data = "shapes:200", o.epochs = o.epochs ? o.epochs : 2, o.lr = 0.05, o.seed = 9;
  cr_assert_eq(tt_train(m, &o, r, &err), TT_OK, "%s", err.message);
  return m;
}

/* 200 images: 6 updates of 32 an epoch either way; the last 8 images are left out. */
Test(accumulate, trains_as_the_large_batch) {
  tt_fit_result a, b;
  tt_model *large = trained(net, (tt_train_options){.batch = 32, .augment = {.flip = true, .crop = 2}}, &a), *small = trained(net, (tt_train_options){.batch = 8, .accumulate = 4, .augment = {.flip = true, .crop = 2}}, &b);
  cr_expect_eq(a.steps, 12);
  cr_expect_eq(b.steps, 12);
  cr_expect_float_eq(a.loss, b.loss, 1e-4);
  cr_expect_float_eq(a.train_accuracy, b.train_accuracy, 0.02);
  cr_expect_leq(difference(large, small), 1e-4, "%g", difference(large, small));
  cr_expect_null(tt_model_warning(small, 0));
  tt_model_free(large), tt_model_free(small);
}

/* 200 images in batches of 24 make 8 batches, two updates of 3 an epoch: two batches are left out, and the next epoch begins at its first. */
Test(accumulate, resumes_to_the_same_bits) {
  char dir[] = "/tmp/accumulate.XXXXXX", command[100];
  cr_assert(mkdtemp(dir));
  tt_fit_result r;
  tt_train_options o = {.batch = 24, .accumulate = 3, .epochs = 3};
  tt_model *whole = trained(net, o, &r);
  cr_expect_eq(r.steps, 6);
  o.checkpoint = dir, o.checkpoint_every = 1;
  for (int64_t stop = 1; stop <= 6; stop++) {
    o.max_steps = stop < 6 ? stop : 0, o.resume = stop > 1;
    tt_model *m = trained(net, o, &r);
    cr_expect_eq(r.steps, stop);
    if (stop == 6) cr_expect_eq(difference(whole, m), 0);
    tt_model_free(m);
  }
  tt_model_free(whole);
  snprintf(command, sizeof command, "rm -r %s", dir);
  cr_expect_eq(system(command), 0);
}

Test(accumulate, warns_of_batch_statistics) {
  tt_fit_result r;
  tt_model *m = trained(model_cnn, (tt_train_options){.batch = 16, .accumulate = 2, .epochs = 1}, &r);
  const char *text = tt_model_warning(m, 0);
  cr_assert(text && strstr(text, "statistics over each batch") && strstr(text, "cnn.c:"), "%s", text ? text : "no warning");
  cr_expect_null(tt_model_warning(m, 1));
  tt_model_free(m);
}

Test(accumulate, more_than_an_epoch_is_an_error) {
  tt_error err = {0};
  tt_model *m = tt_model_new(net, NULL, &(tt_model_options){.seed = 5}, &err);
  cr_expect_neq(tt_train(m, &(tt_train_options){.data = "shapes:64", .batch = 32, .accumulate = 3}, NULL, &err), TT_OK);
  cr_expect(strstr(err.message, "an update takes 3 batches, an epoch has 2"), "%s", err.message);
  tt_model_free(m);
}
