/* update.c: the optimizer as rows. Outputs grad.NAME become assigns, by the text of the optimizer's row in optim.def, so that
 * forward, backward and update are one graph.
 *
 *     return %loss, grad.w = %dw        with sgd gives       %step = mul(broadcast(cast(%lr)), %dw)
 *                                                            assign(%w, sub(%w, %step))
 *                                                            return %loss
 *
 * The learning rate and the number of steps done are inputs, lr: f64[] and step: i64[], made here when the function has none. An
 * optimizer's state is a param NAME.STATE that is not trained and begins as zeros. With ema = d there is a running mean too, NAME.ema: the parameter itself
 * after the first update, then d of it and 1 - d of the parameter, as torch.optim.swa_utils.get_ema_multi_avg_fn(d); of running statistics alike.
 *
 * With accumulate = N there are two programs. Of N batches the first N-1 run the one that collects: assign(%w.grad, add(%w.grad, %dw)), where
 * the first takes %dw itself, so that nothing has to be set to zero. The last runs the one that updates, by mul(add(%w.grad, %dw), 1/N). step
 * counts batches then: which of the N this is, and how many updates were done, is computed from it; random masks differ from batch to batch. */
#include "passes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIM(name, states, hyper, text) {#name, states, hyper, text},
const optim_info optim_table[] = {
#include "optim.def"
    {NULL, NULL, NULL, NULL}};
#undef OPTIM

enum { MAX_NAMES = 32, MAX_TEXT = 64 };
typedef struct { pass_binding b[MAX_NAMES]; char text[MAX_NAMES][MAX_TEXT]; int n; } names;

static tt_status invalid(ir_graph *g, const char *format, ...) TT_PRINTF(2, 3);
static tt_status invalid(ir_graph *g, const char *format, ...) {
  char message[1500];
  va_list list;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
  return tt_fail(&g->error, TT_INVALID, "%s", message);
}

static pass_binding *find(names *e, const char *name, size_t length) {
  for (int i = 0; i < e->n; i++)
    if (strlen(e->b[i].name) == length && !memcmp(e->b[i].name, name, length)) return &e->b[i];
  return NULL;
}

/* The name bound anew, or for the first time. */
static pass_binding *bind(ir_graph *g, names *e, const char *name, size_t length, pass_binding value) {
  pass_binding *b = find(e, name, length);
  if (!b) {
    if (e->n == MAX_NAMES || length >= MAX_TEXT) return tt_bug(g, "an optimizer's text has too many or too long names, at %.40s", name), NULL;
    memcpy(e->text[e->n], name, length), e->text[e->n][length] = 0;
    b = &e->b[e->n];
    b->name = e->text[e->n++];
  }
  b->value = value.value, b->is_number = value.is_number, b->number = value.number;
  return b;
}

/* The next item of "a=1, b" : its name, and what follows '=' or '?', if anything. */
static bool next_item(const char **list, char separator, const char **name, size_t *length, const char **rest, size_t *rest_length) {
  const char *p = *list;
  while (*p == ' ' || *p == ',') p++;
  if (!*p) return false;
  *name = p;
  while (*p && *p != ',' && *p != separator && *p != ' ') p++;
  *length = (size_t)(p - *name);
  while (*p == ' ') p++;
  *rest = NULL, *rest_length = 0;
  if (*p == separator) {
    for (p++; *p == ' ';) p++;
    *rest = p;
    while (*p && *p != ',' && *p != ' ') p++;
    *rest_length = (size_t)(p - *rest);
  }
  *list = p;
  return true;
}

/* A number as pass_build_text reads them, or true, false. */
static bool read_value(const char *p, size_t n, double *v) {
  if (n == 4 && !memcmp(p, "true", 4)) return *v = 1, true;
  if (n == 5 && !memcmp(p, "false", 5)) return *v = 0, true;
  char text[MAX_TEXT];
  if (!n || n >= sizeof text) return false;
  memcpy(text, p, n), text[n] = 0;
  return pass_read_number(text, v);
}

static bool set_hyper(ir_graph *g, names *e, const optim_info *o, const char *list, bool given) {
  const char *name, *value;
  size_t length, n;
  while (list && next_item(&list, '=', &name, &length, &value, &n)) {
    double v;
    if (given && !find(e, name, length))
      return invalid(g, "error: %s has no hyperparameter %.*s\n  at the options of the optimizer\n  fix: use some of lr_scale=1, %s", o->name, (int)length, name, o->hyper), false;
    if (!value || !read_value(value, n, &v) || !isfinite(v))
      return invalid(g, "error: %.*s of %s is not a number\n  at the options of the optimizer\n  fix: write it as %.*s=0.1", (int)length, name, o->name, (int)length, name), false;
    bind(g, e, name, length, (pass_binding){.is_number = true, .number = v});
  }
  return true;
}

