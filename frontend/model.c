/* model.c: a model function with its parameters. Each shape that it is used with, in training or evaluation, is traced and compiled by
 * itself; all share one store of parameters, matched by name, which the first trace fills with initial values or from a file. */
#include "frontend.h"

typedef struct { tt_dtype dtype; tt_shape shape; rt_program *program; rt_instance *instance; } compiled;
enum { MAX_COMPILED = 16 };

struct tt_model {
  tt_model_fn *function; void *arg;
  tt_loss_fn *loss;
  char *name, *backend, *cpu, *skip, *tuned, *products;      /* own copies; NULL as given */
  int n_threads;
  uint64_t seed;
  rt_params *params;
  rt_team *team;
  const tt_weight_name *names;
  bool no_ema;
  weights_file *file;                         /* where values come from; NULL: from initializers */
  compiled predict[MAX_COMPILED]; int n_predict;     /* a ring once it is full */
  char **warnings; int n_warnings;
};

static bool copy_text(char **to, const char *from) {
  *to = from ? strdup(from) : NULL;
  return !from || *to;
}

tt_model *tt_model_new(tt_model_fn *function, void *arg, const tt_model_options *options, tt_error *err) {
  const tt_model_options none = {0}, *o = options ? options : &none;
  tt_model *m = calloc(1, sizeof *m);
  if (m) {
    m->function = function, m->arg = arg, m->loss = o->loss, m->seed = o->seed, m->n_threads = o->n_threads, m->names = o->names, m->no_ema = o->no_ema;
    m->params = rt_params_new();
    bool copied = copy_text(&m->name, o->name ? o->name : "model") && copy_text(&m->backend, o->backend);
    if (copied && copy_text(&m->cpu, o->cpu) && copy_text(&m->skip, o->skip) && copy_text(&m->tuned, o->tuned) && copy_text(&m->products, o->products) && m->params) return m;
  }
  tt_model_free(m);
  tt_fail(err, TT_NO_MEMORY, "error: no memory for a model\n  at tt_model_new\n  fix: free memory");
  return NULL;
}

static void free_compiled(compiled *c) {
  rt_instance_free(c->instance);
  rt_program_free(c->program);
  *c = (compiled){0};
}

void tt_model_free(tt_model *m) {
  if (!m) return;
  for (int i = 0; i < MAX_COMPILED; i++)
    if (m->predict[i].program) free_compiled(&m->predict[i]);
  rt_params_free(m->params);
  rt_team_free(m->team);
  weights_close(m->file);
  for (int i = 0; i < m->n_warnings; i++) free(m->warnings[i]);
  free(m->warnings);
  free(m->name), free(m->backend), free(m->cpu), free(m->skip), free(m->tuned), free(m->products);
  free(m);
}

model_target model_target_of(const tt_model *m) { return (model_target){m->name, m->backend, m->cpu, m->products, m->skip}; }
rt_params *tt_model_params(tt_model *m) { return m->params; }
const char *tt_model_warning(const tt_model *m, int i) { return i >= 0 && i < m->n_warnings ? m->warnings[i] : NULL; }

rt_team *tt_model_team(tt_model *m, tt_error *err) {
  if (!m->team) m->team = rt_team_new(m->n_threads, err);
  return m->team;
}

/* -- Parameters --------------------------------------------------------------------------------------------------------- */

/* The value with which a parameter starts. */
static tt_tensor *first_value(tt_model *m, const trace_param *p, tt_error *err) {
  if (m->file) return weights_read(m->file, p->name, p->dtype, &p->shape, err);
  rt_team *team = tt_model_team(m, err);
  tt_tensor *x = team ? tt_tensor_new(p->dtype, &p->shape, err) : NULL;
  if (x && init_fill(team, p->init, p->name, m->seed, p->dtype, &p->shape, tt_tensor_data(x), err) == TT_OK) return x;
  tt_tensor_free(x);
  return NULL;
}

