/* reference.c: reads another framework's cases, runs each in the interpreter (f64) and through the JIT (f32), and judges
 * |got - want| <= tolerance * max|want| of that tensor, NaN agreeing with NaN. A case is an op (outputs and gradients), an optimizer (a
 * trajectory of 100 steps), a schedule (50 rates) or a model (ten training steps). */
#include "reference.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ir/ir.h"
#include "../../passes/passes.h"
#include "../models/gpt.h"

typedef struct { const char *backend, *cpu; tt_dtype real; double op, model, optimizer; } mode;
static const mode modes[] = {{"interp", NULL, TT_F64, 1e-9, 1e-7, 1e-9}, {"jit", NULL, TT_F32, 1e-4, 2e-3, 1e-4}, {"jit", NULL, TT_F64, 1e-9, 1e-7, 1e-9}};
enum { MODES = sizeof modes / sizeof *modes };

typedef struct {
  const char *name, *op;
  tt_safetensors *file;
  json_t *attrs;
  rt_team *team;
  tt_error *err;
  char why[600];                    /* the first disagreement */
} job;

/* ---- comparing ---- */

static bool agree(job *j, const char *what, tt_tensor *got, tt_tensor *want, double tolerance) {
  tt_shape a = tt_tensor_shape(got), b = tt_tensor_shape(want);
  if (!tt_shape_equal(&a, &b) && !(tt_shape_count(&a) == 1 && tt_shape_count(&b) == 1)) {
    char ta[128], tb[128];
    snprintf(j->why, sizeof j->why, "%s is %s, not %s", what, tt_type_text(tt_tensor_dtype(got), &a, ta, sizeof ta), tt_type_text(tt_tensor_dtype(want), &b, tb, sizeof tb));
    return false;
  }
  int64_t n = tt_shape_count(&b), worst = -1;
  double largest = 0, most = 0;
  tt_tensor *x = tt_tensor_cast(got, TT_F64, j->err), *y = tt_tensor_cast(want, TT_F64, j->err);
  if (!x || !y) return false;
  const double *p = tt_tensor_data(x), *q = tt_tensor_data(y);
  for (int64_t i = 0; i < n; i++)
    if (fabs(q[i]) > largest && isfinite(q[i])) largest = fabs(q[i]);
  for (int64_t i = 0; i < n; i++) {
    if (p[i] == q[i] || (isnan(p[i]) && isnan(q[i]))) continue;
    double d = fabs(p[i] - q[i]);
    if (!(d <= most)) most = isnan(d) ? INFINITY : d, worst = i;
  }
  bool ok = worst < 0 || most <= tolerance * largest || (largest == 0 && most <= tolerance);
  if (!ok) snprintf(j->why, sizeof j->why, "%s[%lld] is %.17g, not %.17g (largest %.3g, tolerance %g)", what, (long long)worst, p[worst], q[worst], largest, tolerance);
  tt_tensor_free(x);
  tt_tensor_free(y);
  return ok;
}

static bool agree_with_file(job *j, const char *what, tt_tensor *got, double tolerance) {
  tt_tensor *want = tt_safetensors_get(j->file, what, j->err);
  bool ok = got && want && agree(j, what, got, want, tolerance);
  tt_tensor_free(want);
  return ok;
}

/* The bias of q, k, v one behind the other, without k's: a key's bias has no gradient, as softmax takes no notice of it, and in f32 AdamW makes
 * steps of what rounding leaves (PyTorch's own f32 misses its f64 by 5e-3 there). */
static bool agree_but_keys(job *j, const char *what, tt_tensor *got, double tolerance) {
  tt_tensor *want = tt_safetensors_get(j->file, what, j->err);
  bool ok = got && want;
  for (int third = 0; third < 3 && ok; third += 2) {
    int64_t n = tt_tensor_shape(want).dim[0] / 3;
    tt_tensor *a = tt_tensor_slice(got, 0, third * n, (third + 1) * n, 1, j->err), *b = tt_tensor_slice(want, 0, third * n, (third + 1) * n, 1, j->err);
    ok = a && b && agree(j, what, a, b, tolerance);
    tt_tensor_free(a), tt_tensor_free(b);
  }
  tt_tensor_free(want);
  return ok;
}

