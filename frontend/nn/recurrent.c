/* recurrent.c: networks that walk along time: a scan carries h (and c), its step is one product and the gates.
 *
 *     p = x w_ih' + b_ih, of all steps at once;  step: gates from p[t] and h w_hh' + b_hh */
#include "../frontend.h"

static const struct { const char *name; int gates, carries; } cells[] = {
  [TT_RNN_TANH] = {"rnn_tanh", 1, 1}, [TT_RNN_RELU] = {"rnn_relu", 1, 1}, [TT_GRU] = {"gru", 3, 1}, [TT_LSTM] = {"lstm", 4, 2},
};

static ir_ref gate(ir_graph *b, ir_ref z, int64_t i, int64_t hidden) {
  return ir_slice(b, z, (int64_t[]){0, i * hidden}, (int64_t[]){ir_at(b, z)->dim[0], (i + 1) * hidden}, (int64_t[]){1, 1});
}

/* One step, as a function; NULL: no memory. */
static ir_graph *step_of(tt_cell cell, tt_dtype type, int64_t n, int64_t hidden, bool bias) {
  ir_graph *b = ir_graph_new(cells[cell].name);
  if (!b) return NULL;
  int64_t all = cells[cell].gates * hidden;
  ir_ref h = ir_param(b, "h", type, TT_SHAPE(n, hidden), false), c = cell == TT_LSTM ? ir_param(b, "c", type, TT_SHAPE(n, hidden), false) : 0;
  ir_ref p = ir_input(b, "p", type, TT_SHAPE(n, all)), w = ir_input(b, "w_hh", type, TT_SHAPE(all, hidden)), q = ir_matmul(b, h, w, false, true, 1), next = 0;
  if (bias) q = ir_ew2(b, IR_add, q, ir_input(b, "b_hh", type, TT_SHAPE(all)));
  if (cell == TT_GRU) {
    ir_ref r = ir_ew1(b, IR_sigmoid, ir_ew2(b, IR_add, gate(b, p, 0, hidden), gate(b, q, 0, hidden)));
    ir_ref z = ir_ew1(b, IR_sigmoid, ir_ew2(b, IR_add, gate(b, p, 1, hidden), gate(b, q, 1, hidden)));
    ir_ref v = ir_ew1(b, IR_tanh, ir_ew2(b, IR_add, gate(b, p, 2, hidden), ir_ew2(b, IR_mul, r, gate(b, q, 2, hidden))));
    next = ir_ew2(b, IR_add, v, ir_ew2(b, IR_mul, z, ir_ew2(b, IR_sub, h, v)));
  } else {
    ir_ref s = ir_ew2(b, IR_add, p, q);
    if (cell == TT_LSTM) {
      ir_ref i = ir_ew1(b, IR_sigmoid, gate(b, s, 0, hidden)), f = ir_ew1(b, IR_sigmoid, gate(b, s, 1, hidden));
      ir_ref v = ir_ew1(b, IR_tanh, gate(b, s, 2, hidden)), o = ir_ew1(b, IR_sigmoid, gate(b, s, 3, hidden));
      ir_ref next_c = ir_ew2(b, IR_add, ir_ew2(b, IR_mul, f, c), ir_ew2(b, IR_mul, i, v));
      next = ir_ew2(b, IR_mul, o, ir_ew1(b, IR_tanh, next_c));
      ir_assign(b, c, next_c);
    } else next = ir_ew1(b, cell == TT_RNN_TANH ? IR_tanh : IR_relu, s);
  }
  ir_assign(b, h, next);
  ir_output_add(b, "y", next);
  return b;
}

