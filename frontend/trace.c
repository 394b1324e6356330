/* trace.c: from calls of a model function to rows of a graph.
 *
 * A trace is a graph under construction with what the rows do not hold: the path of scopes, the places in C source that are being
 * executed (the user's call, then the library's line inside a layer), and the parameters with their initializers. Every public op
 * opens a call, and rows made in it get its place as their origin:
 *
 *     %z = matmul(%x, %fc1.weight), ta=0, tb=1, split=0 : f32[64,128]      # mlp.c:14 fc1; linear.c:31 fc1
 *
 * Mistakes go to the graph's error, where the first one stays; the value returned is row 0, poison, and what is made of it is too. */
#include "frontend.h"

#include "../passes/passes.h"

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

tt_trace *tt_trace_new(const char *name, bool training) {
  tt_trace *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->g = ir_graph_new(name ? name : "model");
  t->training = training;
  if (t->g) return t;
  free(t);
  return NULL;
}

void tt_trace_free(tt_trace *t) {
  if (!t) return;
  for (int i = 0; i < t->n_params; i++) free((char *)t->params[i].name);
  for (int i = 0; i < t->n_warnings; i++) free(t->warnings[i]);
  while (t->bodies) {
    tt_trace *body = t->bodies;
    t->bodies = body->next_body;
    tt_trace_free(body);
  }
  free(t->params);
  free(t->warnings);
  free(t->captured);
  ir_graph_free(t->g);
  free(t);
}

tt_status tt_trace_finish(tt_trace *t, ir_graph **graph, tt_error *err) {
  *graph = NULL;
  if (!t || !t->g) return tt_fail(err, TT_INVALID,
                                  "error: trace_finish: the trace has been finished before\n  at the end of the trace\n  fix: finish each trace once");
  ir_graph *g = t->g;
  if (g->error.status == TT_OK && t->n_scopes)
    tt_fail(&g->error, TT_INVALID,
            "error: trace_finish: the scope %s is still open\n  at the end of the trace of %s\n  fix: call tt_scope_pop once for each tt_scope_push",
                t->scope, g->name);
  if (g->error.status == TT_OK && !g->n_outputs && !g->n_effects)
    tt_fail(&g->error, TT_INVALID, "error: trace_finish: %s returns nothing\n  at the end of its trace\n  fix: name what it gives with tt_output",
            g->name);
  if (g->error.status) return tt_fail(err, g->error.status, "%s", g->error.message);
  *graph = g;
  t->g = NULL;
  return TT_OK;
}

const char *tt_trace_warning(const tt_trace *t, int i) { return t && i >= 0 && i < t->n_warnings ? t->warnings[i] : NULL; }

void trace_warn(tt_trace *t, const char *format, ...) {
  char text[1024];
  while (t->parent) t = t->parent;
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  for (int i = 0; i < t->n_warnings; i++)
    if (!strcmp(t->warnings[i], text)) return;
  char *copy = strdup(text), **more = copy ? realloc(t->warnings, sizeof *more * (size_t)(t->n_warnings + 1)) : NULL;
  if (!more) {
    free(copy);
    return;
  }
  t->warnings = more;
  more[t->n_warnings++] = copy;
}

/* -- Calls, places, mistakes -------------------------------------------------------------------------------------------- */

/* New rows come from the user's line, and from the innermost line of the library when there is one. */
static void set_origin(tt_trace *t) {
  ir_graph *g = t->g;
  if (!t->n_places) {
    g->at_origin = 0;
    return;
  }
  int last = t->n_places < TRACE_PLACES ? t->n_places - 1 : TRACE_PLACES - 1;
  const char *scope = *t->scope ? t->scope : NULL;
  bool same = t->places[last].line == t->places[0].line && t->places[last].file == t->places[0].file;
  uint32_t inner = !same ? ir_origin_add(g, t->places[last].file, t->places[last].line, scope, 0) : 0;
  g->at_origin = ir_origin_add(g, t->places[0].file, t->places[0].line, scope, inner);
}