/* ---- a compiled graph with its data ---- */

typedef struct { rt_program *program; rt_instance *run; } machine;

static bool start(job *j, const mode *m, const ir_graph *g, const tt_compile_options *more, machine *out) {
  tt_compile_options o = more ? *more : (tt_compile_options){0};
  o.backend = m->backend, o.cpu = m->cpu;
  if (tt_compile(g, &o, &out->program, j->err) != TT_OK) return false;
  out->run = rt_instance_new(out->program, j->team, j->err);
  return out->run != NULL;
}
static void stop(machine *x) {
  rt_instance_free(x->run);
  rt_program_free(x->program);
}

/* Binds a tensor in the type that the slot wants. */
static bool bind_as(job *j, machine *x, const char *name, tt_tensor *t) {
  int slot = rt_slot_find(x->program, name);
  if (slot < 0) return true;                                       /* the graph does not need it */
  tt_tensor *c = tt_tensor_cast(t, x->program->slots[slot].dtype, j->err), *d = c ? tt_tensor_dense(c, j->err) : NULL;
  bool ok = d && rt_bind(x->run, name, d, j->err) == TT_OK;
  tt_tensor_free(c);
  tt_tensor_free(d);
  return ok;
}
static bool bind_number(job *j, machine *x, const char *name, double v) {
  tt_tensor *t = tt_tensor_from(TT_F64, &TT_SCALAR, &v, j->err);
  bool ok = t && bind_as(j, x, name, t);
  tt_tensor_free(t);
  return ok;
}

/* ---- ops ---- */

static bool starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* 1 right, 0 wrong, -1 not in the language. */
static int run_op(job *j, const mode *m) {
  reference_fn *fn = reference_op(j->op);
  if (!fn) return -1;
  tt_trace *t = tt_trace_new(j->name, true);
  reference_case c = {.trace = t, .attrs = j->attrs};
  int n_tensors = tt_safetensors_count(j->file);
  /* Operands in alphabetical order, so that einsum's a and b are in theirs. */
  for (int i = 0; t && i < n_tensors; i++) {
    const char *name = tt_safetensors_name(j->file, i);
    if (!starts(name, "in.") || c.n == CASE_VALUES) continue;
    int at = c.n++;
    for (; at > 0 && strcmp(c.names[at - 1], name + 3) > 0; at--) c.names[at] = c.names[at - 1];
    c.names[at] = name + 3;
  }
  for (int i = 0; t && i < c.n; i++) {
    char name[256];
    snprintf(name, sizeof name, "in.%s", c.names[i]);
    tt_tensor *x = tt_safetensors_get(j->file, name, j->err);
    if (!x) continue;
    tt_dtype dtype = tt_tensor_dtype(x) == TT_F32 ? m->real : tt_tensor_dtype(x);
    c.values[i] = tt_input(t, c.names[i], dtype, tt_tensor_shape(x));
    tt_tensor_free(x);
  }
  reference_output out[4];
  int n_out = fn(&c, out), result = n_out ? 0 : -1;
  tt_val total = {0}, wrt[CASE_VALUES], gradients[CASE_VALUES];
  const char *wrt_names[CASE_VALUES];
  int n_wrt = 0;
  for (int i = 0; i < n_out; i++) {
    char name[256];
    snprintf(name, sizeof name, "out.%s", out[i].name);
    tt_output(t, name, out[i].value);
    snprintf(name, sizeof name, "ct.%s", out[i].name);
    tt_error none = {0};
    tt_tensor *ct = tt_safetensors_get(j->file, name, &none);
    if (!ct) continue;
    tt_val s = tt_sum(tt_mul(out[i].value, tt_input(t, name, m->real, tt_tensor_shape(ct))), TT_ALL, false);
    total = total.trace ? tt_add(total, s) : s;
    tt_tensor_free(ct);
  }
  for (int i = 0; i < n_tensors; i++) {
    const char *name = tt_safetensors_name(j->file, i);
    if (starts(name, "grad.")) wrt[n_wrt] = reference_in(&c, name + 5), wrt_names[n_wrt++] = name;
  }
  if (n_wrt && total.trace) {
    tt_grad(total, wrt, n_wrt, gradients);
    for (int i = 0; i < n_wrt; i++) tt_output(t, wrt_names[i], gradients[i]);
  }
  ir_graph *g = NULL;
  machine x = {0};
  if (n_out && t && tt_trace_finish(t, &g, j->err) == TT_OK && start(j, m, g, NULL, &x)) {
    bool ok = true;
    for (int i = 0; i < n_tensors && ok; i++) {
      const char *name = tt_safetensors_name(j->file, i);
      if (!starts(name, "in.") && !starts(name, "ct.")) continue;
      tt_tensor *data = tt_safetensors_get(j->file, name, j->err);
      ok = data && bind_as(j, &x, starts(name, "in.") ? name + 3 : name, data);
      tt_tensor_free(data);
    }
    ok = ok && rt_run(x.run, j->err) == TT_OK;
    for (int i = 0; i < n_out && ok; i++) {
      char name[256];
      snprintf(name, sizeof name, "out.%s", out[i].name);
      ok = agree_with_file(j, name, rt_bound(x.run, name), m->op);
    }
    for (int i = 0; i < n_wrt && ok; i++) ok = agree_with_file(j, wrt_names[i], rt_bound(x.run, wrt_names[i]), m->op);
    result = ok;
  }
  stop(&x);
  ir_graph_free(g);
  tt_trace_free(t);
  return result;
}

