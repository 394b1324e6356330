/* loss.c: losses. Each is a value an element (or a row) and a reduction; the formulas are text (passes/rewrite.c), with corners as in
 * functions.def. cross_entropy picks a row's class by comparing with the index along the classes, which a rule makes a gather of
 * (passes/rewrite_computed.c); softmax, loss and their gradient are one pass over the row:
 *
 *     %hot  = eq(%labels, iota)                      # [N,C,*D]
 *     %loss = neg(sum(select(%hot, %log_softmax, 0), axes=[1])) */
#include "../frontend.h"

static tt_val reduced(tt_call *c, ir_ref y, tt_reduction r) {
  if (!y || r == TT_NONE) return (tt_val){c->t, y};
  tt_shape s = ir_shape(c->g, y);
  ir_ref sum = s.rank ? ir_reduce(c->g, IR_sum, y, NULL, 0, false) : y;
  double count = r == TT_SUM ? 1 : r == TT_MEAN ? (double)tt_shape_count(&s) : s.rank ? (double)s.dim[0] : 1;
  return (tt_val){c->t, count == 1 || !sum ? sum : ir_ew2(c->g, IR_div, sum, ir_like(c->g, sum, count))};
}

/* Two values of one real type and one shape. */
static bool alike(tt_call *c, tt_val x, tt_val y) {
  tt_shape a = tt_shape_of(x), b = tt_shape_of(y);
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) trace_wrong(c, "use tt_cast to make it f32", "it takes real numbers, not %s",
                                                         tt_dtype_name(tt_dtype_of(x)));
  else if (tt_dtype_of(x) != tt_dtype_of(y)) trace_wrong(c, "use tt_cast on one of them", "element types differ, %s and %s",
                                                         tt_dtype_name(tt_dtype_of(x)), tt_dtype_name(tt_dtype_of(y)));
  else if (!tt_shape_equal(&a, &b)) trace_wrong(c, "give a target of the prediction's shape; tt_squeeze or tt_reshape one of them", "shapes differ");
  else return true;
  return false;
}

/* A loss that is a formula of x, y and at most two numbers. */
static tt_val formula(tt_here here, const char *name, const char *text, tt_val x, tt_val y, double p, double q, tt_reduction r) {
  OPEN(name, here, x, y);
  if (!alike(&call, x, y)) DONE(0);
  const char *const names[] = {"x", "y", "p", "q"};
  return reduced(&call, trace_text(&call, text, names, (const tt_val[]){x, y, {0}, {0}}, (const double[]){0, 0, p, q}, 4).ref, r);
}

tt_val tt_mse_at(tt_here here, tt_val x, tt_val y, tt_reduction r) { return formula(here, "mse", "mul(sub(x, y), sub(x, y))", x, y, 0, 0, r); }
tt_val tt_l1_at(tt_here here, tt_val x, tt_val y, tt_reduction r) { return formula(here, "l1", "abs(sub(x, y))", x, y, 0, 0, r); }

tt_val tt_huber_at(tt_here here, tt_val x, tt_val y, double delta, tt_reduction r) {
  return formula(here, "huber", "select(lt(abs(sub(x, y)), p), mul(0.5, mul(sub(x, y), sub(x, y))), mul(p, sub(abs(sub(x, y)), q)))", x, y, delta,
                 delta / 2, r);
}

tt_val tt_smooth_l1_at(tt_here here, tt_val x, tt_val y, double beta, tt_reduction r) {
  if (beta == 0) return tt_l1_at(here, x, y, r);
  return formula(here, "smooth_l1", "select(lt(abs(sub(x, y)), p), div(mul(0.5, mul(sub(x, y), sub(x, y))), p), sub(abs(sub(x, y)), q))", x, y, beta,
                 beta / 2, r);
}

