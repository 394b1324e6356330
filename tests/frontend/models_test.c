/* Every model's training step in f64: JIT against interpreter, losses, gradients and parameters over three steps (in f32 a relu or a maximum that is nearly
 * tied may fall either way, which moves gradients by more than rounding does); and how many kernels a step is. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/models/models.h"

typedef struct { tt_model *model; rt_program *program; rt_instance *run; } side;

static side make(const model_info *info, model_config *config, const char *backend, int64_t batch) {
  tt_error err = {0};
  side s = {0};
  s.model = tt_model_new(info->function, config, &(tt_model_options){.name = info->name, .seed = 7, .backend = backend}, &err);
  cr_assert(s.model, "%s", err.message);
  tt_shape shape = TT_SHAPE(batch, info->channels, info->size, info->size);
  tt_compile_options o = {.backend = backend, .train = true, .optimizer = info->optimizer, .hyper = info->hyper, .gradients = true};
  cr_assert_eq(tt_model_compile(s.model, TT_F64, &shape, model_labels(info), &o, &s.program, &err), TT_OK, "%s: %s", info->name, err.message);
  s.run = rt_instance_new(s.program, tt_model_team(s.model, &err), &err);
  cr_assert(s.run && rt_params_bind(tt_model_params(s.model), s.run, &err) == TT_OK, "%s", err.message);
  return s;
}

static void bind(side *s, const char *name, tt_dtype t, const void *data) {
  tt_error err = {0};
  int slot = rt_slot_find(s->program, name);
  if (slot < 0) return;
  tt_tensor *x = tt_tensor_from(t, &s->program->slots[slot].shape, data, &err);
  cr_assert(x && rt_bind(s->run, name, x, &err) == TT_OK, "%s", err.message);
  tt_tensor_free(x);
}

/* Largest difference as a share of the largest value, of `least` at least. */
static double difference(tt_tensor *a, tt_tensor *b, double least) {
  tt_shape s = tt_tensor_shape(a);
  const double *p = tt_tensor_data(a), *q = tt_tensor_data(b);
  double most = 0, largest = least;
  for (int64_t i = 0; i < tt_shape_count(&s); i++) {
    double d = fabs(p[i] - q[i]);
    if (!(d <= most)) most = isnan(d) ? INFINITY : d;
    if (fabs(q[i]) > largest) largest = fabs(q[i]);
  }
  return most / largest;
}

/* TT_MODEL_STEPS: how many; under sanitizers the second runs the code of the first. */
static int n_steps(void) {
  const char *text = getenv("TT_MODEL_STEPS");
  return text && atoi(text) > 0 ? atoi(text) : 3;
}

static void step_and_gradients_of(const model_info *info, int64_t batch, double least) {
  const char *name = info->name;
  model_config config = {.classes = 10};
  side jit = make(info, &config, "jit", batch), interp = make(info, &config, "interp", batch);
  int64_t n = batch * info->channels * info->size * info->size;
  double *x = malloc((size_t)n * sizeof *x);
  int64_t n_labels = batch * (info->pixels ? info->size * info->size : 1);
  int32_t *y = malloc((size_t)n_labels * sizeof *y);
  double lr = info->lr, worst = 0;
  uint64_t seed = 5;
  int steps = n_steps();
  for (int64_t step = 0; step < steps; step++) {
    for (int64_t i = 0; i < n; i++) x[i] = (double)tt_random_word(11, (uint64_t)step, 0, (uint64_t)i) / 2147483648.0 - 1;
    for (int64_t i = 0; i < n_labels; i++) y[i] = (int32_t)(tt_random_word(12, (uint64_t)step, 0, (uint64_t)i) % 10);
    side *both[] = {&jit, &interp};
    for (int k = 0; k < 2; k++) {
      tt_error err = {0};
      bind(both[k], "x", TT_F64, x), bind(both[k], "y", TT_I32, y), bind(both[k], "lr", TT_F64, &lr), bind(both[k], "step", TT_I64, &step), bind(both[k], "seed", TT_U64, &seed);
      cr_assert_eq(rt_run(both[k]->run, &err), TT_OK, "%s", err.message);
    }
    for (uint32_t i = 0; i < jit.program->n_slots; i++) {
      const rt_slot *s = &jit.program->slots[i];
      if (s->kind != RT_OUTPUT || s->dtype != TT_F64) continue;
      double d = difference(rt_bound(jit.run, s->name), rt_bound(interp.run, s->name), least);
      cr_assert_lt(d, 1e-9, "%s, step %d: %s differs by %g of its largest", name, (int)step, s->name, d);
      if (d > worst) worst = d;
    }
  }
  rt_params *p = tt_model_params(jit.model), *q = tt_model_params(interp.model);
  for (int i = 0; i < rt_params_count(p); i++) {
    rt_param *a = rt_params_at(p, i), *b = rt_params_find(q, a->name);
    cr_assert(b, "the interpreter has no %s", a->name);
    double d = difference(a->tensor, b->tensor, least);
    cr_assert_lt(d, 1e-9, "%s: %s after %d steps differs by %g of its largest", name, a->name, steps, d);
  }
  printf("TABLE %-10s step, gradients and parameters over %d steps: JIT = interpreter to %.1e (bar 1e-9)\n", name, steps, worst);
  free(x), free(y);
  side *both[] = {&jit, &interp};
  for (int k = 0; k < 2; k++) rt_instance_free(both[k]->run), rt_program_free(both[k]->program), tt_model_free(both[k]->model);
}