static const optim_info *optimizer(ir_graph *g, const char *name) {
  char list[400] = "";
  for (const optim_info *o = optim_table; o->name; o++) {
    if (!strcmp(o->name, name)) return o;
    size_t n = strlen(list);
    snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", o->name);
  }
  invalid(g, "error: there is no optimizer %s\n  at the options of the optimizer\n  fix: use one of %s", name, list);
  return NULL;
}

static ir_ref scalar_input(ir_graph *g, const char *name, tt_dtype t) {
  ir_ref r = ir_find(g, name);
  if (!r) return ir_input(g, name, t, (tt_shape){0});
  if (ir_at(g, r)->op == IR_input && ir_at(g, r)->dtype == t && ir_at(g, r)->rank == 0) return r;
  char type[120];
  tt_shape s = ir_shape(g, r);
  invalid(g, "error: %s is taken by an %s of type %s\n  at @%s, which is to be trained\n  fix: give it another name, or declare it as input %s[]", name,
          ir_ops[ir_at(g, r)->op].name, tt_type_text(ir_at(g, r)->dtype, &s, type, sizeof type), g->name, tt_dtype_name(t));
  return 0;
}

/* Runs the statements of the text over e. */
static void run(ir_graph *g, names *e, const char *text) {
  char expression[1000];
  while (!g->error.status) {
    while (*text == ' ') text++;
    const char *equals = strstr(text, " = "), *end = strchr(text, ';');
    if (!*text) return;
    if (!equals || !end || equals > end || (size_t)(end - equals) >= sizeof expression) { tt_bug(g, "the optimizer's text goes wrong at \"%s\"", text); return; }
    size_t n = (size_t)(end - (equals + 3));
    memcpy(expression, equals + 3, n), expression[n] = 0;
    ir_ref r = pass_build_text(g, expression, e->b, e->n);
    if (r) bind(g, e, text, (size_t)(equals - text), (pass_binding){.value = r});
    text = end + 1;
  }
}

static void assign(ir_graph *g, ir_ref param, const char *name, ir_ref value) {
  value = ir_cast(g, value, (tt_dtype)ir_at(g, param)->dtype);
  if (!g->error.status && !ir_assign(g, param, value) && !g->error.status) tt_bug(g, "no update of %s", name);
}

/* The sum of the gradients before this one, PARAM.grad. */
static ir_ref collected(ir_graph *g, ir_ref param, tt_dtype t) {
  char full[400];
  if ((size_t)snprintf(full, sizeof full, "%s.grad", ir_str(ir_at(g, param), "name")) >= sizeof full) return tt_bug(g, "too long a name of a param");
  return ir_param(g, full, t, ir_shape(g, param), false);
}

static tt_dtype sum_type(const ir_graph *g, ir_ref gradient) {
  tt_dtype t = (tt_dtype)ir_at(g, gradient)->dtype;
  return t == TT_F64 ? TT_F64 : TT_F32;
}

static void collect(ir_graph *g, ir_ref param, ir_ref gradient, int n, ir_ref step) {
  tt_dtype t = sum_type(g, gradient);
  ir_ref sum = collected(g, param, t), one = ir_cast(g, gradient, t);
  ir_ref first = ir_ew2(g, IR_eq, ir_ew2(g, IR_fmod, step, ir_scalar_int(g, TT_I64, n)), ir_scalar_int(g, TT_I64, 0));
  assign(g, sum, "grad", ir_select(g, first, one, ir_ew2(g, IR_add, sum, one)));
}

static ir_ref mean_gradient(ir_graph *g, ir_ref param, ir_ref gradient, int n) {
  tt_dtype t = sum_type(g, gradient);
  ir_ref sum = ir_ew2(g, IR_add, collected(g, param, t), ir_cast(g, gradient, t));
  return ir_cast(g, ir_ew2(g, IR_mul, sum, ir_scalar(g, t, 1.0 / n)), (tt_dtype)ir_at(g, gradient)->dtype);
}