tt_call trace_open_empty(const char *op, tt_here here, tt_trace *t) {
  tt_call c = {.op = op};
  if (!t || !t->g) return c;
  c.t = t;
  if (t->n_places < TRACE_PLACES) t->places[t->n_places] = (tt_here){ir_intern(t->g, base_name(here.file)), here.line};
  t->n_places++;
  set_origin(t);
  if (t->g->error.status == TT_OK) c.g = t->g;
  return c;
}

void trace_close(tt_call *c) {
  if (!c->t || !c->t->g) return;
  c->t->n_places--;
  set_origin(c->t);
}

tt_call trace_open(const char *op, tt_here here, const tt_val *args, int n) {
  tt_trace *t = NULL;
  for (int i = 0; i < n && !t; i++) t = args[i].trace;
  tt_call c = trace_open_empty(op, here, t);
  c.n = n < 8 ? n : 8;
  memcpy(c.args, args, sizeof *args * (size_t)c.n);
  if (!c.g) return c;
  for (int i = 0; i < n && c.g; i++) {
    const tt_val v = args[i];
    if (v.trace && (v.trace->parent == t || t->parent == v.trace)) {
      trace_wrong(&c, "inside the body use what the step is given (hand other values in as `rest`), outside what tt_scan gives back", "argument %d is a value from %s of tt_scan", i + 1, v.trace->parent == t ? "the body" : "outside of the body");
      c.g = NULL;
    } else if (v.trace && v.trace != t) {
      trace_wrong(&c, "a value lives in the trace that made it; make it again in this one", "argument %d is a value of another trace", i + 1);
      c.g = NULL;
    } else if (!v.trace) {
      trace_wrong(&c, "give it a value: an input, a parameter, or the result of an op", "argument %d is missing", i + 1);
      c.g = NULL;
    } else if (!v.ref || v.ref >= c.g->n_nodes) {
      c.g = NULL;
    }
  }
  return c;
}

char *trace_place(const ir_graph *g, uint32_t origin, char *text, size_t size) {
  const ir_origin *o = &g->origins[origin];
  if (!origin) snprintf(text, size, "the trace");
  else if (o->scope && *o->scope) snprintf(text, size, "%s:%d in %s", o->file, o->line, o->scope);
  else snprintf(text, size, "%s:%d", o->file, o->line);
  return text;
}

static size_t put(char *text, size_t at, size_t size, const char *format, ...) TT_PRINTF(4, 5);
static size_t put(char *text, size_t at, size_t size, const char *format, ...) {
  if (at + 1 >= size) return at;
  va_list list;
  va_start(list, format);
  int n = vsnprintf(text + at, size - at, format, list);
  va_end(list);
  return n < 0 ? at : at + (size_t)n < size ? at + (size_t)n : size - 1;
}

static void value_name(const tt_call *c, tt_val v, char *text, size_t size) {
  const ir_node *n = c->t && c->t->g && v.trace == c->t && v.ref && v.ref < c->t->g->n_nodes ? ir_at(c->t->g, v.ref) : NULL;
  if (!n) snprintf(text, size, "?");
  else if (n->name) snprintf(text, size, "%%%s", n->name);
  else snprintf(text, size, "%%%u", v.ref);
}