/* Logarithms are at least -100, as in PyTorch; those of 0 are -100 with no gradient. */
tt_val tt_binary_cross_entropy_at(tt_here here, tt_val x, tt_val y, tt_reduction r) {
  return formula(here, "binary_cross_entropy",
                 "neg(add(mul(y, select(gt(x, 0), max(log(select(gt(x, 0), x, 1)), -100), -100)),"
                 " mul(sub(1, y), select(lt(x, 1), max(log1p(neg(select(lt(x, 1), x, 0))), -100), -100))))", x, y, 0, 0, r);
}

/* log(1 + exp(-x)) as log1p(exp(-|x|)) + max(-x, 0). */
tt_val tt_binary_cross_entropy_with_logits_at(tt_here here, tt_val x, tt_val y, tt_val weight, tt_val pos_weight, tt_reduction r) {
  tt_val args[4] = {x, y};
  int n = 2;
  if (trace_is(weight)) args[n++] = weight;
  if (trace_is(pos_weight)) args[n++] = pos_weight;
  __attribute__((cleanup(trace_close))) tt_call call = trace_open("binary_cross_entropy_with_logits", here, args, n);
  if (!call.g || !alike(&call, x, y)) DONE(0);
  const char *const names[] = {"x", "y", "w"};
  ir_ref l = trace_is(pos_weight)
    ? trace_text(&call, "add(mul(sub(1, y), x), mul(add(mul(sub(w, 1), y), 1), add(log1p(exp(neg(abs(x)))), max(neg(x), 0))))", names,
                 (const tt_val[]){x, y, pos_weight}, NULL, 3).ref
    : trace_text(&call, "add(sub(max(x, 0), mul(x, y)), log1p(exp(neg(abs(x)))))", names, (const tt_val[]){x, y}, NULL, 2).ref;
  if (l && trace_is(weight)) l = ir_ew2(call.g, IR_mul, l, weight.ref);
  return reduced(&call, l, r);
}

tt_val tt_kl_div_at(tt_here here, tt_val x, tt_val y, bool log_target, tt_reduction r) {
  if (log_target) return formula(here, "kl_div", "mul(exp(y), sub(y, x))", x, y, 0, 0, r);
  return formula(here, "kl_div", "sub(mul(y, log(select(gt(y, 0), y, 1))), mul(y, x))", x, y, 0, 0, r);
}

tt_val tt_gaussian_nll_at(tt_here here, tt_val x, tt_val y, tt_val var, bool full, double eps, tt_reduction r) {
  OPEN("gaussian_nll", here, x, y, var);
  if (!alike(&call, x, y) || !alike(&call, x, var)) DONE(0);
  /* var below eps is raised to it, and the gradient goes through as if it had not been. */
  tt_val v = trace_text(&call, "add(v, stop_gradient(sub(select(lt(v, p), p, v), v)))", (const char *const[]){"v", "p"}, (const tt_val[]){var, {0}},
                        (const double[]){0, eps}, 2);
  if (!v.ref) DONE(0);
  return reduced(&call,
                 trace_text(&call, "add(mul(0.5, add(log(v), div(mul(sub(x, y), sub(x, y)), v))), p)", (const char *const[]){"x", "y", "v", "p"},
                                   (const tt_val[]){x, y, v, {0}}, (const double[]){0, 0, 0, full ? 0.91893853320467274 : 0}, 4).ref, r);
}

tt_val tt_poisson_nll_at(tt_here here, tt_val x, tt_val y, bool log_input, bool full, double eps, tt_reduction r) {
  OPEN("poisson_nll", here, x, y);
  if (!alike(&call, x, y)) DONE(0);
  const char *const names[] = {"x", "y", "e"};
  const tt_val vals[] = {x, y, {0}};
  const double numbers[] = {0, 0, eps};
  ir_ref l = trace_text(&call, log_input ? "sub(exp(x), mul(y, x))" : "sub(x, mul(y, log(add(x, e))))", names, vals, numbers, 3).ref;
  if (l && full) {        /* Stirling's approximation of log(y!), from 1 on */
    const char *text = "select(gt(y, 1), add(sub(mul(y, log(select(gt(y, 1), y, 1))), y), mul(0.5, log(mul(6.283185307179586, select(gt(y, 1), y, 1))))), 0)";
    l = ir_ew2(g, IR_add, l, trace_text(&call, text, names, vals, numbers, 3).ref);
  }
  return reduced(&call, l, r);
}