/* The trace's parameters join the store. */
static tt_status join(tt_model *m, const tt_trace *t, tt_error *err) {
  for (int i = 0; i < t->n_params; i++) {
    const trace_param *p = &t->params[i];
    rt_param *old = rt_params_find(m->params, p->name);
    if (old) {
      char was[120], is[120];
      tt_shape s = tt_tensor_shape(old->tensor);
      if (tt_tensor_dtype(old->tensor) != p->dtype || !tt_shape_equal(&s, &p->shape))
        return tt_fail(err, TT_INVALID,
                       "error: the parameter \"%s\" is %s here, but the model has it as %s\n  at %s:%d\n  fix: use one model for one size and type of input", p->name,
                       tt_type_text(p->dtype, &p->shape, is, sizeof is), tt_type_text(tt_tensor_dtype(old->tensor), &s, was, sizeof was), p->file, p->line);
      continue;
    }
    tt_tensor *x = first_value(m, p, err);
    if (!x) return err->status;
    tt_status status = rt_params_add(m->params, p->name, x, p->use == TT_TRAINED, false, err);
    if (status != TT_OK) return status;
  }
  return TT_OK;
}

tt_status tt_model_load(tt_model *m, const char *path, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  weights_file *f = weights_open(path, m->names, !m->no_ema, err);
  if (!f) return err->status;
  int n = rt_params_count(m->params);
  tt_tensor **fresh = calloc((size_t)n + 1, sizeof *fresh);           /* all are read before the first is changed */
  if (!fresh) tt_fail(err, TT_NO_MEMORY, "error: no memory for %d tensors\n  at tt_model_load\n  fix: free memory", n);
  for (int i = 0; i < n && err->status == TT_OK; i++) {
    const rt_param *p = rt_params_at(m->params, i);
    tt_shape s = tt_tensor_shape(p->tensor);
    if (!p->optimizer_state) fresh[i] = weights_read(f, p->name, tt_tensor_dtype(p->tensor), &s, err);
  }
  for (int i = 0; i < n && fresh; i++) {
    if (fresh[i] && err->status == TT_OK) tt_tensor_copy(rt_params_at(m->params, i)->tensor, fresh[i], err);
    tt_tensor_free(fresh[i]);
  }
  free(fresh);
  if (err->status != TT_OK) {
    weights_close(f);
    return err->status;
  }
  weights_close(m->file);
  m->file = f;
  return TT_OK;
}

tt_status tt_model_save(tt_model *m, const char *path, tt_error *err) {
  int n = rt_params_count(m->params), used = 0;
  if (!n) return tt_fail(err, TT_INVALID,
                         "error: the model has no parameters yet\n  at tt_model_save to %s\n  fix: train it or predict with it first", path);
  tt_named_tensor *list = malloc(sizeof *list * (size_t)n);
  if (!list) return tt_fail(err, TT_NO_MEMORY, "error: no memory for %d names\n  at tt_model_save\n  fix: free memory", n);
  for (int i = 0; i < n; i++) {
    const rt_param *p = rt_params_at(m->params, i);
    if (!p->optimizer_state) list[used++] = (tt_named_tensor){p->name, p->tensor};
  }
  tt_status status = tt_safetensors_save(path, list, used, &(tt_metadata){"format", "pt"}, 1, err);
  free(list);
  return status;
}

/* -- Tracing and compiling ---------------------------------------------------------------------------------------------- */

/* How many rows (or pixels) have their label, or the one with the largest share, as the largest of the prediction [B, classes, ...]. */
static tt_val correct(tt_val prediction, tt_val y) {
  tt_val label = tt_dtype_in(tt_dtype_of(y), TT_REAL) ? tt_argmax(y, 1, false) : tt_cast(y, TT_I64);
  return tt_sum(tt_cast(tt_eq(tt_argmax(prediction, 1, false), label), TT_I64), TT_ALL, false);
}

