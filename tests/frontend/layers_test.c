/* layers_test.c: one table of all layers and losses, and what each of its rows goes through: gradients of first and second order against finite differences in f64, JIT
 * against interpreter, dumps that parse back to themselves, training with every optimizer, weights saved and loaded, and training that stops and goes on to the same bits.
 * A new layer of frontend/sequential.h without a row fails; a row is all that it takes. */
#include <criterion/criterion.h>

#include "frontend/frontend.h"

enum { B = 4, IMAGES = 24, C = 4, H = 6, CLASSES = 3, PIXELS = C * H * H };

/* What the layer is given, made of images [N,4,6,6]. */
typedef enum { IMAGE, VECTOR, ROWS, SEQUENCE, VOLUME, INDEX } form;
typedef struct { const char *name; form form; tt_layer layer; tt_loss_fn *loss; } row;

static tt_val formed(tt_val x, form f) {
  int64_t n = tt_dim(x, 0);
  tt_val flat = tt_flatten(x, 1);
  switch (f) {
  case VECTOR: return tt_linear(flat, "in", 8);
  case ROWS: return tt_reshape(x, TT_SHAPE(n, 12, 12));
  case SEQUENCE: return tt_reshape(x, TT_SHAPE(n, C, H * H));
  case VOLUME: return tt_reshape(x, TT_SHAPE(n, 2, 2, H, H));
  case INDEX: return tt_cast(tt_clamp(tt_add(tt_mul(tt_slice(flat, 1, 0, 10, 1), 3), 5), 0, 9), TT_I64);
  default: return x;
  }
}

/* ---- layers of two values, and those that only a function gives, as functions of one ---- */

static tt_val decoder(tt_val x, void *arg) {
  return tt_transformer_decoder(x, tt_slice(x, 1, 0, 5, 1), "block", 3, 7, .norm_first = arg != NULL, .causal = true, .activation = TT_ACT_SILU, .dropout = 0.1);
}
static tt_val cross_attention(tt_val x, void *arg) { return tt_multi_head_attention(x, tt_slice(x, 1, 3, TT_END, 1), "attend", 2, .no_bias = true); }
static tt_val grouped_attention(tt_val x, void *arg) {
  tt_val q = tt_transpose(tt_reshape(x, TT_SHAPE(tt_dim(x, 0), 12, 4, 3)), 1, 2), k = tt_slice(q, 1, 0, 2, 1);
  return tt_transpose(tt_f_attention(q, k, k, .causal = true), 1, 2);
}
static tt_val rotary(tt_val x, void *arg) { return tt_rotary_embedding(tt_reshape(x, TT_SHAPE(tt_dim(x, 0), 12, 3, 4))); }
static tt_val lstm(tt_val x, void *arg) { return tt_transpose(tt_lstm(tt_transpose(x, 0, 1), "lstm", 5, .layers = 2, .bidirectional = true).y, 0, 1); }
static tt_val gru(tt_val x, void *arg) { return tt_transpose(tt_gru(tt_transpose(x, 0, 1), "gru", 6).y, 0, 1); }
static tt_val rnn(tt_val x, void *arg) { return tt_transpose(tt_rnn(tt_transpose(x, 0, 1), "rnn", 6, .no_bias = true).y, 0, 1); }
static tt_val widen(tt_val x, void *arg) { return tt_gelu(tt_linear(x, "fc", tt_dim(x, -1)), true); }
static tt_val dropped(tt_val x, void *arg) { return tt_drop_path(x, 0.4); }

/* ---- losses of logits [N,3] and labels [N] ---- */