/* NAME.ema follows what the parameter will be. step: updates done. */
static void average(ir_graph *g, ir_ref param, ir_ref next, double decay, ir_ref step) {
  char full[400];
  tt_dtype t = (tt_dtype)ir_at(g, param)->dtype;
  if ((size_t)snprintf(full, sizeof full, "%s.ema", ir_str(ir_at(g, param), "name")) >= sizeof full) { tt_bug(g, "too long a name of a param"); return; }
  ir_ref mean = ir_param(g, full, t, ir_shape(g, param), false), first = ir_ew2(g, IR_eq, step, ir_scalar_int(g, TT_I64, 0));
  next = ir_cast(g, next, t);
  ir_ref moved = ir_ew2(g, IR_add, mean, ir_ew2(g, IR_mul, ir_scalar(g, t, 1 - decay), ir_ew2(g, IR_sub, next, mean)));
  assign(g, mean, "ema", ir_select(g, first, next, moved));
}

/* The new value of the parameter; 0: the error is in g. */
static ir_ref update(ir_graph *g, ir_ref param, ir_ref gradient, const char *optim, const char *hyper, bool decays, ir_ref lr, ir_ref step) {
  const optim_info *o = optimizer(g, optim);
  names e = {.n = 0};
  if (!o) return 0;
  bind(g, &e, "lr_scale", 8, (pass_binding){.is_number = true, .number = 1});
  if (!set_hyper(g, &e, o, o->hyper, false) || !set_hyper(g, &e, o, hyper, true)) return 0;
  if (!decays && find(&e, "weight_decay", 12)) bind(g, &e, "weight_decay", 12, (pass_binding){.is_number = true, .number = 0});
  double scale = find(&e, "lr_scale", 8)->number;
  ir_ref t = ir_cast(g, ir_ew2(g, IR_add, step, ir_scalar_int(g, TT_I64, 1)), TT_F64);
  bind(g, &e, "p", 1, (pass_binding){.value = param});
  bind(g, &e, "g", 1, (pass_binding){.value = gradient});
  bind(g, &e, "t", 1, (pass_binding){.value = t});
  tt_shape shape = ir_shape(g, param);
  const char *name = ir_str(ir_at(g, param), "name");
  if (!strcmp(o->name, "muon") && shape.rank != 2) {
    invalid(g, "error: muon updates matrices, and %s has %d axes\n  at the options of the optimizer\n  fix: give the parameters that are no matrices to another optimizer, by a parameter group", name, shape.rank);
    return 0;
  }
  if (shape.rank == 2) {
    bind(g, &e, "rows", 4, (pass_binding){.is_number = true, .number = (double)shape.dim[0]});
    bind(g, &e, "cols", 4, (pass_binding){.is_number = true, .number = (double)shape.dim[1]});
  }
  bind(g, &e, "lr", 2, (pass_binding){.value = scale == 1 ? lr : ir_ew2(g, IR_mul, lr, ir_scalar(g, TT_F64, scale))});

  const char *states = o->states, *state, *if_hyper;
  size_t length, if_length;
  ir_ref kept[8];
  const char *kept_names[8];
  size_t kept_lengths[8];
  int n_kept = 0;
  while (next_item(&states, '?', &state, &length, &if_hyper, &if_length)) {
    if (if_hyper && find(&e, if_hyper, if_length)->number == 0) continue;
    char full[400];
    if (n_kept == 8 || (size_t)snprintf(full, sizeof full, "%s.%.*s", name, (int)length, state) >= sizeof full) return tt_bug(g, "too many or too long states of %s", name);
    bool scalar = full[strlen(full) - 1] == ']';
    if (scalar) length -= 2, full[strlen(full) - 2] = 0;
    kept[n_kept] = scalar ? ir_param(g, full, TT_F64, (tt_shape){0}, false) : ir_param(g, full, (tt_dtype)ir_at(g, param)->dtype, shape, false);
    kept_names[n_kept] = state, kept_lengths[n_kept] = length;
    bind(g, &e, state, length, (pass_binding){.value = kept[n_kept++]});
  }
  run(g, &e, o->text);
  if (g->error.status) return 0;
  ir_ref next = find(&e, "p", 1)->value;
  assign(g, param, "p", next);
  for (int i = 0; i < n_kept; i++) assign(g, kept[i], kept_names[i], find(&e, kept_names[i], kept_lengths[i])->value);
  return next;
}