/* Of x: integers [B,T], the prediction is [B,T,classes] and y [B,T]: the mean over all labels but -1. */
static void trace_tokens(tt_model *m, tt_trace *t, tt_val x, tt_labels labels, bool scores) {
  tt_val out = m->function(x, m->arg), y = labels ? tt_input(t, "y", TT_I32, tt_shape_of(x)) : x;
  if (labels && scores) tt_output(t, "scores", out);
  if (!labels) tt_output(t, "logits", out);
  else if (trace_is(t->loss)) tt_output(t, "loss", t->loss);
  else if (m->loss) tt_output(t, "loss", m->loss(out, y, m->arg));
  else {
    tt_scope_push(x, "loss");
    tt_output(t, "loss", tt_cross_entropy(tt_reshape(out, TT_SHAPE(-1, tt_dim(out, -1))), tt_flatten(y, 0), .ignoring = true, .ignore_index = -1));
    tt_scope_pop(x);
  }
}

static tt_val labels_input(tt_trace *t, tt_val x, tt_val prediction, tt_labels labels) {
  tt_shape s = tt_shape_of(x);
  if (!s.rank) return (tt_val){t, 0};
  if (labels == TT_SOFT_LABELS) return tt_input(t, "y", tt_dtype_in(tt_dtype_of(x), TT_REAL) ? tt_dtype_of(x) : TT_F32, TT_SHAPE(s.dim[0], tt_dim(prediction, -1)));
  if (labels == TT_PIXEL_LABELS && s.rank == 4) return tt_input(t, "y", TT_I32, TT_SHAPE(s.dim[0], s.dim[2], s.dim[3]));
  return tt_input(t, "y", TT_I32, TT_SHAPE(s.dim[0]));
}

static void trace_outputs(tt_model *m, tt_trace *t, tt_val x, tt_labels labels, bool training) {
  tt_val out = m->function(x, m->arg), loss = t->loss, y = {0};
  bool own = trace_is(t->loss);
  if (labels && !own) {
    y = labels_input(t, x, out, labels);
    if (m->loss) loss = m->loss(out, y, m->arg);
    else {
      tt_scope_push(x, "loss");
      loss = tt_cross_entropy(out, y);
      tt_scope_pop(x);
    }
  }
  /* What a softmax gives are no logits: its logarithms are, and measure the loss that training has. */
  bool probabilities = labels && !m->loss && !own && tt_ok(out) && ir_at(t->g, out.ref)->op == IR_softmax;
  if (!training) tt_output(t, labels && (m->loss || own) ? "scores" : "logits", probabilities ? tt_log(out) : out);       /* scores: the loss is the program's own, not their cross-entropy */
  if (labels) tt_output(t, "loss", loss);
  if (!training || !labels || own || tt_rank(out) != (labels == TT_PIXEL_LABELS ? 4 : 2)) return;
  tt_scope_push(x, "accuracy");
  tt_output(t, "correct", correct(out, y));
  tt_scope_pop(x);
}

static bool take_warning(tt_model *m, const char *text) {
  for (int k = 0; k < m->n_warnings; k++)
    if (!strcmp(m->warnings[k], text)) return true;
  char **more = realloc(m->warnings, sizeof *more * (size_t)(m->n_warnings + 1)), *copy = strdup(text);
  if (more) m->warnings = more;
  if (!more || !copy) return free(copy), false;
  m->warnings[m->n_warnings++] = copy;
  return true;
}

static tt_status take_warnings(tt_model *m, const tt_trace *t, tt_error *err) {
  for (int i = 0; i < t->n_warnings; i++)
    if (!take_warning(m, t->warnings[i])) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a warning\n  at the trace of %s\n  fix: free memory", m->name);
  return TT_OK;
}