/* ---- optimizers and schedules ---- */

/* torch.optim's attributes as our hyperparameters. */
static void hyper_text(json_t *attrs, char *text, size_t size) {
  const char *key;
  json_t *v;
  text[0] = 0;
  json_object_foreach(attrs, key, v) {
    size_t used = strlen(text);
    const char *comma = used ? ", " : "";
    if (strcmp(key, "lr") == 0 || strcmp(key, "optimizer") == 0) continue;
    if (strcmp(key, "betas") == 0)
      snprintf(text + used, size - used, "%sbeta1=%.17g, beta2=%.17g", comma, json_number_value(json_array_get(v, 0)), json_number_value(json_array_get(v, 1)));
    else snprintf(text + used, size - used, "%s%s=%.17g", comma, key, json_is_boolean(v) ? json_is_true(v) : json_number_value(v));
  }
}

static bool known_optimizer(const char *name) {
  for (const optim_info *o = optim_table; o->name; o++)
    if (strcmp(o->name, name) == 0) return true;
  return false;
}

/* All params of the program: p as given, optimizer state zero. */
static bool bind_params(job *j, machine *x, rt_params *params) {
  for (uint32_t i = 0; i < x->program->n_slots; i++) {
    const rt_slot *s = &x->program->slots[i];
    if (s->kind != RT_PARAM || rt_params_find(params, s->name)) continue;
    tt_tensor *zeros = tt_tensor_new(s->dtype, &s->shape, j->err);
    if (!zeros || rt_params_add(params, s->name, zeros, false, true, j->err) != TT_OK) return false;
  }
  return rt_params_bind(params, x->run, j->err) == TT_OK;
}

