/* scan.c: tt_scan: a loop over time whose body is a function of the user's. The function is called once, on a trace of its own, and writes the graph of one step; that becomes a
 * function of the graph, and one row scan calls it. What the body declares with tt_param is a parameter of the model, and comes into the step as one of the values that stay the
 * same (the rest), like those that the caller gives.
 *
 *     %h1 = scan(%h0, %x, %w), body=@step, carries=1, xs=1, length=20, reversed=0, result=1 : f32[20,8,32] */
#include "frontend.h"

/* The value `outer` of the model's own trace, as one of t's: itself, or an input of the body that each scan around it hands on. */
ir_ref trace_capture(tt_trace *t, ir_ref outer, const char *name) {
  if (!t->parent) return outer;
  ir_ref from = trace_capture(t->parent, outer, name);
  ir_ref *more = from ? realloc(t->captured, sizeof *more * (size_t)(t->n_captured + 1)) : NULL;
  if (!more) return tt_fail(&t->g->error, TT_NO_MEMORY, "error: no memory for another parameter\n  at the body of tt_scan\n  fix: free memory"), 0;
  t->captured = more;
  t->captured[t->n_captured++] = from;
  return ir_input(t->g, name, (tt_dtype)ir_at(t->parent->g, from)->dtype, ir_shape(t->parent->g, from));
}

static bool same_type(tt_val a, tt_val b) {
  tt_shape s = tt_shape_of(a), t = tt_shape_of(b);
  return tt_dtype_of(a) == tt_dtype_of(b) && tt_shape_equal(&s, &t);
}

/* Values of the body that stand for the n given ones; step: without their first axis. */
static void stand_ins(tt_trace *t, const char *kind, const tt_val *given, int n, bool carry, bool step, tt_val *to) {
  for (int i = 0; i < n; i++) {
    char name[24];
    snprintf(name, sizeof name, "%s%d", kind, i);
    tt_shape s = tt_shape_of(given[i]);
    if (step) memmove(s.dim, s.dim + 1, sizeof *s.dim * (size_t)--s.rank);
    tt_dtype type = tt_dtype_of(given[i]);
    to[i] = (tt_val){t, carry ? ir_param(t->g, name, type, s, false) : ir_input(t->g, name, type, s)};
  }
}

/* Calls the body on a trace of its own, which stays the parent's to free: its values are known as strangers later on. NULL: the parent's graph has the error. */
static tt_trace *trace_body(const tt_call *c, tt_scan_body *body, void *arg, const tt_scan_args *a) {
  tt_trace *parent = c->t, *t = tt_trace_new("step", parent->training);
  if (!t) return tt_fail(&c->g->error, TT_NO_MEMORY, "error: no memory for a trace\n  at the body of tt_scan\n  fix: free memory"), NULL;
  t->parent = parent, t->next_body = parent->bodies, parent->bodies = t;
  memcpy(t->scope, parent->scope, sizeof t->scope);
  tt_val carry[TT_SCAN_MOST] = {{0}}, x[TT_SCAN_MOST] = {{0}}, rest[TT_SCAN_MOST] = {{0}}, next[TT_SCAN_MOST] = {{0}}, y[TT_SCAN_MOST] = {{0}};
  stand_ins(t, "carry", a->carry, a->n_carry, true, false, carry);
  stand_ins(t, "x", a->x, a->n_x, false, true, x);
  stand_ins(t, "rest", a->rest, a->n_rest, false, false, rest);
  body(&(tt_scan_step){carry, x, rest, next, y}, arg);
  const char *wrong = strcmp(t->scope, parent->scope) ? "the body has left a scope open" : NULL;
  int at = 0;
  for (int i = 0; i < a->n_carry && !wrong; i++)
    if (next[i].trace != t) wrong = "the body gives no next value of carry %d, or one of another trace", at = i;
    else if (next[i].ref && !same_type(next[i], carry[i])) wrong = "the next value of carry %d has another type or shape than the carry", at = i;
  for (int i = 0; i < a->n_y && !wrong; i++)
    if (y[i].trace != t) wrong = "the body gives no y[%d], or one of another trace", at = i;
  if (t->g->error.status) return tt_fail(&c->g->error, t->g->error.status, "%s", t->g->error.message), NULL;
  if (wrong) return trace_wrong(c, "set next[i] for each carry and y[i] for each result, made of what the step is given", wrong, at), NULL;
  for (int i = 0; i < a->n_carry; i++) ir_assign(t->g, carry[i].ref, next[i].ref);
  for (int i = 0; i < a->n_y; i++) {
    char name[24];
    snprintf(name, sizeof name, "y%d", i);
    ir_output_add(t->g, name, y[i].ref);
  }
  return t;
}