/* y of x's type: the integers 1 and -1 may be given too. */
static tt_val sign_labels(tt_call *c, tt_val y, tt_val x) {
  return (tt_val){c->t, ir_cast(c->g, y.ref, tt_dtype_of(x))};
}

tt_val tt_hinge_embedding_at(tt_here here, tt_val x, tt_val y, double margin, tt_reduction r) {
  OPEN("hinge_embedding", here, x, y);
  return formula(here, "hinge_embedding", "add(select(eq(y, 1), 0, select(gt(sub(p, x), 0), sub(p, x), 0)), select(eq(y, -1), 0, x))", x,
                 sign_labels(&call, y, x), margin, 0, r);
}

tt_val tt_cosine_embedding_at(tt_here here, tt_val a, tt_val b, tt_val y, double margin, tt_reduction r) {
  OPEN("cosine_embedding", here, a, b, y);
  if (!alike(&call, a, b)) DONE(0);
  if (tt_rank(a) != 2 || tt_rank(y) != 1 || tt_dim(y, 0) != tt_dim(a, 0)) WRONG("give a and b [N, D], y [N]", "the shapes do not fit");
  int last = 1;
  ir_ref dot = ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, a.ref, b.ref), &last, 1, false);
  ir_ref aa = ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, a.ref, a.ref), &last, 1, false),
      bb = ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, b.ref, b.ref), &last, 1, false);
  tt_val cosine = trace_text(&call, "div(d, sqrt(mul(add(a, 1e-12), add(b, 1e-12))))", (const char *const[]){"d", "a", "b"},
                             (const tt_val[]){{a.trace, dot}, {a.trace, aa}, {a.trace, bb}}, NULL, 3);
  if (!cosine.ref) DONE(0);
  return formula(here, "cosine_embedding", "select(eq(y, 1), sub(1, x), select(eq(y, -1), select(gt(sub(x, p), 0), sub(x, p), 0), 0))", cosine,
                 sign_labels(&call, y, a), margin, 0, r);
}

tt_val tt_triplet_margin_at(tt_here here, tt_val anchor, tt_val positive, tt_val negative, double margin, double p, tt_reduction r) {
  OPEN("triplet_margin", here, anchor, positive, negative);
  if (!alike(&call, anchor, positive) || !alike(&call, anchor, negative)) DONE(0);
  if (tt_rank(anchor) < 1) WRONG("give [N, D]", "scalars have no distance");
  ir_ref eps = ir_like(g, anchor.ref, 1e-6);          /* PyTorch adds it to each difference */
  tt_val near = {anchor.trace, ir_ew2(g, IR_add, ir_ew2(g, IR_sub, anchor.ref, positive.ref), eps)},
      far = {anchor.trace, ir_ew2(g, IR_add, ir_ew2(g, IR_sub, anchor.ref, negative.ref), eps)};
  near = tt_vector_norm_at(here, near, p, TT_AXES(-1), false);
  far = tt_vector_norm_at(here, far, p, TT_AXES(-1), false);
  return formula(here, "triplet_margin", "relu(add(sub(x, y), p))", near, far, margin, 0, r);
}

/* -- Classes ------------------------------------------------------------------------------------------------------------- */

/* [N,C,*D] and integer labels [N,*D]: hot[n,c,d] says whether c is the class there. */
static ir_ref classes_hot(tt_call *c, tt_val x, tt_val y) {
  tt_dtype t = tt_dtype_of(y) == TT_I32 ? TT_I32 : TT_I64;
  return ir_ew2(c->g, IR_eq, ir_expand_dims(c->g, ir_cast(c->g, y.ref, t), 1), ir_iota(c->g, t, tt_shape_of(x), 1));
}

static ir_ref over_classes(tt_call *c, ir_ref v) {
  int axis = 1;
  return ir_reduce(c->g, IR_sum, v, &axis, 1, false);
}