static int run_optimizer(job *j, const mode *m) {
  if (!known_optimizer(j->op)) return -1;
  char hyper[512];
  hyper_text(j->attrs, hyper, sizeof hyper);
  tt_tensor *start_p = tt_safetensors_get(j->file, "in.p", j->err), *grads = tt_safetensors_get(j->file, "in.grads", j->err), *want = tt_safetensors_get(j->file, "out.p", j->err);
  tt_trace *t = tt_trace_new(j->name, true);
  rt_params *params = rt_params_new();
  ir_graph *g = NULL;
  machine x = {0};
  bool ok = start_p && grads && want && t && params;
  if (ok) {
    tt_shape s = tt_tensor_shape(start_p);
    tt_val p = tt_param_typed(t, "p", m->real, s, tt_init_zeros(), TT_TRAINED), slope = tt_input(t, "g", m->real, s);
    tt_output(t, "loss", tt_sum(tt_add(tt_mul(p, slope), tt_mul(tt_square(p), 0.15)), TT_ALL, false));
    tt_tensor *p0 = tt_tensor_cast(start_p, m->real, j->err);
    ok = p0 && rt_params_add(params, "p", p0, true, false, j->err) == TT_OK && tt_trace_finish(t, &g, j->err) == TT_OK &&
         start(j, m, g, &(tt_compile_options){.train = true, .optimizer = j->op, .hyper = hyper}, &x) && bind_params(j, &x, params);
    int64_t steps = tt_tensor_shape(grads).dim[0];
    /* Muon rounds to bfloat16: where f32 and f64 round to different neighbours, an element's step is another. */
    double tolerance = m->real == TT_F32 && strcmp(j->op, "muon") == 0 ? 1e-2 : m->optimizer;
    for (int64_t step = 0; ok && step < steps; step++) {
      char what[64];
      snprintf(what, sizeof what, "p after step %lld", (long long)step);
      tt_tensor *row = tt_tensor_slice(grads, 0, step, step + 1, 1, j->err), *wanted = tt_tensor_slice(want, 0, step, step + 1, 1, j->err);
      tt_tensor *gradient = row ? tt_tensor_reshape(row, &s, j->err) : NULL, *after = wanted ? tt_tensor_reshape(wanted, &s, j->err) : NULL;
      ok = gradient && after && bind_as(j, &x, "g", gradient) && bind_number(j, &x, "lr", json_number_value(json_object_get(j->attrs, "lr"))) &&
           bind_number(j, &x, "step", (double)step) && rt_run(x.run, j->err) == TT_OK && agree(j, what, rt_params_find(params, "p")->tensor, after, tolerance);
      tt_tensor_free(row), tt_tensor_free(wanted), tt_tensor_free(gradient), tt_tensor_free(after);
    }
  }
  stop(&x);
  ir_graph_free(g);
  rt_params_free(params);
  tt_trace_free(t);
  tt_tensor_free(start_p), tt_tensor_free(grads), tt_tensor_free(want);
  return ok;
}

static int run_schedule(job *j) {
  json_t *milestones = json_object_get(j->attrs, "milestones");
#define NUMBER(name) json_number_value(json_object_get(j->attrs, name))
#define INT(name) json_integer_value(json_object_get(j->attrs, name))
  tt_schedule s = {.name = j->op, .lr = NUMBER("lr"), .gamma = NUMBER("gamma"), .step_size = INT("step_size"), .power = NUMBER("power"), .total = INT("total_iters")};
  if (strcmp(j->op, "cosine") == 0) s.total = INT("T_max"), s.floor = NUMBER("eta_min");
  if (strcmp(j->op, "cosine_restarts") == 0) s.step_size = INT("T_0"), s.restart_factor = INT("T_mult"), s.floor = NUMBER("eta_min");
  if (strcmp(j->op, "onecycle") == 0) s.lr = NUMBER("max_lr"), s.total = INT("total_steps");
  if (strcmp(j->op, "linear_warmup") == 0 && NUMBER("end_factor") == 1) s.name = "constant", s.warmup = INT("total_iters"), s.warmup_start = NUMBER("start_factor");
  for (size_t i = 0; i < json_array_size(milestones) && i < TT_MILESTONES; i++) s.milestones[i] = json_integer_value(json_array_get(milestones, i));
#undef NUMBER
#undef INT
  if (isnan(tt_schedule_at(&s, 0))) return -1;
  tt_tensor *want = tt_safetensors_get(j->file, "out.lr", j->err), *got = NULL;
  tt_shape shape = want ? tt_tensor_shape(want) : TT_SCALAR;
  if (want && (got = tt_tensor_new(TT_F64, &shape, j->err)))
    for (int64_t i = 0; i < shape.dim[0]; i++) ((double *)tt_tensor_data(got))[i] = tt_schedule_at(&s, i);
  bool ok = got && agree(j, "lr", got, want, 1e-12);
  tt_tensor_free(want);
  tt_tensor_free(got);
  return ok;
}