tt_val trace_wrong(const tt_call *c, const char *fix, const char *format, ...) {
  if (!c->t || !c->t->g) return (tt_val){0};
  ir_graph *g = c->t->g;
  char what[700], head[400], where[700], place[200], name[100], type[120], from[200];
  va_list list;
  va_start(list, format);
  vsnprintf(what, sizeof what, format, list);
  va_end(list);
  size_t at = put(head, 0, sizeof head, c->n ? "%s(" : "%s", c->op),
      to = put(where, 0, sizeof where, "%s", trace_place(g, g->at_origin, place, sizeof place));
  bool described = false;
  for (int i = 0; i < c->n; i++) {
    const tt_val v = c->args[i];
    value_name(c, v, name, sizeof name);
    at = put(head, at, sizeof head, "%s%s", i ? ", " : "", name);
    if (*name == '?') continue;
    const ir_node *n = ir_at(g, v.ref);
    const tt_shape s = ir_shape(g, v.ref);
    const ir_origin *o = &g->origins[n->origin];
    from[0] = 0;
    if (n->origin && n->op != IR_input && n->op != IR_param) snprintf(from, sizeof from, " (%s, %s:%d)", ir_ops[n->op].name, o->file, o->line);
    to = put(where, to, sizeof where, "%s%s is %s%s", described ? ", " : ": ", name, tt_type_text((tt_dtype)n->dtype, &s, type, sizeof type), from);
    described = true;
  }
  tt_fail(&g->error, TT_INVALID, "error: %s%s: %s\n  at %s\n  fix: %s", head, c->n ? ")" : "", what, where, fix);
  return (tt_val){c->t, 0};
}

bool trace_axis(const tt_call *c, int axis, int rank, int *out) {
  *out = axis < 0 ? axis + rank : axis;
  if (*out >= 0 && *out < rank) return true;
  char fix[100];
  if (rank) snprintf(fix, sizeof fix, "give an axis from %d to %d", -rank, rank - 1);
  else snprintf(fix, sizeof fix, "a scalar has no axes");
  trace_wrong(c, fix, "there is no axis %d in rank %d", axis, rank);
  return false;
}

int trace_axes(const tt_call *c, tt_val x, tt_ints axes, int *out) {
  int rank = tt_rank(x), n = axes.n ? axes.n : rank, used = 0;
  if (n > rank || n > TT_MAX_RANK) {
    trace_wrong(c, "name each axis once", "%d axes are named, but the rank is %d", n, rank);
    return -1;
  }
  for (int i = 0; i < n; i++) {
    if (!trace_axis(c, axes.n ? (int)axes.v[i] : i, rank, &out[i])) return -1;
    if (used >> out[i] & 1) {
      trace_wrong(c, "name each axis once", "axis %d is named twice", out[i]);
      return -1;
    }
    used |= 1 << out[i];
  }
  return n;
}

bool trace_broadcasts(const tt_shape *a, const tt_shape *b, tt_shape *out) {
  out->rank = a->rank > b->rank ? a->rank : b->rank;
  for (int i = 1; i <= out->rank; i++) {
    int64_t p = i <= a->rank ? a->dim[a->rank - i] : 1, q = i <= b->rank ? b->dim[b->rank - i] : 1;
    if (p != q && p != 1 && q != 1) return false;
    out->dim[out->rank - i] = p == 1 ? q : p;
  }
  return true;
}

bool trace_is(tt_val v) { return v.trace != NULL; }

tt_val trace_text(tt_call *c, const char *text, const char *const *names, const tt_val *vals, const double *numbers, int n) {
  pass_binding bindings[8];
  for (int i = 0; i < n; i++)
    bindings[i] = vals[i].trace ? (pass_binding){.name = names[i], .value = vals[i].ref}
                                : (pass_binding){.name = names[i], .is_number = true, .number = numbers[i]};
  return (tt_val){c->t, pass_build_text(c->g, text, bindings, n)};
}

/* -- Scopes, inputs, outputs -------------------------------------------------------------------------------------------- */

void tt_scope_push_at(tt_here here, tt_val x, const char *name) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open_empty("scope_push", here, x.trace);
  tt_trace *t = c.t;
  if (!t) return;
  if (!name) name = "";
  size_t used = strlen(t->scope), more = strlen(name);
  if (c.g && (!*name || strpbrk(name, "/. \t\n")))
    trace_wrong(&c, "use letters, digits, _ and -", "the scope name \"%s\" is empty or has a blank, a dot or a slash in it", name);
  if (t->n_scopes < TRACE_SCOPES) t->scope_length[t->n_scopes] = used;
  if (t->n_scopes++ >= TRACE_SCOPES || used + more + 2 > sizeof t->scope) {
    trace_wrong(&c, "nest fewer scopes, or name them shorter", "scopes are nested too deep at %s", name);
    return;
  }
  snprintf(t->scope + used, sizeof t->scope - used, "%s%s", used ? "/" : "", name);
}