static tt_status trace_model(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, bool training, bool scores, ir_graph **graph, tt_error *err) {
  *graph = NULL;
  tt_trace *t = tt_trace_new(m->name, training);
  if (!t) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a trace\n  at the trace of %s\n  fix: free memory", m->name);
  tt_val in = tt_input(t, "x", dtype, *x);
  bool tokens = x->rank == 2 && tt_dtype_in(dtype, TT_INT);
  if (tokens) trace_tokens(m, t, in, labels, scores && !training);
  else trace_outputs(m, t, in, labels, training);
  tt_status status = tt_trace_finish(t, graph, err);
  if (status == TT_OK) status = join(m, t, err);
  if (status == TT_OK) status = take_warnings(m, t, err);
  if (status != TT_OK) {
    ir_graph_free(*graph);
    *graph = NULL;
  }
  tt_trace_free(t);
  return status;
}

tt_status tt_model_trace(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, bool training, ir_graph **graph, tt_error *err) {
  tt_error own = {0};
  return trace_model(m, dtype, x, labels, training, false, graph, err ? err : &own);
}

tt_status model_trace_rows(tt_model *m, int64_t rows, ir_graph **graph, int64_t *capacity, tt_error *err) {
  *graph = NULL;
  tt_trace *t = tt_trace_new(m->name, false);
  if (!t) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a trace\n  at the trace of %s\n  fix: free memory", m->name);
  t->position = tt_input(t, "position", TT_I64, TT_SCALAR);
  tt_output(t, "logits", m->function(tt_input(t, "x", TT_I32, TT_SHAPE(1, rows)), m->arg));
  *capacity = t->capacity;
  tt_status status = tt_trace_finish(t, graph, err);
  if (status == TT_OK && !*capacity) status = tt_fail(err, TT_INVALID, "error: %s cannot generate: it keeps no cache\n  at the trace of %lld more tokens\n  fix: use gpt or gpt2, or write the model with tt_position and tt_cached", m->name, (long long)rows);
  if (status == TT_OK) status = join(m, t, err);
  if (status != TT_OK) {
    ir_graph_free(*graph);
    *graph = NULL;
  }
  tt_trace_free(t);
  return status;
}

tt_status model_compile_graph(tt_model *m, const ir_graph *g, rt_program **program, tt_error *err) {
  return tt_compile(g, &(tt_compile_options){.backend = m->backend, .cpu = m->cpu, .skip = m->skip, .tuned = m->tuned, .products = m->products, .n_threads = m->n_threads}, program, err);
}

/* What the program keeps beside the model's parameters is its optimizer's state. */
static tt_status add_state(tt_model *m, const rt_program *p, tt_error *err) {
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_PARAM || rt_params_find(m->params, s->name)) continue;
    tt_tensor *x = tt_tensor_new(s->dtype, &s->shape, err);
    if (!x) return err->status;
    tt_status status = rt_params_add(m->params, s->name, x, false, true, err);
    if (status != TT_OK) return status;
    const char *dot = strrchr(s->name, '.');             /* NAME.grad, by passes/update.c */
    rt_params_find(m->params, s->name)->passing = dot && !strcmp(dot, ".grad");
  }
  return TT_OK;
}

/* Statistics of each batch are not those of all batches of an update. */
static tt_status warn_of_statistics(tt_model *m, const ir_graph *g, const tt_compile_options *o, tt_error *err) {
  ir_ref found = 0;
  char text[600], place[300];
  for (ir_ref r = 1; r < g->n_nodes && !found; r++)
    if (ir_at(g, r)->op == IR_batch_norm) found = r;
  for (uint32_t i = 0; i < g->n_effects && !found; i++) found = g->effects[i];
  if (!o->train || o->accumulate < 2 || !found) return TT_OK;
  snprintf(text, sizeof text, "accumulate: this model takes statistics over each batch, not over the %d of an update, so it trains otherwise than with the large batch\n  at %s\n"
           "  fix: nothing, if that is wanted; else use layer_norm, or a larger batch", o->accumulate, trace_place(g, ir_at(g, found)->origin, place, sizeof place));
  return take_warning(m, text) ? TT_OK : tt_fail(err, TT_NO_MEMORY, "error: no memory for a warning\n  at the trace of %s\n  fix: free memory", m->name);
}