static tt_val hot(tt_val x, tt_val y) { return tt_one_hot(y, CLASSES, tt_dtype_of(x)); }
static tt_val first(tt_val x) { return tt_select(x, 1, 0); }
static tt_val sign(tt_val y) { return tt_where(tt_eq(y, 0), tt_full(y, tt_shape_of(y), 1), -1); }
static tt_val turned(tt_val x) { return tt_roll(x, TT_INTS(1), TT_AXES(0)); }
#define LOSSES(L) \
  L(cross_entropy, tt_cross_entropy(x, y, .label_smoothing = 0.1)) \
  L(cross_entropy_weighted, tt_cross_entropy(x, y, .weight = tt_add(tt_cast(tt_arange(x.trace, TT_I64, CLASSES), tt_dtype_of(x)), 1), .ignoring = true, .ignore_index = 1)) \
  L(cross_entropy_probabilities, tt_cross_entropy(x, tt_softmax(tt_mul(hot(x, y), 2), 1))) \
  L(nll, tt_nll(tt_log_softmax(x, 1), y)) \
  L(mse, tt_mse(x, hot(x, y), TT_MEAN)) \
  L(l1, tt_l1(x, hot(x, y), TT_SUM)) \
  L(huber, tt_huber(x, hot(x, y), 0.7, TT_MEAN)) \
  L(smooth_l1, tt_smooth_l1(x, hot(x, y), 0.5, TT_MEAN)) \
  L(binary_cross_entropy, tt_binary_cross_entropy(tt_sigmoid(x), hot(x, y), TT_MEAN)) \
  L(binary_cross_entropy_with_logits, tt_binary_cross_entropy_with_logits(x, hot(x, y), tt_full(x, TT_SHAPE(CLASSES), 0.5), tt_full(x, TT_SHAPE(CLASSES), 2), TT_MEAN)) \
  L(kl_div, tt_kl_div(tt_log_softmax(x, 1), tt_softmax(hot(x, y), 1), false, TT_BATCHMEAN)) \
  L(hinge_embedding, tt_hinge_embedding(first(x), sign(y), 1, TT_MEAN)) \
  L(cosine_embedding, tt_cosine_embedding(x, turned(x), sign(y), 0.2, TT_MEAN)) \
  L(triplet_margin, tt_triplet_margin(x, hot(x, y), turned(x), 1, 2, TT_MEAN)) \
  L(multi_margin, tt_multi_margin(x, y, 1, TT_MEAN)) \
  L(gaussian_nll, tt_gaussian_nll(x, hot(x, y), tt_add(tt_square(turned(x)), 0.1), true, 1e-6, TT_MEAN)) \
  L(poisson_nll, tt_poisson_nll(x, tt_mul(hot(x, y), 2), true, true, 1e-8, TT_MEAN)) \
  L(focal, tt_focal(x, y, 0.6, 2, TT_MEAN)) \
  L(focal_of_sigmoids, tt_focal(x, hot(x, y), 0.25, 2, TT_MEAN)) \
  L(contrastive, tt_contrastive(x, turned(x), tt_cast(tt_eq(y, 0), TT_I32), 2, TT_MEAN)) \
  L(info_nce, tt_info_nce(x, tt_add(turned(x), hot(x, y)), 0.3, true)) \
  L(nt_xent, tt_nt_xent(x, tt_add(x, hot(x, y)), 0.5)) \
  L(distillation, tt_distillation(x, tt_mul(hot(x, y), 3), 2, TT_MEAN)) \
  L(perplexity, tt_perplexity(x, y))
#define LOSS_FUNCTION(name, call) static tt_val loss_##name(tt_val x, tt_val y, void *arg) { return call; }
LOSSES(LOSS_FUNCTION)