/* ---- models: the cases' modules, written with our layers; parameter names are PyTorch's ---- */

static tt_val mlp(tt_val x, tt_dtype real) { return tt_sequential(x, TT_LINEAR(17), TT_RELU, TT_LINEAR(9), TT_TANH, TT_LINEAR(5)); }

static tt_val cnn(tt_val x, tt_dtype real) {
  return tt_sequential(x, TT_CONV2D(5, 3, .padding = 1, .no_bias = true), TT_BATCH_NORM, TT_RELU, TT_MAX_POOL2D(2), TT_CONV2D(7, 3, .padding = 1, .no_bias = true),
                       TT_BATCH_NORM, TT_RELU, TT_MAX_POOL2D(2), TT_FLATTEN, TT_LINEAR(11), TT_RELU, TT_LINEAR(4));
}

static tt_val block(tt_val x, const char *name, int64_t channels, int64_t stride) {
  tt_scope_push(x, name);
  tt_val y = tt_relu(tt_batch_norm(tt_conv2d(x, "conv1", channels, 3, .stride = stride, .padding = 1, .no_bias = true), "bn1"));
  y = tt_batch_norm(tt_conv2d(y, "conv2", channels, 3, .padding = 1, .no_bias = true), "bn2");
  if (stride != 1) {
    tt_scope_push(x, "short");
    x = tt_batch_norm(tt_conv2d(x, "0", channels, 1, .stride = stride, .no_bias = true), "1");
    tt_scope_pop(x);
  }
  y = tt_relu(tt_add(y, x));
  tt_scope_pop(y);
  return y;
}
static tt_val resnet(tt_val x, tt_dtype real) {
  x = tt_relu(tt_batch_norm(tt_conv2d(x, "0", 4, 3, .padding = 1, .no_bias = true), "1"));
  x = block(block(x, "3", 4, 1), "4", 8, 2);
  return tt_linear(tt_flatten(tt_adaptive_avg_pool2d(x, 1, 1), 1), "7", 5);
}

static tt_val vit(tt_val x, tt_dtype real) { return model_vit_of(x, &(vit_config){.patch = 8, .width = 12, .depth = 2, .heads = 2, .head = 6, .classes = 10}); }

static tt_val gpt(tt_val tokens, tt_dtype real) {
  return gpt_forward(tokens, &(gpt_config){.layers = 2, .heads = 3, .channels = 12, .context = 11, .vocabulary = 19, .real = real});
}

static bool add_params(job *j, const ir_graph *g, rt_params *params) {
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_param || rt_params_find(params, ir_str(n, "name"))) continue;
    char name[256];
    snprintf(name, sizeof name, "before.%s", ir_str(n, "name"));
    tt_tensor *before = tt_safetensors_get(j->file, name, j->err), *x = before ? tt_tensor_cast(before, (tt_dtype)n->dtype, j->err) : NULL;
    tt_tensor_free(before);
    if (!x || rt_params_add(params, ir_str(n, "name"), x, ir_int(n, "trainable"), false, j->err) != TT_OK) return false;
  }
  return true;
}

static ir_graph *trace_model(job *j, const mode *m, tt_val (*model)(tt_val, tt_dtype), tt_tensor *xs, tt_tensor *ys, bool training) {
  tt_trace *t = tt_trace_new(j->name, training);
  if (!t) return NULL;
  tt_val logits = model(tt_input(t, "x", tt_tensor_dtype(xs) == TT_I64 ? TT_I64 : m->real, tt_tensor_shape(xs)), m->real);
  int64_t classes = tt_dim(logits, -1);
  if (training) tt_output(t, "loss", tt_cross_entropy(tt_reshape(logits, TT_SHAPE(-1, classes)), tt_flatten(tt_input(t, "y", TT_I64, tt_tensor_shape(ys)), 0)));
  else tt_output(t, "logits", logits);
  ir_graph *g = NULL;
  tt_trace_finish(t, &g, j->err);
  tt_trace_free(t);
  return g;
}