void tt_scope_pop_at(tt_here here, tt_val x) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open_empty("scope_pop", here, x.trace);
  tt_trace *t = c.t;
  if (!t) return;
  if (!t->n_scopes) {
    trace_wrong(&c, "call tt_scope_pop once for each tt_scope_push", "no scope is open");
    return;
  }
  if (--t->n_scopes < TRACE_SCOPES) t->scope[t->scope_length[t->n_scopes]] = 0;
}

tt_val tt_input_at(tt_here here, tt_trace *t, const char *name, tt_dtype dtype, tt_shape shape) {
  __attribute__((cleanup(trace_close))) tt_call call = trace_open_empty("input", here, t);
  if (!call.g) DONE(0);
  if (t->parent) WRONG("hand it to tt_scan, as one of xs or of the rest", "the body of tt_scan takes no inputs of its own");
  if (ir_find(call.g, name)) WRONG("give each input and parameter a name of its own", "the name \"%s\" is taken", name);
  for (int i = 0; i < shape.rank; i++)
    if (shape.dim[i] < 0) WRONG("shapes are fixed when tracing; give the size", "dimension %d of \"%s\" is %lld", i, name, (long long)shape.dim[i]);
  DONE(ir_input(call.g, name, dtype, shape));
}

ir_ref trace_scalar_input(tt_trace *t, const char *name, tt_dtype dtype) {
  char place[200];
  if (t->parent) return tt_fail(&t->g->error, TT_INVALID, "error: random numbers in the body of tt_scan, which would be the same in each step\n  at %s\n  fix: draw them outside, with an axis of steps, and hand them in as one of xs", trace_place(t->g, t->g->at_origin, place, sizeof place)), 0;
  ir_ref r = ir_find(t->g, name);
  return r ? r : ir_input(t->g, name, dtype, TT_SCALAR);
}

void tt_loss_at(tt_here here, tt_val v) {
  tt_call call __attribute__((cleanup(trace_close))) = trace_open("loss", here, &v, 1);
  if (!call.g) return;
  if (call.t->parent) {
    trace_wrong(&call, "give it as one of y, and say the loss of what tt_scan gives back", "the body of tt_scan has no loss");
    return;
  }
  if (tt_rank(v) || !tt_dtype_in(tt_dtype_of(v), TT_REAL)) {
    trace_wrong(&call, "take its mean or sum", "a loss is one real number");
    return;
  }
  call.t->loss = trace_is(call.t->loss) ? tt_add(call.t->loss, v) : v;
}

void tt_output_at(tt_here here, tt_trace *t, const char *name, tt_val v) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open_empty("output", here, t);
  if (!c.g) return;
  if (t->parent) {
    trace_wrong(&c, "set it as one of y", "the body of tt_scan has no outputs of its own");
    return;
  }
  if (!v.trace || v.trace != t) {
    trace_wrong(&c, "give it a value of this trace", "\"%s\" is %s", name, v.trace ? "a value of another trace" : "no value");
    return;
  }
  for (uint32_t i = 0; i < c.g->n_outputs; i++)
    if (c.g->outputs[i].name && !strcmp(c.g->outputs[i].name, name)) {
      trace_wrong(&c, "give each output a name of its own", "there is an output \"%s\" already", name);
      return;
    }
  if (ir_find(c.g, name)) {
    trace_wrong(&c, "name the output otherwise: programs find what they are given and give by name", "\"%s\" is the name of an input or parameter",
                name);
    return;
  }
  if (v.ref) ir_output_add(c.g, name, v.ref);
}