#define LAYER(form_, ...) {#__VA_ARGS__, form_, .layer = __VA_ARGS__}
#define CALL(form_, f, arg) {#f, form_, .layer = TT_FUNCTION(f, arg)}
#define LOSS_ROW(name_, call) {#name_, VECTOR, .layer = TT_TANH, .loss = loss_##name_},
static const row rows[] = {
    LAYER(VECTOR, TT_LINEAR(5)), LAYER(ROWS, TT_LINEAR(5, .no_bias = true)), LAYER(SEQUENCE, TT_CONV1D(6, 3, .padding = 2, .dilation = 2, .groups = 2)),
    LAYER(IMAGE, TT_CONV2D(5, 3, .stride = 2, .padding = 1)), LAYER(IMAGE, TT_CONV2D(4, 3, .padding = 1, .groups = 4, .no_bias = true)),
    LAYER(VOLUME, TT_CONV3D(3, 2, .padding = 1)), LAYER(SEQUENCE, TT_CONV_TRANSPOSE1D(3, 2, .stride = 2)),
    LAYER(IMAGE, TT_CONV_TRANSPOSE2D(6, 3, .stride = 2, .padding = 1, .output_padding = 1, .groups = 2)),
    LAYER(IMAGE, TT_BATCH_NORM), LAYER(VECTOR, TT_BATCH_NORM), LAYER(SEQUENCE, TT_BATCH_NORM), LAYER(ROWS, TT_LAYER_NORM(1)), LAYER(IMAGE, TT_LAYER_NORM(3, .no_affine = true)),
    LAYER(IMAGE, TT_GROUP_NORM(2)), LAYER(VECTOR, TT_GROUP_NORM(4, .eps = 1e-3)), LAYER(IMAGE, TT_INSTANCE_NORM), LAYER(SEQUENCE, TT_INSTANCE_NORM), LAYER(ROWS, TT_RMS_NORM(1)),
    LAYER(INDEX, TT_EMBEDDING(10, 5)), LAYER(INDEX, TT_EMBEDDING_BAG(10, 5, TT_BAG_SUM)), LAYER(INDEX, TT_EMBEDDING_BAG(10, 5, TT_BAG_MEAN)), LAYER(INDEX, TT_EMBEDDING_BAG(10, 5, TT_BAG_MAX)),
    LAYER(VECTOR, TT_PRELU(1)), LAYER(IMAGE, TT_PRELU(4)), LAYER(ROWS, TT_SWIGLU(9)), LAYER(ROWS, TT_SELF_ATTENTION(5)), LAYER(ROWS, TT_MULTI_HEAD_ATTENTION(3, .causal = true)),
    LAYER(ROWS, TT_TRANSFORMER_ENCODER(2, 7)), LAYER(ROWS, TT_TRANSFORMER_ENCODER(3, 7, .norm_first = true, .causal = true, .activation = TT_ACT_GELU, .dropout = 0.1, .drop_path = 0.1, .no_bias = true)),
    CALL(ROWS, decoder, NULL), CALL(ROWS, decoder, "norm first"), CALL(ROWS, cross_attention, NULL), CALL(ROWS, grouped_attention, NULL), CALL(ROWS, rotary, NULL), CALL(ROWS, lstm, NULL), CALL(ROWS, gru, NULL), CALL(ROWS, rnn, NULL),
    LAYER(IMAGE, TT_PATCH_EMBEDDING(3, 5)), LAYER(IMAGE, TT_MAX_POOL2D(3, .stride = 2, .padding = 1)), LAYER(IMAGE, TT_AVG_POOL2D(2)), LAYER(IMAGE, TT_ADAPTIVE_AVG_POOL2D(4)),
    LAYER(IMAGE, TT_INTERPOLATE(4, 9, .mode = TT_BILINEAR)), LAYER(IMAGE, TT_INTERPOLATE(7, 5, .mode = TT_BICUBIC, .align_corners = true)), LAYER(IMAGE, TT_UPSAMPLE(2)),
    LAYER(IMAGE, TT_PIXEL_SHUFFLE(2)), LAYER(IMAGE, TT_PIXEL_UNSHUFFLE(3)), LAYER(IMAGE, TT_PAD(TT_PAD_CONSTANT, 1, 2, 0, 1)), LAYER(IMAGE, TT_PAD(TT_PAD_REPLICATE, 1, 2)),
    LAYER(IMAGE, TT_PAD(TT_PAD_REFLECT, 2, 1, 1, 1)), LAYER(IMAGE, TT_PAD(TT_PAD_CIRCULAR, 1, 3, 2, 0)), LAYER(IMAGE, TT_FLATTEN), LAYER(VECTOR, TT_DROPOUT(0.3)), CALL(ROWS, dropped, NULL),
    LAYER(VECTOR, TT_RELU), LAYER(VECTOR, TT_RELU6), LAYER(VECTOR, TT_LEAKY_RELU(0.1)), LAYER(VECTOR, TT_ELU(0.7)), LAYER(VECTOR, TT_SELU), LAYER(VECTOR, TT_GELU), LAYER(VECTOR, TT_GELU_TANH),
    LAYER(VECTOR, TT_SILU), LAYER(VECTOR, TT_MISH), LAYER(VECTOR, TT_SOFTPLUS), LAYER(VECTOR, TT_SIGMOID), LAYER(VECTOR, TT_LOG_SIGMOID), LAYER(VECTOR, TT_HARDSWISH), LAYER(VECTOR, TT_HARDSIGMOID),
    LAYER(VECTOR, TT_HARDTANH(-0.5, 0.8)), LAYER(VECTOR, TT_SOFTSIGN), LAYER(VECTOR, TT_TANH), LAYER(VECTOR, TT_TANHSHRINK), LAYER(VECTOR, TT_SOFTMAX), LAYER(VECTOR, TT_LOG_SOFTMAX),
    LAYER(VECTOR, TT_GLU(-1)), LAYER(IMAGE, TT_GLU(1)), CALL(VECTOR, widen, NULL), LAYER(ROWS, TT_RESIDUAL(widen, NULL, 0.2)),
    LOSSES(LOSS_ROW)};