tt_val tt_multi_margin_at(tt_here here, tt_val x, tt_val y, double margin, tt_reduction r) {
  OPEN("multi_margin", here, x, y);
  if (tt_rank(x) != 2 || tt_rank(y) != 1 || tt_dim(y, 0) != tt_dim(x, 0) || !tt_dtype_in(tt_dtype_of(y), TT_INT))
    WRONG("give x [N, C] and integer labels [N]", "the shapes or types do not fit");
  ir_ref hot = classes_hot(&call, x, y), zero = ir_like(g, x.ref, 0);
  ir_ref own = ir_expand_dims(g, over_classes(&call, ir_select(g, hot, x.ref, zero)), 1);
  tt_val each = trace_text(&call, "relu(add(sub(x, o), p))", (const char *const[]){"x", "o", "p"}, (const tt_val[]){x, {x.trace, own}, {0}},
                           (const double[]){0, 0, margin}, 3);
  if (!each.ref) DONE(0);
  ir_ref sum = over_classes(&call, ir_select(g, hot, zero, each.ref));
  return reduced(&call, ir_ew2(g, IR_div, sum, ir_like(g, sum, (double)tt_dim(x, 1))), r);
}

/* The loss of log-probabilities against probabilities of the same shape. */
static tt_val of_probabilities(tt_call *c, tt_val logp, tt_val y, ir_ref weight, const tt_cross_entropy_options *o) {
  ir_graph *g = c->g;
  ir_ref p = y.ref;
  double e = o->label_smoothing, classes = (double)tt_dim(logp, 1);
  if (e > 0) p = ir_ew2(g, IR_add, ir_ew2(g, IR_mul, p, ir_like(g, p, 1 - e)), ir_like(g, p, e / classes));
  ir_ref each = ir_ew2(g, IR_mul, p, logp.ref);
  if (weight) each = ir_ew2(g, IR_mul, each, weight);
  return reduced(c, ir_ew1(g, IR_neg, over_classes(c, each)), o->reduction);
}

/* The loss of log-probabilities against integer labels. Labels to ignore give 0 and do not count. */
static tt_val of_labels(tt_call *c, tt_val logp, tt_val y, ir_ref weight, const tt_cross_entropy_options *o) {
  ir_graph *g = c->g;
  ir_ref hot = classes_hot(c, logp, y), zero = ir_like(g, logp.ref, 0), count = 0;
  ir_ref each = ir_ew1(g, IR_neg, over_classes(c, ir_select(g, hot, logp.ref, zero)));
  if (weight) {
    count = over_classes(c, ir_select(g, hot, weight, zero));          /* the weight of each label */
    each = ir_ew2(g, IR_mul, each, count);
  }
  if (o->label_smoothing > 0) {
    ir_ref all = ir_ew1(g, IR_neg, over_classes(c, weight ? ir_ew2(g, IR_mul, logp.ref, weight) : logp.ref));
    each = ir_ew2(g, IR_add, ir_ew2(g, IR_mul, each, ir_like(g, each, 1 - o->label_smoothing)),
                  ir_ew2(g, IR_mul, all, ir_like(g, all, o->label_smoothing / (double)tt_dim(logp, 1))));
  }
  if (o->ignoring) {
    ir_ref counts = ir_ew2(g, IR_ne, y.ref, ir_scalar_int(g, tt_dtype_of(y), o->ignore_index));
    each = ir_select(g, counts, each, zero);
    count = count ? ir_select(g, counts, count, zero) : ir_cast(g, counts, tt_dtype_of(logp));
  }
  if (o->reduction != TT_MEAN || !count) return reduced(c, each, o->reduction);
  return (tt_val){c->t, ir_ew2(g, IR_div, reduced(c, each, TT_SUM).ref, reduced(c, count, TT_SUM).ref)};
}