static void step_and_gradients(const char *name, int64_t batch) { step_and_gradients_of(model_find(name), batch, 1e-6); }

/* The interpreter needs a minute for a step of the whole one. */
static tt_val small_vit(tt_val x, void *arg) { return model_vit_of(x, &(vit_config){.patch = 8, .width = 24, .depth = 2, .heads = 3, .head = 12, .classes = ((model_config *)arg)->classes}); }

Test(models, mlp) { step_and_gradients("mlp", 16); }
Test(models, lenet) { step_and_gradients("lenet", 8); }
Test(models, cnn) { step_and_gradients("cnn", 8); }
Test(models, resnet20) { step_and_gradients("resnet20", 4); }
/* A hundred batch norms' worth of rounding grows with each step that is large; at its own rate three steps make 1e-16 6e-9. What shifts all of a channel before
 * the next norm (block0.project.bn.bias) has the gradient 0 but for 3e-15 of rounding. */
Test(models, mobilenet, .timeout = 900) {
  model_info info = *model_find("mobilenet");
  info.lr = 1e-3;
  step_and_gradients_of(&info, 4, 1e-5);
}
Test(models, unet, .timeout = 900) { step_and_gradients("unet", 2); }
Test(models, vae, .timeout = 900) { step_and_gradients("vae", 4); }
Test(models, gan, .timeout = 900) { step_and_gradients("gan", 4); }
Test(models, capstone) { step_and_gradients("capstone", 4); }
Test(models, vit) {
  model_info info = *model_find("vit");
  info.function = small_vit;
  step_and_gradients_of(&info, 3, 1e-6);
}

static double *param(side *s, const char *name) { return tt_tensor_data(rt_params_find(tt_model_params(s->model), name)->tensor); }
static double output(side *s, const char *name) {
  tt_error err = {0};
  cr_assert_eq(rt_run(s->run, &err), TT_OK, "%s", err.message);
  return *(double *)tt_tensor_data(rt_bound(s->run, name));
}
/* d loss / d the first number of a parameter, by differences. */
static double slope(side *s, const char *name) {
  double *w = param(s, name), was = *w, h = 1e-7;
  *w = was + h;
  double above = output(s, "loss");
  *w = was - h;
  double below = output(s, "loss");
  *w = was;
  return (above - below) / (2 * h);
}
/* Each of the two learns from its own loss alone. With all logits far above 0 the generator's loss, softplus(-logit), is flat, and the slope of the sum is the discriminator's;
 * far below, what the discriminator says of generated images is flat, and real ones give each logit the slope -1. */
Test(models, gan_keeps_its_losses_apart) {
  static const char *const of_generator[] = {"generator.up2.bias", "generator.bn1.weight", "generator.fc.weight"};
  static const char *const of_discriminator[] = {"discriminator.fc.bias", "discriminator.norm.weight", "discriminator.conv1.weight"};
  model_config config = {.classes = 10};
  side s = make(model_find("gan"), &config, "jit", 4);
  double x[4 * 3 * 32 * 32], lr = 0;
  int64_t step = 0;
  uint64_t seed = 5;
  for (int i = 0; i < 4 * 3 * 32 * 32; i++) x[i] = sin(0.37 * i);
  bind(&s, "x", TT_F64, x), bind(&s, "lr", TT_F64, &lr), bind(&s, "step", TT_I64, &step), bind(&s, "seed", TT_U64, &seed);
  for (int high = 0; high < 2; high++)
    for (int i = 0; i < 3; i++) {
      char g[64], d[64];
      snprintf(g, sizeof g, "grad.%s", of_generator[i]), snprintf(d, sizeof d, "grad.%s", of_discriminator[i]);
      *param(&s, "discriminator.fc.bias") = high ? 40 : -40;
      double want = slope(&s, (high ? of_discriminator : of_generator)[i]), got = output(&s, high ? d : g);
      cr_expect(fabs(want) > 1e-5 && fabs(got - want) < 1e-3 * fabs(want) + 1e-6, "%s is %g, by differences %g", high ? d : g, got, want);
      if (high) cr_expect_lt(fabs(output(&s, g)), 1e-12, "%s learns from the discriminator's loss", g);
    }
  *param(&s, "discriminator.fc.bias") = -40;
  cr_expect_float_eq(output(&s, "grad.discriminator.fc.bias"), -1, 1e-9);
  rt_instance_free(s.run), rt_program_free(s.program), tt_model_free(s.model);
}