enum { N_ROWS = sizeof rows / sizeof *rows };

static tt_val network(tt_val x, void *arg) {
  const row *r = arg;
  tt_val y = tt_sequential_at(TT_HERE, formed(x, r->form), &r->layer, 1);
  return tt_linear(tt_flatten(y, 1), "head", CLASSES);
}

Test(layers, every_layer_has_a_row) {
#define HAS(name) { bool found = false; for (int i = 0; i < N_ROWS; i++) found |= rows[i].layer.apply == tt_apply_##name; cr_expect(found, "no row of " #name); }
  TT_LAYERS(HAS)
}

/* ---- numbers ---- */

static double noise(const char *name, int64_t i) {
  uint64_t h = 1469598103934665603u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
  return (double)(tt_random_word(h, 0, 0, (uint64_t)i) >> 11) * 0x1p-20 - 1;
}

static uint8_t pixels[IMAGES * PIXELS], labels[IMAGES];
static tt_dataset images(void) {
  for (int i = 0; i < IMAGES; i++) {
    labels[i] = (uint8_t)(i % CLASSES);
    for (int k = 0; k < PIXELS; k++) pixels[i * PIXELS + k] = (uint8_t)(tt_random_word(5, 0, 0, (uint64_t)(i * PIXELS + k)) % 200 + (uint32_t)(k % CLASSES == i % CLASSES ? 50 : 0));
  }
  return (tt_dataset){.name = "made", .n = IMAGES, .channels = C, .height = H, .width = H, .n_classes = CLASSES, .pixels = pixels, .labels = labels,
                      .mean = {0.4f, 0.4f, 0.4f, 0.4f}, .std = {0.25f, 0.25f, 0.25f, 0.25f}};
}

/* ---- gradients ---- */

typedef struct { rt_program *p; rt_instance *run; } machine;
typedef struct { double loss, along, slope, bend; } values;

/* loss, its gradients g, and s = sum of g c over all; slope and bend are the derivatives of loss and s along d. */
static ir_graph *trace_gradients(const row *r, rt_params *params) {
  tt_trace *t = tt_trace_new("row", true);
  tt_error err = {0};
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(B, C, H, H)), y = tt_input(t, "y", TT_I32, TT_SHAPE(B)), out = network(x, (void *)r);
  tt_val loss = r->loss ? r->loss(out, y, NULL) : tt_cross_entropy(out, y), wrt[64] = {x}, g[64], h[64];
  const char *names[64] = {"x"};
  int n = 1;
  for (int i = 0; i < t->n_params; i++) {
    const trace_param *q = &t->params[i];
    tt_tensor *v = tt_tensor_new(q->dtype, &q->shape, &err);
    cr_assert_eq(q->dtype, TT_F64, "%s: %s is %s", r->name, q->name, tt_dtype_name(q->dtype));
    cr_assert_eq(tt_init_fill(q->init, q->name, 3, q->dtype, &q->shape, tt_tensor_data(v), &err), TT_OK, "%s", err.message);
    for (int64_t k = 0; k < tt_shape_count(&q->shape) && q->use == TT_TRAINED; k++) ((double *)tt_tensor_data(v))[k] += 0.1 * noise(q->name, k);
    cr_assert_eq(rt_params_add(params, q->name, v, q->use == TT_TRAINED, false, &err), TT_OK, "%s", err.message);
    if (q->use != TT_TRAINED) continue;
    cr_assert_lt(n, 64);
    names[n] = q->name, wrt[n++] = (tt_val){t, q->ref};
  }
  tt_grad(loss, wrt, n, g);
  tt_val s = tt_scalar(loss, 0), slope = s, bend = s;
  for (int pass = 0; pass < 2; pass++) {
    if (pass) tt_grad(s, wrt, n, h);
    for (int i = 0; i < n; i++) {
      tt_shape shape = tt_shape_of(wrt[i]);
      int64_t count = tt_shape_count(&shape);
      double *cs = malloc((size_t)count * sizeof *cs), *ds = malloc((size_t)count * sizeof *ds);
      for (int64_t k = 0; k < count; k++) cs[k] = noise(names[i], 1000 + k), ds[k] = noise(names[i], 50000 + k);
      tt_val direction = tt_constant(t, TT_F64, shape, ds);
      if (pass == 0) s = tt_add(s, tt_sum(tt_mul(g[i], tt_constant(t, TT_F64, shape, cs)), TT_ALL, false)), slope = tt_add(slope, tt_sum(tt_mul(g[i], direction), TT_ALL, false));
      else bend = tt_add(bend, tt_sum(tt_mul(h[i], direction), TT_ALL, false));
      free(cs), free(ds);
    }
  }
  tt_output(t, "loss", loss), tt_output(t, "along", s), tt_output(t, "slope", slope), tt_output(t, "bend", bend);
  for (int i = 0; i < n; i++) {
    char name[160];
    snprintf(name, sizeof name, "first.%s", names[i]), tt_output(t, name, g[i]);
    snprintf(name, sizeof name, "second.%s", names[i]), tt_output(t, name, h[i]);
  }
  ir_graph *graph = NULL;
  cr_assert_eq(tt_trace_finish(t, &graph, &err), TT_OK, "%s: %s", r->name, err.message);
  tt_trace_free(t);
  return graph;
}