tt_scan_result tt_scan_at(tt_here here, tt_scan_body *body, void *arg, tt_scan_args a) {
  tt_scan_result out = {0};
  tt_val given[3 * TT_SCAN_MOST];
  int n = 0;
  bool counts = true;
  const struct { const tt_val *v; int n; } lists[] = {{a.carry, a.n_carry}, {a.x, a.n_x}, {a.rest, a.n_rest}};
  for (int k = 0; k < 3; k++) {
    bool fits = lists[k].n >= 0 && lists[k].n <= TT_SCAN_MOST;
    counts &= fits;
    for (int i = 0; fits && i < lists[k].n; i++) given[n++] = lists[k].v[i];
  }
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("scan", here, given, n);
  for (int i = 0; i < TT_SCAN_MOST; i++) out.carry[i] = out.y[i] = (tt_val){call.t, 0};
  if (!call.g) return out;
  char wrong[200] = "";
  if (!counts || a.n_y < 0 || a.n_y > TT_SCAN_MOST || a.n_carry + a.n_y == 0) snprintf(wrong, sizeof wrong, "%d carries, %d xs, %d of the rest and %d ys", a.n_carry, a.n_x, a.n_rest, a.n_y);
  int64_t length = a.n_x ? tt_dim(a.x[0], 0) : a.length;
  for (int i = 0; i < a.n_x && !wrong[0]; i++)
    if (tt_rank(a.x[i]) < 1 || tt_dim(a.x[i], 0) != length) snprintf(wrong, sizeof wrong, "x[%d] has no first axis of %lld steps", i, (long long)length);
  if (!wrong[0] && (length < 0 || (a.n_x && a.length && a.length != length))) snprintf(wrong, sizeof wrong, "the length is %lld", (long long)(length < 0 ? length : a.length));
  if (wrong[0]) { trace_wrong(&call, "give 0 to 16 of each list, something that comes out, and xs of one length (without xs: the length)", "%s", wrong); return out; }
  tt_trace *t = trace_body(&call, body, arg, &a);
  if (!t) return out;
  ir_graph *step = t->g;
  t->g = NULL;
  int64_t f = ir_function_add(call.g, step);
  ir_ref *args = f < 0 ? NULL : malloc(sizeof *args * (size_t)(n + t->n_captured));
  if (!args) {
    tt_fail(&call.g->error, TT_NO_MEMORY, "error: no memory for the body of tt_scan\n  at tt_scan\n  fix: free memory");
    if (f < 0) ir_graph_free(step);
    return out;
  }
  for (int i = 0; i < n; i++) args[i] = given[i].ref;
  for (int i = 0; i < t->n_captured; i++) args[n + i] = t->captured[i];
  for (int i = 0; i < a.n_carry + a.n_y; i++) {
    tt_val *v = i < a.n_carry ? &out.carry[i] : &out.y[i - a.n_carry];
    v->ref = ir_scan(call.g, args, (uint32_t)(n + t->n_captured), (ir_scan_attrs){.body = f, .carries = a.n_carry, .xs = a.n_x, .length = length, .reversed = a.reversed, .result = i});
  }
  free(args);
  return out;
}