/* The caller's callbacks, and warnings into the model's list too. */
typedef struct { tt_model *m; const tt_compile_options *o; } listener;
static void on_pass(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  const listener *l = user;
  if (l->o->watch) l->o->watch(l->o->user, pass, g, milliseconds);
}
static void on_kernel(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached) {
  const listener *l = user;
  if (l->o->kernel) l->o->kernel(l->o->user, name, done, total, milliseconds, cached);
}
static void on_warning(void *user, const char *text) {
  const listener *l = user;
  take_warning(l->m, text);
  if (l->o->warn) l->o->warn(l->o->user, text);
}

tt_status tt_model_compile(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, const tt_compile_options *options, rt_program **program,
                           tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  const tt_compile_options none = {0};
  tt_compile_options o = options ? *options : none;
  o.watch = o.watch ? on_pass : NULL, o.kernel = on_kernel, o.warn = on_warning, o.user = &(listener){m, options ? options : &none};
  if (!o.backend) o.backend = m->backend;
  if (!o.cpu) o.cpu = m->cpu;
  if (!o.skip) o.skip = m->skip;
  if (!o.tuned) o.tuned = m->tuned;
  if (!o.products) o.products = m->products;
  if (!o.n_threads) o.n_threads = m->n_threads;
  ir_graph *g;
  *program = NULL;
  tt_status status = trace_model(m, dtype, x, labels, o.train, o.scores, &g, err);
  if (status != TT_OK) return status;
  if ((status = warn_of_statistics(m, g, &o, err)) == TT_OK) status = tt_compile(g, &o, program, err);
  ir_graph_free(g);
  if (status == TT_OK) status = add_state(m, *program, err);
  if (status == TT_OK) return TT_OK;
  rt_program_free(*program);
  *program = NULL;
  return status;
}

/* -- Predicting --------------------------------------------------------------------------------------------------------- */

static compiled *compiled_for(tt_model *m, tt_dtype dtype, const tt_shape *shape, tt_error *err) {
  for (int i = 0; i < MAX_COMPILED; i++)
    if (m->predict[i].program && m->predict[i].dtype == dtype && tt_shape_equal(&m->predict[i].shape, shape)) return &m->predict[i];
  rt_team *team = tt_model_team(m, err);
  compiled c = {dtype, *shape, NULL, NULL};
  if (!team || tt_model_compile(m, dtype, shape, false, NULL, &c.program, err) != TT_OK) return NULL;
  c.instance = rt_instance_new(c.program, team, err);
  if (!c.instance || rt_params_bind(m->params, c.instance, err) != TT_OK || rt_bind_seed(c.instance, 0, 0, err) != TT_OK) {
    free_compiled(&c);
    return NULL;
  }
  compiled *to = &m->predict[m->n_predict++ % MAX_COMPILED];
  if (to->program) free_compiled(to);
  *to = c;
  return to;
}

tt_tensor *tt_predict(tt_model *m, tt_tensor *x, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  if (!x) return tt_fail(err, TT_INVALID, "error: nothing to predict from: the tensor is NULL\n  at tt_predict\n  fix: check that the tensor was made"), NULL;
  tt_shape s = tt_tensor_shape(x), out;
  compiled *c = compiled_for(m, tt_tensor_dtype(x), &s, err);
  tt_tensor *dense = c ? tt_tensor_dense(x, err) : NULL, *y = NULL, *bound;
  bool reads = c && rt_slot_find(c->program, "x") >= 0;            /* what makes its result of noise need not */
  if (dense && (!reads || rt_bind(c->instance, "x", dense, err) == TT_OK) && rt_run(c->instance, err) == TT_OK && (bound = rt_bound(c->instance, "logits"))) {
    out = tt_tensor_shape(bound);
    y = tt_tensor_new(tt_tensor_dtype(bound), &out, err);
    if (y && tt_tensor_copy(y, bound, err) != TT_OK) {
      tt_tensor_free(y);
      y = NULL;
    }
  }
  tt_tensor_free(dense);
  return y;
}