static machine start(const ir_graph *g, const char *backend, rt_params *params, rt_team *team) {
  machine m = {0};
  tt_error err = {0};
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.backend = backend}, &m.p, &err), TT_OK, "%s", err.message);
  m.run = rt_instance_new(m.p, team, &err);
  cr_assert(m.run && rt_params_bind(params, m.run, &err) == TT_OK, "%s", err.message);
  for (uint32_t i = 0; i < m.p->n_slots; i++) {
    const rt_slot *s = &m.p->slots[i];
    if (s->kind != RT_INPUT) continue;
    tt_tensor *v = tt_tensor_new(s->dtype, &s->shape, &err);
    for (int64_t k = 0; k < tt_shape_count(&s->shape); k++)
      if (s->dtype == TT_F64) ((double *)tt_tensor_data(v))[k] = noise("x", k);
      else if (s->dtype == TT_I32) ((int32_t *)tt_tensor_data(v))[k] = (int32_t)(k % CLASSES);
    cr_assert_eq(rt_bind(m.run, s->name, v, &err), TT_OK, "%s", err.message);
    tt_tensor_free(v);
  }
  return m;
}

static void shift(machine *m, rt_params *params, double by) {
  double *x = tt_tensor_data(rt_bound(m->run, "x"));
  for (int64_t k = 0; k < B * PIXELS; k++) x[k] += by * noise("x", 50000 + k);
  for (int i = 0; i < rt_params_count(params); i++) {
    rt_param *p = rt_params_at(params, i);
    tt_shape s = tt_tensor_shape(p->tensor);
    for (int64_t k = 0; k < tt_shape_count(&s) && p->trainable; k++) ((double *)tt_tensor_data(p->tensor))[k] += by * noise(p->name, 50000 + k);
  }
}

static values evaluate(machine *m) {
  tt_error err = {0};
  cr_assert_eq(rt_run(m->run, &err), TT_OK, "%s", err.message);
#define AT(name) tt_tensor_at(rt_bound(m->run, name), NULL)
  return (values){AT("loss"), AT("along"), AT("slope"), AT("bend")};
#undef AT
}