static int run_model(job *j, const mode *m) {
  static const struct { const char *name; tt_val (*fn)(tt_val, tt_dtype); } models[] = {{"mlp", mlp}, {"cnn", cnn}, {"resnet", resnet}, {"vit", vit}, {"gpt", gpt}};
  tt_val (*model)(tt_val, tt_dtype) = NULL;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++)
    if (strcmp(models[i].name, j->op) == 0) model = models[i].fn;
  const char *optimizer = json_string_value(json_object_get(j->attrs, "optimizer"));
  if (!model || !optimizer || !known_optimizer(optimizer)) return -1;
  char hyper[512];
  hyper_text(j->attrs, hyper, sizeof hyper);
  tt_tensor *xs = tt_safetensors_get(j->file, "in.x", j->err), *ys = tt_safetensors_get(j->file, "in.y", j->err), *losses = tt_safetensors_get(j->file, "out.losses", j->err);
  rt_params *params = rt_params_new();
  ir_graph *step = NULL, *eval = NULL;
  machine train = {0}, predict = {0};
  bool ok = xs && ys && losses && params;
  if (ok) {
    step = trace_model(j, m, model, xs, ys, true), eval = trace_model(j, m, model, xs, ys, false);
    ok = step && eval && add_params(j, step, params) && add_params(j, eval, params) &&
         start(j, m, step, &(tt_compile_options){.train = true, .optimizer = optimizer, .hyper = hyper, .gradients = true}, &train) && start(j, m, eval, NULL, &predict);
    ok = ok && rt_params_bind(params, predict.run, j->err) == TT_OK && bind_as(j, &predict, "x", xs) && rt_run(predict.run, j->err) == TT_OK &&
         agree_with_file(j, "out.logits_eval", rt_bound(predict.run, "logits"), m->model);
    ok = ok && bind_params(j, &train, params) && bind_as(j, &train, "x", xs) && bind_as(j, &train, "y", ys) &&
         bind_number(j, &train, "lr", json_number_value(json_object_get(j->attrs, "lr")));
    tt_shape steps = tt_tensor_shape(losses);
    tt_tensor *got = tt_tensor_new(TT_F64, &steps, j->err);
    for (int64_t i = 0; ok && got && i < steps.dim[0]; i++) {
      ok = bind_number(j, &train, "step", (double)i) && rt_run(train.run, j->err) == TT_OK;
      if (ok) ((double *)tt_tensor_data(got))[i] = tt_tensor_at(rt_bound(train.run, "loss"), NULL);
      for (int k = 0; i == 0 && ok && k < tt_safetensors_count(j->file); k++) {
        const char *name = tt_safetensors_name(j->file, k);
        if (starts(name, "grad.")) ok = agree_with_file(j, name, rt_bound(train.run, name), m->model);
      }
    }
    ok = ok && got && agree(j, "losses", got, losses, m->model);
    tt_tensor_free(got);
    for (int k = 0; ok && k < tt_safetensors_count(j->file); k++) {
      const char *name = tt_safetensors_name(j->file, k);
      if (!starts(name, "after.")) continue;
      rt_param *p = rt_params_find(params, name + 6);
      if (p) ok = m->real == TT_F32 && strstr(name, ".qkv.bias") ? agree_but_keys(j, name, p->tensor, m->model) : agree_with_file(j, name, p->tensor, m->model);
      else snprintf(j->why, sizeof j->why, "there is no parameter %s", name + 6), ok = false;
    }
  }
  stop(&train);
  stop(&predict);
  ir_graph_free(step);
  ir_graph_free(eval);
  rt_params_free(params);
  tt_tensor_free(xs), tt_tensor_free(ys), tt_tensor_free(losses);
  return ok;
}

