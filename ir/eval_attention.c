/* eval_attention.c: attention and its derivatives, row by row in double: the scores of one row of q, their maximum and sum, and what
 * follows. A score that a mask forbids is -inf; the maximum is at least the lowest finite f32, so a row of those alone gives 0.
 *
 *     s = q k' * scale (+ mask)     p = exp(s - lse)     y = p v     lse = log(sum(exp(s)))
 *     ds = p (dy v' - delta) * scale     dq = ds k     dk = ds' q     dv = p' dy */
#include "eval.h"

#include <float.h>

typedef struct {
  const ev_call *c;
  double *arg[6], *mask, *scores, *out;      /* wide; scores: of one row */
  bool allows;                               /* the mask is bool */
  int64_t H, G, T, S, D, E, length, offset;  /* row t of a causal one sees columns 0 .. t + offset */
} attend;

static int64_t mask_at(const attend *a, int64_t batch, int64_t t, int64_t s) {
  const ev_call *c = a->c;
  const ir_node *q = ev_arg(c, 0), *m = ev_arg(c, (uint32_t)ir_attention_first((ir_op)c->n->op));
  int64_t index[TT_MAX_RANK], at = 0;
  index[q->rank - 1] = s, index[q->rank - 2] = t;
  for (int i = q->rank - 3; i >= 0; i--) index[i] = batch % q->dim[i], batch /= q->dim[i];
  for (int i = 0; i < m->rank; i++) at = at * m->dim[i] + (m->dim[i] == 1 ? 0 : index[i]);
  return at;
}

/* The scores of row t of head `batch` (of all of q's) with the columns of k's head. */
static void score(const attend *a, int64_t batch, int64_t head, int64_t t) {
  double scale = ir_float(a->c->n, "scale");
  bool causal = ir_int(a->c->n, "causal");
  for (int64_t s = 0; s < a->S; s++) {
    const double *q = a->arg[0] + (batch * a->T + t) * a->D, *k = a->arg[1] + (head * a->S + s) * a->D;
    double sum = 0;
    for (int64_t d = 0; d < a->D; d++) sum += q[d] * k[d];
    sum *= scale;
    if (a->mask) {
      double m = a->mask[mask_at(a, batch, t, s)];
      sum = !a->allows ? sum + m : m != 0 ? sum : -INFINITY;
    }
    a->scores[s] = s >= a->length || (causal && s > t + a->offset) ? -INFINITY : sum;
  }
}

static void one_row(const attend *a, int64_t batch, int64_t head, int64_t t) {
  ir_op op = (ir_op)a->c->n->op;
  int64_t row = batch * a->T + t;
  double scale = ir_float(a->c->n, "scale"), *p = a->scores;
  score(a, batch, head, t);
  if (op == IR_attention || op == IR_attention_lse) {
    double largest = -(double)FLT_MAX, sum = 0;
    for (int64_t s = 0; s < a->S; s++) largest = r_max(largest, p[s]);
    for (int64_t s = 0; s < a->S; s++) sum += p[s] = exp(p[s] - largest);
    if (sum < 1) sum = 1;                                /* nothing is seen; else the largest alone is 1 */
    if (op == IR_attention_lse) {
      a->out[row] = largest + log(sum);
      return;
    }
    for (int64_t s = 0; s < a->S; s++)
      for (int64_t e = 0; p[s] != 0 && e < a->E; e++) a->out[row * a->E + e] += p[s] / sum * a->arg[2][(head * a->S + s) * a->E + e];
    return;
  }
  for (int64_t s = 0; s < a->S; s++) {
    const double *v = a->arg[2] + (head * a->S + s) * a->E, *dy = a->arg[3] + row * a->E;
    double weight = exp(p[s] - r_max(a->arg[4][row], -(double)FLT_MAX)), along = 0;
    if (weight == 0) continue;
    for (int64_t e = 0; e < a->E; e++) {
      along += v[e] * dy[e];
      if (op == IR_attention_dv) a->out[(head * a->S + s) * a->E + e] += weight * dy[e];
    }
    double ds = weight * (along - a->arg[5][row]) * scale;
    for (int64_t d = 0; d < a->D; d++) {
      if (op == IR_attention_dq) a->out[row * a->D + d] += ds * a->arg[1][(head * a->S + s) * a->D + d];
      if (op == IR_attention_dk) a->out[(head * a->S + s) * a->D + d] += ds * a->arg[0][row * a->D + d];
    }
  }
}

static tt_status attention(const ev_call *c) {
  int first = ir_attention_first((ir_op)c->n->op);
  bool mask = ir_int(c->n, "mask"), live = ir_int(c->n, "length");
  const ir_node *q = ev_arg(c, 0), *k = ev_arg(c, 1);
  int r = q->rank;
  attend a = {.c = c, .H = r > 2 ? q->dim[r - 3] : 1, .G = r > 2 ? k->dim[r - 3] : 1, .T = q->dim[r - 2], .S = k->dim[r - 2], .D = q->dim[r - 1], .E = ev_arg(c, 2)->dim[r - 1]};
  a.length = live ? ev_clamp(*(const int64_t *)c->args[first + mask], 0, a.S) : a.S;
  a.offset = live ? a.length - a.T : 0;
  bool ok = true;
  for (int i = 0; ok && i < first; i++) ok = (a.arg[i] = ev_wide_arg(c, (uint32_t)i)) != NULL;
  if (ok && mask) {
    const ir_node *m = ev_arg(c, (uint32_t)first);
    a.allows = m->dtype == TT_BOOL;
    ok = (a.mask = ev_scratch(c, ev_count(m))) != NULL;
    for (int64_t i = 0; ok && i < ev_count(m); i++) a.mask[i] = ir_load_double((tt_dtype)m->dtype, c->args[first], i);
  }
  ok = ok && (a.scores = ev_scratch(c, a.S)) && (a.out = ev_scratch(c, ev_count(c->n)));
  for (int64_t batch = 0, n = ev_product(q->dim, 0, r - 2); ok && batch < n; batch++)
    for (int64_t t = 0; t < a.T; t++) one_row(&a, batch, batch / a.H * a.G + batch % a.H / (a.H / a.G), t);
  if (ok) ev_narrow((tt_dtype)c->n->dtype, a.out, ev_count(c->n), c->out, 0);
  for (int i = 0; i < 6; i++) free(a.arg[i]);
  free(a.mask), free(a.scores), free(a.out);
  return ok ? TT_OK : TT_NO_MEMORY;
}

tt_status eval_attention(const ev_call *c) { return attention(c); }
tt_status eval_attention_lse(const ev_call *c) { return attention(c); }
tt_status eval_attention_dq(const ev_call *c) { return attention(c); }
tt_status eval_attention_dk(const ev_call *c) { return attention(c); }
tt_status eval_attention_dv(const ev_call *c) { return attention(c); }