static void gradients(const row *r, rt_team *team) {
  rt_params *params = rt_params_new();
  ir_graph *g = trace_gradients(r, params);
  machine interp = start(g, "interp", params, team), jit = start(g, "jit", params, team);
  const double step = 1e-6;
  values at = evaluate(&interp);
  evaluate(&jit);
  for (uint32_t i = 0; i < interp.p->n_slots; i++) {
    const rt_slot *s = &interp.p->slots[i];
    if (s->kind != RT_OUTPUT) continue;
    const double *a = rt_tensor_read(rt_bound(interp.run, s->name)), *b = rt_tensor_read(rt_bound(jit.run, s->name));
    double most = 0, off = 0;
    for (int64_t k = 0; k < tt_shape_count(&s->shape); k++) most = fmax(most, fabs(a[k])), off = fmax(off, isnan(b[k]) ? INFINITY : fabs(a[k] - b[k]));
    cr_expect(off <= 1e-9 * (1 + most), "%s: %s of the JIT is off by %g of %g", r->name, s->name, off, most);
  }
  shift(&interp, params, step);
  values up = evaluate(&interp);
  shift(&interp, params, -2 * step);
  values down = evaluate(&interp);
  double slope = (up.loss - down.loss) / (2 * step), bend = (up.along - down.along) / (2 * step);
  cr_expect(fabs(slope - at.slope) <= 1e-6 * (1 + fabs(slope)), "%s: the loss changes by %.9g along a direction, its gradient says %.9g", r->name, slope, at.slope);
  cr_expect(fabs(bend - at.bend) <= 1e-5 * (1 + fabs(bend)), "%s: the gradient changes by %.9g along a direction, the second one says %.9g", r->name, bend, at.bend);
  rt_instance_free(interp.run), rt_instance_free(jit.run), rt_program_free(interp.p), rt_program_free(jit.p);
  ir_graph_free(g);
  rt_params_free(params);
}

static void all_gradients(int part) {
  rt_team *team = rt_team_new(2, NULL);
  for (int i = part; i < N_ROWS; i += 2) gradients(&rows[i], team);
  rt_team_free(team);
}
Test(layers, gradients_of_both_orders) { all_gradients(0); }
Test(layers, gradients_of_both_orders_of_the_others) { all_gradients(1); }

/* ---- dumps ---- */

static void parses_back(const row *r, const char *stage, const ir_graph *g) {
  tt_error err = {0};
  char *text = ir_print(g);
  ir_graph *again = ir_parse(text, strlen(text), stage, &err);
  cr_assert(again, "%s, %s: %s", r->name, stage, err.message);
  char *second = ir_print(again);
  cr_expect(!strcmp(text, second), "%s: the dump of stage %s changes when it is read", r->name, stage);
  free(text), free(second);
  ir_graph_free(again);
}

static tt_model *model_of(const row *r, const char *backend) {
  tt_error err = {0};
  tt_model *m = tt_model_new(network, (void *)r, &(tt_model_options){.name = "row", .seed = 3, .backend = backend, .loss = r->loss, .n_threads = 2}, &err);
  cr_assert(m, "%s", err.message);
  return m;
}

static void watch(void *user, const char *pass, const ir_graph *g, double milliseconds) { parses_back(user, pass, g); }

Test(layers, dumps) {
  for (int i = 0; i < N_ROWS; i++) {
    tt_error err = {0};
    tt_model *m = model_of(&rows[i], NULL);
    ir_graph *g = NULL, *ready = NULL;
    cr_assert_eq(tt_model_trace(m, TT_F32, &TT_SHAPE(B, C, H, H), true, true, &g, &err), TT_OK, "%s: %s", rows[i].name, err.message);
    cr_assert_eq(compile_scheduled(g, &(tt_compile_options){.train = true, .optimizer = "adam", .watch = watch, .user = (void *)&rows[i]}, NULL, &ready, &err), TT_OK, "%s: %s", rows[i].name, err.message);
    ir_graph_free(g), ir_graph_free(ready);
    tt_model_free(m);
  }
}

/* ---- training ---- */

static void train(tt_model *m, const row *r, tt_train_options o, tt_fit_result *result) {
  tt_dataset d = images();
  tt_error err = {0};
  o.train = &d, o.batch = B, o.seed = 6, o.epochs = 3, o.groups[0] = (tt_param_group){"ndim!=2", "adamw", "lr_scale=0.1"};
  if (!o.optimizer || strcmp(o.optimizer, "muon")) o.groups[0] = (tt_param_group){0};
  o.test = r->loss ? NULL : &d;                         /* a loss that wants whole batches has them in training */
  cr_assert_eq(tt_train(m, &o, result, &err), TT_OK, "%s with %s: %s", r->name, o.optimizer, err.message);
}