bool tt_ok(tt_val x) { return x.trace && x.trace->g && x.ref && x.ref < x.trace->g->n_nodes; }
bool tt_is_training(tt_val x) { return x.trace && x.trace->training; }
tt_shape tt_shape_of(tt_val x) { return tt_ok(x) ? ir_shape(x.trace->g, x.ref) : TT_SCALAR; }
tt_dtype tt_dtype_of(tt_val x) { return tt_ok(x) ? (tt_dtype)ir_at(x.trace->g, x.ref)->dtype : TT_F32; }
int tt_rank(tt_val x) { return tt_ok(x) ? ir_at(x.trace->g, x.ref)->rank : 0; }
int64_t tt_dim(tt_val x, int axis) {
  int rank = tt_rank(x), i = axis < 0 ? axis + rank : axis;
  return i >= 0 && i < rank ? ir_at(x.trace->g, x.ref)->dim[i] : 1;
}

/* -- Parameters --------------------------------------------------------------------------------------------------------- */

tt_val tt_param_typed_at(tt_here here, tt_trace *t, const char *name, tt_dtype dtype, tt_shape shape, tt_init init, tt_param_use use) {
  __attribute__((cleanup(trace_close))) tt_call call = trace_open_empty("param", here, t);
  if (!call.g) DONE(0);
  char full[768];
  size_t used = strlen(t->scope);
  snprintf(full, sizeof full, "%s%s%s", t->scope, used ? "." : "", name);
  for (size_t i = 0; i < used; i++)
    if (full[i] == '/') full[i] = '.';
  tt_trace *owner = t;                    /* a scan's body has no parameters of its own */
  while (owner->parent) owner = owner->parent;
  for (int i = 0; i < owner->n_params; i++)
    if (!strcmp(owner->params[i].name, full))
      WRONG("give this layer another name; to share weights, declare the parameter once and pass the value on",
            "the name \"%s\" is taken by the parameter made at %s:%d", full, owner->params[i].file, owner->params[i].line);
  if (ir_find(call.g, full) || ir_find(owner->g, full)) WRONG("give each input and parameter a name of its own", "the name \"%s\" is taken by an input", full);
  for (int i = 0; i < shape.rank; i++)
    if (shape.dim[i] <= 0) WRONG("give sizes of at least 1", "dimension %d of \"%s\" is %lld", i, full, (long long)shape.dim[i]);
  bool needs_fan = init.kind >= TT_INIT_XAVIER_UNIFORM && init.kind <= TT_INIT_KAIMING_NORMAL;
  if (needs_fan && shape.rank < 2)
    WRONG("use tt_init_uniform or tt_init_normal for it", "\"%s\" has rank %d, and fans need [out, in, ...]", full, shape.rank);
  if (owner->n_params == owner->cap_params) {
    int cap = owner->cap_params ? owner->cap_params * 2 : 16;
    trace_param *more = realloc(owner->params, sizeof *more * (size_t)cap);
    if (!more) {
      tt_fail(&call.g->error, TT_NO_MEMORY, "error: param: no memory for another parameter");
      DONE(0);
    }
    owner->params = more;
    owner->cap_params = cap;
  }
  char *copy = strdup(full);
  if (!copy) {
    tt_fail(&call.g->error, TT_NO_MEMORY, "error: param: no memory for a name");
    DONE(0);
  }
  ir_ref r = ir_param(owner->g, full, dtype, shape, use == TT_TRAINED);
  owner->params[owner->n_params++] = (trace_param){copy, r, dtype, shape, init, use, ir_intern(owner->g, t->places[0].file), t->places[0].line};
  DONE(trace_capture(t, r, full));
}

/* Of the first real input; f32 when all are integers. */
static tt_dtype input_type(const ir_graph *g) {
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (ir_at(g, r)->op == IR_input && tt_dtype_in((tt_dtype)ir_at(g, r)->dtype, TT_REAL)) return (tt_dtype)ir_at(g, r)->dtype;
  return TT_F32;
}

tt_val tt_param_at(tt_here here, tt_val x, const char *name, tt_shape shape, tt_init init, tt_param_use use) {
  OPEN("param", here, x);
  tt_dtype dtype = tt_dtype_in(tt_dtype_of(x), TT_REAL) ? tt_dtype_of(x) : input_type(g);
  return tt_param_typed_at(here, x.trace, name, dtype, shape, init, use);
}