/* Predictions, with weights packed and transformed once: JIT against interpreter. Of f32, where Winograd's form is, to what that is allowed. */
static void predictions(const char *name) {
  static const struct { int64_t batch; tt_dtype t; double most; } cases[] = {{1, TT_F64, 1e-12}, {4, TT_F64, 1e-12}, {1, TT_F32, 2e-5}, {7, TT_F32, 2e-5}};
  const model_info *info = model_find(name);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_shape shape = TT_SHAPE(cases[i].batch, info->channels, info->size, info->size);
    tt_error err = {0};
    tt_tensor *x = tt_tensor_new(cases[i].t, &shape, &err), *y[2];
    cr_assert(x, "%s", err.message);
    for (int64_t k = 0; k < tt_shape_count(&shape); k++)
      if (cases[i].t == TT_F64) ((double *)tt_tensor_data(x))[k] = sin(0.37 * (double)k);
      else ((float *)tt_tensor_data(x))[k] = (float)sin(0.37 * (double)k);
    tt_model *m[2];
    for (int k = 0; k < 2; k++) {
      m[k] = tt_model_new(info->function, &(model_config){.classes = 10}, &(tt_model_options){.name = name, .seed = 7, .backend = k ? "interp" : "jit"}, &err);
      cr_assert(m[k] && (y[k] = tt_predict(m[k], x, &err)), "%s", err.message);
    }
    tt_tensor *wide[2] = {tt_tensor_cast(y[0], TT_F64, &err), tt_tensor_cast(y[1], TT_F64, &err)};
    cr_assert(wide[0] && wide[1], "%s", err.message);
    double d = difference(wide[0], wide[1], 1e-6);
    cr_expect_lt(d, cases[i].most, "%s of %d: JIT and interpreter differ by %g of the largest", name, (int)cases[i].batch, d);
    for (int k = 0; k < 2; k++) tt_tensor_free(y[k]), tt_tensor_free(wide[k]), tt_model_free(m[k]);
    tt_tensor_free(x);
  }
}

Test(predictions, mlp) { predictions("mlp"); }
Test(predictions, lenet) { predictions("lenet"); }
Test(predictions, cnn) { predictions("cnn"); }
Test(predictions, resnet20) { predictions("resnet20"); }
Test(predictions, mobilenet, .timeout = 900) { predictions("mobilenet"); }
Test(predictions, unet, .timeout = 900) { predictions("unet"); }
Test(predictions, vae, .timeout = 900) { predictions("vae"); }
Test(predictions, gan, .timeout = 900) { predictions("gan"); }

static int kernels_of(const char *name, int64_t batch) {
  const model_info *info = model_find(name);
  model_config config = {.classes = 10};
  tt_error err = {0};
  tt_model *m = tt_model_new(info->function, &config, NULL, &err);
  tt_dtype type;
  tt_shape shape = model_input(info, batch, &type);
  rt_program *p = NULL;
  tt_compile_options o = {.backend = "jit", .train = true, .optimizer = "sgd", .hyper = "momentum=0.9"};
  cr_assert_eq(tt_model_compile(m, info->context ? type : TT_F64, &shape, model_labels(info), &o, &p, &err), TT_OK, "%s", err.message);
  int n = (int)p->n_steps;
  rt_program_free(p);
  tt_model_free(m);
  return n;
}

typedef struct { const char *name; int64_t batch; int kernels; } step_size;

/* mlp: three layers forward (product, bias and relu in one); the loss with its softmax and the gradient of the logits, and one kernel with
 * its mean and the number of right answers; for the last two layers the gradient of their input, masked by relu; three weight gradients,
 * each with its update; three bias gradients with theirs.
 * Batch norm is three kernels forward (two sums in one pass, what follows from them for each channel, the pass that applies), and three
 * backward, of which the second updates weight and bias. Where a pool follows, the pass that applies keeps maxima and where they stand
 * alone, and the two that read the gradient put it there. What applies writes into the padded image that the convolution reads.
 * A convolution's weight gradient is partial sums of parts of the images; what adds them up has the update. */
Test(kernels, of_a_training_step) {
  static const step_size sizes[] = {{"mlp", 128, 12}, {"cnn", 64, 35}, {"resnet20", 64, 254}, {"mobilenet", 64, 589}, {"unet", 32, 141}, {"vae", 64, 58}, {"gan", 64, 77}, {"vit", 32, 234}, {"gpt", 4, 191}, {"bert", 16, 139}, {"charlstm", 32, 54}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int n = kernels_of(sizes[i].name, sizes[i].batch);
    printf("TABLE %s's training step is %d kernels\n", sizes[i].name, n);
    cr_expect_eq(n, sizes[i].kernels, "%s: %d kernels, not %d", sizes[i].name, n, sizes[i].kernels);
  }
}