static void optimizers(int part) {
  for (int i = part; i < N_ROWS; i += 2)
    for (const optim_info *o = optim_table; o->name; o++) {
      tt_model *m = model_of(&rows[i], NULL);
      tt_fit_result result;
      double before = 0, after = 0;
      train(m, &rows[i], (tt_train_options){.optimizer = o->name, .lr = 0.01, .max_steps = 3}, &result);          /* an odd number: two of lion may cancel */
      cr_expect(isfinite(result.loss) && result.steps == 3, "%s with %s: %lld steps to loss %g", rows[i].name, o->name, (long long)result.steps, result.loss);
      rt_param *head = rt_params_find(tt_model_params(m), "head.weight");
      tt_shape s = tt_tensor_shape(head->tensor);
      float *start = malloc((size_t)tt_shape_count(&s) * sizeof *start);
      cr_assert_eq(tt_init_fill(tt_init_kaiming_uniform(sqrt(5)), "head.weight", 3, TT_F32, &s, start, NULL), TT_OK);
      for (int64_t k = 0; k < tt_shape_count(&s); k++) before += fabs((double)start[k]), after += fabs((double)((const float *)rt_tensor_read(head->tensor))[k] - (double)start[k]);
      cr_expect(isfinite(after) && after > 1e-7 * before, "%s with %s: the weights move by %g of %g", rows[i].name, o->name, after, before);
      free(start);
      tt_model_free(m);
    }
}
Test(layers, every_optimizer) { optimizers(0); }
Test(layers, every_optimizer_of_the_others) { optimizers(1); }

static void expect_equal(const row *r, const char *what, tt_model *a, tt_model *b, bool state) {
  for (int i = 0; i < rt_params_count(tt_model_params(a)); i++) {
    rt_param *p = rt_params_at(tt_model_params(a), i), *q = rt_params_find(tt_model_params(b), p->name);
    if (p->optimizer_state && !state) continue;
    tt_shape s = tt_tensor_shape(p->tensor);
    cr_assert(q, "%s: %s has no %s", r->name, what, p->name);
    cr_expect(!memcmp(rt_tensor_read(p->tensor), rt_tensor_read(q->tensor), (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(p->tensor))), "%s: %s has another %s", r->name, what, p->name);
  }
}

/* Five steps at once; three and two more from a checkpoint; and the weights of the first in a file. */
Test(layers, checkpoints_and_weights) {
  char dir[] = "/tmp/tt_layers_XXXXXX", path[64], command[64];
  cr_assert(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/w.safetensors", dir);
  for (int i = 0; i < N_ROWS; i++) {
    tt_error err = {0};
    tt_fit_result result;
    tt_model *whole = model_of(&rows[i], NULL), *begun = model_of(&rows[i], NULL), *resumed = model_of(&rows[i], NULL), *loaded = model_of(&rows[i], NULL);
    tt_train_options o = {.optimizer = "adamw", .lr = 0.01, .ema = 0.9, .max_steps = 5};
    train(whole, &rows[i], o, &result);
    o.checkpoint = dir, o.max_steps = 3;
    train(begun, &rows[i], o, &result);
    o.resume = true, o.max_steps = 5;
    train(resumed, &rows[i], o, &result);
    expect_equal(&rows[i], "the resumed run", whole, resumed, true);
    cr_assert(tt_model_save(whole, path, &err) == TT_OK && tt_model_load(loaded, path, &err) == TT_OK, "%s: %s", rows[i].name, err.message);
    tt_tensor *x = tt_tensor_new(TT_F32, &TT_SHAPE(B, C, H, H), &err);
    for (int64_t k = 0; k < B * PIXELS; k++) ((float *)tt_tensor_data(x))[k] = (float)noise("x", k);
    tt_tensor *a = tt_predict(whole, x, &err), *b = tt_predict(loaded, x, &err);
    cr_assert(a && b, "%s: %s", rows[i].name, err.message);
    expect_equal(&rows[i], "the file", whole, loaded, false);
    cr_expect(!memcmp(rt_tensor_read(a), rt_tensor_read(b), B * CLASSES * sizeof(float)), "%s: loaded weights predict otherwise", rows[i].name);
    tt_tensor_free(x), tt_tensor_free(a), tt_tensor_free(b);
    tt_model_free(whole), tt_model_free(begun), tt_model_free(resumed), tt_model_free(loaded);
  }
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  cr_expect_eq(system(command), 0);
}