/* ---- the table ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

typedef struct { char family[32]; reference_tally n; } family_row;

static family_row *family_of(family_row *rows, int *n, const char *name) {
  for (int i = 0; i < *n; i++)
    if (strcmp(rows[i].family, name) == 0) return &rows[i];
  if (*n == 32) return &rows[31];
  snprintf(rows[*n].family, sizeof rows[*n].family, "%s", name);
  return &rows[(*n)++];
}

static void judge(const char *folder, const char *file, const char *cpu, rt_team *team, family_row *rows, int *n_rows, reference_tally *tally) {
  char path[RT_PATH];
  tt_error err = {0};
  job j = {.name = file, .team = team, .err = &err};
  if (rt_path(path, folder, file, &err) == TT_OK) j.file = tt_safetensors_open(path, &err);
  const char *kind = j.file ? tt_safetensors_metadata(j.file, "kind") : NULL, *attrs = j.file ? tt_safetensors_metadata(j.file, "attrs") : NULL;
  j.op = j.file ? tt_safetensors_metadata(j.file, "op") : NULL;
  int result = 0;
  const char *where = "";
  if (kind && attrs && j.op && (j.attrs = json_loads(attrs, 0, NULL))) {
    if (strcmp(kind, "schedule") == 0) result = run_schedule(&j);
    else
      for (int i = 0; i < MODES; i++) {
        mode m = modes[i];
        m.cpu = cpu;
        where = i == 0 ? " (interpreter, f64)" : m.real == TT_F32 ? " (JIT, f32)" : " (JIT, f64)";
        result = strcmp(kind, "op") == 0 ? run_op(&j, &m) : strcmp(kind, "optimizer") == 0 ? run_optimizer(&j, &m) : strcmp(kind, "model") == 0 ? run_model(&j, &m) : -1;
        if (result != 1) break;
      }
  } else if (!err.status) tt_fail(&err, TT_FORMAT, "%s: no metadata kind, op and attrs", path);
  const char *family = j.file ? tt_safetensors_metadata(j.file, "family") : NULL;
  reference_tally *row = &family_of(rows, n_rows, family ? family : kind ? kind : "?")->n;
  if (result == 1) row->passed++, tally->passed++;
  else if (result < 0) row->missing++, tally->missing++;
  else {
    row->failed++, tally->failed++;
    printf("FAILED %s%s: %s\n", file, where, err.status ? err.message : j.why);
  }
  json_decref(j.attrs);
  if (j.file) tt_safetensors_close(j.file);
}

bool reference_run(const char *folder, const char *cpu, int threads, reference_tally *tally, tt_error *err) {
  DIR *dir = opendir(folder);
  if (!dir) return tt_fail(err, TT_IO, "%s: not a folder that can be read", folder), false;
  rt_team *team = rt_team_new(threads, err);
  char **files = NULL;
  int n = 0;
  struct dirent *entry;
  while (team && (entry = readdir(dir))) {
    size_t length = strlen(entry->d_name);
    if (length < 12 || strcmp(entry->d_name + length - 12, ".safetensors") != 0) continue;
    char **more = realloc(files, (size_t)(n + 1) * sizeof *files);
    if (!more || !(more[n] = strdup(entry->d_name))) break;
    files = more, n++;
  }
  closedir(dir);
  if (n) qsort(files, (size_t)n, sizeof *files, by_name);
  else if (team) tt_fail(err, TT_INVALID, "%s: holds no .safetensors file", folder);
  family_row rows[32] = {0};
  int n_rows = 0;
  for (int i = 0; i < n; i++) {
    judge(folder, files[i], cpu, team, rows, &n_rows, tally);
    free(files[i]);
  }
  free(files);
  rt_team_free(team);
  if (n) printf("%-14s %8s %24s %8s\n", "family", "passed", "not in the language yet", "failed");
  for (int i = 0; i < n_rows; i++) printf("%-14s %8d %24d %8d\n", rows[i].family, rows[i].n.passed, rows[i].n.missing, rows[i].n.failed);
  if (n) printf("%-14s %8d %24d %8d\n", "all", tally->passed, tally->missing, tally->failed);
  return !err->status;
}