void tt_assign_at(tt_here here, tt_val param, tt_val v) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("assign", here, (const tt_val[]){param, v}, 2);
  if (!c.g) return;
  if (c.t->parent) {
    trace_wrong(&c, "make it a carry, and assign what tt_scan gives back", "the body of tt_scan changes no state");
    return;
  }
  const ir_node *p = ir_at(c.g, param.ref), *n = ir_at(c.g, v.ref);
  tt_shape ps = ir_shape(c.g, param.ref), ns = ir_shape(c.g, v.ref);
  if (p->op != IR_param) {
    trace_wrong(&c, "assign to the value that tt_param or tt_state returned", "the first argument is no parameter");
    return;
  }
  if (p->dtype != n->dtype || !tt_shape_equal(&ps, &ns)) {
    trace_wrong(&c, "give a value of the parameter's type and shape", "types differ");
    return;
  }
  for (uint32_t i = 0; i < c.g->n_effects; i++)
    if (ir_at(c.g, c.g->effects[i])->args[0] == param.ref) {
      trace_wrong(&c, "put both changes into one value", "the parameter is assigned twice");
      return;
    }
  ir_assign(c.g, param.ref, v.ref);
}

/* -- Gradients ---------------------------------------------------------------------------------------------------------- */

static void gradients(tt_call *c, ir_ref y, ir_ref cotangent, const tt_val *wrt, int n, tt_val *out) {
  ir_ref *refs = calloc(n > 0 ? (size_t)n : 1, 2 * sizeof *refs);
  if (!refs) {
    tt_fail(&c->g->error, TT_NO_MEMORY, "error: grad: no memory for %d gradients", n);
    return;
  }
  bool good = true;
  for (int i = 0; i < n && good; i++) {
    refs[i] = wrt[i].ref;
    good = wrt[i].trace == c->t && wrt[i].ref;
    if (good && !tt_dtype_in(tt_dtype_of(wrt[i]), TT_REAL)) {
      trace_wrong(c, "differentiate with respect to values of a real type", "value %d has the type %s", i + 1, tt_dtype_name(tt_dtype_of(wrt[i])));
      good = false;
    } else if (!good) {
      trace_wrong(c, "give values of this trace", "value %d is missing", i + 1);
    }
  }
  if (good && pass_vjp(c->g, y, cotangent, refs, n, refs + n))
    for (int i = 0; i < n; i++) out[i].ref = refs[n + i];
  free(refs);
}

void tt_grad_at(tt_here here, tt_val loss, const tt_val *wrt, int n, tt_val *out) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("grad", here, &loss, 1);
  for (int i = 0; i < n; i++) out[i] = (tt_val){c.t, 0};
  if (!c.g) return;
  if (tt_rank(loss)) trace_wrong(&c, "reduce it with tt_sum or tt_mean, or use tt_vjp", "the loss is no scalar");
  else if (!tt_dtype_in(tt_dtype_of(loss), TT_REAL)) trace_wrong(&c, "use tt_cast to make it real", "the loss is of type %s",
                                                                 tt_dtype_name(tt_dtype_of(loss)));
  else gradients(&c, loss.ref, 0, wrt, n, out);
}

void tt_vjp_at(tt_here here, tt_val y, tt_val cotangent, const tt_val *wrt, int n, tt_val *out) {
  __attribute__((cleanup(trace_close))) tt_call c = trace_open("vjp", here, (const tt_val[]){y, cotangent}, 2);
  for (int i = 0; i < n; i++) out[i] = (tt_val){c.t, 0};
  if (!c.g) return;
  tt_shape a = tt_shape_of(y), b = tt_shape_of(cotangent);
  if (tt_dtype_of(y) != tt_dtype_of(cotangent) || !tt_shape_equal(&a, &b)) trace_wrong(&c, "give a cotangent of y's type and shape", "types differ");
  else gradients(&c, y.ref, cotangent.ref, wrt, n, out);
}