/* Checks shapes and types for both kinds of targets, and gives the class weights as [1,C,1,...] (0: none). */
static bool class_loss_ok(tt_call *c, tt_val x, tt_val y, const tt_cross_entropy_options *o, bool *labels, ir_ref *weight) {
  tt_shape xs = tt_shape_of(x), ys = tt_shape_of(y), want = xs;
  char text[120];
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL))
    return trace_wrong(c, "use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x))), false;
  if (xs.rank < 2) return trace_wrong(c, "give [N, C] or [N, C, ...]", "the prediction has rank %d", xs.rank), false;
  for (int i = 1; i + 1 < xs.rank; i++) want.dim[i] = xs.dim[i + 1];
  want.rank--;
  *labels = tt_dtype_in(tt_dtype_of(y), TT_INT);
  if (*labels && !tt_shape_equal(&ys, &want))
    return trace_wrong(c, "give one integer label a row; probabilities must be of the prediction's type", "integer labels must be %s",
                       tt_type_text(tt_dtype_of(y), &want, text, sizeof text)), false;
  if (!*labels && (!tt_shape_equal(&ys, &xs) || tt_dtype_of(y) != tt_dtype_of(x)))
    return trace_wrong(c, "use tt_cast to make class numbers integers", "targets are integer labels %s, or probabilities %s",
                       tt_type_text(TT_I64, &want, text, sizeof text), tt_type_text(tt_dtype_of(x), &xs, text + 60, sizeof text - 60)), false;
  if (!(o->label_smoothing >= 0 && o->label_smoothing <= 1))
    return trace_wrong(c, "give a share from 0 to 1", "the label smoothing is %g", o->label_smoothing), false;
  if (o->ignoring && !*labels) return trace_wrong(c, "leave it out", "ignore_index does not go with probabilities"), false;
  *weight = 0;
  if (!trace_is(o->weight)) return true;
  if (o->weight.trace != c->t) return trace_wrong(c, "make the weights in this trace", "the class weights are a value of another trace"), false;
  if (!o->weight.ref) return false;
  if (tt_rank(o->weight) != 1 || tt_dim(o->weight, 0) != xs.dim[1] || tt_dtype_of(o->weight) != tt_dtype_of(x))
    return trace_wrong(c, "give one weight a class, of the prediction's type", "the class weights must be [%lld]", (long long)xs.dim[1]), false;
  tt_shape ws = {.rank = xs.rank};
  for (int i = 0; i < ws.rank; i++) ws.dim[i] = i == 1 ? xs.dim[1] : 1;
  *weight = ir_reshape(c->g, o->weight.ref, ws);
  return *weight != 0;
}

tt_val tt_nll_at(tt_here here, tt_val x, tt_val y, tt_cross_entropy_options o) {
  OPEN("nll", here, x, y);
  bool labels;
  ir_ref weight;
  if (!class_loss_ok(&call, x, y, &o, &labels, &weight)) DONE(0);
  if (!labels) WRONG("use tt_cross_entropy for probabilities", "it takes integer labels, not %s", tt_dtype_name(tt_dtype_of(y)));
  return of_labels(&call, x, y, weight, &o);
}

tt_val tt_cross_entropy_at(tt_here here, tt_val x, tt_val y, tt_cross_entropy_options o) {
  OPEN("cross_entropy", here, x, y);
  bool labels;
  ir_ref weight;
  if (!class_loss_ok(&call, x, y, &o, &labels, &weight)) DONE(0);
  const ir_node *n = ir_at(g, x.ref);
  if (n->op == IR_softmax && ir_int(n, "axis") == 1) {
    char at[200], from[200];
    trace_warn(call.t, "cross_entropy: its argument is a softmax already; the logits before it are used\n  at %s: softmax at %s\n"
                       "  fix: leave the softmax out of what is trained; cross_entropy takes logits",
               trace_place(g, g->at_origin, at, sizeof at), trace_place(g, n->origin, from, sizeof from));
    x.ref = n->args[0];
  }
  tt_val logp = {x.trace, ir_softmax(g, IR_log_softmax, x.ref, 1)};
  if (!logp.ref) DONE(0);
  return labels ? of_labels(&call, logp, y, weight, &o) : of_probabilities(&call, logp, y, weight, &o);
}