/* min(1, clip / (norm + 1e-6)), f64[]: the norm over all gradients together. */
static ir_ref clip_factor(ir_graph *g, const ir_ref *gradients, int n, double clip) {
  ir_ref sum = 0;
  for (int i = 0; i < n; i++) {
    tt_dtype t = (tt_dtype)ir_at(g, gradients[i])->dtype;
    ir_ref x = t == TT_F64 ? gradients[i] : ir_cast(g, gradients[i], TT_F32);
    ir_ref s = ir_cast(g, ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, x, x), NULL, 0, false), TT_F64);
    sum = sum ? ir_ew2(g, IR_add, sum, s) : s;
  }
  ir_ref norm = ir_ew2(g, IR_add, ir_ew1(g, IR_sqrt, sum), ir_scalar(g, TT_F64, 1e-6));
  return ir_ew2(g, IR_min, ir_ew2(g, IR_div, ir_scalar(g, TT_F64, clip), norm), ir_scalar(g, TT_F64, 1));
}

/* The param whose gradient output i is, or 0. */
static ir_ref param_of(const ir_graph *g, const ir_output *o) {
  if (!o->name || strncmp(o->name, "grad.", 5)) return 0;
  ir_ref p = ir_find(g, o->name + 5);
  return p && ir_at(g, p)->op == IR_param && ir_int(ir_at(g, p), "trainable") ? p : 0;
}

/* The optimizer of a param, NULL: it is frozen. */
static const char *optimizer_of(const pass_options *o, const ir_graph *g, ir_ref param, const char **hyper) {
  int group = pass_group(o, ir_str(ir_at(g, param), "name"), ir_at(g, param)->rank);
  if (hyper) *hyper = group < 0 ? o->hyper : o->groups[group].hyper;
  return group < 0 ? o->optimizer : o->groups[group].optimizer;
}

tt_status pass_update(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  tt_status status = pass_copy(in, out, err);
  if (status != TT_OK || !options->train) return status;
  ir_ref *params = calloc(2 * (size_t)out->n_outputs + 1, sizeof *params), *gradients = params + out->n_outputs;
  if (!params) return tt_fail(err, TT_NO_MEMORY, "error: no memory for the gradients of @%s\n  at pass update\n  fix: free memory", in->name);
  int n = 0;
  uint32_t n_outputs = 0;
  for (uint32_t i = 0; i < out->n_outputs; i++) {
    ir_ref p = param_of(out, &out->outputs[i]);
    if (p) params[n] = p, gradients[n++] = out->outputs[i].value;
    if (!p || options->gradients) out->outputs[n_outputs++] = out->outputs[i];
  }
  out->n_outputs = n_outputs;

  ir_ref lr = 0, step = 0, factor = 0;
  uint32_t n_statistics = out->n_effects;                    /* what the function itself assigns */
  bool sums = options->accumulate > 1, collects = sums && options->collect;
  if (sums && n && !(step = scalar_input(out, "step", TT_I64))) n = 0;
  ir_ref updates = sums && !collects && n ? ir_ew2(out, IR_div, step, ir_scalar_int(out, TT_I64, options->accumulate)) : 0;
  for (int i = 0; i < n && sums && !out->error.status; i++) {
    if (!optimizer_of(options, out, params[i], NULL)) continue;
    out->at_origin = ir_at(out, params[i])->origin;
    if (collects) collect(out, params[i], gradients[i], options->accumulate, step);
    else gradients[i] = mean_gradient(out, params[i], gradients[i], options->accumulate);
    out->at_origin = 0;
  }
  if (options->clip_norm > 0 && n && !collects && !out->error.status) factor = clip_factor(out, gradients, n, options->clip_norm);
  for (int i = 0; i < n && !collects && !out->error.status; i++) {
    const char *hyper, *optim = optimizer_of(options, out, params[i], &hyper);
    if (!optim) continue;
    if (!lr && (!(lr = scalar_input(out, "lr", TT_F64)) || !(step = scalar_input(out, "step", TT_I64)))) break;
    ir_ref gradient = factor ? ir_ew2(out, IR_mul, gradients[i], ir_cast(out, factor, (tt_dtype)ir_at(out, gradients[i])->dtype)) : gradients[i];
    out->at_origin = ir_at(out, params[i])->origin;
    bool decays = !options->no_decay_norm_bias || ir_at(out, params[i])->rank >= 2;
    ir_ref next = update(out, params[i], gradient, optim, hyper, decays, lr, updates ? updates : step);
    if (next && options->ema > 0) average(out, params[i], next, options->ema, updates ? updates : step);
    out->at_origin = 0;
  }
  for (uint32_t i = 0; i < n_statistics && options->ema > 0 && lr && !out->error.status; i++) {
    const ir_node *a = ir_at(out, out->effects[i]);
    if (tt_dtype_in((tt_dtype)a->dtype, TT_REAL)) average(out, a->args[0], a->args[1], options->ema, updates ? updates : step);
  }
  free(params);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