tt_recurrent_state tt_f_recurrent_at(tt_here here, tt_cell cell, tt_val x, tt_val h0, tt_val c0, tt_val w_ih, tt_val w_hh, tt_val b_ih, tt_val b_hh, bool reversed) {
  tt_recurrent_state out = {{x.trace, 0}, {x.trace, 0}, {x.trace, 0}};
  tt_val given[8] = {x, w_ih, w_hh};
  int n_given = 3;
  for (int i = 0; i < 4; i++) {
    tt_val v = (tt_val[]){h0, c0, b_ih, b_hh}[i];
    if (trace_is(v)) given[n_given++] = v;
  }
  __attribute__((cleanup(trace_close))) tt_call call = trace_open(cells[cell].name, here, given, n_given);
  if (!call.g) return out;
  ir_graph *g = call.g;
  tt_dtype type = tt_dtype_of(x);
  int64_t steps = tt_dim(x, 0), n = tt_dim(x, 1), hidden = tt_dim(w_hh, 1), all = cells[cell].gates * hidden;
  tt_shape state = TT_SHAPE(n, hidden), sh = tt_shape_of(h0), sc = tt_shape_of(c0);
  const char *wrong = tt_rank(x) != 3 ? "x must be [T,N,I]" : tt_rank(w_hh) != 2 || tt_dim(w_hh, 0) != all ? "w_hh must be [gates * H, H]"
    : tt_rank(w_ih) != 2 || tt_dim(w_ih, 0) != all || tt_dim(w_ih, 1) != tt_dim(x, 2) ? "w_ih must be [gates * H, I]"
    : trace_is(b_ih) && (tt_rank(b_ih) != 1 || tt_dim(b_ih, 0) != all) ? "b_ih must be [gates * H]"
    : trace_is(b_hh) && (tt_rank(b_hh) != 1 || tt_dim(b_hh, 0) != all) ? "b_hh must be [gates * H]"
    : trace_is(h0) && !tt_shape_equal(&sh, &state) ? "h0 must be [N,H]" : cell == TT_LSTM && trace_is(c0) && !tt_shape_equal(&sc, &state) ? "c0 must be [N,H]"
    : cell != TT_LSTM && trace_is(c0) ? "only an LSTM has c" : !tt_dtype_in(type, TT_REAL) ? "it takes real numbers" : NULL;
  for (int i = 0; !wrong && i < n_given; i++)
    if (tt_dtype_of(given[i]) != type) wrong = "element types differ";
  if (wrong) { trace_wrong(&call, "x [T,N,I], w_ih [gates * H, I], w_hh [gates * H, H], biases [gates * H], states [N,H], all of one type", "%s", wrong); return out; }
  ir_graph *body = step_of(cell, type, n, hidden, trace_is(b_hh));
  int64_t f = body && !body->error.status ? ir_function_add(g, body) : -1;
  if (f < 0) {
    if (!g->error.status) tt_fail(&g->error, body && body->error.status ? body->error.status : TT_NO_MEMORY, "%s", body && body->error.status ? body->error.message : "error: no memory for a recurrent step\n  at recurrent\n  fix: free memory");
    if (body && !body->holders) ir_graph_free(body);
    return out;
  }
  ir_ref args[5], zero = ir_full(g, type, state, 0);
  uint32_t n_args = 0;
  args[n_args++] = trace_is(h0) ? h0.ref : zero;
  if (cell == TT_LSTM) args[n_args++] = trace_is(c0) ? c0.ref : zero;
  args[n_args++] = tt_f_linear(x, w_ih, b_ih).ref;
  args[n_args++] = w_hh.ref;
  if (trace_is(b_hh)) args[n_args++] = b_hh.ref;
  ir_scan_attrs a = {.body = f, .carries = cells[cell].carries, .xs = 1, .length = steps, .reversed = reversed};
  out.h.ref = ir_scan(g, args, n_args, a);
  if (cell == TT_LSTM) a.result = 1, out.c.ref = ir_scan(g, args, n_args, a);
  a.result = a.carries, out.y.ref = ir_scan(g, args, n_args, a);
  return out;
}

enum { MOST = 64 };                                      /* layers and directions */

/* State i of several; {0}: they begin with zeros. */
static tt_val part(tt_val states, int i) { return trace_is(states) ? tt_squeeze(tt_slice(states, 0, i, i + 1, 1), 0) : states; }

tt_recurrent_state tt_recurrent_at(tt_here here, tt_cell cell, tt_val x, const char *name, int64_t hidden, tt_recurrent_options o) {
  tt_recurrent_state out = {{x.trace, 0}, {x.trace, 0}, {x.trace, 0}};
  __attribute__((cleanup(trace_close))) tt_call call = trace_open(cells[cell].name, here, &x, 1);
  if (!call.g) return out;
  if (tt_rank(x) != 3 || hidden < 1 || o.layers < 0) { trace_wrong(&call, "give x [T,N,I], at least one hidden feature and one layer", "%s has rank %d, %lld features, %d layers", name, tt_rank(x), (long long)hidden, o.layers); return out; }
  int layers = o.layers ? o.layers : 1, directions = 1 + o.bidirectional, n = layers * directions;
  if (n > MOST) { trace_wrong(&call, "take fewer layers", "%s has %d layers, more than %d", name, layers, MOST / directions); return out; }
  for (int i = 0; i < 2; i++) {
    tt_val given = i ? o.c0 : o.h0;
    tt_shape s = tt_shape_of(given), want = TT_SHAPE(n, tt_dim(x, 1), hidden);
    if (!trace_is(given) || (given.trace == x.trace && !given.ref)) continue;
    if (i && cell != TT_LSTM) { trace_wrong(&call, "leave c0 out", "only an LSTM has c"); return out; }
    if (given.trace != x.trace || tt_dtype_of(given) != tt_dtype_of(x) || !tt_shape_equal(&s, &want)) {
      trace_wrong(&call, "give it [layers * directions, N, H], of x's type and trace", "%s of %s is no %s[%d,%lld,%lld]", i ? "c0" : "h0", name, tt_dtype_name(tt_dtype_of(x)), n, (long long)tt_dim(x, 1), (long long)hidden);
      return out;
    }
  }
  double bound = 1 / sqrt((double)hidden);
  tt_val h[MOST], c[MOST];
  tt_scope_push(x, name);
  out.y = x;
  for (int l = 0; l < layers; l++) {
    tt_val w[4] = {{0}}, y[2] = {{0}};
    for (int back = 0; back <= o.bidirectional; back++) {
      static const char *const names[4] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
      for (int i = 0; i < (o.no_bias ? 2 : 4); i++) {
        char full[40];
        snprintf(full, sizeof full, "%s_l%d%s", names[i], l, back ? "_reverse" : "");
        int64_t all = cells[cell].gates * hidden;
        w[i] = tt_param(x, full, i > 1 ? TT_SHAPE(all) : TT_SHAPE(all, i ? hidden : tt_dim(out.y, 2)), tt_init_uniform(-bound, bound));
      }
      int i = l * directions + back;
      tt_recurrent_state s = tt_f_recurrent_at(here, cell, out.y, part(o.h0, i), part(o.c0, i), w[0], w[1], w[2], w[3], back);
      y[back] = s.y, h[i] = s.h, c[i] = s.c;
    }
    out.y = o.bidirectional ? tt_concat(y, 2, 2) : y[0];
  }
  tt_scope_pop(x);
  out.h = tt_stack(h, n, 0);
  if (cell == TT_LSTM) out.c = tt_stack(c, n, 0);
  return out;
}
